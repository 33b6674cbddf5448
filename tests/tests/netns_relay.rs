//! The relay, and the opening of ways, on networks as they are: narrow links, and firewalls that only flows of ours open.

#![expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use sbc_core::id::{CallId, OpId, RealmId};
use sbc_core::media::command::{MediaCommand, MediaResult, SideOf};
use sbc_core::media::plan::{
    MediaPace, MediaPlan, PeerMedia, Placement, SourcePolicy, StreamPlan, StreamSide,
};
use sbc_tests::cleanup;
use sbc_tests::netns::{End, Namespace, connect};
use sbc_tests::process::Scratch;
use sbc_user::dataplane::planes::{Planes, PlanesConfig};
use sbc_user::dataplane::relay::Relay;
use sbc_user::dataplane::xdp::{self, MediaBind};
use sbc_user::dataplane::{Dataplane, DataplaneEvent};

const CALL: CallId = CallId(1);
/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(10);
/// Wait in which something that must not happen would have happened: delivery over veth takes microseconds.
const SILENCE: Duration = Duration::from_millis(100);

const OUR_PORTS: [u16; 2] = [20_000, 20_100];
const CALLER_PORT: u16 = 4000;
const CALLEE_PORT: u16 = 6000;

fn rtp(bytes: usize) -> Vec<u8> {
    let mut packet = vec![0x5a; bytes];
    packet[..12].copy_from_slice(&[0x80, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4]);
    packet
}

fn side(local_ip: &str, local_rtp_port: u16, peer: SocketAddr) -> StreamSide {
    let rtcp = SocketAddr::new(peer.ip(), peer.port() + 1);
    StreamSide {
        realm: RealmId(0),
        local_ip: local_ip.parse().unwrap(),
        local_rtp_port,
        peer: Some(PeerMedia { rtp: peer, rtcp }),
        source: SourcePolicy::Signalled,
        dscp: 46,
        rtcp_mux: false,
        pace: MediaPace::default(),
    }
}

/// One stream between two addresses of ours and two peers.
fn plan([outside, inside]: [&str; 2], [caller, callee]: [&str; 2]) -> MediaPlan {
    let peer = |ip: &str, port| SocketAddr::new(ip.parse().unwrap(), port);
    let stream = StreamPlan {
        mline: 0,
        caller: side(outside, OUR_PORTS[0], peer(caller, CALLER_PORT)),
        callee: side(inside, OUR_PORTS[1], peer(callee, CALLEE_PORT)),
    };
    MediaPlan { call: CALL, streams: vec![stream] }
}

/// Applies a command and drives the dataplane until it is answered.
fn apply(dataplane: &mut impl Dataplane, op: u64, command: MediaCommand) -> MediaResult {
    let deadline = Instant::now() + PATIENCE;
    dataplane.apply(Instant::now(), OpId(op), command);
    loop {
        while let Some(event) = dataplane.poll_event() {
            if let DataplaneEvent::Done { result, .. } = event {
                return result;
            }
        }
        assert!(Instant::now() < deadline, "no answer");
        std::thread::sleep(Duration::from_millis(5));
        dataplane.handle_timeout(Instant::now());
    }
}

fn socket(namespace: &Namespace, ip: &str, port: u16) -> UdpSocket {
    let ip: IpAddr = ip.parse().unwrap();
    let socket = namespace.enter(|| UdpSocket::bind((ip, port))).unwrap().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 4096];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    buffer.truncate(length);
    (buffer, from)
}

#[track_caller]
fn hears_nothing(socket: &UdpSocket) {
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    let heard = socket.recv_from(&mut [0; 2048]);
    assert!(heard.is_err(), "{heard:?}");
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
}

/// A raw socket knows the interface's MTU and no other, and refuses what is larger: such packets leave all the same.
#[test]
fn packets_larger_than_a_link_leave_in_fragments() {
    if !sbc_tests::is_root() {
        return sbc_tests::skip("packets_larger_than_a_link_leave_in_fragments", "needs root");
    }
    let [caller, border, callee] =
        ["caller", "border", "callee"].map(|name| Namespace::create(name).unwrap());
    connect(
        End { namespace: &caller, interface: "eth0", addresses: &["192.0.2.2/24", "fd00:1::2/64"] },
        End { namespace: &border, interface: "out0", addresses: &["192.0.2.1/24", "fd00:1::1/64"] },
    )
    .unwrap();
    connect(
        End { namespace: &border, interface: "in0", addresses: &["198.51.100.1/24", "fd00:2::1/64"] },
        End { namespace: &callee, interface: "eth0", addresses: &["198.51.100.2/24", "fd00:2::2/64"] },
    )
    .unwrap();
    border.run("ip", &["link", "set", "in0", "mtu", "1280"]).unwrap();
    for (ours, peers) in [
        (["192.0.2.1", "198.51.100.1"], ["192.0.2.2", "198.51.100.2"]),
        (["fd00:1::1", "fd00:2::1"], ["fd00:1::2", "fd00:2::2"]),
        (["192.0.2.1", "fd00:2::1"], ["192.0.2.2", "fd00:2::2"]),
    ] {
        let (from, to) = (socket(&caller, peers[0], CALLER_PORT), socket(&callee, peers[1], CALLEE_PORT));
        border
            .enter(|| {
                let mut relay = Relay::start().unwrap();
                apply(&mut relay, 1, MediaCommand::Install(plan(ours, peers))).unwrap();
                let at: IpAddr = ours[0].parse().unwrap();
                for bytes in [172, 1232, 1233, 1400] {
                    from.send_to(&rtp(bytes), (at, OUR_PORTS[0])).unwrap();
                    let (packet, via) = receive(&to);
                    assert_eq!((packet.len(), via.port()), (bytes, OUR_PORTS[1]), "{ours:?}");
                }
            })
            .unwrap();
    }
}

