//! How what is remembered is written down: JSON of these forms, in format [`FORMAT`].
//!
//! The forms are the store's own, so that no change inside of the daemon changes a file unseen. A field may be added with
//! a default; one that goes or means something else raises the format.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use sbc_core::command::LegView;
use sbc_core::config::Prefix;
use sbc_core::flow::Transport;
use sbc_core::guard::ListKind;
use sbc_core::guard::{self, DenyReason, DenyScope};
use sbc_core::id::{CallId, RealmId};
use sbc_core::media::plan::{
    LearnWindow, MediaPace, MediaPlan, PeerMedia, Placement, SourcePolicy, StreamPlan, StreamSide,
};
use sbc_core::restart::{CallCheckpoint, ListChange};
use serde::{Deserialize, Serialize};

use super::Gone;
use crate::dataplane::{KernelPair, MediaCheckpoint};

/// Number of the forms. Another one is not read.
pub(super) const FORMAT: u32 = 1;

/// A form and what it stands for.
pub(super) trait Form: Serialize + for<'de> Deserialize<'de> {
    /// What it stands for.
    type Value;
    /// As a form.
    fn of(value: &Self::Value) -> Self;
    /// What it says, if that makes sense.
    fn value(self) -> anyhow::Result<Self::Value>;
}

/// As bytes.
pub(super) fn write<F: Form>(value: &F::Value) -> anyhow::Result<Vec<u8>> {
    Ok(serde_json::to_vec(&F::of(value))?)
}

/// From bytes.
pub(super) fn read<F: Form>(bytes: &[u8]) -> anyhow::Result<F::Value> {
    serde_json::from_slice::<F>(bytes)?.value()
}

/// Milliseconds since 1970.
pub(super) fn to_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// From milliseconds since 1970.
pub(super) fn from_ms(ms: u64) -> anyhow::Result<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_millis(ms)).context("a time that no clock shows")
}

#[derive(Serialize, Deserialize)]
pub(super) struct Media {
    call: u64,
    streams: Vec<Stream>,
}

#[derive(Serialize, Deserialize)]
struct Stream {
    mline: u8,
    caller: Side,
    callee: Side,
    relay: bool,
    /// RTP and RTCP, if the kernel carries it.
    kernel: Option<[Pair; 2]>,
}

#[derive(Serialize, Deserialize)]
struct Side {
    realm: u16,
    local_ip: IpAddr,
    local_rtp_port: u16,
    peer: Option<Peer>,
    rtcp_mux: bool,
    learn: Option<Learn>,
    packets_per_second: u32,
    clock_rate_hz: u32,
    dscp: u8,
}

#[derive(Serialize, Deserialize)]
struct Peer {
    rtp: SocketAddr,
    rtcp: SocketAddr,
}

#[derive(Serialize, Deserialize)]
struct Learn {
    addr: IpAddr,
    bits: u8,
    opening: u32,
    open: bool,
}

#[derive(Serialize, Deserialize)]
struct Pair {
    generation: u32,
    /// Caller's side, callee's side.
    kept: [Option<SocketAddr>; 2],
    base: [Vec<u64>; 2],
}

impl Form for Media {
    type Value = MediaCheckpoint;

    fn of(value: &MediaCheckpoint) -> Self {
        let streams = value.plan.streams.iter().enumerate().map(|(at, stream)| Stream {
            mline: stream.mline,
            caller: Side::of(&stream.caller),
            callee: Side::of(&stream.callee),
            relay: value.placements.get(at) == Some(&Placement::Relay),
            kernel: value.kernel.iter().find(|(mline, _)| *mline == stream.mline).map(|(_, pairs)| {
                pairs.each_ref().map(|pair| Pair {
                    generation: pair.generation,
                    kept: pair.kept,
                    base: pair.base.clone(),
                })
            }),
        });
        Self { call: value.plan.call.0, streams: streams.collect() }
    }

    fn value(self) -> anyhow::Result<MediaCheckpoint> {
        let (mut streams, mut placements, mut kernel) = (Vec::new(), Vec::new(), Vec::new());
        for stream in self.streams {
            placements.push(if stream.relay { Placement::Relay } else { Placement::Kernel });
            if let Some(pairs) = stream.kernel {
                let pairs =
                    pairs.map(|Pair { generation, kept, base }| KernelPair { generation, kept, base });
                kernel.push((stream.mline, pairs));
            }
            let (caller, callee) = (stream.caller.value()?, stream.callee.value()?);
            streams.push(StreamPlan { mline: stream.mline, caller, callee });
        }
        Ok(MediaCheckpoint { plan: MediaPlan { call: CallId(self.call), streams }, placements, kernel })
    }
}

impl Side {
    fn of(side: &StreamSide) -> Self {
        Self {
            realm: side.realm.0,
            local_ip: side.local_ip,
            local_rtp_port: side.local_rtp_port,
            peer: side.peer.map(|peer| Peer { rtp: peer.rtp, rtcp: peer.rtcp }),
            rtcp_mux: side.rtcp_mux,
            learn: match side.source {
                SourcePolicy::Signalled => None,
                SourcePolicy::Learn { allowed, window } => Some(Learn {
                    addr: allowed.addr,
                    bits: allowed.len,
                    opening: window.opening,
                    open: window.open,
                }),
            },
            packets_per_second: side.pace.packets_per_second,
            clock_rate_hz: side.pace.clock_rate_hz,
            dscp: side.dscp,
        }
    }

