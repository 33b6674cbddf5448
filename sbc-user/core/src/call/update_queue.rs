//! At most one change of the session at a time: which re-INVITE or UPDATE goes through now, which waits, which is
//! turned away (RFC 3261 s.14.1, s.14.2; RFC 3311 s.5.2).
//!
//! A change that comes while we ask its own sender something is glare: 491, both sides try again later. A second one
//! of the same side before the first was answered is 500 with a random Retry-After. One that comes when its sender has
//! already done its part, and only the other side's ACK is missing, waits.

use std::collections::VecDeque;

use crate::call::Side;

/// How many changes may wait: each side has at most one that is not turned away.
pub const MAX_WAITING: usize = 2;

/// How far the change in progress is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The first INVITE: answered, but the caller's ACK has not come. Nobody may ask for a change yet.
    Opening,
    /// The request came from this side; the other side has not answered.
    Asked(Side),
    /// The other side has answered; this one, who asked, has not acknowledged.
    Answered(Side),
    /// Nothing in progress.
    Idle,
}

/// What becomes of a request for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It goes through now.
    Start,
    /// It waits for its turn.
    Wait,
    /// 491 Request Pending.
    Glare,
    /// 500 with Retry-After.
    Busy,
}

impl Phase {
    /// What becomes of a change that `from` asks for; `waiting`: one of that side waits already.
    #[must_use]
    pub const fn judge(self, from: Side, waiting: bool) -> Verdict {
        if waiting {
            return Verdict::Busy;
        }
        match (self, from) {
            (Self::Idle, _) => Verdict::Start,
            (Self::Opening, _) => Verdict::Wait,
            (Self::Asked(Side::Caller), Side::Caller) | (Self::Asked(Side::Callee), Side::Callee) => {
                Verdict::Busy
            }
            (Self::Asked(Side::Caller), Side::Callee) | (Self::Asked(Side::Callee), Side::Caller) => {
                Verdict::Glare
            }
            (Self::Answered(_), _) => Verdict::Wait,
        }
    }
}

/// The change in progress and those that wait.
#[derive(Debug)]
pub struct UpdateQueue<T> {
    phase: Phase,
    waiting: VecDeque<(Side, T)>,
}

impl<T> Default for UpdateQueue<T> {
    fn default() -> Self {
        Self { phase: Phase::Opening, waiting: VecDeque::new() }
    }
}

impl<T> UpdateQueue<T> {
    /// How far the change in progress is.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Judges a request for a change. It comes back unless it waits: it is now in progress, or turned away.
    pub fn ask(&mut self, from: Side, request: T) -> (Verdict, Option<T>) {
        let verdict = self.phase.judge(from, self.waiting.iter().any(|(side, _)| *side == from));
        match verdict {
            Verdict::Start => {
                self.phase = Phase::Asked(from);
                (verdict, Some(request))
            }
            Verdict::Wait if self.waiting.len() < MAX_WAITING => {
                self.waiting.push_back((from, request));
                (verdict, None)
            }
            Verdict::Wait | Verdict::Busy => (Verdict::Busy, Some(request)),
            Verdict::Glare => (verdict, Some(request)),
        }
    }

    /// The other side has answered; the ACK of the one who asked is awaited.
    pub fn answered(&mut self) {
        if let Phase::Asked(side) = self.phase {
            self.phase = Phase::Answered(side);
        }
    }

    /// The change in progress is over (or, at first, the call is open). The next one, now in progress.
    pub fn finish(&mut self) -> Option<(Side, T)> {
        self.phase = Phase::Idle;
        let (side, request) = self.waiting.pop_front()?;
        self.phase = Phase::Asked(side);
        Some((side, request))
    }

    /// Takes out one that waits.
    pub fn withdraw(&mut self, which: impl Fn(&T) -> bool) -> Option<(Side, T)> {
        let index = self.waiting.iter().position(|(_, request)| which(request))?;
        self.waiting.remove(index)
    }

    /// Those that wait, to be turned away.
    pub fn clear(&mut self) -> impl Iterator<Item = (Side, T)> {
        std::mem::take(&mut self.waiting).into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Side::{Callee, Caller};

    #[test]
    fn every_phase_and_side() {
        let table = [
            (Phase::Opening, Verdict::Wait, Verdict::Wait),
            (Phase::Asked(Caller), Verdict::Busy, Verdict::Glare),
            (Phase::Asked(Callee), Verdict::Glare, Verdict::Busy),
            (Phase::Answered(Caller), Verdict::Wait, Verdict::Wait),
            (Phase::Answered(Callee), Verdict::Wait, Verdict::Wait),
            (Phase::Idle, Verdict::Start, Verdict::Start),
        ];
        for (phase, of_caller, of_callee) in table {
            assert_eq!(phase.judge(Caller, false), of_caller, "{phase:?}");
            assert_eq!(phase.judge(Callee, false), of_callee, "{phase:?}");
            assert_eq!(phase.judge(Caller, true), Verdict::Busy);
            assert_eq!(phase.judge(Callee, true), Verdict::Busy);
        }
    }

    #[test]
    fn one_at_a_time_in_order() {
        let mut queue = UpdateQueue::default();
        assert_eq!(queue.ask(Callee, 1), (Verdict::Wait, None));
        assert_eq!(queue.ask(Callee, 2), (Verdict::Busy, Some(2)));
        assert_eq!(queue.finish(), Some((Callee, 1)));
        assert_eq!(queue.ask(Caller, 3), (Verdict::Glare, Some(3)));
        queue.answered();
        assert_eq!(queue.ask(Caller, 4), (Verdict::Wait, None));
        assert_eq!(queue.finish(), Some((Caller, 4)));
        assert_eq!(queue.finish(), None);
        assert_eq!(queue.ask(Callee, 5), (Verdict::Start, Some(5)));
        assert_eq!(queue.phase(), Phase::Asked(Callee));
    }

    #[test]
    fn what_waits_can_be_turned_away() {
        let mut queue = UpdateQueue::default();
        queue.ask(Caller, 1);
        queue.ask(Callee, 2);
        assert_eq!(queue.withdraw(|request| *request == 1), Some((Caller, 1)));
        assert_eq!(queue.withdraw(|request| *request == 1), None);
        queue.ask(Caller, 3);
        assert_eq!(queue.clear().collect::<Vec<_>>(), [(Callee, 2), (Caller, 3)]);
        assert_eq!(queue.finish(), None);
    }
}
