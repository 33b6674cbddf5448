//! The system's clocks and randomness, as the engine takes them.

use std::num::NonZero;
use std::time::{Instant, SystemTime};

use rand::Rng as _;
use sbc_core::Now;
use sbc_core::rng::Rng;
use time::OffsetDateTime;
use time::format_description::well_known::{Iso8601, iso8601};

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

/// RFC 3339's form of ISO 8601, always to the millisecond.
const MILLISECONDS: iso8601::EncodedConfig = iso8601::Config::DEFAULT
    .set_time_precision(iso8601::TimePrecision::Second { decimal_digits: NonZero::new(3) })
    .encode();

/// A moment for people and programs: RFC 3339, UTC, milliseconds.
#[must_use]
pub fn rfc3339(moment: SystemTime) -> String {
    OffsetDateTime::from(moment).format(&Iso8601::<MILLISECONDS>).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_moment_is_written_to_the_millisecond() {
        let moment = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456);
        assert_eq!(rfc3339(moment), "2023-11-14T22:13:20.123Z");
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
    }
}
