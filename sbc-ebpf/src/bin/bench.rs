//! Programs that only benches load: a packet source, a wrapper that runs the media path over random flows, and what
//! they are compared with. An object of its own, so that nothing of it is in the production object.
//!
//! Flow number `n` arrives at port `n mod 65536` of the address `10.0.(n / 65536).1` from port 10000 of
//! `198.18.(n / 256 mod 256).(n mod 256)`.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(not(target_arch = "bpf"), expect(dead_code, reason = "only the kernel runs it"))]

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_REDIRECT, XDP_TX};
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
#[cfg(target_arch = "bpf")]
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use sbc_ebpf::ctx::{Frame, Window};
use sbc_ebpf::maps::{COUNTERS, DEVICES};
use sbc_ebpf::{emit, media};

/// How many flows there are; set by the loader.
#[unsafe(no_mangle)]
static FLOW_COUNT: u32 = 1;

/// Where `bare_redirect` sends; set by the loader.
#[unsafe(no_mangle)]
static EGRESS: u32 = 0;

/// Entries of `COUNTERS` that the media path does not use.
const RECEIVED: u32 = 127;
const NEXT_FLOW: u32 = 126;

const HEADERS: usize = 54;
const FRAME_BYTES: u16 = 214;
const SOURCE_PORT: u16 = 10_000;

/// Sends the next flow's packet; for live frames, whose buffers come back as the last program left them.
#[cfg_attr(target_arch = "bpf", xdp)]
fn generate(ctx: XdpContext) -> u32 {
    let Some(next) = COUNTERS.get_ptr_mut(NEXT_FLOW) else { return XDP_ABORTED };
    // SAFETY: the entry is this CPU's own.
    let flow = unsafe {
        *next = if *next + 1 < u64::from(flow_count()) { *next + 1 } else { 0 };
        *next as u32
    };
    write_headers(&ctx, flow).map_or(XDP_ABORTED, |()| XDP_TX)
}

/// What the relay is compared with: a redirect and nothing else.
#[cfg_attr(target_arch = "bpf", xdp)]
fn bare_redirect(_: XdpContext) -> u32 {
    // SAFETY: a static of this program, which the loader may have changed behind the compiler's back.
    let egress = unsafe { core::ptr::read_volatile(&raw const EGRESS) };
    DEVICES.redirect(egress, 0).map_or(XDP_ABORTED, |_| XDP_REDIRECT)
}

/// The far end: counts and drops.
#[cfg_attr(target_arch = "bpf", xdp)]
fn sink(_: XdpContext) -> u32 {
    emit::count(RECEIVED);
    XDP_DROP
}

/// The cost of `pick_and_relay` without the media path.
#[cfg_attr(target_arch = "bpf", xdp)]
fn pick(ctx: XdpContext) -> u32 {
    write_headers(&ctx, random_flow()).map_or(XDP_ABORTED, |()| XDP_DROP)
}

/// A packet of a random flow through the media path. The packet of the run before is overwritten.
#[cfg_attr(target_arch = "bpf", xdp)]
fn pick_and_relay(ctx: XdpContext) -> u32 {
    if write_headers(&ctx, random_flow()).is_none() {
        return XDP_ABORTED;
    }
    let number = media::relay(&ctx).counter();
    emit::count(number);
    number
}

fn flow_count() -> u32 {
    // SAFETY: as in `bare_redirect`.
    unsafe { core::ptr::read_volatile(&raw const FLOW_COUNT) }
}

#[inline(always)]
fn random_flow() -> u32 {
    // SAFETY: the helper takes nothing.
    let random = unsafe { bpf_get_prandom_u32() };
    ((u64::from(random) * u64::from(flow_count())) >> 32) as u32
}

/// Ethernet, IPv4, UDP and RTP headers of a flow's packet. The checksums are not computed: nobody here reads them.
#[inline(always)]
fn write_headers(ctx: &XdpContext, flow: u32) -> Option<()> {
    let headers: Window<HEADERS> = Frame::of(ctx).window(0)?;
    let [_, _, high, low] = flow.to_be_bytes();
    let slot = (flow >> 16) as u8;
    headers.store64::<0>(u64::from_ne_bytes([2, 0, 0, 0, 0, 1, 2, 0]));
    headers.store32::<8>(u32::from_ne_bytes([0, 0, 0, 2]));
    headers.store16::<12>(0x0800u16.to_be());
    headers.store16::<14>(0x4500u16.to_be());
    headers.store16::<16>((FRAME_BYTES - 14).to_be());
    headers.store32::<18>(0x0000_4000u32.to_be());
    headers.store32::<22>(u32::from_ne_bytes([64, 17, 0x12, 0x34]));
    headers.store32::<26>(u32::from_ne_bytes([198, 18, high, low]));
    headers.store32::<30>(u32::from_ne_bytes([10, 0, slot, 1]));
    headers.store16::<34>(SOURCE_PORT.to_be());
    headers.store16::<36>((flow as u16).to_be());
    headers.store16::<38>((FRAME_BYTES - 34).to_be());
    headers.store16::<40>(0x5678u16.to_be());
    headers.store64::<42>(u64::from_ne_bytes([0x80, 0, 0, 1, 0, 0, 0, 160]));
    headers.store32::<50>(flow);
    Some(())
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
