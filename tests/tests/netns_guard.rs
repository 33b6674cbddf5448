//! A flood in front of a real `sbcd` in namespaces: it ends in the kernel, calls go on, and an operator sees who it was.

#![allow(clippy::unwrap_used, reason = "a test file")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use sbc_tests::netns::{End, Namespace, connect};
use sbc_tests::pcap::Capture;
use sbc_tests::process::Scratch;
use sbc_tests::rtp::{self, Side};
use sbc_tests::sbc::{Networks, OUTSIDE, PBX, SBC_INSIDE, SBC_OUTSIDE, SIP, Sbcd, binaries};
use sbc_tests::sipp::{ANSWER_WITH_AUDIO, Answering, Batch, CALL_WITH_AUDIO, Calling, Outcome};
use sbc_tests::{is_root, skip};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);
/// Sources that nobody knows, beside the carrier in its network.
const FLOODER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 66));
const BYSTANDER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 67));
/// On the allow list, and no trunk.
const ALLOWED: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 68));
const THRESHOLD: u64 = 50;
const CONNECTIONS: u64 = 10;
const FLOOD: u64 = 20_000;
const REQUEST: &[u8] = b"OPTIONS sip:a@198.51.100.1 SIP/2.0\r\n\
    Via: SIP/2.0/UDP 198.51.100.66:5060;branch=z9hG4bK1\r\nFrom: <sip:x@198.51.100.66>;tag=1\r\n\
    To: <sip:a@198.51.100.1>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n";

struct Bench {
    sbcd: Sbcd,
    binaries: PathBuf,
    networks: Networks,
    scratch: Scratch,
}

impl Bench {
    fn start(test: &str) -> Option<Self> {
        let sides = format!(
            "[guard]\n\
             dos_threshold = {THRESHOLD}\n\
             dos_window_seconds = 10\n\
             connections = {CONNECTIONS}\n\
             retention = \"5 min\"\n\
             allow = [\"{ALLOWED}\"]\n\
             \n\
             [public]\n\
             bind = \"{SBC_OUTSIDE}\"\n\
             udp = {SIP}\n\
             tcp = {SIP}\n\
             peers = [\"{OUTSIDE}/32\"]\n\
             next_hop = \"udp:{OUTSIDE}:{SIP}\"\n\
             \n\
             [private]\n\
             bind = \"{SBC_INSIDE}\"\n\
             udp = {SIP}\n\
             pbx = \"udp:{PBX}:{SIP}\"\n",
        );
        Self::start_with(test, &sides, |_| ())
    }

    /// With a network that is not quite the usual one.
    fn start_with(test: &str, sides: &str, change: impl FnOnce(&Networks)) -> Option<Self> {
        if !is_root() {
            skip(test, "needs root");
            return None;
        }
        let binaries = match binaries() {
            Ok(binaries) => binaries,
            Err(error) => {
                skip(test, &format!("{error:#}"));
                return None;
            }
        };
        let scratch = Scratch::create("guard").unwrap();
        let networks = Networks::create().unwrap();
        for stranger in [FLOODER, BYSTANDER, ALLOWED] {
            let address = format!("{stranger}/24");
            networks.outside.run("ip", &["address", "add", &address, "dev", "outside0"]).unwrap();
        }
        change(&networks);
        let sbcd = Sbcd::start_with(&networks, &binaries, sides, &scratch).unwrap();
        Some(Self { sbcd, binaries, networks, scratch })
    }

    /// Sends requests over UDP, as fast as it goes.
    fn flood(&self, from: IpAddr, requests: u64) {
        let sent = self.networks.outside.enter(|| {
            let socket = UdpSocket::bind((from, 0)).unwrap();
            for _ in 0..requests {
                socket.send_to(REQUEST, (SBC_OUTSIDE, SIP)).unwrap();
            }
        });
        sent.unwrap();
    }

    /// A counter of the status: the `dataplane`'s by packet, or the `engine`'s.
    fn count(&self, group: &str, counter: &str) -> u64 {
        let status = self.sbcd.ask("status").unwrap();
        status[format!("{group}_counters")][counter]
            .as_u64()
            .unwrap_or_else(|| panic!("no {group} {counter}: {status}"))
    }

    /// Requests of strangers that came as far as the engine. Some waited still when their source was denied.
    fn reached(&self) -> u64 {
        self.count("engine", "unknown_source") + self.count("engine", "guard_denied")
    }

