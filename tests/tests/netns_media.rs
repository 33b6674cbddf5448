//! Media through the kernel between real sockets: a caller, the border and a callee, each in its own network
//! namespace, and no SIP. The receiving kernels verify every checksum.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is a failed test")]

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sbc_core::id::{CallId, OpId, RealmId};
use sbc_core::media::command::{MediaCommand, MediaEvent, MediaResult, StreamCounters};
use sbc_core::media::plan::{
    MediaPace, MediaPlan, PeerMedia, Placement, SourcePolicy, StreamPlan, StreamSide,
};
use sbc_tests::cleanup::{self, Guard};
use sbc_tests::netns::{End, Namespace, connect, run};
use sbc_tests::pcap::Capture;
use sbc_tests::process::Scratch;
use sbc_user::dataplane::planes::{Planes, PlanesConfig, StartReport};
use sbc_user::dataplane::xdp::{self, MediaBind, StartError};
use sbc_user::dataplane::{Dataplane, DataplaneEvent};

const CALLER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const INSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const CALLEE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// An address on the callee's network at which nobody is.
const NOBODY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 99);

/// Our RTP ports.
const OUTSIDE_PORT: u16 = 20_000;
const INSIDE_PORT: u16 = 20_100;
/// The peers' RTP ports.
const CALLER_PORT: u16 = 4000;
const CALLEE_PORT: u16 = 6000;

const CALL: CallId = CallId(1);
/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(10);
/// Wait in which something that must not happen would have happened: delivery over veth takes microseconds.
const SILENCE: Duration = Duration::from_millis(100);

/// Whether this test can run here; says why not.
fn possible(test: &str) -> bool {
    let bpffs = nix::sys::statfs::statfs("/sys/fs/bpf")
        .is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::BPF_FS_MAGIC);
    let reason = if !sbc_tests::is_root() {
        "needs root"
    } else if !xdp::is_embedded() {
        "built without the kernel object (SBC_EBPF_OBJECT)"
    } else if !bpffs {
        "no bpffs on /sys/fs/bpf"
    } else {
        return true;
    };
    sbc_tests::skip(test, reason);
    false
}

/// Runs a test in the border's namespace.
fn inside(test: &str, body: impl FnOnce(&World) + Send) {
    if possible(test) {
        let world = World::new();
        world.border.enter(|| body(&world)).unwrap();
    }
}

/// Three namespaces in a row, and an instance's name.
struct World {
    caller: Namespace,
    border: Namespace,
    callee: Namespace,
    instance: String,
    scratch: Scratch,
    _pins: Guard,
}

impl World {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let instance = format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let [caller, border, callee] =
            ["caller", "border", "callee"].map(|label| Namespace::create(label).unwrap());
        connect(
            End { namespace: &caller, interface: "eth0", addresses: &["192.0.2.2/24", "192.0.2.3/24"] },
            End { namespace: &border, interface: "out0", addresses: &["192.0.2.1/24"] },
        )
        .unwrap();
        connect(
            End { namespace: &border, interface: "in0", addresses: &["198.51.100.1/24"] },
            End { namespace: &callee, interface: "eth0", addresses: &["198.51.100.2/24"] },
        )
        .unwrap();
        let home = Path::new("/sys/fs/bpf/sbc").join(&instance);
        let pins = cleanup::on_exit(move || {
            // bpffs takes remove_dir_all like any other file system.
            let _ = std::fs::remove_dir_all(home);
        });
        Self {
            caller,
            border,
            callee,
            instance,
            scratch: Scratch::create("netns-media").unwrap(),
            _pins: pins,
        }
    }

    fn config(&self) -> PlanesConfig {
        let bind = |address: Ipv4Addr| MediaBind { address: address.into(), ports: 20_000..=20_199 };
        PlanesConfig {
            instance: self.instance.clone(),
            run_dir: self.scratch.path().join("run"),
            kernel: true,
            media: vec![bind(OUTSIDE), bind(INSIDE)],
            reserved_ports: vec![5060..=5061],
        }
    }

    fn try_start(&self, config: &PlanesConfig) -> Result<(Planes, StartReport), StartError> {
        Planes::start(config, Instant::now())
    }

    fn start(&self) -> Border {
        let (planes, report) = self.try_start(&self.config()).unwrap();
        for address in &report.addresses {
            assert_eq!(address.relay_reason, None, "{report:?}");
        }
        Border { planes, next_op: 1, heard: Vec::new() }
    }

    fn pin(&self, name: &str) -> PathBuf {
        Path::new("/sys/fs/bpf/sbc")
            .join(&self.instance)
            .join(format!("v{}", sbc_common::limits::ABI))
            .join(name)
    }
}

/// The dataplane under test, driven as the event loop drives it.
struct Border {
    planes: Planes,
    next_op: u64,
    heard: Vec<MediaEvent>,
}

