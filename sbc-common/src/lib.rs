//! What the XDP programs and the daemon share: map layouts, numbered outcomes, names, limits, and pure packet
//! functions that are compiled and tested on both sides.
//!
//! What may live here: values and functions over them, `core` only, no allocation. What may not: I/O, map access,
//! anything that knows a call. Addresses and ports are byte arrays in network order, so that `bpftool map dump`
//! shows them as a person reads them; every layout is locked by a test, because two programs compiled at different
//! times read it.

#![no_std]

pub mod addr;
pub mod checksum;
pub mod config;
pub mod counter;
pub mod event;
pub mod first_line;
pub mod flow;
pub mod flow6;
pub mod guard;
pub mod limits;
pub mod names;
pub mod next_hop;
pub mod rtp;
pub mod steer;
pub mod stream;
pub mod trace;
pub mod window;

#[cfg(feature = "user")]
mod pod;
