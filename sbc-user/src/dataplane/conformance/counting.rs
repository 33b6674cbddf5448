//! What is counted of a stream besides its packets, and how many packets it may have.

use sbc_common::counter::Counter;
use sbc_core::media::command::DirectionCounters;
use sbc_core::media::plan::MediaPace;

use super::Wire;
use super::bench::{Bench, CALL, rtp};

/// Sends RTP of the caller, and expects it to leave.
#[track_caller]
fn sends(bench: &mut Bench<'_>, packet: &[u8]) {
    let left = bench.wire.deliver(bench.caller(), bench.caller_local(), packet);
    assert_eq!(left.map(|datagram| datagram.to), Some(bench.callee()));
}

fn from_caller(bench: &mut Bench<'_>) -> DirectionCounters {
    bench.wire.dataplane().counters(CALL)[0].from_caller
}

/// RTP with a source, a payload type and a number.
fn packet(source: u8, payload_type: u8, sequence: u16) -> Vec<u8> {
    let mut packet = rtp(sequence);
    packet[1] = payload_type;
    packet[8..12].copy_from_slice(&[source; 4]);
    packet
}

pub(super) fn loss_and_order_are_told(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    bench.install(&bench.plan(CALL, 1));
    for sequence in [65_534, 0, 65_535, 3, 5, 4] {
        sends(&mut bench, &packet(7, 0, sequence));
    }
    let counted = from_caller(&mut bench);
    assert_eq!(
        (counted.lost, counted.out_of_order),
        (Some(2), 2),
        "1 and 2 are missing, 65535 and 4 were late"
    );
    bench.install(&bench.plan(CALL, 1));
    assert_eq!(from_caller(&mut bench), counted, "the same plan again");
}

pub(super) fn changes_of_source_and_payload_type_are_told(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    bench.install(&bench.plan(CALL, 1));
    for (source, payload_type, sequence) in
        [(1, 0, 1), (1, 0, 2), (1, 101, 3), (1, 101, 4), (1, 0, 5), (2, 0, 700), (2, 0, 701)]
    {
        sends(&mut bench, &packet(source, payload_type, sequence));
    }
    let counted = from_caller(&mut bench);
    assert_eq!((counted.payload_type_changes, counted.source_changes), (2, 1));
    assert_eq!((counted.lost, counted.out_of_order), (Some(0), 0));
}

pub(super) fn jitter_needs_a_clock(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    bench.install(&bench.plan(CALL, 1));
    sends(&mut bench, &packet(7, 0, 1));
    assert_eq!(from_caller(&mut bench).jitter_us, None);
    let mut plan = bench.plan(CALL, 1);
    plan.streams[0].caller.pace = MediaPace { packets_per_second: 0, clock_rate_hz: 8000 };
    bench.install(&plan);
    // The timestamps say that half a second lies between packets that come at once, which is as much jitter, and whatever
    // this machine does meanwhile does not make it none or more than a second.
    for sequence in 2..10 {
        let mut packet = packet(7, 0, sequence);
        packet[4..8].copy_from_slice(&(u32::from(sequence) * 4000).to_be_bytes());
        sends(&mut bench, &packet);
    }
    let jitter_us = from_caller(&mut bench).jitter_us.expect("the clock rate is known");
    assert!((1000..1_000_000).contains(&jitter_us), "{jitter_us}");
}

pub(super) fn more_than_a_stream_may_carry_is_dropped(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let mut plan = bench.plan(CALL, 1);
    plan.streams[0].caller.pace = MediaPace { packets_per_second: 10, clock_rate_hz: 0 };
    bench.install(&plan);
    let (from, to) = (bench.caller(), bench.caller_local());
    let (mut forwarded, mut sequence) = (0, 0);
    // 11 packets fit into a window of a good second, so one more is too many unless each takes a tenth of a second.
    let dropped = (0..500).any(|_| {
        sequence += 1;
        let left = bench.wire.deliver(from, to, &rtp(sequence));
        forwarded += u64::from(left.is_some());
        left.is_none()
    });
    assert!(dropped, "{forwarded} forwarded");
    assert!(forwarded >= 11, "{forwarded} forwarded");
    assert_eq!(bench.wire.outcome(Counter::DropOverRate), 1);
    let counted = from_caller(&mut bench);
    assert_eq!((counted.over_rate, counted.rtp_kernel + counted.rtp_relay), (1, forwarded));
    // The other side has no limit, and RTCP is not counted against it.
    for sequence in 0..20 {
        let left = bench.wire.deliver(bench.callee(), bench.callee_local(), &rtp(sequence));
        assert!(left.is_some());
    }
    bench.install(&plan);
    assert_eq!(from_caller(&mut bench).over_rate, 1);
}
