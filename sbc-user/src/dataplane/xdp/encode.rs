//! Media plans as flow slots.
//!
//! A stream is four slots: for RTP and for RTCP, on the caller's and on the callee's side. The slot of a side is the port
//! of ours that its peer sends to, and holds in `destination` where the *other* side's peer receives. Where a side has
//! RTP and RTCP on one port, its RTCP slot is only the way out of the RTCP that arrives on the RTP port. The sides are
//! computed from the plan alone ([`sides`]) and written by [`StreamState::write`], which decides what of an earlier plan
//! survives:
//!
//! | an Install | a side's learned source | generation |
//! |---|---|---|
//! | moves no port and opens no window anew | stays, in the kernel | stays |
//! | closes the side's window | stays, in the kernel; without one: exactly the signalled peer | stays |
//! | moves a port of the other side, or opens that side's window anew | becomes the only accepted source | new |
//! | moves this side's port, or opens its window anew | void; packets go to the signalled peer | new |
//!
//! The four slots have one generation: a claim of a shared port is told to two slots of the other side.
//!
//! Writing cannot fail: everything that can is asked before the first word is written.

mod left;

use std::net::{IpAddr, SocketAddr};

use sbc_common::flow::{FlowHead, FlowState, Generation, MediaKind, PortKind, SlotIndex, TICK_NS, Way};
use sbc_common::limits;
use sbc_common::stream::RATE_WINDOW_TICKS;
use sbc_core::config::Prefix;
use sbc_core::media::plan::{LearnWindow, MediaPace, SourcePolicy, StreamPlan, StreamSide};

use super::flows::{Body, Counted, Expected, Family, Flows, SlotKey};
use super::neighbours::HopId;

/// TTL and hop limit of what we send: we originate the datagram (RFC 791's recommended value for a new one).
const TTL: u8 = 64;

/// The caller's side of a stream.
pub(crate) const CALLER: usize = 0;
/// The callee's side of a stream.
pub(crate) const CALLEE: usize = 1;
/// RTP, among what a side has two of.
pub(crate) const RTP: usize = 0;
/// RTCP, among what a side has two of.
pub(crate) const RTCP: usize = 1;

/// From where a slot accepts packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accept {
    /// From nowhere.
    Nothing,
    /// From one source.
    Exactly(SocketAddr),
    /// While the window is open from the first source with such an address, which then is the only one.
    Claim(Prefix, LearnWindow),
}

impl Accept {
    const fn is_claim(self) -> bool {
        matches!(self, Self::Claim(..))
    }

    /// Whether what was learned under `self` holds under `other`: while no other opening voids it.
    fn learns_as(self, other: Self) -> bool {
        match (self, other) {
            (Self::Claim(_, window), Self::Claim(_, other)) => window.opening == other.opening,
            (Self::Claim(..) | Self::Nothing | Self::Exactly(_), _) => false,
        }
    }
}

/// How packets get to a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toward {
    /// Over a next hop. `reaches_peer`: the signalled peer is behind it too; if not, nothing is sent before a claim.
    Hop { hop: Option<HopId>, reaches_peer: bool },
    /// The peer is a media port of ours, on this address slot.
    Local(u16),
}

impl Toward {
    /// Nowhere.
    pub(crate) const NONE: Self = Self::Hop { hop: None, reaches_peer: true };
}

/// One of the two ports of a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// Its slot: our port that the peer sends to.
    pub(crate) slot: SlotKey,
    /// Which packets of the peer are accepted there.
    pub(crate) accept: Accept,
    /// Where the peer said that it receives.
    pub(crate) peer: Option<SocketAddr>,
    /// The way there.
    pub(crate) toward: Toward,
}

/// One side of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Side {
    /// Its RTP port and its RTCP port.
    pub(crate) ports: [Port; 2],
    /// Whether its peer sends RTCP to the RTP port, and receives it there.
    pub(crate) rtcp_mux: bool,
    /// What the peer is expected to send.
    pub(crate) pace: MediaPace,
    /// DSCP of what is sent to the peer.
    pub(crate) dscp: u8,
}

