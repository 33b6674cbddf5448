//! Session descriptions: read without loss, anchored at this SBC, exchanged by the offer/answer rules.
//!
//! The lines of a description are its model: what nobody rewrites leaves as it came. Only what the media path needs is
//! read into types. Decides nothing about calls or ports (RFC 8866, RFC 3264).

pub mod anchor;
mod crypto;
pub mod formats;
mod model;
pub mod offer_answer;
pub mod origin;
mod parse;
mod write;

#[cfg(test)]
mod golden;

pub use model::{Direction, MediaKind, Sdp};
pub use parse::{MAX_BYTES, MAX_LINES, MAX_MEDIA, SdpError};
