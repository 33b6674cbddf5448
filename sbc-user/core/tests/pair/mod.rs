//! The simulator: user agent A, the engine, user agent B, a link between each and the engine, a dataplane that answers
//! as it is told, and a clock that jumps from event to event. Nothing waits, nothing depends on the machine.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

pub mod link;
pub mod ua;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use sbc_core::command::{CallView, Command, EngineStatus, Reply};
use sbc_core::config::{
    EngineConfig, Listener, MediaRealm, MediaTimeouts, NextHop, Prefix, Realm, Route, Trunk, TrunkMedia,
};
use sbc_core::engine::Engine;
use sbc_core::flow::{Flow, Transport};
use sbc_core::id::{CallId, ConnId, ListenerId, OpId, RealmId, TrunkId};
use sbc_core::media::command::{
    DirectionCounters, MediaCommand, MediaDone, MediaError, SideOf, StreamCounters,
};
use sbc_core::media::plan::{MediaPlan, Placement, SourcePolicy, StreamPlan, StreamSide};
use sbc_core::record::CallRecord;
use sbc_core::restart::CallCheckpoint;
use sbc_core::rng::SeededRng;
use sbc_core::{Input, Now, Output};

use link::{End, Link, Quality};
use ua::Ua;

pub const A_ADDR: &str = "198.51.100.10:5060";
pub const B_ADDR: &str = "10.9.0.20:5060";
pub const NEIGHBOUR_ADDR: &str = "198.51.100.66:5060";
pub const SBC_OUTSIDE: &str = "203.0.113.1:5060";
pub const SBC_INSIDE: &str = "10.9.0.1:5060";
const CONN_A: ConnId = ConnId(1);
const CONN_B: ConnId = ConnId(2);

/// How the dataplane answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// At once.
    Ok,
    /// After this long.
    Slow(Duration),
    /// Installs fail.
    Fail,
    /// Installs after this many fail.
    FailAfter(usize),
    /// Nothing can be observed.
    Blind,
}

pub struct Pair {
    pub engine: Engine<SeededRng>,
    pub a: Ua,
    pub b: Ua,
    pub link: Link,
    pub now: Instant,
    started: Instant,
    pub media: Media,
    /// Plans in force.
    pub plans: BTreeMap<CallId, MediaPlan>,
    /// Every plan that was installed, in order.
    pub installed: Vec<MediaPlan>,
    /// Operations under way, and when the dataplane will have done them.
    media_ops: Vec<(Instant, OpId, MediaCommand)>,
    /// What every stream has carried so far.
    pub carried: (DirectionCounters, DirectionCounters),
    /// Whom the dataplane was to send something, and when.
    pub primed: Vec<(Instant, Vec<SideOf>)>,
    pub records: Vec<CallRecord>,
    pub checkpoints: Vec<CallCheckpoint>,
    pub replies: Vec<Reply>,
    /// Every message that the engine sent to each side.
    pub to_a: Vec<String>,
    pub to_b: Vec<String>,
    /// Every message that the engine sent to the other trunk on A's listener.
    pub to_neighbour: Vec<String>,
    /// Where the last message for A went.
    pub last_to_a: Option<SocketAddr>,
    /// Every message that reached the engine, and whether A sent it.
    pub heard: Vec<(bool, Vec<u8>)>,
    pub closed: Vec<ConnId>,
    promises: BTreeSet<String>,
    mute: bool,
    chunks: Vec<usize>,
    a_transport: Transport,
    b_transport: Transport,
    b_open: bool,
    /// What is sent to B cannot be delivered, and the engine is told so.
    pub b_unreachable: bool,
}

pub struct Setup {
    pub quality: Quality,
    pub seed: u64,
    pub a_transport: Transport,
    pub b_transport: Transport,
    pub max_calls: usize,
    pub media_timeouts: MediaTimeouts,
    pub ports: std::ops::RangeInclusive<u16>,
    pub hide: bool,
    /// Our media address on B's side.
    pub inside_media: &'static str,
    pub rate_factor: u32,
    pub media_a: TrunkMedia,
    pub media_b: TrunkMedia,
    /// Streams reach the engine in pieces of these sizes, by turns.
    pub chunks: Vec<usize>,
    /// The user agents hear nothing: messages of the engine are not delivered.
    pub mute: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            quality: Quality::PERFECT,
            seed: 1,
            a_transport: Transport::Udp,
            b_transport: Transport::Udp,
            max_calls: 100,
            media_timeouts: MediaTimeouts::default(),
            ports: 20000..=20999,
            hide: true,
            inside_media: "10.9.0.1",
            rate_factor: 3,
            media_a: TrunkMedia::default(),
            media_b: TrunkMedia::default(),
            chunks: vec![4096],
            mute: false,
        }
    }
}

