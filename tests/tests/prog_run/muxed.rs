//! RTP and RTCP on one port (RFC 5761).

use sbc_common::addr::Endpoint;
use sbc_common::counter::Counter::*;
use sbc_common::flow::{Allowed, FlowState, Learned, PortKind};
use sbc_common::stream::StreamSlot;

use crate::kernel::{Action, Kernel};
use crate::packet::Packet;
use crate::world::*;

/// A report of the outside peer, from and to the ports of RTP.
fn muxed_report() -> Packet {
    Packet::rtcp(OUTSIDE_PEER, (OUTSIDE, OUTSIDE_PORT))
}

/// What a packet of the outside becomes on its way to the inside's port for RTCP.
fn to_inside_rtcp(packet: Packet) -> Packet {
    forwarded(packet, ACROSS, (INSIDE, INSIDE_PORT + 1), (INSIDE_PEER.0, INSIDE_PEER.1 + 1))
}

#[test]
fn a_muxed_port_takes_both_and_sends_each_its_way() {
    let Some(mut kernel) = Kernel::with_call("a_muxed_port_takes_both_and_sends_each_its_way") else {
        return;
    };
    kernel.share_outside_port();
    let media = kernel.run(&from_outside().bytes());
    assert_eq!(media.frame, to_inside(from_outside()).bytes());
    let report = kernel.run(&muxed_report().bytes());
    assert_eq!(report.frame, to_inside_rtcp(muxed_report()).bytes());
    assert_eq!((media.action, report.action), (Action::Redirect, Action::Redirect));

    // Each is counted where it left.
    let (rtp, rtcp) = (kernel.slot(OUTSIDE_RTP), kernel.slot(OUTSIDE_RTCP));
    assert_eq!((rtp.packets, rtp.bytes), (1, 172));
    assert_eq!((rtcp.packets, rtcp.bytes), (1, 8));
    assert_ne!(rtcp.last_seen, 0);
    assert_eq!(kernel.stream(OUTSIDE_RTP).expected, 1);
    assert_eq!(kernel.stream(OUTSIDE_RTCP), StreamSlot::default());
    assert_eq!(kernel.reports(), [(OUTSIDE_RTCP, GENERATION, 8, muxed_report().payload)]);

    // What the inside sends from its two ports goes to the one.
    let (media, report) = (from_inside(), Packet::rtcp(INSIDE_PEER_RTCP, (INSIDE, INSIDE_PORT + 1)));
    for packet in [media, report] {
        let back = kernel.run(&packet.bytes());
        let becomes = forwarded(packet, BACK, (OUTSIDE, OUTSIDE_PORT), OUTSIDE_PEER);
        assert_eq!((back.action, back.frame), (Action::Transmit, becomes.bytes()));
    }
}

#[test]
fn nothing_comes_in_by_the_port_that_is_not_used() {
    let Some(mut kernel) = Kernel::with_call("nothing_comes_in_by_the_port_that_is_not_used") else { return };
    kernel.share_outside_port();
    for packet in [rtcp_from_outside(), Packet::rtcp(OUTSIDE_PEER, (OUTSIDE, OUTSIDE_PORT + 1))] {
        assert_eq!(kernel.run(&packet.bytes()).counted, [DropNoFlow]);
    }
    // Nor reports by a way out that is another flow's, or not yet one.
    kernel.edit_head(OUTSIDE_RTCP, |head| head.generation += 1);
    assert_eq!(kernel.run(&muxed_report().bytes()).counted, [DropNoFlow]);
    kernel.edit_head(OUTSIDE_RTCP, |head| (head.generation, head.state) = (GENERATION, FlowState::Latched));
    assert_eq!(kernel.run(&muxed_report().bytes()).counted, [DropNoFlow]);
    assert_eq!(kernel.run(&from_outside().bytes()).counted, [ForwardOther]);
}

