//! One suite, every dataplane: see `sbc_user::dataplane::conformance`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test program: it fails loudly and says what it runs"
)]

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sbc_common::counter::Counter;
use sbc_core::media::plan::Placement;
use sbc_tests::netns::{End, Namespace, connect};
use sbc_tests::{cleanup, is_root, skip};
use sbc_user::dataplane::Dataplane;
use sbc_user::dataplane::conformance::{Addresses, CASES, Datagram, PEER_PORTS, Wire};
use sbc_user::dataplane::fake::Fake;
use sbc_user::dataplane::planes::{Planes, PlanesConfig};
use sbc_user::dataplane::relay::Relay;
use sbc_user::dataplane::xdp::{self, MediaBind, Xdp};

/// Longest wait for a datagram to be forwarded or dropped; ends a test that would otherwise hang.
const PATIENCE: Duration = Duration::from_secs(10);

fn run<W: Wire>(make: impl Fn() -> W) {
    for (name, case) in CASES {
        println!("{name}");
        case(&mut make());
    }
}

#[test]
fn the_fake_conforms() {
    for placement in [Placement::Kernel, Placement::Relay] {
        run(|| FakeWire(Fake::new(placement), placement));
    }
}

#[test]
fn the_relay_conforms() {
    apart(|| {
        let relay = Relay::start().unwrap();
        if let Some(reason) = relay.not_steered() {
            return skip("the_relay_conforms", reason);
        }
        run(|| RelayWire::new(Relay::start().unwrap(), loopback_v4()));
    });
}

#[test]
fn the_relay_with_a_socket_per_port_conforms() {
    apart(|| run(|| RelayWire::new(Relay::start_with_bound_ports().unwrap(), loopback_v4())));
}

/// IPv6 has one loopback address: the parties differ by port only, so the cases that need a stranger's address are not
/// for it.
#[test]
fn the_relay_carries_ipv6() {
    let here = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let addresses =
        Addresses { caller_local: here, callee_local: here, caller: here, callee: here, stranger: here };
    let (_, case) = CASES.iter().find(|(name, _)| *name == "packets flow both ways").unwrap();
    apart(|| {
        if UdpSocket::bind((here, 0)).is_err() {
            return skip("the_relay_carries_ipv6", "this host has no IPv6 loopback address");
        }
        for relay in [Relay::start().unwrap(), Relay::start_with_bound_ports().unwrap()] {
            case(&mut RelayWire::new(relay, addresses));
        }
    });
}

/// The caller over IPv4, the callee over IPv6.
#[test]
fn the_relay_carries_between_families() {
    let addresses = Addresses {
        callee_local: Ipv6Addr::LOCALHOST.into(),
        callee: Ipv6Addr::LOCALHOST.into(),
        ..loopback_v4()
    };
    let (_, case) = CASES.iter().find(|(name, _)| *name == "packets flow both ways").unwrap();
    apart(|| {
        if UdpSocket::bind((addresses.callee, 0)).is_err() {
            return skip("the_relay_carries_between_families", "this host has no IPv6 loopback address");
        }
        for relay in [Relay::start().unwrap(), Relay::start_with_bound_ports().unwrap()] {
            case(&mut RelayWire::new(relay, addresses));
        }
    });
}

/// One test at a time: a program that another test starts holds, from the fork until it runs, every socket of this
/// process, and a port that was given back is still in use.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// In a namespace of its own where that can be, so that nobody else's ports are in the way.
fn apart(test: impl FnOnce() + Send) {
    let _alone = alone();
    if is_root() { Namespace::create("conf").unwrap().enter(test).unwrap() } else { test() }
}

/// Over veth: the receiving kernel checks every checksum that the program wrote.
#[test]
fn the_kernel_conforms() {
    between_namespaces("the_kernel_conforms", V4, kernel);
}

#[test]
fn the_kernel_conforms_with_ipv6() {
    between_namespaces("the_kernel_conforms_with_ipv6", V6, kernel);
}

#[test]
fn the_kernel_conforms_between_families() {
    for families in [[V4[0], V6[1]], [V6[0], V4[1]]] {
        between_namespaces("the_kernel_conforms_between_families", families, kernel);
    }
}

fn kernel(instance: &str, binds: &[MediaBind]) -> (Xdp, Placement) {
    let (xdp, reports) = Xdp::start(instance, xdp::OBJECT, binds, Instant::now()).unwrap();
    assert!(reports.iter().all(|report| report.relay_reason.is_none()), "{reports:?}");
    (xdp.unwrap(), Placement::Kernel)
}