    fn wait_until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let end = Instant::now() + LIMIT;
        while !condition(self) {
            assert!(Instant::now() < end, "{what}: not within {LIMIT:?}\n{}", self.sbcd.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn denied(&self) -> Vec<Value> {
        self.sbcd.ask("deny list").unwrap()["denied"].as_array().unwrap().clone()
    }
}

/// C-7: during calls.
#[test]
fn a_flood_ends_in_the_kernel_and_calls_go_on() {
    let Some(bench) = Bench::start("a_flood_ends_in_the_kernel_and_calls_go_on") else { return };
    let Bench { networks, scratch, .. } = &bench;
    let captures = (
        Capture::start(&networks.outside, "outside0", scratch).unwrap(),
        Capture::start(&networks.pbx, "pbx0", scratch).unwrap(),
    );
    let audio = Duration::from_secs(4);
    let answering =
        Answering::start(&networks.pbx, ANSWER_WITH_AUDIO, SocketAddr::new(PBX, SIP), audio, scratch)
            .unwrap();
    let batch = Batch { calls: 5, per_second: 10, audio, hold: audio + Duration::from_secs(1) };
    let (local, remote) = (SocketAddr::new(OUTSIDE, SIP), SocketAddr::new(SBC_OUTSIDE, SIP));
    let calling =
        Calling::start(&networks.outside, CALL_WITH_AUDIO, local, remote, "100", batch, scratch).unwrap();
    bench.wait_until("five calls", |bench| bench.sbcd.ask("status").unwrap()["calls"] == 5);

    bench.flood(FLOODER, FLOOD);
    bench.wait_until("the flooder is denied", |bench| bench.denied().len() == 1);
    bench.flood(BYSTANDER, 1);
    bench.wait_until("the bystander is heard", |bench| bench.reached() > THRESHOLD);

    let outcome = calling.finish(LIMIT).unwrap();
    assert_eq!(outcome, Outcome { succeeded: 5, failed: 0 }, "{}", calling.process().log_tail());
    drop(answering);
    let (outside, pbx) = (captures.0.finish().unwrap(), captures.1.finish().unwrap());
    let counts = rtp::count(Side { party: OUTSIDE, packets: &outside }, Side { party: PBX, packets: &pbx });
    assert_eq!((counts.to_near.received, counts.to_far.received), (counts.to_near.sent, counts.to_far.sent));
    assert_eq!(counts.sent(), 5 * 2 * 200);

    // What passed is the threshold; the rest ended in the kernel, most of it before the denial had to.
    assert_eq!(bench.reached(), THRESHOLD + 1);
    let dropped = ["drop_source_datagrams", "drop_denied"].map(|counter| bench.count("dataplane", counter));
    assert_eq!(dropped.iter().sum::<u64>(), FLOOD - THRESHOLD, "{dropped:?}");
    assert_eq!(bench.count("dataplane", "exceeded"), 1);
    let denied = &bench.denied()[0];
    assert_eq!(
        (&denied["source"], &denied["reason"], &denied["scope"]),
        (&FLOODER.to_string().into(), &"flood".into(), &"udp".into())
    );
    assert_eq!(denied["packets"], dropped[1]);
    assert!(denied["until"].is_string());
}

/// C-7: delete one, repeat it; the source is heard again.
#[test]
fn an_operator_lets_a_denied_source_in_again() {
    let Some(bench) = Bench::start("an_operator_lets_a_denied_source_in_again") else { return };
    bench.flood(FLOODER, 2 * THRESHOLD);
    bench.wait_until("the flooder is denied", |bench| bench.denied().len() == 1);
    let before = bench.count("dataplane", "drop_denied");
    bench.flood(FLOODER, 3);
    assert_eq!(bench.count("dataplane", "drop_denied"), before + 3);
    let command = format!("deny remove {FLOODER}");
    assert_eq!(bench.sbcd.ask(&command).unwrap()["changed"], 1);
    assert!(bench.sbcd.ask(&command).is_err(), "it is not denied any more");
    assert_eq!(bench.denied(), Vec::<Value>::new());
    // Trusted now, it is not held to the rest of its window.
    assert_eq!(bench.sbcd.ask(&format!("allow add {FLOODER}")).unwrap()["changed"], 1);
    let heard = bench.count("dataplane", "pass_sip_trusted");
    bench.flood(FLOODER, 10 * THRESHOLD);
    assert_eq!(bench.count("dataplane", "pass_sip_trusted"), heard + 10 * THRESHOLD);
    assert_eq!(bench.denied(), Vec::<Value>::new());
}

/// C-7: who is denied stays so while no daemon runs and after it has come back, with what was counted; what an operator
/// put on a list is on it still. Without its store the next daemon finds the denial in the kernel.
#[test]
fn a_denial_outlives_the_daemon() {
    let Some(mut bench) = Bench::start("a_denial_outlives_the_daemon") else { return };
    bench.flood(FLOODER, 2 * THRESHOLD);
    bench.wait_until("the flooder is denied", |bench| bench.denied().len() == 1);
    bench.sbcd.ask("allow add 198.51.100.200").unwrap();
    for lose_store in [false, true] {
        let before = bench.denied()[0].clone();
        bench.sbcd.kill().unwrap();
        bench.flood(FLOODER, 5);
        if lose_store {
            let mut lost = 0;
            for file in std::fs::read_dir(bench.scratch.path()).unwrap().flatten() {
                if file.path().extension().is_some_and(|extension| extension == "redb") {
                    std::fs::remove_file(file.path()).unwrap();
                    lost += 1;
                }
            }
            assert_eq!(lost, 1);
        }
        bench.sbcd.start_again(&bench.networks, &bench.binaries, &bench.scratch).unwrap();
        let after = &bench.denied()[0];
        for field in ["source", "reason", "scope"] {
            assert_eq!(after[field], before[field], "{field}");
        }
        // To the second: what is left of it is told by another clock.
        for field in ["since", "until"] {
            let second = |denied: &Value| denied[field].as_str().unwrap()[..19].to_owned();
            assert!(second(after).as_str() >= &second(&before)[..17], "{before} {after}");
        }
        assert_eq!(after["packets"].as_u64(), before["packets"].as_u64().map(|packets| packets + 5));
        let allowed = bench.sbcd.ask("allow list").unwrap();
        let kept = allowed["prefixes"].as_array().unwrap().contains(&"198.51.100.200".into());
        assert_eq!(kept, !lose_store, "{allowed}");
    }
    assert_eq!(bench.sbcd.ask(&format!("deny remove {FLOODER}")).unwrap()["changed"], 1);
    assert_eq!(bench.denied(), Vec::<Value>::new());
}

/// A trace tells what becomes of a source's packets while it runs, and leaves the program as it was.
#[test]
fn an_operator_traces_a_source_and_then_a_flow() {
    let Some(bench) = Bench::start("an_operator_traces_a_source_and_then_a_flow") else { return };
    let program = || {
        let link = bench.networks.sbc.run("ip", &["-j", "-d", "link", "show", "dev", "public0"]).unwrap();
        let link: Value = serde_json::from_str(&link).unwrap();
        link[0]["xdp"]["prog"]["id"].as_u64().unwrap_or_else(|| panic!("no program: {link}"))
    };
    let before = program();
    let begun = bench.sbcd.ask(&format!("trace source {FLOODER} --seconds 30")).unwrap();
    assert_eq!(begun["target"], format!("source {FLOODER}"));
    assert_ne!(program(), before);
    bench.flood(FLOODER, 3);
    bench.flood(BYSTANDER, 3);
    let packets = || bench.sbcd.ask("trace show").unwrap()["packets"].as_array().unwrap().clone();
    bench.wait_until("three packets are told of", |_| packets().len() >= 3);
    let to = SocketAddr::new(SBC_OUTSIDE, SIP).to_string();
    for packet in packets() {
        assert!(packet["from"].as_str().unwrap().starts_with(&format!("{FLOODER}:")), "{packet}");
        assert_eq!((&packet["outcome"], &packet["to"]), (&"pass_sip".into(), &to.clone().into()), "{packet}");
        assert!(packet["left"].is_null(), "{packet}");
    }
    assert_eq!(packets().len(), 3);
    // Another trace takes its place; nobody ends that.
    bench.sbcd.ask(&format!("trace flow {to} --seconds 5")).unwrap();
    bench.flood(BYSTANDER, 2);
    bench.wait_until("the trace is over", |bench| bench.sbcd.ask("trace show").unwrap()["target"].is_null());
    assert_eq!(program(), before);
    assert_eq!(packets().len(), 3 + 2);
    assert_eq!(
        packets()[3]["from"].as_str().unwrap().split(':').next(),
        Some(BYSTANDER.to_string().as_str())
    );
    bench.flood(BYSTANDER, 2);
    assert_eq!(packets().len(), 5, "nothing is traced any more");
    assert!(bench.sbcd.log().contains("a trace begins"), "{}", bench.sbcd.log());
    let refused = bench.sbcd.ask("trace source 203.0.113 --seconds 1").unwrap_err();
    assert!(format!("{refused:#}").contains("is no address"), "{refused:#}");
}

/// C-9, C-11: who is on the allow list may connect and flood, and is not heard any more after some rubbish: the open
/// connection ends, no other comes about, and media from there was nobody's all along.
#[test]
fn rubbish_inside_a_connection_closes_it_and_every_way_in() {
    let Some(bench) = Bench::start("rubbish_inside_a_connection_closes_it_and_every_way_in") else { return };
    let capture = Capture::start(&bench.networks.outside, "outside0", &bench.scratch).unwrap();
    let to = SocketAddr::new(SBC_OUTSIDE, SIP);
    let ended = bench.networks.outside.enter(|| {
        let mut stream = TcpStream::from(connected(ALLOWED, to).expect("the allow list may connect"));
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        for _ in 0..2 * THRESHOLD {
            stream.write_all(REQUEST).unwrap();
        }
        std::thread::sleep(Duration::from_millis(300));
        assert!(connected(ALLOWED, to).is_some(), "a flood from the allow list does no harm");
        for _ in 0..20 {
            // Closed on the way: that is what is waited for.
            let _ = stream.write_all(b"INVITE sip:a@b SIP/2.0\r\nContent-Length: 0\r\n\r\n");
        }
        matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_))
    });
    assert!(ended.unwrap());
    bench.wait_until("it is denied", |bench| bench.denied().len() == 1);
    let denied = &bench.denied()[0];
    assert_eq!(
        (&denied["source"], &denied["reason"], &denied["scope"]),
        (&ALLOWED.to_string().into(), &"malformed".into(), &"all".into())
    );
    assert_eq!(bench.count("engine", "denied_malformed"), 1);
    assert!(bench.count("engine", "guard_closed") >= 1);
    let dropped = bench.count("dataplane", "drop_denied");
    let again = bench.networks.outside.enter(|| connected(ALLOWED, to).is_some());
    assert!(!again.unwrap(), "nothing answers him");
    assert!(bench.count("dataplane", "drop_denied") > dropped);
    // Ports without a call take media from nobody, and with one from its own source only: see the packet tables.
    let media = bench.networks.outside.enter(|| {
        let socket = UdpSocket::bind((ALLOWED, 0)).unwrap();
        socket.send_to(&[0x80; 172], (SBC_OUTSIDE, 20_000)).unwrap();
    });
    media.unwrap();
    bench.wait_until("his media is dropped", |bench| bench.count("dataplane", "drop_no_flow") == 1);
    // R-QOS-1: what we say is marked, over TCP too.
    let ours = capture.finish().unwrap();
    let ours: Vec<_> = ours.iter().filter(|packet| packet.is_tcp && packet.source == to).collect();
    assert!(!ours.is_empty() && ours.iter().all(|packet| packet.dscp == 34), "{ours:?}");
}

