//! Nanoseconds per packet by `BPF_PROG_TEST_RUN`, every packet of another flow, so that the cache misses of a real
//! load are in it.

use anyhow::{Result, ensure};
use aya::programs::{TestRun, TestRunOptions};
use sbc_common::counter::Counter;

use super::FRAME_BYTES;
use super::kernel::{Feature, Loaded, Path, object};

const RUNS: u32 = 1_000_000;
/// Turns; the fastest counts, since whatever else the machine does only adds.
const TURNS: usize = 7;
/// Packets that each program of [`fastest`] gets.
pub(super) const EXPECTED: u64 = RUNS as u64 * TURNS as u64;
/// A test run's packets arrive on the loopback; behind the key of the egress stands the loopback again.
const LOOPBACK: u32 = 1;
const EGRESS: u32 = 77;

/// What a packet costs.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Choosing a flow, writing its headers and relaying the packet.
    pub with_wrapper_ns: u64,
    /// Choosing and writing alone. From IPv4 to IPv6 the relayed frame is cut to its old length in every run, which is not
    /// in this.
    pub wrapper_ns: u64,
}

/// Measures with a number of flows.
///
/// # Errors
/// If the kernel refuses something, or a packet was not forwarded.
pub fn cost(flows: u32, feature: Feature) -> Result<Cost> {
    let mut bench = Loaded::new(&object("SBC_BENCH_OBJECT")?, flows, &[("FLOW_COUNT", flows)])?;
    let path = Path { ingress: LOOPBACK, egress: EGRESS, device: LOOPBACK };
    bench.install(flows, |flow| flow, feature, path)?;
    let (programs, bytes) = match feature {
        Feature::Plain | Feature::Stats | Feature::Learned | Feature::V4ToV6 => {
            (["pick_and_relay", "pick"], FRAME_BYTES)
        }
        Feature::V6 => (["pick_and_relay6", "pick6"], FRAME_BYTES + 20),
    };
    let [with_wrapper_ns, wrapper_ns] = fastest(&mut bench, programs, &vec![0; bytes])?;
    let forwarded = bench.counted(Counter::ForwardOther.number())?;
    ensure!(forwarded == EXPECTED, "{forwarded} of {EXPECTED} packets were forwarded");
    Ok(Cost { with_wrapper_ns, wrapper_ns })
}

/// Nanoseconds of the fastest turn of each of two programs, in turns.
pub(super) fn fastest(bench: &mut Loaded, programs: [&str; 2], frame: &[u8]) -> Result<[u64; 2]> {
    let mut best = [u64::MAX; 2];
    for _ in 0..TURNS {
        for (best, program) in best.iter_mut().zip(programs) {
            let run = bench.program(program)?.test_run(TestRunOptions {
                data_in: Some(frame),
                repeat: RUNS,
                ..TestRunOptions::new()
            })?;
            *best = u64::try_from(run.duration.as_nanos())?.min(*best);
        }
    }
    Ok(best)
}
