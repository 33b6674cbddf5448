//! The flow slot: one port of ours, one cache line, one writer per field.
//!
//! A slot belongs to the packets that *arrive* on its port. It says from where they are accepted (`expected`,
//! `learned_source`), where they go (`destination`, `learned_destination`) and, through `partner`, which address and
//! port of ours they leave from.
//!
//! ```text
//!             daemon publishes                 daemon publishes
//!   Idle ───────────────────────▶ Learning ───────────────────────▶ Latched
//!    ▲  └───────────────────────────────────────────────────────────▶ │
//!    └──────────────────────── daemon withdraws ──────────────────────┘      Relay: every packet goes up
//! ```
//!
//! `state` is the daemon's alone. In `Learning` the first valid packet from the allowed source claims the slot by
//! writing `learned_source`; from then on only that source is accepted, whether or not the daemon has published
//! `Latched` by then. `Latched` without a learned source accepts `expected` exactly.
//!
//! A learned word counts only while its tag equals the generation's. The daemon gives partners the same generation,
//! and chooses it so that its tag is new to both slots ([`Generation::next_for`]); so a word that an earlier flow
//! left, or that a packet of it still writes, never counts.
//!
//! RTP and RTCP on one port (RFC 5761): the slot's `kind` is `Muxed`. What arrives there as RTCP is accepted by this slot,
//! but leaves by the next one: its `destination`, `learned_destination`, `partner`, next hop and counters, which is why
//! its `state` is `Muxed`. A claim tells the other side's slots that send to the claimed port: the one whose port is even
//! like its own, or odd like its own; both if the claimed port is muxed.
//!
//! To publish: while `state` is Idle write `expected`, `destination`, `partner`; then word 0 in one release store.
//! To withdraw: store word 0 with Idle and the same generation.

use crate::addr::Endpoint;

/// What the kernel does with packets that arrive on a port of ours.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FlowState {
    /// No flow: the packet is dropped.
    #[default]
    Idle = 0,
    /// Forwarded; the first valid packet from the allowed source claims the slot.
    Learning = 1,
    /// Forwarded; accepted from the learned source if there is one, else from the expected one.
    Latched = 2,
    /// The userspace relay serves this port: every packet passes.
    Relay = 3,
    /// The way out of RTCP that arrives on the port before. What arrives on this port itself is dropped.
    Muxed = 4,
}

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// RTP.
    Rtp,
    /// RTCP.
    Rtcp,
}

/// What a port of ours carries.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PortKind {
    /// RTP.
    #[default]
    Rtp = 0,
    /// RTCP.
    Rtcp = 1,
    /// RTP and RTCP (RFC 5761).
    Muxed = 2,
}

impl From<MediaKind> for PortKind {
    #[inline(always)]
    fn from(kind: MediaKind) -> Self {
        match kind {
            MediaKind::Rtp => Self::Rtp,
            MediaKind::Rtcp => Self::Rtcp,
        }
    }
}

/// Where a flow's packets go.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Way {
    /// To an IPv4 peer. The partner is a slot of `FLOWS`.
    #[default]
    V4 = 0,
    /// To an IPv6 peer. The partner is a slot of `FLOWS6`.
    V6 = 1,
    /// To a port of ours, which is the other party's way in: the packet goes on in the slot of that port as if it had
    /// arrived there, from the address and port that it would have left from. `next_hop` is the address slot of the
    /// destination.
    Local = 2,
}

/// Position of a slot in the table: address slot and local port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotIndex(pub u32);

impl SlotIndex {
    /// The slot of a local port on one of our addresses.
    #[inline(always)]
    pub const fn new(address_slot: u16, port: u16) -> Self {
        Self((address_slot as u32) << 16 | port as u32)
    }

    /// Index into the table of our addresses.
    #[inline(always)]
    pub const fn address_slot(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The local port.
    #[inline(always)]
    pub const fn port(self) -> u16 {
        self.0 as u16
    }
}

/// Numbers the flows that a slot has held. Never 0, because a fresh slot is all zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Generation(u16);

impl Generation {
    /// The first one.
    pub const FIRST: Self = Self(1);

    /// A number as a generation, unless it is 0.
    pub const fn new(number: u16) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// The number, which is also what stamps a learned word.
    #[inline(always)]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The next generation whose tag occurs in neither of the two slots.
    ///
    /// A slot holds three tags at most (its present generation's and its two learned words'), so at most six numbers
    /// and the zero tag are skipped.
    pub fn next_for(self, slots: [&FlowSlot; 2]) -> Self {
        self.next_unless(|number| slots.iter().any(|slot| slot.has_tag(number)))
    }