impl Border {
    /// Applies a command and drives the dataplane until it is answered.
    fn apply(&mut self, command: MediaCommand) -> MediaResult {
        let op = OpId(self.next_op);
        self.next_op += 1;
        self.planes.apply(Instant::now(), op, command);
        let mut answer = None;
        self.drive(|border| {
            while let Some(event) = border.planes.poll_event() {
                match event {
                    DataplaneEvent::Done { op: answered, result } => {
                        assert_eq!((answered, answer.is_none()), (op, true));
                        answer = Some(result);
                    }
                    DataplaneEvent::Media(event) => border.heard.push(event),
                    DataplaneEvent::Guard(event) => panic!("nobody floods: {event:?}"),
                }
            }
            answer.is_some()
        });
        answer.unwrap()
    }

    /// Waits for descriptors and timeouts until `done`.
    fn drive(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            let now = Instant::now();
            assert!(now < deadline, "nothing happened");
            let until = self.planes.poll_timeout().map_or(deadline, |at| at.min(deadline));
            let raw = self.planes.poll_fds();
            // SAFETY: the descriptors belong to the dataplane, which is not touched while they are polled.
            let borrowed = raw.iter().map(|fd| unsafe { BorrowedFd::borrow_raw(*fd) });
            let mut fds: Vec<PollFd<'_>> = borrowed.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            let wait = until.saturating_duration_since(now) + Duration::from_millis(1);
            poll(&mut fds, PollTimeout::try_from(wait).unwrap()).unwrap();
            self.planes.handle_timeout(Instant::now());
        }
    }

    fn install(&mut self, streams: Vec<StreamPlan>) -> Vec<Placement> {
        self.apply(MediaCommand::Install(MediaPlan { call: CALL, streams })).unwrap().placements
    }

    fn outcome(&self, name: &str) -> u64 {
        self.planes.outcomes().iter().find(|(outcome, _)| *outcome == name).map(|(_, count)| *count).unwrap()
    }

    fn hears_latch(&mut self) -> MediaEvent {
        self.drive(|border| {
            while let Some(event) = border.planes.poll_event() {
                match event {
                    DataplaneEvent::Media(event) => border.heard.push(event),
                    DataplaneEvent::Guard(event) => panic!("nobody floods: {event:?}"),
                    DataplaneEvent::Done { op, .. } => panic!("{op} was not asked"),
                }
            }
            !border.heard.is_empty()
        });
        self.heard.remove(0)
    }
}

fn side(
    local: Ipv4Addr,
    local_rtp_port: u16,
    peer: Option<(Ipv4Addr, u16)>,
    source: SourcePolicy,
) -> StreamSide {
    let peer = peer.map(|(ip, port)| PeerMedia { rtp: (ip, port).into(), rtcp: (ip, port + 1).into() });
    StreamSide {
        realm: RealmId(0),
        local_ip: local.into(),
        local_rtp_port,
        peer,
        rtcp_mux: false,
        source,
        pace: MediaPace::default(),
        dscp: 46,
    }
}

/// Both peers signalled and taken at their word.
fn signalled() -> StreamPlan {
    StreamPlan {
        mline: 0,
        caller: side(OUTSIDE, OUTSIDE_PORT, Some((CALLER, CALLER_PORT)), SourcePolicy::Signalled),
        callee: side(INSIDE, INSIDE_PORT, Some((CALLEE, CALLEE_PORT)), SourcePolicy::Signalled),
    }
}

fn bind(namespace: &Namespace, ip: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = namespace.enter(|| UdpSocket::bind((ip, port))).unwrap().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn rtp(sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 8, 0, 0, 0, 0, 0, 0, 0x5b, 0xc0, 0, 1];
    packet[2..4].copy_from_slice(&sequence.to_be_bytes());
    // Payloads of many lengths, odd ones too: each is another case of the checksum.
    packet.extend((0..160 + sequence % 7).map(|at| (at ^ sequence) as u8));
    packet
}

fn rtcp(number: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 201, 0, 1];
    packet.extend(u32::from(number).to_be_bytes());
    packet
}

fn address(ip: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddrV4::new(ip, port).into()
}

/// Sends and expects it, unchanged, from the border's address and port.
fn passes(from: &UdpSocket, to: SocketAddr, receiver: &UdpSocket, via: SocketAddr, payload: &[u8]) {
    from.send_to(payload, to).unwrap();
    let mut buffer = [0; 2048];
    let (length, source) =
        receiver.recv_from(&mut buffer).unwrap_or_else(|error| panic!("from {via}: {error}"));
    assert_eq!((&buffer[..length], source), (payload, via));
}

/// Nothing arrives.
fn silent(receiver: &UdpSocket) {
    receiver.set_read_timeout(Some(SILENCE)).unwrap();
    let received = receiver.recv_from(&mut [0; 2048]);
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(received.is_err(), "{received:?}");
}

