//! Whatever comes in: what leaves over IPv6, or came over it, is well-formed, carries the same payload, is as right or as
//! wrong as it was, and came from whom its flow accepts; what passes or is dropped is untouched.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sbc_common::flow::{Allowed, FlowState, Learned, PortKind};
use sbc_common::flow6::{Allowed6, Claim, ClaimPhase};

use super::packet::{Datagram, read};
use super::world::*;
use crate::kernel::{Action, Kernel};
use crate::packet::UdpChecksum;
use crate::world::*;

/// What is sent, and what is done to its frame afterwards.
#[derive(Clone, Debug)]
struct Sent {
    datagram: Datagram,
    changes: Vec<(usize, u8)>,
    cut: Option<usize>,
}

impl Sent {
    fn is_whole(&self) -> bool {
        self.changes.is_empty() && self.cut.is_none()
    }

    fn frame(&self) -> Vec<u8> {
        let mut frame = self.datagram.bytes();
        for (at, byte) in &self.changes {
            if let Some(place) = frame.get_mut(*at) {
                *place = *byte;
            }
        }
        frame.truncate(self.cut.unwrap_or(usize::MAX));
        frame
    }
}

/// A frame near to what the flows take.
fn sent() -> impl Strategy<Value = Sent> {
    let flow = prop_oneof![
        3 => Just(from_outside6()),
        1 => Just(from_inside6()),
        3 => Just(mixed_from_outside()),
        3 => Just(mixed_from_inside()),
    ];
    let payload = prop_oneof![
        6 => prop::collection::vec(any::<u8>(), 11..220).prop_map(|mut payload| {
            payload.splice(..1, [0x80, 0]);
            payload
        }),
        1 => prop::collection::vec(any::<u8>(), 0..1400),
    ];
    let tags = prop_oneof![5 => Just(vec![]), 1 => Just(vec![VLAN]), 1 => Just(vec![OUTER_VLAN, VLAN])];
    let sum = prop_oneof![
        5 => Just(UdpChecksum::Right),
        2 => Just(UdpChecksum::None),
        2 => Just(UdpChecksum::Wrong),
    ];
    // The bit of the source's address that is another one, and its port.
    let source = (
        prop_oneof![3 => Just(None), 1 => (0..128u32).prop_map(Some)],
        prop_oneof![4 => Just(0), 1 => 0..4u16],
    );
    let damage = prop::collection::vec((12..80usize, any::<u8>()), 0..3);
    let changes = prop_oneof![3 => Just(Vec::new()).boxed(), 1 => damage.boxed()];
    let cut = prop_oneof![6 => Just(None), 1 => (14..260usize).prop_map(Some)];
    let marks = any::<(u8, u8, u16)>();
    (flow, payload, tags, sum, source, marks, 0..40usize, changes, cut).prop_map(
        |(flow, payload, tags, udp_checksum, (bit, port), (service, ttl, label), padding, changes, cut)| {
            let address = match (flow.source.ip(), bit) {
                (IpAddr::V4(address), Some(bit)) => {
                    IpAddr::from((u32::from(address) ^ 1 << (bit % 32)).to_be_bytes())
                }
                (IpAddr::V6(address), Some(bit)) => Ipv6Addr::from_bits(address.to_bits() ^ 1 << bit).into(),
                (address, None) => address,
            };
            let source = SocketAddr::new(address, flow.source.port() + port);
            // A service of IPv4 and one of IPv6 are the same byte.
            let datagram =
                Datagram { source, payload, tags, udp_checksum, service, ttl, label, padding, ..flow };
            Sent { datagram, changes, cut }
        },
    )
}

/// State, kind, next hop, flags, claim, prefix of every slot.
fn slot() -> impl Strategy<Value = (FlowState, PortKind, u16, u8, Claim, u8)> {
    use FlowState::{Idle, Latched, Learning, Relay};
    let generation = prop_oneof![3 => Just(GENERATION), 1 => any::<u16>()];
    let phase = prop_oneof![
        3 => Just(ClaimPhase::Open),
        1 => Just(ClaimPhase::Claiming),
        2 => Just(ClaimPhase::Claimed),
    ];
    (
        prop_oneof![1 => Just(Idle), 6 => Just(Learning), 8 => Just(Latched), 1 => Just(Relay)],
        prop_oneof![6 => Just(PortKind::Rtp), 1 => Just(PortKind::Rtcp)],
        prop_oneof![2 => Just(BACK), 2 => Just(ACROSS), 2 => Just(ACROSS_TAGGED), 1 => 0..8u16],
        0..2u8,
        (generation, phase).prop_map(|(generation, phase)| Claim::new(generation, phase)),
        prop_oneof![1 => Just(128), 1 => Just(0), 1 => 0..=128u8],
    )
}

