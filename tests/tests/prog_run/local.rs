//! Both parties behind this host: a packet goes from port to port of ours before it leaves.
//!
//! ```text
//!   OUTSIDE_PEER ──▶ OUTSIDE:20000 ═ INSIDE:20002 ┄┄▶ INSIDE:20100 ═ OUTSIDE:20102 ──▶ SECOND_PEER
//!                        first call                        second call
//! ```

use sbc_common::addr::Endpoint;
use sbc_common::counter::Counter::*;
use sbc_common::flow::{Allowed, FlowHead, FlowSlot, FlowState, PortKind, SlotIndex, Target, Way};

use crate::kernel::{Action, Kernel};
use crate::world::*;

const SECOND_PEER: Peer = ([203, 0, 113, 77], 7000);

const IN: SlotIndex = SlotIndex::new(1, 20_100);
const OUT: SlotIndex = SlotIndex::new(0, 20_102);

impl Kernel {
    /// Lets the first call's inside be the second call, whose other party is outside.
    fn join_calls(&mut self) {
        for (rtp, rtcp, offset) in [(OUTSIDE_RTP, INSIDE_RTP, 0), (OUTSIDE_RTCP, INSIDE_RTCP, 1)] {
            self.edit(rtp, |slot| {
                (slot.head.way, slot.head.next_hop) = (Way::Local, IN.address_slot());
                slot.destination = Target::new(Endpoint::new(INSIDE, IN.port() + offset), DSCP, TTL);
            });
            self.edit(rtcp, |slot| {
                slot.expected = Allowed::exactly(Endpoint::new(INSIDE, IN.port() + offset));
            });
            let kind = if offset == 0 { PortKind::Rtp } else { PortKind::Rtcp };
            let head = FlowHead {
                state: FlowState::Latched,
                kind,
                next_hop: BACK,
                generation: GENERATION + 5,
                ..FlowHead::default()
            };
            let (into, out) = (SlotIndex(IN.0 + u32::from(offset)), SlotIndex(OUT.0 + u32::from(offset)));
            let second = FlowSlot {
                head,
                expected: Allowed::exactly(Endpoint::new(INSIDE, INSIDE_PORT + offset)),
                destination: Target::new(Endpoint::new(SECOND_PEER.0, SECOND_PEER.1 + offset), DSCP, TTL),
                partner: out.0,
                ..FlowSlot::default()
            };
            self.set_slot(into, &second);
            let back = FlowSlot {
                head: FlowHead { way: Way::Local, next_hop: INSIDE_RTP.address_slot(), ..head },
                expected: Allowed::exactly(Endpoint::new(SECOND_PEER.0, SECOND_PEER.1 + offset)),
                destination: Target::new(Endpoint::new(INSIDE, INSIDE_PORT + offset), DSCP, TTL),
                partner: into.0,
                ..FlowSlot::default()
            };
            self.set_slot(out, &back);
            for index in [into, out] {
                self.set_stream(index, &Default::default());
            }
        }
    }
}

#[test]
fn media_goes_through_both_calls_at_once() {
    let Some(mut kernel) = Kernel::with_call("media_goes_through_both_calls_at_once") else { return };
    kernel.join_calls();
    let ran = kernel.run(&from_outside().bytes());
    let becomes = forwarded(from_outside(), BACK, (OUTSIDE, OUT.port()), SECOND_PEER);
    assert_eq!((ran.action, &ran.counted[..]), (Action::Transmit, &[ForwardSame][..]));
    assert_eq!(ran.frame, becomes.bytes());
    for index in [OUTSIDE_RTP, IN] {
        let slot = kernel.slot(index);
        assert_eq!((slot.packets, slot.bytes, slot.last_seen != 0), (1, 172, true));
        assert_eq!(kernel.stream(index).expected, 1);
    }
    assert_eq!((kernel.slot(INSIDE_RTP).packets, kernel.slot(OUT).packets), (0, 0));

    let mut back = from_outside();
    (back.source, back.destination) = (SECOND_PEER, (OUTSIDE, OUT.port()));
    let ran = kernel.run(&back.bytes());
    assert_eq!(ran.frame, forwarded(back, BACK, (OUTSIDE, OUTSIDE_PORT), OUTSIDE_PEER).bytes());
    assert_eq!((kernel.slot(INSIDE_RTP).packets, kernel.slot(OUT).packets), (1, 1));
}

#[test]
fn both_calls_get_their_reports() {
    let Some(mut kernel) = Kernel::with_call("both_calls_get_their_reports") else { return };
    kernel.join_calls();
    let report = rtcp_from_outside();
    assert_eq!(kernel.run(&report.bytes()).counted, [ForwardSame]);
    let copies = [
        (OUTSIDE_RTCP, GENERATION, 8, report.payload.clone()),
        (SlotIndex(IN.0 + 1), GENERATION + 5, 8, report.payload),
    ];
    assert_eq!(kernel.reports(), copies);
}