/// Datagrams that a namespace's kernel threw away because their checksum was wrong.
fn wrong_checksums(namespace: &Namespace) -> u64 {
    let text = namespace.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp")).unwrap().unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("Udp:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let named = names.split_whitespace().zip(values.split_whitespace());
    named.filter(|(name, _)| *name == "InCsumErrors").map(|(_, value)| value.parse::<u64>().unwrap()).sum()
}

#[test]
fn rtp_and_rtcp_cross_the_kernel_both_ways() {
    inside("rtp_and_rtcp_cross_the_kernel_both_ways", |world| {
        let mut border = world.start();
        assert_eq!(border.install(vec![signalled()]), [Placement::Kernel]);
        let [caller, callee, caller_rtcp, callee_rtcp] = [
            bind(&world.caller, CALLER, CALLER_PORT),
            bind(&world.callee, CALLEE, CALLEE_PORT),
            bind(&world.caller, CALLER, CALLER_PORT + 1),
            bind(&world.callee, CALLEE, CALLEE_PORT + 1),
        ];
        let at_callee = Capture::start(&world.callee, "eth0", &world.scratch).unwrap();
        let at_caller = Capture::start(&world.caller, "eth0", &world.scratch).unwrap();
        let (outside, inside) = (address(OUTSIDE, OUTSIDE_PORT), address(INSIDE, INSIDE_PORT));
        let (outside_rtcp, inside_rtcp) =
            (address(OUTSIDE, OUTSIDE_PORT + 1), address(INSIDE, INSIDE_PORT + 1));
        for number in 0..100 {
            passes(&caller, outside, &callee, inside, &rtp(number));
            passes(&callee, inside, &caller, outside, &rtp(number));
        }
        for number in 0..5 {
            passes(&caller_rtcp, outside_rtcp, &callee_rtcp, inside_rtcp, &rtcp(number));
            passes(&callee_rtcp, inside_rtcp, &caller_rtcp, outside_rtcp, &rtcp(number));
        }
        for (capture, from) in [(at_callee, INSIDE), (at_caller, OUTSIDE)] {
            let packets = capture.finish().unwrap();
            let ours: Vec<_> = packets.iter().filter(|packet| packet.source.ip() == from).collect();
            assert_eq!(ours.len(), 105);
            for packet in ours {
                assert_eq!((packet.checksums_right, packet.ttl, packet.dscp), (true, 64, 46), "{packet:?}");
            }
        }
        for namespace in [&world.caller, &world.callee] {
            assert_eq!(wrong_checksums(namespace), 0);
        }
        assert_eq!(border.outcome("bad_checksum"), 0);

        let done = border.apply(MediaCommand::Remove(CALL)).unwrap();
        let [StreamCounters { placement: Some(Placement::Kernel), from_caller, from_callee, .. }] =
            done.counters[..]
        else {
            panic!("{done:?}")
        };
        let bytes: u64 = (0..100).map(|number| rtp(number).len() as u64).sum();
        for direction in [from_caller, from_callee] {
            assert_eq!((direction.rtp_kernel, direction.rtp_relay, direction.rtcp), (100, 0, 5));
            assert_eq!(direction.rtp_bytes, bytes);
        }
        caller.send_to(&rtp(200), outside).unwrap();
        silent(&callee);
        assert_eq!(border.outcome("drop_no_flow"), 1);
        border.planes.stop().unwrap();
    });
}

#[test]
fn only_the_signalled_source_is_let_in() {
    inside("only_the_signalled_source_is_let_in", |world| {
        let mut border = world.start();
        border.install(vec![signalled()]);
        let callee = bind(&world.callee, CALLEE, CALLEE_PORT);
        let outside = address(OUTSIDE, OUTSIDE_PORT);
        let other_port = bind(&world.caller, CALLER, CALLER_PORT + 10);
        let other_address = bind(&world.caller, Ipv4Addr::new(192, 0, 2, 3), CALLER_PORT);
        for stranger in [&other_port, &other_address] {
            stranger.send_to(&rtp(1), outside).unwrap();
        }
        silent(&callee);
        assert_eq!(border.outcome("drop_wrong_source"), 2);
        let caller = bind(&world.caller, CALLER, CALLER_PORT);
        passes(&caller, outside, &callee, address(INSIDE, INSIDE_PORT), &rtp(2));
        border.planes.stop().unwrap();
    });
}

