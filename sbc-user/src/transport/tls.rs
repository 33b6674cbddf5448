//! TLS under SIP: identities, verification of peers.

pub mod certs;
