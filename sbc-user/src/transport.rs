//! SIP over sockets: UDP, TCP and TLS. Moves bytes; what they mean is the engine's.

pub mod tls;
