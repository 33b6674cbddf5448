//! Which ports of ours a stream uses: pairs drawn at random from a realm's range, rested before they are used again.
//!
//! Decides port numbers only; whether the system lets us have one is the dataplane's answer. RTP is even and RTCP the
//! next odd port (RFC 3550 s.11). Random, because a guessable port invites injected media; rested, because late packets
//! of an old call must not enter a new one.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use crate::rng::Rng;

/// The pairs of one realm.
///
/// Every operation takes constant time, but for pairs whose rest is over: each is moved once.
#[derive(Debug)]
pub struct PortPool {
    /// Even port of the first pair.
    first: u16,
    quarantine: Duration,
    /// Even ports that may be given out.
    free: Vec<u16>,
    /// Even ports at rest, in the order in which they were released, and when their rest ends.
    resting: VecDeque<(Instant, u16)>,
    /// By pair: the serial of its holder.
    holders: Vec<Option<u64>>,
    in_use: usize,
    next_serial: u64,
}

/// A pair of ports, held until it is released. A copy is the same holding: releasing twice does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortPair {
    rtp: u16,
    serial: u64,
}

impl PortPair {
    /// The even port.
    #[must_use]
    pub const fn rtp(self) -> u16 {
        self.rtp
    }

    /// The odd port after it.
    #[must_use]
    pub const fn rtcp(self) -> u16 {
        self.rtp + 1 // an even u16 has a successor
    }
}

impl PortPool {
    /// All pairs that lie wholly inside `ports`; port 0 is never one of them.
    #[must_use]
    pub fn new(ports: &RangeInclusive<u16>, quarantine: Duration) -> Self {
        let first = (*ports.start()).max(2).checked_next_multiple_of(2);
        let free: Vec<u16> = first
            .into_iter()
            .flat_map(|first| (first..=*ports.end()).step_by(2))
            .filter(|even| even < ports.end())
            .collect();
        Self {
            first: first.unwrap_or(u16::MAX),
            quarantine,
            holders: vec![None; free.len()],
            free,
            resting: VecDeque::new(),
            in_use: 0,
            next_serial: 0,
        }
    }

