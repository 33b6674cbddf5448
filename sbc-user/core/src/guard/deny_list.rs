//! Denied sources: since when, until when, and which of them gives way when there are too many: the oldest that was denied
//! over UDP only, whose address may be forged; one that has proven its address only to another that has, so that forged
//! datagrams push nobody out who was caught.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use super::command::{Denial, DenyReason, DenyScope, GuardPolicy, Source};
use crate::time::Now;
use crate::timers::{TimerId, Timers};

/// A denied source as an operator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Who.
    pub source: Source,
    /// Why.
    pub reason: DenyReason,
    /// Over which transports.
    pub scope: DenyScope,
    /// Since when.
    pub since: SystemTime,
    /// Until when; `None`: until it is removed.
    pub until: Option<SystemTime>,
}

impl Denied {
    /// As the dataplane is told, now.
    #[must_use]
    pub fn denial(&self, now: Now) -> Denial {
        let left = |until: SystemTime| until.duration_since(now.wall).unwrap_or_default();
        let Self { source, scope, reason, since, until } = *self;
        Denial { source, scope, reason, since, lasts: until.map(left) }
    }
}

/// Who gives way first: who has proven less, then who was denied longest ago.
type Age = (DenyScope, u64);

#[derive(Debug)]
struct Entry {
    denied: Denied,
    age: Age,
    ends: Option<TimerId>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct DenyList {
    entries: BTreeMap<Source, Entry>,
    /// By the order in which they give way.
    ages: BTreeMap<Age, Source>,
    last_age: u64,
    ends: Timers<Source>,
}

impl DenyList {
    /// Denies a source, from now on and for the configured time, whether it was denied or not. A scope is never
    /// narrowed. The sources that gave way; the new one is not denied if all others have proven more.
    pub fn deny(
        &mut self,
        now: Now,
        policy: &GuardPolicy,
        source: Source,
        scope: DenyScope,
        reason: DenyReason,
    ) -> Vec<Source> {
        let before = self.take(source);
        let scope = before.map_or(scope, |before| before.scope.max(scope));
        let since = before.map_or(now.wall, |before| before.since);
        // A time that no clock can tell is not one that anybody waits for.
        let ends = policy.retention.and_then(|lasts| now.mono.checked_add(lasts));
        let until = ends.and(policy.retention).and_then(|lasts| now.wall.checked_add(lasts));
        self.insert(policy, Denied { source, reason, scope, since, until }, ends)
    }

    /// Denies a source as it was denied before a restart, unless that is over.
    pub fn restore(&mut self, now: Now, policy: &GuardPolicy, denied: Denied) {
        let left = denied.until.map(|until| until.duration_since(now.wall));
        match left {
            Some(Err(_)) => {}
            Some(Ok(left)) if left.is_zero() => {}
            Some(Ok(left)) => {
                let Some(ends) = now.mono.checked_add(left) else { return };
                self.insert(policy, denied, Some(ends));
            }
            None => {
                self.insert(policy, denied, None);
            }
        }
    }

    fn insert(&mut self, policy: &GuardPolicy, denied: Denied, ends: Option<Instant>) -> Vec<Source> {
        let source = denied.source;
        let mut gone = Vec::new();
        self.last_age += 1;
        let age = (denied.scope, self.last_age);
        self.ages.insert(age, source);
        let ends = ends.map(|at| self.ends.insert(at, source));
        self.entries.insert(source, Entry { denied, age, ends });
        while self.entries.len() > policy.deny_max.max(1)
            && let Some((_, &first)) = self.ages.first_key_value()
        {
            self.take(first);
            if first != source {
                gone.push(first);
            }
        }
        gone
    }

    /// What is known of a source, if it is denied.
    #[must_use]
    pub fn find(&self, source: Source) -> Option<&Denied> {
        self.entries.get(&source).map(|entry| &entry.denied)
    }

    /// Ends a denial; what it was.
    pub fn take(&mut self, source: Source) -> Option<Denied> {
        let entry = self.entries.remove(&source)?;
        self.ages.remove(&entry.age);
        if let Some(ends) = entry.ends {
            self.ends.cancel(ends);
        }
        Some(entry.denied)
    }

    /// Ends one denial whose time is over; call until it returns `None`.
    pub fn expire(&mut self, now: Instant) -> Option<Source> {
        let (_, source) = self.ends.expire(now)?;
        self.take(source);
        Some(source)
    }

    /// When the next one ends.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.ends.poll_timeout()
    }

