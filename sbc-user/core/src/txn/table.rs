//! All transactions: finds the one that a message, timer or failure belongs to, steps its machine, performs what the
//! machine asks for.
//!
//! What the machines decide is theirs; here are only keys, timers, bytes and the order of outputs.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher as _;
use std::time::Instant;

use bytes::Bytes;

use super::client::{Client, ClientEvent, Received};
#[cfg(test)]
use super::clock::Clock;
use super::clock::{Outlet, TxnTimers};
use super::event::{ClientTxnId, ServerTxnId, TxnEvent, TxnId, TxnOutput};
use super::key::{ClientKey, ServerKey};
use super::machine::{Action, Timer};
use super::own_messages;
use super::peer::Peer;
use super::response_route::response_flow;
use super::server::{Carried, Server, ServerEvent};
use crate::flow::Flow;
use crate::id::OpId;
use crate::sip::{Message, Method};
use crate::timers::{TimerId, Timers};

/// How many transactions may live at once. Each keeps its request or response, some 2 kB; this is what 1,000 calls a
/// second with four transactions of 32 s each leave behind, with a margin.
pub const MAX_TRANSACTIONS: usize = 160_000;

/// Every transaction of one engine shard (RFC 3261 s.17).
///
/// Give it what arrives and what the user wants; then drain [`poll`](Self::poll) to `None`, then wait until
/// [`poll_timeout`](Self::poll_timeout). Outputs are in the order in which they must be performed.
#[derive(Debug)]
pub struct Transactions {
    clients: HashMap<ClientTxnId, Client>,
    servers: HashMap<ServerTxnId, Server>,
    client_keys: HashMap<ClientKey, ClientTxnId>,
    server_keys: HashMap<ServerKey, ServerTxnId>,
    timers: TxnTimers,
    outputs: VecDeque<TxnOutput>,
    numbered: u64,
    limit: usize,
    refusal_tags: RandomState,
}

