//! Plans in the kernel: whose each slot is, which ways a plan needs, and what was counted for it.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use sbc_common::flow::{FlowHead, FlowState, MediaKind, SlotIndex};
use sbc_core::id::CallId;
use sbc_core::media::command::{DirectionCounters, MediaError, StreamCounters};
use sbc_core::media::plan::{MediaPlan, Placement, SourcePolicy, StreamPlan, StreamSide};

use super::Xdp;
use super::encode::{self, CALLEE, CALLER, Hops, PairState};
use super::flows::FlowTable;
use super::neighbours::{PathKey, PathState};
use crate::dataplane::counters::add;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) call: CallId,
    pub(super) mline: u8,
    pub(super) kind: MediaKind,
    pub(super) caller_side: bool,
    pub(super) relayed: bool,
}

pub(super) struct Call {
    pub(super) plan: MediaPlan,
    /// In the plan's order: the RTP and the RTCP pair of each stream.
    pub(super) streams: Vec<[PairState; 2]>,
    pub(super) paths: Vec<PathKey>,
    /// Counted on slots that the call no longer has, by m-line.
    pub(super) past: BTreeMap<u8, [DirectionCounters; 2]>,
}

/// The paths of one side.
pub(super) struct SidePaths {
    pub(super) rtp: Option<PathKey>,
    pub(super) rtcp: Option<PathKey>,
    /// To the signalled addresses, where others may claim: they are used if they lead the same way.
    pub(super) signalled: Vec<PathKey>,
}

impl Xdp {
    /// Why the kernel cannot carry a stream, as far as is known without waiting.
    pub fn objection(&mut self, now: Instant, stream: &StreamPlan) -> Option<MediaError> {
        let keys: Vec<PathKey> = match self.side_paths(stream) {
            Err(error) => return Some(error),
            Ok(sides) => sides.iter().flat_map(SidePaths::required).collect(),
        };
        let mut objection = None;
        for key in keys {
            let state = self.neighbours.acquire(key);
            objection = objection.or_else(|| obstacle(key, state));
            self.neighbours.release(now, key);
        }
        objection
    }

    /// Lets every packet of these streams' ports pass to the relay, and no longer those of streams named before.
    pub fn relay_streams(&mut self, call: CallId, streams: &[StreamPlan]) {
        let mut wanted = Vec::new();
        for stream in streams {
            for (side, caller_side) in [(&stream.caller, true), (&stream.callee, false)] {
                let Ok(slot) = self.address_slot(side) else { continue };
                for (offset, kind) in [(0, MediaKind::Rtp), (1, MediaKind::Rtcp)] {
                    let owner = Owner { call, mline: stream.mline, kind, caller_side, relayed: true };
                    wanted.push((SlotIndex::new(slot, side.local_rtp_port + offset), owner));
                }
            }
        }
        for slot in self.relayed.remove(&call).unwrap_or_default() {
            let still = self.owners.get(&slot).is_some_and(|owner| owner.call == call && owner.relayed);
            if still && !wanted.iter().any(|(index, _)| *index == slot) {
                self.kernel.flows.withdraw(slot);
                self.owners.remove(&slot);
            }
        }
        for (slot, owner) in wanted {
            if self.owners.get(&slot).is_some_and(|other| other.call != call || !other.relayed) {
                tracing::warn!(?slot, %call, "a relayed port is in use in the kernel");
                continue;
            }
            self.owners.insert(slot, owner);
            self.relayed.entry(call).or_default().push(slot);
            let generation = self.kernel.flows.read(slot).head.generation;
            let head = FlowHead {
                state: FlowState::Relay,
                kind: owner.kind.into(),
                generation,
                ..FlowHead::default()
            };
            self.kernel.flows.publish(slot, head);
        }
    }

    /// Whether the plan's slots are ours, and free or this call's.
    pub(super) fn check_slots(&self, plan: &MediaPlan) -> Result<(), MediaError> {
        let mut slots = HashSet::new();
        for side in plan.streams.iter().flat_map(|stream| [&stream.caller, &stream.callee]) {
            let address_slot = self.address_slot(side)?;
            for port in [side.local_rtp_port, side.local_rtp_port + 1] {
                let slot = SlotIndex::new(address_slot, port);
                let taken = self.owners.get(&slot).is_some_and(|owner| owner.call != plan.call);
                if taken || !slots.insert(slot) {
                    return Err(MediaError::PortInUse(SocketAddr::new(side.local_ip, port)));
                }
            }
        }
        Ok(())
    }

    /// Whether the plan can be carried as far as is known now; acquires its paths.
    pub(super) fn admit(&mut self, now: Instant, plan: &MediaPlan) -> Result<Vec<PathKey>, MediaError> {
        self.check_slots(plan)?;
        let mut paths = Vec::new();
        for stream in &plan.streams {
            for side in self.side_paths(stream)? {
                paths.extend(side.required().chain(side.signalled.iter().copied()));
            }
        }
        for key in &paths {
            self.neighbours.acquire(*key);
        }
        let required = self.required_paths(plan);
        if let Some(error) = required.into_iter().find_map(|key| obstacle(key, self.neighbours.state(key))) {
            self.release(now, paths);
            return Err(error);
        }
        Ok(paths)
    }

