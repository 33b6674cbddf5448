//! Offers, answers, ports and plans of one call.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::*;
use crate::config::{MediaRealm, TrunkMedia};
use crate::id::RealmId;
use crate::media::plan::SourcePolicy;
use crate::rng::SeededRng;

struct Bench {
    media: CallMedia,
    pools: Vec<PortPool>,
    rng: SeededRng,
    now: Instant,
}

impl Bench {
    #[allow(clippy::disallowed_methods)] // Any instant will do as the origin; one cannot be made otherwise.
    fn new(pairs: u16) -> Self {
        let mut rng = SeededRng::new(3);
        let mut side = |realm, ip: &str| {
            let media = MediaRealm {
                bind: ip.parse().unwrap(),
                advertised: ip.parse().unwrap(),
                ports: 20000..=20000 + 2 * pairs - 1,
                quarantine: Duration::ZERO,
                dscp_audio: 46,
                dscp_video: 34,
                rate_factor: 3,
            };
            let pool = PortPool::new(&media.ports, media.quarantine);
            let signalling = ip.replace(".1", ".9").parse().unwrap();
            let rules = TrunkMedia::default();
            (MediaSide::new(RealmId(realm), Some(&media), rules, signalling, &mut rng), pool)
        };
        let (caller, caller_pool) = side(0, "192.0.2.1");
        let (callee, callee_pool) = side(1, "10.0.0.1");
        Self {
            media: CallMedia::new(CallId(1), caller, callee),
            pools: vec![caller_pool, callee_pool],
            rng,
            now: Instant::now(),
        }
    }

    fn offer(&mut self, from: Side, sdp: &str) -> Result<Described, Saying> {
        self.media.offer(from, &parse(sdp), &mut self.pools, &mut self.rng, self.now)
    }

    fn answer(&mut self, sdp: &str) -> Result<Described, Saying> {
        self.media.answer(&parse(sdp), &mut self.pools, self.now)
    }

    fn held(&self) -> usize {
        self.pools.iter().map(PortPool::in_use).sum()
    }
}

fn parse(sdp: &str) -> Sdp {
    Sdp::parse(sdp.as_bytes()).unwrap()
}

fn sdp(ip: &str, streams: &[(&str, u16)]) -> String {
    let mut out = format!("v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n");
    for (kind, port) in streams {
        out += &format!("m={kind} {port} RTP/AVP 96\r\n");
    }
    out
}

const LEARN_CALLEE: SourcePolicy = SourcePolicy::learn_from(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)));

#[test]
fn an_answer_decides_which_streams_keep_their_ports() {
    let mut bench = Bench::new(4);
    let offered = bench.offer(Side::Caller, &sdp("192.0.2.50", &[("audio", 4000), ("video", 4002)])).unwrap();
    assert_eq!((bench.held(), offered.plan.streams.len()), (4, 2));
    assert_eq!(offered.plan.streams[0].callee.source, LEARN_CALLEE);
    let early =
        bench.media.early_answer(&parse(&sdp("10.0.0.50", &[("audio", 5000), ("video", 5002)]))).unwrap();
    assert_eq!(early.plan.streams[1].callee.peer.unwrap().rtp.port(), 5002);
    let answered = bench.answer(&sdp("10.0.0.50", &[("audio", 5004), ("video", 0)])).unwrap();
    assert_eq!((bench.held(), answered.plan.streams.len()), (2, 1));
    assert_eq!(answered.plan.streams[0].callee.peer.unwrap().rtp.port(), 5004);
    assert_eq!(answered.plan.streams[0].callee.source, SourcePolicy::Signalled);
    assert!(String::from_utf8_lossy(&answered.body).contains("m=video 0 "));
    bench.media.release(&mut bench.pools, bench.now);
    bench.media.release(&mut bench.pools, bench.now);
    assert_eq!(bench.held(), 0);
}

