//! Whole calls through the daemon's loop: real sockets on loopback, the real engine, media through the relay.

// Whatever is not as expected ends the test, in helpers as well.
#![allow(clippy::unwrap_used)]

mod peer;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sbc_core::engine::Engine;
use sbc_user::admin::Asker;
use sbc_user::admin::dto::{Calls, Record};
use sbc_user::admin::{Answer, dto};
use sbc_user::clock::{SystemRng, now};
use sbc_user::config::{Config, OtherHost};
use sbc_user::dataplane::Figures;
use sbc_user::dataplane::relay::Relay;
use sbc_user::eventloop::{EventLoop, Inlets, Readiness, Signal};
use sbc_user::record_sink::RecordSink;
use sbc_user::store::Journal;
use sbc_user::store::memory::Memory;
use sbc_user::transport::Transports;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use peer::{Message, PATIENCE, Peer, with_body};

/// Addresses and files that no other test uses.
struct Place {
    directory: PathBuf,
    hosts: [Ipv4Addr; 4],
    authority: Vec<u8>,
}

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let host = |index: u32| Ipv4Addr::new(127, high, low, u8::try_from(number * 8 + index + 1).unwrap());
        let directory = std::env::temp_dir().join(format!("sbc-whole-call-{}-{number}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["sbc.example".to_owned()]).unwrap();
        std::fs::write(directory.join("cert.pem"), cert.pem()).unwrap();
        std::fs::write(directory.join("key.pem"), signing_key.serialize_pem()).unwrap();
        Self { directory, hosts: [host(0), host(1), host(2), host(3)], authority: cert.pem().into_bytes() }
    }

    fn outside(&self) -> Ipv4Addr {
        self.hosts[0]
    }

    fn inside(&self) -> Ipv4Addr {
        self.hosts[1]
    }

    fn caller(&self) -> SocketAddr {
        (self.hosts[2], 5060).into()
    }

    fn pbx(&self) -> SocketAddr {
        (self.hosts[3], 5060).into()
    }

    /// A socket for RTP of one of the peers.
    async fn rtp(&self, host: usize) -> UdpSocket {
        UdpSocket::bind((self.hosts[host], 40_000)).await.unwrap()
    }

    fn config(&self, public: &str, daemon: &str) -> Config {
        let [outside, inside, caller, _] = self.hosts;
        let text = format!(
            "[public]\nbind = \"{outside}\"\npeers = \"{caller}\"\n{public}\n\
             [private]\nbind = \"{inside}\"\nudp = 5060\npbx = \"{}\"\n\
             [daemon]\nrecord = \"calls.jsonl\"\n{daemon}\n",
            self.pbx()
        );
        match Config::parse(&self.directory.join("sbc.toml"), &text, &OtherHost) {
            Ok((config, _)) => config,
            Err(report) => panic!("{report}"),
        }
    }

    fn records(&self) -> Vec<Record> {
        let text = std::fs::read_to_string(self.directory.join("calls.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// What a test tells the daemon besides SIP.
struct Controls {
    signals: mpsc::Sender<Signal>,
    asker: Asker,
}

impl Controls {
    async fn stop(&self) {
        self.signals.send(Signal::Stop).await.unwrap();
    }

    async fn calls(&self) -> Calls {
        match self.asker.ask(sbc_core::command::Command::Calls).await {
            Some(Answer::Calls(calls)) => dto::Calls::new(&calls, now().wall),
            other => panic!("{other:?}"),
        }
    }
}

/// Runs a scenario beside the daemon's loop; both must end, the loop because the scenario told it to stop.
async fn with_sbc<Scenario: Future<Output = ()>>(
    config: &Config,
    scenario: impl FnOnce(Controls) -> Scenario,
) {
    let relay = Relay::start().unwrap();
    let (transports, transport) = Transports::bind(config).unwrap();
    let media = Readiness::new([std::os::fd::AsFd::as_fd(&relay)]).unwrap();
    let (asker, questions) = Asker::new();
    let (signals, signal_inlet) = mpsc::channel(4);
    let mut engine_config = config.engine.clone();
    engine_config.epoch = 1;
    let engine = Engine::new(engine_config, SystemRng, now());
    let records = RecordSink::open(&config.daemon.record).unwrap();
    let journal = Journal::start(Memory::default()).unwrap();
    let event_loop = EventLoop::new(
        engine,
        relay,
        |_| Figures::default(),
        transports,
        records,
        journal,
        config.daemon.stop_grace,
    );
    let run = event_loop.run(Inlets { transport, questions, signals: signal_inlet, media });
    let run = tokio::time::timeout(3 * PATIENCE, run);
    let (remains, ()) = tokio::join!(run, scenario(Controls { signals, asker }));
    let mut remains = remains.expect("the loop ends when it is told to");
    tokio::select! {
        () = remains.transports.shutdown() => {}
        () = async { while remains.transport_events.recv().await.is_some() {} } => {}
    }
    assert_eq!(sbc_user::dataplane::Dataplane::snapshot(&remains.dataplane), [], "media is left behind");
}

fn sdp(media: SocketAddr) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 8 0\r\n\
         a=rtpmap:8 PCMA/8000\r\na=sendrecv\r\n",
        ip = media.ip(),
        port = media.port()
    )
}

fn invite(caller: &Peer, sbc: SocketAddr, media: SocketAddr) -> String {
    let (local, transport) = (caller.local(), caller.transport());
    let parameter = transport.to_lowercase();
    format!(
        "INVITE sip:200@{sbc};transport={parameter} SIP/2.0\r\n\
         Via: SIP/2.0/{transport} {local};branch=z9hG4bK-invite;rport\r\nMax-Forwards: 70\r\n\
         From: \"Hundred\" <sip:100@{local}>;tag=caller\r\nTo: <sip:200@{sbc}>\r\nCall-ID: first@{local}\r\n\
         CSeq: 1 INVITE\r\nContact: <sip:100@{local};transport={parameter}>\r\nAllow: INVITE, ACK, BYE, CANCEL\r\n{}",
        with_body(&sdp(media))
    )
}

/// A request of the caller inside the dialog that `answered` made.
fn inside(caller: &Peer, answered: &Message, method: &str, cseq: u32) -> String {
    let (local, transport) = (caller.local(), caller.transport());
    let mut routes = answered.all("Record-Route");
    routes.reverse();
    let routes: String = routes.iter().map(|route| format!("Route: {route}\r\n")).collect();
    format!(
        "{method} {} SIP/2.0\r\nVia: SIP/2.0/{transport} {local};branch=z9hG4bK-{method};rport\r\n{routes}\
         Max-Forwards: 70\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n",
        answered.uri("Contact"),
        answered.one("From"),
        answered.one("To"),
        answered.one("Call-ID"),
    )
}

fn rtp(sequence: u8) -> [u8; 20] {
    let mut packet = [0xd5; 20];
    packet[..12].copy_from_slice(&[0x80, 8, 0, sequence, 0, 0, 0, sequence, 1, 2, 3, 4]);
    packet
}

async fn hears(socket: &UdpSocket, from: SocketAddr, packet: &[u8]) {
    let mut buffer = [0; 2048];
    let (length, source) =
        tokio::time::timeout(PATIENCE, socket.recv_from(&mut buffer)).await.expect("RTP").unwrap();
    assert_eq!((&buffer[..length], source), (packet, from));
}

/// The called side: takes the call and tells where the SBC receives its media.
async fn take(pbx: &mut Peer, media: SocketAddr) -> Message {
    let offered = pbx.expect("INVITE ").await;
    let contact = format!("Contact: <sip:200@{}>", pbx.local());
    pbx.send(&offered.answer("180 Ringing", "callee", std::slice::from_ref(&contact), "")).await;
    pbx.send(&offered.answer("200 OK", "callee", &[contact], &sdp(media))).await;
    offered
}

/// A call is up: what the caller and the PBX have of it.
struct Up {
    caller: Peer,
    pbx: Peer,
    answered: Message,
    offered: Message,
    caller_rtp: UdpSocket,
    pbx_rtp: UdpSocket,
}

async fn establish(place: &Place, mut caller: Peer, sbc: SocketAddr) -> Up {
    let mut pbx = Peer::udp(place.pbx(), (place.inside(), 5060).into()).await;
    let (caller_rtp, pbx_rtp) = (place.rtp(2).await, place.rtp(3).await);
    caller.send(&invite(&caller, sbc, caller_rtp.local_addr().unwrap())).await;
    let offered = take(&mut pbx, pbx_rtp.local_addr().unwrap()).await;
    caller.expect("SIP/2.0 180").await;
    let answered = caller.expect("SIP/2.0 200").await;
    caller.send(&inside(&caller, &answered, "ACK", 1)).await;
    pbx.expect("ACK ").await;
    Up { caller, pbx, answered, offered, caller_rtp, pbx_rtp }
}

/// Five packets each way.
async fn talk(up: &Up) {
    let (outside, inside) = (up.answered.media(), up.offered.media());
    for sequence in 1..=5 {
        up.caller_rtp.send_to(&rtp(sequence), outside).await.unwrap();
        hears(&up.pbx_rtp, inside, &rtp(sequence)).await;
        up.pbx_rtp.send_to(&rtp(sequence), inside).await.unwrap();
        hears(&up.caller_rtp, outside, &rtp(sequence)).await;
    }
}

async fn whole_call(place: &Place, caller: Peer, sbc: SocketAddr, controls: &Controls) {
    let mut up = establish(place, caller, sbc).await;

    // What the inside sees has nothing of the outside, and the other way round.
    for hidden in [place.caller().ip(), place.outside().into()] {
        assert!(!up.offered.0.contains(&hidden.to_string()), "{}", up.offered.0);
    }
    for hidden in [place.pbx().ip(), place.inside().into()] {
        assert!(!up.answered.0.contains(&hidden.to_string()), "{}", up.answered.0);
    }
    assert_eq!(up.offered.media().ip(), place.inside());
    assert_eq!(up.answered.media().ip(), place.outside());

    talk(&up).await;
    let calls = controls.calls().await;
    assert_eq!(calls.calls.len(), 1);
    assert_eq!(calls.calls[0].state, "answered");
    let stream = &calls.calls[0].streams[0];
    assert_eq!(
        (stream.path.as_deref(), stream.from_caller.rtp_relay, stream.from_callee.rtp_relay),
        (Some("relay"), 5, 5)
    );

    up.caller.send(&inside(&up.caller, &up.answered, "BYE", 2)).await;
    let bye = up.pbx.expect("BYE ").await;
    up.pbx.send(&bye.answer("200 OK", "callee", &[], "")).await;
    up.caller.expect("SIP/2.0 200").await;
    controls.stop().await;
}

fn assert_one_record(place: &Place, ended_by: &str) {
    let records = place.records();
    assert_eq!(records.len(), 1);
    let record = &records[0];
    assert_eq!((record.status, record.ended_by.as_str()), (200, ended_by));
    let [media] = &record.media[..] else { panic!("{record:?}") };
    assert_eq!((media.from_caller.rtp_relay, media.from_callee.rtp_relay), (5, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_over_udp() {
    let place = Place::new();
    let config = place.config("udp = 5060", "");
    let sbc = (place.outside(), 5060).into();
    with_sbc(&config, async |controls| {
        let caller = Peer::udp(place.caller(), sbc).await;
        whole_call(&place, caller, sbc, &controls).await;
    })
    .await;
    assert_one_record(&place, "caller");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_from_tls_to_udp() {
    let place = Place::new();
    let config = place.config("tls = 5063\ncertificate = \"cert.pem\"\nkey = \"key.pem\"", "");
    let sbc = (place.outside(), 5063).into();
    with_sbc(&config, async |controls| {
        let caller = Peer::tls(place.caller(), sbc, &place.authority).await;
        whole_call(&place, caller, sbc, &controls).await;
    })
    .await;
    assert_one_record(&place, "caller");
}

/// The looks at the relay's counters and the engine's clock are the daemon's own, so the second is a real one.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_falls_silent_ends_on_both_sides() {
    let place = Place::new();
    let config = place.config("udp = 5060", "[limits]\nmedia_timeout_seconds = 1");
    let sbc = (place.outside(), 5060).into();
    with_sbc(&config, async |controls| {
        let caller = Peer::udp(place.caller(), sbc).await;
        let mut up = establish(&place, caller, sbc).await;
        let talking = Instant::now();
        talk(&up).await;
        for (peer, tag) in [(&mut up.caller, "caller"), (&mut up.pbx, "callee")] {
            let bye = peer.expect("BYE ").await;
            assert!(talking.elapsed() >= Duration::from_secs(1), "{:?}", talking.elapsed());
            assert_eq!(bye.one("Reason"), "Q.850;cause=102;text=\"Media timeout\"");
            peer.send(&bye.answer("200 OK", tag, &[], "")).await;
        }
        controls.stop().await;
    })
    .await;
    assert_one_record(&place, "sbc");
    assert_eq!(place.records()[0].cause, "Q.850;cause=102;text=\"Media timeout\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_refuses_new_calls_and_hangs_up_when_its_patience_ends() {
    let place = Place::new();
    let config = place.config("udp = 5060", "stop_grace_seconds = 3600");
    let sbc: SocketAddr = (place.outside(), 5060).into();
    with_sbc(&config, async |controls| {
        let caller = Peer::udp(place.caller(), sbc).await;
        let mut up = establish(&place, caller, sbc).await;
        talk(&up).await;

        controls.stop().await;
        let another = invite(&up.caller, sbc, up.caller_rtp.local_addr().unwrap());
        up.caller.send(&another.replace("first@", "second@").replace("-invite", "-second")).await;
        let refused = up.caller.expect("SIP/2.0 503").await;
        assert_eq!(refused.all("Retry-After").len(), 1, "{}", refused.0);
        talk(&up).await;

        // The second signal: now.
        controls.stop().await;
        for peer in [&mut up.caller, &mut up.pbx] {
            let bye = peer.expect("BYE ").await;
            peer.send(&bye.answer("200 OK", "x", &[], "")).await;
        }
    })
    .await;
    let records = place.records();
    let answered = records.iter().find(|record| record.status == 200).unwrap();
    assert_eq!(answered.ended_by, "sbc");
    assert_eq!(answered.media[0].from_caller.rtp_relay, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_do_not_answer_our_farewell_do_not_keep_the_daemon() {
    let place = Place::new();
    let config = place.config("udp = 5060", "stop_grace_seconds = 0");
    let sbc: SocketAddr = (place.outside(), 5060).into();
    with_sbc(&config, async |controls| {
        let caller = Peer::udp(place.caller(), sbc).await;
        let mut up = establish(&place, caller, sbc).await;
        talk(&up).await;
        controls.stop().await;
        up.caller.expect("BYE ").await;
        up.pbx.expect("BYE ").await;
        controls.stop().await;
    })
    .await;
    assert_one_record(&place, "sbc");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_gets_no_answer() {
    let place = Place::new();
    let config = place.config("udp = 5060", "");
    let sbc: SocketAddr = (place.outside(), 5060).into();
    with_sbc(&config, async |controls| {
        let mut stranger = Peer::udp((place.hosts[3], 5070).into(), sbc).await;
        let media = (place.hosts[3], 40_000).into();
        stranger.send(&invite(&stranger, sbc, media)).await;
        // What comes after it on the same socket is answered, so the stranger's was seen before.
        let mut caller = Peer::udp(place.caller(), sbc).await;
        let options = invite(&caller, sbc, media).replace("INVITE", "OPTIONS");
        caller.send(&options).await;
        caller.expect("SIP/2.0 ").await;
        let Peer::Udp { socket, .. } = stranger else { unreachable!("it came by UDP") };
        let nothing = socket.into_std().unwrap().recv(&mut [0; 2048]);
        assert_eq!(nothing.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        controls.stop().await;
    })
    .await;
}
