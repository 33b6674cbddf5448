//! The session border controller around its engine: sockets, files, clocks, kernel maps, and the operator's tools.

pub mod config;
pub mod dataplane;
pub mod transport;