/// The caller's network is reached through a router that lets in what answers us, and translates our address.
#[test]
fn a_primed_way_lets_media_through_a_firewall() {
    const TEST: &str = "a_primed_way_lets_media_through_a_firewall";
    if !sbc_tests::is_root() {
        return sbc_tests::skip(TEST, "needs root");
    }
    if !xdp::is_embedded() {
        return sbc_tests::skip(TEST, "built without the kernel object (SBC_EBPF_OBJECT)");
    }
    let [caller, router, border, callee] =
        ["caller", "router", "border", "callee"].map(|name| Namespace::create(name).unwrap());
    connect(
        End { namespace: &caller, interface: "eth0", addresses: &["203.0.113.2/24"] },
        End { namespace: &router, interface: "far0", addresses: &["203.0.113.1/24"] },
    )
    .unwrap();
    connect(
        End { namespace: &router, interface: "near0", addresses: &["192.0.2.2/24"] },
        End { namespace: &border, interface: "out0", addresses: &["192.0.2.1/24"] },
    )
    .unwrap();
    connect(
        End { namespace: &border, interface: "in0", addresses: &["198.51.100.1/24"] },
        End { namespace: &callee, interface: "eth0", addresses: &["198.51.100.2/24"] },
    )
    .unwrap();
    border.run("ip", &["route", "add", "default", "via", "192.0.2.2"]).unwrap();
    router.sysctl("ipv4/ip_forward", "1").unwrap();
    for rule in [
        "add table ip border",
        "add chain ip border forward { type filter hook forward priority 0; policy drop; }",
        "add rule ip border forward iifname near0 accept",
        "add rule ip border forward ct state established,related accept",
        "add chain ip border out { type nat hook postrouting priority 100; }",
        "add rule ip border out oifname far0 masquerade",
    ] {
        if let Err(error) = router.run("nft", &[rule]) {
            return sbc_tests::skip(TEST, &format!("no stateful firewall here: {error:#}"));
        }
    }
    // Each from another port of the caller's: the router still remembers the flow before.
    for (kernel, port) in [(true, 4000), (false, 4100)] {
        let ends = Ends {
            caller: socket(&caller, "203.0.113.2", port),
            caller_rtcp: socket(&caller, "203.0.113.2", port + 1),
            callee: socket(&callee, "198.51.100.2", CALLEE_PORT),
        };
        border.enter(|| neither_sends_first(kernel, &ends)).unwrap();
    }
}

/// The peers' sockets.
struct Ends {
    caller: UdpSocket,
    caller_rtcp: UdpSocket,
    callee: UdpSocket,
}

fn neither_sends_first(kernel: bool, ends: &Ends) {
    let instance = format!("relay-{}-{kernel}", std::process::id());
    let home = Path::new("/sys/fs/bpf/sbc").join(&instance);
    let _pins = cleanup::on_exit(move || drop(std::fs::remove_dir_all(home)));
    let scratch = Scratch::create("netns-relay").unwrap();
    let bind = |address: &str| MediaBind { address: address.parse().unwrap(), ports: 20_000..=20_199 };
    let config = PlanesConfig {
        instance,
        run_dir: scratch.path().join("run"),
        kernel,
        media: vec![bind("192.0.2.1"), bind("198.51.100.1")],
        sip: Vec::new(),
        reserved_ports: Vec::new(),
    };
    let mut planes = Planes::start(&config, Instant::now()).unwrap().0;
    let mut plan = plan(["192.0.2.1", "198.51.100.1"], ["203.0.113.2", "198.51.100.2"]);
    let [rtp_peer, rtcp_peer] = [&ends.caller, &ends.caller_rtcp].map(|end| end.local_addr().unwrap());
    plan.streams[0].caller.peer = Some(PeerMedia { rtp: rtp_peer, rtcp: rtcp_peer });
    let carrier = if kernel { Placement::Kernel } else { Placement::Relay };
    let done = apply(&mut planes, 1, MediaCommand::Install(plan)).unwrap();
    assert_eq!(done.placements, [carrier]);

    // What the caller would send to if it had been told, which is the router's address.
    let outside = SocketAddr::from(([203, 0, 113, 1], OUR_PORTS[0]));
    ends.caller.send_to(&rtp(172), outside).unwrap();
    hears_nothing(&ends.callee);

    let sides = vec![SideOf { mline: 0, caller_side: true }];
    apply(&mut planes, 2, MediaCommand::Prime { call: CALL, sides }).unwrap();
    let (packet, from) = receive(&ends.caller);
    assert_eq!((packet.len(), packet[0], from.ip()), (12, 0x80, outside.ip()));
    let (report, from_rtcp) = receive(&ends.caller_rtcp);
    assert_eq!((report.len(), report[1], from_rtcp.ip()), (8, 201, outside.ip()));
    hears_nothing(&ends.callee);

    // The caller is symmetric: it answers where media comes from (RFC 4961).
    ends.caller.send_to(&rtp(172), from).unwrap();
    let (packet, via) = receive(&ends.callee);
    assert_eq!((packet, via.port()), (rtp(172), OUR_PORTS[1]));
    ends.callee.send_to(&rtp(172), via).unwrap();
    assert_eq!(receive(&ends.caller), (rtp(172), from));
    planes.stop().unwrap();
}
