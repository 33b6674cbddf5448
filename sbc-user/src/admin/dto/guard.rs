//! The guard's lists.

use serde::{Deserialize, Serialize};

use super::SCHEMA;
use super::calls::prefix;
use crate::clock::rfc3339;

/// `GET /v1/deny`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DenyList {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The one denied first before the others.
    pub denied: Vec<Denied>,
}

/// A denied source.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Denied {
    /// An IPv4 address or an IPv6 /64.
    pub source: String,
    /// `flood`, `malformed` or `scanner`.
    pub reason: String,
    /// `udp`: SIP over UDP only; `all`: SIP over every transport.
    pub scope: String,
    /// Since when.
    pub since: String,
    /// Until when; null: until it is removed.
    pub until: Option<String>,
    /// Packets that the kernel dropped because of it.
    pub packets: u64,
}

impl DenyList {
    /// Of what the event loop answered.
    #[must_use]
    pub fn new(denied: &[(sbc_core::guard::Denied, u64)]) -> Self {
        let one = |(denied, packets): &(sbc_core::guard::Denied, u64)| Denied {
            source: denied.source.to_string(),
            reason: denied.reason.name().to_owned(),
            scope: denied.scope.name().to_owned(),
            since: rfc3339(denied.since),
            until: denied.until.map(rfc3339),
            packets: *packets,
        };
        Self { schema: SCHEMA, denied: denied.iter().map(one).collect() }
    }
}

/// `GET /v1/allow` and `GET /v1/block`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Prefixes {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Addresses and prefixes, in the order in which they were added.
    pub prefixes: Vec<String>,
}

impl Prefixes {
    /// Of what the event loop answered.
    #[must_use]
    pub fn new(prefixes: &[sbc_core::config::Prefix]) -> Self {
        Self { schema: SCHEMA, prefixes: prefixes.iter().map(prefix).collect() }
    }
}

/// The answer to `PUT` and `DELETE`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Changed {
    /// [`SCHEMA`].
    pub schema: u32,
    /// How many entries it concerned.
    pub changed: usize,
}
