//! Traces of single packets: what can be chosen, and what a packet that was chosen tells. Values only; the dataplane
//! makes them, operators ask for them.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

/// Which packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Those from an address.
    Source(IpAddr),
    /// Those that come from or go to an address and port, as they arrive or as they leave.
    Flow(SocketAddr),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Source(address) => write!(f, "source {address}"),
            Self::Flow(address) => write!(f, "flow {address}"),
        }
    }
}

/// Longest trace.
pub const LONGEST: Duration = Duration::from_secs(3600);

/// What an operator wants. One trace runs at a time; another one takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceOrder {
    /// Trace these packets for so long.
    Begin {
        /// Which.
        target: Target,
        /// How long, [`LONGEST`] at most.
        lasts: Duration,
    },
    /// No longer.
    End,
    /// Tell of the packets after this one.
    Show {
        /// The number of the last one that is known.
        after: u64,
    },
}

/// One end of a packet's way through us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Where from; port 0 where ports are not read.
    pub from: SocketAddr,
    /// Where to.
    pub to: SocketAddr,
    /// Length of the frame.
    pub frame_bytes: u32,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracedPacket {
    /// Name of the outcome.
    pub outcome: &'static str,
    /// Number of the interface that it came in by.
    pub ifindex: u32,
    /// As it came.
    pub arrived: Ends,
    /// As it left; `None`: as it came, or not at all.
    pub left: Option<Ends>,
}

/// A packet in the order in which they were told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracedLine {
    /// Its number since the daemon started, from 1.
    pub number: u64,
    /// When the daemon heard of it.
    pub heard: SystemTime,
    /// The packet.
    pub packet: TracedPacket,
}

/// How a trace stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceView {
    /// What is traced now, and until when.
    pub running: Option<(Target, SystemTime)>,
    /// Packets of this trace, or the last one, that were not told of because there were too many.
    pub suppressed: u64,
    /// Number of the last packet of all.
    pub last: u64,
    /// Packets, as many as are still kept.
    pub lines: Vec<TracedLine>,
}
