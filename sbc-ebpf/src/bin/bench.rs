//! Programs that only benches load: packet sources, wrappers that run the production path over random flows, and what
//! that is compared with. An object of its own, so that nothing of it is in the production object.
//!
//! Flow number `n` comes from port 10000 of `198.18.(n / 256 mod 256).(n mod 256)`. Where a program chooses its flow by
//! chance it goes to port `n mod 65536` of `10.0.(n / 65536).1`; where it sends live frames, to wherever `LANES` says.
//! Over IPv6 it comes from port 10000 of `2001:db8::n` and goes to the same port of `fd00::(n / 65536):1`.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(not(target_arch = "bpf"), expect(dead_code, reason = "only the kernel runs it"))]

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_REDIRECT, XDP_TX};
use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use aya_ebpf::macros::btf_map;
#[cfg(target_arch = "bpf")]
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use sbc_common::checksum;
use sbc_ebpf::ctx::{Frame, Window};
use sbc_ebpf::maps::{COUNTERS, DEVICES};
use sbc_ebpf::{emit, entry};

/// How many flows there are; set by the loader.
#[unsafe(no_mangle)]
static FLOW_COUNT: u32 = 1;

/// Where `bare_redirect` sends; set by the loader.
#[unsafe(no_mangle)]
static EGRESS: u32 = 0;

/// Entries of `COUNTERS` that the production path does not use.
const RECEIVED: u32 = 127;
const NEXT_FLOW: u32 = 126;
const ROUND: u32 = 125;

const ETHERNET_AND_IPV4: usize = 34;
const HEADERS: usize = 42;
const RTP_HEADER: usize = 12;
const FRAME_BYTES: u16 = 214;
/// Ethernet, IPv6 and UDP.
const HEADERS6: usize = 62;
/// By how much IPv6 is longer.
const GROWTH: i32 = 20;
const SOURCE_PORT: u16 = 10_000;
const SIP_PORT: u16 = 5060;
/// Samples in a packet of 20 ms at 8000 Hz.
const SAMPLES: u32 = 160;

/// Where a live flow's frames come from and go to, filled in by the loader.
///
/// One word of addresses, source first, as they lie in memory; one of the destination port as it lies in memory, the
/// IPv4 header's checksum likewise, and the sum over what the UDP checksum covers, sequence number and timestamp zero.
type Lane = [u64; 2];

/// Lanes by flow number.
#[btf_map]
static LANES: Array<Lane, 1024> = Array::new();

/// Sends the next flow's RTP packet; for live frames, whose buffers come back as the last program left them. The
/// sequence numbers and timestamps of each flow go on.
#[cfg_attr(target_arch = "bpf", xdp)]
fn generate(ctx: XdpContext) -> u32 {
    try_generate(&ctx).map_or(XDP_ABORTED, |()| XDP_TX)
}

#[inline(always)]
fn try_generate(ctx: &XdpContext) -> Option<()> {
    let (flow, round) = next_flow()?;
    let headers = Headers::of_lane(LANES.get(flow)?);
    let frame = Frame::of(ctx);
    let more = write_rtp(&frame, HEADERS, flow, round)?;
    headers.write(&frame, more)
}

/// The RTP header of a flow's packet in a round. What its numbers add to the sum of the UDP checksum.
#[inline(always)]
fn write_rtp(frame: &Frame, offset: usize, flow: u32, round: u64) -> Option<u64> {
    let rtp: Window<RTP_HEADER> = frame.window(offset)?;
    let (sequence, timestamp) = ((round as u16).to_be(), (round as u32).wrapping_mul(SAMPLES).to_be());
    rtp.store16::<0>(u16::from_ne_bytes([0x80, 0]));
    rtp.store16::<2>(sequence);
    rtp.store32::<4>(timestamp);
    rtp.store32::<8>(flow);
    Some(u64::from(sequence) + u64::from(timestamp))
}

/// Sends the next flow's SIP request, which is in the frame already: only the headers in front of it are written.
#[cfg_attr(target_arch = "bpf", xdp)]
fn flood(ctx: XdpContext) -> u32 {
    try_flood(&ctx).map_or(XDP_ABORTED, |()| XDP_TX)
}

#[inline(always)]
fn try_flood(ctx: &XdpContext) -> Option<()> {
    let (flow, _) = next_flow()?;
    Headers::of_lane(LANES.get(flow)?).write(&Frame::of(ctx), 0)
}