#[test]
fn each_kind_has_its_own_rate() {
    let Some(mut kernel) = Kernel::with_call("each_kind_has_its_own_rate") else { return };
    kernel.share_outside_port();
    kernel.edit_stream(OUTSIDE_RTP, |stream| stream.limit = 2);
    kernel.edit_stream(OUTSIDE_RTCP, |stream| stream.limit = 1);
    let (media, report) = (from_outside().bytes(), muxed_report().bytes());
    let counted: Vec<_> =
        [&report, &report, &media, &media, &media].map(|frame| kernel.run(frame).counted[0]).to_vec();
    assert_eq!(counted, [ForwardOther, DropOverRate, ForwardOther, ForwardOther, DropOverRate]);
    assert_eq!(kernel.stream(OUTSIDE_RTCP).over_rate, 1);
    assert_eq!(kernel.stream(OUTSIDE_RTP).over_rate, 1);
    assert_eq!(kernel.reports().len(), 1, "only what was forwarded is copied");
}

#[test]
fn a_claim_tells_both_ports_of_the_other_side() {
    let Some(mut kernel) = Kernel::with_call("a_claim_tells_both_ports_of_the_other_side") else { return };
    // Whichever comes first.
    for claims in [Packet::rtp, Packet::rtcp] {
        kernel.install_call();
        kernel.share_outside_port();
        kernel.let_outside_learn();
        let source = (OUTSIDE_PEER.0, 4321);
        let first = kernel.run(&claims(source, (OUTSIDE, OUTSIDE_PORT)).bytes());
        assert_eq!(first.counted, [ForwardOther, Claimed]);
        let learned = Learned::new(Endpoint::new(source.0, source.1), GENERATION);
        assert_eq!(kernel.slot(OUTSIDE_RTP).learned_source, learned);
        for index in [INSIDE_RTP, INSIDE_RTCP] {
            assert_eq!(kernel.slot(index).learned_destination, learned);
        }
        let report = Packet::rtcp(INSIDE_PEER_RTCP, (INSIDE, INSIDE_PORT + 1));
        let becomes = forwarded(report.clone(), BACK, (OUTSIDE, OUTSIDE_PORT), source);
        assert_eq!(kernel.run(&report.bytes()).frame, becomes.bytes());
    }
}

#[test]
fn a_claim_on_the_other_side_tells_the_way_out_of_its_kind() {
    const NAME: &str = "a_claim_on_the_other_side_tells_the_way_out_of_its_kind";
    let Some(mut kernel) = Kernel::with_call(NAME) else { return };
    kernel.share_outside_port();
    for index in [INSIDE_RTP, INSIDE_RTCP] {
        kernel.edit(index, |slot| {
            slot.head.state = FlowState::Learning;
            slot.expected = Allowed::any_port(INSIDE_PEER.0, 32);
        });
    }
    let (media, report) = ((INSIDE_PEER.0, 7000), (INSIDE_PEER.0, 7777));
    kernel.run(&Packet::rtcp(report, (INSIDE, INSIDE_PORT + 1)).bytes());
    assert_eq!(kernel.slot(OUTSIDE_RTP).learned_destination, Learned::default());
    kernel.run(&Packet::rtp(media, (INSIDE, INSIDE_PORT)).bytes());
    assert_eq!(
        kernel.run(&from_outside().bytes()).frame,
        forwarded(from_outside(), ACROSS, (INSIDE, INSIDE_PORT), media).bytes()
    );
    assert_eq!(
        kernel.run(&muxed_report().bytes()).frame,
        forwarded(muxed_report(), ACROSS, (INSIDE, INSIDE_PORT + 1), report).bytes()
    );
}

#[test]
fn both_sides_may_share_their_ports() {
    let Some(mut kernel) = Kernel::with_call("both_sides_may_share_their_ports") else { return };
    kernel.share_outside_port();
    kernel.edit_head(INSIDE_RTP, |head| head.kind = PortKind::Muxed);
    kernel.edit_head(INSIDE_RTCP, |head| head.state = FlowState::Muxed);
    kernel.edit(OUTSIDE_RTCP, |slot| {
        slot.partner = INSIDE_RTP.0;
        slot.destination.port = INSIDE_PEER.1.to_be_bytes();
    });
    for packet in [from_outside(), muxed_report()] {
        assert_eq!(kernel.run(&packet.bytes()).frame, to_inside(packet).bytes());
    }
    for packet in [from_inside(), Packet::rtcp(INSIDE_PEER, (INSIDE, INSIDE_PORT))] {
        let becomes = forwarded(packet.clone(), BACK, (OUTSIDE, OUTSIDE_PORT), OUTSIDE_PEER);
        assert_eq!(kernel.run(&packet.bytes()).frame, becomes.bytes());
    }
}
