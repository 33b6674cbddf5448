//! A map's values in memory, as words that two sides share.
//!
//! Every access is one aligned atomic access of one size, so neither the kernel nor we ever see half of one.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// The words of a mapped array.
pub(crate) struct Words {
    memory: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: the memory is a shared mapping that lives as long as the value and is accessed through atomics only.
unsafe impl Send for Words {}

impl Words {
    /// Maps so many words of the array behind a descriptor.
    pub(crate) fn map(array: BorrowedFd<'_>, count: usize) -> io::Result<Self> {
        let (protection, length) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, length(count)?);
        // SAFETY: a new mapping at an address of the kernel's choice; nothing else knows of it.
        let memory = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, array, 0) }?;
        Ok(Self { memory: memory.cast(), count })
    }

    /// Words that no kernel reads.
    #[cfg(test)]
    pub(crate) fn detached(count: usize) -> io::Result<Self> {
        let (protection, length) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, length(count)?);
        // SAFETY: as in `map`.
        let memory =
            unsafe { nix::sys::mman::mmap_anonymous(None, length, protection, MapFlags::MAP_SHARED) }?;
        Ok(Self { memory: memory.cast(), count })
    }

    /// One word.
    pub(crate) fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at < self.count, "word {at} is beyond the table");
        // SAFETY: inside the mapping (just checked), aligned (the mapping starts at a page), and every access to the
        // word in this process is atomic; other processes and the kernel store whole words too.
        unsafe { self.memory.add(at).as_ref() }
    }

    /// Half of a word; 0 is the first in memory.
    pub(crate) fn half(&self, at: usize, half: usize) -> &AtomicU32 {
        assert!(half < 2, "a word has two halves");
        // SAFETY: inside of a word of the mapping, aligned for 32 bits; what is beside it is written apart from it.
        unsafe { &*std::ptr::from_ref(self.word(at)).cast::<AtomicU32>().add(half) }
    }

    /// A quarter of a word; 0 is the first in memory.
    pub(crate) fn quarter(&self, at: usize, quarter: usize) -> &AtomicU16 {
        assert!(quarter < 4, "a word has four quarters");
        // SAFETY: as in `half`, for 16 bits.
        unsafe { &*std::ptr::from_ref(self.word(at)).cast::<AtomicU16>().add(quarter) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: a mapping of this size made in `map`, and nothing borrows from it any more.
        let _ = unsafe { munmap(self.memory.cast(), self.count * size_of::<u64>()) };
    }
}

/// Bytes of so many words.
fn length(count: usize) -> io::Result<NonZeroUsize> {
    count
        .checked_mul(size_of::<u64>())
        .and_then(NonZeroUsize::new)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn parts_of_a_word_lie_in_it_in_order() {
        let words = Words::detached(512).unwrap();
        words.half(7, 1).store(0x0403_0201, Relaxed);
        words.quarter(7, 0).store(0x0605, Relaxed);
        let bytes = words.word(7).load(Relaxed).to_ne_bytes();
        assert_eq!(bytes[4..], 0x0403_0201u32.to_ne_bytes());
        assert_eq!((&bytes[..2], &bytes[2..4]), (&0x0605u16.to_ne_bytes()[..], &[0, 0][..]));
        assert_eq!((words.word(6).load(Relaxed), words.word(8).load(Relaxed)), (0, 0));
    }

    #[test]
    #[should_panic(expected = "beyond the table")]
    fn a_word_beyond_the_table_is_never_touched() {
        let _ = Words::detached(512).unwrap().word(512);
    }
}
