//! Media plans as flow slots.
//!
//! A stream is two *pairs* of slots, one for RTP and one for RTCP. Each pair has a caller's and a callee's side: the
//! slot of a side is the port of ours that its peer sends to, and holds in `destination` where the *other* side's
//! peer receives. Pairs are computed from the plan alone ([`pairs`]) and written by [`PairState::write`], which
//! decides what of an earlier plan survives:
//!
//! | an Install | this side's learned source | generation |
//! |---|---|---|
//! | changes nothing that was learned | stays, in the kernel | stays |
//! | changes the other side, which could have been claimed | becomes the only accepted source | new |
//! | changes this side | void | new |
//!
//! Writing cannot fail: everything that can is asked before the first word is written.

mod left;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use sbc_common::addr::Endpoint;
use sbc_common::flow::{Allowed, FlowHead, FlowState, Generation, MediaKind, SlotIndex, Target, Way};
use sbc_core::media::plan::{SourcePolicy, StreamPlan, StreamSide};

use super::flows::{Counted, FlowTable};
use super::neighbours::HopId;

/// TTL of what we send: we originate the datagram (RFC 791's recommended value for a new one).
const TTL: u8 = 64;

/// The caller's side of a pair.
pub(crate) const CALLER: usize = 0;
/// The callee's side of a pair.
pub(crate) const CALLEE: usize = 1;

/// From where a side's slot accepts packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accept {
    /// From nowhere.
    Nothing,
    /// From one source.
    Exactly(Endpoint),
    /// From the first source with this address, which then is the only one.
    Claim([u8; 4]),
}

/// One side of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Side {
    /// Its slot: our port that the peer sends to.
    pub(crate) slot: SlotIndex,
    /// Which packets of the peer are accepted there.
    pub(crate) accept: Accept,
    /// Where the peer said that it receives.
    pub(crate) peer: Option<Endpoint>,
    /// The way to the side: to `peer`, or to the address that may claim.
    pub(crate) hop: Option<HopId>,
    /// Whether `hop` leads to `peer` too. If not, nothing is sent before a claim.
    pub(crate) reaches_peer: bool,
    /// DSCP of what is sent to the peer.
    pub(crate) dscp: u8,
}

impl Side {
    /// Whether what `self` learned is true of `other` as well.
    fn learns_as(&self, other: &Self) -> bool {
        self.slot == other.slot && self.accept == other.accept && self.peer == other.peer
    }
}

/// Two slots that forward into each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) kind: MediaKind,
    pub(crate) sides: [Side; 2],
}

/// A pair as it was written, and what else must be known to write the next one or to count.
#[derive(Clone, Debug)]
pub(crate) struct PairState {
    pair: Pair,
    generation: Generation,
    /// Sources that were learned in an earlier generation and still count.
    kept: [Option<Endpoint>; 2],
    /// What the slots had counted before they were ours.
    base: [Counted; 2],
}

/// The ways that a side needs, as the caller of [`pairs`] found them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hops {
    /// To the peer's RTP address, or to the address that may claim.
    pub(crate) rtp: Option<HopId>,
    /// To the peer's RTCP address, or to the address that may claim.
    pub(crate) rtcp: Option<HopId>,
    /// Whether the signalled addresses lie behind the same hops, so that something can be sent before a claim.
    pub(crate) reaches_peer: bool,
}

/// The RTP pair and the RTCP pair of a stream. `address_slots` and `hops` are the caller's and the callee's.
pub(crate) fn pairs(stream: &StreamPlan, address_slots: [u16; 2], hops: [Hops; 2]) -> [Pair; 2] {
    [MediaKind::Rtp, MediaKind::Rtcp].map(|kind| {
        let side = |side: &StreamSide, at: usize| {
            let (offset, hop) = match kind {
                MediaKind::Rtp => (0, hops[at].rtp),
                MediaKind::Rtcp => (1, hops[at].rtcp),
            };
            let peer = side.peer.and_then(|peer| match kind {
                MediaKind::Rtp => endpoint(peer.rtp),
                MediaKind::Rtcp => endpoint(peer.rtcp),
            });
            let accept = match side.source {
                SourcePolicy::Signalled => peer.map_or(Accept::Nothing, Accept::Exactly),
                SourcePolicy::Learn { allowed, .. } => {
                    usable(allowed.addr).map_or(Accept::Nothing, |allowed| Accept::Claim(allowed.octets()))
                }
            };
            Side {
                slot: SlotIndex::new(address_slots[at], side.local_rtp_port + offset),
                accept,
                peer,
                hop,
                reaches_peer: hops[at].reaches_peer,
                dscp: side.dscp,
            }
        };
        Pair { kind, sides: [side(&stream.caller, CALLER), side(&stream.callee, CALLEE)] }
    })
}

