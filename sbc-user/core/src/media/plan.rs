//! The media plan of a call: every stream, both sides, who may send. The dataplane obeys it.

use std::net::{IpAddr, SocketAddr};

use crate::config::Prefix;
use crate::id::{CallId, RealmId};
pub use crate::peer_media::PeerMedia;

/// All relayed streams of one call. Replaces the call's previous plan as one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaPlan {
    /// The call it belongs to.
    pub call: CallId,
    /// Its streams. A rejected or disabled m-line has none.
    pub streams: Vec<StreamPlan>,
}

impl MediaPlan {
    /// Nobody may claim a port any more; whether somebody might before.
    pub fn close_windows(&mut self) -> bool {
        let sides = self.streams.iter_mut().flat_map(|stream| [&mut stream.caller, &mut stream.callee]);
        let windows = sides.filter_map(|side| match &mut side.source {
            SourcePolicy::Learn { window, .. } => Some(window),
            SourcePolicy::Signalled => None,
        });
        windows.filter_map(|window| std::mem::replace(&mut window.open, false).then_some(())).count() > 0
    }
}

/// One m-line between the call's two legs: what arrives on one side's ports leaves from the other side's ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamPlan {
    /// Position of the m-line in the SDP.
    pub mline: u8,
    /// The side that called.
    pub caller: StreamSide,
    /// The side that was called.
    pub callee: StreamSide,
}

/// One side of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSide {
    /// The realm this side is on.
    pub realm: RealmId,
    /// Our address on this side (the realm's media bind address).
    pub local_ip: IpAddr,
    /// Our RTP port on this side: even; our RTCP port is the next one.
    pub local_rtp_port: u16,
    /// Where the peer said that it receives. `None` before its SDP is known: nothing is sent to it yet.
    pub peer: Option<PeerMedia>,
    /// Whether the peer sends RTP and RTCP to `local_rtp_port` and receives both at `peer.rtp` (RFC 5761). The port
    /// after it stays ours and takes nothing.
    pub rtcp_mux: bool,
    /// From where packets are accepted on our ports of this side.
    pub source: SourcePolicy,
    /// What the peer is expected to send here.
    pub pace: MediaPace,
    /// DSCP of what we send to this side, 0 to 63.
    pub dscp: u8,
}

/// From where packets are accepted on a side's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourcePolicy {
    /// From `StreamSide::peer` exactly; while that is `None`, from nowhere.
    Signalled,
    /// While the window is open the first valid packet whose source address is in `allowed` claims the slot with its
    /// source port; from then on only that source is accepted and packets to this side go there (RFC 7362). Where the
    /// window was closed before anybody claimed, it is as with `Signalled`.
    Learn {
        /// Who may claim.
        allowed: Prefix,
        /// Whether anybody may at present.
        window: LearnWindow,
    },
}

impl SourcePolicy {
    /// Learned from one address, for as long as it takes.
    #[must_use]
    pub const fn learn_from(address: IpAddr) -> Self {
        Self::Learn { allowed: Prefix::host(address), window: LearnWindow { opening: 0, open: true } }
    }

    /// Whether a packet from there may claim a slot that nobody has claimed.
    #[must_use]
    pub fn lets_claim(&self, from: SocketAddr) -> bool {
        match self {
            Self::Learn { allowed, window } => {
                window.open && is_answerable(from) && allowed.contains(from.ip())
            }
            Self::Signalled => false,
        }
    }
}

/// Whether a packet could be sent back. Loopback can be, on a host of one's own; a dataplane that hears the wire refuses
/// it by itself.
fn is_answerable(from: SocketAddr) -> bool {
    let address = match from.ip() {
        IpAddr::V4(address) => !matches!(address.octets()[0], 0 | 224..),
        IpAddr::V6(address) => !address.is_unspecified() && !address.is_multicast(),
    };
    address && from.port() != 0
}

/// When a side may be claimed. The engine opens and closes it; the dataplane has no clock for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LearnWindow {
    /// Number of this opening. A plan with another number voids what was learned before as a source; packets to the
    /// side go to `StreamSide::peer` until the next claim.
    pub opening: u32,
    /// Whether it is open. Closing keeps what was learned.
    pub open: bool,
}

/// What a stream is expected to be, from its negotiated codecs. Zeroes: nothing is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MediaPace {
    /// More RTP packets than this in a second are dropped; 0: no limit. Holds the margin already.
    pub packets_per_second: u32,
    /// Clock rate of the RTP timestamps in Hz, for jitter (RFC 3550 s.6.4.1); 0: unknown or more than one.
    pub clock_rate_hz: u32,
}

/// What carries a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Placement {
    /// The XDP program.
    Kernel,
    /// The userspace relay.
    Relay,
}
