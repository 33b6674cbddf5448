//! Whatever two trunks send, in whatever order: the engine panics at nothing, sends to nobody else, and when every call
//! has been hung up and every timer has run, holds nothing: no call, transaction, timer, port or media plan.
//!
//! The input is a list of steps, each a byte that says what happens, a byte that says how, a length and that many
//! bytes. Some steps answer what the engine has sent, so that calls come up, change and end.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use sbc_core::command::{Command, EngineStatus, Reply};
use sbc_core::config::{
    EngineConfig, Listener, MediaRealm, MediaSourceRule, MediaTimeouts, NextHop, Prefix, Realm, Route,
    RtcpMux, Trunk, TrunkMedia,
};
use sbc_core::engine::Engine;
use sbc_core::flow::{Flow, Transport};
use sbc_core::id::{CallId, ListenerId, OpId, RealmId, TrunkId};
use sbc_core::media::command::{
    DirectionCounters, MediaCommand, MediaDone, MediaError, MediaEvent, StreamCounters,
};
use sbc_core::media::plan::Placement;
use sbc_core::rng::SeededRng;
use sbc_core::sip::{HeaderName, Message, MessageBuilder, Method};
use sbc_core::{Input, Now, Output};

const PEERS: [&str; 2] = ["198.51.100.20:5060", "10.9.0.20:5060"];
const OURS: [&str; 2] = ["203.0.113.1:5060", "10.9.0.1:5060"];

/// Steps of one run: enough for a call with changes, few enough to stay fast.
const STEPS: usize = 40;
/// Every timer of a call has run after far fewer moments than this.
const MOMENTS: usize = 20_000;

pub(crate) fn run(data: &[u8]) {
    let mut bench = Bench::new();
    let mut rest = data;
    for _ in 0..STEPS {
        let [what, how, length, tail @ ..] = rest else { break };
        let (bytes, tail) = tail.split_at(tail.len().min(usize::from(*length) * 8));
        rest = tail;
        bench.step(*what, *how, bytes);
    }
    bench.finish();
}

struct Bench {
    engine: Engine<SeededRng>,
    now: Now,
    /// The last request and the last response to an INVITE that each peer has received.
    requests: [Option<Message>; 2],
    answers: [Option<Message>; 2],
    plans: BTreeSet<CallId>,
    media_fails: bool,
    replies: Vec<Reply>,
    /// That every stream has carried.
    packets: u64,
}

impl Bench {
    fn new() -> Self {
        let address = |text: &str| -> SocketAddr { text.parse().expect("a constant") };
        let realm = |index: usize| {
            let ip: IpAddr = address(OURS[index]).ip();
            let quarantine = Duration::from_secs(1);
            let media = MediaRealm {
                bind: ip,
                advertised: ip,
                ports: 20_000..=20_019,
                quarantine,
                dscp_audio: 46,
                dscp_video: 46,
                rate_factor: 3,
            };
            Realm { name: format!("realm {index}"), media, hide_topology: true }
        };
        let id = |index: usize| u16::try_from(index).expect("0 or 1");
        let listener = |index: usize| Listener {
            realm: RealmId(id(index)),
            transport: Transport::Udp,
            bind: address(OURS[index]),
            advertised: address(OURS[index]),
        };
        let trunk = |index: usize| Trunk {
            name: format!("trunk {index}"),
            realm: RealmId(id(index)),
            sources: vec![Prefix { addr: address(PEERS[index]).ip(), len: 32 }],
            next_hop: Some(NextHop { listener: ListenerId(id(index)), remote: address(PEERS[index]) }),
            // One side is held to its SDP, the other has everything that can be had.
            media: match index {
                0 => TrunkMedia::default(),
                _ => TrunkMedia {
                    source: MediaSourceRule::Any,
                    rtcp_mux: RtcpMux::Offer,
                    prime: Some(TrunkMedia::PRIME),
                    ..TrunkMedia::default()
                },
            },
        };
        let config = EngineConfig {
            node: 1,
            epoch: 1,
            realms: vec![realm(0), realm(1)],
            listeners: vec![listener(0), listener(1)],
            trunks: vec![trunk(0), trunk(1)],
            routes: vec![
                Route { from: TrunkId(0), to: TrunkId(1) },
                Route { from: TrunkId(1), to: TrunkId(0) },
            ],
            max_calls: 4,
            media_timeouts: MediaTimeouts::default(),
            guard: Default::default(),
        };
        // Any instant will do as the origin.
        let now = Now { mono: Instant::now(), wall: SystemTime::UNIX_EPOCH };
        Self {
            engine: Engine::new(config, SeededRng::new(7), now),
            now,
            requests: [None, None],
            answers: [None, None],
            plans: BTreeSet::new(),
            media_fails: false,
            replies: Vec::new(),
            packets: 0,
        }
    }