    fn value(self) -> anyhow::Result<StreamSide> {
        if !self.local_rtp_port.is_multiple_of(2) {
            bail!("{} is no port for RTP", self.local_rtp_port);
        }
        Ok(StreamSide {
            realm: RealmId(self.realm),
            local_ip: self.local_ip,
            local_rtp_port: self.local_rtp_port,
            peer: self.peer.map(|peer| PeerMedia { rtp: peer.rtp, rtcp: peer.rtcp }),
            rtcp_mux: self.rtcp_mux,
            source: match self.learn {
                None => SourcePolicy::Signalled,
                Some(Learn { addr, bits, opening, open }) => SourcePolicy::Learn {
                    allowed: prefix(addr, bits)?,
                    window: LearnWindow { opening, open },
                },
            },
            pace: MediaPace {
                packets_per_second: self.packets_per_second,
                clock_rate_hz: self.clock_rate_hz,
            },
            dscp: self.dscp,
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Call {
    call: u64,
    began: u64,
    ringing: Option<u64>,
    answered: u64,
    held: bool,
    caller: Leg,
    callee: Leg,
}

#[derive(Serialize, Deserialize)]
struct Leg {
    realm: String,
    trunk: String,
    transport: String,
    remote: SocketAddr,
    sip_call_id: String,
    from: String,
    to: String,
}

impl Form for Call {
    type Value = CallCheckpoint;

    fn of(value: &CallCheckpoint) -> Self {
        Self {
            call: value.call.0,
            began: to_ms(value.began),
            ringing: value.ringing.map(to_ms),
            answered: to_ms(value.answered),
            held: value.held,
            caller: Leg::of(&value.caller),
            callee: Leg::of(&value.callee),
        }
    }

    fn value(self) -> anyhow::Result<CallCheckpoint> {
        Ok(CallCheckpoint {
            call: CallId(self.call),
            began: from_ms(self.began)?,
            ringing: self.ringing.map(from_ms).transpose()?,
            answered: from_ms(self.answered)?,
            held: self.held,
            caller: self.caller.value()?,
            callee: self.callee.value()?,
        })
    }
}

impl Leg {
    fn of(leg: &LegView) -> Self {
        let transport = match leg.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
        };
        Self {
            realm: leg.realm.clone(),
            trunk: leg.trunk.clone(),
            transport: transport.to_owned(),
            remote: leg.remote,
            sip_call_id: leg.sip_call_id.clone(),
            from: leg.from.clone(),
            to: leg.to.clone(),
        }
    }

    fn value(self) -> anyhow::Result<LegView> {
        let transport = match self.transport.as_str() {
            "udp" => Transport::Udp,
            "tcp" => Transport::Tcp,
            "tls" => Transport::Tls,
            other => bail!("{other:?} is no transport"),
        };
        Ok(LegView {
            realm: self.realm,
            trunk: self.trunk,
            transport,
            remote: self.remote,
            sip_call_id: self.sip_call_id,
            from: self.from,
            to: self.to,
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Ended {
    call: u64,
    since: u64,
    ports: Vec<SocketAddr>,
}

impl Form for Ended {
    type Value = Gone;

    fn of(value: &Gone) -> Self {
        Self { call: value.call.0, since: to_ms(value.since), ports: value.ports.clone() }
    }

    fn value(self) -> anyhow::Result<Gone> {
        Ok(Gone { call: CallId(self.call), since: from_ms(self.since)?, ports: self.ports })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Denied {
    address: IpAddr,
    reason: String,
    scope: String,
    since: u64,
    until: Option<u64>,
}

impl Form for Denied {
    type Value = guard::Denied;

    fn of(value: &guard::Denied) -> Self {
        Self {
            address: value.source.address(),
            reason: value.reason.name().to_owned(),
            scope: value.scope.name().to_owned(),
            since: to_ms(value.since),
            until: value.until.map(to_ms),
        }
    }

    fn value(self) -> anyhow::Result<guard::Denied> {
        let named = |reason: &DenyReason| reason.name() == self.reason;
        Ok(guard::Denied {
            source: guard::Source::of(self.address),
            reason: DenyReason::ALL.into_iter().find(named).context("an unknown reason")?,
            scope: [DenyScope::Udp, DenyScope::All]
                .into_iter()
                .find(|scope| scope.name() == self.scope)
                .context("an unknown scope")?,
            since: from_ms(self.since)?,
            until: self.until.map(from_ms).transpose()?,
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Listed {
    allow: bool,
    address: IpAddr,
    bits: u8,
    listed: bool,
}

impl Form for Listed {
    type Value = ListChange;

    fn of(value: &ListChange) -> Self {
        let Prefix { addr, len } = value.prefix;
        Self { allow: value.list == ListKind::Allow, address: addr, bits: len, listed: value.listed }
    }

    fn value(self) -> anyhow::Result<ListChange> {
        Ok(ListChange {
            list: if self.allow { ListKind::Allow } else { ListKind::Block },
            prefix: prefix(self.address, self.bits)?,
            listed: self.listed,
        })
    }
}

fn prefix(addr: IpAddr, len: u8) -> anyhow::Result<Prefix> {
    let most = if addr.is_ipv4() { 32 } else { 128 };
    if len > most {
        bail!("{addr}/{len} is no prefix");
    }
    Ok(Prefix { addr, len })
}