#[test]
fn the_first_packet_claims_a_learning_side_and_is_forwarded() {
    inside("the_first_packet_claims_a_learning_side_and_is_forwarded", |world| {
        let mut border = world.start();
        let mut stream = signalled();
        // As from behind a NAT: what was signalled is not what packets come from.
        stream.caller.peer = Some(PeerMedia { rtp: address(CALLER, 9), rtcp: address(CALLER, 10) });
        stream.caller.source = SourcePolicy::learn_from(CALLER.into());
        assert_eq!(border.install(vec![stream.clone()]), [Placement::Kernel]);
        let (outside, inside) = (address(OUTSIDE, OUTSIDE_PORT), address(INSIDE, INSIDE_PORT));
        let caller = bind(&world.caller, CALLER, 47_011);
        let late = bind(&world.caller, CALLER, 47_012);
        let stranger = bind(&world.caller, Ipv4Addr::new(192, 0, 2, 3), 47_011);
        let callee = bind(&world.callee, CALLEE, CALLEE_PORT);
        stranger.send_to(&rtp(1), outside).unwrap();
        silent(&callee);
        passes(&caller, outside, &callee, inside, &rtp(2));
        passes(&callee, inside, &caller, outside, &rtp(3));
        late.send_to(&rtp(4), outside).unwrap();
        silent(&callee);
        assert_eq!(border.outcome("drop_wrong_source"), 2);
        let source = address(CALLER, 47_011);
        assert_eq!(
            border.hears_latch(),
            MediaEvent::Latched { call: CALL, mline: 0, caller_side: true, rtcp: false, source }
        );

        // The callee's side moves: the caller's claim stays.
        stream.callee.peer = Some(PeerMedia { rtp: address(CALLEE, 6100), rtcp: address(CALLEE, 6101) });
        border.install(vec![stream]);
        let moved = bind(&world.callee, CALLEE, 6100);
        passes(&caller, outside, &moved, inside, &rtp(5));
        passes(&moved, inside, &caller, outside, &rtp(6));
        callee.send_to(&rtp(7), inside).unwrap();
        silent(&caller);
        border.planes.stop().unwrap();
    });
}

#[test]
fn a_peer_on_this_host_is_served_by_the_relay() {
    inside("a_peer_on_this_host_is_served_by_the_relay", |world| {
        let mut border = world.start();
        let mut local = signalled();
        local.callee.peer = Some(PeerMedia { rtp: address(INSIDE, 6000), rtcp: address(INSIDE, 6001) });
        let mut remote = signalled();
        remote.mline = 1;
        remote.caller.local_rtp_port += 2;
        remote.callee.local_rtp_port += 2;
        assert_eq!(border.install(vec![local, remote]), [Placement::Relay, Placement::Kernel]);
        let caller = bind(&world.caller, CALLER, CALLER_PORT);
        let callee = bind(&world.border, INSIDE, 6000);
        let (outside, inside) = (address(OUTSIDE, OUTSIDE_PORT), address(INSIDE, INSIDE_PORT));
        passes(&caller, outside, &callee, inside, &rtp(1));
        passes(&callee, inside, &caller, outside, &rtp(2));
        assert_eq!(border.outcome("pass_relay"), 1);
        let counters = border.planes.counters(CALL);
        assert_eq!((counters[0].from_caller.rtp_relay, counters[0].from_callee.rtp_relay), (1, 1));

        // Once the peer is a remote one, the kernel has the stream, and what was counted stays.
        assert_eq!(border.install(vec![signalled()]), [Placement::Kernel]);
        let callee = bind(&world.callee, CALLEE, CALLEE_PORT);
        passes(&caller, outside, &callee, inside, &rtp(3));
        let counters = border.planes.counters(CALL);
        assert_eq!((counters[0].from_caller.rtp_relay, counters[0].from_caller.rtp_kernel), (1, 1));
        border.planes.stop().unwrap();
    });
}

#[test]
fn a_neighbour_that_does_not_answer_leaves_the_stream_to_the_relay() {
    inside("a_neighbour_that_does_not_answer_leaves_the_stream_to_the_relay", |world| {
        let mut border = world.start();
        let mut stream = signalled();
        stream.callee.peer = Some(PeerMedia { rtp: address(NOBODY, 6000), rtcp: address(NOBODY, 6001) });
        let asked = Instant::now();
        assert_eq!(border.install(vec![stream]), [Placement::Relay]);
        assert!(asked.elapsed() < xdp::NEXT_HOP_WAIT * 4, "the wait is bounded");
        border.planes.stop().unwrap();
    });
}