    /// The next generation whose number is not taken, of which there may be few.
    pub fn next_unless(self, taken: impl Fn(u16) -> bool) -> Self {
        let mut number = self.0;
        loop {
            number = number.wrapping_add(1);
            if number != 0 && !taken(number) {
                return Self(number);
            }
        }
    }
}

/// Word 0: what is published last, in one store. A word of zeroes is Idle.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowHead {
    /// What to do with packets.
    pub state: FlowState,
    /// What the port carries.
    pub kind: PortKind,
    /// Index of the next hop towards the destination; 0 is none.
    pub next_hop: u16,
    /// Number of the flow, see [`Generation`].
    pub generation: u16,
    /// Where packets go.
    pub way: Way,
    /// [`FlowHead::FOLLOWS_PARTNER`] or 0.
    pub flags: u8,
}

impl FlowHead {
    /// The destination is the partner's learned source, as soon as it has one. Only where one of the two is in `FLOWS6`:
    /// between slots of `FLOWS` a claim writes `learned_destination`.
    pub const FOLLOWS_PARTNER: u8 = 1;

    /// As the word in the map.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        let ([a, b], [c, d]) = (self.next_hop.to_ne_bytes(), self.generation.to_ne_bytes());
        u64::from_ne_bytes([self.state as u8, self.kind as u8, a, b, c, d, self.way as u8, self.flags])
    }

    /// From a word; `None` if state, kind or way is a number that this version does not know.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Option<Self> {
        let [state, kind, a, b, c, d, way, flags] = word.to_ne_bytes();
        let state = match state {
            0 => FlowState::Idle,
            1 => FlowState::Learning,
            2 => FlowState::Latched,
            3 => FlowState::Relay,
            4 => FlowState::Muxed,
            _ => return None,
        };
        let kind = match kind {
            0 => PortKind::Rtp,
            1 => PortKind::Rtcp,
            2 => PortKind::Muxed,
            _ => return None,
        };
        let way = match way {
            0 => Way::V4,
            1 => Way::V6,
            2 => Way::Local,
            _ => return None,
        };
        let (next_hop, generation) = (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]));
        Some(Self { state, kind, next_hop, generation, way, flags })
    }
}

/// From where packets are accepted, or who may claim a slot.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Allowed {
    /// The address, network order.
    pub address: [u8; 4],
    /// The port, network order. 0 allows any port in `Learning`, and nobody in `Latched`.
    pub port: [u8; 2],
    /// In `Learning`: so many leading bits of the address must be equal; 32 is this address, 0 is any.
    pub prefix: u8,
    /// Always zero.
    pub unused: u8,
}

impl Allowed {
    /// Nobody.
    pub const NOBODY: Self = Self::exactly(Endpoint::NONE);

    /// One endpoint.
    pub const fn exactly(endpoint: Endpoint) -> Self {
        Self { address: endpoint.address, port: endpoint.port, prefix: 32, unused: 0 }
    }

    /// Any port of the addresses that begin with so many bits of this one.
    pub const fn any_port(address: [u8; 4], prefix: u8) -> Self {
        Self { address, port: [0; 2], prefix, unused: 0 }
    }

    /// Whether a source may claim a slot in `Learning`.
    ///
    /// Nobody may who cannot be answered: port 0, "this network", loopback, multicast and all above it.
    #[inline(always)]
    pub const fn may_claim(self, source: Endpoint) -> bool {
        if matches!(source.address[0], 0 | 127 | 224..) || u16::from_ne_bytes(source.port) == 0 {
            return false;
        }
        // In 64 bits, where a shift by 32 is one.
        let beyond = if self.prefix > 32 { 0 } else { 32 - self.prefix as u64 };
        let compared = (u32::MAX as u64) >> beyond << beyond;
        let differs = u32::from_be_bytes(self.address) ^ u32::from_be_bytes(source.address);
        let port = u16::from_ne_bytes(self.port);
        differs as u64 & compared == 0 && (port == 0 || port == u16::from_ne_bytes(source.port))
    }

