//! The media of one call: ports of ours for every carried m-line, what each side has described, and the plan that
//! follows from both.
//!
//! An offer reserves what it needs and leaves what is agreed untouched; its answer makes a new agreement, its refusal
//! takes back what it reserved. The plan is always derived from these facts, never edited. Whether and when a plan is
//! in force is the dataplane's answer and the call's business.
//!
//! Source policy: a side whose description is known is held to it, or, by its trunk's rule, learned from the address
//! that its signalling comes from. Before a side has described itself its media is learned from that address, so that
//! early media flows. SRTP is never learned: its packets cannot be checked in passing.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use bytes::Bytes;

use crate::call::Side;
use crate::config::{MediaRealm, MediaSourceRule};
use crate::counter::Counter;
use crate::id::{CallId, RealmId};
use crate::media::plan::{MediaPace, MediaPlan, PeerMedia, SourcePolicy, StreamPlan, StreamSide};
use crate::media::ports::{PortPair, PortPool};
use crate::policy::admission::{Refusal, Saying};
use crate::rng::Rng;
use crate::sdp::anchor::{self, Crypto, Stream, Survey, survey};
use crate::sdp::offer_answer::{self, Action, Event, check_answer};
use crate::sdp::origin::LocalOrigin;
use crate::sdp::{Direction, Sdp};

/// One side of the call's media.
#[derive(Debug)]
pub struct MediaSide {
    realm: RealmId,
    bind: IpAddr,
    advertised: IpAddr,
    dscp: u8,
    rule: MediaSourceRule,
    /// Where the side's signalling comes from, or goes to as long as none has come.
    signalling: IpAddr,
    origin: LocalOrigin,
    /// Whose turn it is between this side and us.
    exchange: offer_answer::State,
    /// What the side described in the last finished exchange.
    agreed: Option<Survey>,
}

impl MediaSide {
    /// A side that has described nothing.
    pub fn new(
        realm: RealmId,
        media: Option<&MediaRealm>,
        rule: MediaSourceRule,
        signalling: IpAddr,
        rng: &mut impl Rng,
    ) -> Self {
        // A realm that the configuration does not have carries nothing: its pool does not exist either.
        let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            realm,
            bind: media.map_or(nowhere, |media| media.bind),
            advertised: media.map_or(nowhere, |media| media.advertised),
            dscp: media.map_or(0, |media| media.dscp),
            rule,
            signalling,
            origin: LocalOrigin::new(rng.next_u64()),
            exchange: offer_answer::State::default(),
            agreed: None,
        }
    }

    fn side(&self, rtp_port: u16, peer: Option<PeerMedia>, described: bool, crypto: Crypto) -> StreamSide {
        let learn = SourcePolicy::learn_from(self.signalling);
        let source = match (crypto, self.rule) {
            (Crypto::Sdes, _) => SourcePolicy::Signalled,
            (Crypto::Clear, MediaSourceRule::LearnFromSignallingAddress) => learn,
            (Crypto::Clear, MediaSourceRule::Signalled) if described => SourcePolicy::Signalled,
            (Crypto::Clear, MediaSourceRule::Signalled) => learn,
        };
        StreamSide {
            realm: self.realm,
            local_ip: self.bind,
            local_rtp_port: rtp_port,
            peer,
            source,
            dscp: self.dscp,
            rtcp_mux: false,
            pace: MediaPace::default(),
        }
    }
}

/// Ports of ours for one m-line.
#[derive(Clone, Copy, Debug)]
struct Ports {
    caller: PortPair,
    callee: PortPair,
}

impl Ports {
    const fn of(&self, side: Side) -> PortPair {
        match side {
            Side::Caller => self.caller,
            Side::Callee => self.callee,
        }
    }
}

/// An offer that has not been answered.
#[derive(Debug)]
struct Offer {
    survey: Survey,
    /// The last answer that came in a provisional response.
    early: Option<Survey>,
}

/// A description to send on, and the plan that must be in force before it leaves.
#[derive(Debug)]
pub struct Described {
    /// The body for the side across.
    pub body: Bytes,
    /// The plan. Equal to the last one if nothing changes.
    pub plan: MediaPlan,
}

