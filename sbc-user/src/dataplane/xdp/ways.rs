//! Which ways a plan needs: over next hops to peers, or into another call's port on this host.

use std::net::SocketAddr;

use sbc_core::id::CallId;
use sbc_core::media::command::MediaError;
use sbc_core::media::plan::{MediaPlan, SourcePolicy, StreamPlan, StreamSide};

use super::Xdp;
use super::encode::{self, CALLEE, CALLER, RTCP, RTP, Toward};
use super::flows::{Family, SlotKey};
use super::neighbours::{HopId, PathKey, PathState};
use crate::dataplane::relay_reason::{Objection, RelayReason};
use sbc_common::flow::SlotIndex;

/// Least MTU of the hop to an IPv6 side whose other side is IPv4: what arrives with up to 1280 bytes, the size that
/// every path of today takes, leaves 20 bytes longer.
const MIXED_MTU: u32 = 1280 + 20;

/// The way to one port of a side's peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The peer is not known.
    Nowhere,
    /// To an address. If it is required, the stream goes live only when its next hop is resolved.
    Path { key: PathKey, required: bool },
    /// Into a media port of ours, which is another call's, on this address slot.
    Local(u16),
}

/// The ways to a side: for RTP, for RTCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SideWays {
    ways: [Way; 2],
    /// To the signalled addresses, where `ways` leads to who may claim: they are used if they lead the same way.
    signalled: [Option<PathKey>; 2],
}

impl SideWays {
    /// Every path.
    pub(super) fn paths(&self) -> impl Iterator<Item = PathKey> + use<> {
        [self.paths_of(RTP), self.paths_of(RTCP)].into_iter().flatten().flatten()
    }

    /// The path for RTP or RTCP, and the one to the signalled address where that is another.
    pub(super) fn paths_of(&self, kind: usize) -> [Option<PathKey>; 2] {
        let way = match self.ways[kind] {
            Way::Path { key, .. } => Some(key),
            Way::Nowhere | Way::Local(_) => None,
        };
        [way, self.signalled[kind]]
    }

    /// Those that must be resolved before the stream goes live.
    fn required(&self) -> impl Iterator<Item = PathKey> + use<> {
        self.ways.into_iter().filter_map(|way| match way {
            Way::Path { key, required: true } => Some(key),
            Way::Path { required: false, .. } | Way::Nowhere | Way::Local(_) => None,
        })
    }
}

impl Xdp {
    /// The ways to both sides, if the kernel can serve such a stream at all.
    pub(super) fn ways(&self, call: CallId, stream: &StreamPlan) -> Result<[SideWays; 2], Objection> {
        let sides = [&stream.caller, &stream.callee];
        for side in sides {
            self.address_slot(side).map_err(|error| RelayReason::AddressNotServed.because(error))?;
            let allowed = match side.source {
                SourcePolicy::Learn { allowed, .. } => Some(SocketAddr::new(allowed.addr, 0)),
                SourcePolicy::Signalled => None,
            };
            let peer = side.peer.map(|peer| [peer.rtp, peer.rtcp]);
            let other_family = |address: &SocketAddr| address.is_ipv4() != side.local_ip.is_ipv4();
            if let Some(address) = peer.into_iter().flatten().chain(allowed).find(other_family) {
                return Err(RelayReason::OtherFamily.because(MediaError::NoRoute(address)));
            }
        }
        // The program goes on in a second slot within IPv4 only.
        let local = sides.iter().all(|side| side.local_ip.is_ipv4());
        Ok(sides.map(|side| {
            let into = |address| if local { self.other_calls_port(call, address) } else { None };
            side_ways(side, into)
        }))
    }

    /// The address slot of another call's media port, if the kernel forwards what arrives there.
    fn other_calls_port(&self, call: CallId, address: SocketAddr) -> Option<u16> {
        let served = self.addresses.get(&address.ip()).filter(|served| served.has(address.port()))?;
        let index = SlotIndex::new(served.slot, address.port());
        let port = SlotKey { family: Family::of(address.ip()), index };
        self.owners
            .get(&port)
            .is_some_and(|owner| owner.call != call && !owner.relayed)
            .then_some(served.slot)
    }

