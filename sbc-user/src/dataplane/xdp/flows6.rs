//! `FLOWS6` and `STREAMS6` in memory, as [`super::flows`]: slots are written and read without system calls, word by
//! word, as `sbc_common::flow6` says.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use sbc_common::flow::{FlowHead, FlowState, SlotIndex};
use sbc_common::flow6::{Allowed6, FlowSlot6, Target6};
use sbc_common::stream::StreamSlot;

/// The mapped tables.
pub(crate) struct FlowTable6 {
    flows: Words,
    streams: Words,
}

impl FlowTable6 {
    /// Maps the tables of `slots` slots behind the maps' descriptors.
    pub(crate) fn map(flows: BorrowedFd<'_>, streams: BorrowedFd<'_>, slots: u32) -> io::Result<Self> {
        let slots = slots as usize;
        Ok(Self {
            flows: Words::map(flows, slots * FlowSlot6::WORDS)?,
            streams: Words::map(streams, slots * StreamSlot::WORDS)?,
        })
    }

    /// Tables that no kernel reads.
    #[cfg(test)]
    pub(crate) fn detached(slots: u32) -> io::Result<Self> {
        let slots = slots as usize;
        Ok(Self {
            flows: Words::anonymous(slots * FlowSlot6::WORDS)?,
            streams: Words::anonymous(slots * StreamSlot::WORDS)?,
        })
    }

    /// A word of a flow slot.
    pub(crate) fn word(&self, index: SlotIndex, word: usize) -> &AtomicU64 {
        assert!(word < FlowSlot6::WORDS);
        self.flows.word(index.0 as usize * FlowSlot6::WORDS + word)
    }

    /// A word of a stream slot.
    pub(crate) fn stream_word(&self, index: SlotIndex, word: usize) -> &AtomicU64 {
        assert!(word < StreamSlot::WORDS);
        self.streams.word(index.0 as usize * StreamSlot::WORDS + word)
    }

    /// What the slot holds now. A state that this version does not know reads as an empty slot.
    pub(crate) fn read(&self, index: SlotIndex) -> FlowSlot6 {
        let mut words = [0; FlowSlot6::WORDS];
        // The head first and with acquire, as the kernel reads it; the claim before what it lets be read.
        for (at, word) in words.iter_mut().enumerate() {
            *word = self.word(index, at).load(Ordering::Acquire);
        }
        FlowSlot6::from_words(words).unwrap_or_default()
    }

    /// Writes the daemon's part of the body while the slot is Idle: neither the allowed source nor the destination takes
    /// effect as a whole, so on a live slot a packet may meet half of each.
    pub(crate) fn write_body(
        &self,
        index: SlotIndex,
        expected: Allowed6,
        destination: Target6,
        partner: SlotIndex,
    ) {
        let fields =
            [(FlowSlot6::EXPECTED, expected.to_words()), (FlowSlot6::DESTINATION, destination.to_words())];
        for (first, words) in fields {
            for (at, word) in words.into_iter().enumerate() {
                self.word(index, first + at).store(word, Ordering::Relaxed);
            }
        }
        let partner_word = std::ptr::from_ref(self.word(index, FlowSlot6::PARTNER)).cast::<AtomicU32>();
        // SAFETY: the first half of a word of the mapping, aligned for 32 bits; the second half is the kernel's.
        unsafe { &*partner_word }.store(partner.0, Ordering::Relaxed);
    }

    /// Publishes the slot: everything written before is seen with it.
    pub(crate) fn publish(&self, index: SlotIndex, head: FlowHead) {
        self.word(index, FlowSlot6::HEAD).store(head.to_word(), Ordering::Release);
    }

    /// Makes the slot empty. Its generation stays, so that the next flow takes another.
    pub(crate) fn withdraw(&self, index: SlotIndex) {
        let head = self.word(index, FlowSlot6::HEAD).load(Ordering::Relaxed);
        let head = FlowHead::from_word(head).unwrap_or_default();
        self.publish(index, FlowHead { state: FlowState::Idle, next_hop: 0, ..head });
    }

    /// Makes every slot empty; says how many were not.
    pub(crate) fn withdraw_all(&self) -> u32 {
        let mut withdrawn = 0;
        for index in (0..(self.flows.words / FlowSlot6::WORDS) as u32).map(SlotIndex) {
            let head = self.word(index, FlowSlot6::HEAD).load(Ordering::Relaxed);
            if head.to_ne_bytes()[0] != FlowState::Idle as u8 {
                self.withdraw(index);
                withdrawn += 1;
            }
        }
        withdrawn
    }
}

/// Words shared with the kernel.
struct Words {
    memory: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the memory is a shared mapping that lives as long as the value and is accessed through atomics only.
unsafe impl Send for Words {}

impl Words {
    fn map(map: BorrowedFd<'_>, words: usize) -> io::Result<Self> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; nothing else knows of it.
        let memory = unsafe { mmap(None, bytes(words)?, protection, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Self { memory: memory.cast(), words })
    }

    #[cfg(test)]
    fn anonymous(words: usize) -> io::Result<Self> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: as in `map`.
        let memory =
            unsafe { nix::sys::mman::mmap_anonymous(None, bytes(words)?, protection, MapFlags::MAP_SHARED) }?;
        Ok(Self { memory: memory.cast(), words })
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at < self.words, "word {at} is beyond the table");
        // SAFETY: inside the mapping (just checked), aligned (the mapping starts at a page), and every access to the
        // word in this process is atomic; other processes and the kernel store whole words too.
        unsafe { self.memory.add(at).as_ref() }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: a mapping of this size made in `map`, and nothing borrows from it any more.
        let _ = unsafe { munmap(self.memory.cast(), self.words * size_of::<u64>()) };
    }
}

fn bytes(words: usize) -> io::Result<NonZeroUsize> {
    NonZeroUsize::new(words * size_of::<u64>()).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

#[cfg(test)]
mod tests {
    use sbc_common::flow6::Endpoint6;

    use super::*;

    #[test]
    fn a_published_slot_is_read_back_and_a_withdrawn_one_keeps_its_generation() {
        let table = FlowTable6::detached(64).unwrap();
        let index = SlotIndex(7);
        let peer = Endpoint6::new([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9], 4000);
        let (expected, destination) = (Allowed6::exactly(peer), Target6::new(peer, 46, 64));
        table.write_body(index, expected, destination, SlotIndex(9));
        let head = FlowHead { state: FlowState::Latched, next_hop: 3, generation: 17, ..FlowHead::default() };
        table.publish(index, head);
        let slot = table.read(index);
        assert_eq!(
            (slot.head, slot.expected, slot.destination, slot.partner),
            (head, expected, destination, 9)
        );
        assert_eq!(table.stream_word(index, 0).load(Ordering::Relaxed), 0);
        assert_eq!(table.read(SlotIndex(8)), FlowSlot6::default());
        assert_eq!(table.withdraw_all(), 1);
        assert_eq!((table.read(index).head.state, table.read(index).head.generation), (FlowState::Idle, 17));
        assert_eq!(table.withdraw_all(), 0);
    }

    #[test]
    #[should_panic(expected = "beyond the table")]
    fn a_slot_beyond_the_table_is_never_touched() {
        FlowTable6::detached(64).unwrap().withdraw(SlotIndex(64));
    }
}
