//! Hands the datagrams of relayed ports to the relay's sockets: a few, instead of one bound to each port.
//!
//! The kernel runs it where it looks for the socket of a datagram, in the daemon's network namespace. What is not for a
//! relayed port is looked for as ever: a port that nobody has stays unreachable, a port of another program stays its own.
//! An object of its own, loaded beside the XDP program or without it, and gone when the daemon is.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![cfg_attr(not(target_arch = "bpf"), expect(dead_code, reason = "only the kernel runs it"))]

use core::mem::offset_of;

use aya_ebpf::bindings::bpf_sk_lookup;
use aya_ebpf::btf_maps::{HashMap, SockMap};
use aya_ebpf::macros::btf_map;
#[cfg(target_arch = "bpf")]
use aya_ebpf::macros::sk_lookup;
use aya_ebpf::programs::SkLookupContext;
use sbc_common::limits;
use sbc_common::steer::SteeredPort;

/// What the kernel calls `SK_PASS`: go on, with the chosen socket if one was chosen.
const PASS: u32 = 1;
const INET: u32 = 2;
const INET6: u32 = 10;
const UDP: u32 = 17;
/// `BPF_F_NO_PREALLOC`: only the daemon adds entries.
const NO_PREALLOC: usize = 1;

/// Ports that the relay serves, and which of its sockets takes them.
#[btf_map]
static STEERED: HashMap<SteeredPort, u32, { limits::STEERED_PORTS as usize }, NO_PREALLOC> = HashMap::new();

/// The relay's sockets: one per thread and family.
#[btf_map]
static RELAY_SOCKETS: SockMap<{ 2 * limits::RELAY_THREADS as usize }> = SockMap::new();

/// The program.
#[cfg_attr(target_arch = "bpf", sk_lookup)]
fn steer(ctx: SkLookupContext) -> u32 {
    if let Some(port) = local_port(&ctx)
        // SAFETY: the daemon may change the entry meanwhile, by a whole word.
        && let Some(socket) = unsafe { STEERED.get(port) }
    {
        // Where there is no such socket, or another program has chosen one, it stays as it was.
        let _ = RELAY_SOCKETS.redirect_sk_lookup(&ctx, *socket, 0);
    }
    PASS
}

/// The port that a datagram is for.
#[inline(always)]
fn local_port(ctx: &SkLookupContext) -> Option<SteeredPort> {
    if word::<{ offset_of!(bpf_sk_lookup, protocol) }>(ctx) != UDP {
        return None;
    }
    let port = word::<{ offset_of!(bpf_sk_lookup, local_port) }>(ctx) as u16;
    match word::<{ offset_of!(bpf_sk_lookup, family) }>(ctx) {
        INET => {
            let address = word::<{ offset_of!(bpf_sk_lookup, local_ip4) }>(ctx);
            Some(SteeredPort::v4(address.to_ne_bytes(), port))
        }
        INET6 => {
            const ADDRESS: usize = offset_of!(bpf_sk_lookup, local_ip6);
            let words = [
                word::<ADDRESS>(ctx),
                word::<{ ADDRESS + 4 }>(ctx),
                word::<{ ADDRESS + 8 }>(ctx),
                word::<{ ADDRESS + 12 }>(ctx),
            ];
            // SAFETY: any four words are sixteen bytes.
            let address = unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(words) };
            Some(SteeredPort::v6(address, port))
        }
        _ => None,
    }
}

/// A word of the kernel's context, as it lies there, by one load with a constant offset: the verifier takes no other, and
/// the compiler would make one load of two branches'.
#[inline(always)]
fn word<const AT: usize>(ctx: &SkLookupContext) -> u32 {
    const { assert!(AT + size_of::<u32>() <= size_of::<bpf_sk_lookup>()) };
    #[cfg(target_arch = "bpf")]
    {
        let value: u64;
        // SAFETY: the kernel's context, live while the program runs; the word is inside of it.
        unsafe {
            core::arch::asm!(
                "{value} = *(u32 *)({at} + {offset})",
                value = out(reg) value, at = in(reg) ctx.lookup, offset = const AT,
                options(readonly, nostack),
            );
        }
        value as u32
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as above.
    unsafe {
        ctx.lookup.byte_add(AT).cast::<u32>().read()
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
