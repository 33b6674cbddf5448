//! Keys of the guard's maps, put together in whole words.
//!
//! The kernel reads a key by words as soon as it is written. Where it was written by bytes, each of these reads waits until
//! the bytes have arrived in the cache; and of a key made of bytes the compiler writes bytes.

use core::mem::ManuallyDrop;

use aya_ebpf::btf_maps::lpm_trie;
use sbc_common::guard::{MappedAddress, REALM_BITS, RealmAddress, SipSocket, SourceKey};

/// A [`MappedAddress`], in words as they lie in memory.
pub type AddressWords = [u32; 4];

/// A key of `N` words.
pub union Key<const N: usize, T> {
    words: [u32; N],
    key: ManuallyDrop<T>,
}

impl<const N: usize, T> Key<N, T> {
    #[inline(always)]
    const fn of_words(words: [u32; N]) -> Self {
        const { assert!(size_of::<T>() == 4 * N && align_of::<T>() <= 4) };
        Self { words }
    }

    /// As the map takes it.
    #[inline(always)]
    pub fn as_key(&self) -> &T {
        // SAFETY: only the functions below make one, of types that are integers and arrays of integers without padding and
        // as long as the words, all of which are written.
        unsafe { &self.key }
    }
}

/// The key of [`SourceKey`]s.
pub type Source = Key<3, SourceKey>;

/// An IPv4 address, as [`SourceKey::v4`].
#[inline(always)]
pub fn source_v4(address: u32) -> Source {
    Key::of_words([address, 0, u32::from_ne_bytes([4, 0, 0, 0])])
}

/// The /64 of an IPv6 address, as [`SourceKey::v6`].
#[inline(always)]
pub fn source_v6([first, second, ..]: AddressWords) -> Source {
    Key::of_words([first, second, u32::from_ne_bytes([6, 0, 0, 0])])
}

/// A [`SipSocket`]; the port in network order.
#[inline(always)]
pub fn socket([a, b, c, d]: AddressWords, port: [u8; 2], protocol: u8) -> Key<5, SipSocket> {
    let [high, low] = port;
    Key::of_words([a, b, c, d, u32::from_ne_bytes([high, low, protocol, 0])])
}

/// An address on the block list.
#[inline(always)]
pub fn blocked([a, b, c, d]: AddressWords) -> Key<5, lpm_trie::Key<MappedAddress>> {
    Key::of_words([128, a, b, c, d])
}

/// An address of a realm, among those who are trusted.
#[inline(always)]
pub fn trusted(realm: u32, [a, b, c, d]: AddressWords) -> Key<6, lpm_trie::Key<RealmAddress>> {
    Key::of_words([REALM_BITS + 128, realm.to_be(), a, b, c, d])
}

/// An address by its bytes.
#[inline(always)]
pub fn bytes(words: AddressWords) -> MappedAddress {
    let [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]] = words.map(u32::to_ne_bytes);
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

#[cfg(test)]
mod tests {
    use super::*;
    use sbc_common::guard::mapped;

    fn words([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]: MappedAddress) -> AddressWords {
        [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]].map(u32::from_ne_bytes)
    }

    #[test]
    fn keys_are_those_of_the_daemon() {
        let address = mapped([192, 0, 2, 7]);
        let v6 = [0x20, 1, 0xd, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        assert_eq!(bytes(words(v6)), v6);
        let v4 = u32::from_ne_bytes([192, 0, 2, 7]);
        assert_eq!(*source_v4(v4).as_key(), SourceKey::v4([192, 0, 2, 7]));
        assert_eq!(*source_v6(words(v6)).as_key(), SourceKey::v6([0x20, 1, 0xd, 0xb8, 1, 2, 3, 4]));
        let port = 5060_u16.to_be_bytes();
        assert_eq!(*socket(words(address), port, 17).as_key(), SipSocket::new(address, 5060, 17));
        let prefix = blocked(words(v6));
        let (bits, data) = (prefix.as_key().prefix_len, prefix.as_key().data);
        assert_eq!((bits, data), (128, v6));
        let prefix = trusted(3, words(v6));
        let (bits, data) = (prefix.as_key().prefix_len, prefix.as_key().data);
        assert_eq!((bits, data), (160, RealmAddress::new(3, v6)));
    }
}
