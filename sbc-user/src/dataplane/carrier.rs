//! What the carriers of a call tell one another: who claimed its ports, so that a stream which changes its carrier is not
//! learned anew.

use std::net::SocketAddr;
use std::time::Instant;

use sbc_core::id::CallId;
use sbc_core::media::plan::{SourcePolicy, StreamPlan, StreamSide};

use super::Dataplane;

/// That somebody claimed a port of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// The m-line of the stream.
    pub(super) mline: u8,
    /// Whether it is on the caller's side.
    pub(super) caller_side: bool,
    /// Whether it is the RTCP port.
    pub(super) rtcp: bool,
    /// Who.
    pub(super) source: SocketAddr,
}

/// A dataplane beside which there is another one.
pub(super) trait Carrier: Dataplane {
    /// Claims of the ports of those streams that it carries.
    fn claims(&self, call: CallId) -> Vec<Claim>;

    /// Takes these claims for its own, as far as they are of streams that it has, learns them, and knows none.
    fn teach(&mut self, now: Instant, call: CallId, claims: &[Claim]);
}

/// A carrier that takes what another one leaves over.
pub(super) trait StandsBy: Carrier {
    /// Forwards what arrives for these streams of a call, which another carries: what that one passes. For those that it
    /// was told before no longer.
    fn stand_by(&mut self, call: CallId, streams: &[StreamPlan]);
}

impl Claim {
    /// Whether it still holds if one stream takes the place of another.
    pub(super) fn holds(&self, before: &StreamPlan, after: &StreamPlan) -> bool {
        let [before_side, after_side] =
            [before, after].map(|stream| if self.caller_side { &stream.caller } else { &stream.callee });
        [before.mline, after.mline] == [self.mline; 2] && keeps_claims(before_side, after_side)
    }
}

/// Whether what was learned under one plan holds under the next: on the same port, while no other opening voids it.
pub(super) fn keeps_claims(before: &StreamSide, after: &StreamSide) -> bool {
    let opening = |side: &StreamSide| match side.source {
        SourcePolicy::Learn { window, .. } => Some(window.opening),
        SourcePolicy::Signalled => None,
    };
    (before.local_ip, before.local_rtp_port) == (after.local_ip, after.local_rtp_port)
        && opening(before) == opening(after)
}