/// Whether the flow that a whole datagram belongs to accepts its source, by its slot as it was.
fn accepts(kernel: &Kernel, came: &Datagram) -> bool {
    let agrees = |own: u128, other: u128, prefix: u32| prefix == 0 || (own ^ other) >> (128 - prefix) == 0;
    let port = came.source.port();
    match came.source.ip() {
        IpAddr::V6(source) => {
            let index = match (came.destination.ip() == IpAddr::from(INSIDE6), came.tags.len()) {
                (true, _) => BACK6,
                (false, 0) if came.destination.port() == MIXED_OUTSIDE_PORT => MIXED6,
                (false, 0) => RTP6,
                (false, 1) => VLAN_RTP6,
                (false, _) => OUTER_VLAN_RTP6,
            };
            let slot = kernel.slot6(index);
            let exactly =
                |address: [u8; 16], at: [u8; 2]| address == source.octets() && at == port.to_be_bytes();
            match (slot.source(), slot.head.state) {
                (Some(learned), _) => exactly(learned.address, learned.port),
                (None, FlowState::Latched) => exactly(slot.expected.address, slot.expected.port),
                (None, _) => {
                    let Allowed6 { address, prefix, .. } = slot.expected;
                    agrees(u128::from_be_bytes(address), source.to_bits(), prefix.into())
                }
            }
        }
        IpAddr::V4(source) => {
            let slot = kernel.slot(MIXED4);
            let exactly =
                |address: [u8; 4], at: [u8; 2]| address == source.octets() && at == port.to_be_bytes();
            match (slot.source(), slot.head.state) {
                (Some(learned), _) => exactly(learned.address, learned.port),
                (None, FlowState::Latched) => exactly(slot.expected.address, slot.expected.port),
                (None, _) => {
                    let Allowed { address, prefix, .. } = slot.expected;
                    let high = |address: u32| u128::from(address) << 96;
                    agrees(high(u32::from_be_bytes(address)), high(source.to_bits()), prefix.into())
                }
            }
        }
    }
}

#[test]
fn what_leaves_over_ipv6_or_came_over_it_is_well_formed() {
    let name = "what_leaves_over_ipv6_or_came_over_it_is_well_formed";
    let Some(kernel) = Kernel::with_calls6(name) else { return };
    let kernel = std::cell::RefCell::new(kernel);
    let left = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(Config { cases: 4000, failure_persistence: None, ..Config::default() });
    let slots = [slot(), slot(), slot(), slot()];
    runner
        .run(&(sent(), slots, any::<u64>()), |(sent, [outside, inside, mixed, mixed4], learned)| {
            let mut kernel = kernel.borrow_mut();
            kernel.install_calls6();
            for (index, (state, kind, next_hop, flags, claim, prefix)) in
                [(RTP6, outside), (BACK6, inside), (MIXED6, mixed)]
            {
                kernel.edit6(index, |slot| {
                    (slot.head.state, slot.head.kind) = (state, kind);
                    (slot.head.next_hop, slot.head.flags, slot.claim) = (next_hop, flags, claim);
                    slot.learned_source = endpoint6(OUTSIDE_PEER6);
                    if state == FlowState::Learning {
                        slot.expected = Allowed6 { port: [0; 2], prefix, ..slot.expected };
                    }
                });
            }
            let (state, kind, next_hop, flags, claim, prefix) = mixed4;
            kernel.edit(MIXED4, |slot| {
                (slot.head.state, slot.head.kind) = (state, kind);
                (slot.head.next_hop, slot.head.flags) = (next_hop, flags);
                if claim.phase != ClaimPhase::Open {
                    slot.learned_source = Learned::from_word(learned);
                }
                if state == FlowState::Learning {
                    slot.expected = Allowed { port: [0; 2], prefix: prefix / 4, ..slot.expected };
                }
            });
            let outside = kernel.slot6(RTP6);
            for index in [VLAN_RTP6, OUTER_VLAN_RTP6] {
                kernel.set_slot6(index, &outside);
            }
            let accepted = accepts(&kernel, &sent.datagram);
            let frame = sent.frame();
            let ran = kernel.run(&frame);
            kernel.events();
            kernel.reports();

            let outcomes = ran.counted.iter().filter(|counter| !matches!(counter.number(), 2..=15)).count();
            prop_assert_eq!(outcomes, 1, "one outcome: {:?}", ran.counted);
            match ran.action {
                Action::Pass | Action::Drop => prop_assert_eq!(&ran.frame, &frame),
                Action::Transmit | Action::Redirect => {
                    left.set(left.get() + 1);
                    prop_assert!(accepted || !sent.is_whole(), "from a wrong source");
                    let Some(after) = read(&ran.frame) else {
                        return Err(TestCaseError::fail(format!("malformed: {:?}", ran.frame)));
                    };
                    prop_assert_eq!((after.service >> 2, after.ttl), (DSCP, TTL));
                    // Only the checksum of an IPv4 header, which is not looked at, can make it unreadable before.
                    if let Some(before) = read(&frame) {
                        prop_assert_eq!(after.service & 3, before.service & 3);
                        prop_assert_eq!(after.payload, before.payload);
                        prop_assert_eq!(after.wrong_by, before.wrong_by.or(Some(0)));
                    }
                }
            }
            Ok(())
        })
        .unwrap();
    println!("{} of 4000 left", left.get());
    assert!(left.get() > 400, "only {} packets left: the property says little", left.get());
}
