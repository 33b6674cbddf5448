//! The time: coarse, without asking the clock for every packet, and fine.
//!
//! The clock is read once per timer interrupt for the coarse one; in between, the answer is kept beside the interrupt's
//! number. That number costs one load (the verifier replaces the helper by it), the clock itself twenty times as much.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};
use sbc_common::flow::TICK_SHIFT;

use crate::maps::CLOCK;

/// The low half of an interrupt's number, above, and the ticks read in it, below: one word, so that another CPU sees
/// both or neither.
#[unsafe(no_mangle)]
static mut LAST_READ: u64 = 0;

/// The monotonic clock in ticks.
#[inline(always)]
pub fn ticks() -> u32 {
    let last_read = &raw mut LAST_READ;
    // SAFETY: the helpers take nothing; the word is aligned and every access to it is whole.
    unsafe {
        let interrupt = bpf_jiffies64() << 32;
        let kept = read_volatile(last_read);
        if (kept ^ interrupt) >> 32 == 0 {
            return kept as u32;
        }
        let ticks = (bpf_ktime_get_coarse_ns() >> TICK_SHIFT) as u32;
        write_volatile(last_read, interrupt | u64::from(ticks));
        ticks
    }
}

/// Packets in one interrupt's time from which on a CPU is busy: less than four microseconds lie between two of them at
/// 250 Hz.
const BUSY: u32 = 1024;
/// A busy CPU reads the clock for one packet in so many; a power of two.
const READ_ONE_IN: u32 = 8;

/// A CPU's own reading of the clock.
#[repr(C)]
pub struct Reading {
    /// When, in nanoseconds.
    ns: u64,
    /// The low half of the number of the interrupt that it was read after.
    interrupt: u32,
    /// Times that it was asked for since.
    asked: u32,
}

/// The monotonic clock in nanoseconds, for what an interrupt's four milliseconds are too coarse for. On a busy CPU it is that
/// of a packet a few before: some ten microseconds old, where a unit of a telephone's timestamps is 125.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helpers take nothing; the map returned the pointer, and the entry is this CPU's own.
    unsafe {
        let Some(reading) = CLOCK.get_ptr_mut(0) else { return bpf_ktime_get_ns() };
        let interrupt = bpf_jiffies64() as u32;
        let asked = if (*reading).interrupt == interrupt { (*reading).asked + 1 } else { 0 };
        (*reading).asked = asked;
        if asked < BUSY || asked & (READ_ONE_IN - 1) == 0 {
            (*reading).interrupt = interrupt;
            (*reading).ns = bpf_ktime_get_ns();
        }
        (*reading).ns
    }
}

/// The monotonic clock in nanoseconds, as it was at the first packet after the last timer interrupt that asked for it, or
/// later.
#[inline(always)]
pub fn coarse_ns() -> u64 {
    // SAFETY: as above.
    unsafe {
        let Some(reading) = CLOCK.get_ptr_mut(0) else { return bpf_ktime_get_ns() };
        let interrupt = bpf_jiffies64() as u32;
        if (*reading).interrupt != interrupt || (*reading).ns == 0 {
            *reading = Reading { ns: bpf_ktime_get_ns(), interrupt, asked: 0 };
        }
        (*reading).ns
    }
}