fn config(setup: &Setup) -> EngineConfig {
    let realm = |name: &str, bind: &str| Realm {
        name: name.into(),
        media: MediaRealm {
            bind: bind.parse().unwrap(),
            advertised: bind.parse().unwrap(),
            ports: setup.ports.clone(),
            quarantine: Duration::from_secs(1),
            dscp_audio: 46,
            dscp_video: 34,
            rate_factor: setup.rate_factor,
        },
        hide_topology: setup.hide,
    };
    let listener = |realm, transport, at: &str| Listener {
        realm: RealmId(realm),
        transport,
        bind: at.parse().unwrap(),
        advertised: at.parse().unwrap(),
    };
    let trunk = |name: &str, realm, at: &str, media| {
        let remote: SocketAddr = at.parse().unwrap();
        Trunk {
            name: name.into(),
            realm: RealmId(realm),
            sources: vec![Prefix { addr: remote.ip(), len: 32 }],
            next_hop: Some(NextHop { listener: ListenerId(realm), remote }),
            media,
        }
    };
    EngineConfig {
        node: 1,
        epoch: 1,
        realms: vec![realm("outside", "203.0.113.1"), realm("inside", setup.inside_media)],
        listeners: vec![
            listener(0, setup.a_transport, SBC_OUTSIDE),
            listener(1, setup.b_transport, SBC_INSIDE),
        ],
        trunks: vec![
            trunk("carrier", 0, A_ADDR, setup.media_a),
            trunk("pbx", 1, B_ADDR, setup.media_b),
            // On the same listener as the carrier.
            trunk("neighbour", 0, NEIGHBOUR_ADDR, TrunkMedia::default()),
        ],
        routes: vec![Route { from: TrunkId(0), to: TrunkId(1) }, Route { from: TrunkId(1), to: TrunkId(0) }],
        max_calls: setup.max_calls,
        media_timeouts: setup.media_timeouts,
        guard: Default::default(),
    }
}

impl Pair {
    pub fn new() -> Self {
        Self::with(Setup::default())
    }

    #[allow(clippy::disallowed_methods)]
    pub fn with(setup: Setup) -> Self {
        // Any instant will do as the origin; an `Instant` cannot be made otherwise.
        let now = Instant::now();
        let wall = Now { mono: now, wall: SystemTime::UNIX_EPOCH };
        let engine = Engine::new(config(&setup), SeededRng::new(setup.seed), wall);
        let mut a =
            Ua::new("alice", A_ADDR.parse().unwrap(), SBC_OUTSIDE.parse().unwrap(), "carrier.example", now);
        let mut b = Ua::new("bob", B_ADDR.parse().unwrap(), SBC_INSIDE.parse().unwrap(), "pbx.internal", now);
        a.transport = setup.a_transport.via_token();
        b.transport = setup.b_transport.via_token();
        let mut pair = Self {
            engine,
            a,
            b,
            link: Link::new(setup.quality, setup.seed),
            now,
            started: now,
            media: Media::Ok,
            plans: BTreeMap::new(),
            installed: Vec::new(),
            media_ops: Vec::new(),
            carried: (
                DirectionCounters { rtp_kernel: 7, ..DirectionCounters::default() },
                DirectionCounters { rtp_kernel: 9, ..DirectionCounters::default() },
            ),
            primed: Vec::new(),
            records: Vec::new(),
            checkpoints: Vec::new(),
            replies: Vec::new(),
            to_a: Vec::new(),
            to_b: Vec::new(),
            to_neighbour: Vec::new(),
            last_to_a: None,
            heard: Vec::new(),
            closed: Vec::new(),
            promises: BTreeSet::new(),
            mute: setup.mute,
            chunks: setup.chunks,
            a_transport: setup.a_transport,
            b_transport: setup.b_transport,
            b_open: false,
            b_unreachable: false,
        };
        if setup.a_transport.is_reliable() {
            let flow = pair.flow(End::EngineFromA);
            pair.input(Input::StreamOpened { flow });
        }
        pair
    }