    /// Paths of a plan that must be resolved before it goes live, and why it cannot be carried, if that is known.
    pub(super) fn required_paths(&self, plan: &MediaPlan) -> Vec<PathKey> {
        let ways = plan.streams.iter().filter_map(|stream| self.ways(plan.call, stream).ok()).flatten();
        ways.flat_map(|side| side.required()).collect()
    }

    /// What keeps the kernel from carrying a stream, of what is known of its ways now.
    pub(super) fn obstacle(&self, stream: &StreamPlan, ways: &[SideWays; 2]) -> Option<Objection> {
        let lost = || {
            let required = ways.iter().flat_map(SideWays::required);
            required.into_iter().find_map(|key| obstacle(key, self.neighbours.state(key)))
        };
        let narrow = || {
            let sides = [&stream.caller, &stream.callee];
            [CALLER, CALLEE]
                .into_iter()
                .filter(|at| sides[*at].local_ip.is_ipv6() && sides[1 - at].local_ip.is_ipv4())
                .flat_map(|at| ways[at].paths())
                .find_map(|key| {
                    let mtu = self.neighbours.mtu(key)?;
                    (mtu < MIXED_MTU).then(|| {
                        RelayReason::MtuTooSmall.because(MediaError::System(format!(
                            "an MTU of {mtu} towards {} is too small for IPv4 that becomes IPv6",
                            key.1
                        )))
                    })
                })
        };
        lost().or_else(narrow)
    }

    /// How packets get to the ports of both sides as things are now. `claimed`: the way to who claimed a port.
    pub(super) fn toward(
        &self,
        ways: &[SideWays; 2],
        claimed: impl Fn(usize, usize) -> Option<PathKey>,
    ) -> [[Toward; 2]; 2] {
        [CALLER, CALLEE].map(|at| {
            [RTP, RTCP].map(|kind| {
                let path = match ways[at].ways[kind] {
                    Way::Local(slot) => return Toward::Local(slot),
                    Way::Path { key, .. } => Some(key),
                    Way::Nowhere => None,
                };
                let hop = self.hop(claimed(at, kind)).or_else(|| self.hop(path));
                let signalled = ways[at].signalled[kind];
                let reaches_peer = signalled.is_none_or(|key| self.hop(Some(key)) == hop);
                Toward::Hop { hop, reaches_peer }
            })
        })
    }

    /// The hop of a path that is resolved.
    fn hop(&self, key: Option<PathKey>) -> Option<HopId> {
        match self.neighbours.state(key?) {
            PathState::Ready(hop) => Some(hop),
            PathState::Waiting
            | PathState::Local
            | PathState::NotServed
            | PathState::Unreachable
            | PathState::Full => None,
        }
    }
}

fn side_ways(side: &StreamSide, into_other_call: impl Fn(SocketAddr) -> Option<u16>) -> SideWays {
    let mut signalled = [None; 2];
    let ways = [RTP, RTCP].map(|kind| {
        let peer = encode::peer(side, kind);
        if let Some(slot) = peer.and_then(&into_other_call) {
            return Way::Local(slot);
        }
        let path = |ip| (side.local_ip, ip);
        let to_peer = peer.map(|peer| path(peer.ip()));
        let SourcePolicy::Learn { allowed, .. } = side.source else {
            return to_peer.map_or(Way::Nowhere, |key| Way::Path { key, required: true });
        };
        let width = if allowed.addr.is_ipv4() { 32 } else { 128 };
        if allowed.len >= width && encode::usable(allowed.addr) {
            let key = path(allowed.addr);
            signalled[kind] = to_peer.filter(|peer| *peer != key);
            return Way::Path { key, required: true };
        }
        // Whoever claims is likely to be near the peer if that may claim itself. If not, the peer's address may be one
        // behind a NAT: the way there may lead nowhere, and the one to who claims is found when it does.
        to_peer.map_or(Way::Nowhere, |key| Way::Path { key, required: allowed.contains(key.1) })
    });
    SideWays { ways, signalled }
}

