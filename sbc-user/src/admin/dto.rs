//! What operators' programs read: the JSON of the admin socket, of `sbcctl --json` and of call records. Field names
//! and meanings are a contract; `schema` rises when one of them changes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use sbc_core::command::{CallState, CallView, EngineStatus, LegView};
use sbc_core::media::command::{DirectionCounters, StreamCounters};
use sbc_core::media::plan::{Placement, SourcePolicy, StreamPlan, StreamSide};
use sbc_core::media::quality::{self, StreamQuality};
use sbc_core::record::{CallRecord, EndedBy};
use serde::{Deserialize, Serialize};

use super::ShellStatus;
use crate::clock::rfc3339;

/// Version of this contract.
pub const SCHEMA: u32 = 1;

/// A request that could not be answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Why.
    pub error: String,
}

/// What does not change while the daemon runs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Name of the instance.
    pub instance: String,
    /// When the daemon started.
    pub started: Instant,
    /// Its SIP sockets.
    pub listeners: Vec<Listener>,
    /// The addresses of its media.
    pub media_addresses: Vec<MediaAddress>,
}

/// A SIP socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listener {
    /// Realm that it serves.
    pub realm: String,
    /// `udp`, `tcp` or `tls`.
    pub transport: String,
    /// Address and port bound.
    pub bind: SocketAddr,
    /// Address and port that peers are told.
    pub advertised: SocketAddr,
}

/// An address of ours on which media is received.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MediaAddress {
    /// Realm that it serves.
    pub realm: String,
    /// The address.
    pub address: IpAddr,
    /// First port.
    pub first_port: u16,
    /// Last port.
    pub last_port: u16,
    /// The interface that it is on, if the host has it.
    pub interface: Option<String>,
    /// What forwards media there: `kernel` (XDP in the interface's driver) or `relay`.
    pub path: String,
    /// Why the relay serves it, where it does.
    pub relay_reason: Option<String>,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Version of the daemon.
    pub version: String,
    /// Name of the instance.
    pub instance: String,
    /// Since the daemon started.
    pub uptime_seconds: u64,
    /// `serving`, or `draining`: no new calls.
    pub state: String,
    /// Calls up now, in any state.
    pub calls: usize,
    /// Calls of a daemon before: their signalling was lost with it, their media goes on.
    pub media_only_calls: usize,
    /// Calls that may be up at once.
    pub max_calls: usize,
    /// Calls begun since start.
    pub calls_offered: u64,
    /// Of these, answered.
    pub calls_answered: u64,
    /// Of these, ended without an answer.
    pub calls_failed: u64,
    /// SIP transactions alive.
    pub transactions: usize,
    /// Timers armed.
    pub timers: usize,
    /// Media ports in use, over all realms.
    pub ports_in_use: usize,
    /// TCP and TLS connections up or being opened.
    pub connections: usize,
    /// Records of ended calls that could not be written.
    pub records_lost: u64,
    /// Changes that the store could not keep: a restart would not know of them.
    pub store_lost: u64,
    /// SIP sockets.
    pub listeners: Vec<Listener>,
    /// Addresses of media, each with what forwards it.
    pub media_addresses: Vec<MediaAddress>,
    /// What the engine counted, by name.
    pub engine_counters: BTreeMap<String, u64>,
    /// What the transports counted, by name.
    pub transport_counters: BTreeMap<String, u64>,
    /// What became of media packets, by name of the outcome.
    pub dataplane_counters: BTreeMap<String, u64>,
}

