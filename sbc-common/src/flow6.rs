//! The flow slot of an IPv6 port of ours: two cache lines, one writer per field. What its fields mean is as in
//! [`crate::flow`], but for what an address of 16 bytes makes different:
//!
//! * An address and a port do not fit a word, so a claim has three steps. The first packet that may claim changes
//!   `claim` from what it was to (tag, `Claiming`) by compare-and-exchange; it alone writes `learned_source`; then it
//!   stores (tag, `Claimed`). Packets that come between are dropped: there are a few of them at most.
//! * A claim writes nothing into the partner. A flow whose partner may be claimed has the flag
//!   [`crate::flow::FlowHead::FOLLOWS_PARTNER`] and reads the partner's learned source itself.
//!
//! With way `V4` (IPv6 in, IPv4 out) `partner` is in `FLOWS`, and the destination is an IPv4-mapped address
//! (RFC 4291 section 2.5.5.2). Way `Local` is not served over IPv6: such a packet is dropped as one of a bad slot, and the
//! daemon lets the relay carry these streams.

use crate::flow::FlowHead;

/// The words of an address, a port and what stands beside it.
#[inline(always)]
const fn words(address: [u8; 16], last: [u8; 8]) -> [u64; 3] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    [
        u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
        u64::from_ne_bytes(last),
    ]
}

/// The address in two words.
#[inline(always)]
const fn address(high: u64, low: u64) -> [u8; 16] {
    let ([a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]) = (high.to_ne_bytes(), low.to_ne_bytes());
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

/// From where packets are accepted, or who may claim a slot.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Allowed6 {
    /// The address, network order.
    pub address: [u8; 16],
    /// The port, network order. 0 allows any port in `Learning`, and nobody in `Latched`.
    pub port: [u8; 2],
    /// In `Learning`: so many leading bits of the address must be equal; 128 is this address, 0 is any.
    pub prefix: u8,
    /// Always zero.
    pub unused: [u8; 5],
}

impl Allowed6 {
    /// Nobody.
    pub const NOBODY: Self = Self::exactly(Endpoint6::NONE);

    /// One endpoint.
    pub const fn exactly(endpoint: Endpoint6) -> Self {
        Self { address: endpoint.address, port: endpoint.port, prefix: 128, unused: [0; 5] }
    }

    /// Any port of the addresses that begin with so many bits of this one.
    pub const fn any_port(address: [u8; 16], prefix: u8) -> Self {
        Self { address, port: [0; 2], prefix, unused: [0; 5] }
    }

    /// As the words in the map.
    #[inline(always)]
    pub const fn to_words(self) -> [u64; 3] {
        let [a, b] = self.port;
        words(self.address, [a, b, self.prefix, 0, 0, 0, 0, 0])
    }

    /// From the words in the map.
    #[inline(always)]
    pub const fn from_words([high, low, last]: [u64; 3]) -> Self {
        let [a, b, prefix, ..] = last.to_ne_bytes();
        Self { address: address(high, low), port: [a, b], prefix, unused: [0; 5] }
    }
}

/// Whether a source may claim a slot in `Learning`; both as their words in the map.
///
/// Nobody may who cannot be answered: port 0, multicast, and what begins with 64 zero bits (unspecified, loopback,
/// IPv4-mapped).
/// A link-local source may only if the prefix says so, because its address means something on its own link only.
#[inline(always)]
pub const fn may_claim(expected: [u64; 3], source: [u64; 3]) -> bool {
    let ([port, port_low, prefix, ..], [first, second, ..]) =
        (expected[2].to_ne_bytes(), source[0].to_ne_bytes());
    let link_local = first == 0xfe && second & 0xc0 == 0x80;
    if source[0] == 0 || first == 0xff || link_local && prefix < 10 || port_of(source[2]) == 0 {
        return false;
    }
    let port = u16::from_ne_bytes([port, port_low]);
    let (high, low) = (leading_ones(prefix), leading_ones(prefix.saturating_sub(64)));
    (expected[0] ^ source[0]) & high == 0
        && (expected[1] ^ source[1]) & low == 0
        && (port == 0 || port == port_of(source[2]))
}

/// The port in the last word of an endpoint, as it lies in memory.
#[inline(always)]
pub const fn port_of(word: u64) -> u16 {
    let [a, b, ..] = word.to_ne_bytes();
    u16::from_ne_bytes([a, b])
}

/// A word in network order whose first so many bits are ones; 64 and more are all.
#[inline(always)]
const fn leading_ones(bits: u8) -> u64 {
    match bits {
        0 => 0,
        1..=63 => (u64::MAX << (64 - bits)).to_be(),
        64.. => u64::MAX,
    }
}

