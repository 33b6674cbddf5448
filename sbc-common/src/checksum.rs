//! The Internet checksum, updated for what changed (RFC 1624) and computed whole (RFC 1071).
//!
//! An update keeps what was wrong wrong: a packet that arrived damaged leaves damaged, and its receiver sees it.
//! Sums do not depend on byte order (RFC 1071 section 2 B), so fields go in as they lie in memory.

/// What a set of changed fields does to a checksum: the sum of ~m + m' over 16-bit words (RFC 1624, equation 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Delta(u64);

impl Delta {
    /// Nothing changed.
    pub const ZERO: Self = Self(0);

    /// A 16-bit field changed.
    #[inline(always)]
    pub const fn replace16(self, old: u16, new: u16) -> Self {
        Self(self.0 + !old as u64 + new as u64)
    }

    /// Two adjacent 16-bit fields, or one of 32 bits, changed.
    #[inline(always)]
    pub const fn replace32(self, old: u32, new: u32) -> Self {
        Self(self.0 + !old as u64 + new as u64)
    }

    /// 32 bits that were summed are no longer there.
    #[inline(always)]
    pub const fn without32(self, old: u32) -> Self {
        Self(self.0 + !old as u64)
    }

    /// 32 bits more are summed.
    #[inline(always)]
    pub const fn with32(self, new: u32) -> Self {
        Self(self.0 + new as u64)
    }

    /// 64 bits that were summed are no longer there.
    #[inline(always)]
    pub const fn without64(self, old: u64) -> Self {
        self.without32(old as u32).without32((old >> 32) as u32)
    }

    /// 64 bits more are summed.
    #[inline(always)]
    pub const fn with64(self, new: u64) -> Self {
        self.with32(new as u32).with32((new >> 32) as u32)
    }

    /// The checksum after the change: HC' = ~(~HC + delta).
    #[inline(always)]
    pub const fn apply(self, checksum: u16) -> u16 {
        !fold(self.0 + !checksum as u64)
    }

    /// The UDP checksum after the change: 0 means none (RFC 768) and stays; a computed 0 is sent as all ones.
    #[inline(always)]
    pub const fn apply_udp(self, checksum: u16) -> u16 {
        if checksum == 0 { 0 } else { self.apply_to_some(checksum) }
    }

    /// The same where there is a checksum, whatever its value: as of IPv6 datagrams, and of those that are to be one.
    #[inline(always)]
    pub const fn apply_to_some(self, checksum: u16) -> u16 {
        match self.apply(checksum) {
            0 => 0xffff,
            updated => updated,
        }
    }
}

/// Folds a sum of 16-bit and 32-bit words to 16 bits, carries added back.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The checksum over whole data, as the number in network order; for building packets, not for forwarding them.
/// An odd last byte counts as if a zero byte followed.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    let mut high = true;
    for byte in parts.iter().flat_map(|part| part.iter()) {
        sum += (*byte as u64) << if high { 8 } else { 0 };
        high = !high;
    }
    !fold(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc_1624_section_4_example() {
        // The header checksum 0xDD2F, a field changed from 0x5555 to 0x3285: the checksum becomes 0x0000.
        assert_eq!(Delta::ZERO.replace16(0x5555, 0x3285).apply(0xdd2f), 0);
    }

    #[test]
    fn udp_zero_is_kept_and_never_made() {
        assert_eq!(Delta::ZERO.replace16(1, 2).apply_udp(0), 0);
        assert_eq!(Delta::ZERO.replace16(0x5555, 0x3285).apply_udp(0xdd2f), 0xffff);
    }

    proptest! {
        #[test]
        fn update_equals_recompute(
            mut data in proptest::collection::vec(any::<u8>(), 40..41),
            offset in (0usize..18).prop_map(|n| n * 2),
            value: u32,
            short: u16,
        ) {
            data[38] |= 1; // Not all zero: for that alone the two zeroes of ones' complement differ.
            let before = checksum(&[&data]).to_be_bytes();
            let old = u32::from_ne_bytes([data[offset], data[offset + 1], data[offset + 2], data[offset + 3]]);
            let old_short = u16::from_ne_bytes([data[36], data[37]]);
            data[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
            let old_short = if offset >= 33 { u16::from_ne_bytes([data[36], data[37]]) } else { old_short };
            data[36..38].copy_from_slice(&short.to_ne_bytes());
            let after = Delta::ZERO.replace32(old, value).replace16(old_short, short)
                .apply(u16::from_ne_bytes(before)).to_ne_bytes();
            prop_assert_eq!(u16::from_be_bytes(after), checksum(&[&data]));
        }

        #[test]
        fn what_comes_and_goes_counts_like_what_is_replaced(
            data in proptest::collection::vec(any::<u8>(), 24..25), more: [u32; 2], wide: u64,
        ) {
            prop_assume!(data[16..] != [0; 8]);
            let word = |at: usize| u32::from_ne_bytes(data[at..at + 4].try_into().unwrap());
            let long = u64::from_ne_bytes(data[8..16].try_into().unwrap());
            let before = u16::from_ne_bytes(checksum(&[&data]).to_be_bytes());
            let after = Delta::ZERO.without32(word(0)).without32(word(4)).without64(long)
                .with32(more[0]).with64(wide).with32(more[1]).apply(before);
            let parts: [&[u8]; 4] =
                [&more[0].to_ne_bytes(), &wide.to_ne_bytes(), &more[1].to_ne_bytes(), &data[16..]];
            prop_assert_eq!(u16::from_be_bytes(after.to_ne_bytes()), checksum(&parts));
        }

        #[test]
        fn an_error_survives_the_update(
            data in proptest::collection::vec(any::<u8>(), 8..9), wrong: u16, value: u16,
        ) {
            let right = u16::from_ne_bytes(checksum(&[&data]).to_be_bytes());
            prop_assume!(wrong != right && data[4..].iter().any(|byte| *byte != 0));
            prop_assume!((wrong, right) != (0, 0xffff) && (wrong, right) != (0xffff, 0));
            let old = u16::from_ne_bytes([data[0], data[1]]);
            let delta = Delta::ZERO.replace16(old, value);
            prop_assert_ne!(delta.apply(wrong), delta.apply(right));
        }
    }
}
