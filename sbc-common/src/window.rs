//! The rate window: so many in so much time, from the first one on.
//!
//! A window begins with the first arrival and ends when its time is over, whatever came in between; the next arrival
//! begins the next one. It does not slide: then "threshold per window" is exactly what passes, the rest of the window
//! is exactly how long the rest is dropped, and a window that is over its limit is read and no longer written, so that
//! many CPUs can drop a flood without fighting for a cache line. The price is that two windows that touch can together
//! let through twice the threshold within less than one window's time.
//!
//! The kernel, the engine and the tests use this same function. Time is in ticks of any length, modulo 2^32: a source
//! that comes back after a whole turn of the clock finds its old window for the rest of that window's time.

/// How many in how much time.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Arrivals that one window lets through.
    pub count: u32,
    /// Length of a window, ticks. Zero: there is no limit.
    pub ticks: u32,
}

/// A window: one aligned word, so that a CPU replaces it as a whole.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// When its first arrival came, ticks.
    pub began: u32,
    /// Arrivals since, up to one more than the limit. Zero: it has not begun.
    pub arrivals: u32,
}

/// What becomes of an arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Within the limit. The window changed.
    Within,
    /// The first one over the limit: told once in a window. The window changed.
    Exceeded,
    /// Over the limit, as the one before. The window is unchanged.
    Over,
}

impl Window {
    /// Counts an arrival.
    #[inline(always)]
    #[must_use]
    pub const fn arrive(self, now: u32, limit: Limit) -> (Self, Decision) {
        if limit.ticks == 0 {
            return (self, Decision::Within);
        }
        if self.arrivals == 0 || now.wrapping_sub(self.began) >= limit.ticks {
            let decision = if limit.count == 0 { Decision::Exceeded } else { Decision::Within };
            return (Self { began: now, arrivals: 1 }, decision);
        }
        if self.arrivals > limit.count {
            return (self, Decision::Over);
        }
        let arrivals = self.arrivals + 1;
        let decision = if arrivals > limit.count { Decision::Exceeded } else { Decision::Within };
        (Self { arrivals, ..self }, decision)
    }

    /// Whether the next arrival would be over the limit, without counting it.
    #[inline(always)]
    #[must_use]
    pub const fn is_full(self, now: u32, limit: Limit) -> bool {
        limit.ticks != 0 && self.arrivals > limit.count && now.wrapping_sub(self.began) < limit.ticks
    }

    /// As the word in the map.
    #[inline(always)]
    #[must_use]
    pub const fn to_word(self) -> u64 {
        let ([a, b, c, d], [e, f, g, h]) = (self.began.to_ne_bytes(), self.arrivals.to_ne_bytes());
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    }

    /// From the word in the map.
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
        Self { began: u32::from_ne_bytes([a, b, c, d]), arrivals: u32::from_ne_bytes([e, f, g, h]) }
    }
}

#[cfg(test)]
mod tests {
    use core::mem::{align_of, offset_of, size_of};

    use proptest::prelude::*;

    use super::*;

    const LIMIT: Limit = Limit { count: 3, ticks: 100 };

    #[test]
    fn layout_is_locked() {
        assert_eq!((size_of::<Window>(), align_of::<Window>()), (8, 8));
        assert_eq!((offset_of!(Window, began), offset_of!(Window, arrivals)), (0, 4));
        assert_eq!((offset_of!(Limit, count), offset_of!(Limit, ticks), size_of::<Limit>()), (0, 4, 8));
    }

    #[test]
    fn the_threshold_passes_one_more_is_told_and_the_rest_of_the_window_is_over() {
        let mut window = Window::default();
        let mut at = |now| {
            let (next, decision) = window.arrive(now, LIMIT);
            window = next;
            decision
        };
        use Decision::{Exceeded, Over, Within};
        let first = [at(10), at(20), at(30), at(40), at(50), at(109)];
        assert_eq!(first, [Within, Within, Within, Exceeded, Over, Over]);
        // Its time counts from its first arrival; the next one begins the next.
        assert_eq!([at(110), at(111), at(209), at(209), at(209)], [Within, Within, Within, Exceeded, Over]);
    }

    #[test]
    fn nothing_passes_a_limit_of_zero_and_no_limit_stops_nothing() {
        let none = Limit { count: 0, ticks: 10 };
        let (window, first) = Window::default().arrive(5, none);
        assert_eq!((first, window.arrive(6, none).1), (Decision::Exceeded, Decision::Over));
        let off = Limit { count: 0, ticks: 0 };
        assert_eq!(Window::default().arrive(5, off), (Window::default(), Decision::Within));
    }

    #[test]
    fn the_clock_may_turn_over_inside_a_window() {
        let mut window = Window::default();
        for (now, expected) in [
            (u32::MAX - 5, Decision::Within),
            (u32::MAX, Decision::Within),
            (1, Decision::Within),
            (2, Decision::Exceeded),
            (93, Decision::Over),
            (94, Decision::Within),
        ] {
            let (next, decision) = window.arrive(now, LIMIT);
            assert_eq!(decision, expected, "at {now}");
            window = next;
        }
    }

    proptest! {
        #[test]
        fn a_window_lets_through_its_threshold_and_tells_once(
            count in 0..20u32, ticks in 1..1000u32, start: u32, steps in prop::collection::vec(0..50u32, 1..400),
        ) {
            let limit = Limit { count, ticks };
            let (mut window, mut now) = (Window::default(), start);
            let (mut began, mut passed, mut told) = (start, 0, 0);
            for (position, step) in steps.into_iter().enumerate() {
                now = now.wrapping_add(step);
                if position == 0 || now.wrapping_sub(began) >= ticks {
                    (began, passed, told) = (now, 0, 0);
                }
                prop_assert_eq!(window.is_full(now, limit), told == 1);
                let (next, decision) = window.arrive(now, limit);
                match decision {
                    Decision::Within => passed += 1,
                    Decision::Exceeded => told += 1,
                    Decision::Over => prop_assert_eq!(next, window),
                }
                prop_assert!(passed <= count && told <= 1);
                prop_assert_eq!(decision == Decision::Within, told == 0);
                window = Window::from_word(next.to_word());
                prop_assert_eq!(window, next);
            }
        }
    }
}