/// Where packets go and how they are marked, as signalled. Port 0: not known yet.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Target6 {
    /// The address, network order.
    pub address: [u8; 16],
    /// The port, network order.
    pub port: [u8; 2],
    /// DSCP to send with, 0 to 63. The ECN bits of the packet stay.
    pub dscp: u8,
    /// Hop limit or TTL to send with: we originate the packet.
    pub ttl: u8,
    /// Always zero.
    pub unused: [u8; 4],
}

impl Target6 {
    /// An endpoint, and how to mark what is sent there.
    pub const fn new(endpoint: Endpoint6, dscp: u8, ttl: u8) -> Self {
        Self { address: endpoint.address, port: endpoint.port, dscp, ttl, unused: [0; 4] }
    }

    /// As the words in the map.
    #[inline(always)]
    pub const fn to_words(self) -> [u64; 3] {
        let [a, b] = self.port;
        words(self.address, [a, b, self.dscp, self.ttl, 0, 0, 0, 0])
    }

    /// From the words in the map.
    #[inline(always)]
    pub const fn from_words([high, low, last]: [u64; 3]) -> Self {
        let [a, b, dscp, ttl, ..] = last.to_ne_bytes();
        Self { address: address(high, low), port: [a, b], dscp, ttl, unused: [0; 4] }
    }

    /// The endpoint alone.
    #[inline(always)]
    pub const fn endpoint(self) -> Endpoint6 {
        Endpoint6 { address: self.address, port: self.port, unused: [0; 6] }
    }
}

/// How far the claim of a slot is.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ClaimPhase {
    /// Nobody has claimed.
    #[default]
    Open = 0,
    /// Somebody writes `learned_source`.
    Claiming = 1,
    /// `learned_source` is whole.
    Claimed = 2,
}

/// Who may write, or has written, `learned_source`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Claim {
    /// Number of the generation that it belongs to; in any other it says nothing.
    pub tag: u16,
    /// How far it is.
    pub phase: ClaimPhase,
    /// Always zero.
    pub unused: [u8; 5],
}

impl Claim {
    /// So far, in a generation.
    #[inline(always)]
    pub const fn new(tag: u16, phase: ClaimPhase) -> Self {
        Self { tag, phase, unused: [0; 5] }
    }

    /// As the word in the map.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        let [a, b] = self.tag.to_ne_bytes();
        u64::from_ne_bytes([a, b, self.phase as u8, 0, 0, 0, 0, 0])
    }

    /// How far the claim in a word is in a generation. A phase that this version does not know is one that is not over.
    #[inline(always)]
    pub const fn phase_in(word: u64, tag: u16) -> ClaimPhase {
        let [a, b, phase, ..] = word.to_ne_bytes();
        if u16::from_ne_bytes([a, b]) != tag || tag == 0 {
            return ClaimPhase::Open;
        }
        match phase {
            0 => ClaimPhase::Open,
            2 => ClaimPhase::Claimed,
            _ => ClaimPhase::Claiming,
        }
    }
}

/// An address and a port.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Endpoint6 {
    /// The address, network order.
    pub address: [u8; 16],
    /// The port, network order.
    pub port: [u8; 2],
    /// Always zero.
    pub unused: [u8; 6],
}

impl Endpoint6 {
    /// No address, no port.
    pub const NONE: Self = Self { address: [0; 16], port: [0; 2], unused: [0; 6] };

    /// From an address in network order and a port number.
    pub const fn new(address: [u8; 16], port: u16) -> Self {
        Self { address, port: port.to_be_bytes(), unused: [0; 6] }
    }

    /// The port as a number.
    pub const fn port(self) -> u16 {
        u16::from_be_bytes(self.port)
    }

    /// As the words in the map.
    #[inline(always)]
    pub const fn to_words(self) -> [u64; 3] {
        let [a, b] = self.port;
        words(self.address, [a, b, 0, 0, 0, 0, 0, 0])
    }

    /// From the words in the map; whatever is beside address and port is ignored.
    #[inline(always)]
    pub const fn from_words([high, low, last]: [u64; 3]) -> Self {
        let [a, b, ..] = last.to_ne_bytes();
        Self { address: address(high, low), port: [a, b], unused: [0; 6] }
    }
}

