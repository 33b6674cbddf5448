//! Sums of counters: a stream that changed its ports or its carrier is one stream to whoever reads its record.

use sbc_core::media::command::{DirectionCounters, StreamCounters};

/// Both together.
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
    }
}

/// Adds what another carrier, or the same one earlier, counted for the stream.
pub(super) fn add_stream(to: &mut StreamCounters, more: &StreamCounters) {
    to.from_caller = add(to.from_caller, more.from_caller);
    to.from_callee = add(to.from_callee, more.from_callee);
}