    pub(super) fn required_paths(&self, plan: &MediaPlan) -> Vec<PathKey> {
        let sides = plan.streams.iter().filter_map(|stream| self.side_paths(stream).ok()).flatten();
        sides.flat_map(|side| side.required().collect::<Vec<_>>()).collect()
    }

    pub(super) fn release(&mut self, now: Instant, paths: Vec<PathKey>) {
        for key in paths {
            self.neighbours.release(now, key);
        }
    }

    /// Writes an admitted plan.
    pub(super) fn install(&mut self, now: Instant, plan: MediaPlan, paths: Vec<PathKey>) {
        self.flush_hops();
        let before = self.calls.remove(&plan.call);
        let mut past = before.as_ref().map_or_else(BTreeMap::new, |before| before.past.clone());
        let mut streams = Vec::with_capacity(plan.streams.len());
        let mut slots = HashSet::new();
        for stream in &plan.streams {
            let old = before.as_ref().and_then(|before| before.stream(stream.mline));
            let pairs = self.pairs(stream);
            let written = [0, 1].map(|at| {
                let old = old.map(|old| &old[at]);
                PairState::write(&self.kernel.flows, &mut self.generation, old, pairs[at])
            });
            for (pair, kind) in written.iter().zip([MediaKind::Rtp, MediaKind::Rtcp]) {
                for (slot, caller_side) in pair.slots().into_iter().zip([true, false]) {
                    let owner =
                        Owner { call: plan.call, mline: stream.mline, kind, caller_side, relayed: false };
                    self.owners.insert(slot, owner);
                    slots.insert(slot);
                }
            }
            streams.push(written);
        }
        if let Some(before) = before {
            for (stream, pairs) in before.plan.streams.iter().zip(&before.streams) {
                let now_has = |at: usize| pairs.each_ref().map(|pair| slots.contains(&pair.slots()[at]));
                let gone = [CALLER, CALLEE].map(|at| now_has(at) != [true; 2]);
                for slot in pairs.iter().flat_map(PairState::slots) {
                    if !slots.contains(&slot) {
                        self.kernel.flows.withdraw(slot);
                        self.owners.remove(&slot);
                    }
                }
                let counted = directions(&self.kernel.flows, pairs);
                let past = past.entry(stream.mline).or_default();
                for at in [CALLER, CALLEE].into_iter().filter(|at| gone[*at]) {
                    past[at] = add(past[at], counted[at]);
                }
            }
            self.release(now, before.paths);
        }
        past.retain(|mline, _| plan.streams.iter().any(|stream| stream.mline == *mline));
        let call = plan.call;
        self.calls.insert(call, Call { plan, streams, paths, past });
    }

    pub(super) fn remove(&mut self, now: Instant, call: CallId) -> Vec<StreamCounters> {
        let Some(gone) = self.calls.remove(&call) else { return Vec::new() };
        for slot in gone.streams.iter().flatten().flat_map(PairState::slots) {
            self.kernel.flows.withdraw(slot);
            self.owners.remove(&slot);
        }
        let counters = gone.counters(&self.kernel.flows);
        self.release(now, gone.paths);
        counters
    }

    /// Writes a call's plan once more, because a way changed.
    pub(super) fn rewrite(&mut self, call: CallId) {
        let Some(streams) = self.calls.get(&call).map(|held| held.plan.streams.clone()) else { return };
        let pairs: Vec<_> = streams.iter().map(|stream| self.pairs(stream)).collect();
        let Some(held) = self.calls.get_mut(&call) else { return };
        for (written, pairs) in held.streams.iter_mut().zip(pairs) {
            for (state, pair) in written.iter_mut().zip(pairs) {
                *state = PairState::write(&self.kernel.flows, &mut self.generation, Some(state), pair);
            }
        }
    }

    /// The pairs of an admitted stream, with the ways as they are now.
    pub(super) fn pairs(&self, stream: &StreamPlan) -> [encode::Pair; 2] {
        let sides = [&stream.caller, &stream.callee];
        let slots = sides.map(|side| self.address_slot(side).unwrap_or(0));
        let hop = |key: Option<PathKey>| match key.map(|key| self.neighbours.state(key)) {
            Some(PathState::Ready(hop)) => Some(hop),
            Some(
                PathState::Waiting
                | PathState::Local
                | PathState::NotServed
                | PathState::Unreachable
                | PathState::Full,
            )
            | None => None,
        };
        let hops = sides.map(|side| {
            let paths = SidePaths::of(side);
            let (rtp, rtcp) = (hop(paths.rtp), hop(paths.rtcp));
            let reaches_peer = paths.signalled.iter().all(|key| hop(Some(*key)) == rtp);
            Hops { rtp, rtcp, reaches_peer }
        });
        encode::pairs(stream, slots, hops)
    }

