//! `FLOWS` and `FLOWS6` with what lies beside them (`STREAMS`, `STREAMS6`), in memory: slots are written and read without
//! system calls, as `sbc_common::{flow, flow6, stream}` say.
//!
//! The daemon's words are `head`, `expected`, `destination`, the half word `partner`, and of the streams the clock rate,
//! the limit and `destination6`; the kernel's are only read here.
//!
//! On a live slot each word takes effect by itself. Where an address does not fit one, a packet must not leave for half
//! of an old and half of a new one: the slot is withdrawn for the few stores that it takes.

mod table;

use std::net::SocketAddr;

use sbc_common::flow::{FlowHead, SlotIndex};
use sbc_common::stream;
use sbc_core::config::Prefix;

pub(crate) use table::Table;

/// Which of the two tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// The table for ports of an address.
    pub(crate) const fn of(address: std::net::IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// A slot of either table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SlotKey {
    pub(crate) family: Family,
    pub(crate) index: SlotIndex,
}

/// From where a slot's packets are accepted, or who may claim it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Nobody,
    Exactly(SocketAddr),
    AnyPort(Prefix),
}

/// The daemon's part of a slot but for the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) expected: Expected,
    pub(crate) destination: Option<SocketAddr>,
    pub(crate) dscp: u8,
    pub(crate) ttl: u8,
    pub(crate) partner: SlotIndex,
    /// Of RTP timestamps; 0: not known.
    pub(crate) clock_rate_hz: u32,
    /// Packets that one rate window lets through; 0: any number.
    pub(crate) limit: u16,
}

/// What the kernel counted for a slot: since the slot exists, or since a look before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Packets forwarded.
    pub(crate) packets: u64,
    /// Bytes of UDP payload forwarded.
    pub(crate) bytes: u64,
    /// Packets that there should have been by their sequence numbers; RTP only. Wraps.
    pub(crate) expected: u32,
    /// Packets that came after one with a higher number. Wraps.
    pub(crate) out_of_order: u32,
    /// Packets dropped because there were too many. Wraps.
    pub(crate) over_rate: u32,
    /// Changes of the payload type. Wraps.
    pub(crate) payload_type_changes: u16,
    /// Changes of the synchronisation source. Wraps.
    pub(crate) source_changes: u16,
    /// Present jitter in sixteenths of a timestamp unit: a state, not a count.
    pub(crate) jitter: u32,
}

impl Counted {
    /// What was counted since a look before.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            packets: self.packets.wrapping_sub(before.packets),
            bytes: self.bytes.wrapping_sub(before.bytes),
            expected: self.expected.wrapping_sub(before.expected),
            out_of_order: self.out_of_order.wrapping_sub(before.out_of_order),
            over_rate: self.over_rate.wrapping_sub(before.over_rate),
            payload_type_changes: self.payload_type_changes.wrapping_sub(before.payload_type_changes),
            source_changes: self.source_changes.wrapping_sub(before.source_changes),
            jitter: self.jitter,
        }
    }

    /// Packets of RTP that are missing; `None` before the first one.
    pub(crate) fn lost(self) -> Option<u64> {
        (self.expected != 0).then(|| stream::missing(self.expected.into(), self.packets))
    }

    /// Jitter in microseconds; `None` where the clock rate is not known, and before the first packet.
    pub(crate) fn jitter_us(self, clock_rate_hz: u32) -> Option<u32> {
        if clock_rate_hz == 0 || self.packets == 0 {
            return None;
        }
        let microseconds = u64::from(self.jitter) * 1_000_000 / (16 * u64::from(clock_rate_hz));
        Some(u32::try_from(microseconds).unwrap_or(u32::MAX))
    }
}

/// Both tables.
pub(crate) struct Flows {
    v4: Table,
    v6: Table,
}

impl Flows {
    pub(crate) const fn new(v4: Table, v6: Table) -> Self {
        Self { v4, v6 }
    }

    pub(super) const fn table(&self, family: Family) -> &Table {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// The tags that occur in a slot.
    pub(crate) fn tags(&self, slot: SlotKey) -> [u16; 4] {
        self.table(slot.family).tags(slot.index)
    }

    /// Present head of a slot.
    pub(crate) fn head(&self, slot: SlotKey) -> FlowHead {
        self.table(slot.family).head(slot.index)
    }

    /// The source that claimed a slot in a generation.
    pub(crate) fn learned(&self, slot: SlotKey, tag: u16) -> Option<SocketAddr> {
        self.table(slot.family).learned(slot.index, tag)
    }

    /// What was counted since the slot exists.
    pub(crate) fn counted(&self, slot: SlotKey) -> Counted {
        self.table(slot.family).counted(slot.index)
    }

    /// Writes the daemon's part of the body.
    pub(crate) fn write_body(&self, slot: SlotKey, body: &Body) {
        self.table(slot.family).write_body(slot.index, body);
    }

    /// The daemon's words of a slot, for a comparison.
    pub(crate) fn written(&self, slot: SlotKey) -> Vec<u64> {
        self.table(slot.family).written(slot.index)
    }

    /// Publishes a slot: everything written before is seen with it.
    pub(crate) fn publish(&self, slot: SlotKey, head: FlowHead) {
        self.table(slot.family).publish(slot.index, head);
    }

    /// Makes a slot empty. Its generation stays, so that the next flow takes another.
    pub(crate) fn withdraw(&self, slot: SlotKey) {
        self.table(slot.family).withdraw(slot.index);
    }

    /// Makes every slot empty; says how many were not.
    pub(crate) fn withdraw_all(&self) -> u32 {
        self.withdraw_but(|_| false)
    }

    /// Makes every slot empty but these; says how many were not.
    pub(crate) fn withdraw_but(&self, stays: impl Fn(SlotKey) -> bool) -> u32 {
        let mut withdrawn = 0;
        for slot in self.live().filter(|slot| !stays(*slot)) {
            self.withdraw(slot);
            withdrawn += 1;
        }
        withdrawn
    }

    /// The slots that are not empty.
    pub(crate) fn live(&self) -> impl Iterator<Item = SlotKey> + use<'_> {
        let of = |family| self.table(family).live().map(move |index| SlotKey { family, index });
        of(Family::V4).chain(of(Family::V6))
    }

    /// The slot that a slot's packets leave from.
    pub(crate) fn partner(&self, slot: SlotKey) -> SlotIndex {
        self.table(slot.family).partner(slot.index)
    }

    /// Tables that no kernel reads, for two addresses of each family.
    #[cfg(test)]
    pub(crate) fn detached() -> Self {
        let table = |family| Table::detached(family, 2 << 16).unwrap();
        Self::new(table(Family::V4), table(Family::V6))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_wrap_and_jitter_is_what_it_is_now() {
        let before = Counted {
            packets: 10,
            expected: u32::MAX,
            out_of_order: u32::MAX,
            source_changes: u16::MAX,
            jitter: 7,
            ..Counted::default()
        };
        let now = Counted {
            packets: 13,
            expected: 4,
            out_of_order: 1,
            source_changes: 1,
            jitter: 3200,
            ..Counted::default()
        };
        let since = now.since(before);
        assert_eq!((since.packets, since.expected, since.lost()), (3, 5, Some(2)));
        assert_eq!((since.out_of_order, since.source_changes), (2, 2));
        assert_eq!(since.jitter_us(8000), Some(25_000), "200 units of 125 us");
        assert_eq!(since.jitter_us(0), None);
        assert_eq!(now.since(now).jitter_us(8000), None, "nothing came yet");
    }
}
