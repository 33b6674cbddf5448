//! Claims over IPv6, and what follows them on the other side, whichever family that is.

use std::net::Ipv6Addr;
use std::sync::Barrier;

use sbc_common::addr::Endpoint;
use sbc_common::counter::Counter::*;
use sbc_common::event::Event;
use sbc_common::flow::{Allowed, FlowHead, FlowSlot, FlowState, SlotIndex};
use sbc_common::flow6::{Allowed6, Claim, ClaimPhase, Endpoint6};

use super::packet::Datagram;
use super::world::*;
use crate::kernel::{Action, Kernel};
use crate::world::*;

/// RTP from the outside peer's address and some port.
fn from_port(port: u16) -> Datagram {
    Datagram { source: at(OUTSIDE_PEER6.0, port), ..from_outside6() }
}

fn from_address(address: u128) -> Datagram {
    Datagram { source: at(Ipv6Addr::from_bits(address), 4321), ..from_outside6() }
}

#[test]
fn the_first_source_of_ipv6_claims_and_the_second_is_dropped() {
    let Some(mut kernel) = Kernel::with_calls6("the_first_source_of_ipv6_claims_and_the_second_is_dropped")
    else {
        return;
    };
    kernel.let_learn6(RTP6);
    let source = Endpoint6::new(OUTSIDE_PEER6.0.octets(), 4321);

    // Until someone claims, the inside's packets go where they were signalled.
    let back = |port| becomes(from_inside6(), BACK, at(OUTSIDE6, OUTSIDE_PORT), at(OUTSIDE_PEER6.0, port));
    assert_eq!(kernel.run(&from_inside6().bytes()).frame, back(OUTSIDE_PEER6.1).bytes());

    let first = kernel.run(&from_port(4321).bytes());
    assert_eq!((first.action, &first.counted[..]), (Action::Redirect, &[ForwardOther, Claimed][..]));
    assert_eq!(first.frame, to_inside6(from_port(4321), ACROSS).bytes());
    assert_eq!(kernel.events(), [Event::Latched6 { slot: RTP6, source, generation: GENERATION }]);
    assert_eq!(kernel.slot6(RTP6).source(), Some(source));

    let second = kernel.run(&from_port(4322).bytes());
    assert_eq!((second.action, &second.counted[..]), (Action::Drop, &[DropWrongSource][..]));
    let again = kernel.run(&from_port(4321).bytes());
    assert_eq!((again.action, &again.counted[..]), (Action::Redirect, &[ForwardOther][..]));
    assert!(kernel.events().is_empty());
    assert_eq!(kernel.run(&from_inside6().bytes()).frame, back(4321).bytes());

    // The daemon's own Latched changes nothing for the packets.
    kernel.edit6(RTP6, |slot| slot.head.state = FlowState::Latched);
    assert_eq!(kernel.run(&from_port(4321).bytes()).action, Action::Redirect);
    assert_eq!(kernel.run(&from_port(4322).bytes()).action, Action::Drop);
}

#[test]
fn a_claim_over_ipv6_turns_what_comes_over_ipv4() {
    let Some(mut kernel) = Kernel::with_calls6("a_claim_over_ipv6_turns_what_comes_over_ipv4") else {
        return;
    };
    kernel.let_learn6(MIXED6);
    let back = |port| {
        let peer = at(OUTSIDE_PEER6.0, port);
        becomes(mixed_from_inside(), BACK, at(OUTSIDE6, MIXED_OUTSIDE_PORT), peer)
    };
    assert_eq!(kernel.run(&mixed_from_inside().bytes()).frame, back(OUTSIDE_PEER6.1).bytes());
    // Not known before the claim: as where nothing was signalled.
    kernel.edit(MIXED4, |slot| slot.destination.port = [0; 2]);
    assert_eq!(kernel.run(&mixed_from_inside().bytes()).counted, [DropNoDestination]);

    let first = Datagram { destination: at(OUTSIDE6, MIXED_OUTSIDE_PORT), ..from_port(4321) };
    let ran = kernel.run(&first.bytes());
    assert_eq!(
        (ran.frame, &ran.counted[..]),
        (mixed_to_inside(first, ACROSS).bytes(), &[ForwardOther, Claimed][..])
    );
    assert_eq!(kernel.run(&mixed_from_inside().bytes()).frame, back(4321).bytes());
    // While the source is being written it is not read.
    kernel.edit6(MIXED6, |slot| slot.claim.phase = ClaimPhase::Claiming);
    assert_eq!(kernel.run(&mixed_from_inside().bytes()).counted, [DropNoDestination]);
}

#[test]
fn a_claim_over_ipv4_turns_what_comes_over_ipv6_and_nothing_else() {
    let name = "a_claim_over_ipv4_turns_what_comes_over_ipv6_and_nothing_else";
    let Some(mut kernel) = Kernel::with_calls6(name) else { return };
    kernel.edit(MIXED4, |slot| {
        slot.head.state = FlowState::Learning;
        slot.expected = Allowed::any_port(INSIDE_PEER.0, 32);
    });
    kernel.edit6(MIXED6, |slot| slot.head.flags = FlowHead::FOLLOWS_PARTNER);
    let first = Datagram { source: at(INSIDE_PEER.0, 5678), ..mixed_from_inside() };
    let ran = kernel.run(&first.bytes());
    assert_eq!(
        (ran.frame, &ran.counted[..]),
        (mixed_to_outside(first, BACK).bytes(), &[ForwardSame, Claimed][..])
    );
    let source = Endpoint::new(INSIDE_PEER.0, 5678);
    assert_eq!(kernel.events(), [Event::Latched { slot: MIXED4, source, generation: GENERATION }]);

    let onward =
        becomes(mixed_from_outside(), ACROSS, at(INSIDE, MIXED_INSIDE_PORT), at(INSIDE_PEER.0, 5678));
    assert_eq!(kernel.run(&mixed_from_outside().bytes()).frame, onward.bytes());
    // The partner's index is one of the other table's: in its own table that slot may be another call's.
    for offset in [0, 1] {
        assert_eq!(kernel.slot(SlotIndex(MIXED6.0 + offset)), FlowSlot::default());
    }
}

