//! The XDP program, as it is in every driver.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use sbc_ebpf::entry;

/// The program on every interface that media arrives on or leaves from.
#[cfg_attr(target_arch = "bpf", xdp)]
#[cfg_attr(not(target_arch = "bpf"), expect(dead_code, reason = "only the kernel runs it"))]
fn sbc(ctx: XdpContext) -> u32 {
    entry::run(&ctx).action()
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
