//! Sums of counters: a stream that changed its ports or its carrier is one stream to whoever reads its record.

use sbc_core::media::command::{DirectionCounters, StreamCounters};

/// Both together; `b` is the later one.
pub(super) fn add(a: DirectionCounters, b: DirectionCounters) -> DirectionCounters {
    DirectionCounters {
        rtp_kernel: a.rtp_kernel + b.rtp_kernel,
        rtp_relay: a.rtp_relay + b.rtp_relay,
        rtp_bytes: a.rtp_bytes + b.rtp_bytes,
        rtcp: a.rtcp + b.rtcp,
        lost: match (a.lost, b.lost) {
            (Some(a), Some(b)) => Some(a + b),
            (one, other) => one.or(other),
        },
        out_of_order: a.out_of_order + b.out_of_order,
        jitter_us: b.jitter_us.or(a.jitter_us),
        payload_type_changes: a.payload_type_changes + b.payload_type_changes,
        source_changes: a.source_changes + b.source_changes,
        over_rate: a.over_rate + b.over_rate,
    }
}

/// Adds what another carrier, or the same one earlier, counted for the stream.
pub(super) fn add_stream(to: &mut StreamCounters, more: &StreamCounters) {
    to.from_caller = add(to.from_caller, more.from_caller);
    to.from_callee = add(to.from_callee, more.from_callee);
}