    /// As the word in the map.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        let ([a, b, c, d], [e, f]) = (self.address, self.port);
        u64::from_ne_bytes([a, b, c, d, e, f, self.prefix, 0])
    }

    /// From the word in the map.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        let [a, b, c, d, e, f, prefix, _] = word.to_ne_bytes();
        Self { address: [a, b, c, d], port: [e, f], prefix, unused: 0 }
    }
}

/// Where packets go and how they are marked, as signalled. Port 0: not known yet.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Target {
    /// The address, network order.
    pub address: [u8; 4],
    /// The port, network order.
    pub port: [u8; 2],
    /// DSCP to send with, 0 to 63. The ECN bits of the packet stay.
    pub dscp: u8,
    /// TTL to send with: we originate the packet.
    pub ttl: u8,
}

impl Target {
    /// An endpoint, and how to mark what is sent there.
    pub const fn new(endpoint: Endpoint, dscp: u8, ttl: u8) -> Self {
        Self { address: endpoint.address, port: endpoint.port, dscp, ttl }
    }

    /// As the word in the map.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        let ([a, b, c, d], [e, f]) = (self.address, self.port);
        u64::from_ne_bytes([a, b, c, d, e, f, self.dscp, self.ttl])
    }

    /// From the word in the map.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        let [a, b, c, d, e, f, dscp, ttl] = word.to_ne_bytes();
        Self { address: [a, b, c, d], port: [e, f], dscp, ttl }
    }

    /// The endpoint alone.
    #[inline(always)]
    pub const fn endpoint(self) -> Endpoint {
        Endpoint { address: self.address, port: self.port, unused: [0; 2] }
    }
}

/// An endpoint that the kernel learned, stamped with the generation that it belongs to.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Learned {
    /// The address, network order.
    pub address: [u8; 4],
    /// The port, network order.
    pub port: [u8; 2],
    /// [`Generation::number`] of the flow; in any other generation the word is void. 0: nothing was ever learned.
    pub tag: u16,
}

impl Learned {
    /// An endpoint and its tag.
    #[inline(always)]
    pub const fn new(endpoint: Endpoint, tag: u16) -> Self {
        Self { address: endpoint.address, port: endpoint.port, tag }
    }

    /// As the word in the map.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        let ([a, b, c, d], [e, f], [g, h]) = (self.address, self.port, self.tag.to_ne_bytes());
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    }

    /// From the word in the map.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
        Self { address: [a, b, c, d], port: [e, f], tag: u16::from_ne_bytes([g, h]) }
    }

    /// The endpoint, if it was learned in this generation.
    #[inline(always)]
    pub const fn endpoint(self, tag: u16) -> Option<Endpoint> {
        if self.tag == tag && tag != 0 {
            Some(Endpoint { address: self.address, port: self.port, unused: [0; 2] })
        } else {
            None
        }
    }
}

/// One port of ours: 64 bytes, one cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowSlot {
    /// Daemon; published last.
    pub head: FlowHead,
    /// Daemon: from where packets are accepted, or may claim the slot.
    pub expected: Allowed,
    /// Daemon: where packets go, unless another destination was learned. With way `V6` the address is the cold slot's
    /// `destination6`.
    pub destination: Target,
    /// Kernel, by compare-and-exchange: the source that claimed this slot.
    pub learned_source: Learned,
    /// Kernel: the source that claimed the partner, which is where packets of this slot go.
    pub learned_destination: Learned,
    /// Daemon: index of the slot for the other direction; its port and address are what packets leave from.
    pub partner: u32,
    /// Kernel: when the last packet was forwarded, in [`TICK_NS`]; up to a timer interrupt late, wraps after 52 days.
    pub last_seen: u32,
    /// Kernel: packets forwarded since the slot exists. Never reset: a reader takes differences.
    pub packets: u64,
    /// Kernel: bytes of UDP payload forwarded since the slot exists.
    pub bytes: u64,
}

/// Length of a tick of `last_seen`: 2^20 nanoseconds of the monotonic clock.
pub const TICK_NS: u64 = 1 << TICK_SHIFT;
/// Nanoseconds of the monotonic clock, shifted right by this, are ticks.
pub const TICK_SHIFT: u32 = 20;

impl FlowSlot {
    /// Words in a slot.
    pub const WORDS: usize = 8;
    /// Word of `head`.
    pub const HEAD: usize = 0;
    /// Word of `expected`.
    pub const EXPECTED: usize = 1;
    /// Word of `destination`.
    pub const DESTINATION: usize = 2;
    /// Word of `learned_source`.
    pub const LEARNED_SOURCE: usize = 3;
    /// Word of `learned_destination`.
    pub const LEARNED_DESTINATION: usize = 4;
    /// Word of `partner` (its first half in memory) and `last_seen`.
    pub const PARTNER: usize = 5;
    /// Word of `packets`.
    pub const PACKETS: usize = 6;
    /// Word of `bytes`.
    pub const BYTES: usize = 7;

