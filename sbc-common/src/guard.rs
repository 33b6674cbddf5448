//! What the guard in front of the SIP ports keeps: who a source is, who is denied until when, and the limits.
//!
//! A source is an IPv4 address or an IPv6 /64: whoever has one address of a /64 has all of them.

use crate::window::{Limit, Window};

/// An address of either family in 16 bytes, IPv4 as `::ffff:a.b.c.d` (RFC 4291 s.2.5.5.2): the data of a prefix.
pub type MappedAddress = [u8; 16];

/// Bits in front of an IPv4 prefix in a [`MappedAddress`].
pub const MAPPED_PREFIX_BITS: u32 = 96;

/// An IPv4 address in sixteen bytes.
#[inline(always)]
#[must_use]
pub const fn mapped([a, b, c, d]: [u8; 4]) -> MappedAddress {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// Bits of the realm in front of an address in a [`RealmAddress`].
pub const REALM_BITS: u32 = 32;

/// An address as it is known on one realm: the data of a prefix. An address of one network proves nothing on another.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RealmAddress {
    /// Number of the realm, network order: it is always compared as a whole.
    pub realm: [u8; 4],
    /// The address.
    pub address: MappedAddress,
}

impl RealmAddress {
    /// An address of a realm.
    #[inline(always)]
    #[must_use]
    pub const fn new(realm: u32, address: MappedAddress) -> Self {
        Self { realm: realm.to_be_bytes(), address }
    }
}

/// Value of a [`SipSocket`] whose realm is not known: there nobody is trusted.
pub const NO_REALM: u32 = u32::MAX;

/// Who is counted and denied: an IPv4 address, or the first half of an IPv6 address.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourceKey {
    /// Network order; of IPv4 the first four bytes, the rest zero.
    pub address: [u8; 8],
    /// 4 or 6.
    pub family: u8,
    /// Always zero.
    pub unused: [u8; 3],
}

impl SourceKey {
    /// An IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn v4([a, b, c, d]: [u8; 4]) -> Self {
        Self { address: [a, b, c, d, 0, 0, 0, 0], family: 4, unused: [0; 3] }
    }

    /// The /64 of an IPv6 address.
    #[inline(always)]
    #[must_use]
    pub const fn v6(prefix: [u8; 8]) -> Self {
        Self { address: prefix, family: 6, unused: [0; 3] }
    }
}

/// A SIP socket of ours. With port and protocol 0: that the address has any. Its value is the number of its realm.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SipSocket {
    /// Its address.
    pub address: MappedAddress,
    /// Its port, network order.
    pub port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Always zero.
    pub unused: u8,
}

impl SipSocket {
    /// A socket.
    #[inline(always)]
    #[must_use]
    pub const fn new(address: MappedAddress, port: u16, protocol: u8) -> Self {
        Self { address, port: port.to_be_bytes(), protocol, unused: 0 }
    }

    /// Any socket of an address.
    #[inline(always)]
    #[must_use]
    pub const fn any_of(address: MappedAddress) -> Self {
        Self::new(address, 0, 0)
    }
}

/// What one source did in its present windows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceWindows {
    /// Datagrams to SIP ports over UDP.
    pub datagrams: Window,
    /// Attempts to open a TCP connection to a SIP port.
    pub connections: Window,
    /// Other TCP segments to a SIP port.
    pub segments: Window,
}

impl SourceWindows {
    /// Position of `datagrams`, in windows.
    pub const DATAGRAMS: usize = 0;
    /// Position of `connections`.
    pub const CONNECTIONS: usize = 1;
    /// Position of `segments`.
    pub const SEGMENTS: usize = 2;
}

/// What all sources that are not trusted did together.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TotalWindows {
    /// Datagrams and connection attempts.
    pub arrivals: Window,
    /// Packets to a SIP address whose ports are not read: fragments, IP options, extension headers.
    pub fragments: Window,
}

impl TotalWindows {
    /// Position of `arrivals`, in windows.
    pub const ARRIVALS: usize = 0;
    /// Position of `fragments`.
    pub const FRAGMENTS: usize = 1;
}

/// Why a source is denied, by number: never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum DenyReason {
    /// It sent more than its limit.
    Flood = 1,
    /// What it sent is no SIP, or broken on purpose.
    Malformed = 2,
    /// It is a known scanner.
    Scanner = 3,
    /// It guessed at passwords.
    BruteForce = 4,
}

impl DenyReason {
    /// From its number.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Flood),
            2 => Some(Self::Malformed),
            3 => Some(Self::Scanner),
            4 => Some(Self::BruteForce),
            _ => None,
        }
    }
}

/// `scope` of a [`DenyEntry`]: SIP over every transport. For a source that has shown that the address is its own.
pub const SCOPE_ALL: u32 = 0;
/// `scope` of a [`DenyEntry`]: SIP over UDP. All that a datagram proves: its sender may be somebody else.
pub const SCOPE_UDP: u32 = 1;