#[test]
fn a_peer_behind_a_gateway_is_reached_and_a_changed_route_is_followed() {
    inside("a_peer_behind_a_gateway_is_reached_and_a_changed_route_is_followed", |world| {
        let far = Ipv4Addr::new(203, 0, 113, 7);
        world.callee.run("ip", &["addr", "add", "203.0.113.7/32", "dev", "lo"]).unwrap();
        world.callee.run("ip", &["addr", "add", "198.51.100.3/24", "dev", "eth0"]).unwrap();
        let via = |gateway| ["route", "replace", "203.0.113.0/24", "via", gateway];
        world.border.run("ip", &via("198.51.100.2")).unwrap();
        let mut border = world.start();
        let mut stream = signalled();
        stream.callee.peer =
            Some(PeerMedia { rtp: address(far, CALLEE_PORT), rtcp: address(far, CALLEE_PORT + 1) });
        assert_eq!(border.install(vec![stream]), [Placement::Kernel]);
        let caller = bind(&world.caller, CALLER, CALLER_PORT);
        let callee = bind(&world.callee, far, CALLEE_PORT);
        let (outside, inside) = (address(OUTSIDE, OUTSIDE_PORT), address(INSIDE, INSIDE_PORT));
        passes(&caller, outside, &callee, inside, &rtp(1));

        let hop = |border: &Namespace| border.run("ip", &["neigh", "show", "198.51.100.3"]).unwrap();
        assert_eq!(hop(&world.border), "");
        world.border.run("ip", &via("198.51.100.3")).unwrap();
        border.drive(|_| hop(&world.border).contains("lladdr"));
        border.planes.handle_timeout(Instant::now());
        passes(&caller, outside, &callee, inside, &rtp(2));
        border.planes.stop().unwrap();
        assert!(!hop(&world.border).contains("managed"), "{}", hop(&world.border));
    });
}

#[test]
fn a_peer_that_changes_its_ethernet_address_is_followed() {
    inside("a_peer_that_changes_its_ethernet_address_is_followed", |world| {
        let mut border = world.start();
        border.install(vec![signalled()]);
        let caller = bind(&world.caller, CALLER, CALLER_PORT);
        let callee = bind(&world.callee, CALLEE, CALLEE_PORT);
        let (outside, inside) = (address(OUTSIDE, OUTSIDE_PORT), address(INSIDE, INSIDE_PORT));
        passes(&caller, outside, &callee, inside, &rtp(1));

        world.callee.run("ip", &["link", "set", "dev", "eth0", "address", "02:00:00:00:be:ef"]).unwrap();
        caller.send_to(&rtp(2), outside).unwrap();
        silent(&callee);
        // The peer asks for us, and thereby tells its new address.
        world.callee.run("ip", &["neigh", "flush", "dev", "eth0"]).unwrap();
        callee.send_to(b"to another port, which asks for the Ethernet address first", (INSIDE, 9)).unwrap();
        let shows = || world.border.run("ip", &["neigh", "show", "198.51.100.2"]).unwrap().contains("be:ef");
        border.drive(|_| shows());
        border.planes.handle_timeout(Instant::now());
        passes(&caller, outside, &callee, inside, &rtp(3));
        border.planes.stop().unwrap();
    });
}

#[test]
fn a_peer_whose_link_was_lost_is_resolved_anew() {
    inside("a_peer_whose_link_was_lost_is_resolved_anew", |world| {
        let mut border = world.start();
        border.install(vec![signalled()]);
        let caller = bind(&world.caller, CALLER, CALLER_PORT);
        let callee = bind(&world.callee, CALLEE, CALLEE_PORT);
        let (outside, inside) = (address(OUTSIDE, OUTSIDE_PORT), address(INSIDE, INSIDE_PORT));
        passes(&caller, outside, &callee, inside, &rtp(1));

        // A link without a carrier forgets its neighbours, and this one says nothing of its own accord.
        for change in [&["down"][..], &["address", "02:00:00:00:be:ef"], &["up"]] {
            world.callee.run("ip", &[&["link", "set", "dev", "eth0"], change].concat()).unwrap();
        }
        let hop = || world.border.run("ip", &["neigh", "show", "198.51.100.2"]).unwrap();
        border.drive(|_| hop().contains("be:ef") && hop().contains("managed"));
        border.planes.handle_timeout(Instant::now());
        passes(&caller, outside, &callee, inside, &rtp(2));
        border.planes.stop().unwrap();
    });
}

