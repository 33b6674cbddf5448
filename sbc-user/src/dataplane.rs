//! The dataplane seam: what carries media, as the event loop sees it.
//!
//! Three implementations: the XDP programs, the userspace relay, and a fake for tests. One conformance suite runs
//! against all of them, so a behaviour that the engine relies on is written there, not here.

mod carrier;
pub mod conformance;
mod counters;
pub mod fake;
pub mod planes;
mod prime;
pub mod relay;
mod relay_reason;
mod send_once;
pub mod xdp;

use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use sbc_core::guard::{Denial, GuardCommand, GuardEvent, Source};
use sbc_core::id::{CallId, OpId};
use sbc_core::media::command::{MediaCommand, MediaEvent, MediaResult, StreamCounters};
use sbc_core::media::plan::{MediaPlan, Placement};

use crate::trace::{TraceOrder, TraceView};

/// What a dataplane counted, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Packets by outcome.
    pub outcomes: Vec<(&'static str, u64)>,
    /// Streams that went to the relay, by the reason why the kernel does not carry them.
    pub relay_streams: Vec<(&'static str, u64)>,
}

/// What carries media.
///
/// Synchronous: a map write or a `sendto` is a system call that does not wait. What does have to be waited for (a
/// next hop that must be resolved) is bounded, and its result arrives through [`Dataplane::poll_event`].
///
/// Contract: after `apply` or `handle_timeout` the caller drains `poll_event` to `None`, then asks `poll_timeout`.
/// Each `apply` is answered by exactly one [`DataplaneEvent::Done`] with its `op`; commands of one call are answered
/// in order.
pub trait Dataplane {
    /// Carry out a command, all of it or nothing.
    fn apply(&mut self, now: Instant, op: OpId, command: MediaCommand);

    /// The next thing to tell the engine.
    fn poll_event(&mut self) -> Option<DataplaneEvent>;

    /// When `handle_timeout` wants to be called next.
    fn poll_timeout(&self) -> Option<Instant>;

    /// The time named by `poll_timeout` has come, or a descriptor of the implementation became readable.
    fn handle_timeout(&mut self, now: Instant);

    /// Counters of a call's streams so far, in the plan's order; empty if it has no plan here.
    fn counters(&self, call: CallId) -> Vec<StreamCounters>;

    /// Carry out a command of the guard. One that has no guard of its own does nothing: the engine's holds.
    fn guard(&mut self, _command: &GuardCommand) {}

    /// Carry out an operator's order about a trace.
    ///
    /// # Errors
    /// Why it cannot be, for the operator.
    fn trace(&mut self, _now: Instant, _order: TraceOrder) -> Result<TraceView, String> {
        Err("no interface runs the XDP program: there is nothing to trace".to_owned())
    }

    /// Who is denied here, from before the guard was set up.
    fn denied(&self) -> Vec<Denial> {
        Vec::new()
    }

    /// Packets dropped so far because their source is denied.
    fn denied_packets(&self, _source: Source) -> u64 {
        0
    }

    /// What another one would need to carry the call's plan on; `None` if it has none here.
    fn checkpoint(&self, _call: CallId) -> Option<MediaCheckpoint> {
        None
    }

    /// Compares everything that should be in force with what is, and mends it. What differed.
    fn reconcile(&mut self) -> Vec<Difference> {
        Vec::new()
    }

    /// The calls that have a plan here.
    fn snapshot(&self) -> Vec<CallId>;
}

/// Something that was not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What it is: a slot, an address, a next hop, a device, a link.
    pub object: &'static str,
    /// Which.
    pub subject: String,
    /// How it was.
    pub found: String,
    /// Whether it is as it should be now.
    pub mended: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, subject, found, mended } = self;
        write!(f, "{object} {subject} {found}{}", if *mended { "; mended" } else { "; NOT mended" })
    }
}

/// A plan in force, with what its carrier knows of it besides. It outlives the daemon in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaCheckpoint {
    /// The plan.
    pub plan: MediaPlan,
    /// What carries each stream, in the plan's order.
    pub placements: Vec<Placement>,
    /// The RTP and the RTCP pair of the streams that the kernel carries, by m-line.
    pub kernel: Vec<(u8, [KernelPair; 2])>,
}

/// A pair of slots: the caller's and the callee's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelPair {
    /// Its generation.
    pub generation: u32,
    /// Sources that were learned in an earlier generation and still count.
    pub kept: [Option<SocketAddr>; 2],
    /// What the slots had counted before they were the call's, as the kernel's part orders it.
    pub base: [Vec<u64>; 2],
}

impl MediaCheckpoint {
    /// The even ports of the plan.
    #[must_use]
    pub fn ports(&self) -> Vec<SocketAddr> {
        let sides = self.plan.streams.iter().flat_map(|stream| [&stream.caller, &stream.callee]);
        sides.map(|side| SocketAddr::new(side.local_ip, side.local_rtp_port)).collect()
    }
}

/// What a dataplane tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataplaneEvent {
    /// The answer to a command.
    Done {
        /// The command's operation.
        op: OpId,
        /// What came of it.
        result: MediaResult,
    },
    /// Something it noticed.
    Media(MediaEvent),
    /// Something its guard noticed.
    Guard(GuardEvent),
}