impl Status {
    /// From what loop and engine say.
    #[must_use]
    pub fn new(facts: &Facts, engine: &EngineStatus, shell: &ShellStatus) -> Self {
        let named = |counters: &[(&'static str, u64)]| {
            counters.iter().map(|&(name, value)| (name.to_owned(), value)).collect()
        };
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: facts.instance.clone(),
            uptime_seconds: facts.started.elapsed().as_secs(),
            state: if engine.draining { "draining" } else { "serving" }.to_owned(),
            calls: engine.calls,
            media_only_calls: engine.media_only,
            max_calls: engine.max_calls,
            calls_offered: engine.calls_offered,
            calls_answered: engine.calls_answered,
            calls_failed: engine.calls_failed,
            transactions: engine.transactions,
            timers: engine.timers,
            ports_in_use: engine.ports_in_use,
            connections: shell.connections,
            records_lost: shell.records_lost,
            store_lost: shell.store_lost,
            listeners: facts.listeners.clone(),
            media_addresses: facts.media_addresses.clone(),
            engine_counters: named(&engine.counters),
            transport_counters: named(&shell.transport),
            dataplane_counters: named(&shell.dataplane),
        }
    }
}

/// `GET /v1/calls`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Calls {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Every call that is up.
    pub calls: Vec<Call>,
}

/// A call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// Its number, unique for the life of the daemon.
    pub call: u64,
    /// `offering`, `early`, `answered`, `updating` or `ending`.
    pub state: String,
    /// When it began, RFC 3339.
    pub began: String,
    /// When it was answered, RFC 3339.
    pub answered: Option<String>,
    /// Since it began.
    pub age_seconds: u64,
    /// The side that called.
    pub caller: Leg,
    /// The side that was called.
    pub callee: Leg,
    /// Its media, one entry for each m-line that is relayed.
    pub streams: Vec<Stream>,
}

/// One side of a call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Leg {
    /// Its realm.
    pub realm: String,
    /// Its trunk.
    pub trunk: String,
    /// Transport of its signalling.
    pub transport: String,
    /// Peer of its signalling.
    pub remote: SocketAddr,
    /// Its Call-ID on the wire.
    pub sip_call_id: String,
    /// From URI on this side.
    pub from: String,
    /// To URI on this side.
    pub to: String,
}

/// One m-line of a call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stream {
    /// Position of the m-line in the SDP.
    pub mline: u8,
    /// What carries it: `kernel` or `relay`; none while it is not installed.
    pub path: Option<String>,
    /// Addresses on the caller's side.
    pub caller: MediaSide,
    /// Addresses on the callee's side.
    pub callee: MediaSide,
    /// Packets from the caller to the callee.
    pub from_caller: Packets,
    /// Packets from the callee to the caller.
    pub from_callee: Packets,
    /// What the caller reports of what it hears; none if it does not, or encrypts it.
    pub heard_by_caller: Option<Heard>,
    /// What the callee reports.
    pub heard_by_callee: Option<Heard>,
}

/// Addresses of a stream on one side.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MediaSide {
    /// Our address and RTP port; RTCP is the next port.
    pub local: SocketAddr,
    /// Where the peer said that it receives RTP.
    pub peer: Option<SocketAddr>,
    /// From where packets are accepted: `signalled`, `learned from PREFIX` or `learned from anywhere`.
    pub source: String,
    /// Whether somebody may claim its ports at present; none where nothing is learned.
    pub learning: Option<bool>,
    /// Whether RTP and RTCP share the port.
    pub rtcp_mux: bool,
    /// Packets in a second of which more are dropped; none: no limit.
    pub packets_per_second: Option<u32>,
    /// DSCP of what is sent to it.
    pub dscp: u8,
}

/// Packets of a stream in one direction, counted where they are forwarded.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Packets {
    /// RTP packets forwarded by the kernel.
    pub rtp_kernel: u64,
    /// RTP packets forwarded by the relay.
    pub rtp_relay: u64,
    /// RTP bytes forwarded (UDP payload).
    pub rtp_bytes: u64,
    /// RTCP packets forwarded.
    pub rtcp: u64,
    /// RTP packets that the sequence numbers say were lost before us; none where nobody sees them.
    pub lost: Option<u64>,
    /// RTP packets that came after one with a higher number.
    pub out_of_order: u64,
    /// Interarrival jitter at us (RFC 3550), microseconds; none where the codecs' clock is not known.
    pub jitter_us: Option<u32>,
    /// How often the payload type changed.
    pub payload_type_changes: u64,
    /// How often the synchronisation source changed.
    pub source_changes: u64,
    /// Packets dropped because they were more than the codecs call for.
    pub over_rate: u64,
}