/// What `bpftool` tells of the program on an interface, and of a pinned map.
fn ids(world: &World) -> (String, u64, u64) {
    let link = world.border.run("ip", &["-o", "-d", "link", "show", "dev", "out0"]).unwrap();
    let program = link.split("prog/xdp id ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or("none");
    let id = |kind: &str, name: &str| {
        let pin = world.pin(name);
        let shown =
            run(std::process::Command::new("bpftool").args(["-j", kind, "show", "pinned"]).arg(pin)).unwrap();
        let rest = shown.split("\"id\":").nth(1).unwrap();
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u64>().unwrap()
    };
    (program.to_owned(), id("link", "link_out0"), id("map", "FLOWS"))
}

#[test]
fn the_kernel_forwards_without_the_daemon_and_the_next_daemon_takes_over() {
    inside("the_kernel_forwards_without_the_daemon_and_the_next_daemon_takes_over", |world| {
        let mut border = world.start();
        border.install(vec![signalled()]);
        let caller = bind(&world.caller, CALLER, CALLER_PORT);
        let callee = bind(&world.callee, CALLEE, CALLEE_PORT);
        let (outside, inside) = (address(OUTSIDE, OUTSIDE_PORT), address(INSIDE, INSIDE_PORT));
        let (program, link, flows) = ids(world);
        border.planes.leave();
        passes(&caller, outside, &callee, inside, &rtp(1));
        assert_eq!(ids(world), (program.clone(), link, flows));

        let mut border = world.start();
        let (new_program, new_link, new_flows) = ids(world);
        assert_ne!(new_program, program);
        assert_eq!((new_link, new_flows), (link, flows), "replaced, never detached");
        // The new daemon knows no calls.
        caller.send_to(&rtp(2), outside).unwrap();
        silent(&callee);
        border.install(vec![signalled()]);
        passes(&caller, outside, &callee, inside, &rtp(3));
        let counters = border.planes.counters(CALL);
        assert_eq!(counters[0].from_caller.rtp_kernel, 1, "its own packets only");
        border.planes.stop().unwrap();
    });
}

#[test]
fn stopping_leaves_nothing_behind() {
    inside("stopping_leaves_nothing_behind", |world| {
        world.border.sysctl("ipv4/ip_local_reserved_ports", "8080,20050").unwrap();
        let reserved = || {
            let read = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports");
            world.border.enter(read).unwrap().unwrap().trim().to_owned()
        };
        let mut border = world.start();
        border.install(vec![signalled()]);
        assert_eq!(reserved(), "5060-5061,8080,20000-20199");
        // A daemon that was killed is followed by one that still knows what was added.
        border.planes.leave();
        let border = world.start();
        assert_eq!(reserved(), "5060-5061,8080,20000-20199");
        // Dropped as on a failed start; to stop does the same, and tells what went wrong.
        drop(border);
        assert_eq!(reserved(), "8080,20050");
        assert!(!Path::new("/sys/fs/bpf/sbc").join(&world.instance).exists());
        for interface in ["out0", "in0"] {
            let link = world.border.run("ip", &["-o", "link", "show", "dev", interface]).unwrap();
            assert!(!link.contains("xdp"), "{link}");
        }
    });
}

#[test]
fn a_second_daemon_of_the_instance_is_refused() {
    inside("a_second_daemon_of_the_instance_is_refused", |world| {
        let border = world.start();
        let refused = world.try_start(&world.config()).err().unwrap();
        assert!(matches!(refused, StartError::InstanceRunning { .. }), "{refused}");
        assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
        // A directory of its own does not make it another instance.
        let elsewhere = PlanesConfig { run_dir: world.scratch.path().join("elsewhere"), ..world.config() };
        let refused = world.try_start(&elsewhere).err().unwrap();
        assert!(matches!(refused, StartError::InstanceRunning { .. }), "{refused}");
        border.planes.stop().unwrap();
    });
}

#[test]
fn a_program_of_somebody_else_is_refused() {
    inside("a_program_of_somebody_else_is_refused", |world| {
        let border = world.start();
        let other = PlanesConfig {
            instance: format!("{}-other", world.instance),
            run_dir: world.scratch.path().join("other"),
            ..world.config()
        };
        let refused = world.try_start(&other).err().unwrap();
        let (program, ..) = ids(world);
        let StartError::ForeignProgram { interface, id, name } = &refused else { panic!("{refused}") };
        assert_eq!((interface.as_str(), id.to_string(), name.as_str()), ("out0", program, "sbc"));
        assert!(refused.to_string().contains("bpftool net show dev out0"), "{refused}");
        let surveyed = Planes::survey(&other).err().unwrap();
        assert_eq!(surveyed.to_string(), refused.to_string());
        assert_eq!(Planes::survey(&world.config()).unwrap().addresses, border.planes.report().addresses);
        assert!(!Path::new("/sys/fs/bpf/sbc").join(&other.instance).exists(), "a refusal leaves no pins");
        border.planes.stop().unwrap();
    });
}

#[test]
fn a_pinned_map_of_another_shape_is_refused() {
    inside("a_pinned_map_of_another_shape_is_refused", |world| {
        std::fs::create_dir_all(world.pin("")).unwrap();
        let pin = world.pin("NEXT_HOPS");
        let create = ["type", "array", "key", "4", "value", "16", "entries", "4096", "name", "NEXT_HOPS"];
        run(std::process::Command::new("bpftool").args(["map", "create"]).arg(&pin).args(create)).unwrap();
        let refused = world.try_start(&world.config()).err().unwrap();
        let said = refused.to_string();
        assert!(matches!(refused, StartError::PinnedMapDiffers { field: "value size", .. }), "{said}");
        assert!(said.contains("NEXT_HOPS") && said.contains(pin.to_str().unwrap()), "{said}");
        assert!(pin.exists(), "what is not ours stays");
    });
}

#[test]
fn an_address_that_the_kernel_cannot_serve_is_reported_with_the_reason() {
    inside("an_address_that_the_kernel_cannot_serve_is_reported_with_the_reason", |world| {
        let mut config = world.config();
        config.media[1].address = Ipv4Addr::LOCALHOST.into();
        let (planes, report) = world.try_start(&config).unwrap();
        assert_eq!(report.addresses[0].relay_reason, None);
        let reason = report.addresses[1].relay_reason.as_deref().unwrap();
        assert!(reason.contains("lo has no Ethernet header"), "{reason}");

        // A stream across both is the relay's: it reaches the callee by the routes of the host.
        let mut border = Border { planes, next_op: 1, heard: Vec::new() };
        let mut stream = signalled();
        stream.callee = side(
            Ipv4Addr::LOCALHOST,
            INSIDE_PORT,
            Some((Ipv4Addr::LOCALHOST, CALLEE_PORT)),
            SourcePolicy::Signalled,
        );
        assert_eq!(border.install(vec![stream]), [Placement::Relay]);
        let caller = bind(&world.caller, CALLER, CALLER_PORT);
        let callee = bind(&world.border, Ipv4Addr::LOCALHOST, CALLEE_PORT);
        let via = address(Ipv4Addr::LOCALHOST, INSIDE_PORT);
        passes(&caller, address(OUTSIDE, OUTSIDE_PORT), &callee, via, &rtp(1));
        border.planes.stop().unwrap();
    });
}

#[test]
fn an_interface_that_takes_no_redirected_packets_is_left_to_the_relay() {
    inside("an_interface_that_takes_no_redirected_packets_is_left_to_the_relay", |world| {
        // Without GRO, and without an XDP program of its own, the other end of a veth hears nothing of them.
        world.callee.run("ethtool", &["-K", "eth0", "gro", "off"]).unwrap();
        let (planes, report) = world.try_start(&world.config()).unwrap();
        assert_eq!(report.addresses[0].relay_reason, None);
        let reason = report.addresses[1].relay_reason.as_deref().unwrap();
        assert!(reason.contains("gro on"), "{reason}");
        let mut border = Border { planes, next_op: 1, heard: Vec::new() };
        assert_eq!(border.install(vec![signalled()]), [Placement::Relay]);
        let caller = bind(&world.caller, CALLER, CALLER_PORT);
        let callee = bind(&world.callee, CALLEE, CALLEE_PORT);
        passes(&caller, address(OUTSIDE, OUTSIDE_PORT), &callee, address(INSIDE, INSIDE_PORT), &rtp(1));
        border.planes.stop().unwrap();
    });
}

#[test]
fn a_program_of_an_earlier_daemon_on_an_interface_for_the_relay_is_not_somebody_elses() {
    inside("a_program_of_an_earlier_daemon_on_an_interface_for_the_relay_is_not_somebody_elses", |world| {
        let gro = |state| drop(world.callee.run("ethtool", &["-K", "eth0", "gro", state]).unwrap());
        // The kernel takes it off some time after its pin is gone, so that once shows nothing.
        for _ in 0..8 {
            gro("on");
            world.start().planes.leave();
            gro("off");
            let (planes, report) = world.try_start(&world.config()).unwrap();
            assert!(report.addresses[1].relay_reason.is_some());
            planes.stop().unwrap();
        }
    });
}

#[test]
fn a_sender_that_leaves_its_checksums_unfinished_is_noticed() {
    inside("a_sender_that_leaves_its_checksums_unfinished_is_noticed", |world| {
        world.caller.run("ethtool", &["-K", "eth0", "tx", "on"]).unwrap();
        let mut border = world.start();
        border.install(vec![signalled()]);
        let caller = bind(&world.caller, CALLER, CALLER_PORT);
        let callee = bind(&world.callee, CALLEE, CALLEE_PORT);
        caller.send_to(&rtp(1), address(OUTSIDE, OUTSIDE_PORT)).unwrap();
        silent(&callee);
        assert_eq!(border.outcome("bad_checksum"), 1);
        border.planes.stop().unwrap();
    });
}

#[test]
fn two_realms_share_an_address_and_leave_the_ports_between_their_ranges_alone() {
    inside("two_realms_share_an_address_and_leave_the_ports_between_their_ranges_alone", |world| {
        let bind_to = |ports| MediaBind { address: OUTSIDE.into(), ports };
        let media = vec![bind_to(20_000..=20_049), bind_to(20_100..=20_199)];
        let (planes, report) = world.try_start(&PlanesConfig { media, ..world.config() }).unwrap();
        assert!(report.addresses.iter().all(|address| address.relay_reason.is_none()), "{report:?}");
        let mut border = Border { planes, next_op: 1, heard: Vec::new() };
        let other = Ipv4Addr::new(192, 0, 2, 3);
        let mut stream = signalled();
        stream.callee = side(OUTSIDE, INSIDE_PORT, Some((other, CALLEE_PORT)), SourcePolicy::Signalled);
        assert_eq!(border.install(vec![stream]), [Placement::Kernel]);
        let caller = bind(&world.caller, CALLER, CALLER_PORT);
        let callee = bind(&world.caller, other, CALLEE_PORT);
        let (to_caller, to_callee) = (address(OUTSIDE, OUTSIDE_PORT), address(OUTSIDE, INSIDE_PORT));
        passes(&caller, to_caller, &callee, to_callee, &rtp(1));
        passes(&callee, to_callee, &caller, to_caller, &rtp(2));
        assert_eq!(border.outcome("forward_same"), 2, "out of the interface that it came in from");

        let between = bind(&world.border, OUTSIDE, 20_070);
        passes(&caller, address(OUTSIDE, 20_070), &between, address(CALLER, CALLER_PORT), b"not media");
        border.planes.stop().unwrap();
    });
}

#[test]
fn an_update_loses_no_packet() {
    const PACKETS: u32 = 5000;
    /// Packets on the way at most, so that the receiver's socket never overflows.
    const WINDOW: u32 = 64;
    inside("an_update_loses_no_packet", |world| {
        let mut border = world.start();
        let mut stream = signalled();
        stream.caller.source = SourcePolicy::learn_from(CALLER.into());
        border.install(vec![stream.clone()]);
        let caller = bind(&world.caller, CALLER, CALLER_PORT);
        let callee = bind(&world.callee, CALLEE, CALLEE_PORT);
        let outside = address(OUTSIDE, OUTSIDE_PORT);
        let received = AtomicU32::new(0);
        let updates = std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let deadline = Instant::now() + PATIENCE * 3;
                for number in 0..PACKETS {
                    while number >= received.load(Ordering::Relaxed) + WINDOW {
                        assert!(Instant::now() < deadline, "{number} packets sent, and then nothing arrived");
                        std::thread::yield_now();
                    }
                    caller.send_to(&rtp(number as u16), outside).unwrap();
                }
            });
            let receiver = scope.spawn(|| {
                let mut buffer = [0; 2048];
                for number in 0..PACKETS {
                    let length = callee.recv(&mut buffer).unwrap_or_else(|error| panic!("{number}: {error}"));
                    assert_eq!(&buffer[2..4], (number as u16).to_be_bytes(), "of {length} bytes");
                    received.store(number + 1, Ordering::Relaxed);
                }
            });
            let mut updates = 0_u32;
            while !sender.is_finished() {
                // Another mark each time; and every second time a callee's side that learns, which takes a new
                // generation, while the caller keeps what it claimed.
                stream.callee.dscp = (updates % 64) as u8;
                stream.callee.source = match updates % 2 {
                    0 => SourcePolicy::learn_from(CALLEE.into()),
                    _ => SourcePolicy::Signalled,
                };
                border.install(vec![stream.clone()]);
                updates += 1;
            }
            sender.join().unwrap();
            receiver.join().unwrap();
            updates
        });
        assert!(updates > 10, "{updates}");
        let counters = border.planes.counters(CALL);
        assert_eq!(counters[0].from_caller.rtp_kernel, u64::from(PACKETS));
        for (outcome, count) in border.planes.outcomes() {
            assert!(!outcome.starts_with("drop_") || count == 0, "{outcome}: {count}");
        }
        border.planes.stop().unwrap();
    });
}

