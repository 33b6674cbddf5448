//! Records of ended calls.

use sbc_core::record::{CallRecord, EndedBy};
use serde::{Deserialize, Serialize};

use super::SCHEMA;
use super::calls::{Heard, Leg, Packets, path};
use crate::clock::rfc3339;

/// One line of the call records.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Number of the call, unique for the life of the daemon.
    pub call: u64,
    /// When the INVITE arrived, RFC 3339.
    pub began: String,
    /// When the first 18x was relayed.
    pub ringing: Option<String>,
    /// When the 2xx was relayed.
    pub answered: Option<String>,
    /// When it ended.
    pub ended: String,
    /// From answer to end; 0 if it was not answered.
    pub duration_ms: u64,
    /// `caller`, `callee` or `sbc`.
    pub ended_by: String,
    /// SIP status that a failed call ended with; 200 for an answered one.
    pub status: u16,
    /// In words.
    pub cause: String,
    /// The side that called.
    pub caller: Leg,
    /// The side that was called, if one was chosen.
    pub callee: Option<Leg>,
    /// Final counters of its media.
    pub media: Vec<RecordStream>,
}

/// Media of an ended call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RecordStream {
    /// Position of the m-line in the SDP.
    pub mline: u8,
    /// What carried it last: `kernel` or `relay`.
    pub path: Option<String>,
    /// Packets from the caller to the callee.
    pub from_caller: Packets,
    /// Packets from the callee to the caller.
    pub from_callee: Packets,
    /// What the caller reported of what it heard; none if it did not, or encrypted it.
    pub heard_by_caller: Option<Heard>,
    /// What the callee reported.
    pub heard_by_callee: Option<Heard>,
}

impl Record {
    /// From the engine's record.
    #[must_use]
    pub fn new(record: &CallRecord) -> Self {
        let talked = record.answered.and_then(|answered| record.ended.duration_since(answered).ok());
        Self {
            schema: SCHEMA,
            call: record.call.0,
            began: rfc3339(record.began),
            ringing: record.ringing.map(rfc3339),
            answered: record.answered.map(rfc3339),
            ended: rfc3339(record.ended),
            duration_ms: talked.map_or(0, |talked| u64::try_from(talked.as_millis()).unwrap_or(u64::MAX)),
            ended_by: match record.ended_by {
                EndedBy::Caller => "caller",
                EndedBy::Callee => "callee",
                EndedBy::Local => "sbc",
            }
            .to_owned(),
            status: record.status,
            cause: record.cause.clone(),
            caller: Leg::new(&record.caller),
            callee: record.callee.as_ref().map(Leg::new),
            media: record
                .media
                .iter()
                .map(|counters| {
                    let [heard_by_caller, heard_by_callee] = Heard::of(&record.quality, counters.mline);
                    RecordStream {
                        mline: counters.mline,
                        path: counters.placement.map(path),
                        from_caller: Packets::new(&counters.from_caller),
                        from_callee: Packets::new(&counters.from_callee),
                        heard_by_caller,
                        heard_by_callee,
                    }
                })
                .collect(),
        }
    }
}
