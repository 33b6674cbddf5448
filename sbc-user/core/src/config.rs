//! What the engine must know of the configuration: validated values, no text.
//!
//! The shell reads and validates the file and builds this; the engine trusts it. Indices are positions: `RealmId(i)`
//! is `realms[i]`, `TrunkId(i)` is `trunks[i]`, `ListenerId(i)` is `listeners[i]`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::flow::Transport;
use crate::guard::GuardPolicy;
use crate::id::{ListenerId, RealmId, TrunkId};

/// The engine's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Identifies this node in branches, tags and Call-IDs that we generate.
    pub node: u16,
    /// How often this node has started; with `node` and the shard it makes generated identifiers unique for ever.
    pub epoch: u32,
    /// Networks on which calls arrive and leave.
    pub realms: Vec<Realm>,
    /// SIP sockets of all realms.
    pub listeners: Vec<Listener>,
    /// Known peers.
    pub trunks: Vec<Trunk>,
    /// Where a call from a trunk goes; the first that matches.
    pub routes: Vec<Route>,
    /// Most calls at once; one more is refused with 503.
    pub max_calls: usize,
    /// How floods are held off, and who is on the operator's lists.
    pub guard: GuardPolicy,
    /// How long an answered call may be silent.
    pub media_timeouts: MediaTimeouts,
}

/// How long an answered call lives in which no stream carries RTP or RTCP in either direction. `None`: for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MediaTimeouts {
    /// While some stream is agreed to flow both ways.
    pub talking: Option<Duration>,
    /// While none is: on hold, or one way from the start.
    pub held: Option<Duration>,
}

/// A network: its name, how its media is addressed, and what it may learn of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realm {
    /// Name in configuration, logs and records.
    pub name: String,
    /// Addresses and ports of its media.
    pub media: MediaRealm,
    /// Nothing of another realm's addresses and names shows here (R-HIDE-1). On unless configured off.
    pub hide_topology: bool,
}

/// Media side of a realm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaRealm {
    /// Address of ours on which media of this realm is received and from which it is sent.
    pub bind: IpAddr,
    /// Address that we write into SDP: `bind`, or the one that a static NAT in front of us maps to it (R-NAT-10).
    pub advertised: IpAddr,
    /// Ports to allocate from, inclusive. RTP even, RTCP the next odd one.
    pub ports: RangeInclusive<u16>,
    /// How long a freed port rests before it is given to another call.
    pub quarantine: Duration,
    /// DSCP of audio that leaves on this realm, 0 to 63 (R-QOS-1).
    pub dscp_audio: u8,
    /// The same of video.
    pub dscp_video: u8,
    /// How many times more packets a stream may carry than its codecs call for; 0: no limit.
    pub rate_factor: u32,
}

/// A SIP socket of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The realm that it serves.
    pub realm: RealmId,
    /// Its transport.
    pub transport: Transport,
    /// Address and port bound.
    pub bind: SocketAddr,
    /// Address and port that we write into Via, Contact and Record-Route on this side (R-NAT-10).
    pub advertised: SocketAddr,
}

/// A configured peer: who may send us calls, and where calls to it go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trunk {
    /// Name in configuration, logs and records.
    pub name: String,
    /// The realm it is on.
    pub realm: RealmId,
    /// Sources that are this trunk. A request from no trunk's source gets no answer.
    pub sources: Vec<Prefix>,
    /// Where requests to this trunk are sent. `None`: it only calls in.
    pub next_hop: Option<NextHop>,
    /// How media is exchanged with it.
    pub media: TrunkMedia,
}

/// How media is exchanged with a trunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrunkMedia {
    /// Whose media its legs accept.
    pub source: MediaSourceRule,
    /// When a source may be learned, where one is.
    pub learning: Learning,
    /// Whether RTP and RTCP may share a port with it.
    pub rtcp_mux: RtcpMux,
    /// Whether only flows that we open reach its peers (R-TMS-2), and the longest time without a packet after which such
    /// a flow is still open.
    pub prime: Option<Duration>,
}

impl TrunkMedia {
    /// Two thirds of the shortest time after which NATs in use forget a flow (30 s; RFC 4787 s.4.3 asks for 120). A flow
    /// that rests gets a packet at every half of it, more often than the 15 s of RFC 6263.
    pub const PRIME: Duration = Duration::from_secs(20);
}

/// Whether RTP and RTCP share a port on a trunk's legs (RFC 5761). Each leg agrees on that for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RtcpMux {
    /// Never. A stream that cannot do without is refused (RFC 8858).
    Off,
    /// If the peer offers it.
    #[default]
    Accept,
    /// We offer it as well.
    Offer,
}

