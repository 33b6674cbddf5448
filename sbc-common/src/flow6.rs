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
//! (RFC 4291 section 2.5.5.2).

use crate::flow::FlowHead;

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
    fn a_claim_counts_in_its_generation_only() {
        let claim = |tag, phase| Claim { tag, phase, unused: [0; 5] }.to_word();
        assert_eq!(Claim::phase_in(0, 0), ClaimPhase::Open);
        assert_eq!(Claim::phase_in(claim(0, ClaimPhase::Claimed), 0), ClaimPhase::Open);
        assert_eq!(Claim::phase_in(claim(7, ClaimPhase::Claimed), 7), ClaimPhase::Claimed);
        assert_eq!(Claim::phase_in(claim(7, ClaimPhase::Claiming), 7), ClaimPhase::Claiming);
        assert_eq!(Claim::phase_in(claim(7, ClaimPhase::Claimed), 8), ClaimPhase::Open);
    }
}