/// The daemon's choice, where it chooses the kernel.
#[test]
fn the_planes_conform_with_the_kernel() {
    between_namespaces("the_planes_conform_with_the_kernel", V4, |instance, binds| {
        (planes(instance, binds, true), Placement::Kernel)
    });
}

/// The daemon's choice, where it has the relay alone.
#[test]
fn the_planes_conform_without_the_kernel() {
    between_namespaces("the_planes_conform_without_the_kernel", V4, |instance, binds| {
        (planes(instance, binds, false), Placement::Relay)
    });
}

fn planes(instance: &str, binds: &[MediaBind], kernel: bool) -> Planes {
    let config = PlanesConfig {
        instance: instance.to_owned(),
        run_dir: std::env::temp_dir().join(instance),
        kernel,
        media: binds.to_vec(),
        sip: Vec::new(),
        reserved_ports: Vec::new(),
    };
    Planes::start(&config, Instant::now()).unwrap().0
}

/// The addresses on one side of the border.
#[derive(Clone, Copy)]
struct Net {
    ours: &'static str,
    theirs: &'static str,
    /// Somebody who is reached over `theirs`.
    stranger: &'static str,
}

/// The caller's side and the callee's.
const V4: [Net; 2] = [
    Net { ours: "10.1.0.1", theirs: "10.1.0.2", stranger: "10.9.0.1" },
    Net { ours: "10.2.0.1", theirs: "10.2.0.2", stranger: "10.9.0.1" },
];
const V6: [Net; 2] = [
    Net { ours: "2001:db8:1::1", theirs: "2001:db8:1::2", stranger: "2001:db8:9::1" },
    Net { ours: "2001:db8:2::1", theirs: "2001:db8:2::2", stranger: "2001:db8:9::1" },
];

/// Runs the suite in a namespace with one interface to each side; the peers are in another.
fn between_namespaces<D: OverVeth>(
    test: &str,
    [caller, callee]: [Net; 2],
    start: impl Fn(&str, &[MediaBind]) -> (D, Placement) + Sync,
) {
    if !is_root() {
        return skip(test, "needs root");
    }
    if !xdp::is_embedded() {
        return skip(test, "built without the kernel object (SBC_EBPF_OBJECT)");
    }
    let _alone = alone();
    let (sbc, peers) = (Namespace::create("conf-sbc").unwrap(), Namespace::create("conf-peers").unwrap());
    let ends = |interface, ours: &str, theirs: &str| {
        connect(
            End { namespace: &sbc, interface, addresses: &[ours] },
            End { namespace: &peers, interface, addresses: &[theirs] },
        )
        .unwrap();
    };
    for (interface, net) in [("caller", caller), ("callee", callee)] {
        let length = if net.ours.contains(':') { 64 } else { 24 };
        ends(interface, &format!("{}/{length}", net.ours), &format!("{}/{length}", net.theirs));
    }
    peers.run("ip", &["address", "add", caller.stranger, "dev", "lo"]).unwrap();
    // So that the relay, unlike the kernel's program, is asked about a stranger at all, and whoever may claim is answered.
    sbc.run("ip", &["route", "add", caller.stranger, "via", caller.theirs]).unwrap();
    for interface in ["all", "caller", "callee"] {
        sbc.sysctl(&format!("ipv4/conf/{interface}/rp_filter"), "0").unwrap();
    }
    let ip = |text: &str| text.parse().unwrap();
    let addresses = Addresses {
        caller_local: ip(caller.ours),
        callee_local: ip(callee.ours),
        caller: ip(caller.theirs),
        callee: ip(callee.theirs),
        stranger: ip(caller.stranger),
    };
    sbc.enter(|| run(|| VethWire::new(&peers, addresses, &start))).unwrap();
}

struct FakeWire(Fake, Placement);

impl Wire for FakeWire {
    fn dataplane(&mut self) -> &mut dyn Dataplane {
        &mut self.0
    }

    fn addresses(&self) -> Addresses {
        let ip = |last| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
        Addresses { caller_local: ip(1), callee_local: ip(2), caller: ip(3), callee: ip(4), stranger: ip(5) }
    }

