//! What every program does with a packet, whatever else it does: media first, because it is nearly everything, and the
//! guard costs it nothing.

use aya_ebpf::programs::XdpContext;

use crate::outcome::Outcome;
use crate::{emit, guard, media};

/// A packet through all of it. Its outcome is counted.
#[inline(always)]
pub fn run(ctx: &XdpContext) -> Outcome {
    let mut outcome = media::relay(ctx);
    if let Outcome::Pass(reason) = outcome
        && reason.is_not_media()
    {
        outcome = guard::admit(ctx, reason);
    }
    emit::count(outcome.counter());
    outcome
}
