//! Which rates to offer to a contender, and what its answers say.
//!
//! First a ladder of rates, each a fixed part above the one before, up to where the contender has had its best or
//! where the source can offer no more; then the gap between the highest rate without loss and the next one with loss
//! is halved until it is small. All of it is arithmetic: who sends and counts is elsewhere.

use std::time::Duration;

/// A loss below this part is none.
const LOSSLESS: f64 = 0.001;
/// The lowest rate, packets per second.
const FIRST_PPS: f64 = 25_000.0;
/// From one rung of the ladder to the next.
const STEP: f64 = 1.6;
/// The gap between loss and none that is small enough.
const GAP: f64 = 1.04;
/// A turn that delivers less than this part of the best is past it.
const PAST: f64 = 0.97;
/// The source is at its end when less than this part of what was asked for came about.
const OFFERED: f64 = 0.9;
/// No ladder and no halving is longer.
const MOST_TURNS: usize = 40;

/// What came of one offer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turn {
    /// Frames sent.
    pub sent: u64,
    /// Frames that the far end counted.
    pub received: u64,
    /// Over this time.
    pub elapsed: Duration,
}

impl Turn {
    /// Packets per second sent.
    pub fn offered_pps(&self) -> f64 {
        self.sent as f64 / self.elapsed.as_secs_f64()
    }

    /// Packets per second that arrived.
    pub fn delivered_pps(&self) -> f64 {
        self.received as f64 / self.elapsed.as_secs_f64()
    }

    /// Whether next to nothing was lost.
    pub fn is_lossless(&self) -> bool {
        self.received as f64 >= self.sent as f64 * (1.0 - LOSSLESS)
    }
}

/// The turns of one contender so far.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    /// What was asked for, and what came of it.
    turns: Vec<(f64, Turn)>,
    ladder_ended: bool,
}

impl Sweep {
    /// The next rate to offer, packets per second; `None` at the end.
    pub fn next_pps(&self) -> Option<f64> {
        if self.turns.len() >= MOST_TURNS {
            return None;
        }
        if !self.ladder_ended {
            return Some(self.turns.last().map_or(FIRST_PPS, |(asked, _)| asked * STEP));
        }
        let lossless = self.asked(Turn::is_lossless).fold(0.0, f64::max);
        let lossy = self.asked(|turn| !turn.is_lossless()).filter(|asked| *asked > lossless);
        let lossy = lossy.fold(f64::INFINITY, f64::min);
        let low = if lossless > 0.0 { lossless } else { lossy / STEP };
        (lossy.is_finite() && lossy / low > GAP).then(|| (low * lossy).sqrt())
    }

    /// Takes note of what came of the rate last asked for.
    pub fn add(&mut self, asked: f64, turn: Turn) {
        self.turns.push((asked, turn));
        if self.ladder_ended {
            return;
        }
        let best = self.best_pps();
        let past = |(_, turn): &(f64, Turn)| !turn.is_lossless() && turn.delivered_pps() < best * PAST;
        let last_two = self.turns.len().checked_sub(2).map(|at| &self.turns[at..]);
        self.ladder_ended =
            turn.offered_pps() < asked * OFFERED || last_two.is_some_and(|turns| turns.iter().all(past));
    }

    /// The highest rate delivered.
    pub fn best_pps(&self) -> f64 {
        self.turns.iter().map(|(_, turn)| turn.delivered_pps()).fold(0.0, f64::max)
    }

    /// The highest rate delivered without loss.
    pub fn lossless_pps(&self) -> Option<f64> {
        let lossless = self.turns.iter().filter(|(_, turn)| turn.is_lossless());
        lossless.map(|(_, turn)| turn.delivered_pps()).reduce(f64::max)
    }

    fn asked(&self, of: impl Fn(&Turn) -> bool) -> impl Iterator<Item = f64> {
        self.turns.iter().filter(move |(_, turn)| of(turn)).map(|(asked, _)| *asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sweeps a contender that delivers `deliver(offered)` of what a source sends that can do `most`.
    fn sweep(most: f64, deliver: impl Fn(f64) -> f64) -> Sweep {
        let mut sweep = Sweep::default();
        while let Some(asked) = sweep.next_pps() {
            let offered = asked.min(most);
            let count = |pps: f64| (pps * 10.0) as u64;
            let elapsed = Duration::from_secs(10);
            sweep.add(asked, Turn { sent: count(offered), received: count(deliver(offered)), elapsed });
        }
        sweep
    }

    fn near(value: f64, wanted: f64) -> bool {
        (value / wanted - 1.0).abs() < 0.045
    }

    #[test]
    fn finds_the_capacity_of_one_that_holds_its_rate_when_offered_more() {
        let sweep = sweep(5e6, |offered| offered.min(730_000.0));
        assert!(near(sweep.best_pps(), 730_000.0), "{sweep:?}");
        assert!(near(sweep.lossless_pps().unwrap(), 730_000.0), "{sweep:?}");
        assert!(sweep.turns.len() < MOST_TURNS);
    }

    #[test]
    fn finds_the_best_of_one_that_collapses() {
        let capacity = 90_000.0;
        let sweep =
            sweep(5e6, |offered| if offered <= capacity { offered } else { capacity * capacity / offered });
        assert!(near(sweep.lossless_pps().unwrap(), capacity), "{sweep:?}");
        assert!(near(sweep.best_pps(), capacity), "{sweep:?}");
        assert!(sweep.turns.iter().all(|(asked, _)| *asked < 5.0 * capacity), "no need to go on: {sweep:?}");
    }

    #[test]
    fn ends_where_the_source_does() {
        let sweep = sweep(1e6, |offered| offered);
        assert!(near(sweep.best_pps(), 1e6) && near(sweep.lossless_pps().unwrap(), 1e6), "{sweep:?}");
        assert!(sweep.turns.len() < 12);
    }

    #[test]
    fn one_that_always_loses_has_no_rate_without_loss() {
        let sweep = sweep(5e6, |offered| offered * 0.5);
        assert_eq!(sweep.lossless_pps(), None);
        assert!(sweep.turns.len() <= MOST_TURNS);
    }

    #[test]
    fn a_loss_by_accident_on_a_low_rung_is_no_limit() {
        let sweep =
            sweep(5e6, |offered| if offered < 30_000.0 { offered * 0.99 } else { offered.min(400_000.0) });
        assert!(near(sweep.lossless_pps().unwrap(), 400_000.0), "{sweep:?}");
    }
}
