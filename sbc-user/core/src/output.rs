//! Everything the engine can ask for.

use bytes::Bytes;

use crate::command::Reply;
use crate::flow::Flow;
use crate::guard::GuardCommand;
use crate::id::{ConnId, OpId};
use crate::media::command::MediaCommand;
use crate::record::CallRecord;
use crate::restart::CallCheckpoint;

/// One thing to do. Performed in order.
#[derive(Debug)]
pub enum Output {
    /// Send one SIP message (or keep-alive).
    Send {
        /// Comes back in [`Input::SendFailed`](crate::Input::SendFailed) if it could not be delivered.
        op: OpId,
        /// Where to.
        flow: Flow,
        /// The message.
        bytes: Bytes,
    },
    /// Close a stream connection (a peer that broke the framing).
    Close {
        /// The connection.
        conn: ConnId,
    },
    /// Command the dataplane; answered by [`Input::MediaDone`](crate::Input::MediaDone).
    Media {
        /// The operation.
        op: OpId,
        /// The command.
        command: MediaCommand,
    },
    /// Command the dataplane's guard. Nothing is answered.
    Guard(GuardCommand),
    /// A call ended: keep its record.
    Record(Box<CallRecord>),
    /// Keep this of a call for the time after a restart, in place of what was kept of it before. It is worth nothing
    /// any more when the call's media is removed.
    Checkpoint(Box<CallCheckpoint>),
    /// Answer to a [`Command`](crate::command::Command).
    Reply {
        /// The command's operation.
        op: OpId,
        /// The answer.
        reply: Reply,
    },
}
