//! The operator's way in: HTTP and JSON over a Unix socket.
//!
//! Handlers know nothing of the engine: they put a question to the event loop and make JSON of its answer.

pub mod client;
pub mod dto;
mod routes;
pub mod server;

use sbc_core::command::{CallView, Command, EngineStatus};
use sbc_core::config::Prefix;
use sbc_core::guard::{Denied, ListRefusal};
use sbc_core::media::command::StreamCounters;
use tokio::sync::{mpsc, oneshot};

use crate::trace::{TraceOrder, TraceView};

/// Questions that wait for the loop.
const WAITING: usize = 64;

/// A question to the event loop.
#[derive(Debug)]
pub struct Question {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Answer>,
}

/// What is asked, and of whom.
#[derive(Clone, Debug)]
pub enum Request {
    /// The engine, or of it.
    Engine(Command),
    /// The dataplane, about a trace of packets.
    Trace(TraceOrder),
    /// The dataplane: compare what it should hold with what it holds, and mend it.
    Reconcile,
}

/// The event loop's answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To `Status`.
    Status {
        /// The engine's figures.
        engine: EngineStatus,
        /// The shell's figures.
        shell: ShellStatus,
    },
    /// To `Calls`: each with the counters of its streams, in the plan's order.
    Calls(Vec<(CallView, Vec<StreamCounters>)>),
    /// To an order: how many calls were up.
    Accepted {
        /// Calls up at that moment.
        calls: usize,
    },
    /// To `Denied`: each with the packets that were dropped because of it.
    Denied(Vec<(Denied, u64)>),
    /// To `List`.
    Listed(Vec<Prefix>),
    /// To an order about the guard's lists.
    Changed(Result<usize, ListRefusal>),
    /// To a trace order: how the trace stands, or why it cannot be.
    Traced(Result<TraceView, String>),
    /// To `Reconcile`: what differed.
    Reconciled(Vec<dto::Difference>),
}

/// Figures of the shell around the engine.
#[derive(Clone, Debug, Default)]
pub struct ShellStatus {
    /// Stream connections up or being opened.
    pub connections: usize,
    /// Calls whose records could not be written.
    pub records_lost: u64,
    /// Changes that the store could not keep.
    pub store_lost: u64,
    /// What the transports counted.
    pub transport: Vec<(&'static str, u64)>,
    /// Outcomes of packets at the dataplane.
    pub dataplane: Vec<(&'static str, u64)>,
    /// Streams that went to the relay, by reason.
    pub relay_streams: Vec<(&'static str, u64)>,
}

/// The asking side of the way between handlers and loop.
#[derive(Clone, Debug)]
pub struct Asker(mpsc::Sender<Question>);

impl Asker {
    /// A way to the loop: the asking side and the loop's.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Question>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), receiver)
    }

    /// Asks and waits. `None` if the loop has ended.
    pub async fn ask(&self, command: Command) -> Option<Answer> {
        self.request(Request::Engine(command)).await
    }

    /// As [`Self::ask`], about a trace.
    pub async fn trace(&self, order: TraceOrder) -> Option<Answer> {
        self.request(Request::Trace(order)).await
    }

    /// As [`Self::ask`], about a comparison.
    pub async fn reconcile(&self) -> Option<Answer> {
        self.request(Request::Reconcile).await
    }

    async fn request(&self, request: Request) -> Option<Answer> {
        let (answer, receiver) = oneshot::channel();
        self.0.send(Question { request, answer }).await.ok()?;
        receiver.await.ok()
    }
}

#[cfg(test)]
pub(crate) mod tests;
