//! What the engine asks of the dataplane, and what it hears back.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::id::CallId;
use crate::media::plan::{MediaPlan, Placement};

/// A request to the dataplane. Each is answered by exactly one [`MediaResult`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaCommand {
    /// Make this the call's plan, whether it had one or not. All of it takes effect or none.
    Install(MediaPlan),
    /// Forget the call's plan. Correct to repeat and for a call that never had one.
    Remove(CallId),
    /// Tell what was counted so far. Changes nothing; correct for a call that has no plan.
    Observe(CallId),
    /// Send one empty RTP and one empty RTCP packet to each of these sides, from our ports of the side to where its
    /// media goes at present, so that a NAT or firewall in front of it lets packets in. A side that the plan does not
    /// have, or whose peer is not known, is left out.
    Prime {
        /// The call.
        call: CallId,
        /// Which sides.
        sides: Vec<SideOf>,
    },
}

impl MediaCommand {
    /// The call that it is about.
    #[must_use]
    pub const fn call(&self) -> CallId {
        match self {
            Self::Install(plan) => plan.call,
            Self::Remove(call) | Self::Observe(call) | Self::Prime { call, .. } => *call,
        }
    }
}

/// One side of one stream of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SideOf {
    /// Position of the m-line.
    pub mline: u8,
    /// Whether it is the caller's side.
    pub caller_side: bool,
}

/// The answer to a [`MediaCommand`].
pub type MediaResult = Result<MediaDone, MediaError>;

/// What a successful command did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MediaDone {
    /// For `Install`: what carries each stream of the plan, in the plan's order. Else empty.
    pub placements: Vec<Placement>,
    /// For `Remove`: the final counters of each stream that the plan had. For `Observe`: those so far. Empty for
    /// `Install`.
    pub counters: Vec<StreamCounters>,
}

/// Why the dataplane could not do it. Nothing of the command took effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MediaError {
    /// A port of ours is already in use by another call or another program.
    #[error("port {0} is in use")]
    PortInUse(SocketAddr),
    /// The table of slots, sockets or next hops is full.
    #[error("no room: {0}")]
    Full(&'static str),
    /// No route to a peer.
    #[error("no route to {0}")]
    NoRoute(SocketAddr),
    /// The address is not one that this dataplane serves.
    #[error("{0} is not a media address of this host")]
    NotOurs(SocketAddr),
    /// The system refused.
    #[error("{0}")]
    System(String),
}

/// Packets of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCounters {
    /// Position of the m-line in the SDP.
    pub mline: u8,
    /// What carried it last.
    pub placement: Option<Placement>,
    /// From the caller, accepted and forwarded to the callee.
    pub from_caller: DirectionCounters,
    /// From the callee, accepted and forwarded to the caller.
    pub from_callee: DirectionCounters,
}

impl StreamCounters {
    /// Everything forwarded so far: RTP and RTCP, both ways, whatever carried it.
    #[must_use]
    pub const fn packets(&self) -> u64 {
        self.from_caller.packets().wrapping_add(self.from_callee.packets())
    }
}

/// Packets of one stream in one direction, counted where they are forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectionCounters {
    /// RTP packets forwarded by the kernel.
    pub rtp_kernel: u64,
    /// RTP packets forwarded by the relay.
    pub rtp_relay: u64,
    /// RTP bytes forwarded (UDP payload), by either.
    pub rtp_bytes: u64,
    /// RTCP packets forwarded, by either.
    pub rtcp: u64,
    /// RTP packets that the sender's sequence numbers say are missing, as far as the carrier of the stream sees them.
    pub lost: Option<u64>,
    /// RTP packets that came after one with a higher number.
    pub out_of_order: u64,
    /// Interarrival jitter at the last look (RFC 3550 s.6.4.1), microseconds; `None` where the clock rate is not known.
    pub jitter_us: Option<u32>,
    /// How often the payload type changed from one RTP packet to the next.
    pub payload_type_changes: u64,
    /// How often the synchronisation source changed from one RTP packet to the next.
    pub source_changes: u64,
    /// Packets dropped because they were more than the side's `MediaPace` allows.
    pub over_rate: u64,
}

impl DirectionCounters {
    /// RTP and RTCP, whatever carried it.
    #[must_use]
    pub const fn packets(&self) -> u64 {
        self.rtp_kernel.wrapping_add(self.rtp_relay).wrapping_add(self.rtcp)
    }
}

/// Something the dataplane noticed by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaEvent {
    /// A learning side was claimed.
    Latched {
        /// The call.
        call: CallId,
        /// Position of the m-line.
        mline: u8,
        /// Whether it is the caller's side.
        caller_side: bool,
        /// Whether it is the RTCP port.
        rtcp: bool,
        /// The source that claimed it.
        source: SocketAddr,
    },
    /// A copy of an RTCP packet that was forwarded. Not every one is told: there is a limit to how many wait.
    Report {
        /// The call.
        call: CallId,
        /// Position of the m-line.
        mline: u8,
        /// Whether the caller's side sent it.
        caller_side: bool,
        /// The packet from its first byte, cut off where it is long. Nothing in it was checked but its header.
        packet: Bytes,
    },
}

impl MediaEvent {
    /// The call that it is about.
    #[must_use]
    pub const fn call(&self) -> CallId {
        match self {
            Self::Latched { call, .. } | Self::Report { call, .. } => *call,
        }
    }
}