/// A denied source.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DenyEntry {
    /// When it ends, nanoseconds of the monotonic clock; 0: never.
    pub until_ns: u64,
    /// When it began, milliseconds since 1970 UTC.
    pub since_unix_ms: u64,
    /// Packets dropped because of it. The kernel's.
    pub hits: u64,
    /// Number of a [`DenyReason`].
    pub reason: u32,
    /// [`SCOPE_ALL`] or [`SCOPE_UDP`].
    pub scope: u32,
}

/// How much the guard does: `level` of a [`GuardConfig`]. The block and deny lists and the look at the first bytes work
/// at every level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Level {
    /// Nothing is counted.
    #[default]
    None = 0,
    /// Sources that are not trusted are counted and held to their limits.
    AutoProtection = 1,
    /// Nobody is served but those on the allow list and the configured peers.
    AllowListOnly = 2,
}

/// The one entry of the guard's configuration.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuardConfig {
    /// Number of a [`Level`].
    pub level: u32,
    /// Datagrams of one source.
    pub datagrams: Limit,
    /// Connection attempts of one source.
    pub connections: Limit,
    /// TCP segments of one source.
    pub segments: Limit,
    /// Datagrams and connection attempts of all sources that are not trusted.
    pub total: Limit,
    /// Fragments and the like of all sources that are not trusted.
    pub fragments: Limit,
    /// Always zero.
    pub unused: [u8; 4],
}

/// Which limit was exceeded, by number: never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Exceeded {
    /// A source's datagrams.
    Datagrams = 1,
    /// A source's connection attempts.
    Connections = 2,
    /// A source's TCP segments.
    Segments = 3,
    /// All sources together. The source is the one that happened to come next.
    Total = 4,
    /// All sources' fragments. The source as above.
    Fragments = 5,
}

impl Exceeded {
    /// From its number.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Datagrams),
            2 => Some(Self::Connections),
            3 => Some(Self::Segments),
            4 => Some(Self::Total),
            5 => Some(Self::Fragments),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use core::mem::{align_of, offset_of, size_of};

    use super::*;

    #[test]
    fn layout_is_locked() {
        assert_eq!((size_of::<SourceKey>(), align_of::<SourceKey>()), (12, 4));
        assert_eq!((offset_of!(SourceKey, address), offset_of!(SourceKey, family)), (0, 8));
        assert_eq!((size_of::<SipSocket>(), align_of::<SipSocket>()), (20, 4));
        assert_eq!((offset_of!(SipSocket, port), offset_of!(SipSocket, protocol)), (16, 18));
        assert_eq!(size_of::<SourceWindows>(), 24);
        assert_eq!(
            (
                offset_of!(SourceWindows, datagrams),
                offset_of!(SourceWindows, connections),
                offset_of!(SourceWindows, segments)
            ),
            (SourceWindows::DATAGRAMS * 8, SourceWindows::CONNECTIONS * 8, SourceWindows::SEGMENTS * 8)
        );
        assert_eq!(size_of::<TotalWindows>(), 16);
        assert_eq!(
            (offset_of!(TotalWindows, arrivals), offset_of!(TotalWindows, fragments)),
            (TotalWindows::ARRIVALS * 8, TotalWindows::FRAGMENTS * 8)
        );
        assert_eq!((size_of::<RealmAddress>(), align_of::<RealmAddress>()), (20, 1));
        assert_eq!((offset_of!(RealmAddress, realm), offset_of!(RealmAddress, address)), (0, 4));
        assert_eq!((size_of::<DenyEntry>(), align_of::<DenyEntry>()), (32, 8));
        assert_eq!(
            (
                offset_of!(DenyEntry, until_ns),
                offset_of!(DenyEntry, since_unix_ms),
                offset_of!(DenyEntry, hits),
                offset_of!(DenyEntry, reason),
                offset_of!(DenyEntry, scope)
            ),
            (0, 8, 16, 24, 28)
        );
        assert_eq!((size_of::<GuardConfig>(), align_of::<GuardConfig>()), (48, 4));
        assert_eq!(
            (
                offset_of!(GuardConfig, datagrams),
                offset_of!(GuardConfig, connections),
                offset_of!(GuardConfig, segments),
                offset_of!(GuardConfig, total),
                offset_of!(GuardConfig, fragments),
                offset_of!(GuardConfig, unused)
            ),
            (4, 12, 20, 28, 36, 44)
        );
    }

    #[test]
    fn families_never_meet() {
        assert_ne!(SourceKey::v4([32, 1, 13, 184]), SourceKey::v6([32, 1, 13, 184, 0, 0, 0, 0]));
        assert_eq!(mapped([192, 0, 2, 7])[10..], [0xff, 0xff, 192, 0, 2, 7]);
    }

    #[test]
    fn numbers_are_read_back() {
        for number in 0..8 {
            assert!(DenyReason::from_number(number).is_none_or(|reason| reason as u32 == number));
            assert!(Exceeded::from_number(number).is_none_or(|exceeded| exceeded as u32 == number));
        }
        assert_eq!(DenyReason::from_number(DenyReason::Flood as u32), Some(DenyReason::Flood));
        assert_eq!(Exceeded::from_number(Exceeded::Fragments as u32), Some(Exceeded::Fragments));
    }
}
