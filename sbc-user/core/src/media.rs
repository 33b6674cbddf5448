//! Media as the engine sees it: which party may send from where to where, through which ports of ours.

pub mod command;
pub mod latch;
pub mod plan;
pub mod ports;
pub mod quality;
pub mod rtcp;
