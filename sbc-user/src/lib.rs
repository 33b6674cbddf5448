//! The session border controller around its engine: sockets, files, clocks, kernel maps, and the operator's tools.

pub mod admin;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dataplane;
pub mod doctor;
pub mod eventloop;
pub mod observe;
pub mod record_sink;
pub mod store;
pub mod trace;
pub mod transport;