#[test]
fn an_interface_that_goes_away_takes_its_streams_to_the_relay() {
    inside("an_interface_that_goes_away_takes_its_streams_to_the_relay", |world| {
        let mut border = world.start();
        assert_eq!(border.install(vec![signalled()]), [Placement::Kernel]);
        world.border.run("ip", &["link", "del", "in0"]).unwrap();
        connect(
            End { namespace: &world.border, interface: "in0", addresses: &["198.51.100.1/24"] },
            End { namespace: &world.callee, interface: "eth0", addresses: &["198.51.100.2/24"] },
        )
        .unwrap();
        // The changes have been read, and the routes have settled.
        let settled = Instant::now() + Duration::from_millis(300);
        border.drive(|_| Instant::now() >= settled);
        assert_eq!(border.install(vec![signalled()]), [Placement::Relay]);
        let caller = bind(&world.caller, CALLER, CALLER_PORT);
        let callee = bind(&world.callee, CALLEE, CALLEE_PORT);
        passes(&caller, address(OUTSIDE, OUTSIDE_PORT), &callee, address(INSIDE, INSIDE_PORT), &rtp(1));
        border.planes.leave();

        // The next daemon does not take the old link for the new interface's.
        let mut border = world.start();
        assert_eq!(border.install(vec![signalled()]), [Placement::Kernel]);
        passes(&caller, address(OUTSIDE, OUTSIDE_PORT), &callee, address(INSIDE, INSIDE_PORT), &rtp(2));
        border.planes.stop().unwrap();
    });
}
