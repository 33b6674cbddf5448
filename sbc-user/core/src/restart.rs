//! What outlives the daemon, as the engine says it and as it hears it again: values only, kept by the shell.

use std::time::{Duration, SystemTime};

use crate::command::LegView;
use crate::config::Prefix;
use crate::guard::{Denied, ListKind};
use crate::id::{CallId, RealmId};
use crate::media::plan::{MediaPlan, Placement};

/// What is worth knowing of an answered call when its signalling is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallCheckpoint {
    /// The call.
    pub call: CallId,
    /// When the INVITE arrived.
    pub began: SystemTime,
    /// When the first 18x was relayed.
    pub ringing: Option<SystemTime>,
    /// When the 2xx was relayed.
    pub answered: SystemTime,
    /// No stream is agreed to flow both ways.
    pub held: bool,
    /// The side that called.
    pub caller: LegView,
    /// The side that was called.
    pub callee: LegView,
}

/// A call whose media the dataplane still carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredCall {
    /// What was kept of it; `None` if it was never answered.
    pub checkpoint: Option<CallCheckpoint>,
    /// Its plan.
    pub plan: MediaPlan,
    /// What carries each stream, in the plan's order.
    pub placements: Vec<Placement>,
}

/// A pair of ports that must rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestingPorts {
    /// Whose pool.
    pub realm: RealmId,
    /// The even port.
    pub rtp: u16,
    /// How long from now.
    pub lasts: Duration,
}

/// A change that an operator made to a list, over what is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListChange {
    /// Which list.
    pub list: ListKind,
    /// Which sources.
    pub prefix: Prefix,
    /// Whether they are on it.
    pub listed: bool,
}

/// Everything that a daemon left to the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Calls whose media goes on.
    pub calls: Vec<RestoredCall>,
    /// The last call that was kept, whether or not its media goes on: new ones are numbered after it.
    pub last_call: CallId,
    /// Ports of calls that ended shortly before, or that could not be taken over.
    pub resting: Vec<RestingPorts>,
    /// Sources that were denied.
    pub denied: Vec<Denied>,
    /// What operators changed.
    pub lists: Vec<ListChange>,
}

impl Default for Restored {
    fn default() -> Self {
        Self {
            calls: Vec::new(),
            last_call: CallId(0),
            resting: Vec::new(),
            denied: Vec::new(),
            lists: Vec::new(),
        }
    }
}
