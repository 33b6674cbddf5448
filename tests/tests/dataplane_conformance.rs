//! One suite, every dataplane: see `sbc_user::dataplane::conformance`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test program: it fails loudly and says what it runs"
)]

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sbc_common::counter::Counter;
use sbc_core::media::plan::Placement;
use sbc_user::dataplane::Dataplane;
use sbc_user::dataplane::conformance::{Addresses, CASES, Datagram, PEER_PORTS, Wire};
use sbc_user::dataplane::fake::Fake;
use sbc_user::dataplane::relay::Relay;

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
    run(|| RelayWire::new(loopback_v4()));
}

/// IPv6 has one loopback address: the parties differ by port only, so the cases that need a stranger's address are not
/// for it.
#[test]
fn the_relay_carries_ipv6() {
    if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        println!("SKIP: this host has no IPv6 loopback address");
        return;
    }
    let here = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let addresses =
        Addresses { caller_local: here, callee_local: here, caller: here, callee: here, stranger: here };
    let (_, case) = CASES.iter().find(|(name, _)| *name == "packets flow both ways").unwrap();
    case(&mut RelayWire::new(addresses));
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

    fn outcome(&self, counter: Counter) -> u64 {
        self.0.outcome(counter)
    }
}

/// The relay, and real sockets for everybody who talks to it.
struct RelayWire {
    relay: Relay,
    addresses: Addresses,
    peers: HashMap<SocketAddr, UdpSocket>,
}

/// Five addresses in 127/8 that no other test uses, in this process or another.
fn loopback_v4() -> Addresses {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let wire = std::process::id().wrapping_mul(64).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
    let ip = |last| IpAddr::V4(Ipv4Addr::from_bits(0x7f00_0000 | (wire & 0x1f_ffff) << 3 | last));
    Addresses { caller_local: ip(1), callee_local: ip(2), caller: ip(3), callee: ip(4), stranger: ip(5) }
}

impl RelayWire {
    fn new(addresses: Addresses) -> Self {
        let mut wire = Self { relay: Relay::start().unwrap(), addresses, peers: HashMap::new() };
        // Wherever a case may expect something to arrive, somebody listens.
        for ip in [addresses.caller, addresses.callee] {
            for port in PEER_PORTS {
                wire.peer(SocketAddr::new(ip, port));
            }
        }
        wire
    }

    fn peer(&mut self, at: SocketAddr) -> &UdpSocket {
        self.peers.entry(at).or_insert_with(|| {
            let socket = UdpSocket::bind(at).unwrap_or_else(|error| panic!("bind {at}: {error}"));
            socket.set_nonblocking(true).unwrap();
            socket
        })
    }

    /// Everything that the relay has dropped.
    fn dropped(&self) -> u64 {
        let drops = Counter::ALL.iter().filter(|counter| counter.name().starts_with("drop_"));
        drops.map(|counter| self.relay.outcome(*counter)).sum()
    }

    fn received(&self) -> Option<Datagram> {
        let mut buffer = [0; 2048];
        for (to, socket) in &self.peers {
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
        let before = self.dropped();
        self.peer(from).send_to(payload, to).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(datagram) = self.received() {
                return Some(datagram);
            }
            if self.dropped() != before {
                assert_eq!(self.received(), None, "dropped and forwarded");
                return None;
            }
            assert!(
                Instant::now() < deadline,
                "the datagram from {from} to {to} was neither forwarded nor dropped"
            );
            std::thread::yield_now();
        }
    }

    fn outcome(&self, counter: Counter) -> u64 {
        self.relay.outcome(counter)
    }
}
