//! What the cold slot says after packets.

use sbc_common::counter::Counter::*;
use sbc_common::stream::StreamSlot;

use crate::kernel::{Action, Kernel};
use crate::packet::Packet;
use crate::world::*;

/// RTP from outside.
fn rtp(sequence: u16, timestamp: u32, payload_type: u8, source: u8) -> Packet {
    let mut packet = from_outside();
    packet.payload[1] = payload_type;
    packet.payload[2..4].copy_from_slice(&sequence.to_be_bytes());
    packet.payload[4..8].copy_from_slice(&timestamp.to_be_bytes());
    packet.payload[8..12].fill(source);
    packet
}

#[test]
fn order_payload_types_and_sources_are_counted() {
    let Some(mut kernel) = Kernel::with_call("order_payload_types_and_sources_are_counted") else { return };
    kernel.edit_stream(OUTSIDE_RTP, |stream| stream.limit = 1000);
    for packet in [
        rtp(10, 0, 0, 1),
        rtp(13, 0, 0x80 | 101, 1),
        rtp(12, 0, 101, 1),
        rtp(11, 0, 101, 1),
        rtp(14, 0, 0, 1),
        rtp(900, 0, 8, 2),
    ] {
        assert_eq!(kernel.run(&packet.bytes()).action, Action::Redirect);
    }
    let is = kernel.stream(OUTSIDE_RTP);
    let should = StreamSlot {
        expected: 6,
        out_of_order: 2,
        payload_type: 8,
        payload_type_changes: 3,
        source_changes: 1,
        limit: 1000,
        window_packets: 6,
        ..StreamSlot::default()
    };
    assert_eq!(StreamSlot { run: should.run, window_began: 0, ..is }, should);
    assert_eq!((is.run.source, is.run.highest, is.run.tag), ([2; 4], 900, GENERATION));
}

#[test]
fn packets_over_the_rate_are_dropped_and_counted_in_the_slot() {
    let Some(mut kernel) = Kernel::with_call("packets_over_the_rate_are_dropped_and_counted_in_the_slot")
    else {
        return;
    };
    kernel.edit_stream(OUTSIDE_RTP, |stream| stream.limit = 5);
    // Others' packets are not this flow's.
    for port in 0..10 {
        let spray = Packet::rtp((OUTSIDE_PEER.0, 6000 + port), (OUTSIDE, OUTSIDE_PORT));
        assert_eq!(kernel.run(&spray.bytes()).counted, [DropWrongSource]);
    }
    let began = kernel.stream(OUTSIDE_RTP).window_began;
    // Less than a window's time for eight packets, however slow the machine: else the window would be another one.
    let counted: Vec<_> = (0..8).map(|n| kernel.run(&rtp(n, 0, 0, 1).bytes()).counted[0]).collect();
    let stream = kernel.stream(OUTSIDE_RTP);
    assert_eq!(began, 0);
    assert_eq!(counted[..5], [ForwardOther; 5]);
    assert_eq!(counted[5..], [DropOverRate; 3]);
    assert_eq!((stream.over_rate, stream.window_packets, stream.expected), (3, 5, 5));
    assert_eq!(kernel.slot(OUTSIDE_RTP).packets, 5);
    // As if a window's time had passed.
    kernel.edit_stream(OUTSIDE_RTP, |stream| {
        stream.window_began = stream.window_began.wrapping_sub(sbc_common::stream::RATE_WINDOW_TICKS);
    });
    assert_eq!(kernel.run(&rtp(8, 0, 0, 1).bytes()).counted, [ForwardOther]);
    assert_eq!(kernel.stream(OUTSIDE_RTP).window_packets, 1);
}

#[test]
fn jitter_needs_a_clock_rate() {
    let Some(mut kernel) = Kernel::with_call("jitter_needs_a_clock_rate") else { return };
    kernel.run(&rtp(1, 0, 0, 1).bytes());
    kernel.run(&rtp(2, 160, 0, 1).bytes());
    let stream = kernel.stream(OUTSIDE_RTP);
    assert_eq!((stream.jitter, stream.transit, stream.timestamp), (0, 0, 0));

    kernel.install_call();
    kernel.edit_stream(OUTSIDE_RTP, |stream| stream.clock_rate_hz = 8000);
    // Each packet says that half a second of sound lies between it and the one before, which it does not.
    for n in 0..17u16 {
        kernel.run(&rtp(n, u32::from(n) * 4000, 0, 1).bytes());
    }
    let stream = kernel.stream(OUTSIDE_RTP);
    // Sixteen steps of 4000 units, less what the test took: 4000 * (1 - (15/16)^16) = 2576 units, 322 ms.
    let jitter_ms = stream.jitter_us() / 1000;
    assert!((200..=323).contains(&jitter_ms), "{jitter_ms} ms, {stream:?}");
    assert_eq!((stream.timestamp, stream.expected), (64_000, 17));
}

#[test]
fn reports_are_copied_from_their_beginning() {
    let Some(mut kernel) = Kernel::with_call("reports_are_copied_from_their_beginning") else { return };
    // A length that the header of the report announces, padded by more of a compound packet.
    let report = |bytes: usize| {
        let mut packet = rtcp_from_outside();
        packet.payload.extend((packet.payload.len()..bytes).map(|n| n as u8));
        packet
    };
    for (bytes, next_hop, copied) in [
        (8, ACROSS, 8),
        (9, ACROSS, 9),
        (256, ACROSS_TAGGED, 256),
        (257, ACROSS_TAGGED_TWICE, 256),
        (1400, ACROSS, 256),
    ] {
        kernel.edit_head(OUTSIDE_RTCP, |head| head.next_hop = next_hop);
        let packet = report(bytes);
        assert_eq!(kernel.run(&packet.bytes()).counted, [ForwardOther], "{bytes}");
        let expected = (OUTSIDE_RTCP, GENERATION, bytes, packet.payload[..copied].to_vec());
        assert_eq!(kernel.reports(), [expected]);
    }
    // What is not forwarded is not copied, and RTP never.
    kernel.edit_head(OUTSIDE_RTCP, |head| head.next_hop = 0);
    kernel.run(&report(8).bytes());
    kernel.run(&Packet { source: INSIDE_PEER, ..report(8) }.bytes());
    kernel.run(&from_outside().bytes());
    assert!(kernel.reports().is_empty());
}

#[test]
fn reports_that_find_no_room_are_counted() {
    let Some(mut kernel) = Kernel::with_call("reports_that_find_no_room_are_counted") else { return };
    let frame = rtcp_from_outside().bytes();
    // A record takes its 272 bytes and 8 of the ring's own.
    let room = sbc_common::limits::REPORTS_BYTES / 280;
    let lost = (0..=room).find(|_| kernel.run(&frame).counted.contains(&ReportLost));
    assert!(lost.is_some_and(|copies| copies >= room - 1), "lost after {lost:?} of {room}");
    // The packet itself is forwarded, and claims still have room of their own.
    assert_eq!(kernel.run(&frame).counted, [ForwardOther, ReportLost]);
    kernel.let_outside_learn();
    assert_eq!(kernel.run(&from_outside().bytes()).counted, [ForwardOther, Claimed]);
    assert_eq!(kernel.reports().len() as u32, lost.unwrap());
    assert_eq!(kernel.run(&frame).counted, [ForwardOther]);
}
