//! A list of prefixes that an operator keeps: the allow list (R-ALLOW-1) or the block list.

use std::net::IpAddr;

use crate::config::Prefix;

/// Which list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// Sources whose requests are not counted.
    Allow,
    /// Sources from which nothing is taken.
    Block,
}

/// Why a list was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListRefusal {
    /// It is full.
    #[error("the list is full: it holds {max} at most")]
    Full {
        /// How many it holds.
        max: usize,
    },
    /// It has the prefix already.
    #[error("it is on the list already")]
    Present,
    /// It does not have it.
    #[error("it is not on the list")]
    Absent,
}

/// Prefixes in the order in which they were added.
#[derive(Clone, Debug)]
pub struct PrefixList {
    prefixes: Vec<Prefix>,
    max: usize,
}

impl PrefixList {
    /// A list of these; no more than `max`.
    #[must_use]
    pub fn new(prefixes: Vec<Prefix>, max: usize) -> Self {
        Self { prefixes, max }
    }

    /// Adds one.
    ///
    /// # Errors
    /// The list is full or has it.
    pub fn add(&mut self, prefix: Prefix) -> Result<(), ListRefusal> {
        if self.prefixes.contains(&prefix) {
            return Err(ListRefusal::Present);
        }
        if self.prefixes.len() >= self.max {
            return Err(ListRefusal::Full { max: self.max });
        }
        self.prefixes.push(prefix);
        Ok(())
    }

    /// Removes one.
    ///
    /// # Errors
    /// The list does not have exactly this one.
    pub fn remove(&mut self, prefix: Prefix) -> Result<(), ListRefusal> {
        let position = self.prefixes.iter().position(|other| *other == prefix).ok_or(ListRefusal::Absent)?;
        self.prefixes.remove(position);
        Ok(())
    }

    /// Whether an address is on it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.prefixes.iter().any(|prefix| prefix.contains(address))
    }

    /// All of them.
    #[must_use]
    pub fn prefixes(&self) -> &[Prefix] {
        &self.prefixes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C-9: a hundred, and the 101st is refused.
    #[test]
    fn a_full_list_refuses_clearly() {
        let prefix = |last| Prefix { addr: IpAddr::from([192, 0, 2, last]), len: 32 };
        let mut list = PrefixList::new(Vec::new(), 100);
        for last in 0..100 {
            assert_eq!(list.add(prefix(last)), Ok(()));
        }
        let refused = list.add(prefix(100)).unwrap_err();
        assert_eq!(refused, ListRefusal::Full { max: 100 });
        assert_eq!(refused.to_string(), "the list is full: it holds 100 at most");
        assert_eq!(list.add(prefix(7)), Err(ListRefusal::Present));
        assert_eq!((list.remove(prefix(7)), list.remove(prefix(7))), (Ok(()), Err(ListRefusal::Absent)));
        assert_eq!(list.add(prefix(100)), Ok(()));
        assert!(
            list.contains(IpAddr::from([192, 0, 2, 100])) && !list.contains(IpAddr::from([192, 0, 2, 7]))
        );
    }
}
