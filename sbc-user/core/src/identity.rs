//! Branches, tags and Call-IDs that we generate, and where one that comes back was generated.
//!
//! Each carries the node, its start count and the engine shard that made it, so that a response or in-dialog request
//! finds its shard, and another node that takes over knows whose it is, without a shared table. The rest is random and
//! cannot be guessed (RFC 3261 s.8.1.1.7, s.19.3, s.8.1.1.4). A Call-ID has no host part: it would show an address.

use std::fmt::Write as _;

use crate::rng::Rng;

/// Start of every branch since RFC 3261 (s.8.1.1.7); a branch without it is matched by the rules of RFC 2543.
pub const MAGIC_COOKIE: &str = "z9hG4bK";

const ORIGIN_DIGITS: usize = 4 + 8 + 2;
const SHORT_RANDOM_DIGITS: usize = 16;
const LONG_RANDOM_DIGITS: usize = 32;

/// Who generated an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The node, by configuration.
    pub node: u16,
    /// How often that node had started.
    pub epoch: u32,
    /// The engine shard within it.
    pub shard: u8,
}

impl Origin {
    /// A new `branch` (RFC 3261 s.8.1.1.7): unique across space and time.
    #[must_use]
    pub fn branch(self, rng: &mut impl Rng) -> String {
        let mut text = String::with_capacity(MAGIC_COOKIE.len() + ORIGIN_DIGITS + SHORT_RANDOM_DIGITS);
        text.push_str(MAGIC_COOKIE);
        self.append_to(&mut text, 1, rng);
        text
    }

    /// A new `tag` (RFC 3261 s.19.3): at least 32 bits of randomness, ours has 64.
    #[must_use]
    pub fn tag(self, rng: &mut impl Rng) -> String {
        let mut text = String::with_capacity(ORIGIN_DIGITS + SHORT_RANDOM_DIGITS);
        self.append_to(&mut text, 1, rng);
        text
    }

    /// A new `Call-ID` (RFC 3261 s.8.1.1.4): 128 random bits.
    #[must_use]
    pub fn call_id(self, rng: &mut impl Rng) -> String {
        let mut text = String::with_capacity(ORIGIN_DIGITS + LONG_RANDOM_DIGITS);
        self.append_to(&mut text, 2, rng);
        text
    }

    /// Who generated this branch, tag or Call-ID; `None` if it has not the form of ours.
    ///
    /// The form is not a proof: whoever has seen one can make another. It only says where to look.
    #[must_use]
    pub fn of(identifier: &str) -> Option<Self> {
        let digits = identifier.strip_prefix(MAGIC_COOKIE).unwrap_or(identifier);
        let random = digits.len().checked_sub(ORIGIN_DIGITS)?;
        if random != SHORT_RANDOM_DIGITS && random != LONG_RANDOM_DIGITS {
            return None;
        }
        if !digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        Some(Self {
            node: u16::from_str_radix(digits.get(0..4)?, 16).ok()?,
            epoch: u32::from_str_radix(digits.get(4..12)?, 16).ok()?,
            shard: u8::from_str_radix(digits.get(12..14)?, 16).ok()?,
        })
    }

    fn append_to(self, text: &mut String, random_words: usize, rng: &mut impl Rng) {
        // Writing into a `String` cannot fail.
        let _ = write!(text, "{:04x}{:08x}{:02x}", self.node, self.epoch, self.shard);
        for _ in 0..random_words {
            let _ = write!(text, "{:016x}", rng.next_u64());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rng::SeededRng;

    const ORIGIN: Origin = Origin { node: 0x0102, epoch: 0xa3, shard: 7 };

    #[test]
    fn each_kind_says_who_made_it() {
        let mut rng = SeededRng::new(1);
        let branch = ORIGIN.branch(&mut rng);
        assert!(branch.starts_with("z9hG4bK0102000000a307"), "{branch}");
        assert_eq!(branch.len(), 7 + 14 + 16);
        assert_eq!(Origin::of(&branch), Some(ORIGIN));
        assert_eq!(Origin::of(&ORIGIN.tag(&mut rng)), Some(ORIGIN));
        assert_eq!(Origin::of(&ORIGIN.call_id(&mut rng)), Some(ORIGIN));
    }

    #[test]
    fn no_two_are_equal() {
        let mut rng = SeededRng::new(1);
        let all: std::collections::BTreeSet<_> = (0..1000).map(|_| ORIGIN.tag(&mut rng)).collect();
        assert_eq!(all.len(), 1000);
    }

    #[test]
    fn identifiers_of_others_are_not_ours() {
        for other in
            ["", "z9hG4bK", "z9hG4bK776asdhds", "1928301774", "a84b4c76e66710@pc33.atlanta.example.com", "é"]
        {
            assert_eq!(Origin::of(other), None, "{other}");
        }
        assert_eq!(Origin::of(&ORIGIN.tag(&mut SeededRng::new(1)).to_uppercase()), None);
    }

    proptest! {
        #[test]
        fn any_origin_comes_back(node: u16, epoch: u32, shard: u8, seed: u64) {
            let origin = Origin { node, epoch, shard };
            let mut rng = SeededRng::new(seed);
            prop_assert_eq!(Origin::of(&origin.branch(&mut rng)), Some(origin));
            prop_assert_eq!(Origin::of(&origin.call_id(&mut rng)), Some(origin));
        }

        #[test]
        fn any_text_is_judged_without_panic(text: String) {
            let _ = Origin::of(&text);
        }
    }
}
