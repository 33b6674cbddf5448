//! `FLOWS` and `STREAMS` in memory: slots are written and read without system calls, word by word, as
//! `sbc_common::flow` says.
//!
//! The daemon's words are `head`, `expected`, `destination` and the half word `partner`; the kernel's are only read
//! here. Every access is one aligned atomic access, so neither side ever sees half a word.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use sbc_common::flow::{Allowed, FlowHead, FlowSlot, FlowState, SlotIndex, Target};
use sbc_common::stream::{self, StreamSlot};

/// The mapped tables.
pub(crate) struct FlowTable {
    memory: NonNull<AtomicU64>,
    streams: NonNull<AtomicU64>,
    slots: u32,
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
}

impl Counted {
    /// What was counted since a look before.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            packets: self.packets.wrapping_sub(before.packets),
            bytes: self.bytes.wrapping_sub(before.bytes),
            expected: self.expected.wrapping_sub(before.expected),
        }
    }

    /// Packets of RTP that are missing; `None` before the first one.
    pub(crate) fn lost(self) -> Option<u64> {
        (self.expected != 0).then(|| stream::missing(self.expected.into(), self.packets))
    }
}

// SAFETY: the memory is a shared mapping that lives as long as the value and is accessed through atomics only.
unsafe impl Send for FlowTable {}

impl FlowTable {
    /// Maps the tables of `slots` slots behind the maps' descriptors.
    pub(crate) fn map(flows: BorrowedFd<'_>, streams: BorrowedFd<'_>, slots: u32) -> io::Result<Self> {
        let map = |map, length| {
            // SAFETY: a new mapping at an address of the kernel's choice; nothing else knows of it.
            unsafe {
                mmap(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, map, 0)
            }
        };
        let memory = map(flows, length::<FlowSlot>(slots)?)?.cast();
        match map(streams, length::<StreamSlot>(slots)?) {
            Ok(streams) => Ok(Self { memory, streams: streams.cast(), slots }),
            Err(error) => {
                unmap::<FlowSlot>(memory, slots);
                Err(error.into())
            }
        }
    }

    /// Tables that no kernel reads.
    #[cfg(test)]
    pub(crate) fn detached(slots: u32) -> io::Result<Self> {
        let map = |length| {
            // SAFETY: as in `map`.
            unsafe {
                nix::sys::mman::mmap_anonymous(
                    None,
                    length,
                    ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                    MapFlags::MAP_SHARED,
                )
            }
        };
        let memory = map(length::<FlowSlot>(slots)?)?.cast();
        Ok(Self { memory, streams: map(length::<StreamSlot>(slots)?)?.cast(), slots })
    }

    /// Stores the number of expected packets as the kernel would.
    #[cfg(test)]
    pub(crate) fn store_expected(&self, index: SlotIndex, value: u32) {
        self.expected(index).store(value, Ordering::Relaxed);
    }

    /// Stores a word as the kernel would.
    #[cfg(test)]
    pub(crate) fn store_kernel_word(&self, index: SlotIndex, word: usize, value: u64) {
        self.word(index, word).store(value, Ordering::Relaxed);
    }

    fn word(&self, index: SlotIndex, word: usize) -> &AtomicU64 {
        assert!(index.0 < self.slots && word < FlowSlot::WORDS, "slot {index:?} is beyond the table");
        // SAFETY: inside the mapping (just checked), aligned (the mapping starts at a page), and every access to the
        // word in this process is atomic; other processes and the kernel store whole words too.
        unsafe { self.memory.add(index.0 as usize * FlowSlot::WORDS + word).as_ref() }
    }

    /// What the slot holds now. A state that this version does not know reads as an empty slot.
    pub(crate) fn read(&self, index: SlotIndex) -> FlowSlot {
        let mut words = [0; FlowSlot::WORDS];
        // The head first and with acquire, as the kernel reads it: the body is then at least as new.
        for (at, word) in words.iter_mut().enumerate() {
            *word = self.word(index, at).load(Ordering::Acquire);
        }
        FlowSlot::from_words(words).unwrap_or_default()
    }

    /// What was counted since the slot exists.
    pub(crate) fn counted(&self, index: SlotIndex) -> Counted {
        // What is expected first: a packet that comes between the loads must not look like one that is missing.
        let expected = self.expected(index).load(Ordering::Acquire);
        let load = |word| self.word(index, word).load(Ordering::Relaxed);
        Counted { packets: load(FlowSlot::PACKETS), bytes: load(FlowSlot::BYTES), expected }
    }

    fn expected(&self, index: SlotIndex) -> &AtomicU32 {
        assert!(index.0 < self.slots, "slot {index:?} is beyond the table");
        // SAFETY: as in `word`; the first half of its word, aligned for 32 bits.
        unsafe {
            self.streams.add(index.0 as usize * StreamSlot::WORDS + StreamSlot::EXPECTED).cast().as_ref()
        }
    }

