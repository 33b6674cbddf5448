//! Armed timers of one engine shard: what is due, in which order, and when to wake up next.
//!
//! Decides nothing about what a timer means. Times are the caller's; nothing here reads a clock.
//!
//! Design trade-off: an ordered index instead of a timing wheel. Arming, cancelling and expiring cost O(log n), which
//! at half a million armed timers is below a microsecond, and in return times are exact (no tick), the next wake-up is
//! the next due timer (no empty wake-ups to cascade a wheel), and the order is total: by due time, then by arming.

use std::collections::BTreeMap;
use std::time::Instant;

/// An armed timer. Names it for [`Timers::cancel`]; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerId {
    due: Instant,
    armed_as: u64,
}

/// Armed timers, each with the key that its owner gets back when it is due.
#[derive(Debug)]
pub struct Timers<K> {
    armed: BTreeMap<TimerId, K>,
    armed_so_far: u64,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { armed: BTreeMap::new(), armed_so_far: 0 }
    }
}

impl<K> Timers<K> {
    /// Nothing armed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Arms a timer. One that lies in the past is due at once.
    pub fn insert(&mut self, due: Instant, key: K) -> TimerId {
        let id = TimerId { due, armed_as: self.armed_so_far };
        self.armed_so_far += 1;
        self.armed.insert(id, key);
        id
    }

    /// Disarms a timer; its key, if it was still armed.
    pub fn cancel(&mut self, id: TimerId) -> Option<K> {
        self.armed.remove(&id)
    }

    /// When the next timer is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.armed.first_key_value().map(|(id, _)| id.due)
    }

    /// Takes out one timer that is due at `now`; call until it returns `None`. Earlier ones first, equal ones in the
    /// order in which they were armed. A timer armed meanwhile with a due time not after `now` is returned as well.
    pub fn expire(&mut self, now: Instant) -> Option<(TimerId, K)> {
        let next = self.armed.first_entry()?;
        (next.key().due <= now).then(|| next.remove_entry())
    }

    /// How many are armed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.armed.len()
    }

    /// Whether none is armed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.armed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// Any instant will do as the origin; an `Instant` cannot be made otherwise.
    #[allow(clippy::disallowed_methods)]
    fn origin() -> Instant {
        Instant::now()
    }

    fn after(origin: Instant, ms: u64) -> Instant {
        origin + Duration::from_millis(ms)
    }

    #[test]
    fn due_timers_come_by_time_then_by_arming() {
        let t0 = origin();
        let mut timers = Timers::new();
        timers.insert(after(t0, 20), "c");
        timers.insert(after(t0, 10), "a");
        timers.insert(after(t0, 10), "b");
        assert_eq!(timers.poll_timeout(), Some(after(t0, 10)));
        assert!(timers.expire(after(t0, 9)).is_none());
        let due: Vec<_> = std::iter::from_fn(|| timers.expire(after(t0, 20)).map(|(_, key)| key)).collect();
        assert_eq!(due, ["a", "b", "c"]);
        assert_eq!(timers.poll_timeout(), None);
    }

    #[test]
    fn a_cancelled_timer_is_never_due_and_cancelling_twice_is_harmless() {
        let t0 = origin();
        let mut timers = Timers::new();
        let id = timers.insert(t0, 'x');
        assert_eq!(timers.cancel(id), Some('x'));
        assert_eq!(timers.cancel(id), None);
        assert!(timers.is_empty());
        assert!(timers.expire(after(t0, 1000)).is_none());
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u64),
        Cancel(usize),
        Advance(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (0..200_u64).prop_map(Op::Insert),
            (0..64_usize).prop_map(Op::Cancel),
            (0..50_u64).prop_map(Op::Advance),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_sorted_list(ops in prop::collection::vec(op(), 0..200)) {
            let t0 = origin();
            let mut now = t0;
            let mut timers = Timers::new();
            let mut ids = Vec::new();
            let mut model: Vec<(Instant, usize)> = Vec::new();
            for op in ops {
                match op {
                    Op::Insert(ms) => {
                        let key = ids.len();
                        ids.push(timers.insert(after(now, ms), key));
                        model.push((after(now, ms), key));
                    }
                    Op::Cancel(key) => {
                        let expected = model.iter().position(|(_, k)| *k == key).map(|i| model.remove(i).1);
                        prop_assert_eq!(ids.get(key).and_then(|id| timers.cancel(*id)), expected);
                    }
                    Op::Advance(ms) => {
                        now = after(now, ms);
                        let (mut due, rest): (Vec<_>, Vec<_>) = model.iter().partition(|(at, _)| *at <= now);
                        due.sort();
                        model = rest;
                        let got: Vec<_> = std::iter::from_fn(|| timers.expire(now).map(|(_, key)| key)).collect();
                        prop_assert_eq!(got, due.into_iter().map(|(_, key)| key).collect::<Vec<_>>());
                    }
                }
                prop_assert_eq!(timers.len(), model.len());
                prop_assert_eq!(timers.poll_timeout(), model.iter().map(|(at, _)| *at).min());
            }
        }
    }
}