    fn placement(&self) -> Placement {
        self.1
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Option<Datagram> {
        let (from, to) = self.0.deliver(from, to, payload)?;
        Some(Datagram { from, to, payload: payload.to_vec() })
    }

    fn sent(&mut self, _count: usize) -> Vec<Datagram> {
        let sent = self.0.take_sent().into_iter();
        sent.map(|(from, to, payload)| Datagram { from, to, payload }).collect()
    }

    fn outcome(&self, counter: Counter) -> u64 {
        self.0.outcome(counter)
    }
}

/// The relay on the loopback interface.
struct RelayWire {
    relay: Relay,
    addresses: Addresses,
    peers: Peers<'static>,
}

/// Five addresses in 127/8 that no other test uses, in this process or another.
fn loopback_v4() -> Addresses {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let wire = std::process::id().wrapping_mul(64).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
    let ip = |last| IpAddr::V4(Ipv4Addr::from_bits(0x7f00_0000 | (wire & 0x1f_ffff) << 3 | last));
    Addresses { caller_local: ip(1), callee_local: ip(2), caller: ip(3), callee: ip(4), stranger: ip(5) }
}

impl RelayWire {
    fn new(relay: Relay, addresses: Addresses) -> Self {
        Self { relay, addresses, peers: Peers::new(None, addresses) }
    }
}

impl Wire for RelayWire {
    fn dataplane(&mut self) -> &mut dyn Dataplane {
        &mut self.relay
    }

    fn addresses(&self) -> Addresses {
        self.addresses
    }

    fn placement(&self) -> Placement {
        Placement::Relay
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Option<Datagram> {
        if !self.relay.bound().contains(&to) {
            return None;
        }
        self.peers.deliver(from, to, payload, || dropped(|counter| self.relay.outcome(counter)))
    }

    fn sent(&mut self, count: usize) -> Vec<Datagram> {
        self.peers.sent(count)
    }

    fn outcome(&self, counter: Counter) -> u64 {
        self.relay.outcome(counter)
    }
}

/// What can run in a namespace with real interfaces.
trait OverVeth: Dataplane {
    /// Whether what is sent there is counted by it, forwarded or not.
    fn takes(&self, to: SocketAddr) -> bool;

    /// By name, since the maps exist.
    fn outcomes(&self) -> HashMap<&'static str, u64>;

    fn stop(self) -> std::io::Result<()>;
}

impl OverVeth for Xdp {
    /// All of the media range.
    fn takes(&self, _to: SocketAddr) -> bool {
        true
    }

    fn outcomes(&self) -> HashMap<&'static str, u64> {
        self.outcomes().into_iter().map(|(counter, count)| (counter.name(), count)).collect()
    }

    fn stop(self) -> std::io::Result<()> {
        self.stop()
    }
}

impl OverVeth for Planes {
    /// The kernel counts for all of the media range; for the relay a port that it does not have is nobody's.
    fn takes(&self, to: SocketAddr) -> bool {
        self.report().no_kernel.is_none() || self.relayed_ports().contains(&to)
    }

    fn outcomes(&self) -> HashMap<&'static str, u64> {
        self.figures().outcomes.into_iter().collect()
    }

    fn stop(self) -> std::io::Result<()> {
        self.stop()
    }
}

/// A dataplane with one interface to each side.
struct VethWire<'a, D: OverVeth> {
    /// `None` only while it is dropped.
    plane: Option<D>,
    placement: Placement,
    before: HashMap<&'static str, u64>,
    addresses: Addresses,
    peers: Peers<'a>,
    _files: cleanup::Guard,
}

impl<'a, D: OverVeth> VethWire<'a, D> {
    /// In the namespace of the calling thread.
    fn new(
        peers: &'a Namespace,
        addresses: Addresses,
        start: impl Fn(&str, &[MediaBind]) -> (D, Placement),
    ) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let binds = [addresses.caller_local, addresses.callee_local]
            .map(|address| MediaBind { address, ports: 20_000..=29_999 });
        let instance = format!("conf{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let files = [Path::new("/sys/fs/bpf/sbc").join(&instance), std::env::temp_dir().join(&instance)];
        // Also what a start that fails half-way leaves.
        let files =
            cleanup::on_exit(move || files.iter().for_each(|path| drop(std::fs::remove_dir_all(path))));
        let (plane, placement) = start(&instance, &binds);
        Self {
            before: plane.outcomes(),
            plane: Some(plane),
            placement,
            addresses,
            peers: Peers::new(Some(peers), addresses),
            _files: files,
        }
    }
}

