//! The engine: takes one input at a time, keeps everything that lives, and says what is to be done.
//!
//! It joins what does not know each other: connections, transactions, calls, media ports, timers. What a message means
//! is decided in `sip`, `txn`, `dialog` and `call`; here is only who gets it. Requests that open no call are answered
//! in `engine/requests`, bytes are cut into messages in `engine/streams`.

mod adopted;
mod guarding;
mod requests;
mod streams;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;

use crate::call::action::{CallTimer, Effect, Purpose};
use crate::call::context::Context;
use crate::call::{Call, Outcome, Side};
use crate::command::{CallView, Command, EngineStatus, Reply};
use crate::config::{EngineConfig, MediaSourceRule};
use crate::counter::{Counter, Counters};
use crate::engine::adopted::Adopted;
use crate::engine::streams::{Fed, Streams};
use crate::flow::Flow;
use crate::guard::{Evidence, Guard, GuardCommand};
use crate::id::{CallId, ConnId, OpId, TrunkId};
use crate::identity::Origin;
use crate::input::Input;
use crate::media::command::{MediaEvent, MediaResult};
use crate::media::ports::PortPool;
use crate::output::Output;
use crate::policy::route;
use crate::rng::Rng;
use crate::sip::frame::{Datagram, datagram};
use crate::sip::{Judgement, Message, MessageBuilder, Method, judge};
use crate::time::Now;
use crate::timers::{TimerId, Timers};
use crate::txn::{
    ClientTxnId, MAX_TRANSACTIONS, Peer, ServerTxnId, Transactions, TxnEvent, TxnId, TxnOutput,
};

/// The whole of signalling: SIP, SDP, calls and the media plans that follow from them. Does no I/O.
///
/// The contract: give it **one** input, drain [`poll_output`](Self::poll_output) to `None` and perform the outputs in
/// order, then wait until [`poll_timeout`](Self::poll_timeout) or the next input. When that moment comes, the input is
/// [`Input::Timeout`]. Time never goes back. No input makes it fail: what a bad peer sends becomes outputs and counters.
#[derive(Debug)]
pub struct Engine<R: Rng> {
    config: EngineConfig,
    rng: R,
    origin: Origin,
    streams: Streams,
    txns: Transactions,
    guard: Guard,
    calls: BTreeMap<CallId, Call>,
    /// Calls of the daemon before of which only the media is left.
    adopted: BTreeMap<CallId, Adopted>,
    /// Which leg has which tag of ours.
    tags: HashMap<Box<str>, (CallId, Side)>,
    tags_of: HashMap<CallId, Vec<Box<str>>>,
    /// First INVITEs of the calls that are up, by what a copy that took another way has in common with them.
    open_invites: HashMap<Box<str>, CallId>,
    names_of: HashMap<CallId, Box<str>>,
    /// INVITEs of peers, first ones and re-INVITEs, for the CANCEL that may follow.
    invites: HashMap<ServerTxnId, (CallId, Side)>,
    clients: HashMap<ClientTxnId, (CallId, Purpose)>,
    timers: Timers<(CallId, CallTimer)>,
    armed: HashMap<(CallId, CallTimer), TimerId>,
    /// Media ports, by realm.
    pools: Vec<PortPool>,
    media_ops: HashMap<OpId, CallId>,
    last_op: u64,
    last_call: u64,
    draining: bool,
    offered: u64,
    answered: u64,
    failed: u64,
    counters: Counters,
    outputs: VecDeque<Output>,
}

