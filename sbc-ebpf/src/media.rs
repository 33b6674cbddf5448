//! The media path: which flow a packet belongs to, whether it may use it, and where it goes.
//!
//! Each IP version has a module of its own that knows its slots; what a packet carries, what is noted of it and how it
//! leaves is the same for both.

mod mark;
mod payload;
mod report;
mod stream;
mod v4;
mod v4_to_v4;
mod v4_to_v6;
mod v6;
mod v6_to_v4;
mod v6_to_v6;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use sbc_common::checksum;
use sbc_common::counter::Counter;

use crate::ctx::Frame;
use crate::maps::CONFIG;
use crate::outcome::{DropReason, Outcome, PassReason};
use crate::{emit, parse};

/// Relays the packet, or says why not.
#[inline(always)]
pub fn relay(ctx: &XdpContext) -> Outcome {
    let relayed = outcome(relay4(ctx.ctx));
    if relayed == Outcome::Pass(PassReason::NotIp) { outcome(v6::relay6(ctx.ctx)) } else { relayed }
}

/// The outcome of a function that the kernel called.
#[inline(always)]
fn outcome(number: u32) -> Outcome {
    Outcome::from_counter(number).unwrap_or(Outcome::Drop(DropReason::BadSlot))
}

/// A function that the kernel calls: the number of the outcome. So its stack is not there any more when IPv6 or the guard
/// needs one.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(no_mangle))]
extern "C" fn relay4(ctx: *mut xdp_md) -> u32 {
    match try_relay4(&XdpContext::new(ctx)) {
        Ok(outcome) | Err(outcome) => outcome.counter(),
    }
}

#[inline(always)]
fn try_relay4(ctx: &XdpContext) -> Result<Outcome, Outcome> {
    let frame = Frame::of(ctx);
    let link = parse::link(&frame)?;
    match link.ether_type {
        parse::ETHERTYPE_IPV4 => v4::relay(ctx, &frame, &link),
        _ => Err(PassReason::NotIp.into()),
    }
}

/// Verifies the UDP checksum of a sample of a flow's packets, by how many it has forwarded before. `addresses` is the sum
/// of the addresses as they lie in memory, in words of any size.
///
/// An incremental update keeps a wrong checksum wrong, and nobody else here would notice that a sender's are.
#[inline(always)]
fn verify(ctx: &XdpContext, udp_offset: usize, udp_bytes: u16, addresses: u64, packets: u64) {
    let one_in = CONFIG.get(0).map_or(0, |config| config.verify_one_in);
    if one_in != 0 && packets & (u64::from(one_in) - 1) == 0 {
        verify_one(ctx.ctx, udp_offset as u32, u32::from(udp_bytes), addresses);
    }
}

/// A function that the kernel calls: the verifier follows its loop once, and not for every path that led there.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(no_mangle))]
extern "C" fn verify_one(ctx: *mut xdp_md, udp_offset: u32, udp_bytes: u32, addresses: u64) -> u32 {
    let frame = Frame::of(&XdpContext::new(ctx));
    // The verifier knows no bounds of arguments.
    let (udp_offset, udp_bytes) = ((udp_offset & 0x7f) as usize, udp_bytes as u16);
    let Some(header) = frame.window::<{ parse::UDP_BYTES }>(udp_offset) else { return 0 };
    let Some(sum) = frame.sum(udp_offset, usize::from(udp_bytes)) else { return 0 };
    let pseudo_header = addresses + u64::from(u16::from(parse::UDP).to_be()) + u64::from(udp_bytes.to_be());
    if header.load16::<6>() != 0 && checksum::fold(sum + pseudo_header) != 0xffff {
        emit::count(Counter::BadChecksum.number());
    }
    0
}
