//! Whatever comes in, what leaves is well-formed, and what passes or is dropped is untouched.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sbc_common::addr::Endpoint;
use sbc_common::counter::Counter;
use sbc_common::flow::{Allowed, FlowState, Learned, PortKind, Target, Way};

use crate::kernel::{Action, Kernel};
use crate::packet::{Packet, UdpChecksum, fault, fix_ip_checksum};
use crate::world::*;

/// A frame: near to what the flows take, with bytes changed or cut off, so that every branch is met.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let source = prop_oneof![
        6 => Just(OUTSIDE_PEER),
        2 => Just(INSIDE_PEER),
        1 => Just((OUTSIDE_PEER.0, OUTSIDE_PEER.1 + 1)),
        1 => any::<([u8; 4], u16)>(),
    ];
    let destination = prop_oneof![
        6 => Just((OUTSIDE, OUTSIDE_PORT)),
        2 => Just((INSIDE, INSIDE_PORT)),
        1 => Just((OUTSIDE, OUTSIDE_PORT + 1)),
        1 => any::<u16>().prop_map(|port| (OUTSIDE, port)),
    ];
    let payload = prop_oneof![
        6 => prop::collection::vec(any::<u8>(), 11..220).prop_map(|mut payload| {
            payload.splice(..1, [0x80, 0]);
            payload
        }),
        1 => prop::collection::vec(any::<u8>(), 0..1400),
    ];
    let vlans = prop_oneof![
        4 => Just((None, None)),
        1 => Just((Some(VLAN), None)),
        1 => Just((Some(VLAN), Some(OUTER_VLAN))),
        1 => any::<u16>().prop_map(|vlan| (Some(vlan), None)),
    ];
    let sum = prop_oneof![4 => Just(UdpChecksum::Right), 1 => Just(UdpChecksum::None)];
    let packet = (source, destination, payload, vlans, any::<(u8, u8, u16)>(), sum, 0..40usize).prop_map(
        |(
            source,
            destination,
            payload,
            (vlan, outer_vlan),
            (tos, ttl, identification),
            udp_checksum,
            padding,
        )| Packet {
            vlan,
            outer_vlan,
            tos,
            ttl,
            identification,
            payload,
            udp_checksum,
            padding,
            ..Packet::rtp(source, destination)
        },
    );
    // Changes within the headers only, and with checksums as they then are: right or wrong.
    let damage = prop::collection::vec((12..60usize, any::<u8>()), 0..3);
    let change = prop_oneof![3 => Just(Vec::new()).boxed(), 2 => damage.boxed()];
    let cut = prop_oneof![4 => Just(None), 1 => (14..260usize).prop_map(Some)];
    (packet, change, cut, any::<bool>()).prop_map(|(packet, changes, cut, fix)| {
        let mut frame = packet.bytes();
        for (at, byte) in changes {
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
        }
        if fix && packet.vlan.is_none() {
            fix_ip_checksum(&mut frame[14..]);
        }
        frame.truncate(cut.unwrap_or(usize::MAX));
        frame
    })
}

/// State, kind, next hop and what was learned, for the slots of the call.
fn slots() -> impl Strategy<Value = [(FlowState, PortKind, u16, u64, u64); 2]> {
    use FlowState::{Idle, Latched, Learning, Muxed, Relay};
    let slot = (
        prop_oneof![1 => Just(Idle), 4 => Just(Learning), 8 => Just(Latched), 1 => Just(Relay), 1 => Just(Muxed)],
        prop_oneof![6 => Just(PortKind::Rtp), 1 => Just(PortKind::Rtcp), 2 => Just(PortKind::Muxed)],
        prop_oneof![2 => Just(BACK), 2 => Just(ACROSS), 2 => Just(ACROSS_TAGGED), 1 => Just(ACROSS_TAGGED_TWICE), 1 => 0..9u16],
        prop_oneof![3 => Just(0), 1 => any::<u64>()],
        prop_oneof![3 => Just(0), 1 => any::<u64>()],
    );
    [slot.clone(), slot]
}

#[test]
fn what_leaves_is_well_formed() {
    let Some(kernel) = Kernel::with_call("what_leaves_is_well_formed") else { return };
    let kernel = std::cell::RefCell::new(kernel);
    let left = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(Config { cases: 4000, failure_persistence: None, ..Config::default() });
    runner
        .run(&(frame(), slots(), prop::bool::weighted(0.1), 0..33u8), |(frame, slots, is_local, prefix)| {
            let mut kernel = kernel.borrow_mut();
            kernel.install_call();
            for (index, (state, kind, next_hop, learned_source, learned_destination)) in
                [OUTSIDE_RTP, INSIDE_RTP].into_iter().zip(slots)
            {
                kernel.edit(index, |slot| {
                    (slot.head.state, slot.head.kind, slot.head.next_hop) = (state, kind, next_hop);
                    slot.learned_source = Learned::from_word(learned_source);
                    slot.learned_destination = Learned::from_word(learned_destination);
                    if state == FlowState::Learning {
                        slot.expected = Allowed { port: [0; 2], prefix, ..slot.expected };
                    }
                });
            }
            if is_local {
                // What comes from outside goes on in the inside's flow, and so back out.
                let ours = Endpoint::new(INSIDE, INSIDE_PORT);
                kernel.edit(OUTSIDE_RTP, |slot| {
                    (slot.head.way, slot.head.next_hop) = (Way::Local, INSIDE_RTP.address_slot());
                    slot.destination = Target::new(ours, DSCP, TTL);
                });
                kernel.edit(INSIDE_RTP, |slot| slot.expected = Allowed { prefix, ..Allowed::exactly(ours) });
            }
            let outside = kernel.slot(OUTSIDE_RTP);
            kernel.set_slot(VLAN_RTP, &outside);
            kernel.set_slot(OUTER_VLAN_RTP, &outside);
            let ran = kernel.run(&frame);
            kernel.events();
            kernel.reports();

            let outcomes = ran.counted.iter().filter(|counter| !matches!(counter.number(), 2..=15)).count();
            prop_assert_eq!(outcomes, 1, "one outcome: {:?}", ran.counted);
            match ran.action {
                Action::Pass | Action::Drop => prop_assert_eq!(&ran.frame, &frame),
                Action::Transmit | Action::Redirect => {
                    left.set(left.get() + 1);
                    // What arrived right leaves right; what was wrong stays wrong, and in the same place.
                    prop_assert_eq!(fault(&ran.frame), fault(&frame));
                    let (before, after) = (ip_packet(&frame), ip_packet(&ran.frame));
                    prop_assert_eq!(before.len(), after.len());
                    prop_assert_eq!(&before[28..], &after[28..], "payload and padding");
                    prop_assert_eq!(&before[2..8], &after[2..8], "length, identification, fragment bits");
                    prop_assert_eq!((after[1] >> 2, after[8]), (DSCP, TTL));
                    prop_assert!(
                        ran.counted.contains(&Counter::ForwardSame) == (ran.action == Action::Transmit)
                    );
                }
            }
            Ok(())
        })
        .unwrap();
    assert!(left.get() > 400, "only {} packets left: the property says little", left.get());
}

/// What follows the Ethernet header and its tags.
fn ip_packet(frame: &[u8]) -> &[u8] {
    match frame[12..14] {
        [0x88, 0xa8] => &frame[22..],
        [0x81, 0] => &frame[18..],
        _ => &frame[14..],
    }
}