    /// Writes the daemon's part of the body. On a live slot each word takes effect by itself.
    pub(crate) fn write_body(
        &self,
        index: SlotIndex,
        expected: Allowed,
        destination: Target,
        partner: SlotIndex,
    ) {
        self.word(index, FlowSlot::EXPECTED).store(expected.to_word(), Ordering::Relaxed);
        self.word(index, FlowSlot::DESTINATION).store(destination.to_word(), Ordering::Relaxed);
        let partner_word = std::ptr::from_ref(self.word(index, FlowSlot::PARTNER)).cast::<AtomicU32>();
        // SAFETY: the first half of a word of the mapping, aligned for 32 bits; the second half is the kernel's.
        unsafe { &*partner_word }.store(partner.0, Ordering::Relaxed);
    }

    /// Publishes the slot: everything written before is seen with it.
    pub(crate) fn publish(&self, index: SlotIndex, head: FlowHead) {
        self.word(index, FlowSlot::HEAD).store(head.to_word(), Ordering::Release);
    }

    /// Makes the slot empty. Its generation stays, so that the next flow takes another.
    pub(crate) fn withdraw(&self, index: SlotIndex) {
        let head =
            FlowHead::from_word(self.word(index, FlowSlot::HEAD).load(Ordering::Relaxed)).unwrap_or_default();
        self.publish(index, FlowHead { state: FlowState::Idle, next_hop: 0, ..head });
    }

    /// Makes every slot empty; says how many were not.
    pub(crate) fn withdraw_all(&self) -> u32 {
        self.withdraw_but(|_| false)
    }

    /// Makes every slot empty but these; says how many were not.
    pub(crate) fn withdraw_but(&self, stays: impl Fn(SlotIndex) -> bool) -> u32 {
        let mut withdrawn = 0;
        for index in self.live().filter(|index| !stays(*index)) {
            self.withdraw(index);
            withdrawn += 1;
        }
        withdrawn
    }

    /// The slots that are not empty.
    pub(crate) fn live(&self) -> impl Iterator<Item = SlotIndex> + use<'_> {
        // Only the state's byte: an untouched page of the table is not worth eight loads per slot.
        let state = |index| self.word(index, FlowSlot::HEAD).load(Ordering::Relaxed).to_ne_bytes()[0];
        (0..self.slots).map(SlotIndex).filter(move |index| state(*index) != FlowState::Idle as u8)
    }
}

impl Drop for FlowTable {
    fn drop(&mut self) {
        unmap::<FlowSlot>(self.memory, self.slots);
        unmap::<StreamSlot>(self.streams, self.slots);
    }
}

/// Bytes of a table of slots.
fn length<Slot>(slots: u32) -> io::Result<NonZeroUsize> {
    NonZeroUsize::new(slots as usize * size_of::<Slot>())
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

fn unmap<Slot>(memory: NonNull<AtomicU64>, slots: u32) {
    // SAFETY: a mapping of this size made in `map`, and nothing borrows from it any more.
    let _ = unsafe { munmap(memory.cast(), slots as usize * size_of::<Slot>()) };
}

#[cfg(test)]
mod tests {
    use sbc_common::addr::Endpoint;
    use sbc_common::flow::{PortKind, Way};

    use super::*;

    #[test]
    fn a_published_slot_is_read_back_and_a_withdrawn_one_keeps_its_generation() {
        let table = FlowTable::detached(64).unwrap();
        let (index, partner) = (SlotIndex(7), SlotIndex(9));
        let expected = Allowed::exactly(Endpoint::new([192, 0, 2, 1], 4000));
        let destination = Target::new(Endpoint::new([198, 51, 100, 1], 5000), 46, 64);
        table.write_body(index, expected, destination, partner);
        let head = FlowHead {
            state: FlowState::Latched,
            kind: PortKind::Rtcp,
            next_hop: 3,
            way: Way::V4,
            flags: 0,
            generation: 17,
        };
        table.publish(index, head);
        let slot = table.read(index);
        assert_eq!(
            (slot.head, slot.expected, slot.destination, slot.partner),
            (head, expected, destination, 9)
        );
        assert_eq!(table.read(SlotIndex(8)), FlowSlot::default());
        assert_eq!(table.withdraw_all(), 1);
        assert_eq!((table.read(index).head.state, table.read(index).head.generation), (FlowState::Idle, 17));
        assert_eq!(table.withdraw_all(), 0);
    }

    #[test]
    #[should_panic(expected = "beyond the table")]
    fn a_slot_beyond_the_table_is_never_touched() {
        FlowTable::detached(64).unwrap().withdraw(SlotIndex(64));
    }
}
