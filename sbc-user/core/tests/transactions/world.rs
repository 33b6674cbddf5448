//! The link, the clock and the two users.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sbc_core::dialog::{Unacknowledged, Verdict};
use sbc_core::flow::{Flow, Transport};
use sbc_core::id::{ConnId, ListenerId, OpId, TrunkId};
use sbc_core::rng::{Rng, SeededRng};
use sbc_core::sip::{Message, MessageBuilder, Method};
use sbc_core::txn::{ClientTxnId, Peer, ServerTxnId, Transactions, TxnEvent, TxnId, TxnOutput};

/// Who sends everything.
const PEER: Peer = Peer { trunk: TrunkId(0), behind_nat: false };

/// No transaction lives longer: an INVITE that rings (185 s), is cancelled (32 s) and leaves copies (32 s), with the
/// time its user takes and the link's delays.
const BOUND: Duration = Duration::from_secs(400);

/// What the link does to messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    pub(crate) loss_percent: u8,
    pub(crate) double_percent: u8,
    pub(crate) delay: Range<Duration>,
    pub(crate) seed: u64,
    /// These are lost, counted from 0 over both directions.
    pub(crate) lose: Vec<usize>,
    /// These take this long.
    pub(crate) slow: Vec<(usize, Duration)>,
}

/// What the callee does with an INVITE.
#[derive(Clone, Debug)]
pub(crate) struct Callee {
    pub(crate) ring: Option<Duration>,
    pub(crate) answer: Duration,
    pub(crate) status: u16,
}

impl Callee {
    pub(crate) fn answering(status: u16) -> Self {
        Self { ring: None, answer: Duration::from_millis(100), status }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Caller,
    Callee,
}

#[derive(Debug)]
enum Due {
    Arrival(Side, Bytes),
    Cancel,
    Ring(ServerTxnId),
    Answer(ServerTxnId),
}

/// What a side knows of a transaction, to hold its events against the rules.
#[derive(Debug, Default)]
struct Seen {
    finals: usize,
    timed_out: bool,
    terminated: bool,
}

pub(crate) struct World {
    pub(crate) caller_acknowledges: bool,
    link: Link,
    rng: SeededRng,
    callee: Callee,
    start: Instant,
    now: Instant,
    transport: Transport,
    tables: [Transactions; 2],
    due: BTreeMap<(Instant, u64), Due>,
    scheduled: u64,
    carried: Vec<String>,
    heard: [Vec<String>; 2],
    seen: HashMap<TxnId, Seen>,
    invite: Option<ClientTxnId>,
    requests: HashMap<ServerTxnId, Box<Message>>,
    answered: bool,
    accepted: Option<(ServerTxnId, Bytes, Unacknowledged)>,
}

impl World {
    #[allow(clippy::disallowed_methods)] // Any instant will do as the origin; one cannot be made otherwise.
    pub(crate) fn new(link: Link, callee: Callee) -> Self {
        let start = Instant::now();
        Self {
            caller_acknowledges: true,
            rng: SeededRng::new(link.seed),
            link,
            callee,
            start,
            now: start,
            transport: Transport::Udp,
            tables: [Transactions::new(100), Transactions::new(100)],
            due: BTreeMap::new(),
            scheduled: 0,
            carried: Vec::new(),
            heard: [Vec::new(), Vec::new()],
            seen: HashMap::new(),
            invite: None,
            requests: HashMap::new(),
            answered: false,
            accepted: None,
        }
    }

    /// Both sides believe that the link is reliable. (It may still lose: a connection that breaks does.)
    pub(crate) fn use_stream(&mut self) {
        self.transport = Transport::Tcp;
    }

    pub(crate) fn call(&mut self) {
        self.invite = Some(self.request(&Method::Invite, "z9hG4bKinvite"));
        self.drain();
    }

    pub(crate) fn options(&mut self) {
        self.request(&Method::Options, "z9hG4bKoptions");
        self.drain();
    }

    pub(crate) fn cancel_at(&mut self, after: Duration) {
        self.schedule(self.start + after, Due::Cancel);
    }

    pub(crate) fn caller_heard(&self) -> &[String] {
        &self.heard[0]
    }

    pub(crate) fn callee_heard(&self) -> &[String] {
        &self.heard[1]
    }

    /// How many messages of that method or status were given to the link.
    pub(crate) fn carried(&self, what: &str) -> usize {
        self.carried.iter().filter(|carried| *carried == what).count()
    }