/// One IPv6 port of ours: 128 bytes. The first cache line decides whether a packet is accepted from a signalled peer and
/// where it goes.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowSlot6 {
    /// Daemon; published last.
    pub head: FlowHead,
    /// Daemon: from where packets are accepted, or may claim the slot.
    pub expected: Allowed6,
    /// Daemon: where packets go, unless the partner learned another destination.
    pub destination: Target6,
    /// Kernel, by compare-and-exchange.
    pub claim: Claim,
    /// Kernel, whoever made the claim: the source that claimed this slot.
    pub learned_source: Endpoint6,
    /// Daemon: index of the slot for the other direction; its port and address are what packets leave from.
    pub partner: u32,
    /// Kernel: when the last packet was forwarded, in [`crate::flow::TICK_NS`].
    pub last_seen: u32,
    /// Kernel: packets forwarded since the slot exists. Never reset: a reader takes differences.
    pub packets: u64,
    /// Kernel: bytes of UDP payload forwarded since the slot exists.
    pub bytes: u64,
    /// Always zero.
    pub unused: [u64; 2],
}

impl FlowSlot6 {
    /// Words in a slot.
    pub const WORDS: usize = 16;
    /// Word of `head`.
    pub const HEAD: usize = 0;
    /// First of the three words of `expected`.
    pub const EXPECTED: usize = 1;
    /// First of the three words of `destination`.
    pub const DESTINATION: usize = 4;
    /// Word of `claim`.
    pub const CLAIM: usize = 7;
    /// First of the three words of `learned_source`.
    pub const LEARNED_SOURCE: usize = 8;
    /// Word of `partner` (its first half in memory) and `last_seen`.
    pub const PARTNER: usize = 11;
    /// Word of `packets`.
    pub const PACKETS: usize = 12;
    /// Word of `bytes`.
    pub const BYTES: usize = 13;

    /// As it lies in the map.
    pub const fn to_words(&self) -> [u64; Self::WORDS] {
        let [a, b, c] = self.expected.to_words();
        let [d, e, f] = self.destination.to_words();
        let [g, h, i] = self.learned_source.to_words();
        let ([j, k, l, m], [n, o, p, q]) = (self.partner.to_ne_bytes(), self.last_seen.to_ne_bytes());
        let partner = u64::from_ne_bytes([j, k, l, m, n, o, p, q]);
        let (head, claim) = (self.head.to_word(), self.claim.to_word());
        [head, a, b, c, d, e, f, claim, g, h, i, partner, self.packets, self.bytes, 0, 0]
    }

    /// From the words in the map; `None` if the head holds a number that this version does not know.
    pub const fn from_words(words: [u64; Self::WORDS]) -> Option<Self> {
        let [head, a, b, c, d, e, f, claim, g, h, i, partner, packets, bytes, ..] = words;
        let Some(head) = FlowHead::from_word(head) else { return None };
        let [j, k, l, m, n, o, p, q] = partner.to_ne_bytes();
        let [r, s, ..] = claim.to_ne_bytes();
        let tag = u16::from_ne_bytes([r, s]);
        Some(Self {
            head,
            expected: Allowed6::from_words([a, b, c]),
            destination: Target6::from_words([d, e, f]),
            claim: Claim::new(tag, Claim::phase_in(claim, tag)),
            learned_source: Endpoint6::from_words([g, h, i]),
            partner: u32::from_ne_bytes([j, k, l, m]),
            last_seen: u32::from_ne_bytes([n, o, p, q]),
            packets,
            bytes,
            unused: [0; 2],
        })
    }

    /// The learned source, if it belongs to the slot's present flow and is whole.
    pub fn source(&self) -> Option<Endpoint6> {
        let claimed = Claim::phase_in(self.claim.to_word(), self.head.generation) == ClaimPhase::Claimed;
        claimed.then_some(self.learned_source)
    }