#[test]
fn each_call_judges_for_itself() {
    let Some(mut kernel) = Kernel::with_call("each_call_judges_for_itself") else { return };
    let frame = from_outside().bytes();
    type Edit = fn(&mut Kernel);
    let cases: [(&str, Edit, _, _); 8] = [
        (
            "who else could send to the second call's port",
            |kernel| {
                kernel
                    .edit(IN, |slot| slot.expected = Allowed::exactly(Endpoint::new(INSIDE, INSIDE_PORT + 2)))
            },
            DropWrongSource,
            1,
        ),
        (
            "the second call is gone",
            |kernel| kernel.edit_head(IN, |head| head.state = FlowState::Idle),
            DropNoFlow,
            1,
        ),
        (
            "the second call is the relay's",
            |kernel| kernel.edit_head(IN, |head| head.state = FlowState::Relay),
            DropNoFlow,
            1,
        ),
        ("not its kind", |kernel| kernel.edit_head(IN, |head| head.kind = PortKind::Rtcp), DropWrongKind, 1),
        (
            "the first call's limit",
            |kernel| {
                kernel.edit_stream(OUTSIDE_RTP, |stream| stream.limit = 1);
                kernel.run(&from_outside().bytes());
                for index in [OUTSIDE_RTP, IN] {
                    kernel.edit(index, |slot| slot.packets = 0);
                }
            },
            DropOverRate,
            0,
        ),
        (
            "the second call's limit",
            |kernel| {
                kernel.edit_stream(IN, |stream| stream.limit = 1);
                kernel.run(&from_outside().bytes());
                for index in [OUTSIDE_RTP, IN] {
                    kernel.edit(index, |slot| slot.packets = 0);
                }
            },
            DropOverRate,
            1,
        ),
        (
            "an address that we do not have",
            |kernel| kernel.edit_head(OUTSIDE_RTP, |head| head.next_hop = 0x7fff),
            DropBadSlot,
            1,
        ),
        (
            "a partner on no address of ours",
            |kernel| kernel.edit(OUTSIDE_RTP, |slot| slot.partner = SlotIndex::new(9, 20_002).0),
            DropBadSlot,
            1,
        ),
    ];
    for (name, given, counted, first) in cases {
        kernel.install_call();
        kernel.join_calls();
        given(&mut kernel);
        let ran = kernel.run(&frame);
        assert_eq!(
            (ran.action, ran.counted, ran.frame),
            (Action::Drop, vec![counted], frame.clone()),
            "{name}"
        );
        // The first call has handed it on, unless it was the one that did not want it.
        let packets = [OUTSIDE_RTP, IN].map(|index| kernel.slot(index).packets);
        assert_eq!(packets, [first, 0], "{name}");
    }
}

#[test]
fn the_second_call_may_learn_where_the_first_one_sends_from() {
    const NAME: &str = "the_second_call_may_learn_where_the_first_one_sends_from";
    let Some(mut kernel) = Kernel::with_call(NAME) else { return };
    kernel.join_calls();
    kernel.edit(IN, |slot| {
        slot.head.state = FlowState::Learning;
        slot.expected = Allowed::any_port(INSIDE, 32);
    });
    assert_eq!(kernel.run(&from_outside().bytes()).counted, [ForwardSame, Claimed]);
    assert_eq!(kernel.slot(IN).source(), Some(Endpoint::new(INSIDE, INSIDE_PORT)));
    // The way back stays the one that was signalled.
    let mut back = from_outside();
    (back.source, back.destination) = (SECOND_PEER, (OUTSIDE, OUT.port()));
    assert_eq!(kernel.run(&back.bytes()).counted, [ForwardSame]);
}

#[test]
fn a_chain_has_an_end() {
    let Some(mut kernel) = Kernel::with_call("a_chain_has_an_end") else { return };
    let port = |n: u16| SlotIndex::new(0, 20_200 + 2 * n);
    // Chain of calls, each of which leaves from the port that the next one expects.
    for (length, counted) in [(1, ForwardOther), (4, ForwardOther), (5, DropCircle)] {
        for n in 0..=length {
            let (own, from) = (port(n), port(100 + n));
            let source = if n == 0 { OUTSIDE_PEER } else { (OUTSIDE, port(99 + n).port()) };
            let way = if n == length { Way::V4 } else { Way::Local };
            let slot = FlowSlot {
                head: FlowHead {
                    state: FlowState::Latched,
                    generation: GENERATION,
                    way,
                    next_hop: if n == length { ACROSS } else { 0 },
                    ..FlowHead::default()
                },
                expected: Allowed::exactly(Endpoint::new(source.0, source.1)),
                destination: Target::new(Endpoint::new(OUTSIDE, port(n + 1).port()), DSCP, TTL),
                partner: from.0,
                ..FlowSlot::default()
            };
            kernel.set_slot(own, &slot);
        }
        let mut packet = from_outside();
        packet.destination = (OUTSIDE, port(0).port());
        assert_eq!(kernel.run(&packet.bytes()).counted, [counted], "{length} hops");
    }
    // Two ports that send to each other.
    for (own, other) in [(port(0), port(1)), (port(1), port(0))] {
        kernel.edit(own, |slot| {
            slot.head.way = Way::Local;
            slot.destination.port = other.port().to_be_bytes();
            slot.partner = own.0;
            slot.expected = Allowed::exactly(Endpoint::new(OUTSIDE, other.port()));
        });
    }
    let mut packet = from_outside();
    (packet.source, packet.destination) = ((OUTSIDE, port(1).port()), (OUTSIDE, port(0).port()));
    assert_eq!(kernel.run(&packet.bytes()).counted, [DropCircle]);
}
