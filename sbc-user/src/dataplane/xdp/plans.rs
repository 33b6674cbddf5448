//! Plans in the kernel: whose each slot is, which ways a plan uses, and what was counted for it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::time::Instant;

use sbc_common::flow::{FlowHead, FlowState, MediaKind, SlotIndex};
use sbc_core::id::CallId;
use sbc_core::media::command::{DirectionCounters, MediaError, StreamCounters};
use sbc_core::media::plan::{MediaPlan, Placement, StreamPlan, StreamSide};

use super::Xdp;
use super::encode::{self, Accept, CALLEE, CALLER, RTCP, RTP, StreamState};
use super::flows::{Family, Flows, SlotKey};
use super::neighbours::{PathKey, PathState};
use crate::dataplane::counters::add;
use crate::dataplane::relay_reason::Objection;

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
    /// In the plan's order.
    pub(super) streams: Vec<StreamState>,
    pub(super) paths: Vec<PathKey>,
    /// The ways to sources that claimed where many addresses could, by m-line, side and kind.
    pub(super) claimed: BTreeMap<(u8, usize, usize), PathKey>,
    /// Counted on slots that the call no longer has, by m-line.
    pub(super) past: BTreeMap<u8, [DirectionCounters; 2]>,
}

impl Xdp {
    /// Why the kernel cannot carry a stream of a call, as far as is known without waiting.
    pub(crate) fn objection(&mut self, now: Instant, call: CallId, stream: &StreamPlan) -> Option<Objection> {
        let ways = match self.ways(call, stream) {
            Err(objection) => return Some(objection),
            Ok(ways) => ways,
        };
        let paths: Vec<PathKey> = ways.iter().flat_map(|side| side.paths()).collect();
        for key in &paths {
            self.neighbours.acquire(*key);
        }
        let objection = self.obstacle(stream, &ways);
        self.release(now, paths);
        objection
    }

