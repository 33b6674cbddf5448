//! The only raw pointers: access to the frame, to flow slots and cold slots, and to the guard's windows.
//!
//! Frame data is read and written by single instructions of the width asked for, whatever the alignment: the kernel
//! verifier allows it where the machine does, while the compiler would split an unaligned access into bytes. A slot
//! is shared with other CPUs and with the daemon, so every access to it is one whole word.

use aya_ebpf::helpers::generated::bpf_xdp_adjust_head;
use aya_ebpf::programs::XdpContext;
use sbc_common::flow::FlowSlot;
use sbc_common::flow6::FlowSlot6;
use sbc_common::guard::DenyEntry;
use sbc_common::stream::StreamSlot;
use sbc_common::trace::TraceFilter;
use sbc_common::window;

use crate::clock;

/// The frame, as two addresses that the verifier follows.
#[derive(Clone, Copy)]
pub struct Frame {
    start: usize,
    end: usize,
}

impl Frame {
    /// The frame that the program was called for.
    #[inline(always)]
    pub fn of(ctx: &XdpContext) -> Self {
        Self { start: ctx.data(), end: ctx.data_end() }
    }

    /// Moves the start of the frame by some bytes: forwards, cutting them off, or backwards. Any [`Window`] taken
    /// before is void. `None` if the driver has no room.
    #[inline(always)]
    pub fn moved_start(ctx: &XdpContext, by: i32) -> Option<Self> {
        // SAFETY: the context is the one that the kernel passed to the program.
        let failed = unsafe { bpf_xdp_adjust_head(ctx.ctx, by) } != 0;
        if failed { None } else { Some(Self::of(ctx)) }
    }

    /// Bytes in the frame.
    #[inline(always)]
    pub fn length(&self) -> usize {
        self.end - self.start
    }

    /// `N` bytes at an offset, if the frame has them.
    #[inline(always)]
    pub fn window<const N: usize>(&self, offset: usize) -> Option<Window<N>> {
        let at = self.start + offset;
        if at + N > self.end { None } else { Some(Window { at }) }
    }
}

/// Longest run that [`Frame::sum`] adds up, in steps of eight bytes: an Ethernet frame's worth.
const SUM_STEPS: usize = 192;

impl Frame {
    /// The sum of some bytes as 16-bit words, not folded, as if a zero byte followed an odd last one. `None` if the
    /// frame does not have them or they are more than the verifier should follow.
    #[inline(always)]
    pub fn sum(&self, offset: usize, bytes: usize) -> Option<u64> {
        let (mut at, mut left, mut sum) = (offset, bytes, 0);
        for _ in 0..SUM_STEPS {
            if left < 8 {
                break;
            }
            let word = self.window::<8>(at)?.load64::<0>();
            sum += (word >> 32) + (word & 0xffff_ffff);
            at += 8;
            left -= 8;
        }
        if left & 4 != 0 {
            sum += u64::from(self.window::<4>(at)?.load32::<0>());
            at += 4;
        }
        if left & 2 != 0 {
            sum += u64::from(self.window::<2>(at)?.load16::<0>());
            at += 2;
        }
        if left & 1 != 0 {
            sum += u64::from(u16::from_ne_bytes([self.window::<1>(at)?.load8::<0>(), 0]));
        }
        if left < 8 { Some(sum) } else { None }
    }
}

/// `N` bytes of the frame, known to be there.
#[derive(Clone, Copy)]
pub struct Window<const N: usize> {
    at: usize,
}

/// One load or store instruction on the BPF machine, an unaligned access elsewhere.
macro_rules! access {
    ($load:ident, $store:ident, $int:ty, $c:literal) => {
        /// The field at an offset, as it lies in memory.
        #[inline(always)]
        pub fn $load<const AT: usize>(&self) -> $int {
            const { assert!(AT + size_of::<$int>() <= N) };
            #[cfg(target_arch = "bpf")]
            {
                let value: u64;
                // SAFETY: `window` compared the end of the window with the end of the frame.
                unsafe {
                    core::arch::asm!(
                        concat!("{value} = *(", $c, " *)({at} + {offset})"),
                        value = out(reg) value, at = in(reg) self.at, offset = const AT,
                        options(readonly, nostack),
                    );
                }
                value as $int
            }
            #[cfg(not(target_arch = "bpf"))]
            // SAFETY: as above.
            unsafe {
                ((self.at + AT) as *const $int).read_unaligned()
            }
        }

        /// Writes the field at an offset, as it is to lie in memory.
        #[inline(always)]
        pub fn $store<const AT: usize>(&self, value: $int) {
            const { assert!(AT + size_of::<$int>() <= N) };
            #[cfg(target_arch = "bpf")]
            // SAFETY: `window` compared the end of the window with the end of the frame.
            unsafe {
                core::arch::asm!(
                    concat!("*(", $c, " *)({at} + {offset}) = {value}"),
                    value = in(reg) u64::from(value), at = in(reg) self.at, offset = const AT,
                    options(nostack),
                );
            }
            #[cfg(not(target_arch = "bpf"))]
            // SAFETY: as above.
            unsafe {
                ((self.at + AT) as *mut $int).write_unaligned(value);
            }
        }
    };
}

