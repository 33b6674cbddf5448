//! What is allowed and where it goes: pure questions to the configuration and the load.

pub mod admission;
pub mod route;