impl Side {
    /// The port that packets of a kind arrive on and leave from.
    const fn port(&self, kind: usize) -> &Port {
        if self.rtcp_mux { &self.ports[RTP] } else { &self.ports[kind] }
    }

    /// Whether what one of its ports learned holds in `other` as well.
    fn learns_as(&self, other: &Self, kind: usize) -> bool {
        let (own, others) = (&self.ports[kind], &other.ports[kind]);
        let same_port = own.slot == others.slot && (kind == RTP || self.rtcp_mux == other.rtcp_mux);
        same_port && own.accept.learns_as(others.accept)
    }
}

/// Both sides of a stream as a plan has them. `address_slots` and `toward` are the caller's and the callee's; of `toward`
/// there is one for RTP and one for RTCP.
pub(crate) fn sides(stream: &StreamPlan, address_slots: [u16; 2], toward: [[Toward; 2]; 2]) -> [Side; 2] {
    let plans = [&stream.caller, &stream.callee];
    [CALLER, CALLEE].map(|at| {
        let plan = plans[at];
        let ports = [RTP, RTCP].map(|kind| {
            let peer = peer(plan, kind);
            let accept = match (toward[at][kind], plan.source) {
                // What comes from a port of ours went through no NAT.
                (Toward::Local(_), _) | (_, SourcePolicy::Signalled) => {
                    peer.map_or(Accept::Nothing, Accept::Exactly)
                }
                (Toward::Hop { .. }, SourcePolicy::Learn { allowed, window })
                    if allowed.addr.is_ipv4() == plan.local_ip.is_ipv4() =>
                {
                    Accept::Claim(allowed, window)
                }
                (Toward::Hop { .. }, SourcePolicy::Learn { .. }) => Accept::Nothing,
            };
            // Fits: RTP is on an even port.
            let index = SlotIndex::new(address_slots[at], plan.local_rtp_port | kind as u16);
            let slot = SlotKey { family: Family::of(plan.local_ip), index };
            Port { slot, accept, peer, toward: toward[at][kind] }
        });
        Side { ports, rtcp_mux: plan.rtcp_mux, pace: plan.pace, dscp: plan.dscp }
    })
}

/// Where a side's peer receives RTP or RTCP, if that can be.
pub(crate) fn peer(side: &StreamSide, kind: usize) -> Option<SocketAddr> {
    let peer = side.peer?;
    let address = if kind == RTP || side.rtcp_mux { peer.rtp } else { peer.rtcp };
    let same_family = address.is_ipv4() == side.local_ip.is_ipv4();
    // A port of 0 or an address of 0.0.0.0 says that it does not receive.
    (same_family && usable(address.ip()) && address.port() != 0).then_some(address)
}

/// Whether an address can be a peer's.
pub(crate) fn usable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            !address.is_unspecified() && !address.is_broadcast() && !address.is_multicast()
        }
        // Without a scope a link-local address is nowhere.
        IpAddr::V6(address) => {
            !address.is_unspecified() && !address.is_multicast() && !address.is_unicast_link_local()
        }
    }
}

/// A stream as it was written, and what else must be known to write the next one or to count.
#[derive(Clone, Debug)]
pub(crate) struct StreamState {
    sides: [Side; 2],
    generation: Generation,
    /// Sources that were learned in an earlier generation and still count, by side and kind.
    kept: [[Option<SocketAddr>; 2]; 2],
    /// What the slots had counted before they were ours.
    base: [[Counted; 2]; 2],
}