    /// How many pairs there are, in any state.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.holders.len()
    }

    /// How many pairs are held.
    #[must_use]
    pub const fn in_use(&self) -> usize {
        self.in_use
    }

    /// A pair that nobody holds and that has rested. `None`: there is none at this moment.
    pub fn allocate(&mut self, rng: &mut impl Rng, now: Instant) -> Option<PortPair> {
        while let Some(&(until, rtp)) = self.resting.front()
            && until <= now
        {
            self.resting.pop_front();
            self.free.push(rtp);
        }
        if self.free.is_empty() {
            return None;
        }
        let pick = rng.next_u64() % self.free.len() as u64;
        let rtp = self.free.swap_remove(pick as usize); // below len
        Some(self.give(rtp))
    }

    /// Takes a certain pair, as an earlier allocation did. `None`: it is not free.
    pub fn hold(&mut self, rtp: u16) -> Option<PortPair> {
        let position = self.free.iter().position(|free| *free == rtp)?;
        self.free.swap_remove(position);
        Some(self.give(rtp))
    }

    /// Lets a free pair rest until then; without effect on one that is held or rests.
    pub fn rest(&mut self, rtp: u16, until: Instant) {
        if let Some(position) = self.free.iter().position(|free| *free == rtp) {
            self.free.swap_remove(position);
            let before = self.resting.partition_point(|(other, _)| *other <= until);
            self.resting.insert(before, (until, rtp));
        }
    }

    /// Gives a pair back; it rests before it is given out again. False, and without effect, if it was given back before.
    pub fn release(&mut self, pair: PortPair, now: Instant) -> bool {
        match self.holder_mut(pair.rtp) {
            Some(holder) if *holder == Some(pair.serial) => *holder = None,
            Some(_) | None => return false,
        }
        self.in_use -= 1;
        self.resting.push_back((now + self.quarantine, pair.rtp));
        true
    }

    fn give(&mut self, rtp: u16) -> PortPair {
        let serial = self.next_serial;
        self.next_serial += 1;
        if let Some(holder) = self.holder_mut(rtp) {
            *holder = Some(serial);
        }
        self.in_use += 1;
        PortPair { rtp, serial }
    }

    fn holder_mut(&mut self, rtp: u16) -> Option<&mut Option<u64>> {
        let index = usize::from(rtp.checked_sub(self.first)? / 2);
        self.holders.get_mut(index)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::rng::SeededRng;

    const REST: Duration = Duration::from_secs(30);

    #[expect(clippy::disallowed_methods, reason = "some instant to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    fn drain(pool: &mut PortPool, now: Instant) -> Vec<PortPair> {
        let mut rng = SeededRng::new(7);
        std::iter::from_fn(|| pool.allocate(&mut rng, now)).collect()
    }

    #[test]
    fn only_whole_pairs_inside_the_range_are_given_out() {
        let now = start();
        for (range, evens) in [
            (20_000..=20_003, vec![20_000, 20_002]),
            (20_001..=20_004, vec![20_002]),
            (20_001..=20_002, vec![]),
            (20_000..=20_000, vec![]),
            (0..=5, vec![2, 4]),
            (65_533..=65_535, vec![65_534]),
            (65_535..=65_535, vec![]),
            (65_534..=65_535, vec![65_534]),
        ] {
            let mut pool = PortPool::new(&range, REST);
            assert_eq!(pool.capacity(), evens.len(), "{range:?}");
            let mut given: Vec<u16> = drain(&mut pool, now).iter().map(|pair| pair.rtp()).collect();
            given.sort_unstable();
            assert_eq!(given, evens, "{range:?}");
        }
    }

    #[test]
    fn an_empty_range_is_an_empty_pool() {
        #[expect(clippy::reversed_empty_ranges, reason = "the case under test")]
        let mut pool = PortPool::new(&(30_000..=20_000), REST);
        assert_eq!(pool.capacity(), 0);
        assert_eq!(pool.allocate(&mut SeededRng::new(1), start()), None);
    }

    #[test]
    fn a_released_pair_rests_before_it_is_given_out_again() {
        let now = start();
        let mut rng = SeededRng::new(1);
        let mut pool = PortPool::new(&(20_000..=20_001), REST);
        let pair = pool.allocate(&mut rng, now).unwrap();
        assert_eq!((pair.rtp(), pair.rtcp(), pool.in_use()), (20_000, 20_001, 1));
        assert_eq!(pool.allocate(&mut rng, now), None);
        assert!(pool.release(pair, now));
        assert_eq!(pool.in_use(), 0);
        assert_eq!(pool.allocate(&mut rng, now + REST - Duration::from_nanos(1)), None);
        let again = pool.allocate(&mut rng, now + REST).unwrap();
        assert_eq!(again.rtp(), pair.rtp());
    }

    #[test]
    fn a_second_release_does_not_touch_the_next_holder() {
        let now = start();
        let mut rng = SeededRng::new(1);
        let mut pool = PortPool::new(&(20_000..=20_001), REST);
        let old = pool.allocate(&mut rng, now).unwrap();
        assert!(pool.release(old, now));
        assert!(!pool.release(old, now));
        let new = pool.allocate(&mut rng, now + REST).unwrap();
        assert!(!pool.release(old, now + REST));
        assert_eq!(pool.in_use(), 1);
        assert!(pool.release(new, now + REST));
    }

    #[test]
    fn a_certain_pair_is_taken_once_and_one_that_rests_is_not_free() {
        let now = start();
        let mut pool = PortPool::new(&(20_000..=20_005), REST);
        let held = pool.hold(20_002).unwrap();
        assert_eq!((held.rtp(), pool.in_use()), (20_002, 1));
        assert_eq!((pool.hold(20_002), pool.hold(20_006), pool.hold(20_001)), (None, None, None));
        pool.rest(20_004, now + REST);
        pool.rest(20_002, now + REST);
        assert_eq!(drain(&mut pool, now).len(), 1);
        assert!(pool.release(held, now));
        assert_eq!(drain(&mut pool, now + REST).len(), 2);
    }

    #[test]
    fn a_pair_of_another_pool_is_not_taken() {
        let now = start();
        let mut rng = SeededRng::new(1);
        let mut low = PortPool::new(&(20_000..=20_009), REST);
        let mut high = PortPool::new(&(40_000..=40_009), REST);
        let pair = high.allocate(&mut rng, now).unwrap();
        assert!(!low.release(pair, now));
        let pair = low.allocate(&mut rng, now).unwrap();
        assert!(!high.release(pair, now));
        assert_eq!((low.in_use(), high.in_use()), (1, 1));
    }

    #[test]
    fn ports_are_not_given_out_in_order() {
        let now = start();
        let mut pool = PortPool::new(&(20_000..=27_999), REST);
        let given: Vec<u16> = drain(&mut pool, now).iter().map(|pair| pair.rtp()).collect();
        assert_eq!(given.len(), 4000);
        let ascending = given.windows(2).filter(|two| two[0] < two[1]).count();
        assert!((1600..2400).contains(&ascending), "{ascending} of 3999 steps ascend");
    }

    proptest! {
        #[test]
        fn no_two_holders_share_a_port(seed: u64, lo in 1u16..=60_000, len in 0u16..40, steps in prop::collection::vec(any::<(bool, u8)>(), 0..200)) {
            let range = lo..=lo + len;
            let mut pool = PortPool::new(&range, REST);
            let mut rng = SeededRng::new(seed);
            let mut now = start();
            let mut held: Vec<PortPair> = Vec::new();
            for (take, n) in steps {
                now += Duration::from_secs(u64::from(n % 20));
                if take {
                    if let Some(pair) = pool.allocate(&mut rng, now) {
                        prop_assert!(pair.rtp() % 2 == 0 && range.contains(&pair.rtp()) && range.contains(&pair.rtcp()));
                        held.push(pair);
                    }
                } else if !held.is_empty() {
                    let pair = held.swap_remove(usize::from(n) % held.len());
                    prop_assert!(pool.release(pair, now));
                }
                let distinct: BTreeSet<u16> = held.iter().map(|pair| pair.rtp()).collect();
                prop_assert_eq!(distinct.len(), held.len());
                prop_assert_eq!(pool.in_use(), held.len());
            }
        }
    }
}
