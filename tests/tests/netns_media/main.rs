//! Media through the kernel between real sockets: a caller, the border and a callee, each in its own network
//! namespace, and no SIP. The receiving kernels verify every checksum.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is a failed test")]

mod hairpin;
mod latching;
mod passage;
mod start;
mod v6;
mod ways;
mod world;
