//! A link that loses, repeats, delays and reorders datagrams, all from one seed; streams it only delays.

use std::time::{Duration, Instant};

use sbc_core::rng::{Rng, SeededRng};

/// What the link does to datagrams.
#[derive(Clone, Copy, Debug)]
pub struct Quality {
    pub loss_percent: u64,
    pub duplicate_percent: u64,
    pub delay_min: Duration,
    pub delay_max: Duration,
}

impl Quality {
    pub const PERFECT: Self = Self {
        loss_percent: 0,
        duplicate_percent: 0,
        delay_min: Duration::from_millis(5),
        delay_max: Duration::from_millis(5),
    };

    pub const BAD: Self = Self {
        loss_percent: 20,
        duplicate_percent: 5,
        delay_min: Duration::from_millis(5),
        delay_max: Duration::from_millis(120),
    };
}

/// Where something goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    A,
    B,
    EngineFromA,
    EngineFromB,
}

#[derive(Debug)]
struct Flying {
    at: Instant,
    order: u64,
    to: End,
    bytes: Vec<u8>,
}

/// Everything on its way.
#[derive(Debug)]
pub struct Link {
    pub quality: Quality,
    rng: SeededRng,
    flying: Vec<Flying>,
    order: u64,
    /// Messages to lose, whatever the quality: `(to, start of the message)`, each once.
    pub lose: Vec<(End, &'static str)>,
    /// Messages held back until released.
    pub hold: Vec<(End, &'static str)>,
    held: Vec<(End, Vec<u8>)>,
}

impl Link {
    pub fn new(quality: Quality, seed: u64) -> Self {
        Self {
            quality,
            rng: SeededRng::new(seed),
            flying: Vec::new(),
            order: 0,
            lose: Vec::new(),
            hold: Vec::new(),
            held: Vec::new(),
        }
    }

    pub fn send(&mut self, now: Instant, to: End, bytes: Vec<u8>, stream: bool) {
        if let Some(index) =
            self.lose.iter().position(|(end, start)| *end == to && bytes.starts_with(start.as_bytes()))
        {
            self.lose.remove(index);
            return;
        }
        if self.hold.iter().any(|(end, start)| *end == to && bytes.starts_with(start.as_bytes())) {
            self.held.push((to, bytes));
            return;
        }
        if stream {
            self.fly(now + self.quality.delay_min, to, bytes);
            return;
        }
        if self.percent() < self.quality.loss_percent {
            return;
        }
        let copies = if self.percent() < self.quality.duplicate_percent { 2 } else { 1 };
        for _ in 0..copies {
            let spread = (self.quality.delay_max - self.quality.delay_min).as_micros() as u64;
            let delay = self.quality.delay_min + Duration::from_micros(self.rng.next_u64() % (spread + 1));
            self.fly(now + delay, to, bytes.clone());
        }
    }

    /// Lets go what was held back.
    pub fn release(&mut self, now: Instant) {
        self.hold.clear();
        for (to, bytes) in std::mem::take(&mut self.held) {
            self.fly(now, to, bytes);
        }
    }

    pub fn next(&self) -> Option<Instant> {
        self.flying.iter().map(|flying| flying.at).min()
    }

    pub fn arrived(&mut self, now: Instant) -> Option<(End, Vec<u8>)> {
        let index = self
            .flying
            .iter()
            .enumerate()
            .filter(|(_, flying)| flying.at <= now)
            .min_by_key(|(_, flying)| (flying.at, flying.order))?
            .0;
        let flying = self.flying.remove(index);
        Some((flying.to, flying.bytes))
    }

    fn fly(&mut self, at: Instant, to: End, bytes: Vec<u8>) {
        self.order += 1;
        self.flying.push(Flying { at, order: self.order, to, bytes });
    }

    fn percent(&mut self) -> u64 {
        self.rng.next_u64() % 100
    }
}
