//! What it costs to refuse a denied source, beside a program that drops everything without looking.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use aya::programs::XdpMode;
use sbc_common::counter::Counter;
use sbc_common::names::PROGRAM;
use sbc_tests::netns::{End, Namespace, connect};

use super::frames::sip_frame;
use super::kernel::{Loaded, object};
use super::live::{Source, preemptions, prefer_this_thread};
use super::run;

/// Forged sources of a flood.
pub const SOURCES: u32 = 1000;
/// The SIP socket that is flooded.
const SIP: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 0, 0, 1), 5060);
/// Turns of each program, and frames in each.
const TURNS: usize = 16;
const BURST: u32 = 65_536;

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Guard {
    /// Nanoseconds for a frame of a denied source.
    pub drop_ns: u64,
    /// Nanoseconds for the same frame in the bare program.
    pub bare_drop_ns: u64,
    /// Million frames per second of denied sources over a virtual link.
    pub drop_mpps: f64,
    /// The same into the bare program.
    pub bare_drop_mpps: f64,
}

impl Guard {
    /// Nanoseconds more than the bare program.
    pub fn over_bare_ns(&self) -> f64 {
        self.drop_ns as f64 - self.bare_drop_ns as f64
    }
}

/// Measures.
///
/// # Errors
/// If the kernel refuses something, or a frame was not dropped for the reason expected.
pub fn measure() -> Result<Guard> {
    let (drop_ns, bare_drop_ns) = cost(SOURCES)?;
    let [drop_mpps, bare_drop_mpps] = rates()?;
    Ok(Guard { drop_ns, bare_drop_ns, drop_mpps, bare_drop_mpps })
}

/// Nanoseconds for a frame of one of so many denied sources by chance, and in the bare program.
///
/// # Errors
/// As [`measure`].
pub fn cost(sources: u32) -> Result<(u64, u64)> {
    let mut bench = Loaded::new(&object("SBC_BENCH_OBJECT")?, 1, &[("FLOW_COUNT", sources)])?;
    bench.deny(sources, SIP)?;
    let [drop_ns, bare_drop_ns] =
        run::fastest(&mut bench, ["pick_and_refuse", "pick_and_drop"], &sip_frame())?;
    let denied = bench.counted(Counter::DropDenied.number())?;
    ensure!(denied == run::EXPECTED, "{denied} of {} frames were refused", run::EXPECTED);
    Ok((drop_ns, bare_drop_ns))
}

/// Million frames per second that the guard and the bare program drop, from a source at full rate.
fn rates() -> Result<[f64; 2]> {
    let (far, sbc) = (Namespace::create("bench-flood")?, Namespace::create("bench-guard")?);
    for namespace in [&far, &sbc] {
        namespace.sysctl("ipv6/conf/default/disable_ipv6", "1")?;
    }
    let end = |namespace, interface| End { namespace, interface, addresses: &[] };
    connect(end(&far, "src"), end(&sbc, "in0"))?;
    let mut source = Source::sip(&far, "src", SOURCES, SIP)?;
    let mut guard = Loaded::new(&object("SBC_EBPF_OBJECT")?, 1, &[])?;
    guard.deny(SOURCES, SIP)?;
    let mut bare = Loaded::new(&object("SBC_BENCH_OBJECT")?, 1, &[])?;

    let mut best = [None::<f64>; 2];
    far.enter(|| -> Result<()> {
        prefer_this_thread();
        for _ in 0..TURNS {
            for (at, best) in best.iter_mut().enumerate() {
                let (loaded, name) = if at == 0 { (&mut guard, PROGRAM) } else { (&mut bare, "bare_drop") };
                let program = loaded.program(name)?;
                let link = sbc.enter(|| program.attach("in0", XdpMode::Driver))??;
                let before = (preemptions()?, dropped(&sbc)?);
                let elapsed = source.send(BURST)?;
                let after = (preemptions()?, dropped(&sbc)?);
                loaded.program(name)?.detach(link)?;
                if before.0 == after.0 && after.1 - before.1 == u64::from(BURST) {
                    *best = Some(best.unwrap_or(0.0).max(f64::from(BURST) / elapsed.as_secs_f64() / 1e6));
                }
            }
        }
        Ok(())
    })??;
    let denied = guard.counted(Counter::DropDenied.number())?;
    ensure!(denied > 0 && denied % u64::from(BURST) == 0, "{denied} frames were refused");
    let void = || format!("all {TURNS} turns were void: the machine is too busy, or frames are lost");
    let [guard, bare] = best;
    Ok([guard.with_context(void)?, bare.with_context(void)?])
}

/// Frames that XDP programs dropped on the interface, whatever the program.
fn dropped(namespace: &Namespace) -> Result<u64> {
    xdp_drops(&namespace.run("ethtool", &["-S", "in0"])?)
}

/// The sum over the queues in what ethtool says of a veth.
fn xdp_drops(statistics: &str) -> Result<u64> {
    let mut drops = None;
    for line in statistics.lines() {
        if let Some((name, value)) = line.split_once(':')
            && name.trim().starts_with("rx_queue_")
            && name.ends_with("_xdp_drops")
        {
            drops = Some(drops.unwrap_or(0) + value.trim().parse::<u64>()?);
        }
    }
    drops.context("ethtool shows no dropped frames")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_of_all_queues_count() {
        let said = "NIC statistics:\n     peer_ifindex: 7\n     rx_queue_0_xdp_packets: 12\n     \
                    rx_queue_0_xdp_drops: 10\n     rx_queue_1_xdp_drops: 4\n     tx_queue_0_xdp_xmit: 3\n";
        assert_eq!(xdp_drops(said).unwrap(), 14);
        assert!(xdp_drops("NIC statistics:\n     peer_ifindex: 7\n").is_err());
    }
}