    fn step(&mut self, what: u8, how: u8, bytes: &[u8]) {
        let peer = usize::from(how & 1);
        match what % 6 {
            0 | 1 => self.datagram(usize::from(what % 6), bytes),
            2 => self.pass(Duration::from_millis(u64::from(how) * 250)),
            3 => {
                const STATUS: [u16; 8] = [100, 180, 183, 200, 200, 302, 486, 503];
                let Some(request) = self.requests[peer].clone() else { return };
                let status = STATUS[usize::from(how >> 1) % STATUS.len()];
                let tag = (status > 100).then_some("peer");
                let mut response = MessageBuilder::response_to(&request, status, "as told", None, tag)
                    .header(HeaderName::Contact, format!("<sip:peer@{}>", PEERS[peer]));
                for route in request.all(HeaderName::RecordRoute) {
                    response = response.header(HeaderName::RecordRoute, route);
                }
                self.datagram(peer, &with_body(response, bytes));
            }
            4 => {
                const METHODS: [Method; 6] =
                    [Method::Ack, Method::Bye, Method::Cancel, Method::Invite, Method::Update, Method::Info];
                let Some(answer) = self.answers[peer].clone() else { return };
                let method = &METHODS[usize::from(how >> 1) % METHODS.len()];
                if let Some(request) = inside(peer, &answer, method, how, bytes) {
                    self.datagram(peer, &request);
                }
            }
            _ => {
                self.media_fails = how & 1 == 1;
                self.media_event(how, bytes);
            }
        }
    }

    /// The dataplane tells something about a call that there is, or is not.
    fn media_event(&mut self, how: u8, bytes: &[u8]) {
        let (call, mline, caller_side) = (CallId(u64::from(how >> 6) + 1), how >> 4 & 3, how & 2 == 0);
        let event = if how & 4 == 0 {
            let source =
                SocketAddr::new(PEERS[1].parse::<SocketAddr>().expect("a constant").ip(), u16::from(how) + 1);
            MediaEvent::Latched { call, mline, caller_side, rtcp: how & 8 == 0, source }
        } else {
            MediaEvent::Report { call, mline, caller_side, packet: Bytes::copy_from_slice(bytes) }
        };
        self.packets += u64::from(how >> 3 & 1);
        self.input(Input::Media(event));
    }

    fn datagram(&mut self, peer: usize, bytes: &[u8]) {
        let listener = ListenerId(u16::try_from(peer).expect("0 or 1"));
        let remote = PEERS[peer].parse().expect("a constant");
        let flow = Flow { listener, transport: Transport::Udp, remote, conn: None };
        self.input(Input::Datagram { flow, bytes });
    }

