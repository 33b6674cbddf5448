//! `cargo xtask bench dataplane`: packets per second beside a bare redirect, and nanoseconds per packet. The last line
//! of stdout is the result; it passes if the relay reaches its part of the bare redirect.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use anyhow::Result;
use sbc_bench::dataplane::{rate, run};

/// At least this part of the bare redirect's rate.
const OF_BARE_REDIRECT: f64 = 0.85;

const FLOWS: [u32; 3] = [1000, 65_536, 262_144];

fn main() -> ExitCode {
    if !sbc_tests::is_root() {
        eprintln!("error: needs root, for namespaces and kernel programs");
        return ExitCode::from(3);
    }
    match measure() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("wanted: {OF_BARE_REDIRECT} of the bare redirect");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<bool> {
    let rate::Rates { bare_redirect_mpps, xdp_relay_mpps } = rate::measure()?;
    let ratio = xdp_relay_mpps / bare_redirect_mpps;
    eprintln!("bare redirect {bare_redirect_mpps:.3} Mpps, relay {xdp_relay_mpps:.3} Mpps: {ratio:.3} of it");
    let (mut plain, mut wrapper) = (serde_json::Map::new(), serde_json::Map::new());
    for flows in FLOWS {
        let cost = run::cost(flows)?;
        eprintln!(
            "{flows:>7} flows: {} ns per packet, {} ns of them for choosing the flow and writing its headers",
            cost.with_wrapper_ns, cost.wrapper_ns
        );
        plain.insert(flows.to_string(), cost.with_wrapper_ns.into());
        wrapper.insert(flows.to_string(), cost.wrapper_ns.into());
    }
    let round = |value: f64| (value * 1e3).round() / 1e3;
    let result = serde_json::json!({
        "schema": 1,
        "bare_redirect_mpps": round(bare_redirect_mpps),
        "xdp_relay_mpps": round(xdp_relay_mpps),
        "ns_per_packet": { "plain": plain, "wrapper": wrapper },
    });
    println!("{result}");
    Ok(ratio >= OF_BARE_REDIRECT)
}
