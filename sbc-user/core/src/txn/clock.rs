//! What a transaction acts upon when its machine asks for something: the table's timers and outputs, and its own clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use smallvec::SmallVec;

use super::event::{TxnEvent, TxnId, TxnOutput};
use super::machine::{T1, T2, Timer};
use crate::flow::Flow;
use crate::timers::{TimerId, Timers};

/// All armed timers of all transactions.
pub(super) type TxnTimers = Timers<(TxnId, Timer)>;

/// Where a transaction's actions go.
pub(super) struct Outlet<'a> {
    pub(super) now: Instant,
    pub(super) timers: &'a mut TxnTimers,
    pub(super) outputs: &'a mut VecDeque<TxnOutput>,
}

impl Outlet<'_> {
    pub(super) fn send(&mut self, txn: TxnId, flow: Flow, bytes: Bytes) {
        self.outputs.push_back(TxnOutput::Send { op: txn.op(), flow, bytes });
    }

    pub(super) fn tell(&mut self, event: TxnEvent) {
        self.outputs.push_back(TxnOutput::Event(event));
    }
}

/// The clock of one transaction: which timers are armed, and how long the repeating one waits next.
#[derive(Debug)]
pub(super) struct Clock {
    reliable: bool,
    armed: SmallVec<[(Timer, TimerId); 2]>,
    interval: Duration,
}

impl Clock {
    /// Nothing armed; `reliable` says what the transport is.
    pub(super) fn new(reliable: bool) -> Self {
        Self { reliable, armed: SmallVec::new(), interval: T1 }
    }

    /// Starts a timer. True: over this transport it fires at once, and was not armed.
    #[must_use]
    pub(super) fn start(&mut self, outlet: &mut Outlet<'_>, txn: TxnId, timer: Timer) -> bool {
        let Some(length) = timer.length(self.reliable) else { return false };
        if length.is_zero() {
            return true;
        }
        let length = match timer {
            Timer::A | Timer::E | Timer::G => {
                let interval = self.interval;
                self.interval = timer.next_interval(interval);
                interval
            }
            Timer::B
            | Timer::C
            | Timer::D
            | Timer::F
            | Timer::H
            | Timer::I
            | Timer::J
            | Timer::K
            | Timer::L
            | Timer::M
            | Timer::InviteUnanswered
            | Timer::OtherUnanswered => length,
        };
        self.armed.push((timer, outlet.timers.insert(outlet.now + length, (txn, timer))));
        false
    }

    /// Starts a repeating timer at its longest interval.
    pub(super) fn start_at_t2(&mut self, outlet: &mut Outlet<'_>, txn: TxnId, timer: Timer) {
        self.interval = T2;
        if !self.reliable {
            self.armed.push((timer, outlet.timers.insert(outlet.now + T2, (txn, timer))));
        }
    }

    /// A timer fired: it is armed no longer.
    pub(super) fn fired(&mut self, id: TimerId) {
        self.armed.retain(|(_, armed)| *armed != id);
    }

    /// Stops all; a repeating one starts at T1 again.
    pub(super) fn stop(&mut self, timers: &mut TxnTimers) {
        for (_, id) in self.armed.drain(..) {
            timers.cancel(id);
        }
        self.interval = T1;
    }

    /// How many are armed.
    #[cfg(test)]
    pub(super) fn armed(&self) -> usize {
        self.armed.len()
    }
}
