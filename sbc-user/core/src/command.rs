//! What an operator can ask of the running engine. Plain values; the shell makes JSON of them.

use std::net::SocketAddr;
use std::time::SystemTime;

use crate::config::Prefix;
use crate::flow::Transport;
use crate::guard::{Denied, ListKind, ListRefusal, Source};
use crate::id::CallId;
use crate::media::plan::{MediaPlan, Placement};
use crate::media::quality::StreamQuality;

/// A question or order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// How is it going?
    Status,
    /// Which calls are up?
    Calls,
    /// Refuse new calls from now on (503 with Retry-After); calls in progress go on.
    Drain,
    /// End every call now: BYE or CANCEL to both sides, media removed, records written.
    HangUpAll,
    /// About the guard's lists.
    Guard(GuardOrder),
}

/// A question or order about the guard's lists. What is changed so comes on top of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardOrder {
    /// Who is denied?
    Denied,
    /// Take from this source again.
    Undeny(Source),
    /// Take from everybody again who is denied.
    UndenyAll,
    /// Who is on the list?
    List(ListKind),
    /// Put these sources on the list.
    Add(ListKind, Prefix),
    /// Take these sources off the list.
    Remove(ListKind, Prefix),
}

/// The answer to a [`Command`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To `Status`.
    Status(EngineStatus),
    /// To `Calls`.
    Calls(Vec<CallView>),
    /// To `Drain` and `HangUpAll`: how many calls were up.
    Accepted {
        /// Calls up at that moment.
        calls: usize,
    },
    /// To `Denied`: the one denied first before the others.
    Denied(Vec<Denied>),
    /// To `List`: in the order in which they were added.
    Listed(Vec<Prefix>),
    /// To an order about the guard's lists: how many entries it concerned, or why it was not carried out.
    Changed(Result<usize, ListRefusal>),
}

/// Figures of the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineStatus {
    /// Refusing new calls.
    pub draining: bool,
    /// Calls up now, in any state but media only.
    pub calls: usize,
    /// Calls of the daemon before whose media goes on.
    pub media_only: usize,
    /// Calls that may be up at once.
    pub max_calls: usize,
    /// Calls begun since start.
    pub calls_offered: u64,
    /// Of these, answered with 2xx.
    pub calls_answered: u64,
    /// Of these, ended without an answer.
    pub calls_failed: u64,
    /// Transactions alive.
    pub transactions: usize,
    /// Timers armed, of calls and of transactions.
    pub timers: usize,
    /// Media ports in use, over all realms.
    pub ports_in_use: usize,
    /// Named counters of the engine (dropped, refused, malformed … each with its own name).
    pub counters: Vec<(&'static str, u64)>,
}

/// State of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallState {
    /// Offered to the called side, no answer of any kind yet.
    Offering,
    /// Ringing or early media.
    Early,
    /// Answered.
    Answered,
    /// Answered, with a re-INVITE or UPDATE in progress.
    Updating,
    /// Being torn down.
    Ending,
    /// Its signalling was lost with the daemon before; its media goes on.
    MediaOnly,
}

/// One call as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallView {
    /// The call.
    pub call: CallId,
    /// Its state.
    pub state: CallState,
    /// When it began.
    pub began: SystemTime,
    /// When it was answered.
    pub answered: Option<SystemTime>,
    /// The side that called.
    pub caller: LegView,
    /// The side that was called.
    pub callee: LegView,
    /// The media plan in force.
    pub plan: Option<MediaPlan>,
    /// What carries each stream of the plan, in its order.
    pub placements: Vec<Placement>,
    /// What the two parties have reported of the streams so far.
    pub quality: Vec<StreamQuality>,
}

/// One side of a call as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegView {
    /// Realm name.
    pub realm: String,
    /// Trunk name.
    pub trunk: String,
    /// Transport of its signalling.
    pub transport: Transport,
    /// Peer of its signalling.
    pub remote: SocketAddr,
    /// Its own Call-ID on the wire.
    pub sip_call_id: String,
    /// From URI on this side.
    pub from: String,
    /// To URI on this side.
    pub to: String,
}