/// The media of one call.
#[derive(Debug)]
pub struct CallMedia {
    call: CallId,
    caller: MediaSide,
    callee: MediaSide,
    /// By m-line. Ports stay with an m-line as long as the call does not agree to do without it.
    ports: Vec<Option<Ports>>,
    offer: Option<Offer>,
}

impl CallMedia {
    /// Nothing described, nothing reserved.
    #[must_use]
    pub const fn new(call: CallId, caller: MediaSide, callee: MediaSide) -> Self {
        Self { call, caller, callee, ports: Vec::new(), offer: None }
    }

    /// Whether an offer waits for its answer, and from whom it came.
    #[must_use]
    pub fn offer_from(&self) -> Option<Side> {
        [Side::Caller, Side::Callee].into_iter().find(|side| self.side(*side).exchange.owes_answer())
    }

    /// A description crosses both legs, or an offer ends on both. What follows on the leg of `from`, its sender.
    fn cross(&mut self, from: Side, received: Event, sent: Event) -> &'static [Action] {
        let across = self.side_mut(from.other());
        (across.exchange, _) = across.exchange.on(sent);
        let sender = self.side_mut(from);
        let (next, actions) = sender.exchange.on(received);
        sender.exchange = next;
        actions
    }

    /// Whether an exchange has been finished.
    #[must_use]
    pub const fn is_agreed(&self) -> bool {
        self.caller.agreed.is_some()
    }

    /// Whether no stream is agreed to flow both ways: on hold, or one way from the start.
    #[must_use]
    pub fn is_held(&self) -> bool {
        let two_way = |side: &MediaSide, mline: usize| {
            let stream = side.agreed.as_ref().and_then(|survey| survey.streams.get(mline));
            matches!(stream, Some(Stream::Relay { direction: Direction::SendRecv, .. }))
        };
        let mut carried =
            (0..self.ports.len()).filter(|mline| matches!(self.ports.get(*mline), Some(Some(_))));
        !carried.any(|mline| two_way(&self.caller, mline) && two_way(&self.callee, mline))
    }

    /// Takes an offer of `from`: ports for its new streams, the body for the side across, the plan for early media.
    ///
    /// # Errors
    /// How to refuse it; nothing is reserved then.
    pub fn offer(
        &mut self,
        from: Side,
        sdp: &Sdp,
        pools: &mut [PortPool],
        rng: &mut impl Rng,
        now: Instant,
    ) -> Result<Described, Saying> {
        if self.offer_from().is_some() {
            return Err(Refusal::ChangePending.saying());
        }
        let survey = survey(sdp).map_err(say)?;
        survey.require_family(self.side(from).bind).map_err(say)?;
        self.reserve(&survey, pools, rng, now)?;
        let ports = self.local_ports(from.other(), |mline| is_carried(&survey, mline));
        self.cross(from, Event::ReceiveOffer, Event::SendOffer);
        self.offer = Some(Offer { survey, early: None });
        let across = self.side_mut(from.other());
        let body = across.origin.describe(sdp, across.advertised, &ports).to_bytes();
        Ok(Described { body, plan: self.plan() })
    }

    /// Takes an answer that may still change (in a provisional response).
    ///
    /// # Errors
    /// How to refuse it; it then counts as not given.
    pub fn early_answer(&mut self, sdp: &Sdp) -> Result<Described, Saying> {
        let (from, answer) = self.read_answer(sdp)?;
        let body = self.describe_answer(from, sdp, &answer);
        let actions = self.cross(from, Event::ReceivePreview, Event::SendPreview);
        if let Some(offer) = self.offer.as_mut().filter(|_| actions.contains(&Action::Preview)) {
            offer.early = Some(answer);
        }
        Ok(Described { body, plan: self.plan() })
    }

    /// Takes the answer: what both described is agreed, ports of streams that were not accepted are given back.
    ///
    /// # Errors
    /// How to refuse it; the offer is still open then.
    pub fn answer(&mut self, sdp: &Sdp, pools: &mut [PortPool], now: Instant) -> Result<Described, Saying> {
        let (from, answer) = self.read_answer(sdp)?;
        let body = self.describe_answer(from, sdp, &answer);
        let actions = self.cross(from, Event::ReceiveAnswer, Event::SendAnswer);
        if let Some(offer) = self.offer.take().filter(|_| actions.contains(&Action::Agree)) {
            self.side_mut(from).agreed = Some(answer);
            self.side_mut(from.other()).agreed = Some(offer.survey);
        }
        self.give_back_unused(pools, now);
        Ok(Described { body, plan: self.plan() })
    }

    /// The offer was refused: what it reserved is given back. The plan that is in force again.
    pub fn refuse_offer(&mut self, pools: &mut [PortPool], now: Instant) -> MediaPlan {
        if let Some(from) = self.offer_from() {
            self.cross(from, Event::RefuseOffer, Event::OfferRefused);
        }
        self.offer = None;
        self.give_back_unused(pools, now);
        self.plan()
    }

    /// Gives back every port. Correct to call twice.
    pub fn release(&mut self, pools: &mut [PortPool], now: Instant) {
        self.refuse_offer(pools, now);
        for ports in std::mem::take(&mut self.ports).into_iter().flatten() {
            self.give_back(ports, pools, now);
        }
    }

    /// The description last sent to `side`, to be repeated.
    #[must_use]
    pub fn last_body(&self, side: Side) -> Option<Bytes> {
        self.side(side).origin.last_body()
    }

    /// What follows from everything described so far.
    #[must_use]
    pub fn plan(&self) -> MediaPlan {
        let streams = (0u8..).zip(&self.ports).filter_map(|(mline, ports)| {
            let ports = ports.as_ref()?;
            let caller = self.described(Side::Caller, usize::from(mline));
            let callee = self.described(Side::Callee, usize::from(mline));
            let crypto = match (caller, callee) {
                (Some((_, Crypto::Sdes)), _) | (_, Some((_, Crypto::Sdes))) => Crypto::Sdes,
                (Some((_, Crypto::Clear)) | None, Some((_, Crypto::Clear)) | None) => Crypto::Clear,
            };
            let side = |side: &MediaSide, pair: PortPair, described: Option<(Option<PeerMedia>, Crypto)>| {
                side.side(pair.rtp(), described.and_then(|(peer, _)| peer), described.is_some(), crypto)
            };
            Some(StreamPlan {
                mline,
                caller: side(&self.caller, ports.caller, caller),
                callee: side(&self.callee, ports.callee, callee),
            })
        });
        MediaPlan { call: self.call, streams: streams.collect() }
    }

    /// How `side` describes a stream now: as agreed, else as in the open offer and its early answer. An open offer does
    /// not move a stream that is agreed: the peer receives at the old place until the answer.
    fn described(&self, side: Side, mline: usize) -> Option<(Option<PeerMedia>, Crypto)> {
        let agreed = self.side(side).agreed.as_ref().and_then(|survey| relayed(survey, mline));
        agreed.or_else(|| {
            let offer = self.offer.as_ref()?;
            let offered = self.side(side).exchange.owes_answer();
            let survey = if offered { Some(&offer.survey) } else { offer.early.as_ref() };
            relayed(survey?, mline)
        })
    }

    fn read_answer(&self, sdp: &Sdp) -> Result<(Side, Survey), Saying> {
        let bad = || Refusal::BadAnswer.saying();
        let from = self.offer_from().ok_or_else(bad)?.other();
        let answer = survey(sdp).map_err(|_| bad())?;
        answer.require_family(self.side(from).bind).map_err(|_| bad())?;
        let sent = self.side(from).origin.last().ok_or_else(bad)?;
        check_answer(sent, sdp).map_err(|_| bad())?;
        Ok((from, answer))
    }

    fn describe_answer(&mut self, from: Side, sdp: &Sdp, answer: &Survey) -> Bytes {
        let ports = self.local_ports(from.other(), |mline| {
            let offered = self.offer.as_ref().is_some_and(|offer| is_carried(&offer.survey, mline));
            offered && is_carried(answer, mline)
        });
        let across = self.side_mut(from.other());
        across.origin.describe(sdp, across.advertised, &ports).to_bytes()
    }

    fn reserve(
        &mut self,
        survey: &Survey,
        pools: &mut [PortPool],
        rng: &mut impl Rng,
        now: Instant,
    ) -> Result<(), Saying> {
        let before = self.ports.clone();
        self.ports.resize(survey.streams.len().max(self.ports.len()), None);
        for mline in (0..survey.streams.len()).filter(|mline| is_carried(survey, *mline)) {
            if self.ports.get(mline).is_some_and(Option::is_some) {
                continue;
            }
            let Some(ports) = self.draw(pools, rng, now) else {
                let after = std::mem::replace(&mut self.ports, before);
                for (mline, ports) in after.into_iter().enumerate() {
                    let kept = self.ports.get(mline).is_some_and(Option::is_some);
                    if let Some(ports) = ports.filter(|_| !kept) {
                        self.give_back(ports, pools, now);
                    }
                }
                return Err(Refusal::PortsExhausted.saying());
            };
            if let Some(slot) = self.ports.get_mut(mline) {
                *slot = Some(ports);
            }
        }
        Ok(())
    }

    fn draw(&self, pools: &mut [PortPool], rng: &mut impl Rng, now: Instant) -> Option<Ports> {
        let caller = pools.get_mut(usize::from(self.caller.realm.0))?.allocate(rng, now)?;
        match pools.get_mut(usize::from(self.callee.realm.0))?.allocate(rng, now) {
            Some(callee) => Some(Ports { caller, callee }),
            None => {
                if let Some(pool) = pools.get_mut(usize::from(self.caller.realm.0)) {
                    pool.release(caller, now);
                }
                None
            }
        }
    }

    /// Gives back the ports of streams that no agreement carries.
    fn give_back_unused(&mut self, pools: &mut [PortPool], now: Instant) {
        for mline in 0..self.ports.len() {
            let carried = [&self.caller, &self.callee]
                .into_iter()
                .all(|side| side.agreed.as_ref().is_some_and(|survey| is_carried(survey, mline)));
            if !carried && let Some(ports) = self.ports.get_mut(mline).and_then(Option::take) {
                self.give_back(ports, pools, now);
            }
        }
    }

    fn give_back(&self, ports: Ports, pools: &mut [PortPool], now: Instant) {
        for (side, pair) in [(&self.caller, ports.caller), (&self.callee, ports.callee)] {
            if let Some(pool) = pools.get_mut(usize::from(side.realm.0)) {
                pool.release(pair, now);
            }
        }
    }

    fn local_ports(&self, side: Side, carried: impl Fn(usize) -> bool) -> Vec<Option<u16>> {
        let ports = self.ports.iter().enumerate();
        ports
            .map(|(mline, ports)| ports.as_ref().filter(|_| carried(mline)).map(|ports| ports.of(side).rtp()))
            .collect()
    }

    const fn side(&self, side: Side) -> &MediaSide {
        match side {
            Side::Caller => &self.caller,
            Side::Callee => &self.callee,
        }
    }

    const fn side_mut(&mut self, side: Side) -> &mut MediaSide {
        match side {
            Side::Caller => &mut self.caller,
            Side::Callee => &mut self.callee,
        }
    }
}