/// What a party reports of the stream that it receives through us (RTCP, RFC 3550).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Heard {
    /// How many reports.
    pub reports: u64,
    /// Packets lost on the whole way from the other party; negative: more copies than losses.
    pub lost: i32,
    /// Of the packets in the time of the last report.
    pub lost_percent: f64,
    /// The most in any report.
    pub lost_percent_max: f64,
    /// Interarrival jitter at it, microseconds.
    pub jitter_us: Option<u32>,
    /// The most in any report.
    pub jitter_us_max: Option<u32>,
    /// From us to it and back, microseconds.
    pub round_trip_us: Option<u32>,
    /// The most at any report.
    pub round_trip_us_max: Option<u32>,
}

impl Heard {
    fn new(heard: &quality::Heard) -> Self {
        // One decimal says all that 256ths can.
        let percent = |fraction: u8| (f64::from(fraction) * 1000.0 / 256.0).round() / 10.0;
        Self {
            reports: heard.reports,
            lost: heard.lost,
            lost_percent: percent(heard.fraction_lost),
            lost_percent_max: percent(heard.fraction_lost_max),
            jitter_us: heard.jitter_us,
            jitter_us_max: heard.jitter_us_max,
            round_trip_us: heard.round_trip_us,
            round_trip_us_max: heard.round_trip_us_max,
        }
    }

    /// By caller and callee, of one m-line.
    fn of(quality: &[StreamQuality], mline: u8) -> [Option<Self>; 2] {
        let stream = quality.iter().find(|stream| stream.mline == mline);
        let [caller, callee] = [stream.map(|it| &it.caller), stream.map(|it| &it.callee)];
        [caller, callee].map(|end| end.and_then(|end| end.heard.as_ref()).map(Self::new))
    }
}

impl Calls {
    /// From what the loop says, at this moment.
    #[must_use]
    pub fn new(calls: &[(CallView, Vec<StreamCounters>)], now: SystemTime) -> Self {
        Self {
            schema: SCHEMA,
            calls: calls.iter().map(|(view, media)| Call::new(view, media, now)).collect(),
        }
    }
}

impl Call {
    fn new(view: &CallView, media: &[StreamCounters], now: SystemTime) -> Self {
        let plans = view.plan.iter().flat_map(|plan| &plan.streams);
        let streams = plans
            .enumerate()
            .map(|(index, plan)| {
                let counters = media.iter().find(|counters| counters.mline == plan.mline);
                let heard = Heard::of(&view.quality, plan.mline);
                Stream::new(plan, view.placements.get(index).copied(), counters, heard)
            })
            .collect();
        Self {
            call: view.call.0,
            state: match view.state {
                CallState::Offering => "offering",
                CallState::Early => "early",
                CallState::Answered => "answered",
                CallState::Updating => "updating",
                CallState::Ending => "ending",
                CallState::MediaOnly => "media_only",
            }
            .to_owned(),
            began: rfc3339(view.began),
            answered: view.answered.map(rfc3339),
            age_seconds: now.duration_since(view.began).unwrap_or(Duration::ZERO).as_secs(),
            caller: Leg::new(&view.caller),
            callee: Leg::new(&view.callee),
            streams,
        }
    }
}

impl Leg {
    fn new(view: &LegView) -> Self {
        Self {
            realm: view.realm.clone(),
            trunk: view.trunk.clone(),
            transport: view.transport.to_string(),
            remote: view.remote,
            sip_call_id: view.sip_call_id.clone(),
            from: view.from.clone(),
            to: view.to.clone(),
        }
    }
}

fn prefix(prefix: &sbc_core::config::Prefix) -> String {
    let whole = if prefix.addr.is_ipv4() { 32 } else { 128 };
    if prefix.len == whole { prefix.addr.to_string() } else { format!("{}/{}", prefix.addr, prefix.len) }
}

fn path(placement: Placement) -> String {
    match placement {
        Placement::Kernel => "kernel",
        Placement::Relay => "relay",
    }
    .to_owned()
}

