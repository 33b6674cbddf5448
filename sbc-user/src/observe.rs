//! What the daemon tells of itself.

pub mod log;
