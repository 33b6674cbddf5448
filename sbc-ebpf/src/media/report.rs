//! Copies of RTCP for the daemon. The packet itself goes on as if nobody had looked.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::bpf_xdp_load_bytes;
use aya_ebpf::programs::XdpContext;
use sbc_common::counter::Counter;
use sbc_common::event::{REPORT_BYTES, ReportRecord};
use sbc_common::flow::SlotIndex;

use super::payload::Payload;
use crate::emit;
use crate::maps::REPORTS;

/// The slot is one of `FLOWS`.
pub(super) const V4: u8 = 4;
/// The slot is one of `FLOWS6`.
pub(super) const V6: u8 = 6;

/// Copies the beginning of a report that leaves by a slot.
#[inline(always)]
pub(super) fn copy(ctx: &XdpContext, family: u8, slot: SlotIndex, generation: u16, payload: Payload) {
    let flow = u32::from(generation) << 16 | u32::from(family);
    submit(ctx.ctx, slot.0, flow, payload.offset as u32, payload.bytes as u32);
}

/// A function of its own, because reports are one packet in hundreds.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(no_mangle))]
extern "C" fn submit(ctx: *mut xdp_md, slot: u32, flow: u32, offset: u32, length: u32) -> u32 {
    let Some(mut entry) = REPORTS.reserve_untyped::<ReportRecord>(0) else {
        emit::count(Counter::ReportLost.number());
        return 0;
    };
    // A report is never empty. That it is 1 to 256 bytes, also verifiers see by the mask that do not learn from comparisons.
    let copied = (length.min(REPORT_BYTES as u32).wrapping_sub(1) & 0xff) + 1;
    let record = entry.as_mut_ptr();
    // SAFETY: the record is ours until it is submitted, and only the fields behind its `copied` bytes stay as they were.
    // The helper writes `copied` bytes, which are in the packet and at most as many as the array has.
    let failed = unsafe {
        (&raw mut (*record).slot).write(slot);
        (&raw mut (*record).generation).write((flow >> 16) as u16);
        (&raw mut (*record).family).write(flow as u8);
        (&raw mut (*record).unused).write(0);
        (&raw mut (*record).length).write(length as u16);
        (&raw mut (*record).copied).write(copied as u16);
        (&raw mut (*record).unused_too).write([0; 4]);
        bpf_xdp_load_bytes(ctx, offset, (&raw mut (*record).bytes).cast(), copied) != 0
    };
    if failed {
        entry.discard(0);
        emit::count(Counter::ReportLost.number());
    } else {
        entry.submit(0);
    }
    0
}