/// What the relay is compared with: a redirect and nothing else.
#[cfg_attr(target_arch = "bpf", xdp)]
fn bare_redirect(_: XdpContext) -> u32 {
    // SAFETY: a static of this program, which the loader may have changed behind the compiler's back.
    let egress = unsafe { core::ptr::read_volatile(&raw const EGRESS) };
    DEVICES.redirect(egress, 0).map_or(XDP_ABORTED, |_| XDP_REDIRECT)
}

/// What the guard is compared with: a drop and nothing else.
#[cfg_attr(target_arch = "bpf", xdp)]
fn bare_drop(_: XdpContext) -> u32 {
    XDP_DROP
}

/// The same in front of the production path, which goes on for everybody but the forged sources.
#[cfg_attr(target_arch = "bpf", xdp)]
fn bare_guard(ctx: XdpContext) -> u32 {
    let Some(headers) = Frame::of(&ctx).window::<ETHERNET_AND_IPV4>(0) else {
        return entry::run(&ctx).action();
    };
    if headers.load16::<12>() == 0x0800u16.to_be() && headers.load16::<26>() == u16::from_ne_bytes([198, 18])
    {
        return XDP_DROP;
    }
    entry::run(&ctx).action()
}

/// The far end: counts our frames and drops all.
#[cfg_attr(target_arch = "bpf", xdp)]
fn sink(ctx: XdpContext) -> u32 {
    if Frame::of(&ctx).length() == usize::from(FRAME_BYTES) {
        emit::count(RECEIVED);
    }
    XDP_DROP
}

/// The cost of `pick_and_relay` without the production path.
#[cfg_attr(target_arch = "bpf", xdp)]
fn pick(ctx: XdpContext) -> u32 {
    pick_rtp(&ctx).map_or(XDP_ABORTED, |()| XDP_DROP)
}

/// A packet of a random flow. The packet of the run before is overwritten.
#[cfg_attr(target_arch = "bpf", xdp)]
fn pick_and_relay(ctx: XdpContext) -> u32 {
    pick_rtp(&ctx).map_or(XDP_ABORTED, |()| entry::run(&ctx).action())
}

/// The cost of `pick_and_relay6` without the production path.
#[cfg_attr(target_arch = "bpf", xdp)]
fn pick6(ctx: XdpContext) -> u32 {
    pick_rtp6(&ctx).map_or(XDP_ABORTED, |()| XDP_DROP)
}

/// A packet of a random flow over IPv6.
#[cfg_attr(target_arch = "bpf", xdp)]
fn pick_and_relay6(ctx: XdpContext) -> u32 {
    pick_rtp6(&ctx).map_or(XDP_ABORTED, |()| entry::run(&ctx).action())
}

/// A SIP request of a random source, dropped by the bare program: what `pick_and_refuse` is compared with.
#[cfg_attr(target_arch = "bpf", xdp)]
fn pick_and_drop(ctx: XdpContext) -> u32 {
    pick_sip(&ctx).map_or(XDP_ABORTED, |()| XDP_DROP)
}

/// A SIP request of a random source.
#[cfg_attr(target_arch = "bpf", xdp)]
fn pick_and_refuse(ctx: XdpContext) -> u32 {
    pick_sip(&ctx).map_or(XDP_ABORTED, |()| entry::run(&ctx).action())
}

#[inline(always)]
fn pick_rtp(ctx: &XdpContext) -> Option<()> {
    let (flow, frame) = (random_flow(), Frame::of(ctx));
    // The run before left it as it sent it: longer, if that was over IPv6.
    let grown = frame.length() > usize::from(FRAME_BYTES);
    let frame = if grown { Frame::moved_start(ctx, GROWTH)? } else { frame };
    // A flow's turn comes by chance, but as often as that of the others: its numbers go on with the turns of all.
    let (_, round) = next_flow()?;
    write_rtp(&frame, HEADERS, flow, round)?;
    Headers::unsummed(flow, flow as u16).write(&frame, 0)
}

#[inline(always)]
fn pick_rtp6(ctx: &XdpContext) -> Option<()> {
    let (flow, frame) = (random_flow(), Frame::of(ctx));
    let (_, round) = next_flow()?;
    write_rtp(&frame, HEADERS6, flow, round)?;
    write_headers6(&frame, flow)
}

