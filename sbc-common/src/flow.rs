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
}

/// What a port of ours carries.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// RTP.
    #[default]
    Rtp = 0,
    /// RTCP.
    Rtcp = 1,
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

/// Numbers the flows that a slot has held. Never a value whose tag is 0, because a fresh slot is all zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Generation(u32);

impl Generation {
    /// The first one.
    pub const FIRST: Self = Self(1);

    /// A number as a generation, unless its tag is 0.
    pub const fn new(number: u32) -> Option<Self> {
        if number as u16 == 0 { None } else { Some(Self(number)) }
    }

    /// The number.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// What stamps a learned word: the low 16 bits.
    #[inline(always)]
    pub const fn tag(self) -> u16 {
        self.0 as u16
    }

    /// The next generation whose tag occurs in neither of the two slots.
    ///
    /// A slot holds three tags at most (its present generation's and its two learned words'), so at most six numbers
    /// and the zero tag are skipped.
    pub fn next_for(self, slots: [&FlowSlot; 2]) -> Self {
        let mut number = self.0;
        loop {
            number = number.wrapping_add(1);
            let tag = number as u16;
            if tag != 0 && !slots.iter().any(|slot| slot.has_tag(tag)) {
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
    pub kind: MediaKind,
    /// Index of the next hop towards the destination; 0 is none.
    pub next_hop: u16,
    /// Number of the flow, see [`Generation`].
    pub generation: u32,
}

impl FlowHead {
    /// As the word in the map.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        let ([a, b], [c, d, e, f]) = (self.next_hop.to_ne_bytes(), self.generation.to_ne_bytes());
        u64::from_ne_bytes([self.state as u8, self.kind as u8, a, b, c, d, e, f])
    }

    /// From a word; `None` if state or kind is a number that this version does not know.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Option<Self> {
        let [state, kind, a, b, c, d, e, f] = word.to_ne_bytes();
        let state = match state {
            0 => FlowState::Idle,
            1 => FlowState::Learning,
            2 => FlowState::Latched,
            3 => FlowState::Relay,
            _ => return None,
        };
        let kind = match kind {
            0 => MediaKind::Rtp,
            1 => MediaKind::Rtcp,
            _ => return None,
        };
        let (next_hop, generation) = (u16::from_ne_bytes([a, b]), u32::from_ne_bytes([c, d, e, f]));
        Some(Self { state, kind, next_hop, generation })
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
    /// [`Generation::tag`] of the flow; in any other generation the word is void. 0: nothing was ever learned.
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
    /// Daemon: from where packets are accepted, or may claim the slot. Port 0 allows any port of that address.
    pub expected: Endpoint,
    /// Daemon: where packets go, unless another destination was learned.
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
            expected: Endpoint::from_word(words[Self::EXPECTED]),
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
        self.learned_source.endpoint(self.head.generation as u16)
    }

    /// Whether a tag occurs in this slot: as its generation's or in a learned word.
    const fn has_tag(&self, tag: u16) -> bool {
        self.head.generation as u16 == tag
            || self.learned_source.tag == tag
            || self.learned_destination.tag == tag
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
                offset_of!(FlowHead, generation)
            ),
            (0, 1, 2, 4)
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
        for size in [size_of::<FlowHead>(), size_of::<Target>(), size_of::<Learned>()] {
            assert_eq!(size, 8);
        }
    }

    fn slot() -> FlowSlot {
        FlowSlot {
            head: FlowHead {
                state: FlowState::Learning,
                kind: MediaKind::Rtcp,
                next_hop: 0x0102,
                generation: 0x0a0b_0c0d,
            },
            expected: Endpoint::new([192, 0, 2, 1], 0),
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
    fn unknown_states_and_kinds_are_refused() {
        assert_eq!(FlowHead::from_word(0), Some(FlowHead::default()));
        assert_eq!(FlowHead::from_word(u64::from_ne_bytes([4, 0, 0, 0, 0, 0, 0, 0])), None);
        assert_eq!(FlowHead::from_word(u64::from_ne_bytes([1, 2, 0, 0, 0, 0, 0, 0])), None);
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
        assert_eq!(Generation(0xffff).next_for([&fresh, &fresh]).number(), 0x1_0001);
        assert_eq!(Generation(0xffff_ffff).next_for([&fresh, &fresh]).number(), 1);
        let used = slot();
        assert_eq!(Generation(0x0c0c).next_for([&used, &fresh]).tag(), 0x0c0e);
        assert_eq!(Generation(6).next_for([&fresh, &used]).tag(), 8);
    }

    #[test]
    fn index_is_address_slot_and_port() {
        let index = SlotIndex::new(2, 0xffff);
        assert_eq!((index.0, index.address_slot(), index.port()), (0x2_ffff, 2, 0xffff));
    }
}
