//! What the benches share: the work that is measured, in the same words for every contender.

pub mod dataplane;
pub mod parse;