#[test]
fn an_open_offer_moves_nothing_that_is_agreed_and_its_refusal_takes_it_back() {
    let mut bench = Bench::new(4);
    bench.offer(Side::Caller, &sdp("192.0.2.50", &[("audio", 4000)])).unwrap();
    let agreed = bench.answer(&sdp("10.0.0.50", &[("audio", 5000)])).unwrap().plan;
    let open =
        bench.offer(Side::Callee, &sdp("10.0.0.51", &[("audio", 5010), ("video", 5012)])).unwrap().plan;
    assert_eq!(open.streams[0], agreed.streams[0]);
    assert_eq!(open.streams[1].callee.peer.unwrap().rtp.port(), 5012);
    assert_eq!(bench.media.refuse_offer(&mut bench.pools, bench.now), agreed);
    assert_eq!(bench.held(), 2);
    bench.offer(Side::Callee, &sdp("10.0.0.51", &[("audio", 5010)])).unwrap();
    let moved = bench.answer(&sdp("192.0.2.50", &[("audio", 4000)])).unwrap().plan;
    assert_eq!(moved.streams[0].callee.peer.unwrap().rtp, "10.0.0.51:5010".parse().unwrap());
    assert_eq!(moved.streams[0].callee.local_rtp_port, agreed.streams[0].callee.local_rtp_port);
}

#[test]
fn without_room_for_all_streams_none_is_taken() {
    let mut bench = Bench::new(2);
    bench.offer(Side::Caller, &sdp("192.0.2.50", &[("audio", 4000)])).unwrap();
    bench.answer(&sdp("10.0.0.50", &[("audio", 5000)])).unwrap();
    let three = [("audio", 4000), ("video", 4002), ("video", 4004)];
    let refused = bench.offer(Side::Caller, &sdp("192.0.2.50", &three)).unwrap_err();
    assert_eq!((refused.status, bench.held()), (503, 2));
}

#[test]
fn hold_by_address_sends_nothing_there() {
    let mut bench = Bench::new(1);
    bench.offer(Side::Caller, &sdp("192.0.2.50", &[("audio", 4000)])).unwrap();
    bench.answer(&sdp("10.0.0.50", &[("audio", 5000)])).unwrap();
    bench.offer(Side::Caller, &sdp("0.0.0.0", &[("audio", 4000)])).unwrap();
    let held = bench.answer(&sdp("10.0.0.50", &[("audio", 5000)])).unwrap().plan;
    assert_eq!((held.streams[0].caller.peer, held.streams[0].caller.source), (None, SourcePolicy::Signalled));
}

#[test]
fn one_offer_at_a_time_from_whichever_side() {
    for second in [Side::Caller, Side::Callee] {
        let mut bench = Bench::new(9);
        bench.offer(Side::Caller, &sdp("192.0.2.50", &[("audio", 4000)])).unwrap();
        let held = bench.held();
        let refused =
            bench.offer(second, &sdp("192.0.2.50", &[("audio", 4000), ("video", 4002)])).unwrap_err();
        assert_eq!((refused.status, bench.held()), (500, held));
        assert_eq!(bench.media.offer_from(), Some(Side::Caller));
        bench.media.refuse_offer(&mut bench.pools, bench.now);
        assert_eq!(bench.media.offer_from(), None);
        bench.offer(Side::Caller, &sdp("192.0.2.50", &[("audio", 4000)])).unwrap();
    }
}

#[test]
fn an_answer_must_fit_its_offer() {
    let mut bench = Bench::new(2);
    assert_eq!(bench.answer(&sdp("10.0.0.50", &[("audio", 5000)])).unwrap_err().status, 502);
    bench.offer(Side::Caller, &sdp("192.0.2.50", &[("audio", 4000)])).unwrap();
    for streams in [&[][..], &[("video", 5000)], &[("audio", 5000), ("audio", 5002)]] {
        assert_eq!(bench.answer(&sdp("10.0.0.50", streams)).unwrap_err().status, 502, "{streams:?}");
    }
    bench.answer(&sdp("10.0.0.50", &[("audio", 5000)])).unwrap();
}

#[test]
fn an_address_of_the_other_family_is_refused_with_a_warning() {
    let mut bench = Bench::new(1);
    let v6 = "v=0\r\no=- 1 1 IN IP6 2001:db8::1\r\ns=-\r\nc=IN IP6 2001:db8::1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
    let refused = bench.offer(Side::Caller, v6).unwrap_err();
    assert_eq!((refused.status, refused.warning.unwrap().0, bench.held()), (488, 301, 0));
}