#[test]
fn what_is_not_media_does_not_claim_over_ipv6() {
    let Some(mut kernel) = Kernel::with_calls6("what_is_not_media_does_not_claim_over_ipv6") else { return };
    kernel.let_learn6(RTP6);
    for payload in [vec![], vec![0x80; 11], vec![0; 20], vec![22; 20], vec![0x80, 201, 0, 1, 0, 0, 0, 1]] {
        assert_eq!(kernel.run(&Datagram { payload, ..from_port(4321) }.bytes()).action, Action::Drop);
    }
    assert_eq!(kernel.slot6(RTP6).claim, Claim::default());
    assert!(kernel.events().is_empty());
}

#[test]
fn who_may_claim_over_ipv6_is_a_prefix() {
    let Some(mut kernel) = Kernel::with_calls6("who_may_claim_over_ipv6_is_a_prefix") else { return };
    let own = OUTSIDE_PEER6.0.to_bits();
    let outcome = |kernel: &mut Kernel, prefix, address| {
        kernel.install_calls6();
        kernel.edit6(RTP6, |slot| {
            slot.head.state = FlowState::Learning;
            slot.expected = Allowed6::any_port(OUTSIDE_PEER6.0.octets(), prefix);
        });
        kernel.run(&from_address(address).bytes()).counted[0]
    };
    for prefix in [0, 1, 31, 32, 33, 63, 64, 65, 96, 127, 128] {
        assert_eq!(outcome(&mut kernel, prefix, own), ForwardOther);
        for bit in [3, 31, 32, 62, 63, 64, 65, 95, 126, 127] {
            let expected = if bit < u32::from(prefix) { DropWrongSource } else { ForwardOther };
            let other = own ^ 1 << (127 - bit);
            assert_eq!(outcome(&mut kernel, prefix, other), expected, "/{prefix}, bit {bit}");
        }
    }
    for unanswerable in [0, 1, 0xffff_c000_0201, 0xff02 << 112 | 1, 0xfe80 << 112 | 1] {
        assert_eq!(outcome(&mut kernel, 0, unanswerable), DropWrongSource, "{unanswerable:x}");
    }
    kernel.install_calls6();
    kernel.let_learn6(RTP6);
    assert_eq!(kernel.run(&from_port(0).bytes()).counted, [DropWrongSource]);
}

#[test]
fn a_new_generation_of_ipv6_learns_anew() {
    let Some(mut kernel) = Kernel::with_calls6("a_new_generation_of_ipv6_learns_anew") else { return };
    kernel.let_learn6(RTP6);
    kernel.run(&from_port(4321).bytes());
    for index in [RTP6, BACK6] {
        kernel.edit6(index, |slot| slot.head.generation = GENERATION + 1);
    }
    let back =
        becomes(from_inside6(), BACK, at(OUTSIDE6, OUTSIDE_PORT), at(OUTSIDE_PEER6.0, OUTSIDE_PEER6.1));
    assert_eq!(kernel.run(&from_inside6().bytes()).frame, back.bytes());
    assert_eq!(kernel.run(&from_port(4322).bytes()).counted, [ForwardOther, Claimed]);
    assert_eq!(kernel.run(&from_port(4321).bytes()).counted, [DropWrongSource]);
}

#[test]
fn of_two_sources_of_ipv6_at_once_one_claims() {
    let Some(mut kernel) = Kernel::with_calls6("of_two_sources_of_ipv6_at_once_one_claims") else { return };
    let mut met = 0;
    for round in 0..500 {
        kernel.install_calls6();
        kernel.edit6(RTP6, |slot| {
            slot.head.state = FlowState::Learning;
            slot.expected = Allowed6::any_port(OUTSIDE_PEER6.0.octets(), 40);
        });
        let barrier = Barrier::new(2);
        let send = |address| {
            barrier.wait();
            kernel.run_times(&from_address(address).bytes(), 1).0
        };
        let (one, two) = (0x2001_0db8_0100 << 80 | 1, 0x2001_0db8_0100 << 80 | 2 << 64 | 2);
        let actions = std::thread::scope(|scope| {
            let other = scope.spawn(|| send(two));
            (send(one), other.join().unwrap())
        });
        let winner = match actions {
            (Action::Redirect, Action::Drop) => one,
            (Action::Drop, Action::Redirect) => two,
            both => panic!("round {round}: {both:?}"),
        };
        let slot = kernel.slot6(RTP6);
        assert_eq!(slot.source(), Some(Endpoint6::new(Ipv6Addr::from_bits(winner).octets(), 4321)));
        let [Event::Latched6 { source, .. }] = kernel.events()[..] else {
            panic!("round {round}: not one event")
        };
        assert_eq!(Some(source), slot.source());
        met += u32::from(winner == two);
    }
    println!("of 500 races the second source won {met}");
}
