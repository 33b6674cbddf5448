//! THE loop: the only caller of the engine. Feeds it one input at a time, performs its outputs in order, feeds the
//! results back. Everything else in the daemon moves bytes to here or from here.
//!
//! Priorities, highest first: signals, time, the dataplane, operators, the network. A flood of messages cannot keep a
//! timer from firing or an operator from being answered.
//!
//! A stop has two steps: *draining* refuses new calls and waits for those in progress; *ending* hangs up and waits for
//! the farewells. A second signal goes from the first to the second at once, a third ends the waiting.

mod readiness;
mod remember;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sbc_core::command::{CallView, Command, Reply};
use sbc_core::engine::Engine;
use sbc_core::guard::Denied;
use sbc_core::id::OpId;
use sbc_core::media::plan::MediaPlan;
use sbc_core::{Input, Output};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::admin::{Answer, Question, Request, ShellStatus, dto};
use crate::clock::{SystemRng, now};
use crate::dataplane::{Dataplane, DataplaneEvent, Figures};
use crate::record_sink::RecordSink;
use crate::store::Journal;
use crate::transport::{TransportEvent, Transports};

pub use readiness::Readiness;
use remember::Remember;

/// For both sides of every call to answer our BYE.
const FAREWELL: Duration = Duration::from_secs(4);
/// How often a stop looks whether the calls are gone.
const STOP_TICK: Duration = Duration::from_millis(50);
/// Network events taken before everything else is looked at again.
const BATCH: usize = 64;

/// What the system tells the daemon to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Stop; again: sooner.
    Stop,
    /// End at once and leave to the kernel what it forwards: another daemon takes over.
    Leave,
    /// Open files anew: they were rotated.
    Reopen,
}

/// Where everything comes from.
#[derive(Debug)]
pub struct Inlets {
    /// Sockets.
    pub transport: mpsc::Receiver<TransportEvent>,
    /// Operators.
    pub questions: mpsc::Receiver<Question>,
    /// The system.
    pub signals: mpsc::Receiver<Signal>,
    /// The dataplane's descriptors.
    pub media: Readiness,
}

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Serving,
    Draining { until: Instant },
    Ending { until: Instant },
    Over,
}

/// Who asked the engine.
enum Asker {
    Operator(oneshot::Sender<Answer>),
    /// The loop itself, while it stops.
    Stop,
}

/// See the module.
pub struct EventLoop<D> {
    engine: Engine<SystemRng>,
    dataplane: D,
    /// What the dataplane counted.
    figures: fn(&D) -> Figures,
    transports: Transports,
    records: RecordSink,
    remember: Remember,
    stop_grace: Duration,
    askers: HashMap<OpId, Asker>,
    last_question: u64,
    life: Life,
    leaving: bool,
    /// Called once, when the stop begins.
    on_stop: Option<Box<dyn FnOnce() + Send>>,
}

/// What is left when the loop has ended, to be let go in the right order.
pub struct Remains<D> {
    /// The dataplane.
    pub dataplane: D,
    /// The sockets.
    pub transports: Transports,
    /// The records.
    pub records: RecordSink,
    /// Whatever still arrives on the sockets.
    pub transport_events: mpsc::Receiver<TransportEvent>,
    /// What the kernel forwards is left to another daemon.
    pub leaving: bool,
}

impl<D: Dataplane> EventLoop<D> {
    /// A loop over these parts.
    pub fn new(
        engine: Engine<SystemRng>,
        dataplane: D,
        figures: fn(&D) -> Figures,
        transports: Transports,
        records: RecordSink,
        journal: Journal,
        stop_grace: Duration,
    ) -> Self {
        Self {
            engine,
            dataplane,
            figures,
            transports,
            records,
            remember: Remember::new(journal),
            stop_grace,
            askers: HashMap::new(),
            last_question: 0,
            life: Life::Serving,
            leaving: false,
            on_stop: None,
        }
    }

    /// To be called when the stop begins.
    #[must_use]
    pub fn on_stop(mut self, call: impl FnOnce() + Send + 'static) -> Self {
        self.on_stop = Some(Box::new(call));
        self
    }

