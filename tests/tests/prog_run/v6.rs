//! Media over IPv6, and between IPv6 and IPv4.

mod learning;
mod packet;
mod properties;
mod table;
mod world;

pub(crate) use table::rows;