    /// As it lies in the map.
    pub const fn to_words(&self) -> [u64; Self::WORDS] {
        let ([a, b, c, d], [e, f, g, h]) = (self.partner.to_ne_bytes(), self.last_seen.to_ne_bytes());
        [
            self.head.to_word(),
            self.expected.to_word(),
            self.destination.to_word(),
            self.learned_source.to_word(),
            self.learned_destination.to_word(),
            u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            self.packets,
            self.bytes,
        ]
    }

    /// From the words in the map; `None` if the head holds a number that this version does not know.
    pub const fn from_words(words: [u64; Self::WORDS]) -> Option<Self> {
        let Some(head) = FlowHead::from_word(words[Self::HEAD]) else { return None };
        let [a, b, c, d, e, f, g, h] = words[Self::PARTNER].to_ne_bytes();
        Some(Self {
            head,
            expected: Allowed::from_word(words[Self::EXPECTED]),
            destination: Target::from_word(words[Self::DESTINATION]),
            learned_source: Learned::from_word(words[Self::LEARNED_SOURCE]),
            learned_destination: Learned::from_word(words[Self::LEARNED_DESTINATION]),
            partner: u32::from_ne_bytes([a, b, c, d]),
            last_seen: u32::from_ne_bytes([e, f, g, h]),
            packets: words[Self::PACKETS],
            bytes: words[Self::BYTES],
        })
    }

    /// The learned source, if it belongs to the slot's present flow.
    pub const fn source(&self) -> Option<Endpoint> {
        self.learned_source.endpoint(self.head.generation)
    }

