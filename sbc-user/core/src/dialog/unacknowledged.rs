//! A 2xx to INVITE that waits for its ACK (RFC 3261 s.13.3.1.4).
//!
//! The callee's user agent, not its transaction, repeats the 2xx, over reliable transports as well: T1 later, then in
//! doubled intervals up to T2, until the ACK arrives (drop this then) or 64*T1 have passed (end the dialog with BYE).

use std::time::{Duration, Instant};

const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);

/// The clock of one 2xx that has been sent and not been acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unacknowledged {
    repeat_at: Instant,
    interval: Duration,
    give_up_at: Instant,
}

/// What is to be done about it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet.
    Wait,
    /// Send the 2xx again.
    Repeat,
    /// The ACK will not come: end the dialog with BYE.
    GiveUp,
}

impl Unacknowledged {
    /// The 2xx has just been sent.
    #[must_use]
    pub fn since(now: Instant) -> Self {
        Self { repeat_at: now + T1, interval: T1, give_up_at: now + T1 * 64 }
    }

    /// When to ask [`on_timeout`](Self::on_timeout) next.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        self.repeat_at.min(self.give_up_at)
    }

    /// What is to be done now. After `Repeat` and `Wait` ask [`poll_timeout`](Self::poll_timeout) again.
    pub fn on_timeout(&mut self, now: Instant) -> Verdict {
        if now >= self.give_up_at {
            return Verdict::GiveUp;
        }
        if now < self.repeat_at {
            return Verdict::Wait;
        }
        self.interval = (self.interval * 2).min(T2);
        self.repeat_at = now + self.interval;
        Verdict::Repeat
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods)] // Any instant will do as the origin; one cannot be made otherwise.
    fn repeats_in_doubled_intervals_until_it_gives_up() {
        let start = Instant::now();
        let mut waiting = Unacknowledged::since(start);
        assert_eq!(waiting.on_timeout(start), Verdict::Wait);
        let mut repeated_ms = Vec::new();
        let gave_up_ms = loop {
            let now = waiting.poll_timeout();
            match waiting.on_timeout(now) {
                Verdict::Repeat => repeated_ms.push((now - start).as_millis()),
                Verdict::GiveUp => break (now - start).as_millis(),
                Verdict::Wait => panic!("woke up for nothing"),
            }
        };
        assert_eq!(repeated_ms, [500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500]);
        assert_eq!(gave_up_ms, 32_000);
    }
}