    /// Calls of a daemon before, whose media the dataplane carries on.
    #[must_use]
    pub fn taken_over<'a>(mut self, plans: impl IntoIterator<Item = &'a MediaPlan>) -> Self {
        plans.into_iter().for_each(|plan| self.remember.taken_over(plan));
        self
    }

    /// Runs until a stop is complete.
    pub async fn run(mut self, mut inlets: Inlets) -> Remains<D> {
        self.settle();
        while self.life != Life::Over {
            let wake = self.next_wake();
            tokio::select! {
                biased;
                Some(signal) = inlets.signals.recv() => self.signal(signal),
                () = sleep_until(wake) => self.time_has_come(),
                () = inlets.media.readable() => self.dataplane.handle_timeout(Instant::now()),
                Some(question) = inlets.questions.recv() => {
                    self.question(question);
                }
                Some(event) = inlets.transport.recv() => {
                    self.transport(event);
                    for _ in 1..BATCH {
                        let Ok(event) = inlets.transport.try_recv() else { break };
                        self.settle();
                        self.transport(event);
                    }
                }
            }
            self.settle();
        }
        Remains {
            dataplane: self.dataplane,
            transports: self.transports,
            records: self.records,
            transport_events: inlets.transport,
            leaving: self.leaving,
        }
    }

    /// When somebody wants to be woken.
    fn next_wake(&self) -> Option<Instant> {
        let stop = match self.life {
            Life::Serving | Life::Over => None,
            Life::Draining { until } | Life::Ending { until } => Some(until.min(Instant::now() + STOP_TICK)),
        };
        [self.engine.poll_timeout(), self.dataplane.poll_timeout(), stop].into_iter().flatten().min()
    }

    fn time_has_come(&mut self) {
        let now = now();
        if self.engine.poll_timeout().is_some_and(|timeout| timeout <= now.mono) {
            self.engine.handle_input(now, Input::Timeout);
            self.settle();
        }
        if self.dataplane.poll_timeout().is_some_and(|timeout| timeout <= now.mono) {
            self.dataplane.handle_timeout(now.mono);
        }
        match self.life {
            Life::Serving | Life::Over => {}
            Life::Draining { until } if until <= now.mono => self.hang_up(),
            Life::Ending { until } if until <= now.mono => {
                warn!("calls are left behind: their peers did not answer our BYE");
                self.life = Life::Over;
            }
            Life::Draining { .. } | Life::Ending { .. } => self.ask(Command::Status, Asker::Stop),
        }
    }

    fn signal(&mut self, signal: Signal) {
        match (signal, self.life) {
            (Signal::Reopen, _) => self.records.reopen(),
            (Signal::Leave, _) => {
                info!("leaving: the kernel goes on with the media of calls until another daemon takes over");
                self.leaving = true;
                self.life = Life::Over;
            }
            (Signal::Stop, Life::Serving) => {
                if let Some(call) = self.on_stop.take() {
                    call();
                }
                info!(grace_seconds = self.stop_grace.as_secs(), "stopping: no new calls");
                self.life = Life::Draining { until: Instant::now() + self.stop_grace };
                self.ask(Command::Drain, Asker::Stop);
            }
            (Signal::Stop, Life::Draining { .. }) => self.hang_up(),
            (Signal::Stop, Life::Ending { .. } | Life::Over) => self.life = Life::Over,
        }
    }

    fn hang_up(&mut self) {
        info!("stopping: ending the calls in progress");
        self.life = Life::Ending { until: Instant::now() + FAREWELL };
        self.ask(Command::HangUpAll, Asker::Stop);
    }

    fn question(&mut self, Question { request, answer }: Question) {
        match request {
            Request::Engine(command) => self.ask(command, Asker::Operator(answer)),
            Request::Trace(order) => {
                let view = self.dataplane.trace(Instant::now(), order);
                // An operator who has gone away needs no answer.
                let _ = answer.send(Answer::Traced(view));
            }
            Request::Reconcile => {
                let differences = self.dataplane.reconcile();
                for difference in &differences {
                    warn!(%difference, "the kernel did not hold what it should");
                }
                let told = differences.into_iter().map(|difference| dto::Difference {
                    object: difference.object.to_owned(),
                    subject: difference.subject,
                    found: difference.found,
                    mended: difference.mended,
                });
                // An operator who has gone away needs no answer.
                let _ = answer.send(Answer::Reconciled(told.collect()));
            }
        }
    }

    fn ask(&mut self, command: Command, asker: Asker) {
        self.last_question += 1;
        let op = OpId(self.last_question);
        self.askers.insert(op, asker);
        self.remember.ordered(op, &command);
        self.engine.handle_input(now(), Input::Command { op, command });
    }

    fn transport(&mut self, event: TransportEvent) {
        let input = match &event {
            TransportEvent::Datagram { flow, bytes } => Input::Datagram { flow: *flow, bytes },
            TransportEvent::Opened { flow } => Input::StreamOpened { flow: *flow },
            TransportEvent::Bytes { conn, bytes } => Input::StreamBytes { conn: *conn, bytes },
            TransportEvent::Closed { conn } => Input::StreamClosed { conn: *conn },
            TransportEvent::SendFailed { op } => Input::SendFailed { op: *op },
        };
        self.engine.handle_input(now(), input);
    }

    /// Performs outputs and feeds back what they led to at once, until nothing is left to do.
    fn settle(&mut self) {
        loop {
            while let Some(output) = self.engine.poll_output() {
                self.perform(output);
            }
            if let Some(op) = self.transports.take_failed() {
                self.engine.handle_input(now(), Input::SendFailed { op });
            } else if let Some(event) = self.dataplane.poll_event() {
                let input = match event {
                    DataplaneEvent::Done { op, result } => {
                        self.remember.done(op, result.is_ok(), |call| self.dataplane.checkpoint(call));
                        Input::MediaDone { op, result }
                    }
                    DataplaneEvent::Media(event) => Input::Media(event),
                    DataplaneEvent::Guard(event) => Input::Guard(event),
                };
                self.engine.handle_input(now(), input);
            } else {
                return;
            }
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Send { op, flow, bytes } => self.transports.send(op, flow, bytes),
            Output::Close { conn } => self.transports.close(conn),
            Output::Media { op, command } => {
                self.remember.commanded(op, &command);
                self.dataplane.apply(Instant::now(), op, command);
            }
            Output::Guard(command) => {
                self.remember.guarded(&command);
                self.transports.guard(&command);
                self.dataplane.guard(&command);
            }
            Output::Checkpoint(checkpoint) => self.remember.checkpoint(*checkpoint),
            Output::Record(record) => self.records.record(&record),
            Output::Reply { op, reply } => self.reply(op, reply),
        }
    }

    fn reply(&mut self, op: OpId, reply: Reply) {
        self.remember.answered(op, &reply);
        match self.askers.remove(&op) {
            Some(Asker::Operator(asker)) => {
                let answer = match reply {
                    Reply::Status(engine) => Answer::Status { engine, shell: self.shell_status() },
                    Reply::Calls(calls) => Answer::Calls(self.with_counters(calls)),
                    Reply::Accepted { calls } => Answer::Accepted { calls },
                    Reply::Denied(denied) => Answer::Denied(self.with_packets(denied)),
                    Reply::Listed(prefixes) => Answer::Listed(prefixes),
                    Reply::Changed(changed) => Answer::Changed(changed),
                };
                // An operator who has gone away needs no answer.
                let _ = asker.send(answer);
            }
            Some(Asker::Stop) => {
                let calls = match reply {
                    // Calls whose signalling was lost do not end by waiting: they are ended when no other is left.
                    Reply::Status(status) if status.calls == 0 && status.media_only > 0 => {
                        if matches!(self.life, Life::Draining { .. }) {
                            self.hang_up();
                        }
                        return;
                    }
                    Reply::Status(status) => status.calls,
                    Reply::Calls(calls) => calls.len(),
                    Reply::Accepted { calls } => calls,
                    Reply::Denied(_) | Reply::Listed(_) | Reply::Changed(_) => return,
                };
                if calls == 0 && self.life != Life::Serving {
                    self.life = Life::Over;
                }
            }
            None => {}
        }
    }

    fn shell_status(&self) -> ShellStatus {
        let Figures { outcomes, relay_streams } = (self.figures)(&self.dataplane);
        ShellStatus {
            connections: self.transports.connections(),
            records_lost: self.records.lost(),
            store_lost: self.remember.lost(),
            transport: self.transports.counters().list(),
            dataplane: outcomes,
            relay_streams,
        }
    }

    fn with_packets(&self, denied: Vec<Denied>) -> Vec<(Denied, u64)> {
        let counted = |denied: Denied| (denied, self.dataplane.denied_packets(denied.source));
        denied.into_iter().map(counted).collect()
    }

    fn with_counters(
        &self,
        calls: Vec<CallView>,
    ) -> Vec<(CallView, Vec<sbc_core::media::command::StreamCounters>)> {
        let counted = |view: CallView| {
            let counters = self.dataplane.counters(view.call);
            (view, counters)
        };
        calls.into_iter().map(counted).collect()
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}
