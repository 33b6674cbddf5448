//! Frames that are really sent: live frames of a test run of a program that writes them.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Result;
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, XdpMode};
use nix::sys::resource::{UsageWho, getrusage};
use sbc_tests::netns::{End, Namespace, connect};

use super::FRAME_BYTES;
use super::frames::{self, Lane};
use super::kernel::{Loaded, object};

/// Frames under way at once.
const BATCH: u32 = 64;

/// Who sends by an interface.
pub struct Source {
    loaded: Loaded,
    program: &'static str,
    context: [u8; 24],
    frame: [u8; FRAME_BYTES],
}

impl Source {
    /// RTP of a number of flows.
    ///
    /// # Errors
    /// If the kernel refuses something.
    pub fn rtp(namespace: &Namespace, interface: &str, flows: u32) -> Result<Self> {
        Self::new(namespace, interface, "generate", flows, [0; FRAME_BYTES])
    }

    /// SIP requests to a socket, from a number of sources.
    ///
    /// # Errors
    /// If the kernel refuses something.
    pub fn sip(namespace: &Namespace, interface: &str, sources: u32, to: (Ipv4Addr, u16)) -> Result<Self> {
        let mut source = Self::new(namespace, interface, "flood", sources, frames::sip_frame())?;
        let lanes: Vec<Lane> =
            (0..sources).map(|flow| frames::lane(flow, to.0, to.1, &frames::SIP)).collect();
        source.set_lanes(&lanes)?;
        Ok(source)
    }

    fn new(
        namespace: &Namespace,
        interface: &str,
        program: &'static str,
        flows: u32,
        frame: [u8; FRAME_BYTES],
    ) -> Result<Self> {
        let mut loaded = Loaded::new(&object("SBC_BENCH_OBJECT")?, 1, &[("FLOW_COUNT", flows)])?;
        // The kernel takes tens of milliseconds to begin and to end a test run of a program that is attached nowhere.
        let end = |interface| End { namespace, interface, addresses: &[] };
        connect(end("idle0"), end("idle1"))?;
        let attached = loaded.program(program)?;
        namespace.enter(|| attached.attach("idle0", XdpMode::Driver))??;
        let context = live_context(namespace.interface_index(interface)?);
        Ok(Self { loaded, program, context, frame })
    }

    /// From now on the flows are these.
    ///
    /// # Errors
    /// If the map refuses.
    pub fn set_lanes(&mut self, lanes: &[Lane]) -> Result<()> {
        self.loaded.set_lanes(lanes)
    }

    /// Sends frames, each of the next flow, and says how long the kernel took. To be called in the namespace.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn send(&mut self, frames: u32) -> Result<Duration> {
        let run = self.loaded.program(self.program)?.test_run(TestRunOptions {
            data_in: Some(&self.frame),
            ctx_in: Some(&self.context),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        })?;
        Ok(run.duration * frames)
    }
}

/// How often something else ran in place of this thread. That it waits by itself, before and after the loop, is none.
pub(super) fn preemptions() -> Result<i64> {
    Ok(getrusage(UsageWho::RUSAGE_THREAD)?.involuntary_context_switches())
}

/// Lets other work on the machine wait for this thread, not for what it starts, where that is allowed; else more turns
/// are void.
pub(super) fn prefer_this_thread() {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: changes how the calling thread is scheduled and nothing else.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const priority) };
}

/// `struct xdp_md` of a frame on an interface: data, end of data, metadata, interface, queue, egress interface.
fn live_context(interface: u32) -> [u8; 24] {
    let mut context = [0; 24];
    for (field, value) in context.chunks_exact_mut(4).zip([0, FRAME_BYTES as u32, 0, interface, 0, 0]) {
        field.copy_from_slice(&value.to_ne_bytes());
    }
    context
}
