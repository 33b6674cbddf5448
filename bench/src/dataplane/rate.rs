//! Packets per second over veth, the relay and a bare redirect in turns.
//!
//! ```text
//!   far: bare-src  ══ bare0  [bare redirect] ╗
//!                                            ╠ sbc: out0 ══ sink :far
//!        relay-src ══ relay0 [the relay]     ╝
//! ```
//! The source sends live frames of a test run, which rewrite the whole header each time: buffers come back as the last
//! program left them. One CPU does all the work, so a rate contains the source's and the sink's cost; the ratio of two
//! rates is therefore a little kinder than that of the programs alone, and the same on every machine.
//!
//! The kernel times the loop. A turn counts only if nothing else ran on the CPU meanwhile and every frame arrived, and
//! the fastest counts: a busy machine makes turns void, not rates wrong.

use anyhow::{Context, Result};
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, XdpMode};
use nix::sys::resource::{UsageWho, getrusage};
use sbc_common::counter::Counter;
use sbc_common::names::PROGRAM;
use sbc_tests::netns::{End, Namespace, connect};

use super::FRAME_BYTES;
use super::kernel::{Loaded, object};

const FLOWS: u32 = 1000;
const FRAMES: u32 = 65_536;
const TURNS: usize = 60;
/// Frames that the source has under way at once.
const BATCH: u32 = 64;
/// Entry of `COUNTERS` in which the sink counts.
const RECEIVED: u32 = 127;

/// Millions of packets per second, of the fastest turn of each.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// A program that redirects and does nothing else.
    pub bare_redirect_mpps: f64,
    /// The relay.
    pub xdp_relay_mpps: f64,
}

/// Measures.
///
/// # Errors
/// If the kernel refuses something, or packets were lost.
pub fn measure() -> Result<Rates> {
    let (far, sbc) = (Namespace::create("bench-far")?, Namespace::create("bench-sbc")?);
    for namespace in [&far, &sbc] {
        // Nothing but our frames is to arrive at the sink.
        namespace.sysctl("ipv6/conf/default/disable_ipv6", "1")?;
    }
    let end = |namespace, interface| End { namespace, interface, addresses: &[] };
    connect(end(&far, "bare-src"), end(&sbc, "bare0"))?;
    connect(end(&far, "relay-src"), end(&sbc, "relay0"))?;
    connect(end(&sbc, "out0"), end(&far, "sink"))?;
    let egress = sbc.interface_index("out0")?;

    let bench_object = object("SBC_BENCH_OBJECT")?;
    let mut relay = Loaded::new(&object("SBC_EBPF_OBJECT")?, FLOWS, &[])?;
    let mut bare = Loaded::new(&bench_object, FLOWS, &[("EGRESS", egress)])?;
    let mut ends = Loaded::new(&bench_object, FLOWS, &[("FLOW_COUNT", FLOWS)])?;
    let ingress = sbc.interface_index("relay0")?;
    sbc.enter(|| -> Result<()> {
        relay.install(FLOWS, ingress, egress, egress)?;
        bare.add_device(egress, egress)?;
        bare.program("bare_redirect")?.attach("bare0", XdpMode::Driver)?;
        relay.program(PROGRAM)?.attach("relay0", XdpMode::Driver)?;
        Ok(())
    })??;
    far.enter(|| -> Result<()> {
        ends.program("sink")?.attach("sink", XdpMode::Driver)?;
        Ok(())
    })??;

    let sources = [far.interface_index("bare-src")?, far.interface_index("relay-src")?];
    let mut best = [None::<u64>; 2];
    far.enter(|| -> Result<()> {
        prefer_this_thread();
        for _ in 0..TURNS {
            for (at, source) in sources.into_iter().enumerate() {
                let before = relay.counted(Counter::ForwardOther.number())?;
                let turn = turn(&mut ends, source)?;
                let forwarded = relay.counted(Counter::ForwardOther.number())? - before;
                if at == 0 || forwarded == u64::from(FRAMES) {
                    best[at] = best[at].into_iter().chain(turn).min();
                }
            }
        }
        Ok(())
    })??;
    let [bare_redirect_mpps, xdp_relay_mpps] = best.map(|ns| ns.map(|ns| 1e3 / ns as f64));
    let void = || format!("all {TURNS} turns were void: the machine is too busy, or frames are lost");
    Ok(Rates {
        bare_redirect_mpps: bare_redirect_mpps.with_context(void)?,
        xdp_relay_mpps: xdp_relay_mpps.with_context(void)?,
    })
}

/// Sends the frames of a turn from an interface of the far end. Nanoseconds per frame, if the turn counts.
fn turn(ends: &mut Loaded, source: u32) -> Result<Option<u64>> {
    let (received, preempted) = (ends.counted(RECEIVED)?, preemptions()?);
    let run = ends.program("generate")?.test_run(TestRunOptions {
        data_in: Some(&[0; FRAME_BYTES]),
        ctx_in: Some(&live_context(source)),
        repeat: FRAMES,
        attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
        ..TestRunOptions::new()
    })?;
    let undisturbed = preemptions()? == preempted;
    let complete = ends.counted(RECEIVED)? - received == u64::from(FRAMES);
    let ns = u64::try_from(run.duration.as_nanos())?;
    Ok((undisturbed && complete).then_some(ns))
}

/// How often something else ran in place of this thread. That it waits by itself, before and after the loop, is none.
fn preemptions() -> Result<i64> {
    Ok(getrusage(UsageWho::RUSAGE_THREAD)?.involuntary_context_switches())
}

/// Lets other work on the machine wait for this thread, where that is allowed; else more turns are void.
fn prefer_this_thread() {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: changes how the calling thread is scheduled and nothing else.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) };
}

/// `struct xdp_md` of a frame on an interface: data, end of data, metadata, interface, queue, egress interface.
fn live_context(interface: u32) -> [u8; 24] {
    let mut context = [0; 24];
    for (field, value) in context.chunks_exact_mut(4).zip([0, FRAME_BYTES as u32, 0, interface, 0, 0]) {
        field.copy_from_slice(&value.to_ne_bytes());
    }
    context
}