    /// Lets time pass until nothing is left to do.
    pub(crate) fn run(&mut self) {
        while let Some(next) = self.next_due() {
            assert!(next >= self.now, "time goes forward");
            self.now = next;
            assert!(self.now - self.start < BOUND, "something does not end");
            while let Some(due) = self.due.first_entry().filter(|due| due.key().0 <= next) {
                let due = due.remove();
                self.happen(due);
                self.drain();
            }
            for side in 0..2 {
                self.tables[side].timeout(next);
                self.drain();
            }
            self.repeat_2xx();
            self.drain();
        }
        for table in &self.tables {
            assert!(table.is_empty(), "{} transactions stay behind", table.len());
        }
        for (txn, seen) in &self.seen {
            assert!(seen.terminated, "{txn:?} never ended");
            if let TxnId::Client(_) = txn {
                assert_eq!(
                    usize::from(seen.timed_out) + seen.finals.min(1),
                    1,
                    "{txn:?}: one outcome, {seen:?}"
                );
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let users = self.accepted.as_ref().map(|(_, _, waiting)| waiting.poll_timeout());
        let link = self.due.first_key_value().map(|((at, _), _)| *at);
        self.tables.iter().map(Transactions::poll_timeout).chain([users, link]).flatten().min()
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Arrival(side, bytes) => {
                let message = Message::parse(bytes).expect("what the tables send can be parsed");
                let flow = self.flow();
                self.tables[side as usize].receive(self.now, flow, PEER, message);
            }
            Due::Cancel => {
                if let Some(invite) = self.invite {
                    self.tables[0].cancel(self.now, invite, &[]);
                }
            }
            Due::Ring(txn) => {
                if !self.answered {
                    self.respond(txn, 180);
                }
            }
            Due::Answer(txn) => {
                if !self.answered {
                    self.answered = true;
                    let status = self.callee.status;
                    let bytes = self.respond(txn, status);
                    if status < 300 {
                        self.accepted = Some((txn, bytes, Unacknowledged::since(self.now)));
                    }
                }
            }
        }
    }

    fn drain(&mut self) {
        for side in [Side::Caller, Side::Callee] {
            while let Some(output) = self.tables[side as usize].poll() {
                match output {
                    TxnOutput::Send { bytes, .. } => self.carry(side, bytes),
                    TxnOutput::Event(event) => self.told(side, event),
                }
            }
        }
    }

    fn carry(&mut self, from: Side, bytes: Bytes) {
        let number = self.carried.len();
        let line = String::from_utf8_lossy(&bytes).into_owned();
        let line = line.strip_prefix("SIP/2.0 ").unwrap_or(&line);
        self.carried.push(line.split(' ').next().unwrap_or_default().to_owned());
        if self.link.lose.contains(&number) || self.percent() < self.link.loss_percent {
            return;
        }
        let to = if from == Side::Caller { Side::Callee } else { Side::Caller };
        let copies = if self.percent() < self.link.double_percent { 2 } else { 1 };
        for _ in 0..copies {
            let slow = self.link.slow.iter().find(|(n, _)| *n == number).map(|(_, delay)| *delay);
            let delay = slow.unwrap_or_else(|| self.delay());
            self.schedule(self.now + delay, Due::Arrival(to, bytes.clone()));
        }
    }

    fn told(&mut self, side: Side, event: TxnEvent) {
        let heard = match &event {
            TxnEvent::Request { message, .. } => message.method().map(|method| method.to_string()),
            TxnEvent::Ack { .. } => self.accepted.is_some().then(|| "ACK".to_owned()),
            TxnEvent::Response { message, .. } => message.status().map(|status| status.to_string()),
            TxnEvent::ResponseOutside { .. } => None,
            TxnEvent::TimedOut { .. } => Some("timed out".to_owned()),
            TxnEvent::TransportFailed { .. } => Some("transport failed".to_owned()),
            TxnEvent::Terminated { .. } => Some("terminated".to_owned()),
            TxnEvent::Overloaded { .. } => Some("overloaded".to_owned()),
        };
        self.heard[side as usize].extend(heard);
        match event {
            TxnEvent::Request { txn, message, .. } => self.serve(txn, message),
            TxnEvent::Ack { .. } => self.accepted = None,
            TxnEvent::Response { txn, message, .. } => {
                let status = message.status().unwrap_or_default();
                let seen = self.living(TxnId::Client(txn));
                seen.finals += usize::from(status >= 200);
                assert!(seen.finals <= 1 || (200..300).contains(&status), "a final response was told twice");
                self.acknowledge(&message);
            }
            TxnEvent::ResponseOutside { message, .. } => self.acknowledge(&message),
            TxnEvent::TimedOut { txn } => self.living(txn).timed_out = true,
            TxnEvent::TransportFailed { txn } => {
                self.living(txn);
            }
            TxnEvent::Terminated { txn } => self.living(txn).terminated = true,
            TxnEvent::Overloaded { .. } => panic!("there is room for all"),
        }
    }

    fn serve(&mut self, txn: ServerTxnId, message: Box<Message>) {
        let method = message.method();
        assert!(self.requests.insert(txn, message).is_none(), "a request was told twice");
        self.living(TxnId::Server(txn));
        match method {
            Some(Method::Invite) => {
                if let Some(after) = self.callee.ring {
                    self.schedule(self.now + after, Due::Ring(txn));
                }
                self.schedule(self.now + self.callee.answer, Due::Answer(txn));
            }
            Some(Method::Cancel) => {
                let invite = self.tables[1].matching_invite(txn);
                self.respond(txn, if invite.is_some() { 200 } else { 481 });
                if let Some(invite) = invite.filter(|_| !self.answered) {
                    self.answered = true;
                    self.respond(invite, 487);
                }
            }
            Some(_) | None => {
                self.respond(txn, 200);
            }
        }
    }

    fn respond(&mut self, txn: ServerTxnId, status: u16) -> Bytes {
        let flow = self.flow();
        let request = &self.requests[&txn];
        let bytes =
            MessageBuilder::response_to(request, status, "X", Some(flow.remote), Some("callee")).build();
        self.tables[1].respond(self.now, txn, status, bytes.clone());
        bytes
    }

    fn repeat_2xx(&mut self) {
        let Some((txn, bytes, waiting)) = &mut self.accepted else { return };
        match waiting.on_timeout(self.now) {
            Verdict::Wait => {}
            Verdict::Repeat => {
                self.tables[1].respond(self.now, *txn, 200, bytes.clone());
            }
            Verdict::GiveUp => {
                self.heard[1].push("no ACK".to_owned());
                self.accepted = None;
            }
        }
    }

    fn acknowledge(&mut self, response: &Message) {
        let is_invites = response.cseq().is_ok_and(|cseq| cseq.method == Method::Invite);
        let accepts = response.status().is_some_and(|status| (200..300).contains(&status));
        if is_invites && accepts && self.caller_acknowledges {
            let ack = outline(&Method::Ack, "z9hG4bKack");
            let flow = self.flow();
            self.tables[0].send(flow, ack.build());
        }
    }

    fn request(&mut self, method: &Method, branch: &str) -> ClientTxnId {
        let flow = self.flow();
        let bytes = outline(method, branch).build();
        let txn = self.tables[0].request(self.now, method.clone(), branch, flow, bytes);
        self.living(TxnId::Client(txn));
        txn
    }

    /// What is known of a transaction that must not have ended.
    fn living(&mut self, txn: TxnId) -> &mut Seen {
        let seen = self.seen.entry(txn).or_default();
        assert!(!seen.terminated, "{txn:?} speaks after its end");
        seen
    }

    fn flow(&self) -> Flow {
        Flow {
            listener: ListenerId(0),
            transport: self.transport,
            remote: SocketAddr::from(([192, 0, 2, 1], 5060)),
            conn: self.transport.is_reliable().then_some(ConnId(1)),
        }
    }

    fn schedule(&mut self, at: Instant, due: Due) {
        self.scheduled += 1;
        self.due.insert((at, self.scheduled), due);
    }

    fn percent(&mut self) -> u8 {
        u8::try_from(self.rng.next_u64() % 100).expect("less than 100")
    }

    fn delay(&mut self) -> Duration {
        let Range { start, end } = self.link.delay;
        let span = u64::try_from((end - start).as_millis()).expect("short").max(1);
        start + Duration::from_millis(self.rng.next_u64() % span)
    }
}

/// One table between a peer and a user who both do anything.
pub(crate) struct Lone {
    table: Transactions,
    flow: Flow,
    now: Instant,
    limit: usize,
    clients: Vec<(ClientTxnId, Message)>,
    servers: Vec<(ServerTxnId, Box<Message>)>,
    sent: Vec<OpId>,
    alive: BTreeSet<TxnId>,
}

const METHODS: [Method; 5] = [Method::Invite, Method::Bye, Method::Options, Method::Cancel, Method::Ack];

impl Lone {
    #[allow(clippy::disallowed_methods)] // Any instant will do as the origin; one cannot be made otherwise.
    pub(crate) fn new(reliable: bool, limit: usize) -> Self {
        let transport = if reliable { Transport::Tls } else { Transport::Udp };
        Self {
            table: Transactions::new(limit),
            flow: Flow {
                listener: ListenerId(0),
                transport,
                remote: SocketAddr::from(([192, 0, 2, 1], 5060)),
                conn: reliable.then_some(ConnId(1)),
            },
            now: Instant::now(),
            limit,
            clients: Vec::new(),
            servers: Vec::new(),
            sent: Vec::new(),
            alive: BTreeSet::new(),
        }
    }

