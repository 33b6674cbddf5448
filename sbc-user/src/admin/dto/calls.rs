//! Calls that are up, their legs and streams.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use sbc_core::command::{CallState, CallView, LegView};
use sbc_core::config::Prefix;
use sbc_core::media::command::{DirectionCounters, StreamCounters};
use sbc_core::media::plan::{Placement, SourcePolicy, StreamPlan, StreamSide};
use sbc_core::media::quality::{self, StreamQuality};
use serde::{Deserialize, Serialize};

use super::SCHEMA;
use crate::clock::rfc3339;

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
    pub(super) fn of(quality: &[StreamQuality], mline: u8) -> [Option<Self>; 2] {
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
    pub(super) fn new(view: &LegView) -> Self {
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

pub(super) fn prefix(prefix: &Prefix) -> String {
    let whole = if prefix.addr.is_ipv4() { 32 } else { 128 };
    if prefix.len == whole { prefix.addr.to_string() } else { format!("{}/{}", prefix.addr, prefix.len) }
}

pub(super) fn path(placement: Placement) -> String {
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
    pub(super) fn new(counters: &DirectionCounters) -> Self {
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