/// Which sources of media a trunk's legs accept. Where they are learned, the first valid packet of a source that may
/// claim a port decides (RFC 7362). Encrypted media is always held to what was signalled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MediaSourceRule {
    /// Exactly the address and port of its SDP. Before its SDP is known (early media before an answer) nothing is
    /// accepted but packets from the address to which we signal.
    #[default]
    Signalled,
    /// Learned, from the address that its signalling comes from (a peer behind NAT).
    Address,
    /// Learned, from the /24 (IPv6: /64) of the address that its signalling comes from.
    Subnet,
    /// Learned, from the /24 (IPv6: /64) of the address in its SDP; before its SDP is known, of its signalling (a
    /// carrier whose media gateways stand in for each other).
    SdpSubnet,
    /// Learned, from anywhere.
    Any,
}

/// When the source of a side's media may be learned. Counted by the engine, not by the dataplane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learning {
    /// For how long after the answer, or after the change that made the side describe another place.
    pub window: Duration,
    /// After how long a silence of the side it may be learned anew. `None`: never.
    pub relatch: Option<Duration>,
}

impl Learning {
    /// Covers a 2xx that is lost four times in a row (RFC 3261 s.13.3.1.4 repeats it after 0.5, 1.5, 3.5 and 7.5 s): a
    /// caller that does not know that it was answered does not send.
    pub const WINDOW: Duration = Duration::from_secs(10);
    /// Longer than two RTCP intervals can be (RFC 3550 s.6.2: at most 6.2 s each with the usual 5), so that a side
    /// that suppresses silence is never taken for one that has gone.
    pub const RELATCH: Duration = Duration::from_secs(15);
}

impl Default for Learning {
    fn default() -> Self {
        Self { window: Self::WINDOW, relatch: Some(Self::RELATCH) }
    }
}

/// Where requests to a trunk go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The listener of ours that sends them; its transport is the transport.
    pub listener: ListenerId,
    /// The peer's address and port.
    pub remote: SocketAddr,
}

/// A route: calls that arrive from `from` leave to `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Trunk on which the call arrived.
    pub from: TrunkId,
    /// Trunk to which it goes.
    pub to: TrunkId,
}

/// An address prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Address; bits below `len` do not count.
    pub addr: IpAddr,
    /// Leading bits that must be equal.
    pub len: u8,
}

impl Prefix {
    /// One address.
    #[must_use]
    pub const fn host(addr: IpAddr) -> Self {
        let len = if addr.is_ipv4() { 32 } else { 128 };
        Self { addr, len }
    }

    /// The subnet around an address that counts as one place: /24, of IPv6 /64.
    #[must_use]
    pub const fn subnet_of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => {
                Self { addr: IpAddr::V4(Ipv4Addr::from_bits(addr.to_bits() & (u32::MAX << 8))), len: 24 }
            }
            IpAddr::V6(addr) => {
                Self { addr: IpAddr::V6(Ipv6Addr::from_bits(addr.to_bits() & (u128::MAX << 64))), len: 64 }
            }
        }
    }

    /// Every address of the family of `addr`.
    #[must_use]
    pub const fn any_like(addr: IpAddr) -> Self {
        let addr = match addr {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        Self { addr, len: 0 }
    }

    /// Whether `addr` lies inside. Families never match each other.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self.addr, addr) {
            (IpAddr::V4(net), IpAddr::V4(addr)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.len.min(32))).unwrap_or(0);
                net.to_bits() & mask == addr.to_bits() & mask
            }
            (IpAddr::V6(net), IpAddr::V6(addr)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.len.min(128))).unwrap_or(0);
                net.to_bits() & mask == addr.to_bits() & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_compares_its_leading_bits_only() {
        let net = Prefix { addr: "192.0.2.128".parse().unwrap(), len: 25 };
        assert!(net.contains("192.0.2.129".parse().unwrap()));
        assert!(!net.contains("192.0.2.127".parse().unwrap()));
        assert!(!net.contains("2001:db8::1".parse().unwrap()));
        let all = Prefix { addr: "0.0.0.0".parse().unwrap(), len: 0 };
        assert!(all.contains("203.0.113.9".parse().unwrap()));
        let host = Prefix { addr: "2001:db8::1".parse().unwrap(), len: 128 };
        assert!(host.contains("2001:db8::1".parse().unwrap()));
        assert!(!host.contains("2001:db8::2".parse().unwrap()));
    }
}