    /// Lets every packet of these streams' ports pass to the relay, and no longer those of streams named before.
    pub fn relay_streams(&mut self, call: CallId, streams: &[StreamPlan]) {
        let mut wanted = Vec::new();
        for stream in streams {
            for (side, caller_side) in [(&stream.caller, true), (&stream.callee, false)] {
                let Ok(slots) = self.slots(side) else { continue };
                for (slot, kind) in slots.into_iter().zip([MediaKind::Rtp, MediaKind::Rtcp]) {
                    wanted
                        .push((slot, Owner { call, mline: stream.mline, kind, caller_side, relayed: true }));
                }
            }
        }
        for slot in self.relayed.remove(&call).unwrap_or_default() {
            let still = self.owners.get(&slot).is_some_and(|owner| owner.call == call && owner.relayed);
            if still && !wanted.iter().any(|(wanted, _)| *wanted == slot) {
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
            let generation = self.kernel.flows.head(slot).generation;
            self.kernel.flows.publish(slot, relay_head(owner.kind, generation));
        }
    }

    /// Whether the plan's slots are ours, and free or this call's.
    pub(super) fn check_slots(&self, plan: &MediaPlan) -> Result<(), MediaError> {
        let mut slots = HashSet::new();
        for side in plan.streams.iter().flat_map(|stream| [&stream.caller, &stream.callee]) {
            for slot in self.slots(side)? {
                let taken = self.owners.get(&slot).is_some_and(|owner| owner.call != plan.call);
                if taken || !slots.insert(slot) {
                    return Err(MediaError::PortInUse(SocketAddr::new(side.local_ip, slot.index.port())));
                }
            }
        }
        Ok(())
    }

    /// Whether the plan can be carried as far as is known now; acquires its paths.
    pub(super) fn admit(&mut self, now: Instant, plan: &MediaPlan) -> Result<Vec<PathKey>, MediaError> {
        self.check_slots(plan)?;
        let ways = plan.streams.iter().map(|stream| self.ways(plan.call, stream));
        let ways = ways.collect::<Result<Vec<_>, _>>().map_err(|objection| objection.error)?;
        let paths: Vec<PathKey> = ways.iter().flatten().flat_map(|side| side.paths()).collect();
        for key in &paths {
            self.neighbours.acquire(*key);
        }
        if let Some(objection) =
            plan.streams.iter().zip(&ways).find_map(|(stream, ways)| self.obstacle(stream, ways))
        {
            self.release(now, paths);
            return Err(objection.error);
        }
        Ok(paths)
    }

    pub(super) fn release(&mut self, now: Instant, paths: impl IntoIterator<Item = PathKey>) {
        for key in paths {
            self.neighbours.release(now, key);
        }
    }

    /// Writes an admitted plan.
    pub(super) fn install(&mut self, now: Instant, plan: MediaPlan, paths: Vec<PathKey>) {
        self.flush_hops();
        let before = self.calls.remove(&plan.call);
        let (mut past, claimed) = before
            .as_ref()
            .map_or_else(Default::default, |before| (before.past.clone(), before.claimed.clone()));
        let mut streams = Vec::with_capacity(plan.streams.len());
        let mut slots = HashSet::new();
        for stream in &plan.streams {
            let old = before.as_ref().and_then(|before| before.stream(stream.mline));
            let sides = self.sides(plan.call, stream, &claimed);
            let written = StreamState::write(&self.kernel.flows, &mut self.generation, old, sides);
            for (at, caller_side) in [(CALLER, true), (CALLEE, false)] {
                for (slot, kind) in written.slots(at).into_iter().zip([MediaKind::Rtp, MediaKind::Rtcp]) {
                    let owner =
                        Owner { call: plan.call, mline: stream.mline, kind, caller_side, relayed: false };
                    self.owners.insert(slot, owner);
                    slots.insert(slot);
                }
            }
            streams.push(written);
        }
        if let Some(before) = before {
            for (stream, state) in before.plan.streams.iter().zip(&before.streams) {
                let counted = directions(&self.kernel.flows, state);
                for at in [CALLER, CALLEE] {
                    let gone: Vec<SlotKey> =
                        state.slots(at).into_iter().filter(|slot| !slots.contains(slot)).collect();
                    if !gone.is_empty() {
                        let past = past.entry(stream.mline).or_default();
                        past[at] = add(past[at], counted[at]);
                    }
                    for slot in gone {
                        self.kernel.flows.withdraw(slot);
                        self.owners.remove(&slot);
                    }
                }
            }
            self.release(now, before.paths);
        }
        past.retain(|mline, _| plan.streams.iter().any(|stream| stream.mline == *mline));
        let call = plan.call;
        self.calls.insert(call, Call { plan, streams, paths, claimed, past });
        self.follow_claims(now, call);
    }

    pub(super) fn remove(&mut self, now: Instant, call: CallId) -> Vec<StreamCounters> {
        let Some(gone) = self.calls.remove(&call) else { return Vec::new() };
        for slot in gone.streams.iter().flat_map(StreamState::all_slots) {
            self.kernel.flows.withdraw(slot);
            self.owners.remove(&slot);
        }
        let counters = gone.counters(&self.kernel.flows);
        self.release(now, gone.paths);
        self.release(now, gone.claimed.into_values());
        counters
    }

    /// Writes a call's plan once more, because a way changed.
    pub(super) fn rewrite(&mut self, call: CallId) {
        let Some(held) = self.calls.get(&call) else { return };
        let sides: Vec<_> =
            held.plan.streams.iter().map(|stream| self.sides(call, stream, &held.claimed)).collect();
        let Some(held) = self.calls.get_mut(&call) else { return };
        for (state, sides) in held.streams.iter_mut().zip(sides) {
            *state = StreamState::write(&self.kernel.flows, &mut self.generation, Some(state), sides);
        }
    }

    /// Sends packets to those who claimed the way that leads there, where not one address alone could claim. Reads the
    /// slots, so it is correct to repeat, and to call without having heard of a claim.
    pub(super) fn follow_claims(&mut self, now: Instant, call: CallId) {
        let Some(held) = self.calls.get(&call) else { return };
        let claimed = held.claims(&self.kernel.flows);
        if claimed == held.claimed {
            return;
        }
        for key in claimed.values() {
            self.neighbours.acquire(*key);
        }
        if claimed.values().any(|key| self.neighbours.state(*key) == PathState::Waiting) {
            self.unsettled.insert(call);
        }
        if let Some(held) = self.calls.get_mut(&call) {
            let before = std::mem::replace(&mut held.claimed, claimed);
            self.release(now, before.into_values());
        }
        self.flush_hops();
        self.rewrite(call);
    }

    /// Writes the calls anew whose ways to who claimed are known by now.
    pub(super) fn settle_claims(&mut self) {
        let waits = |call: &CallId| {
            let claimed = self.calls.get(call).into_iter().flat_map(|held| held.claimed.values());
            claimed.into_iter().any(|key| self.neighbours.state(*key) == PathState::Waiting)
        };
        let (waiting, settled): (BTreeSet<CallId>, _) = self.unsettled.iter().partition(|call| waits(call));
        self.unsettled = waiting;
        for call in settled {
            self.rewrite(call);
        }
    }

    /// The sides of an admitted stream, with the ways as they are now.
    pub(super) fn sides(
        &self,
        call: CallId,
        stream: &StreamPlan,
        claimed: &BTreeMap<(u8, usize, usize), PathKey>,
    ) -> [encode::Side; 2] {
        let slots = [&stream.caller, &stream.callee].map(|side| self.address_slot(side).unwrap_or(0));
        let claimed = |at, kind| claimed.get(&(stream.mline, at, kind)).copied();
        let toward = self
            .ways(call, stream)
            .map_or([[encode::Toward::NONE; 2]; 2], |ways| self.toward(&ways, claimed));
        encode::sides(stream, slots, toward)
    }

    /// The slot of a side's address, if its ports are among those that the kernel serves.
    pub(super) fn address_slot(&self, side: &StreamSide) -> Result<u16, MediaError> {
        let rtcp_port = side.local_rtp_port.checked_add(1);
        match self.addresses.get(&side.local_ip) {
            Some(served)
                if served.has(side.local_rtp_port) && rtcp_port.is_some_and(|port| served.has(port)) =>
            {
                Ok(served.slot)
            }
            Some(_) | None => Err(MediaError::NotOurs(SocketAddr::new(side.local_ip, side.local_rtp_port))),
        }
    }

    /// The slots of a side's two ports, if the kernel serves them.
    fn slots(&self, side: &StreamSide) -> Result<[SlotKey; 2], MediaError> {
        let address_slot = self.address_slot(side)?;
        let family = Family::of(side.local_ip);
        let slot = |port| SlotKey { family, index: SlotIndex::new(address_slot, port) };
        Ok([slot(side.local_rtp_port), slot(side.local_rtp_port + 1)])
    }
}

/// The head of a slot whose packets pass to the relay.
pub(super) fn relay_head(kind: MediaKind, generation: u16) -> FlowHead {
    FlowHead { state: FlowState::Relay, kind: kind.into(), generation, ..FlowHead::default() }
}

impl Call {
    pub(super) fn stream(&self, mline: u8) -> Option<&StreamState> {
        let position = self.plan.streams.iter().position(|stream| stream.mline == mline)?;
        self.streams.get(position)
    }

