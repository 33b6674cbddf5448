//! What the daemon remembers for the one after it: media plans, what is known of their calls, ports that rest, and what
//! the guard knew and an operator changed of it.
//!
//! The event loop hands [`Change`]s to the [`Journal`] and never waits; a thread writes them to a [`Store`], as many in one
//! transaction as came while the last one was written. Forms on disk are `dto`'s.

mod dto;
pub mod embedded;
mod journal;
pub mod memory;

use std::net::SocketAddr;
use std::time::SystemTime;

use sbc_core::guard::{Denied, Source};
use sbc_core::id::CallId;
use sbc_core::restart::{CallCheckpoint, ListChange};

use crate::dataplane::MediaCheckpoint;

pub use journal::Journal;

/// Where changes are kept.
pub trait Store: Send {
    /// Keeps these, all or none. `now` is used to forget ports that have rested long enough.
    ///
    /// # Errors
    /// None is kept.
    fn put(&mut self, now: SystemTime, changes: Vec<Change>) -> anyhow::Result<()>;

    /// Everything that is kept.
    ///
    /// # Errors
    /// It cannot be read.
    fn load(&self) -> anyhow::Result<Contents>;
}

/// Something to be remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A call's plan is in force.
    Media(Box<MediaCheckpoint>),
    /// What is worth knowing of a call.
    Call(Box<CallCheckpoint>),
    /// A call's plan is removed, and its ports rest.
    Gone(Gone),
    /// A source is denied.
    Denied(Denied),
    /// It is not any more.
    Undenied(Source),
    /// An operator changed a list.
    Listed(ListChange),
}

/// A call that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Which.
    pub call: CallId,
    /// The even ports that it had.
    pub ports: Vec<SocketAddr>,
    /// Since when they rest.
    pub since: SystemTime,
}

/// Everything that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Plans in force.
    pub media: Vec<MediaCheckpoint>,
    /// Answered calls.
    pub calls: Vec<CallCheckpoint>,
    /// Calls that ended a short time ago.
    pub gone: Vec<Gone>,
    /// Denied sources, the one denied first before the others.
    pub denied: Vec<Denied>,
    /// What operators changed.
    pub lists: Vec<ListChange>,
}
