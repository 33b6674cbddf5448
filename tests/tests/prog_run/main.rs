//! The XDP program by `BPF_PROG_TEST_RUN`: packet in, action, packet out, what was counted.
//!
//! Needs root and a kernel object, no network. The same binary runs in a virtual machine on the oldest kernel that is
//! supported.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_in_result,
    clippy::unwrap_used,
    reason = "in a test a failed step is a failed test"
)]

mod guard;
mod kernel;
mod learning;
mod local;
mod muxed;
mod packet;
mod properties;
mod steer;
mod streams;
mod table;
mod trace;
mod v6;
mod world;
