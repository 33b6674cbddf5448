//! The test harness: network namespaces, real SIP clients, captures. `cargo xtask demo` stands on it as well.
//!
//! Everything that it makes outside this process (namespaces, child processes) is undone when its value is dropped,
//! also on a panic, on Ctrl-C and on SIGTERM; see [`cleanup`].

pub mod baresip;
pub mod certs;
pub mod cleanup;
pub mod netns;
pub mod pcap;
pub mod process;
pub mod rtp;
pub mod sbc;
pub mod sipp;
pub mod streams;

/// Says that a test did not run, in the one form that `cargo xtask test` counts; the test returns after it.
#[allow(clippy::print_stdout)]
pub fn skip(test: &str, reason: &str) {
    println!("SKIP: {test}: {reason}");
}

/// Whether this process may make namespaces and load kernel objects.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