impl StreamState {
    /// Writes a stream that follows `before` (of the same m-line), or a first one, and publishes it.
    ///
    /// Slots of `before` that the new one does not have are left to the caller to withdraw.
    pub(crate) fn write(
        flows: &Flows,
        latest: &mut Generation,
        before: Option<&Self>,
        sides: [Side; 2],
    ) -> Self {
        let mut kept = [[None; 2]; 2];
        let mut base = sides.map(|side| side.ports.map(|port| flows.counted(port.slot)));
        let mut fresh = before.is_none();
        if let Some(before) = before {
            let stays = [CALLER, CALLEE]
                .map(|at| [RTP, RTCP].map(|kind| before.sides[at].learns_as(&sides[at], kind)));
            let each = || [CALLER, CALLEE].into_iter().flat_map(|at| [(at, RTP), (at, RTCP)]);
            fresh = each().any(|(at, kind)| {
                let (old, new) = (&before.sides[at].ports[kind], &sides[at].ports[kind]);
                (old.accept.is_claim() && !stays[at][kind]) || old.slot != new.slot
            });
            for (at, kind) in each() {
                let (old, new) = (&before.sides[at].ports[kind], &sides[at].ports[kind]);
                if old.slot == new.slot {
                    base[at][kind] = before.base[at][kind];
                }
                if stays[at][kind] {
                    let learned = || flows.learned(new.slot, before.generation.number()).filter(|_| fresh);
                    kept[at][kind] = before.kept[at][kind].or_else(learned);
                }
            }
        }
        let generation = match before {
            Some(before) if !fresh => before.generation,
            Some(_) | None => {
                let tags: Vec<u16> =
                    sides.iter().flat_map(|side| side.ports).flat_map(|port| flows.tags(port.slot)).collect();
                *latest = latest.next_unless(|tag| tags.contains(&tag));
                *latest
            }
        };
        let state = Self { sides, generation, kept, base };
        for at in [CALLER, CALLEE] {
            for kind in [RTP, RTCP] {
                flows.write_body(sides[at].ports[kind].slot, &state.body(at, kind));
            }
        }
        for at in [CALLER, CALLEE] {
            for kind in [RTP, RTCP] {
                flows.publish(sides[at].ports[kind].slot, state.head(at, kind));
            }
        }
        state
    }

    /// The slots of a side, for RTP and for RTCP.
    pub(crate) fn slots(&self, at: usize) -> [SlotKey; 2] {
        self.sides[at].ports.map(|port| port.slot)
    }

    /// All four slots.
    pub(crate) fn all_slots(&self) -> impl Iterator<Item = SlotKey> + use<> {
        [CALLER, CALLEE].map(|at| self.slots(at)).into_iter().flatten()
    }

    /// Whether a slot is one of these, and in this generation.
    pub(crate) fn has(&self, slot: SlotKey, generation: u16) -> bool {
        self.generation.number() == generation && self.all_slots().any(|held| held == slot)
    }

    /// The generation in which the slots are published.
    pub(crate) fn generation(&self) -> Generation {
        self.generation
    }

    /// What a slot accepts.
    pub(crate) fn accepts(&self, at: usize, kind: usize) -> Accept {
        self.sides[at].ports[kind].accept
    }

    /// The source that claimed a port, in this generation or before.
    pub(crate) fn learned(&self, flows: &Flows, at: usize, kind: usize) -> Option<SocketAddr> {
        let slot = self.sides[at].ports[kind].slot;
        self.kept[at][kind].or_else(|| flows.learned(slot, self.generation.number()))
    }

    /// Takes over that a source claimed a port, if the port can be claimed and has not been; to be written then. Whether.
    pub(crate) fn teach(&mut self, flows: &Flows, at: usize, kind: usize, source: SocketAddr) -> bool {
        let new = self.accepts(at, kind).is_claim() && self.learned(flows, at, kind).is_none();
        if new {
            self.kept[at][kind] = Some(source);
        }
        new
    }

    /// What was counted for this call of what arrived from a side: RTP, RTCP.
    pub(crate) fn counted(&self, flows: &Flows, at: usize) -> [Counted; 2] {
        [RTP, RTCP].map(|kind| flows.counted(self.sides[at].ports[kind].slot).since(self.base[at][kind]))
    }

    /// Clock rate of the RTP timestamps that arrive from a side; 0 if it is not known.
    pub(crate) fn clock_rate_hz(&self, at: usize) -> u32 {
        self.sides[at].pace.clock_rate_hz
    }

