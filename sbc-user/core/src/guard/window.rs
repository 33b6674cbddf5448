//! The rate window of the engine: the rule of the kernel's (a window begins with its first arrival, does not slide, and
//! tells once that it is over), on the engine's clock.

use std::time::Instant;

use super::command::Limit;

/// A window.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    began: Option<Instant>,
    arrivals: u32,
}

/// What becomes of an arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Within,
    /// The first over the limit.
    Exceeded,
    Over,
}

impl Window {
    /// Counts an arrival.
    pub(super) fn arrive(&mut self, now: Instant, limit: Limit) -> Decision {
        if self.is_over(now, limit) {
            *self = Self { began: Some(now), arrivals: 0 };
        }
        if self.arrivals > limit.count {
            return Decision::Over;
        }
        self.arrivals += 1;
        if self.arrivals > limit.count { Decision::Exceeded } else { Decision::Within }
    }

    /// Whether its time is over, or it never began.
    pub(super) fn is_over(&self, now: Instant, limit: Limit) -> bool {
        self.began.is_none_or(|began| now.duration_since(began) >= limit.window)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods)] // Any instant will do as the origin; one cannot be made otherwise.
    fn the_threshold_passes_and_the_rest_of_the_window_does_not() {
        let limit = Limit { count: 3, window: Duration::from_secs(2) };
        let (start, mut window) = (Instant::now(), Window::default());
        let mut at = |millis| window.arrive(start + Duration::from_millis(millis), limit);
        use Decision::{Exceeded, Over, Within};
        assert_eq!([at(0), at(5), at(9), at(9), at(1999)], [Within, Within, Within, Exceeded, Over]);
        assert_eq!([at(2000), at(2001), at(3999), at(3999)], [Within, Within, Within, Exceeded]);
    }
}