impl<const N: usize> Window<N> {
    access!(load8, store8, u8, "u8");
    access!(load16, store16, u16, "u16");
    access!(load32, store32, u32, "u32");
    access!(load64, store64, u64, "u64");
}

/// A flow slot in the map, of one family or the other.
macro_rules! flow_slot {
    ($(#[$doc:meta])* $name:ident, $slot:ident, claimed by $claim:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name(*mut u64);

        impl $name {
            /// The slot behind a pointer that a map lookup returned.
            #[inline(always)]
            pub fn at(pointer: *mut $slot) -> Self {
                Self(pointer.cast())
            }

            /// One word.
            #[inline(always)]
            pub fn word<const WORD: usize>(&self) -> u64 {
                const { assert!(WORD < $slot::WORDS) };
                // SAFETY: the pointer is to a slot of the map, which is aligned and never freed while the program runs.
                unsafe { self.0.add(WORD).read_volatile() }
            }

            /// Writes one word.
            #[inline(always)]
            pub fn set_word<const WORD: usize>(&self, value: u64) {
                const { assert!(WORD < $slot::WORDS) };
                // SAFETY: as above.
                unsafe { self.0.add(WORD).write_volatile(value) }
            }

            /// Index of the partner.
            #[inline(always)]
            pub fn partner(&self) -> u32 {
                // SAFETY: as above; the field is the first half of its word.
                unsafe { self.0.add($slot::PARTNER).cast::<u32>().read_volatile() }
            }

            /// Writes the word that a claim is decided by if it still is `old`. Whether it was.
            #[inline(always)]
            pub fn claim(&self, old: u64, new: u64) -> bool {
                compare_exchange::<{ $slot::$claim }>(self.0, old, new)
            }

            /// Counts a forwarded packet of some payload bytes and stamps the time.
            #[inline(always)]
            pub fn forwarded(&self, payload_bytes: u64) {
                add::<{ $slot::PACKETS }>(self.0, 1);
                add::<{ $slot::BYTES }>(self.0, payload_bytes);
                // SAFETY: as above; the field is the second half of its word.
                unsafe { self.0.add($slot::PARTNER).cast::<u32>().add(1).write_volatile(clock::ticks()) };
            }
        }
    };
}

flow_slot! {
    /// A slot of `FLOWS`.
    Slot, FlowSlot, claimed by LEARNED_SOURCE
}

flow_slot! {
    /// A slot of `FLOWS6`.
    Slot6, FlowSlot6, claimed by CLAIM
}

/// Writes a word of a map's value if it still is `old`. Whether it was. The word must be inside the value.
#[inline(always)]
fn compare_exchange<const WORD: usize>(value: *mut u64, old: u64, new: u64) -> bool {
    #[cfg(target_arch = "bpf")]
    {
        let found: u64;
        // SAFETY: the word is inside the value.
        unsafe {
            core::arch::asm!(
                "r0 = cmpxchg_64({value} + {offset}, r0, {new})",
                value = in(reg) value, offset = const WORD * 8, new = in(reg) new,
                inout("r0") old => found,
                options(nostack),
            );
        }
        found == old
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        use core::sync::atomic::{AtomicU64, Ordering};
        // SAFETY: the word is inside the value and aligned.
        let word = unsafe { AtomicU64::from_ptr(value.add(WORD)) };
        word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

/// Adds to a word of a map's value. The word must be inside the value.
#[inline(always)]
fn add<const WORD: usize>(value: *mut u64, more: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the word is inside the value.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({value} + {offset}) += {more}",
            value = in(reg) value, offset = const WORD * 8, more = in(reg) more,
            options(nostack),
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        use core::sync::atomic::{AtomicU64, Ordering};
        // SAFETY: the word is inside the value and aligned.
        unsafe { AtomicU64::from_ptr(value.add(WORD)) }.fetch_add(more, Ordering::Relaxed);
    }
}

/// A word of a map's value that several CPUs change.
#[derive(Clone, Copy)]
pub struct SharedWord(*mut u64);

impl SharedWord {
    /// A window of the guard.
    ///
    /// # Safety
    /// The pointer is into a value that a map lookup returned.
    #[inline(always)]
    pub unsafe fn of_window(window: *mut window::Window) -> Self {
        Self(window.cast())
    }

    /// The hits of a denied source.
    ///
    /// # Safety
    /// The pointer is to a value that a map lookup returned.
    #[inline(always)]
    pub unsafe fn of_hits(entry: *mut DenyEntry) -> Self {
        // SAFETY: as the caller says.
        Self(unsafe { &raw mut (*entry).hits })
    }

    /// The packets that a trace did not tell of.
    ///
    /// # Safety
    /// The pointer is to a value that a map lookup returned.
    #[inline(always)]
    pub unsafe fn of_suppressed(filter: *mut TraceFilter) -> Self {
        // SAFETY: as the caller says.
        Self(unsafe { &raw mut (*filter).suppressed })
    }

    /// As it is now.
    #[inline(always)]
    pub fn read(&self) -> u64 {
        // SAFETY: the word is aligned and not freed while the program runs.
        unsafe { self.0.read_volatile() }
    }

    /// Writes a new value if it still is `old`. Whether it was.
    #[inline(always)]
    pub fn replace(&self, old: u64, new: u64) -> bool {
        compare_exchange::<0>(self.0, old, new)
    }

    /// Adds to it, exactly.
    #[inline(always)]
    pub fn add(&self, more: u64) {
        add::<0>(self.0, more);
    }
}

/// A cold slot in the map. Nothing but the rate is decided by it, and that within a packet or two, so it is read and
/// written without a lock.
#[derive(Clone, Copy)]
pub struct Stream(*mut u64);

impl Stream {
    /// The slot behind a pointer that a map lookup returned.
    #[inline(always)]
    pub fn at(pointer: *mut StreamSlot) -> Self {
        Self(pointer.cast())
    }

    /// One word.
    #[inline(always)]
    pub fn word<const WORD: usize>(&self) -> u64 {
        const { assert!(WORD < StreamSlot::WORDS) };
        // SAFETY: the pointer is to a slot of the map, which is aligned and never freed while the program runs.
        unsafe { self.0.add(WORD).read_volatile() }
    }

    /// Writes one word.
    #[inline(always)]
    pub fn set_word<const WORD: usize>(&self, value: u64) {
        const { assert!(WORD < StreamSlot::WORDS) };
        // SAFETY: as above.
        unsafe { self.0.add(WORD).write_volatile(value) }
    }

    /// Writes the last quarter in memory of a word whose rest is the daemon's.
    #[inline(always)]
    pub fn set_last_quarter<const WORD: usize>(&self, value: u16) {
        const { assert!(WORD < StreamSlot::WORDS) };
        // SAFETY: as above.
        unsafe { self.0.add(WORD).cast::<u16>().add(3).write_volatile(value) }
    }
}

#[cfg(test)]
impl Frame {
    /// A frame over test data, which must outlive it.
    pub(crate) fn over(bytes: &mut [u8]) -> Self {
        let start = bytes.as_mut_ptr() as usize;
        Self { start, end: start + bytes.len() }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;
    use sbc_common::checksum::{checksum, fold};

    #[test]
    fn a_window_ends_where_the_frame_ends() {
        let mut bytes = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
        let frame = Frame::over(&mut bytes);
        assert!(frame.window::<10>(0).is_some() && frame.window::<8>(2).is_some());
        assert!(frame.window::<11>(0).is_none() && frame.window::<8>(3).is_none());
        let window = frame.window::<8>(1).unwrap();
        assert_eq!((window.load8::<7>(), window.load16::<0>().to_ne_bytes()), (8, [1, 2]));
        window.store32::<2>(u32::from_ne_bytes([30, 40, 50, 60]));
        assert_eq!(bytes, [0, 1, 2, 30, 40, 50, 60, 7, 8, 9]);
    }

    proptest! {
        #[test]
        fn the_sum_of_a_run_is_that_of_its_words(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200), offset in 0..8usize, more in 0..4usize,
        ) {
            let length = bytes.len().saturating_sub(offset);
            let frame = Frame::over(&mut bytes);
            let sum = frame.sum(offset, length).map(fold);
            prop_assert_eq!(frame.sum(offset, length + more + 1), None);
            prop_assert_eq!(sum, Some(!checksum(&[bytes.get(offset..).unwrap_or(&[])]).to_be()));
        }
    }

    #[test]
    fn of_two_claims_one_succeeds() {
        for _ in 0..200 {
            let mut slot = FlowSlot::default();
            let pointer = &raw mut slot as usize;
            let claim = move |new| Slot::at(pointer as *mut FlowSlot).claim(0, new);
            let (one, two) = std::thread::scope(|scope| {
                let other = scope.spawn(move || claim(2));
                (claim(1), other.join().unwrap())
            });
            assert!(one != two);
            assert_eq!(slot.learned_source.to_word(), if one { 1 } else { 2 });
        }
    }
}