    /// The slot of a side's address, if its ports are among those that the kernel serves.
    fn address_slot(&self, side: &StreamSide) -> Result<u16, MediaError> {
        let not_ours = MediaError::NotOurs(SocketAddr::new(side.local_ip, side.local_rtp_port));
        let IpAddr::V4(address) = side.local_ip else { return Err(not_ours) };
        let rtcp_port = side.local_rtp_port.checked_add(1);
        match self.addresses.get(&address) {
            Some(served)
                if served.has(side.local_rtp_port) && rtcp_port.is_some_and(|port| served.has(port)) =>
            {
                Ok(served.slot)
            }
            Some(_) | None => Err(not_ours),
        }
    }

    /// The paths of both sides, if the kernel can serve such a stream at all.
    pub(super) fn side_paths(&self, stream: &StreamPlan) -> Result<[SidePaths; 2], MediaError> {
        for side in [&stream.caller, &stream.callee] {
            self.address_slot(side)?;
            let allowed = match side.source {
                SourcePolicy::Learn { allowed, .. } => Some(SocketAddr::new(allowed.addr, 0)),
                SourcePolicy::Signalled => None,
            };
            let peer = side.peer.map(|peer| [peer.rtp, peer.rtcp]);
            let v6 = peer.into_iter().flatten().chain(allowed).find(SocketAddr::is_ipv6);
            if let Some(address) = v6 {
                return Err(MediaError::NoRoute(address));
            }
        }
        Ok([SidePaths::of(&stream.caller), SidePaths::of(&stream.callee)])
    }
}

impl Call {
    pub(super) fn stream(&self, mline: u8) -> Option<&[PairState; 2]> {
        let position = self.plan.streams.iter().position(|stream| stream.mline == mline)?;
        self.streams.get(position)
    }

    pub(super) fn counters(&self, flows: &FlowTable) -> Vec<StreamCounters> {
        self.plan
            .streams
            .iter()
            .zip(&self.streams)
            .map(|(stream, pairs)| {
                let past = self.past.get(&stream.mline).copied().unwrap_or_default();
                let [from_caller, from_callee] = directions(flows, pairs);
                StreamCounters {
                    mline: stream.mline,
                    placement: Some(Placement::Kernel),
                    from_caller: add(past[CALLER], from_caller),
                    from_callee: add(past[CALLEE], from_callee),
                }
            })
            .collect()
    }
}

impl SidePaths {
    fn of(side: &StreamSide) -> Self {
        let path = |peer: IpAddr| match side.local_ip {
            IpAddr::V4(local) => encode::usable(peer).map(|peer| (local, peer)),
            IpAddr::V6(_) => None,
        };
        let peers = side.peer.map(|peer| [path(peer.rtp.ip()), path(peer.rtcp.ip())]);
        match side.source {
            SourcePolicy::Signalled => {
                let [rtp, rtcp] = peers.unwrap_or_default();
                Self { rtp, rtcp, signalled: Vec::new() }
            }
            SourcePolicy::Learn { allowed, .. } => {
                let allowed = path(allowed.addr);
                let signalled = peers.into_iter().flatten().flatten().filter(|key| Some(*key) != allowed);
                Self { rtp: allowed, rtcp: allowed, signalled: signalled.collect() }
            }
        }
    }

    /// Those that must be resolved before the stream goes live.
    fn required(&self) -> impl Iterator<Item = PathKey> + use<> {
        self.rtp.into_iter().chain(self.rtcp)
    }
}

/// What keeps the kernel from using a path, if it is not just a matter of time.
pub(super) fn obstacle((local, peer): PathKey, state: PathState) -> Option<MediaError> {
    let peer = SocketAddr::new(IpAddr::V4(peer), 0);
    match state {
        PathState::Ready(_) | PathState::Waiting => None,
        PathState::Local | PathState::NotServed => {
            Some(MediaError::NotOurs(SocketAddr::new(local.into(), 0)))
        }
        PathState::Unreachable => Some(MediaError::NoRoute(peer)),
        PathState::Full => Some(MediaError::Full("next hops")),
    }
}

/// What a stream's slots counted, from the caller and from the callee.
fn directions(flows: &FlowTable, [rtp, rtcp]: &[PairState; 2]) -> [DirectionCounters; 2] {
    let (rtp, rtcp) = (rtp.counted(flows), rtcp.counted(flows));
    [CALLER, CALLEE].map(|at| DirectionCounters {
        rtp_kernel: rtp[at].packets,
        rtp_relay: 0,
        rtp_bytes: rtp[at].bytes,
        rtcp: rtcp[at].packets,
        lost: rtp[at].lost(),
        ..DirectionCounters::default()
    })
}
