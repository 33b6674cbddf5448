//! The engine's notion of now: handed in with every input, never read from the system.

use std::time::{Instant, SystemTime};

/// The moment an input arrived, on both clocks.
///
/// `mono` drives every timer and never goes back between two inputs; `wall` only stamps records and events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic clock.
    pub mono: Instant,
    /// Wall clock.
    pub wall: SystemTime,
}