/// What keeps the kernel from using a path, if it is not just a matter of time.
pub(super) fn obstacle((local, peer): PathKey, state: PathState) -> Option<Objection> {
    let no_way = MediaError::NoRoute(SocketAddr::new(peer, 0));
    let not_ours = MediaError::NotOurs(SocketAddr::new(local, 0));
    match state {
        PathState::Ready(_) | PathState::Waiting => None,
        PathState::Local => Some(RelayReason::PeerOnThisHost.because(not_ours)),
        PathState::NotServed => Some(RelayReason::EgressNotServed.because(not_ours)),
        PathState::Unreachable => Some(RelayReason::NoRoute.because(no_way)),
        PathState::Full => Some(RelayReason::NextHopsFull.because(MediaError::Full("next hops"))),
    }
}

#[cfg(test)]
mod tests {
    use sbc_core::config::Prefix;
    use sbc_core::id::RealmId;
    use sbc_core::media::plan::{LearnWindow, MediaPace, PeerMedia};

    use super::*;

    fn side(source: SourcePolicy, peer: Option<&str>) -> StreamSide {
        StreamSide {
            realm: RealmId(0),
            local_ip: "203.0.113.1".parse().unwrap(),
            local_rtp_port: 20_000,
            peer: peer.map(|peer| PeerMedia { rtp: peer.parse().unwrap(), rtcp: peer.parse().unwrap() }),
            rtcp_mux: false,
            source,
            pace: MediaPace::default(),
            dscp: 46,
        }
    }

    fn learn(prefix: &str, len: u8) -> SourcePolicy {
        let window = LearnWindow { opening: 1, open: true };
        SourcePolicy::Learn { allowed: Prefix { addr: prefix.parse().unwrap(), len }, window }
    }

    fn path(to: &str) -> PathKey {
        ("203.0.113.1".parse().unwrap(), to.parse().unwrap())
    }

    #[test]
    fn the_way_is_to_who_may_send() {
        let of = |source, peer| {
            let ways = side_ways(&side(source, peer), |_| None);
            (ways.ways[RTP], ways.signalled[RTP])
        };
        let way = |to, required| Way::Path { key: path(to), required };
        assert_eq!(of(SourcePolicy::Signalled, None), (Way::Nowhere, None));
        assert_eq!(of(SourcePolicy::Signalled, Some("192.0.2.1:4000")), (way("192.0.2.1", true), None));
        let nat = Some("10.0.0.1:4000");
        assert_eq!(of(learn("192.0.2.1", 32), nat), (way("192.0.2.1", true), Some(path("10.0.0.1"))));
        assert_eq!(of(learn("192.0.2.0", 24), nat), (way("10.0.0.1", false), None));
        assert_eq!(of(learn("192.0.2.0", 24), Some("192.0.2.9:4000")), (way("192.0.2.9", true), None));
        assert_eq!(of(learn("0.0.0.0", 0), None), (Way::Nowhere, None));
    }

    #[test]
    fn what_keeps_the_kernel_from_a_way_has_a_name() {
        use super::super::neighbours::HopId;

        let of = |state| obstacle(path("192.0.2.1"), state).map(|objection| objection.reason);
        assert_eq!(of(PathState::Ready(HopId(1))), None);
        assert_eq!(of(PathState::Waiting), None);
        assert_eq!(of(PathState::Local), Some(RelayReason::PeerOnThisHost));
        assert_eq!(of(PathState::NotServed), Some(RelayReason::EgressNotServed));
        assert_eq!(of(PathState::Unreachable), Some(RelayReason::NoRoute));
        assert_eq!(of(PathState::Full), Some(RelayReason::NextHopsFull));
    }

    #[test]
    fn a_port_of_another_call_is_no_way_out() {
        let ways = side_ways(&side(learn("192.0.2.1", 32), Some("203.0.113.1:20100")), |_| Some(3));
        assert_eq!(ways.ways, [Way::Local(3); 2]);
        assert_eq!(ways.paths().count(), 0);
    }
}