impl Stream {
    fn new(
        plan: &StreamPlan,
        placement: Option<Placement>,
        counters: Option<&StreamCounters>,
        [heard_by_caller, heard_by_callee]: [Option<Heard>; 2],
    ) -> Self {
        let carried_by = counters.and_then(|counters| counters.placement).or(placement);
        Self {
            mline: plan.mline,
            path: carried_by.map(path),
            caller: MediaSide::new(&plan.caller),
            callee: MediaSide::new(&plan.callee),
            from_caller: counters.map(|all| Packets::new(&all.from_caller)).unwrap_or_default(),
            from_callee: counters.map(|all| Packets::new(&all.from_callee)).unwrap_or_default(),
            heard_by_caller,
            heard_by_callee,
        }
    }
}

impl MediaSide {
    fn new(side: &StreamSide) -> Self {
        Self {
            local: SocketAddr::new(side.local_ip, side.local_rtp_port),
            peer: side.peer.map(|peer| peer.rtp),
            source: match side.source {
                SourcePolicy::Signalled => "signalled".to_owned(),
                SourcePolicy::Learn { allowed, .. } if allowed.len == 0 => "learned from anywhere".to_owned(),
                SourcePolicy::Learn { allowed, .. } => format!("learned from {}", prefix(&allowed)),
            },
            learning: match side.source {
                SourcePolicy::Signalled => None,
                SourcePolicy::Learn { window, .. } => Some(window.open),
            },
            rtcp_mux: side.rtcp_mux,
            packets_per_second: Some(side.pace.packets_per_second).filter(|limit| *limit > 0),
            dscp: side.dscp,
        }
    }
}

impl Packets {
    fn new(counters: &DirectionCounters) -> Self {
        Self {
            rtp_kernel: counters.rtp_kernel,
            rtp_relay: counters.rtp_relay,
            rtp_bytes: counters.rtp_bytes,
            rtcp: counters.rtcp,
            lost: counters.lost,
            out_of_order: counters.out_of_order,
            jitter_us: counters.jitter_us,
            payload_type_changes: counters.payload_type_changes,
            source_changes: counters.source_changes,
            over_rate: counters.over_rate,
        }
    }
}

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
/// `GET /v1/deny`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DenyList {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The one denied first before the others.
    pub denied: Vec<Denied>,
}

/// A denied source.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Denied {
    /// An IPv4 address or an IPv6 /64.
    pub source: String,
    /// `flood`, `malformed` or `scanner`.
    pub reason: String,
    /// `udp`: SIP over UDP only; `all`: SIP over every transport.
    pub scope: String,
    /// Since when.
    pub since: String,
    /// Until when; null: until it is removed.
    pub until: Option<String>,
    /// Packets that the kernel dropped because of it.
    pub packets: u64,
}

impl DenyList {
    /// Of what the event loop answered.
    #[must_use]
    pub fn new(denied: &[(sbc_core::guard::Denied, u64)]) -> Self {
        let one = |(denied, packets): &(sbc_core::guard::Denied, u64)| Denied {
            source: denied.source.to_string(),
            reason: denied.reason.name().to_owned(),
            scope: denied.scope.name().to_owned(),
            since: rfc3339(denied.since),
            until: denied.until.map(rfc3339),
            packets: *packets,
        };
        Self { schema: SCHEMA, denied: denied.iter().map(one).collect() }
    }
}

/// `GET /v1/allow` and `GET /v1/block`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Prefixes {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Addresses and prefixes, in the order in which they were added.
    pub prefixes: Vec<String>,
}

impl Prefixes {
    /// Of what the event loop answered.
    #[must_use]
    pub fn new(prefixes: &[sbc_core::config::Prefix]) -> Self {
        Self { schema: SCHEMA, prefixes: prefixes.iter().map(prefix).collect() }
    }
}

/// The answer to `PUT` and `DELETE`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Changed {
    /// [`SCHEMA`].
    pub schema: u32,
    /// How many entries it concerned.
    pub changed: usize,
}
