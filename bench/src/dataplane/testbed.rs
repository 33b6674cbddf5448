//! The one network that every contender stands in, and who sends and counts.
//!
//! ```text
//!   far: src ══ in0 [the contender] out0 ══ sink :far
//! ```
//! `src` sends live frames of a test run, `sink` counts and drops them in an XDP program. The kernel carries a frame
//! on the CPU that sent it as far as it can, so a rate contains the cost of sending and counting, the same for all:
//! a ratio of two rates is a little kinder than that of the contenders alone. A contender that does all its work there
//! holds up the sender, and nothing is lost; one with a process behind sockets may lose.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use aya::programs::XdpMode;
use sbc_tests::netns::{End, Namespace, connect};
use sbc_tests::pcap::{Capture, Packet};
use sbc_tests::process::Scratch;

use super::frames::Lane;
use super::kernel::{Loaded, object};
use super::live::{Source, preemptions, prefer_this_thread};
use super::sweep::Turn;

/// Where the contender gets frames, and where it sends them from.
pub const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The interface on which they arrive.
pub const INGRESS: &str = "in0";
/// The interface by which they leave.
pub const EGRESS: &str = "out0";

/// Frames of an offer at full rate.
const BURST: u32 = 65_536;
/// How often a paced source sends, and how many frames at least and at most.
const PACE: Duration = Duration::from_micros(500);
const CHUNKS: (f64, f64) = (8.0, 8192.0);
/// How long a paced offer lasts: before anything counts, and while it does.
const SETTLING: Duration = Duration::from_millis(60);
const COUNTING: Duration = Duration::from_millis(250);
/// Entry of `COUNTERS` in which the sink counts.
const RECEIVED: u32 = 127;

/// The network, the source and the sink.
pub struct Testbed {
    /// Where the contenders are.
    pub sbc: Namespace,
    far: Arc<Namespace>,
    source: Source,
    sink: Loaded,
    flows: u32,
}

impl Testbed {
    /// Makes it, for a number of flows.
    ///
    /// # Errors
    /// If the kernel refuses something.
    pub fn create(flows: u32) -> Result<Self> {
        let (far, sbc) = (Namespace::create("bench-far")?, Namespace::create("bench-sbc")?);
        for namespace in [&far, &sbc] {
            // Nothing but our frames is to arrive at the sink.
            namespace.sysctl("ipv6/conf/default/disable_ipv6", "1")?;
        }
        let end = |namespace, interface, addresses| End { namespace, interface, addresses };
        connect(end(&far, "src", &[]), end(&sbc, INGRESS, &["10.0.0.1/24"]))?;
        connect(end(&sbc, EGRESS, &["10.9.0.1/24"]), end(&far, "sink", &[]))?;
        // The frames are addressed to this one, and everybody beyond the sink is behind one gateway.
        sbc.run("ip", &["link", "set", "dev", INGRESS, "address", "02:00:00:00:00:01"])?;
        sbc.add_neighbour(EGRESS, "10.9.0.2", [2, 0, 0, 0, 0, 3])?;
        sbc.run("ip", &["route", "add", "198.18.0.0/15", "via", "10.9.0.2", "dev", EGRESS])?;
        for (key, value) in [
            ("ipv4/ip_forward", "1"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/in0/rp_filter", "0"),
            ("ipv4/conf/out0/rp_filter", "0"),
        ] {
            sbc.sysctl(key, value)?;
        }
        let source = Source::rtp(&far, "src", flows)?;
        let sink = Loaded::new(&object("SBC_BENCH_OBJECT")?, 1, &[])?;
        Ok(Self { sbc, far: Arc::new(far), source, sink, flows })
    }

    /// Runs `f` on a thread of its own at the far end, where it may send, before other work of the machine.
    ///
    /// # Errors
    /// If the namespace cannot be entered, or `f` fails.
    pub fn run<T: Send>(&mut self, f: impl FnOnce(&mut Self) -> Result<T> + Send) -> Result<T> {
        let far = self.far.clone();
        far.enter(|| {
            prefer_this_thread();
            f(self)
        })?
    }

    /// From now on the flows are these.
    ///
    /// # Errors
    /// If the map refuses.
    pub fn set_lanes(&mut self, lanes: &[Lane]) -> Result<()> {
        self.source.set_lanes(lanes)
    }

    /// One frame of each flow, as they arrive at the far end. Only while nobody counts there.
    ///
    /// # Errors
    /// If they cannot be captured.
    pub fn sample(&mut self, scratch: &Scratch) -> Result<Vec<Packet>> {
        let capture = Capture::start(&self.far, "sink", scratch)?;
        self.source.send(self.flows)?;
        capture.finish()
    }

    /// Counts what arrives at the far end from now on.
    ///
    /// # Errors
    /// If the kernel refuses the program.
    pub fn count(&mut self) -> Result<()> {
        self.sink.program("sink")?.attach("sink", XdpMode::Driver)?;
        Ok(())
    }

    /// Sends every flow's first frames, and waits until nothing arrives any more.
    ///
    /// # Errors
    /// If the kernel refuses something.
    pub fn warm_up(&mut self) -> Result<()> {
        self.source.send(4 * self.flows)?;
        self.drain()
    }

    /// Offers as much as goes. `None` if something else ran on the CPU meanwhile.
    ///
    /// # Errors
    /// If the kernel refuses something.
    pub fn burst(&mut self) -> Result<Option<Turn>> {
        let (received, preempted) = (self.received()?, preemptions()?);
        let elapsed = self.source.send(BURST)?;
        let undisturbed = preemptions()? == preempted;
        let received = self.received()? - received;
        self.drain()?;
        Ok(undisturbed.then_some(Turn { sent: u64::from(BURST), received, elapsed }))
    }

    /// Offers some packets per second.
    ///
    /// # Errors
    /// If the kernel refuses something.
    pub fn offer(&mut self, pps: f64) -> Result<Turn> {
        let chunk = (pps * PACE.as_secs_f64()).clamp(CHUNKS.0, CHUNKS.1);
        let began = Instant::now();
        let (mut sent, mut counting) = (0, None);
        loop {
            let due = Duration::from_secs_f64(sent as f64 / pps);
            if let Some(early) = due.checked_sub(began.elapsed()) {
                std::thread::sleep(early);
            }
            let now = began.elapsed();
            match counting {
                None if now >= SETTLING => counting = Some((now, sent, self.received()?)),
                Some((since, sent_before, received_before)) if now >= since + COUNTING => {
                    let received = self.received()? - received_before;
                    let turn = Turn { sent: sent - sent_before, received, elapsed: began.elapsed() - since };
                    self.drain()?;
                    return Ok(turn);
                }
                None | Some(_) => {}
            }
            self.source.send(chunk as u32)?;
            sent += u64::from(chunk as u32);
        }
    }

    fn received(&mut self) -> Result<u64> {
        self.sink.counted(RECEIVED)
    }

    /// Waits until nothing arrives any more.
    fn drain(&mut self) -> Result<()> {
        const MOST: usize = 500;
        const QUIET: usize = 3;
        let (mut before, mut quiet) = (self.received()?, 0);
        for _ in 0..MOST {
            std::thread::sleep(Duration::from_millis(5));
            let now = self.received()?;
            quiet = if now == before { quiet + 1 } else { 0 };
            if quiet == QUIET {
                return Ok(());
            }
            before = now;
        }
        ensure!(false, "frames still arrive long after the last one was sent");
        Ok(())
    }
}