    pub(crate) fn receive_request(&mut self, method: usize, branch: usize, cookie: bool) {
        let before = self.alive.len();
        let cookie = if cookie { "z9hG4bK" } else { "" };
        let bytes = outline(&METHODS[method], &format!("{cookie}{branch}")).build();
        self.receive(bytes);
        assert!(self.alive.len() <= before.max(self.limit), "a request too many was taken");
    }

    pub(crate) fn receive_response(&mut self, nth: usize, status: u16) {
        let Some((_, request)) = self.clients.get(nth) else { return };
        self.receive(MessageBuilder::response_to(request, status, "X", None, Some("t")).build());
    }

    fn receive(&mut self, bytes: Bytes) {
        let message = Message::parse(bytes).expect("well-formed");
        self.table.receive(self.now, self.flow, PEER, message);
        self.drain();
    }

    pub(crate) fn request(&mut self, method: usize) {
        let branch = format!("z9hG4bKours{}", self.clients.len());
        let bytes = outline(&METHODS[method], &branch).build();
        let request = Message::parse(bytes.clone()).expect("well-formed");
        let txn = self.table.request(self.now, METHODS[method].clone(), &branch, self.flow, bytes);
        self.alive.insert(TxnId::Client(txn));
        self.clients.push((txn, request));
        self.drain();
    }

