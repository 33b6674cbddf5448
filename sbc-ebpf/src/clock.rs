//! The time: coarse, without asking the clock for every packet, and fine.
//!
//! The clock is read once per timer interrupt for the coarse one; in between, the answer is kept beside the interrupt's
//! number. That number costs one load (the verifier replaces the helper by it), the clock itself twenty times as much.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};
use sbc_common::flow::TICK_SHIFT;

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

/// The monotonic clock in nanoseconds, for what an interrupt's four milliseconds are too coarse for.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_ktime_get_ns() }
}