    /// Whether packets of the call go a way.
    pub(super) fn uses(&self, moved: &HashSet<PathKey>) -> bool {
        self.paths.iter().chain(self.claimed.values()).any(|key| moved.contains(key))
    }

    /// The ways to sources that claimed where many addresses could.
    pub(super) fn claims(&self, flows: &Flows) -> BTreeMap<(u8, usize, usize), PathKey> {
        let mut claims = BTreeMap::new();
        for (stream, state) in self.plan.streams.iter().zip(&self.streams) {
            for (at, side) in [(CALLER, &stream.caller), (CALLEE, &stream.callee)] {
                for kind in [RTP, RTCP] {
                    let Accept::Claim(allowed, _) = state.accepts(at, kind) else { continue };
                    let width = if side.local_ip.is_ipv4() { 32 } else { 128 };
                    // Both kinds of what shares a port go where its claim came from.
                    let port = if side.rtcp_mux { RTP } else { kind };
                    if allowed.len < width
                        && let Some(source) = state.learned(flows, at, port)
                    {
                        claims.insert((stream.mline, at, kind), (side.local_ip, source.ip()));
                    }
                }
            }
        }
        claims
    }

    pub(super) fn counters(&self, flows: &Flows) -> Vec<StreamCounters> {
        self.plan
            .streams
            .iter()
            .zip(&self.streams)
            .map(|(stream, state)| {
                let past = self.past.get(&stream.mline).copied().unwrap_or_default();
                let [from_caller, from_callee] = directions(flows, state);
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

/// What a stream's slots counted, from the caller and from the callee.
fn directions(flows: &Flows, state: &StreamState) -> [DirectionCounters; 2] {
    [CALLER, CALLEE].map(|at| {
        let [rtp, rtcp] = state.counted(flows, at);
        DirectionCounters {
            rtp_kernel: rtp.packets,
            rtp_relay: 0,
            rtp_bytes: rtp.bytes,
            rtcp: rtcp.packets,
            lost: rtp.lost(),
            out_of_order: rtp.out_of_order.into(),
            jitter_us: rtp.jitter_us(state.clock_rate_hz(at)),
            payload_type_changes: rtp.payload_type_changes.into(),
            source_changes: rtp.source_changes.into(),
            over_rate: u64::from(rtp.over_rate) + u64::from(rtcp.over_rate),
        }
    })
}
