//! The XDP program with a trace: it does what the ordinary one does, and tells what it did with the packets that
//! `TRACE` chooses, through aya-log. An object of its own: nothing of it is in the production object, so that a packet
//! pays for traces only while one runs.
//!
//! A line is numbers and addresses only: outcome, interface, frame bytes, from, to, and the last three again as the packet
//! left the program. The daemon makes words of it.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(not(target_arch = "bpf"), expect(dead_code, reason = "only the kernel runs it"))]

use aya_ebpf::bindings::xdp_action::XDP_ABORTED;
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::btf_maps::{Array, PerCpuArray, ProgramArray};
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::macros::btf_map;
#[cfg(target_arch = "bpf")]
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::info;
use sbc_common::trace::{Ends, TraceFilter};
use sbc_common::window::{Decision, Window};
use sbc_ebpf::ctx::{Frame, SharedWord};
use sbc_ebpf::guard::{arrival, key};
use sbc_ebpf::{clock, entry};

/// What is traced.
#[btf_map]
static TRACE: Array<TraceFilter, 1> = Array::new();

/// The packet at hand: what the one program leaves to the other.
#[btf_map]
static TRACE_HAND: PerCpuArray<Hand, 1> = PerCpuArray::new();

/// The second program. Apart, because the kernel checks each by itself: the stack of one and the ways through one.
#[btf_map]
static TRACE_NEXT: ProgramArray<1> = ProgramArray::new();

/// A packet on its way through both programs.
#[repr(C)]
struct Hand {
    /// As it came.
    before: Ends,
    /// As it leaves.
    after: Ends,
    /// Not zero: `before` was read.
    is_known: u32,
    /// Number of the outcome.
    outcome: u32,
    /// What the driver is told.
    action: u32,
}

/// Does what the ordinary program does, then goes on in the other one.
#[cfg_attr(target_arch = "bpf", xdp)]
fn sbc_trace(ctx: XdpContext) -> u32 {
    // SAFETY: the map returned the pointer, and the entry is this CPU's own.
    let hand = TRACE_HAND.get_ptr_mut(0).map(|hand| unsafe { &mut *hand });
    let Some(hand) = hand else { return entry::run(&ctx).action() };
    hand.is_known = read(ctx.ctx, 0);
    let outcome = entry::run(&ctx);
    hand.outcome = outcome.counter();
    hand.action = outcome.action();
    let action = hand.action;
    if hand.is_known != 0 {
        // SAFETY: the context is the program's own.
        unsafe { TRACE_NEXT.tail_call(&ctx, 0) };
    }
    action
}

/// Tells what the other one did, and ends as it would have.
#[cfg_attr(target_arch = "bpf", xdp)]
fn sbc_tell(ctx: XdpContext) -> u32 {
    // SAFETY: as above; the program before this one wrote it for the same packet.
    let Some(hand) = TRACE_HAND.get_ptr_mut(0).map(|hand| unsafe { &mut *hand }) else { return XDP_ABORTED };
    if read(ctx.ctx, 1) != 0 {
        tell(&ctx, hand);
    }
    hand.action
}

/// Reads the headers into the packet at hand, those before or those after. Not 0: it can be told of.
///
/// A function that the kernel calls: its stack is not there any more when the ordinary program needs one.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(no_mangle))]
extern "C" fn read(ctx: *mut xdp_md, is_after: u32) -> u32 {
    // SAFETY: the map returned the pointer, and the entry is this CPU's own.
    let Some(hand) = TRACE_HAND.get_ptr_mut(0).map(|hand| unsafe { &mut *hand }) else { return 0 };
    let frame = Frame::of(&XdpContext::new(ctx));
    let Some(arrival) = arrival::read(&frame) else { return 0 };
    let ends = if is_after == 0 { &mut hand.before } else { &mut hand.after };
    ends.from = key::bytes(arrival.source);
    ends.to = key::bytes(arrival.destination);
    ends.from_port = arrival.source_port;
    ends.to_port = arrival.port;
    ends.frame_bytes = frame.length() as u32;
    1
}

#[inline(always)]
fn tell(ctx: &XdpContext, hand: &Hand) {
    let (before, after) = (&hand.before, &hand.after);
    let Some(filter) = TRACE.get_ptr_mut(0) else { return };
    // SAFETY: the map returned the pointer; the daemon replaces the value before it puts the program in place.
    let chosen =
        unsafe { bpf_ktime_get_coarse_ns() < (*filter).until_ns && (*filter).chooses(before, after) };
    if !chosen {
        return;
    }
    // SAFETY: as above.
    let (window, suppressed, limit) = unsafe {
        (SharedWord::of_window(&raw mut (*filter).window), SharedWord::of_suppressed(filter), (*filter).limit)
    };
    let word = window.read();
    let (next, decision) = Window::from_word(word).arrive(clock::ticks(), limit);
    // A packet that meets another one at the window is not told of: then there are many.
    if decision != Decision::Within || !window.replace(word, next.to_word()) {
        if decision == Decision::Exceeded {
            let _ = window.replace(word, next.to_word());
        }
        return suppressed.add(1);
    }
    info!(
        ctx,
        "{} {} {} {:i} {} {:i} {} {} {:i} {} {:i} {}",
        hand.outcome,
        ctx.ingress_ifindex() as u32,
        before.frame_bytes,
        before.from,
        u16::from_be_bytes(before.from_port),
        before.to,
        u16::from_be_bytes(before.to_port),
        after.frame_bytes,
        after.from,
        u16::from_be_bytes(after.from_port),
        after.to,
        u16::from_be_bytes(after.to_port)
    );
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel reads it before it allows helpers that are for GPL programs only.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// On the host there is nothing to run.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