    fn input(&mut self, input: Input<'_>) {
        self.engine.handle_input(self.now, input);
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Send { flow, bytes, .. } => self.sent(flow, bytes),
                Output::Media { op, command } => {
                    let result = self.command(command);
                    self.engine.handle_input(self.now, Input::MediaDone { op, result });
                }
                Output::Reply { reply, .. } => self.replies.push(reply),
                Output::Close { .. } | Output::Guard(_) | Output::Record(_) | Output::Checkpoint(_) => {}
            }
        }
    }

    fn sent(&mut self, flow: Flow, bytes: Bytes) {
        let peer = usize::from(flow.listener.0);
        let home: SocketAddr = PEERS[peer].parse().expect("a constant");
        assert_eq!(flow.remote.ip(), home.ip(), "sent to a stranger");
        let Ok(message) = Message::parse(bytes) else { panic!("the engine writes messages") };
        if message.is_request() {
            self.requests[peer] = Some(message);
        } else if message.cseq().is_ok_and(|cseq| cseq.method == Method::Invite) {
            self.answers[peer] = Some(message);
        }
    }

    fn command(&mut self, command: MediaCommand) -> Result<MediaDone, MediaError> {
        let placements = match command {
            MediaCommand::Install(_) if self.media_fails => return Err(MediaError::Full("as told")),
            MediaCommand::Install(plan) => {
                self.plans.insert(plan.call);
                vec![Placement::Kernel; plan.streams.len()]
            }
            MediaCommand::Remove(call) => {
                self.plans.remove(&call);
                vec![]
            }
            MediaCommand::Observe(_) => {
                let direction =
                    DirectionCounters { rtp_kernel: self.packets, ..DirectionCounters::default() };
                let stream = StreamCounters { from_caller: direction, ..StreamCounters::default() };
                return Ok(MediaDone { placements: vec![], counters: vec![stream] });
            }
            MediaCommand::Prime { .. } => vec![],
        };
        Ok(MediaDone { placements, counters: vec![] })
    }

    /// Lets time pass, with every moment at which the engine wants to be called.
    fn pass(&mut self, time: Duration) {
        let until = self.now.mono + time;
        for _ in 0..MOMENTS {
            match self.engine.poll_timeout() {
                Some(at) if at <= until => {
                    let at = at.max(self.now.mono);
                    self.now.wall += at - self.now.mono;
                    self.now.mono = at;
                    self.input(Input::Timeout);
                }
                Some(_) | None => {
                    self.now.wall += until - self.now.mono;
                    self.now.mono = until;
                    return;
                }
            }
        }
        panic!("the engine wants to be called for ever");
    }

    fn finish(mut self) {
        self.input(Input::Command { op: OpId(u64::MAX), command: Command::HangUpAll });
        self.pass(Duration::from_secs(3600));
        self.input(Input::Command { op: OpId(u64::MAX), command: Command::Status });
        let Some(Reply::Status(EngineStatus { calls, transactions, timers, ports_in_use, .. })) =
            self.replies.pop()
        else {
            panic!("no status")
        };
        let left = (calls, transactions, timers, ports_in_use, self.plans.len());
        assert_eq!(left, (0, 0, 0, 0, 0), "calls, transactions, timers, ports, plans");
    }
}

/// A request of the caller's dialog, as far as its last answer tells of one.
fn inside(peer: usize, answer: &Message, method: &Method, how: u8, bytes: &[u8]) -> Option<Bytes> {
    let contact = answer.contacts().next()?.ok()?;
    let cseq = answer.cseq().ok()?.number;
    let (number, branch) = match method {
        Method::Ack | Method::Cancel => (cseq, "z9hG4bKfuzz".to_owned()),
        Method::Invite
        | Method::Bye
        | Method::Options
        | Method::Register
        | Method::Info
        | Method::Prack
        | Method::Update
        | Method::Refer
        | Method::Subscribe
        | Method::Notify
        | Method::Message
        | Method::Publish
        | Method::Other(_) => (cseq + 1 + u32::from(how), format!("z9hG4bKfuzz{how}")),
    };
    let request = MessageBuilder::request(method, contact.addr()?.uri().as_str())
        .header(HeaderName::Via, format!("SIP/2.0/UDP {};branch={branch};rport", PEERS[peer]))
        .header(HeaderName::MaxForwards, "70")
        .header(HeaderName::From, answer.from().ok()?.raw())
        .header(HeaderName::To, answer.to().ok()?.raw())
        .header(HeaderName::CallId, answer.call_id().ok()?)
        .header(HeaderName::CSeq, format!("{number} {method}"))
        .header(HeaderName::Contact, format!("<sip:caller@{}>", PEERS[peer]));
    Some(with_body(request, bytes))
}

fn with_body(message: MessageBuilder, body: &[u8]) -> Bytes {
    if body.is_empty() { message.build() } else { message.body("application/sdp", body.to_vec()).build() }
}
