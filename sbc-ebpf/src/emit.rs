//! What the program reports: counters and events.

use sbc_common::counter::Counter;
use sbc_common::event::{ExceededRecord, LatchedRecord, LatchedRecord6};

use crate::maps::{COUNTERS, EVENTS};

/// Adds one to a counter of this CPU.
#[inline(always)]
pub fn count(number: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(number) {
        // SAFETY: the entry is this CPU's own and the program is not preempted by another one that writes it.
        unsafe { *counter += 1 };
    }
}

/// Tells the daemon that a slot was claimed. A full ring is counted: the daemon still finds the claim in the slot.
#[inline(always)]
pub fn latched(record: LatchedRecord) {
    count(Counter::Claimed.number());
    submit(record);
}

/// The same of a slot of IPv6.
#[inline(always)]
pub fn latched6(record: LatchedRecord6) {
    count(Counter::Claimed.number());
    submit(record);
}

/// Tells the daemon that a limit was exceeded. If the ring is full, the next window tells it again.
#[inline(always)]
pub fn exceeded(record: ExceededRecord) {
    count(Counter::Exceeded.number());
    submit(record);
}

#[inline(always)]
fn submit<T: 'static>(record: T) {
    match EVENTS.reserve_untyped::<T>(0) {
        Some(mut entry) => {
            entry.write(record);
            entry.submit(0);
        }
        None => count(Counter::EventLost.number()),
    }
}