/// An IPv4 address that can be a peer's.
pub(crate) fn usable(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address)
            if !address.is_unspecified() && !address.is_broadcast() && !address.is_multicast() =>
        {
            Some(address)
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// An endpoint that can be a peer's: a port of 0 or an address of 0.0.0.0 says that it does not receive.
fn endpoint(address: SocketAddr) -> Option<Endpoint> {
    let ip = usable(address.ip())?;
    (address.port() != 0).then(|| Endpoint::new(ip.octets(), address.port()))
}

impl PairState {
    /// Writes a pair that follows `before` (of the same m-line and kind), or a first one, and publishes it.
    ///
    /// Slots of `before` that the new pair does not have are left to the caller to withdraw.
    pub(crate) fn write(
        table: &FlowTable,
        latest: &mut Generation,
        before: Option<&Self>,
        pair: Pair,
    ) -> Self {
        let slots = pair.sides.map(|side| table.read(side.slot));
        let mut kept = [None; 2];
        let mut base = pair.sides.map(|side| table.counted(side.slot));
        let mut fresh = before.is_none();
        if let Some(before) = before {
            let old = before.pair.sides;
            let unchanged = [CALLER, CALLEE].map(|at| old[at].learns_as(&pair.sides[at]));
            fresh = [CALLER, CALLEE].into_iter().any(|at| {
                let claimable = matches!(old[at].accept, Accept::Claim(_));
                !unchanged[at] && (claimable || old[at].slot != pair.sides[at].slot)
            });
            for at in [CALLER, CALLEE] {
                if old[at].slot == pair.sides[at].slot {
                    base[at] = before.base[at];
                }
                if unchanged[at] {
                    let learned = slots[at].learned_source.endpoint(before.generation.number());
                    kept[at] = before.kept[at].or(learned.filter(|_| fresh));
                }
            }
        }
        let generation = match before {
            Some(before) if !fresh => before.generation,
            Some(_) | None => {
                *latest = latest.next_for([&slots[CALLER], &slots[CALLEE]]);
                *latest
            }
        };
        let state = Self { pair, generation, kept, base };
        for at in [CALLER, CALLEE] {
            let (expected, destination, partner) = state.body(at);
            table.write_body(pair.sides[at].slot, expected, destination, partner);
        }
        for at in [CALLER, CALLEE] {
            table.publish(pair.sides[at].slot, state.head(at));
        }
        state
    }

    /// The slots, caller's first.
    pub(crate) fn slots(&self) -> [SlotIndex; 2] {
        self.pair.sides.map(|side| side.slot)
    }

    /// The generation in which the slots are published.
    pub(crate) fn generation(&self) -> Generation {
        self.generation
    }

    /// What was counted for this call of what arrived from each side.
    pub(crate) fn counted(&self, table: &FlowTable) -> [Counted; 2] {
        [CALLER, CALLEE].map(|at| table.counted(self.pair.sides[at].slot).since(self.base[at]))
    }

    fn body(&self, at: usize) -> (Allowed, Target, SlotIndex) {
        let (own, other) = (self.pair.sides[at], self.pair.sides[1 - at]);
        let expected = match (self.kept[at], own.accept) {
            (Some(source), _) | (None, Accept::Exactly(source)) => Allowed::exactly(source),
            (None, Accept::Claim(address)) => Allowed::any_port(address, 32),
            (None, Accept::Nothing) => Allowed::NOBODY,
        };
        let reply = self.kept[1 - at].or(other.peer.filter(|_| other.reaches_peer)).unwrap_or(Endpoint::NONE);
        (expected, Target::new(reply, other.dscp, TTL), other.slot)
    }

    fn head(&self, at: usize) -> FlowHead {
        let state = match (self.kept[at], self.pair.sides[at].accept) {
            (Some(_), _) | (None, Accept::Exactly(_)) => FlowState::Latched,
            (None, Accept::Claim(_)) => FlowState::Learning,
            (None, Accept::Nothing) => FlowState::Idle,
        };
        FlowHead {
            state,
            kind: self.pair.kind.into(),
            next_hop: self.pair.sides[1 - at].hop.map_or(0, |hop| hop.0),
            generation: self.generation.number(),
            way: Way::V4,
            flags: 0,
        }
    }
}

#[cfg(test)]
mod tests;