    /// Whether a slot is only the way out of what arrives on the port before.
    fn is_way_out(&self, at: usize, kind: usize) -> bool {
        self.sides[at].rtcp_mux && kind == RTCP
    }

    fn body(&self, at: usize, kind: usize) -> Body {
        let (own, other) = (&self.sides[at], &self.sides[1 - at]);
        let (arrival, departure) = (&own.ports[kind], other.port(kind));
        let expected = match (self.kept[at][kind], arrival.accept) {
            _ if self.is_way_out(at, kind) => Expected::Nobody,
            (Some(source), _) | (None, Accept::Exactly(source)) => Expected::Exactly(source),
            (None, Accept::Claim(allowed, LearnWindow { open: true, .. })) => Expected::AnyPort(allowed),
            (None, Accept::Claim(..)) => arrival.peer.map_or(Expected::Nobody, Expected::Exactly),
            (None, Accept::Nothing) => Expected::Nobody,
        };
        let reaches_peer = match departure.toward {
            Toward::Hop { reaches_peer, .. } => reaches_peer,
            Toward::Local(_) => true,
        };
        let destination = self.kept_of(1 - at, kind).or(departure.peer.filter(|_| reaches_peer));
        let (clock_rate_hz, limit) = match kind {
            RTP => (own.pace.clock_rate_hz, window_limit(own.pace.packets_per_second)),
            _ => (0, limits::RTCP_PER_WINDOW),
        };
        let (dscp, partner) = (other.dscp, departure.slot.index);
        Body { expected, destination, dscp, ttl: TTL, partner, clock_rate_hz, limit }
    }

    /// What a side's port for packets of a kind learned in an earlier generation.
    fn kept_of(&self, at: usize, kind: usize) -> Option<SocketAddr> {
        self.kept[at][if self.sides[at].rtcp_mux { RTP } else { kind }]
    }

    fn head(&self, at: usize, kind: usize) -> FlowHead {
        let (own, other) = (&self.sides[at], &self.sides[1 - at]);
        let (arrival, departure) = (&own.ports[kind], other.port(kind));
        let state = match (self.kept[at][kind], arrival.accept) {
            _ if self.is_way_out(at, kind) => FlowState::Muxed,
            (Some(_), _) | (None, Accept::Exactly(_) | Accept::Claim(_, LearnWindow { open: false, .. })) => {
                FlowState::Latched
            }
            (None, Accept::Claim(..)) => FlowState::Learning,
            (None, Accept::Nothing) => FlowState::Idle,
        };
        let (next_hop, way) = match (departure.toward, departure.slot.family) {
            (Toward::Local(address_slot), _) => (address_slot, Way::Local),
            (Toward::Hop { hop, .. }, family) => {
                let way = match family {
                    Family::V4 => Way::V4,
                    Family::V6 => Way::V6,
                };
                (hop.map_or(0, |hop| hop.0), way)
            }
        };
        let kind_of_port = match kind {
            RTP if own.rtcp_mux => PortKind::Muxed,
            RTP => MediaKind::Rtp.into(),
            _ => MediaKind::Rtcp.into(),
        };
        let told = arrival.slot.family == Family::V4 && departure.slot.family == Family::V4;
        let follows = !told && departure.accept.is_claim() && self.kept_of(1 - at, kind).is_none();
        FlowHead {
            state,
            kind: kind_of_port,
            next_hop,
            generation: self.generation.number(),
            way,
            flags: if follows { FlowHead::FOLLOWS_PARTNER } else { 0 },
        }
    }
}

/// Packets that a rate window lets through so that so many in a second pass; 0 for any number.
fn window_limit(packets_per_second: u32) -> u16 {
    let window_ns = u64::from(RATE_WINDOW_TICKS) * TICK_NS;
    let packets = (u64::from(packets_per_second) * window_ns).div_ceil(1_000_000_000);
    u16::try_from(packets).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