    pub(crate) fn respond(&mut self, nth: usize, status: u16) {
        let Some((txn, request)) = self.servers.get(nth) else { return };
        let bytes = MessageBuilder::response_to(request, status, "X", None, Some("t")).build();
        let there = self.table.respond(self.now, *txn, status, bytes);
        assert_eq!(there, self.alive.contains(&TxnId::Server(*txn)));
        self.drain();
    }

    pub(crate) fn cancel(&mut self, nth: usize) {
        let Some((txn, _)) = self.clients.get(nth) else { return };
        self.table.cancel(self.now, *txn, &[]);
        self.drain();
    }

    pub(crate) fn fail(&mut self, nth: usize) {
        let Some(op) = self.sent.get(nth) else { return };
        self.table.send_failed(self.now, *op);
        self.drain();
    }

    pub(crate) fn wait(&mut self, length: Duration) {
        self.now += length;
        self.table.timeout(self.now);
        self.drain();
        assert!(
            self.table.poll_timeout().is_none_or(|due| due > self.now),
            "a timer is due and did not fire"
        );
    }

    /// Everybody falls silent: within its bound each transaction must have said that it ended.
    pub(crate) fn end(&mut self) {
        for _ in 0..BOUND.as_secs() {
            self.wait(Duration::from_secs(1));
        }
        assert!(self.table.is_empty(), "{} transactions stay behind", self.table.len());
        assert_eq!(self.table.poll_timeout(), None);
        assert!(self.alive.is_empty(), "{:?} never said that they ended", self.alive);
    }

    fn drain(&mut self) {
        while let Some(output) = self.table.poll() {
            match output {
                TxnOutput::Send { op, .. } => self.sent.push(op),
                TxnOutput::Event(TxnEvent::Request { txn, message, .. }) => {
                    assert!(self.alive.insert(TxnId::Server(txn)), "{txn:?} was told twice");
                    self.servers.push((txn, message));
                }
                TxnOutput::Event(TxnEvent::Terminated { txn }) => {
                    assert!(self.alive.remove(&txn), "{txn:?} ended twice");
                }
                TxnOutput::Event(TxnEvent::Response { txn, .. }) => self.check_alive(TxnId::Client(txn)),
                TxnOutput::Event(TxnEvent::TimedOut { txn } | TxnEvent::TransportFailed { txn }) => {
                    self.check_alive(txn);
                }
                TxnOutput::Event(
                    TxnEvent::Ack { .. } | TxnEvent::ResponseOutside { .. } | TxnEvent::Overloaded { .. },
                ) => {}
            }
        }
    }

    fn check_alive(&self, txn: TxnId) {
        assert!(self.alive.contains(&txn), "{txn:?} speaks after its end");
    }
}

fn outline(method: &Method, branch: &str) -> MessageBuilder {
    MessageBuilder::request(method, "sip:b@example.com")
        .header("Via", format!("SIP/2.0/UDP 192.0.2.1:5060;branch={branch}"))
        .header("Max-Forwards", "70")
        .header("From", "<sip:a@example.com>;tag=a")
        .header("To", "<sip:b@example.com>")
        .header("Call-ID", "c1")
        .header("CSeq", format!("7 {method}"))
}
