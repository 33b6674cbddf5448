//! Packets per second over veth, the relay and a bare redirect in turns.
//!
//! ```text
//!   far: source ══ in0 [program under test] sbc out0 ══ sink: far
//! ```
//! The source sends live frames of a test run, which rewrite the whole header each time: buffers come back as the last
//! program left them. One CPU does all the work, so a rate contains the source's and the sink's cost; the ratio of two
//! rates is therefore a little kinder than that of the programs alone, and the same on every machine.

use std::time::Instant;

use anyhow::{Result, ensure};
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, XdpMode};
use sbc_common::counter::Counter;
use sbc_common::names::PROGRAM;
use sbc_tests::netns::{End, Namespace, connect};

use super::FRAME_BYTES;
use super::kernel::{Loaded, object};

const FLOWS: u32 = 1000;
const FRAMES: u32 = 200_000;
const TURNS: usize = 30;
/// Frames that the source has under way at once.
const BATCH: u32 = 64;
/// Entry of `COUNTERS` in which the sink counts.
const RECEIVED: u32 = 127;

/// Millions of packets per second, of the fastest turn of each: whatever else the machine does only adds time.
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
    connect(end(&far, "source"), end(&sbc, "in0"))?;
    connect(end(&sbc, "out0"), end(&far, "sink"))?;
    let (ingress, egress) = (sbc.interface_index("in0")?, sbc.interface_index("out0")?);

    let bench_object = object("SBC_BENCH_OBJECT")?;
    let mut relay = Loaded::new(&object("SBC_EBPF_OBJECT")?, FLOWS, &[])?;
    let mut bare = Loaded::new(&bench_object, FLOWS, &[("EGRESS", egress)])?;
    let mut ends = Loaded::new(&bench_object, FLOWS, &[("FLOW_COUNT", FLOWS)])?;
    sbc.enter(|| -> Result<()> {
        relay.install(FLOWS, ingress, egress, egress)?;
        bare.add_device(egress, egress)
    })??;
    far.enter(|| -> Result<()> {
        ends.program("sink")?.attach("sink", XdpMode::Driver)?;
        Ok(())
    })??;
    let mut source = Source { far: &far, interface: far.interface_index("source")?, ends };

    let mut best = [0.0f64; 2];
    for _ in 0..TURNS {
        for (best, (loaded, program)) in
            best.iter_mut().zip([(&mut bare, "bare_redirect"), (&mut relay, PROGRAM)])
        {
            let link =
                sbc.enter(|| -> Result<_> { Ok(loaded.program(program)?.attach("in0", XdpMode::Driver)?) })??;
            let before = loaded.counted(Counter::ForwardOther.number())?;
            *best = source.send()?.max(*best);
            if program == PROGRAM {
                let forwarded = loaded.counted(Counter::ForwardOther.number())? - before;
                ensure!(forwarded == u64::from(FRAMES), "{forwarded} of {FRAMES} frames were forwarded");
            }
            loaded.program(program)?.detach(link)?;
        }
    }
    let [bare_redirect_mpps, xdp_relay_mpps] = best;
    Ok(Rates { bare_redirect_mpps, xdp_relay_mpps })
}

/// The far end: where frames come from and where they end.
struct Source<'a> {
    far: &'a Namespace,
    interface: u32,
    ends: Loaded,
}

impl Source<'_> {
    /// Sends the frames; how many millions per second arrived at the sink.
    fn send(&mut self) -> Result<f64> {
        let before = self.ends.counted(RECEIVED)?;
        let context = live_context(self.interface);
        let ends = &mut self.ends;
        let elapsed = self.far.enter(|| -> Result<_> {
            let start = Instant::now();
            ends.program("generate")?.test_run(TestRunOptions {
                data_in: Some(&[0; FRAME_BYTES]),
                ctx_in: Some(&context),
                repeat: FRAMES,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::new()
            })?;
            Ok(start.elapsed())
        })??;
        let received = self.ends.counted(RECEIVED)? - before;
        ensure!(received == u64::from(FRAMES), "{received} of {FRAMES} frames arrived");
        Ok(f64::from(FRAMES) / elapsed.as_secs_f64() / 1e6)
    }
}

/// `struct xdp_md` of a frame on an interface: data, end of data, metadata, interface, queue, egress interface.
fn live_context(interface: u32) -> [u8; 24] {
    let mut context = [0; 24];
    for (field, value) in context.chunks_exact_mut(4).zip([0, FRAME_BYTES as u32, 0, interface, 0, 0]) {
        field.copy_from_slice(&value.to_ne_bytes());
    }
    context
}