/// The guard stands where signalling arrives, media or not; of IPv6 it counts a /64 as one source.
#[test]
fn the_guard_stands_on_interfaces_without_media_and_counts_a_64_as_one() {
    let (v4, v6): (IpAddr, IpAddr) = ("203.0.113.1".parse().unwrap(), "2001:db8:66::1".parse().unwrap());
    let realm = |name: &str, bind: IpAddr, media: String| {
        format!("[[realm]]\nname = \"{name}\"\nbind = \"{bind}\"\nudp = {SIP}\nmedia = {{ {media} }}\n\n")
    };
    let sides = format!(
        "{}{}{}{}[[trunk]]\nname = \"pbx\"\nrealm = \"inside\"\nsources = [\"{PBX}\"]\n\
         next_hop = \"udp:{PBX}:{SIP}\"\n\n[guard]\ndos_threshold = {THRESHOLD}\n\n",
        realm("inside", SBC_INSIDE, "ports = \"20000-20099\"".to_owned()),
        realm("outside", SBC_OUTSIDE, "ports = \"20000-20099\"".to_owned()),
        realm("plain", v4, format!("bind = \"{SBC_OUTSIDE}\", ports = \"20100-20199\"")),
        realm("six", v6, "ports = \"20000-20099\"".to_owned()),
    );
    let test = "the_guard_stands_on_interfaces_without_media_and_counts_a_64_as_one";
    let bench = Bench::start_with(test, &sides, |networks| {
        let end = |namespace, interface, addresses| End { namespace, interface, addresses };
        connect(
            end(&networks.outside, "sip1", &["203.0.113.66/24"]),
            end(&networks.sbc, "sip0", &["203.0.113.1/24"]),
        )
        .unwrap();
        connect(end(&networks.outside, "six1", &[]), end(&networks.sbc, "six0", &[])).unwrap();
        let add = |namespace: &Namespace, address: &str, interface| {
            namespace.run("ip", &["address", "add", address, "dev", interface, "nodad"]).unwrap();
        };
        add(&networks.sbc, "2001:db8:66::1/56", "six0");
        for address in ["2001:db8:66:5::1/56", "2001:db8:66:5:ffff::2/56", "2001:db8:66:6::1/56"] {
            add(&networks.outside, address, "six1");
        }
    });
    let Some(bench) = bench else { return };
    let send = |from: &str, to: IpAddr, requests: u64| {
        let from = SocketAddr::new(from.parse().unwrap(), 0);
        let sent = bench.networks.outside.enter(|| {
            let socket = UdpSocket::bind(from).unwrap();
            for _ in 0..requests {
                socket.send_to(REQUEST, (to, SIP)).unwrap();
            }
        });
        sent.unwrap();
    };
    let passed = || bench.count("dataplane", "pass_sip");
    send("203.0.113.66", v4, 2 * THRESHOLD);
    bench.wait_until("the source is held to its limit", |_| passed() == THRESHOLD);
    bench.wait_until("and denied", |bench| bench.denied().len() == 1);
    // Two addresses of one /64, then one of the next.
    send("2001:db8:66:5::1", v6, THRESHOLD - 10);
    send("2001:db8:66:5:ffff::2", v6, 20);
    bench.wait_until("the /64 is held to its limit", |_| passed() == 2 * THRESHOLD);
    bench.wait_until("and denied as a whole", |bench| bench.denied().len() == 2);
    assert_eq!(bench.denied()[1]["source"], "2001:db8:66:5::/64");
    send("2001:db8:66:6::1", v6, 5);
    bench.wait_until("its neighbour is heard", |_| passed() == 2 * THRESHOLD + 5);

    // An interface that is made anew is guarded anew, and a trace runs while it is away.
    let Networks { outside, sbc, .. } = &bench.networks;
    sbc.run("ip", &["link", "delete", "sip0"]).unwrap();
    bench.wait_until("a trace begins without it", |bench| {
        bench.sbcd.ask("trace flow 203.0.113.66:4000 --seconds 1").is_ok()
    });
    connect(
        End { namespace: outside, interface: "sip1", addresses: &["203.0.113.67/24"] },
        End { namespace: sbc, interface: "sip0", addresses: &["203.0.113.1/24"] },
    )
    .unwrap();
    bench.wait_until("it is guarded", |_| {
        let before = passed();
        send("203.0.113.67", v4, 1);
        std::thread::sleep(Duration::from_millis(50));
        passed() > before
    });
}

/// Attempts to connect have a limit of their own. They deny nobody: their source may be forged.
#[test]
fn connection_attempts_of_a_stranger_end_in_the_kernel() {
    let Some(bench) = Bench::start("connection_attempts_of_a_stranger_end_in_the_kernel") else { return };
    let connected = bench.networks.outside.enter(|| {
        let to = SocketAddr::new(SBC_OUTSIDE, SIP);
        (0..3 * CONNECTIONS).filter(|_| connected(FLOODER, to).is_some()).count()
    });
    assert_eq!(connected.unwrap() as u64, CONNECTIONS);
    assert!(bench.count("dataplane", "drop_source_connections") >= 2 * CONNECTIONS);
    assert_eq!(bench.denied(), Vec::<Value>::new());
}

/// A connection from `from`, if it comes about in the time of a few round trips.
fn connected(from: IpAddr, to: SocketAddr) -> Option<OwnedFd> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
    let flags = SockFlag::SOCK_NONBLOCK;
    let stream = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    bind(stream.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0))).unwrap();
    let _ = connect(stream.as_raw_fd(), &SockaddrStorage::from(to));
    let mut waiting = [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)];
    (poll(&mut waiting, 100u8).unwrap() == 1).then_some(stream)
}
