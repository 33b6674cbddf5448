//! The media plan of a call: every stream, both sides, who may send. The dataplane obeys it.

use std::net::IpAddr;

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
    /// From where packets are accepted on our ports of this side.
    pub source: SourcePolicy,
    /// DSCP of what we send to this side, 0 to 63.
    pub dscp: u8,
}

/// From where packets are accepted on a side's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourcePolicy {
    /// From `StreamSide::peer` exactly; while that is `None`, from nowhere.
    Signalled,
    /// The first valid packet whose source address is `allowed` claims the slot with its source port; from then on
    /// only that source is accepted and packets to this side go there.
    Learn {
        /// The only address that may claim.
        allowed: IpAddr,
    },
}

/// What carries a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Placement {
    /// The XDP program.
    Kernel,
    /// The userspace relay.
    Relay,
}
