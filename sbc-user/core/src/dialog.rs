//! Dialogs: the relation between two user agents that outlives one transaction (RFC 3261 s.12).
//!
//! A dialog knows how requests inside it must look and which of the peer's belong to it. It knows nothing of
//! transactions and calls; who sends what and when is decided above.

mod sequence;
mod state;
mod unacknowledged;

pub use sequence::{OutOfOrder, Sequence};
pub use state::{DialogEvent, DialogState};
pub use unacknowledged::{Unacknowledged, Verdict};