fn relayed(survey: &Survey, mline: usize) -> Option<(Option<PeerMedia>, Crypto)> {
    match survey.streams.get(mline)? {
        Stream::Relay { peer, crypto, .. } => Some((*peer, *crypto)),
        Stream::Disabled | Stream::Reject => None,
    }
}

fn is_carried(survey: &Survey, mline: usize) -> bool {
    relayed(survey, mline).is_some()
}

/// How the refusal of an offer is told.
fn say(refusal: anchor::Refusal) -> Saying {
    let saying = Saying {
        status: 488,
        phrase: "Not Acceptable Here",
        warning: None,
        retry_after_seconds: None,
        counter: Counter::RefusedSdp,
        cause: "session description not acceptable",
    };
    saying.with_warning(refusal.warn_code(), refusal.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rng::SeededRng;

    struct Bench {
        media: CallMedia,
        pools: Vec<PortPool>,
        rng: SeededRng,
        now: Instant,
    }

    impl Bench {
        #[allow(clippy::disallowed_methods)] // Any instant will do as the origin; one cannot be made otherwise.
        fn new(pairs: u16, rule: MediaSourceRule) -> Self {
            let mut rng = SeededRng::new(3);
            let mut side = |realm, ip: &str, rule| {
                let media = MediaRealm {
                    bind: ip.parse().unwrap(),
                    advertised: ip.parse().unwrap(),
                    ports: 20000..=20000 + 2 * pairs - 1,
                    quarantine: Duration::ZERO,
                    dscp: 46,
                };
                let pool = PortPool::new(&media.ports, media.quarantine);
                let signalling = ip.replace(".1", ".9").parse().unwrap();
                (MediaSide::new(RealmId(realm), Some(&media), rule, signalling, &mut rng), pool)
            };
            let (caller, caller_pool) = side(0, "192.0.2.1", rule);
            let (callee, callee_pool) = side(1, "10.0.0.1", MediaSourceRule::Signalled);
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
        let mut bench = Bench::new(4, MediaSourceRule::Signalled);
        let offered =
            bench.offer(Side::Caller, &sdp("192.0.2.50", &[("audio", 4000), ("video", 4002)])).unwrap();
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
        let mut bench = Bench::new(4, MediaSourceRule::Signalled);
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
        let mut bench = Bench::new(2, MediaSourceRule::Signalled);
        bench.offer(Side::Caller, &sdp("192.0.2.50", &[("audio", 4000)])).unwrap();
        bench.answer(&sdp("10.0.0.50", &[("audio", 5000)])).unwrap();
        let three = [("audio", 4000), ("video", 4002), ("video", 4004)];
        let refused = bench.offer(Side::Caller, &sdp("192.0.2.50", &three)).unwrap_err();
        assert_eq!((refused.status, bench.held()), (503, 2));
    }

    #[test]
    fn hold_by_address_sends_nothing_there() {
        let mut bench = Bench::new(1, MediaSourceRule::Signalled);
        bench.offer(Side::Caller, &sdp("192.0.2.50", &[("audio", 4000)])).unwrap();
        bench.answer(&sdp("10.0.0.50", &[("audio", 5000)])).unwrap();
        bench.offer(Side::Caller, &sdp("0.0.0.0", &[("audio", 4000)])).unwrap();
        let held = bench.answer(&sdp("10.0.0.50", &[("audio", 5000)])).unwrap().plan;
        assert_eq!(
            (held.streams[0].caller.peer, held.streams[0].caller.source),
            (None, SourcePolicy::Signalled)
        );
    }

    #[test]
    fn one_offer_at_a_time_from_whichever_side() {
        for second in [Side::Caller, Side::Callee] {
            let mut bench = Bench::new(9, MediaSourceRule::Signalled);
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
        let mut bench = Bench::new(2, MediaSourceRule::Signalled);
        assert_eq!(bench.answer(&sdp("10.0.0.50", &[("audio", 5000)])).unwrap_err().status, 502);
        bench.offer(Side::Caller, &sdp("192.0.2.50", &[("audio", 4000)])).unwrap();
        for streams in [&[][..], &[("video", 5000)], &[("audio", 5000), ("audio", 5002)]] {
            assert_eq!(bench.answer(&sdp("10.0.0.50", streams)).unwrap_err().status, 502, "{streams:?}");
        }
        bench.answer(&sdp("10.0.0.50", &[("audio", 5000)])).unwrap();
    }

    #[test]
    fn an_address_of_the_other_family_is_refused_with_a_warning() {
        let mut bench = Bench::new(1, MediaSourceRule::Signalled);
        let v6 = "v=0\r\no=- 1 1 IN IP6 2001:db8::1\r\ns=-\r\nc=IN IP6 2001:db8::1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
        let refused = bench.offer(Side::Caller, v6).unwrap_err();
        assert_eq!((refused.status, refused.warning.unwrap().0, bench.held()), (488, 301, 0));
    }
}