    /// Whether a tag occurs in this slot: as its generation's or in a learned word.
    pub const fn has_tag(&self, tag: u16) -> bool {
        self.head.generation == tag || self.learned_source.tag == tag || self.learned_destination.tag == tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::{align_of, offset_of, size_of};

    #[test]
    fn layout_is_locked() {
        assert_eq!((size_of::<FlowSlot>(), align_of::<FlowSlot>()), (64, 64));
        assert_eq!(
            (
                offset_of!(FlowSlot, head),
                offset_of!(FlowSlot, expected),
                offset_of!(FlowSlot, destination),
                offset_of!(FlowSlot, learned_source),
                offset_of!(FlowSlot, learned_destination),
                offset_of!(FlowSlot, partner),
                offset_of!(FlowSlot, last_seen),
                offset_of!(FlowSlot, packets),
                offset_of!(FlowSlot, bytes)
            ),
            (0, 8, 16, 24, 32, 40, 44, 48, 56)
        );
        assert_eq!(
            (
                offset_of!(FlowHead, state),
                offset_of!(FlowHead, kind),
                offset_of!(FlowHead, next_hop),
                offset_of!(FlowHead, generation),
                offset_of!(FlowHead, way),
                offset_of!(FlowHead, flags)
            ),
            (0, 1, 2, 4, 6, 7)
        );
        assert_eq!(
            (offset_of!(Allowed, address), offset_of!(Allowed, port), offset_of!(Allowed, prefix)),
            (0, 4, 6)
        );
        assert_eq!(
            (
                offset_of!(Target, address),
                offset_of!(Target, port),
                offset_of!(Target, dscp),
                offset_of!(Target, ttl)
            ),
            (0, 4, 6, 7)
        );
        assert_eq!(
            (offset_of!(Learned, address), offset_of!(Learned, port), offset_of!(Learned, tag)),
            (0, 4, 6)
        );
        for size in [size_of::<FlowHead>(), size_of::<Allowed>(), size_of::<Target>(), size_of::<Learned>()] {
            assert_eq!(size, 8);
        }
    }

    fn slot() -> FlowSlot {
        FlowSlot {
            head: FlowHead {
                state: FlowState::Learning,
                kind: PortKind::Rtcp,
                next_hop: 0x0102,
                generation: 0x0c0d,
                way: Way::V6,
                flags: FlowHead::FOLLOWS_PARTNER,
            },
            expected: Allowed::any_port([192, 0, 2, 1], 24),
            destination: Target::new(Endpoint::new([198, 51, 100, 2], 4000), 46, 64),
            learned_source: Learned::new(Endpoint::new([192, 0, 2, 1], 5000), 0x0c0d),
            learned_destination: Learned::new(Endpoint::new([198, 51, 100, 3], 6000), 7),
            partner: SlotIndex::new(3, 20_002).0,
            last_seen: 99,
            packets: 5,
            bytes: 860,
        }
    }

    #[test]
    fn words_are_the_memory_of_the_slot() {
        let slot = slot();
        // SAFETY: a slot is 64 bytes without padding, and any bit pattern is a value of eight words.
        let memory: [u64; FlowSlot::WORDS] = unsafe { core::mem::transmute(slot) };
        assert_eq!(slot.to_words(), memory);
        assert_eq!(FlowSlot::from_words(memory), Some(slot));
    }

    #[test]
    fn who_may_claim_is_a_prefix_and_perhaps_a_port() {
        let source = |last, port| Endpoint::new([203, 0, 113, last], port);
        for (prefix, expected) in [
            (0, [true; 4]),
            (1, [true; 4]),
            (24, [true; 4]),
            (25, [true, true, true, false]),
            (31, [true, true, false, false]),
            (32, [true, false, false, false]),
            (33, [true, false, false, false]),
        ] {
            let allowed = Allowed::any_port([203, 0, 113, 4], prefix);
            assert_eq!([4, 5, 6, 200].map(|last| allowed.may_claim(source(last, 99))), expected, "/{prefix}");
        }
        assert!(Allowed::any_port([0; 4], 0).may_claim(source(1, 1)));
        assert!(!Allowed::any_port([128, 0, 0, 0], 1).may_claim(Endpoint::new([126, 255, 255, 255], 1)));
        let one_port = Allowed { port: 99u16.to_be_bytes(), ..Allowed::any_port([203, 0, 113, 0], 24) };
        assert_eq!([98, 99].map(|port| one_port.may_claim(source(7, port))), [false, true]);
    }

    #[test]
    fn who_cannot_be_answered_cannot_claim() {
        let claims = |address, port, prefix| {
            Allowed::any_port(address, prefix).may_claim(Endpoint::new(address, port))
        };
        for first in 0..=255 {
            for address in [[first, 0, 0, 0], [first, 9, 8, 7], [first, 255, 255, 255]] {
                let answerable = !matches!(first, 0 | 127 | 224..=255);
                for prefix in [0, 8, 32] {
                    assert_eq!(claims(address, 9, prefix), answerable, "{address:?}/{prefix}");
                    assert!(!claims(address, 0, prefix), "{address:?}/{prefix} from port 0");
                }
            }
        }
    }

    #[test]
    fn unknown_states_kinds_and_ways_are_refused() {
        assert_eq!(FlowHead::from_word(0), Some(FlowHead::default()));
        assert_eq!(FlowHead::from_word(u64::from_ne_bytes([5, 0, 0, 0, 0, 0, 0, 0])), None);
        assert_eq!(FlowHead::from_word(u64::from_ne_bytes([1, 3, 0, 0, 0, 0, 0, 0])), None);
        assert_eq!(FlowHead::from_word(u64::from_ne_bytes([1, 0, 0, 0, 0, 0, 3, 0])), None);
    }

    #[test]
    fn a_learned_word_counts_in_its_generation_only() {
        assert_eq!(slot().source(), Some(Endpoint::new([192, 0, 2, 1], 5000)));
        let mut other = slot();
        other.head.generation += 1;
        assert_eq!(other.source(), None);
        assert_eq!(Learned::default().endpoint(0), None);
    }

    #[test]
    fn a_new_generation_avoids_every_tag_of_both_slots() {
        let fresh = FlowSlot::default();
        assert_eq!(Generation::FIRST.next_for([&fresh, &fresh]).number(), 2);
        assert_eq!(Generation(0xffff).next_for([&fresh, &fresh]).number(), 1);
        let used = slot();
        assert_eq!(Generation(0x0c0c).next_for([&used, &fresh]).number(), 0x0c0e);
        assert_eq!(Generation(6).next_for([&fresh, &used]).number(), 8);
    }

    #[test]
    fn index_is_address_slot_and_port() {
        let index = SlotIndex::new(2, 0xffff);
        assert_eq!((index.0, index.address_slot(), index.port()), (0x2_ffff, 2, 0xffff));
    }
}
