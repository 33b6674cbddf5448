//! Traces of packets as JSON.

use serde::{Deserialize, Serialize};

use super::SCHEMA;
use crate::clock::rfc3339;
use crate::trace::TraceView;

/// `GET /v1/trace`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Trace {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What is traced now; null: nothing.
    pub target: Option<String>,
    /// Until when.
    pub until: Option<String>,
    /// Packets of this trace, or the last one, that were not told of because there were too many.
    pub suppressed: u64,
    /// Number of the last packet below; those after it are at `/v1/trace/after/<number>`.
    pub last: u64,
    /// The packets.
    pub packets: Vec<TracedLine>,
}

/// What became of a packet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TracedLine {
    /// Its number since the daemon started.
    pub number: u64,
    /// When the daemon heard of it.
    pub heard: String,
    /// Name of the outcome, as in the counters.
    pub outcome: String,
    /// Number of the interface that it came in by.
    pub interface: u32,
    /// Where from; port 0 where ports are not read.
    pub from: String,
    /// Where to.
    pub to: String,
    /// Length of the frame.
    pub frame_bytes: u32,
    /// The same as it left; null: as it came, or not at all.
    pub left: Option<TracedEnds>,
}

/// Where a packet left from, and where to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TracedEnds {
    /// Our address and port.
    pub from: String,
    /// The peer's.
    pub to: String,
    /// Length of the frame.
    pub frame_bytes: u32,
}

impl Trace {
    /// Of what the event loop answered.
    #[must_use]
    pub fn new(view: &TraceView) -> Self {
        let line = |line: &crate::trace::TracedLine| TracedLine {
            number: line.number,
            heard: rfc3339(line.heard),
            outcome: line.packet.outcome.to_owned(),
            interface: line.packet.ifindex,
            from: line.packet.arrived.from.to_string(),
            to: line.packet.arrived.to.to_string(),
            frame_bytes: line.packet.arrived.frame_bytes,
            left: line.packet.left.map(|left| TracedEnds {
                from: left.from.to_string(),
                to: left.to.to_string(),
                frame_bytes: left.frame_bytes,
            }),
        };
        Self {
            schema: SCHEMA,
            target: view.running.map(|(target, _)| target.to_string()),
            until: view.running.map(|(_, until)| rfc3339(until)),
            suppressed: view.suppressed,
            last: view.last,
            packets: view.lines.iter().map(line).collect(),
        }
    }
}