impl<R: Rng> Engine<R> {
    /// An engine with nothing in it. The configuration was validated by whoever built it.
    #[must_use]
    pub fn new(config: EngineConfig, rng: R, _now: Now) -> Self {
        let guard = Guard::new(&config);
        let pools =
            config.realms.iter().map(|realm| PortPool::new(&realm.media.ports, realm.media.quarantine));
        Self {
            pools: pools.collect(),
            origin: Origin { node: config.node, epoch: config.epoch, shard: 0 },
            config,
            rng,
            streams: Streams::default(),
            txns: Transactions::new(MAX_TRANSACTIONS),
            calls: BTreeMap::new(),
            adopted: BTreeMap::new(),
            tags: HashMap::new(),
            tags_of: HashMap::new(),
            open_invites: HashMap::new(),
            names_of: HashMap::new(),
            invites: HashMap::new(),
            clients: HashMap::new(),
            timers: Timers::new(),
            armed: HashMap::new(),
            media_ops: HashMap::new(),
            last_op: 0,
            last_call: 0,
            draining: false,
            offered: 0,
            answered: 0,
            failed: 0,
            counters: Counters::default(),
            outputs: VecDeque::new(),
            guard,
        }
    }

    /// How the dataplane's guard is to be set up: before the first socket is open, so that nobody passes by it.
    #[must_use]
    pub fn guard_setup(&self, now: Now) -> GuardCommand {
        self.guard.setup(now)
    }