/// Ethernet, IPv6 and UDP headers of a flow whose checksum nobody reads.
#[inline(always)]
fn write_headers6(frame: &Frame, flow: u32) -> Option<()> {
    let headers: Window<HEADERS6> = frame.window(0)?;
    let [a, b, c, d] = flow.to_be_bytes();
    headers.store64::<0>(u64::from_ne_bytes([2, 0, 0, 0, 0, 1, 2, 0]));
    headers.store32::<8>(u32::from_ne_bytes([0, 0, 0, 2]));
    headers.store16::<12>(0x86ddu16.to_be());
    headers.store32::<14>(0x6000_0000u32.to_be());
    headers.store16::<18>((FRAME_BYTES - 34).to_be());
    headers.store16::<20>(u16::from_ne_bytes([17, 64]));
    headers.store64::<22>(u64::from_ne_bytes([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0]));
    headers.store64::<30>(u64::from_ne_bytes([0, 0, 0, 0, a, b, c, d]));
    headers.store64::<38>(u64::from_ne_bytes([0xfd, 0, 0, 0, 0, 0, 0, 0]));
    headers.store64::<46>(u64::from_ne_bytes([0, 0, 0, 0, 0, (flow >> 16) as u8, 0, 1]));
    headers.store16::<54>(SOURCE_PORT.to_be());
    headers.store16::<56>((flow as u16).to_be());
    headers.store16::<58>((FRAME_BYTES - 34).to_be());
    headers.store16::<60>(0x5678u16.to_be());
    Some(())
}

#[inline(always)]
fn pick_sip(ctx: &XdpContext) -> Option<()> {
    Headers::unsummed(random_flow(), SIP_PORT).write(&Frame::of(ctx), 0)
}

/// The number of the next flow in turn, and how many turns there were.
#[inline(always)]
fn next_flow() -> Option<(u32, u64)> {
    let (next, round) = (COUNTERS.get_ptr_mut(NEXT_FLOW)?, COUNTERS.get_ptr_mut(ROUND)?);
    // SAFETY: the entries are this CPU's own.
    unsafe {
        if *next + 1 < u64::from(flow_count()) {
            *next += 1;
        } else {
            *next = 0;
            *round += 1;
        }
        Some((*next as u32, *round))
    }
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

/// What differs between the Ethernet, IPv4 and UDP headers of two flows.
struct Headers {
    source_address: u32,
    destination_address: u32,
    destination_port: u16,
    ip_checksum: u16,
    udp_sum: u32,
}

impl Headers {
    #[inline(always)]
    fn of_lane(lane: &Lane) -> Self {
        let [addresses, rest] = *lane;
        Self {
            source_address: addresses as u32,
            destination_address: (addresses >> 32) as u32,
            destination_port: rest as u16,
            ip_checksum: (rest >> 16) as u16,
            udp_sum: (rest >> 32) as u32,
        }
    }

    /// Of a flow whose checksums nobody reads.
    #[inline(always)]
    fn unsummed(flow: u32, destination_port: u16) -> Self {
        let [_, _, high, low] = flow.to_be_bytes();
        Self {
            source_address: u32::from_ne_bytes([198, 18, high, low]),
            destination_address: u32::from_ne_bytes([10, 0, (flow >> 16) as u8, 1]),
            destination_port: destination_port.to_be(),
            ip_checksum: 0x1234,
            udp_sum: 0x5678,
        }
    }

    /// Writes them; `more` is what the UDP checksum covers beside the sum that is known.
    #[inline(always)]
    fn write(&self, frame: &Frame, more: u64) -> Option<()> {
        let headers: Window<HEADERS> = frame.window(0)?;
        headers.store64::<0>(u64::from_ne_bytes([2, 0, 0, 0, 0, 1, 2, 0]));
        headers.store32::<8>(u32::from_ne_bytes([0, 0, 0, 2]));
        headers.store16::<12>(0x0800u16.to_be());
        headers.store16::<14>(0x4500u16.to_be());
        headers.store16::<16>((FRAME_BYTES - 14).to_be());
        headers.store32::<18>(0x0000_4000u32.to_be());
        headers.store16::<22>(u16::from_ne_bytes([64, 17]));
        headers.store16::<24>(self.ip_checksum);
        headers.store32::<26>(self.source_address);
        headers.store32::<30>(self.destination_address);
        headers.store16::<34>(SOURCE_PORT.to_be());
        headers.store16::<36>(self.destination_port);
        headers.store16::<38>((FRAME_BYTES - 34).to_be());
        headers.store16::<40>(!checksum::fold(u64::from(self.udp_sum) + more));
        Some(())
    }
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
