//! The system's clocks and randomness, as the engine takes them.

use std::time::{Instant, SystemTime};

use rand::Rng as _;
use sbc_core::Now;
use sbc_core::rng::Rng;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// This moment on both clocks.
#[must_use]
pub fn now() -> Now {
    Now { mono: Instant::now(), wall: SystemTime::now() }
}

/// The system's randomness: a cryptographic generator, seeded and reseeded by the system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRng;

impl Rng for SystemRng {
    fn next_u64(&mut self) -> u64 {
        rand::rng().next_u64()
    }
}

/// A moment for people and programs: RFC 3339, UTC, milliseconds.
#[must_use]
pub fn rfc3339(moment: SystemTime) -> String {
    let moment = OffsetDateTime::from(moment);
    let to_millisecond = moment.replace_millisecond(moment.millisecond()).unwrap_or(moment);
    to_millisecond.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_moment_is_written_to_the_millisecond() {
        let moment = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456);
        assert_eq!(rfc3339(moment), "2023-11-14T22:13:20.123Z");
    }
}