    /// Whether a number occurs in this slot: as its generation's or as a claim's tag.
    pub const fn has_tag(&self, tag: u16) -> bool {
        self.head.generation == tag || self.claim.tag == tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::{align_of, offset_of, size_of};

    #[test]
    fn layout_is_locked() {
        assert_eq!((size_of::<FlowSlot6>(), align_of::<FlowSlot6>()), (128, 64));
        let words = |offset: usize| offset / 8;
        assert_eq!(words(offset_of!(FlowSlot6, head)), FlowSlot6::HEAD);
        assert_eq!(words(offset_of!(FlowSlot6, expected)), FlowSlot6::EXPECTED);
        assert_eq!(words(offset_of!(FlowSlot6, destination)), FlowSlot6::DESTINATION);
        assert_eq!(words(offset_of!(FlowSlot6, claim)), FlowSlot6::CLAIM);
        assert_eq!(words(offset_of!(FlowSlot6, learned_source)), FlowSlot6::LEARNED_SOURCE);
        assert_eq!(words(offset_of!(FlowSlot6, partner)), FlowSlot6::PARTNER);
        assert_eq!(words(offset_of!(FlowSlot6, packets)), FlowSlot6::PACKETS);
        assert_eq!(words(offset_of!(FlowSlot6, bytes)), FlowSlot6::BYTES);
        assert_eq!((size_of::<Allowed6>(), size_of::<Target6>(), size_of::<Endpoint6>()), (24, 24, 24));
        assert_eq!((offset_of!(Allowed6, port), offset_of!(Allowed6, prefix)), (16, 18));
        assert_eq!(
            (offset_of!(Target6, port), offset_of!(Target6, dscp), offset_of!(Target6, ttl)),
            (16, 18, 19)
        );
        assert_eq!((offset_of!(Endpoint6, port), size_of::<Claim>(), offset_of!(Claim, phase)), (16, 8, 2));
    }

    #[test]
    fn a_slot_survives_its_words() {
        let address = |last| [0x20, 1, 0xd, 0xb8, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, last];
        let slot = FlowSlot6 {
            head: FlowHead { next_hop: 3, generation: 9, ..FlowHead::default() },
            expected: Allowed6 { port: [1, 2], ..Allowed6::any_port(address(1), 64) },
            destination: Target6::new(Endpoint6::new(address(2), 4000), 46, 64),
            claim: Claim::new(9, ClaimPhase::Claimed),
            learned_source: Endpoint6::new(address(3), 5000),
            partner: 0x0001_4e20,
            last_seen: 7,
            packets: 8,
            bytes: 10,
            unused: [0; 2],
        };
        assert_eq!(FlowSlot6::from_words(slot.to_words()), Some(slot));
        assert_eq!(slot.source(), Some(slot.learned_source));
        assert!(slot.has_tag(9) && !slot.has_tag(8));
        let later = FlowSlot6 { head: FlowHead { generation: 10, ..slot.head }, ..slot };
        assert_eq!(later.source(), None);
        // SAFETY: 128 bytes without padding.
        let words: [u64; FlowSlot6::WORDS] = unsafe { core::mem::transmute(slot) };
        assert_eq!(slot.to_words(), words);
    }

    #[test]
    fn who_may_claim_is_a_prefix_and_perhaps_a_port() {
        let own = 0x2001_0db8_0102_0304_8506_0708_090a_0b0c_u128;
        let may = |allowed: Allowed6, address: u128, port| {
            may_claim(allowed.to_words(), Endpoint6::new(address.to_be_bytes(), port).to_words())
        };
        for prefix in 3..=128 {
            let allowed = Allowed6::any_port(own.to_be_bytes(), prefix);
            for bit in 3..128 {
                let other = own ^ 1 << (127 - bit);
                assert_eq!(may(allowed, other, 9), bit >= prefix, "/{prefix}, bit {bit}");
            }
            assert!(may(allowed, own, 9));
        }
        assert!(may(Allowed6::any_port([0; 16], 0), own, 1));
        let one_port = Allowed6 { port: 99u16.to_be_bytes(), ..Allowed6::any_port(own.to_be_bytes(), 64) };
        assert_eq!([98, 99].map(|port| may(one_port, own ^ 1, port)), [false, true]);
    }

    #[test]
    fn who_cannot_be_answered_cannot_claim() {
        let claims_from = |port, text: u128, prefix| {
            let allowed = Allowed6::any_port(text.to_be_bytes(), prefix);
            may_claim(allowed.to_words(), Endpoint6::new(text.to_be_bytes(), port).to_words())
        };
        let claims = |text, prefix| claims_from(9, text, prefix);
        assert!(claims(0xfd00 << 112 | 1, 0) && !claims_from(0, 0xfd00 << 112 | 1, 0));
        for address in [0, 1, 0xffff_c000_0201, 0xff02 << 112 | 1] {
            assert!(!claims(address, 0) && !claims(address, 128), "{address:x}");
        }
        let link_local = 0xfe80 << 112 | 7;
        assert!(!claims(link_local, 0) && claims(link_local, 64) && claims(link_local, 128));
    }

    #[test]
    fn a_claim_counts_in_its_generation_only() {
        let claim = |tag, phase| Claim { tag, phase, unused: [0; 5] }.to_word();
        assert_eq!(Claim::phase_in(0, 0), ClaimPhase::Open);
        assert_eq!(Claim::phase_in(claim(0, ClaimPhase::Claimed), 0), ClaimPhase::Open);
        assert_eq!(Claim::phase_in(claim(7, ClaimPhase::Claimed), 7), ClaimPhase::Claimed);
        assert_eq!(Claim::phase_in(claim(7, ClaimPhase::Claiming), 7), ClaimPhase::Claiming);
        assert_eq!(Claim::phase_in(claim(7, ClaimPhase::Claimed), 8), ClaimPhase::Open);
    }
}
