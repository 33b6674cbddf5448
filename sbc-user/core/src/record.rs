//! The record of an ended call (CDR).

use std::time::SystemTime;

use crate::command::LegView;
use crate::id::CallId;
use crate::media::command::StreamCounters;
use crate::media::quality::StreamQuality;

/// One ended call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallRecord {
    /// The call.
    pub call: CallId,
    /// When the INVITE arrived.
    pub began: SystemTime,
    /// When the first 18x was relayed.
    pub ringing: Option<SystemTime>,
    /// When the 2xx was relayed.
    pub answered: Option<SystemTime>,
    /// When it ended.
    pub ended: SystemTime,
    /// Who ended it.
    pub ended_by: EndedBy,
    /// SIP status that a failed call ended with (what the caller was told); 200 for an answered one.
    pub status: u16,
    /// In words: the reason phrase, a `Reason` header, or our own cause.
    pub cause: String,
    /// The side that called.
    pub caller: LegView,
    /// The side that was called; `None` if it was refused before one was chosen.
    pub callee: Option<LegView>,
    /// Final media counters by stream.
    pub media: Vec<StreamCounters>,
    /// What the two parties reported of the streams.
    pub quality: Vec<StreamQuality>,
}

/// Who ended a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndedBy {
    /// The calling side (BYE, CANCEL, lost connection).
    Caller,
    /// The called side (BYE, refusal, no answer).
    Callee,
    /// This SBC (policy, failure, operator, timer).
    Local,
}
