//! What a call asks of the engine. Effects are data: the call performs nothing itself.

use std::time::Instant;

use bytes::Bytes;

use crate::call::Side;
use crate::counter::Counter;
use crate::flow::Flow;
use crate::id::OpId;
use crate::media::command::MediaCommand;
use crate::record::CallRecord;
use crate::restart::CallCheckpoint;
use crate::sip::Method;
use crate::txn::{ClientTxnId, ServerTxnId};

/// One thing to do.
#[derive(Debug)]
pub enum Effect {
    /// Send a request in a transaction of its own; what comes of it comes back with `purpose`.
    Request {
        /// What it is for.
        purpose: Purpose,
        /// Its method.
        method: Method,
        /// Its branch.
        branch: String,
        /// Where to.
        flow: Flow,
        /// The message.
        bytes: Bytes,
    },
    /// Answer a request.
    Respond {
        /// The request's transaction.
        txn: ServerTxnId,
        /// The status.
        status: u16,
        /// The message.
        bytes: Bytes,
    },
    /// Withdraw an INVITE of ours, with header lines that say why.
    Cancel(ClientTxnId, Vec<Bytes>),
    /// Send an ACK to a 2xx.
    Ack {
        /// Where to.
        flow: Flow,
        /// The message.
        bytes: Bytes,
    },
    /// Command the dataplane; its answer goes to [`Call::on_media`](super::Call::on_media).
    Media(OpId, MediaCommand),
    /// Arm (again) one of the call's timers.
    Arm(CallTimer, Instant),
    /// Disarm it.
    Disarm(CallTimer),
    /// A leg answers to this tag of ours from now on.
    Index(Box<str>, Side),
    /// The call was answered.
    Answered,
    /// Count something.
    Count(Counter),
    /// Keep the record.
    Record(Box<CallRecord>),
    /// Keep this for the time after a restart.
    Checkpoint(Box<CallCheckpoint>),
}

/// What a request of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The call's first INVITE to the callee.
    Invite,
    /// Re-INVITE or UPDATE towards this side.
    Update(Side),
    /// A request that was relayed towards this side for the transaction that waits on the other.
    Relay(Side, ServerTxnId),
    /// BYE of this leg.
    Bye(Side),
    /// Nobody waits for it (BYE of a second answer).
    Nothing,
}

/// The timers of a call. Each is armed at most once at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallTimer {
    /// Nobody answers.
    NoAnswer,
    /// A 2xx of ours waits for its ACK.
    Unacknowledged(Side),
    /// A leg's connection is gone.
    Lost(Side),
    /// Time to look at what the streams have carried.
    Look,
    /// Nobody may claim a port any more.
    CloseWindows,
    /// The teardown takes too long.
    Teardown,
}

impl CallTimer {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::NoAnswer,
        Self::Unacknowledged(Side::Caller),
        Self::Unacknowledged(Side::Callee),
        Self::Lost(Side::Caller),
        Self::Lost(Side::Callee),
        Self::Look,
        Self::CloseWindows,
        Self::Teardown,
    ];
}