    /// Takes one input.
    pub fn handle_input(&mut self, now: Now, input: Input<'_>) {
        match input {
            Input::Datagram { flow, bytes } => self.on_datagram(now, flow, bytes),
            Input::StreamOpened { flow } => self.on_stream_opened(flow),
            Input::StreamBytes { conn, bytes } => self.on_stream_bytes(now, conn, bytes),
            Input::StreamClosed { conn } => self.on_stream_closed(now, conn),
            Input::SendFailed { op } => {
                self.counters.count(Counter::SendFailed);
                self.txns.send_failed(now.mono, op);
            }
            Input::MediaDone { op, result } => self.on_media_done(now, op, &result),
            Input::Media(event) => self.on_media_event(now, &event),
            Input::Guard(event) => self.on_guard_event(now, event),
            Input::Restored(restored) => self.on_restored(now, *restored),
            Input::Command { op, command } => self.on_command(now, op, &command),
            Input::Timeout => self.on_timeout(now),
        }
        self.drain_transactions(now);
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is to be given next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.txns.poll_timeout(), self.timers.poll_timeout(), self.guard.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    // --- bytes ---

    fn on_datagram(&mut self, now: Now, flow: Flow, bytes: &[u8]) {
        match datagram(bytes) {
            Datagram::KeepAlive => self.counters.count(Counter::KeepAlive),
            Datagram::Message(message) => self.on_message(now, flow, Bytes::copy_from_slice(message)),
        }
    }

    fn on_stream_opened(&mut self, flow: Flow) {
        if !self.admits_connection(flow) {
            self.outputs.extend(flow.conn.map(|conn| Output::Close { conn }));
            return;
        }
        if let Some(refused) = self.streams.open(flow) {
            self.counters.count(Counter::TooManyConnections);
            self.outputs.push_back(Output::Close { conn: refused });
        }
    }

    fn on_stream_bytes(&mut self, now: Now, conn: ConnId, bytes: &[u8]) {
        let Some(flow) = self.streams.push(conn, bytes) else {
            return self.counters.count(Counter::UnknownConnection);
        };
        loop {
            match self.streams.next(conn) {
                Fed::Message(bytes) => {
                    self.on_message(now, flow, bytes);
                    self.drain_transactions(now);
                }
                Fed::Ping => {
                    self.counters.count(Counter::KeepAlive);
                    if self.trunk_of(flow).is_some() {
                        self.txns.send(flow, Bytes::from_static(b"\r\n"));
                    }
                }
                Fed::Nothing => return,
                Fed::Broken => {
                    self.counters.count(Counter::FramingBroken);
                    self.on_evidence(now, flow, Evidence::Malformed);
                    self.outputs.push_back(Output::Close { conn });
                    return self.on_connection_lost(now, conn, flow);
                }
            }
        }
    }

    fn on_stream_closed(&mut self, now: Now, conn: ConnId) {
        // One that is unknown broke before, or was refused: no call uses it.
        if let Some(flow) = self.streams.close(conn) {
            self.on_connection_lost(now, conn, flow);
        }
    }

    fn on_connection_lost(&mut self, now: Now, conn: ConnId, flow: Flow) {
        // Strangers may come and go at any rate; no call is theirs.
        if self.trunk_of(flow).is_none() {
            return;
        }
        let calls: Vec<CallId> = self.calls.values().filter(|call| call.uses(conn)).map(Call::id).collect();
        for id in calls {
            self.with_call(now, id, |call, cx| call.on_connection_lost(cx, conn));
        }
    }

    fn on_message(&mut self, now: Now, flow: Flow, bytes: Bytes) {
        if !self.admits_message(now, flow, &bytes) {
            return;
        }
        // Before anything is done with it: a stranger learns nothing, not even that somebody listens.
        let Some(peer) = self.peer_of(flow) else {
            self.counters.count(Counter::UnknownSource);
            return self.suspect(now, flow, bytes);
        };
        let Ok(message) = Message::parse(bytes) else {
            return self.counters.count(Counter::Unparseable);
        };
        let message = message.arrived_from(flow.remote);
        match judge(&message) {
            Judgement::Ok => self.txns.receive(now.mono, flow, peer, message),
            Judgement::Answer { status, reason } => {
                self.counters.count(Counter::MalformedRequest);
                let tag = self.origin.tag(&mut self.rng);
                let answer =
                    MessageBuilder::response_to(&message, status, reason, Some(flow.remote), Some(&tag));
                self.txns.send(flow, answer.build());
            }
            Judgement::Drop { reason } => {
                tracing::debug!(peer = %flow.remote, reason, "malformed message dropped");
                self.counters.count(if message.is_request() {
                    Counter::MalformedRequest
                } else {
                    Counter::MalformedResponse
                });
            }
        }
    }

    // --- transactions ---

    fn drain_transactions(&mut self, now: Now) {
        while let Some(output) = self.txns.poll() {
            match output {
                TxnOutput::Send { op, flow, bytes } => {
                    self.outputs.push_back(Output::Send { op, flow, bytes })
                }
                TxnOutput::Event(event) => self.on_transaction(now, event),
            }
        }
    }

    fn on_transaction(&mut self, now: Now, event: TxnEvent) {
        match event {
            TxnEvent::Request { txn, message, flow } => self.on_request(now, txn, message, flow),
            TxnEvent::Ack { message, flow } => {
                let leg = message.to().ok().and_then(|to| self.leg_of(to.tag()?, flow));
                let took = leg.and_then(|(id, side)| {
                    self.with_call(now, id, |call, cx| call.on_ack(cx, side, &message, flow))
                });
                if took != Some(true) {
                    self.counters.count(Counter::StrayAck);
                }
            }
            TxnEvent::Response { txn, message, flow } => {
                self.on_outcome(now, txn, &Outcome::Response(&message, flow))
            }
            TxnEvent::ResponseOutside { message, flow } => self.on_stray_response(now, &message, flow),
            TxnEvent::TimedOut { txn: TxnId::Client(txn) } => {
                self.on_outcome(now, txn, &Outcome::Failed(408))
            }
            TxnEvent::TransportFailed { txn: TxnId::Client(txn) } => {
                self.on_outcome(now, txn, &Outcome::Failed(503));
            }
            // The peer repeats what it wants, or a call's own timer ends it.
            TxnEvent::TimedOut { txn: TxnId::Server(_) }
            | TxnEvent::TransportFailed { txn: TxnId::Server(_) } => {}
            TxnEvent::Terminated { txn: TxnId::Client(txn) } => {
                self.clients.remove(&txn);
            }
            TxnEvent::Terminated { txn: TxnId::Server(txn) } => {
                self.invites.remove(&txn);
            }
            TxnEvent::Overloaded { .. } => self.counters.count(Counter::Overloaded),
        }
    }

    fn on_outcome(&mut self, now: Now, txn: ClientTxnId, outcome: &Outcome<'_>) {
        let Some((id, purpose)) = self.clients.get(&txn).copied() else { return };
        self.with_call(now, id, |call, cx| call.on_outcome(cx, purpose, outcome));
    }

    fn on_stray_response(&mut self, now: Now, response: &Message, flow: Flow) {
        let success = response.status().is_some_and(|status| (200..300).contains(&status))
            && response.cseq().is_ok_and(|cseq| cseq.method == Method::Invite);
        let leg = response.from().ok().and_then(|from| self.leg_of(from.tag()?, flow));
        let took = leg.filter(|_| success).and_then(|(id, side)| {
            self.with_call(now, id, |call, cx| call.on_stray_success(cx, side, response))
        });
        if took != Some(true) {
            self.counters.count(Counter::StrayResponse);
        }
    }

    // --- media, time, orders ---

    fn on_media_done(&mut self, now: Now, op: OpId, result: &MediaResult) {
        if let Err(error) = result {
            tracing::warn!(%op, %error, "the dataplane could not do it");
        }
        let Some(id) = self.media_ops.remove(&op) else {
            return self.counters.count(Counter::StrayMediaResult);
        };
        if self.with_call(now, id, |call, cx| call.on_media(cx, op, result)).is_none() {
            self.on_adopted_media(now, id, op, result);
        }
    }

    fn on_media_event(&mut self, now: Now, event: &MediaEvent) {
        self.with_call(now, event.call(), |call, cx| call.on_media_event(cx.now.mono, event));
    }

    fn on_timeout(&mut self, now: Now) {
        self.end_denials(now);
        self.txns.timeout(now.mono);
        self.drain_transactions(now);
        while let Some((_, (id, timer))) = self.timers.expire(now.mono) {
            self.armed.remove(&(id, timer));
            if self.with_call(now, id, |call, cx| call.on_timer(cx, timer)).is_none() {
                self.on_adopted_timer(id, timer);
            }
        }
    }

    fn on_command(&mut self, now: Now, op: OpId, command: &Command) {
        let calls = self.calls.len() + self.adopted.len();
        let reply = match command {
            Command::Status => Reply::Status(self.status()),
            Command::Calls => {
                let ids: Vec<CallId> = self.calls.keys().copied().collect();
                let views =
                    ids.into_iter().filter_map(|id| self.with_call(now, id, |call, cx| call.view(cx)));
                let mut views: Vec<CallView> = views.collect();
                views.extend(self.adopted.values().filter_map(Adopted::view));
                Reply::Calls(views)
            }
            Command::Drain => {
                self.draining = true;
                Reply::Accepted { calls }
            }
            Command::HangUpAll => {
                let ids: Vec<CallId> = self.calls.keys().copied().collect();
                for id in ids {
                    self.with_call(now, id, |call, cx| call.hang_up(cx));
                }
                self.end_adopted(now);
                Reply::Accepted { calls }
            }
            Command::Guard(order) => self.on_guard_order(now, order),
        };
        self.outputs.push_back(Output::Reply { op, reply });
    }

    fn status(&self) -> EngineStatus {
        EngineStatus {
            draining: self.draining,
            calls: self.calls.len(),
            media_only: self.adopted.len(),
            max_calls: self.config.max_calls,
            calls_offered: self.offered,
            calls_answered: self.answered,
            calls_failed: self.failed,
            transactions: self.txns.len(),
            timers: self.timers.len() + self.txns.timers(),
            ports_in_use: self.pools.iter().map(|pool| pool.in_use() * 2).sum(),
            counters: self.counters.named(),
        }
    }

    // --- calls ---

    /// Lets a call handle something, performs what it asks for, and forgets it when it is over.
    fn with_call<T>(
        &mut self,
        now: Now,
        id: CallId,
        handle: impl FnOnce(&mut Call, &mut Context<'_, R>) -> T,
    ) -> Option<T> {
        let call = self.calls.get_mut(&id)?;
        let mut cx = Context {
            now,
            config: &self.config,
            origin: self.origin,
            rng: &mut self.rng,
            pools: &mut self.pools,
            ops: &mut self.last_op,
            effects: Vec::new(),
        };
        let out = handle(call, &mut cx);
        let effects = cx.effects;
        for effect in effects {
            self.perform(now, id, effect);
        }
        if self.calls.get(&id).is_some_and(Call::is_over) {
            self.forget(id);
        }
        Some(out)
    }

    fn perform(&mut self, now: Now, id: CallId, effect: Effect) {
        match effect {
            Effect::Request { purpose, method, branch, flow, bytes } => {
                let txn = self.txns.request(now.mono, method, &branch, flow, bytes);
                self.clients.insert(txn, (id, purpose));
                if let Some(call) = self.calls.get_mut(&id) {
                    call.on_started(purpose, txn);
                }
            }
            Effect::Respond { txn, status, bytes } => {
                self.txns.respond(now.mono, txn, status, bytes);
            }
            Effect::Cancel(txn, lines) => self.txns.cancel(now.mono, txn, &lines),
            Effect::Ack { flow, bytes } => self.txns.send(flow, bytes),
            Effect::Media(op, command) => {
                self.media_ops.insert(op, id);
                self.outputs.push_back(Output::Media { op, command });
            }
            Effect::Arm(timer, at) => self.arm(id, timer, at),
            Effect::Disarm(timer) => self.disarm(id, timer),
            Effect::Index(tag, side) => {
                self.tags.insert(tag.clone(), (id, side));
                self.tags_of.entry(id).or_default().push(tag);
            }
            Effect::Answered => self.answered += 1,
            Effect::Count(counter) => self.counters.count(counter),
            Effect::Record(record) => {
                if record.answered.is_none() {
                    self.failed += 1;
                }
                self.outputs.push_back(Output::Record(record));
            }
            Effect::Checkpoint(checkpoint) => self.outputs.push_back(Output::Checkpoint(checkpoint)),
        }
    }

    fn arm(&mut self, id: CallId, timer: CallTimer, at: Instant) {
        self.disarm(id, timer);
        self.armed.insert((id, timer), self.timers.insert(at, (id, timer)));
    }

    fn disarm(&mut self, id: CallId, timer: CallTimer) {
        if let Some(timer) = self.armed.remove(&(id, timer)) {
            self.timers.cancel(timer);
        }
    }

    fn forget(&mut self, id: CallId) {
        self.calls.remove(&id);
        for timer in CallTimer::ALL {
            self.disarm(id, timer);
        }
        for tag in self.tags_of.remove(&id).unwrap_or_default() {
            self.tags.remove(&tag);
        }
        if let Some(name) = self.names_of.remove(&id) {
            self.open_invites.remove(&name);
        }
    }

    /// The leg that has this tag, for a message of its own trunk: nobody else can speak in its dialog.
    fn leg_of(&self, tag: &str, flow: Flow) -> Option<(CallId, Side)> {
        let (id, side) = self.tags.get(tag).copied()?;
        let call = self.calls.get(&id)?;
        (self.trunk_of(flow) == Some(call.trunk(side))).then_some((id, side))
    }

    fn peer_of(&self, flow: Flow) -> Option<Peer> {
        let trunk = self.trunk_of(flow)?;
        let rule = self.config.trunks.get(usize::from(trunk.0))?.media.source;
        Some(Peer { trunk, behind_nat: rule != MediaSourceRule::Signalled })
    }

    fn trunk_of(&self, flow: Flow) -> Option<TrunkId> {
        let listener = self.config.listeners.get(usize::from(flow.listener.0))?;
        route::trunk_of_source(&self.config, listener.realm, flow.remote.ip().to_canonical())
    }
}
