//! The XDP program: one entry, one place where an outcome becomes an action.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX};
#[cfg(target_arch = "bpf")]
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use sbc_ebpf::outcome::Outcome;
use sbc_ebpf::{emit, guard, media};

/// The program on every interface that media arrives on or leaves from. Media first: it is nearly everything, and the
/// guard costs it nothing.
#[cfg_attr(target_arch = "bpf", xdp)]
#[cfg_attr(not(target_arch = "bpf"), expect(dead_code, reason = "only the kernel runs it"))]
fn sbc(ctx: XdpContext) -> u32 {
    let mut outcome = media::relay(&ctx);
    if let Outcome::Pass(reason) = outcome
        && reason.is_not_media()
    {
        outcome = guard::admit(&ctx, reason);
    }
    emit::count(outcome.counter());
    match outcome {
        Outcome::Transmit => XDP_TX,
        Outcome::Redirect => XDP_REDIRECT,
        Outcome::Pass(_) => XDP_PASS,
        Outcome::Drop(_) => XDP_DROP,
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
