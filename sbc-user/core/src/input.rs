//! Everything that can reach the engine.

use crate::command::Command;
use crate::flow::Flow;
use crate::guard::GuardEvent;
use crate::id::{ConnId, OpId};
use crate::media::command::{MediaEvent, MediaResult};
use crate::restart::Restored;

/// One thing that happened. The engine takes one at a time.
#[derive(Debug)]
pub enum Input<'a> {
    /// A datagram arrived; `flow.conn` is `None`.
    Datagram {
        /// Where from.
        flow: Flow,
        /// The whole payload.
        bytes: &'a [u8],
    },
    /// A stream connection is up, whoever opened it; `flow.conn` is `Some`.
    StreamOpened {
        /// The connection.
        flow: Flow,
    },
    /// Bytes of a stream, in order, cut anywhere.
    StreamBytes {
        /// The connection.
        conn: ConnId,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// A stream connection ended, whoever ended it.
    StreamClosed {
        /// The connection.
        conn: ConnId,
    },
    /// An [`Output::Send`](crate::Output::Send) could not be delivered (connection refused, timed out, queue full).
    SendFailed {
        /// The operation of that output.
        op: OpId,
    },
    /// The dataplane's answer to an [`Output::Media`](crate::Output::Media).
    MediaDone {
        /// The operation of that output.
        op: OpId,
        /// What came of it.
        result: MediaResult,
    },
    /// The dataplane noticed something.
    Media(MediaEvent),
    /// The dataplane's guard noticed something.
    Guard(GuardEvent),
    /// What a daemon before left. Given once, before anything else.
    Restored(Box<Restored>),
    /// The operator asks; answered by an [`Output::Reply`](crate::Output::Reply) with the same operation.
    Command {
        /// Chosen by the asker.
        op: OpId,
        /// The question.
        command: Command,
    },
    /// The time that `poll_timeout` named has come.
    Timeout,
}