    /// All, the one denied first before the others.
    pub fn iter(&self) -> impl Iterator<Item = &Denied> {
        let mut entries: Vec<&Entry> = self.entries.values().collect();
        entries.sort_unstable_by_key(|entry| entry.age.1);
        entries.into_iter().map(|entry| &entry.denied)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use super::*;

    fn source(last: u8) -> Source {
        Source::of(IpAddr::from([203, 0, 113, last]))
    }

    #[allow(clippy::disallowed_methods)] // Any instant will do as the origin; one cannot be made otherwise.
    fn origin() -> Now {
        Now { mono: Instant::now(), wall: SystemTime::UNIX_EPOCH }
    }

    fn listed(list: &DenyList) -> Vec<Source> {
        list.iter().map(|denied| denied.source).collect()
    }

    /// C-7: every retention, on a virtual clock.
    #[test]
    fn a_denial_lasts_as_long_as_configured() {
        let start = origin();
        for retention in [Some(30), Some(300), Some(1800), Some(3600), Some(86_400), Some(604_800), None] {
            let retention = retention.map(Duration::from_secs);
            let policy = GuardPolicy { retention, ..GuardPolicy::default() };
            let mut list = DenyList::default();
            list.deny(start, &policy, source(1), DenyScope::Udp, DenyReason::Flood);
            assert_eq!(list.find(source(1)).unwrap().until, retention.map(|lasts| start.wall + lasts));
            assert_eq!(list.poll_timeout(), retention.map(|lasts| start.mono + lasts));
            let end = start.mono + retention.unwrap_or(Duration::from_secs(10 * 365 * 86_400));
            assert_eq!(list.expire(end - Duration::from_nanos(1)), None);
            assert_eq!(list.expire(end), retention.map(|_| source(1)), "{retention:?}");
            assert_eq!(list.find(source(1)).is_some(), retention.is_none());
        }
    }

    /// C-7: the size limit evicts the oldest; one that was denied again is not the oldest any more.
    #[test]
    fn the_oldest_gives_way() {
        let now = origin();
        let policy = GuardPolicy { deny_max: 3, ..GuardPolicy::default() };
        let mut list = DenyList::default();
        let mut deny = |last| list.deny(now, &policy, source(last), DenyScope::Udp, DenyReason::Flood);
        assert_eq!([deny(1), deny(2), deny(3), deny(1)], [vec![], vec![], vec![], vec![]]);
        assert_eq!(deny(4), [source(2)]);
        assert_eq!(listed(&list), [source(3), source(1), source(4)]);
        assert!(list.take(source(3)).is_some() && list.take(source(3)).is_none());
        assert_eq!(listed(&list), [source(1), source(4)]);
    }

    /// Datagrams prove nothing of who sent them: no number of them ends the denial of who was caught.
    #[test]
    fn what_may_be_forged_pushes_nobody_out_who_was_caught() {
        let now = origin();
        let policy = GuardPolicy { deny_max: 3, ..GuardPolicy::default() };
        let mut list = DenyList::default();
        let mut deny = |last, scope| list.deny(now, &policy, source(last), scope, DenyReason::Scanner);
        assert!(deny(1, DenyScope::All).is_empty() && deny(2, DenyScope::All).is_empty());
        for last in 10..200 {
            let expected = if last == 10 { vec![] } else { vec![source(last - 1)] };
            assert_eq!(deny(last, DenyScope::Udp), expected);
        }
        assert_eq!(deny(3, DenyScope::All), [source(199)]);
        assert_eq!(deny(200, DenyScope::Udp), []);
        assert_eq!(deny(4, DenyScope::All), [source(1)]);
        assert_eq!(listed(&list), [source(2), source(3), source(4)]);
        // The lists that were before a restart are one that holds its limit as well.
        let mut after = DenyList::default();
        for denied in list.iter() {
            after.restore(now, &GuardPolicy { deny_max: 2, ..policy.clone() }, *denied);
        }
        assert_eq!(listed(&after), [source(3), source(4)]);
    }

    /// C-7: whoever is denied stays so over a restart, for the rest of the time.
    #[test]
    fn a_denial_is_restored_with_what_is_left_of_it() {
        let (start, policy) = (origin(), GuardPolicy::default());
        let later = |seconds| Now {
            mono: start.mono + Duration::from_secs(seconds),
            wall: start.wall + Duration::from_secs(seconds),
        };
        let mut before = DenyList::default();
        before.deny(start, &policy, source(1), DenyScope::All, DenyReason::Scanner);
        let infinite = GuardPolicy { retention: None, ..GuardPolicy::default() };
        before.deny(later(1), &infinite, source(2), DenyScope::Udp, DenyReason::Flood);
        let left: Vec<_> = before.iter().map(|denied| denied.denial(later(600)).lasts).collect();
        assert_eq!(left, [Some(Duration::from_secs(3000)), None]);
        let mut after = DenyList::default();
        for denied in before.iter() {
            after.restore(later(601), &policy, *denied);
        }
        assert!(after.iter().eq(before.iter()));
        assert_eq!(after.expire(later(3599).mono), None);
        assert_eq!(after.expire(later(3600).mono), Some(source(1)));
        let mut too_late = DenyList::default();
        for denied in before.iter() {
            too_late.restore(later(3600), &policy, *denied);
        }
        assert_eq!(listed(&too_late), [source(2)]);
    }

    #[test]
    fn a_scope_is_never_narrowed_by_what_proves_less() {
        let now = origin();
        let policy = GuardPolicy::default();
        let mut list = DenyList::default();
        for (scope, expected) in [
            (DenyScope::Udp, DenyScope::Udp),
            (DenyScope::All, DenyScope::All),
            (DenyScope::Udp, DenyScope::All),
        ] {
            list.deny(now, &policy, source(1), scope, DenyReason::Flood);
            assert_eq!(list.find(source(1)).unwrap().scope, expected);
        }
    }
}