    // --- running ---

    /// Runs for this long.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.pump();
        while let Some(next) = self.next().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.tick();
        }
        self.now = end;
        self.tick();
    }

    /// Runs for this many milliseconds.
    pub fn run_ms(&mut self, ms: u64) {
        self.run(Duration::from_millis(ms));
    }

    /// Runs until nothing is on its way and no timer is armed; fails after an hour of virtual time.
    pub fn settle(&mut self) {
        let limit = self.now + Duration::from_secs(3600);
        self.pump();
        while let Some(next) = self.next() {
            assert!(next <= limit, "not settled after an hour: {:?}", self.status());
            self.now = self.now.max(next);
            self.tick();
        }
    }

    fn next(&self) -> Option<Instant> {
        let media = self.media_ops.iter().map(|(at, _, _)| *at).min();
        [self.link.next(), self.a.poll_timeout(), self.b.poll_timeout(), self.engine.poll_timeout(), media]
            .into_iter()
            .flatten()
            .min()
    }

    fn tick(&mut self) {
        self.a.now = self.now;
        self.b.now = self.now;
        while let Some((to, bytes)) = self.link.arrived(self.now) {
            match to {
                End::A => self.a.receive(&bytes),
                End::B => self.b.receive(&bytes),
                End::EngineFromA | End::EngineFromB => self.deliver(to, &bytes),
            }
            self.pump();
        }
        while let Some(index) = self.media_ops.iter().position(|(at, _, _)| *at <= self.now) {
            let (_, op, command) = self.media_ops.remove(index);
            let result = self.perform_media(command);
            self.input(Input::MediaDone { op, result });
        }
        self.a.handle_timeout();
        self.b.handle_timeout();
        if self.engine.poll_timeout().is_some_and(|at| at <= self.now) {
            self.input(Input::Timeout);
        }
        self.pump();
    }

    fn pump(&mut self) {
        self.a.now = self.now;
        self.b.now = self.now;
        while let Some(bytes) = self.a.outbox.pop_front() {
            self.link.send(self.now, End::EngineFromA, bytes, self.a_transport.is_reliable());
        }
        while let Some(bytes) = self.b.outbox.pop_front() {
            self.link.send(self.now, End::EngineFromB, bytes, self.b_transport.is_reliable());
        }
    }

    fn flow(&self, from: End) -> Flow {
        if from == End::EngineFromA {
            let conn = self.a_transport.is_reliable().then_some(CONN_A);
            Flow { listener: ListenerId(0), transport: self.a_transport, remote: self.a.addr, conn }
        } else {
            let conn = self.b_transport.is_reliable().then_some(CONN_B);
            Flow { listener: ListenerId(1), transport: self.b_transport, remote: self.b.addr, conn }
        }
    }

    fn deliver(&mut self, from: End, bytes: &[u8]) {
        self.heard.push((from == End::EngineFromA, bytes.to_vec()));
        let flow = self.flow(from);
        let Some(conn) = flow.conn else {
            self.input(Input::Datagram { flow, bytes });
            return;
        };
        let mut rest = bytes;
        let mut turn = 0;
        while !rest.is_empty() {
            let size = self.chunks[turn % self.chunks.len()].min(rest.len());
            let (chunk, after) = rest.split_at(size);
            self.input(Input::StreamBytes { conn, bytes: chunk });
            rest = after;
            turn += 1;
        }
    }

    /// One input and everything that follows from it.
    pub fn input(&mut self, input: Input<'_>) {
        let wall = SystemTime::UNIX_EPOCH + self.now.duration_since(self.started);
        self.engine.handle_input(Now { mono: self.now, wall }, input);
        let mut opened = None;
        let mut failed = Vec::new();
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Send { op, flow, bytes } => {
                    let to_a = flow.listener == ListenerId(0);
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    self.check_promise(to_a, &text);
                    if self.mute {
                        continue;
                    }
                    if flow.remote == NEIGHBOUR_ADDR.parse().unwrap() {
                        self.to_neighbour.push(text);
                    } else if to_a {
                        assert_eq!(flow.remote.ip(), self.a.addr.ip(), "sent to a stranger");
                        self.to_a.push(text);
                        self.last_to_a = Some(flow.remote);
                        self.link.send(self.now, End::A, bytes.to_vec(), self.a_transport.is_reliable());
                    } else {
                        assert_eq!(flow.remote.ip(), self.b.addr.ip(), "sent to a stranger");
                        self.to_b.push(text);
                        if self.b_unreachable {
                            failed.push(op);
                            continue;
                        }
                        if self.b_transport.is_reliable() && !self.b_open {
                            self.b_open = true;
                            opened = Some(self.flow(End::EngineFromB));
                        }
                        self.link.send(self.now, End::B, bytes.to_vec(), self.b_transport.is_reliable());
                    }
                }
                Output::Close { conn } => self.closed.push(conn),
                Output::Media { op, command } => self.command_media(op, command),
                Output::Guard(_) => {}
                Output::Record(record) => self.records.push(*record),
                Output::Checkpoint(checkpoint) => self.checkpoints.push(*checkpoint),
                Output::Reply { reply, .. } => self.replies.push(reply),
            }
        }
        if let Some(flow) = opened {
            self.input(Input::StreamOpened { flow });
        }
        for op in failed {
            self.input(Input::SendFailed { op });
        }
    }

    fn command_media(&mut self, op: OpId, command: MediaCommand) {
        let at = match self.media {
            Media::Slow(delay) => self.now + delay,
            Media::Ok | Media::Fail | Media::FailAfter(_) | Media::Blind => self.now,
        };
        // In the order in which they were asked for.
        let at = self.media_ops.iter().map(|(before, _, _)| *before).fold(at, Instant::max);
        self.media_ops.push((at, op, command));
    }

    fn perform_media(&mut self, command: MediaCommand) -> Result<MediaDone, MediaError> {
        match command {
            MediaCommand::Install(plan) => {
                self.check_plan(&plan);
                let fails = match self.media {
                    Media::Ok | Media::Slow(_) | Media::Blind => false,
                    Media::Fail => true,
                    Media::FailAfter(count) => self.installed.len() >= count,
                };
                if fails {
                    Err(MediaError::Full("the simulator says so"))
                } else {
                    let placements = vec![Placement::Kernel; plan.streams.len()];
                    self.installed.push(plan.clone());
                    self.plans.insert(plan.call, plan);
                    Ok(MediaDone { placements, counters: vec![] })
                }
            }
            MediaCommand::Remove(call) => {
                let counters = self.counters(call);
                self.plans.remove(&call);
                Ok(MediaDone { placements: vec![], counters })
            }
            MediaCommand::Observe(_) if self.media == Media::Blind => {
                Err(MediaError::Full("the simulator says so"))
            }
            MediaCommand::Observe(call) => {
                Ok(MediaDone { placements: vec![], counters: self.counters(call) })
            }
            MediaCommand::Prime { sides, .. } => {
                self.primed.push((self.now, sides));
                Ok(MediaDone::default())
            }
        }
    }

    fn counters(&self, call: CallId) -> Vec<StreamCounters> {
        let streams = self.plans.get(&call).map_or(&[][..], |plan| &plan.streams);
        let counters = |stream: &StreamPlan| StreamCounters {
            mline: stream.mline,
            placement: Some(Placement::Kernel),
            from_caller: self.carried.0,
            from_callee: self.carried.1,
        };
        streams.iter().map(counters).collect()
    }

    /// A description that leaves promises ports: they must be in force (R-RTP-3, and no 200 without media).
    fn check_promise(&mut self, to_a: bool, text: &str) {
        // A copy may leave later than its media has gone.
        if !self.promises.insert(text.to_owned()) {
            return;
        }
        let Some((_, body)) = text
            .split_once("\r\n\r\n")
            .filter(|(head, _)| head.contains("\r\nContent-Type: application/sdp"))
        else {
            return;
        };
        for line in body.lines().filter(|line| line.starts_with("m=")) {
            let port: u16 = line.split(' ').nth(1).unwrap().parse().unwrap();
            let realm = RealmId(u16::from(!to_a));
            let in_force = self.plans.values().flat_map(|plan| &plan.streams).any(|stream| {
                [&stream.caller, &stream.callee]
                    .iter()
                    .any(|side| side.realm == realm && side.local_rtp_port == port)
            });
            assert!(port == 0 || in_force, "no media behind {text}");
        }
    }

    /// No port is used twice; who may claim one is of its family, and only another opening opens what was closed.
    fn check_plan(&self, plan: &MediaPlan) {
        let before = self.plans.get(&plan.call);
        let sides = |plan: &MediaPlan| -> Vec<StreamSide> {
            plan.streams.iter().flat_map(|stream| [stream.caller.clone(), stream.callee.clone()]).collect()
        };
        for side in sides(plan) {
            let SourcePolicy::Learn { allowed, window } = side.source else { continue };
            assert_eq!(allowed.addr.is_ipv4(), side.local_ip.is_ipv4(), "{side:?}");
            let same = |other: &StreamSide| {
                (other.local_ip, other.local_rtp_port) == (side.local_ip, side.local_rtp_port)
            };
            let old = before.and_then(|before| sides(before).into_iter().find(same));
            if let Some(SourcePolicy::Learn { window: old, .. }) = old.map(|old| old.source) {
                assert!(old.opening <= window.opening, "an opening came back: {side:?}");
                assert!(old.opening < window.opening || old.open || !window.open, "opened again: {side:?}");
            }
        }
        let mut ports = Vec::new();
        for other in self.plans.values().filter(|other| other.call != plan.call).chain([plan]) {
            for stream in &other.streams {
                for side in [&stream.caller, &stream.callee] {
                    assert_eq!(side.local_rtp_port % 2, 0);
                    ports.push((side.local_ip, side.local_rtp_port));
                }
            }
        }
        let count = ports.len();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), count, "a port is used twice: {plan:?}");
    }

    // --- looking ---

    pub fn status(&mut self) -> EngineStatus {
        match self.command(Command::Status) {
            Reply::Status(status) => status,
            Reply::Calls(_)
            | Reply::Accepted { .. }
            | Reply::Denied(_)
            | Reply::Listed(_)
            | Reply::Changed(_) => panic!("not a status"),
        }
    }

    pub fn calls(&mut self) -> Vec<CallView> {
        match self.command(Command::Calls) {
            Reply::Calls(calls) => calls,
            Reply::Status(_)
            | Reply::Accepted { .. }
            | Reply::Denied(_)
            | Reply::Listed(_)
            | Reply::Changed(_) => panic!("not calls"),
        }
    }

    pub fn command(&mut self, command: Command) -> Reply {
        self.input(Input::Command { op: OpId(u64::MAX), command });
        self.replies.pop().expect("a reply")
    }

    pub fn counter(&mut self, name: &str) -> u64 {
        let status = self.status();
        status.counters.iter().find(|(known, _)| *known == name).expect("a counter of that name").1
    }

    /// The one plan in force.
    pub fn plan(&self) -> &MediaPlan {
        assert_eq!(self.plans.len(), 1, "{:?}", self.plans);
        self.plans.values().next().unwrap()
    }

    /// Everything that a call held is released, exactly one record was written per call.
    pub fn assert_nothing_left(&mut self, calls: usize) {
        self.settle();
        let status = self.status();
        let left = (status.calls, status.transactions, status.timers, status.ports_in_use, self.plans.len());
        assert_eq!(
            left,
            (0, 0, 0, 0, 0),
            "calls, transactions, timers, ports, plans; A saw {:?}, B saw {:?}",
            self.a.summary(),
            self.b.summary()
        );
        assert_eq!(self.records.len(), calls, "{:?}", self.records);
        assert_eq!(status.calls_offered, status.calls_answered + status.calls_failed);
    }

    // --- usual steps ---

    /// A calls, B rings and answers, both are up.
    pub fn basic_call(&mut self) {
        self.a.invite("bob", Some(&sdp("198.51.100.10", 40000, "0 8 101", "")));
        self.run_ms(100);
        self.b.respond(180, None);
        self.run_ms(100);
        self.b.respond(200, Some(&sdp("10.9.0.20", 50000, "8 101", "")));
        self.b.invite_done();
        self.run_ms(100);
        assert!(self.a.up && self.b.up, "A saw {:?}, B saw {:?}", self.a.summary(), self.b.summary());
    }
}

/// A session description with one audio stream.
pub fn sdp(ip: &str, port: u16, formats: &str, more: &str) -> String {
    let _: IpAddr = ip.parse().unwrap();
    format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP {formats}\r\n\
         a=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=ptime:20\r\n{more}"
    )
}