impl<D: OverVeth> Wire for VethWire<'_, D> {
    fn dataplane(&mut self) -> &mut dyn Dataplane {
        self.plane.as_mut().unwrap()
    }

    fn addresses(&self) -> Addresses {
        self.addresses
    }

    fn placement(&self) -> Placement {
        self.placement
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Option<Datagram> {
        let Self { plane: Some(plane), peers, .. } = self else {
            unreachable!("stopped while it is dropped")
        };
        if !plane.takes(to) {
            return None;
        }
        peers.deliver(from, to, payload, || {
            let outcomes = plane.outcomes();
            dropped(|counter| outcomes[counter.name()])
        })
    }

    fn sent(&mut self, count: usize) -> Vec<Datagram> {
        self.peers.sent(count)
    }

    fn outcome(&self, counter: Counter) -> u64 {
        self.plane.as_ref().unwrap().outcomes()[counter.name()] - self.before[counter.name()]
    }
}

impl<D: OverVeth> Drop for VethWire<'_, D> {
    fn drop(&mut self) {
        let stopped = self.plane.take().map(D::stop);
        if !std::thread::panicking() {
            stopped.unwrap().unwrap();
        }
    }
}

/// Everything dropped, for whatever reason.
fn dropped(outcome: impl Fn(Counter) -> u64) -> u64 {
    Counter::ALL
        .iter()
        .filter(|counter| counter.name().starts_with("drop_"))
        .map(|counter| outcome(*counter))
        .sum()
}

/// Real sockets for everybody who talks to a dataplane.
struct Peers<'a> {
    namespace: Option<&'a Namespace>,
    sockets: HashMap<SocketAddr, UdpSocket>,
}

impl<'a> Peers<'a> {
    /// Wherever a case may expect something to arrive, somebody listens.
    fn new(namespace: Option<&'a Namespace>, addresses: Addresses) -> Self {
        let mut peers = Self { namespace, sockets: HashMap::new() };
        let listeners = [addresses.caller, addresses.callee].into_iter();
        peers.open(listeners.flat_map(|ip| PEER_PORTS.map(move |port| SocketAddr::new(ip, port))).collect());
        peers
    }

    fn open(&mut self, addresses: Vec<SocketAddr>) {
        let bind = |at: SocketAddr| {
            let socket = UdpSocket::bind(at).unwrap_or_else(|error| panic!("bind {at}: {error}"));
            socket.set_nonblocking(true).unwrap();
            (at, socket)
        };
        // On the loopback interface both sides can have the same address.
        let new = addresses.into_iter().filter(|at| !self.sockets.contains_key(at)).collect::<HashSet<_>>();
        let bind_all = || new.into_iter().map(bind).collect::<Vec<_>>();
        self.sockets.extend(match self.namespace {
            Some(namespace) => namespace.enter(bind_all).unwrap(),
            None => bind_all(),
        });
    }

    /// Sends, and waits until something arrives or is counted as dropped.
    fn deliver(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        payload: &[u8],
        dropped: impl Fn() -> u64,
    ) -> Option<Datagram> {
        self.open(vec![from]);
        let before = dropped();
        self.sockets[&from].send_to(payload, to).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(datagram) = self.received() {
                return Some(datagram);
            }
            if dropped() != before {
                assert_eq!(self.received(), None, "dropped and forwarded");
                return None;
            }
            assert!(
                Instant::now() < deadline,
                "a datagram from {from} to {to} was neither forwarded nor dropped"
            );
            std::thread::yield_now();
        }
    }

    /// What arrived of itself: as many as are expected, and what more there is.
    fn sent(&self, expected: usize) -> Vec<Datagram> {
        let (mut arrived, deadline) = (Vec::new(), Instant::now() + PATIENCE);
        loop {
            match self.received() {
                Some(datagram) => arrived.push(datagram),
                None if arrived.len() >= expected || Instant::now() >= deadline => return arrived,
                None => std::thread::yield_now(),
            }
        }
    }

    fn received(&self) -> Option<Datagram> {
        let mut buffer = [0; 2048];
        for (to, socket) in &self.sockets {
            match socket.recv_from(&mut buffer) {
                Ok((length, from)) => {
                    return Some(Datagram { from, to: *to, payload: buffer[..length].to_vec() });
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
        }
        None
    }
}
