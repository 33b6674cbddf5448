//! Whole calls through the engine, between two user agents that know nothing of it.
//!
//! Every scenario ends with nothing left: no call, transaction, timer, port or plan, and one record per call.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

#[path = "../pair/mod.rs"]
mod pair;

mod chance;
mod changes;
mod families;
mod guard;
mod learning;
mod mux;
mod pinholes;
mod quality;
mod races;
mod refusals;
mod requests;
mod restart;
mod setup;
mod silence;
mod streams;
mod topology;

use pair::{Pair, sdp};
use sbc_core::config::{MediaSourceRule, TrunkMedia};

/// What A offers unless the scenario is about it.
pub fn offer() -> String {
    sdp("198.51.100.10", 40000, "0 8 101", "")
}

/// What B answers unless the scenario is about it.
pub fn answer() -> String {
    sdp("10.9.0.20", 50000, "8 101", "")
}

/// A trunk whose peers sit behind NAT.
pub fn learned() -> TrunkMedia {
    TrunkMedia { source: MediaSourceRule::Address, ..TrunkMedia::default() }
}

/// Names and addresses of each side, as the other must never see them.
pub fn assert_hidden(pair: &Pair) {
    let of_b = ["10.9.0.", "pbx.internal", "bob-ua", "bob-server", &pair.b.call_id, &pair.b.local_tag];
    let of_a = [
        "198.51.100.",
        "203.0.113.",
        "carrier.example",
        "alice-ua",
        "alice-server",
        &pair.a.call_id,
        &pair.a.local_tag,
    ];
    for (messages, secrets) in [(&pair.to_a, &of_b[..]), (&pair.to_b, &of_a[..])] {
        for message in messages {
            for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
                assert!(!message.contains(secret), "{secret} in {message}");
            }
        }
    }
}
