//! What the kernel program costs: packets per second beside what an operator could use instead, nanoseconds per
//! packet by feature and number of flows, and what the guard costs.

pub mod contender;
pub mod flood;
pub mod frames;
pub mod guard;
pub mod host;
pub mod kernel;
pub mod live;
pub mod memory;
pub mod ng;
pub mod rate;
pub mod report;
pub mod run;
pub mod sweep;
pub mod testbed;

/// Bytes of a G.711 packet of 20 ms in RTP, UDP, IPv4 and Ethernet.
pub const FRAME_BYTES: usize = 214;
