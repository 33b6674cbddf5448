//! Whether an answered call still has media: the one place that decides that it has fallen silent.
//!
//! If nothing was counted between two looks, in either direction, in any stream, RTP or RTCP, the time between them was
//! silent. A call ends when it has been silent for longer than its state allows: a peer on hold, or one that sends
//! nothing while nobody speaks, is no peer that is gone. What is seen at a look counts as if it had come at that
//! moment, so a call never ends too early, and at most two intervals late.

use std::time::{Duration, Instant};

use crate::config::MediaTimeouts;

/// Longest time between two looks.
const INTERVAL_LIMIT: Duration = Duration::from_secs(30);
/// Looks in the shortest time that a call may be silent.
const LOOKS: u32 = 10;

/// What the last look saw.
#[derive(Debug)]
pub(crate) struct Silence {
    /// When something was last seen, or the silence began to count anew.
    heard: Instant,
    packets: u64,
    held: bool,
}

impl Silence {
    /// Counts from now.
    pub(crate) const fn since(now: Instant, held: bool) -> Self {
        Self { heard: now, packets: 0, held }
    }

    /// Takes in a look; whether the call has been silent for longer than it may.
    pub(crate) fn look(&mut self, now: Instant, packets: u64, held: bool, limits: MediaTimeouts) -> bool {
        // A change counts as life as well: whoever resumes after an hour on hold has not been silent for an hour.
        if (self.packets, self.held) != (packets, held) {
            (self.heard, self.packets, self.held) = (now, packets, held);
        }
        let limit = if held { limits.held } else { limits.talking };
        limit.is_some_and(|limit| now.saturating_duration_since(self.heard) >= limit)
    }

    /// Whether the last look found no stream that is agreed to flow both ways.
    pub(crate) const fn held(&self) -> bool {
        self.held
    }

    /// The counters could not be had: that tells nothing about the peers.
    pub(crate) const fn unknown(&mut self, now: Instant) {
        self.heard = now;
    }
}

/// Time between two looks; `None` if no silence ends a call.
pub(crate) fn interval(limits: MediaTimeouts) -> Option<Duration> {
    let shortest = [limits.talking, limits.held].into_iter().flatten().min()?;
    Some((shortest / LOOKS).min(INTERVAL_LIMIT))
}