impl Transactions {
    /// None yet. With `limit` alive, new requests of peers are refused with 503; our own are not, because they are
    /// what ends calls.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            clients: HashMap::new(),
            servers: HashMap::new(),
            client_keys: HashMap::new(),
            server_keys: HashMap::new(),
            timers: Timers::new(),
            outputs: VecDeque::new(),
            numbered: 0,
            limit,
            refusal_tags: RandomState::new(),
        }
    }

    /// A message arrived from `peer` on `flow`. A request or response without what names its transaction (Via, CSeq …) is dropped: there is
    /// nobody to tell; whether it is otherwise sound is for the caller to judge before.
    pub fn receive(&mut self, now: Instant, flow: Flow, peer: Peer, message: Message) {
        if message.is_request() {
            self.receive_request(now, flow, peer, message);
        } else {
            self.receive_response(now, flow, message);
        }
    }

    /// Answers a request. `bytes` is the whole response with this status, made with
    /// [`MessageBuilder::response_to`](crate::sip::MessageBuilder::response_to) and the source of the request. Returns whether the transaction is still there to send it.
    ///
    /// A 2xx to an INVITE may be given repeatedly until its ACK arrives (s.13.3.1.4). To other requests, a 1xx but 100
    /// is not sent, and a 408 ends the transaction without an answer (RFC 4320 s.4).
    pub fn respond(&mut self, now: Instant, txn: ServerTxnId, status: u16, bytes: Bytes) -> bool {
        let Some(server) = self.servers.get(&txn) else { return false };
        match status {
            101..=199 if !server.is_invite() => {}
            408 if !server.is_invite() => self.end_server(txn),
            _ => self.step_server(now, txn, ServerEvent::Response { status }, Carried::Response(bytes)),
        }
        true
    }

    /// Sends a request of ours (not ACK: see [`send`](Self::send); not CANCEL: see [`cancel`](Self::cancel)).
    /// `bytes` is the whole request; `branch` and `method` are those in it.
    pub fn request(
        &mut self,
        now: Instant,
        method: Method,
        branch: &str,
        flow: Flow,
        bytes: Bytes,
    ) -> ClientTxnId {
        let key = ClientKey { listener: flow.listener, branch: branch.into(), method };
        self.start_client(now, key, flow, bytes, false)
    }

    /// Withdraws an INVITE of ours (s.9.1): CANCEL is sent now, or with the first provisional response; never after a
    /// final one, and once only. The INVITE's own final response (487, or a 2xx that was faster) is still delivered, or
    /// `TimedOut` after 64*T1.
    ///
    /// `lines` are whole header lines that say why (`Reason`, RFC 3326).
    pub fn cancel(&mut self, now: Instant, invite: ClientTxnId, lines: &[Bytes]) {
        if let Some(client) = self.clients.get_mut(&invite) {
            client.cancel_lines = lines.to_vec();
        }
        self.step_client(now, invite, ClientEvent::Cancel, None);
    }

    /// Sends a message that belongs to no transaction: the ACK to a 2xx.
    pub fn send(&mut self, flow: Flow, bytes: Bytes) {
        self.outputs.push_back(TxnOutput::Send { op: TxnId::STATELESS_OP, flow, bytes });
    }

    /// What [`TxnOutput::Send`] named `op` could not be delivered.
    pub fn send_failed(&mut self, now: Instant, op: OpId) {
        match TxnId::from_op(op) {
            Some(TxnId::Client(id)) => self.step_client(now, id, ClientEvent::TransportError, None),
            Some(TxnId::Server(id)) => {
                self.step_server(now, id, ServerEvent::TransportError, Carried::Nothing);
            }
            None => {}
        }
    }

    /// The INVITE that a CANCEL is meant for (s.9.2), while its transaction lives. `None` also if `txn` is no CANCEL.
    #[must_use]
    pub fn matching_invite(&self, txn: ServerTxnId) -> Option<ServerTxnId> {
        let cancel = self.servers.get(&txn)?;
        let invite = cancel.key.of_cancelled()?;
        self.server_keys.get(&invite).copied()
    }

    /// When [`timeout`](Self::timeout) is to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.poll_timeout()
    }

    /// Fires what is due.
    pub fn timeout(&mut self, now: Instant) {
        while let Some((timer_id, (txn, timer))) = self.timers.expire(now) {
            self.fire(now, txn, timer, timer_id);
        }
    }

    /// The next thing to send or to tell.
    pub fn poll(&mut self) -> Option<TxnOutput> {
        self.outputs.pop_front()
    }

    /// How many timers are armed.
    #[must_use]
    pub fn timers(&self) -> usize {
        self.timers.len()
    }

    /// How many transactions live, of both sides.
    #[must_use]
    pub fn len(&self) -> usize {
        self.clients.len() + self.servers.len()
    }

    /// Whether no transaction lives.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn receive_request(&mut self, now: Instant, flow: Flow, peer: Peer, message: Message) {
        let Some(key) = ServerKey::of(&message, flow.listener, peer) else {
            tracing::debug!(peer = %flow.remote, "request without a transaction's name dropped");
            return;
        };
        let known = self.server_keys.get(&key).copied();
        if message.method() == Some(Method::Ack) {
            return self.receive_ack(now, flow, message, known);
        }
        if let Some(id) = known {
            return self.step_server(now, id, ServerEvent::Copy, Carried::Nothing);
        }
        if self.len() >= self.limit {
            let tag = format!("{:016x}", self.refusal_tags.hash_one(&key));
            self.send(response_flow(&message, flow, peer), own_messages::overloaded(&message, flow, &tag));
            return self.tell(TxnEvent::Overloaded { flow });
        }
        self.start_server(now, key, Box::new(message), flow, peer);
    }

    fn receive_ack(&mut self, now: Instant, flow: Flow, message: Message, invite: Option<ServerTxnId>) {
        let message = Box::new(message);
        match invite.filter(|id| self.acknowledges(&message, *id)) {
            Some(id) => self.step_server(now, id, ServerEvent::Ack, Carried::Message(message, flow)),
            None => self.tell(TxnEvent::Ack { message, flow }),
        }
    }

    /// For a sender that follows RFC 2543, the ACK must have the To tag of our response (s.17.2.3).
    fn acknowledges(&self, ack: &Message, invite: ServerTxnId) -> bool {
        let Some(server) = self.servers.get(&invite) else { return false };
        if !server.key.needs_to_tag() {
            return true;
        }
        let response = server.response.clone().and_then(|bytes| Message::parse(bytes).ok());
        let ours = response.as_ref().and_then(|response| response.to().ok());
        ours.is_some_and(|ours| ack.to().is_ok_and(|theirs| theirs.tag() == ours.tag()))
    }

    fn receive_response(&mut self, now: Instant, flow: Flow, message: Message) {
        let Some(status) = message.status() else { return };
        let known =
            ClientKey::of(&message, flow.listener).and_then(|key| self.client_keys.get(&key).copied());
        let message = Box::new(message);
        match known {
            Some(id) => self.step_client(now, id, ClientEvent::Response { status }, Some((message, flow))),
            None => self.tell(TxnEvent::ResponseOutside { message, flow }),
        }
    }

    fn fire(&mut self, now: Instant, txn: TxnId, timer: Timer, timer_id: TimerId) {
        match txn {
            TxnId::Client(id) => {
                if let Some(client) = self.clients.get_mut(&id) {
                    client.clock.fired(timer_id);
                    self.step_client(now, id, ClientEvent::Fired(timer), None);
                }
            }
            TxnId::Server(id) => {
                if let Some(server) = self.servers.get_mut(&id) {
                    server.clock.fired(timer_id);
                    self.step_server(now, id, ServerEvent::Fired(timer), Carried::Nothing);
                }
            }
        }
    }

    fn start_client(
        &mut self,
        now: Instant,
        key: ClientKey,
        flow: Flow,
        bytes: Bytes,
        silent: bool,
    ) -> ClientTxnId {
        let id = ClientTxnId(self.number());
        self.client_keys.insert(key.clone(), id);
        let (client, actions) = Client::new(key, flow, bytes, silent);
        self.clients.insert(id, client);
        self.perform_client(now, id, actions, None);
        id
    }

    /// CANCEL is a transaction of its own, on the INVITE's path and with its branch (s.9.1). Nobody above knows it.
    fn start_cancel(&mut self, now: Instant, invite: ClientTxnId) {
        let Some(invite) = self.clients.get(&invite) else { return };
        let Some(bytes) = own_messages::cancel(&invite.request, &invite.cancel_lines) else { return };
        let key = ClientKey { method: Method::Cancel, ..invite.key.clone() };
        self.start_client(now, key, invite.flow, bytes, true);
    }

    fn step_client(&mut self, now: Instant, id: ClientTxnId, event: ClientEvent, response: Option<Received>) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let actions = client.on(event);
        self.perform_client(now, id, actions, response);
    }

    fn perform_client(
        &mut self,
        now: Instant,
        id: ClientTxnId,
        actions: &[Action],
        response: Option<Received>,
    ) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let outlet = Outlet { now, timers: &mut self.timers, outputs: &mut self.outputs };
        let after = client.perform(id, actions, response, outlet);
        if client.is_terminated() {
            self.end_client(id);
        }
        if after.cancel {
            self.start_cancel(now, id);
        }
        if let Some(timer) = after.fires_at_once {
            self.step_client(now, id, ClientEvent::Fired(timer), None);
        }
    }

    fn end_client(&mut self, id: ClientTxnId) {
        let Some(mut client) = self.clients.remove(&id) else { return };
        client.clock.stop(&mut self.timers);
        self.client_keys.remove(&client.key);
        if !client.silent {
            self.tell(TxnEvent::Terminated { txn: TxnId::Client(id) });
        }
    }

    fn start_server(&mut self, now: Instant, key: ServerKey, message: Box<Message>, flow: Flow, peer: Peer) {
        let id = ServerTxnId(self.number());
        self.server_keys.insert(key.clone(), id);
        let (server, actions) = Server::new(key, response_flow(&message, flow, peer));
        self.servers.insert(id, server);
        self.perform_server(now, id, actions, Carried::Message(message, flow));
    }

    fn step_server(&mut self, now: Instant, id: ServerTxnId, event: ServerEvent, carried: Carried) {
        let Some(server) = self.servers.get_mut(&id) else { return };
        let actions = server.on(event);
        self.perform_server(now, id, actions, carried);
    }

    fn perform_server(&mut self, now: Instant, id: ServerTxnId, actions: &[Action], carried: Carried) {
        let Some(server) = self.servers.get_mut(&id) else { return };
        let outlet = Outlet { now, timers: &mut self.timers, outputs: &mut self.outputs };
        let fires_at_once = server.perform(id, actions, carried, outlet);
        if server.is_terminated() {
            self.end_server(id);
        }
        if let Some(timer) = fires_at_once {
            self.step_server(now, id, ServerEvent::Fired(timer), Carried::Nothing);
        }
    }

    fn end_server(&mut self, id: ServerTxnId) {
        let Some(mut server) = self.servers.remove(&id) else { return };
        server.clock.stop(&mut self.timers);
        self.server_keys.remove(&server.key);
        self.tell(TxnEvent::Terminated { txn: TxnId::Server(id) });
    }

    fn tell(&mut self, event: TxnEvent) {
        self.outputs.push_back(TxnOutput::Event(event));
    }

    fn number(&mut self) -> u64 {
        self.numbered += 1;
        self.numbered
    }

    /// Every transaction has its key and a timer that ends it; no key and no timer is left without one.
    #[cfg(test)]
    #[allow(clippy::disallowed_methods)] // The order of a sum decides nothing.
    pub(super) fn check_consistency(&self) {
        assert_eq!(self.client_keys.len(), self.clients.len());
        assert_eq!(self.server_keys.len(), self.servers.len());
        let clocks = self.clients.values().map(|client| &client.clock);
        let armed: Vec<_> =
            clocks.chain(self.servers.values().map(|server| &server.clock)).map(Clock::armed).collect();
        assert!(armed.iter().all(|armed| *armed > 0), "a transaction that nothing ends");
        assert_eq!(armed.iter().sum::<usize>(), self.timers.len());
    }
}
