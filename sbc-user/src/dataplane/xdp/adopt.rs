//! Plans of a daemon before: taken over where the kernel still forwards them, and everything else withdrawn.
//!
//! Taking over a plan writes no slot. The slots are found where the plan says, with the generation that the store says;
//! the ways get the numbers in `NEXT_HOPS` that the slots already name. A way that has changed meanwhile keeps its old
//! entry until the new one is resolved. When all plans are there, each is written once more with the ways of today, which
//! changes what leaves only where a way has changed.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use sbc_common::flow::{FlowHead, MediaKind, SlotIndex, Way};
use sbc_common::next_hop::NextHop;
use sbc_core::id::CallId;
use sbc_core::media::plan::{MediaPlan, StreamPlan};

use super::Xdp;
use super::encode::{CALLEE, CALLER, RTCP, RTP, StreamState};
use super::flows::{Family, SlotKey};
use super::neighbours::{HopEntry, HopId, PathKey};
use super::plans::{Call, Owner};
use super::vlan::Tags;
use crate::dataplane::KernelPair;

impl Xdp {
    /// Sees to it that no hop that a live slot names is given to another way. To be called before any plan is taken over
    /// or installed.
    pub(super) fn keep_hops(&mut self) {
        let named = self.named_hops();
        self.neighbours.reserve(&named);
    }

    /// The hops that live slots name.
    fn named_hops(&self) -> HashSet<HopId> {
        let flows = &self.kernel.flows;
        flows.live().filter_map(|slot| named_hop(flows.head(slot))).collect()
    }

    /// Takes a plan over, if the kernel still forwards all of it as it was left.
    pub fn adopt(&mut self, plan: &MediaPlan, left: &[(u8, [KernelPair; 2])]) -> bool {
        if self.check_slots(plan).is_err() {
            return false;
        }
        let Some(streams) = self.find(plan, left) else { return false };
        let ways = plan.streams.iter().map(|stream| self.ways(plan.call, stream));
        let Ok(ways) = ways.collect::<Result<Vec<_>, _>>() else { return false };
        let mut call = Call {
            plan: plan.clone(),
            streams,
            paths: Vec::new(),
            claimed: BTreeMap::new(),
            past: BTreeMap::new(),
        };
        call.claimed = call.claims(&self.kernel.flows);
        for ((stream, state), sides) in plan.streams.iter().zip(&call.streams).zip(&ways) {
            for (at, side) in sides.iter().enumerate() {
                for kind in [RTP, RTCP] {
                    // Named by the slot of the other side, for whoever claimed if somebody did.
                    let hop = named_hop(self.kernel.flows.head(state.slots(1 - at)[kind]));
                    let claimed = call.claimed.get(&(stream.mline, at, kind)).copied();
                    let [way, signalled] = side.paths_of(kind);
                    if let Some(key) = claimed.or(way) {
                        self.adopt_path(key, hop);
                    }
                    for key in claimed.and(way).into_iter().chain(signalled) {
                        self.neighbours.acquire(key);
                    }
                    call.paths.extend(way.into_iter().chain(signalled));
                }
            }
        }
        if !call.claimed.is_empty() {
            self.unsettled.insert(plan.call);
        }
        for (stream, state) in plan.streams.iter().zip(&call.streams) {
            for (at, caller_side) in [(CALLER, true), (CALLEE, false)] {
                for (slot, kind) in state.slots(at).into_iter().zip([MediaKind::Rtp, MediaKind::Rtcp]) {
                    let (call, mline) = (plan.call, stream.mline);
                    self.owners.insert(slot, Owner { call, mline, kind, caller_side, relayed: false });
                }
            }
            if state.generation().number() > self.generation.number() {
                self.generation = state.generation();
            }
        }
        self.calls.insert(plan.call, call);
        true
    }

    /// What the next daemon must know of a call's slots.
    pub fn left(&self, call: CallId) -> Vec<(u8, [KernelPair; 2])> {
        let Some(call) = self.calls.get(&call) else { return Vec::new() };
        let pairs = call.streams.iter().map(StreamState::checkpoint);
        call.plan.streams.iter().map(|stream| stream.mline).zip(pairs).collect()
    }

    /// Ends the taking over: withdraws every flow that is nobody's, and says how many there were; writes those that are
    /// somebody's with the ways of today, which for calls into each other's ports are known only when all are there.
    pub(crate) fn withdraw_strangers(&mut self, now: Instant) -> u32 {
        let withdrawn = self.withdraw_strays();
        self.neighbours.settle(now);
        self.flush_hops();
        let calls: Vec<CallId> = self.calls.keys().copied().collect();
        for call in calls {
            self.follow_claims(now, call);
            self.rewrite(call);
        }
        let named = self.named_hops();
        self.neighbours.free_reserved(&named);
        self.flush_hops();
        withdrawn
    }

    /// Withdraws every flow that is nobody's; how many there were.
    pub(super) fn withdraw_strays(&self) -> u32 {
        let gaps: HashSet<SlotKey> = self.gaps().collect();
        let owners = &self.owners;
        self.kernel.flows.withdraw_but(|slot| owners.contains_key(&slot) || gaps.contains(&slot))
    }

    /// The ports between our ranges, which are others'.
    pub(super) fn gaps(&self) -> impl Iterator<Item = SlotKey> {
        self.addresses.iter().flat_map(|(address, served)| {
            let family = Family::of(*address);
            let slot = move |port| SlotKey { family, index: SlotIndex::new(served.slot, port) };
            served.gaps().map(slot)
        })
    }

    /// The streams of a plan in the kernel.
    fn find(&self, plan: &MediaPlan, left: &[(u8, [KernelPair; 2])]) -> Option<Vec<StreamState>> {
        let of = |stream: &StreamPlan| {
            let (_, left) = left.iter().find(|(mline, _)| *mline == stream.mline)?;
            let sides = self.sides(plan.call, stream, &BTreeMap::new());
            StreamState::left(&self.kernel.flows, sides, left)
        };
        plan.streams.iter().map(of).collect()
    }

    fn adopt_path(&mut self, key: PathKey, hop: Option<HopId>) {
        let entry = hop.and_then(|hop| Some((hop, self.kernel.next_hops.get(&u32::from(hop.0), 0).ok()?)));
        match entry.filter(|(_, entry)| entry.ifindex != 0) {
            Some((hop, entry)) => self.neighbours.adopt(key, hop, held_entry(&entry)),
            None => {
                self.neighbours.acquire(key);
            }
        }
    }
}

/// A hop as the kernel holds it.
fn held_entry(hop: &NextHop) -> HopEntry {
    HopEntry {
        ifindex: hop.ifindex,
        source_mac: hop.source_mac,
        destination_mac: hop.destination_mac,
        tags: Tags { outer: hop.outer_vlan, inner: hop.vlan, tag_type: hop.tag_type },
        mtu: hop.mtu.into(),
    }
}

/// The next hop that a slot names.
fn named_hop(head: FlowHead) -> Option<HopId> {
    (head.next_hop != 0 && head.way != Way::Local).then_some(HopId(head.next_hop))
}
