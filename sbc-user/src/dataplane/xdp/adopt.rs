//! Plans of a daemon before: taken over where the kernel still forwards them, and everything else withdrawn.
//!
//! Taking over a plan writes no slot. The slots are found where the plan says, with the generation that the store says;
//! the ways get the numbers in `NEXT_HOPS` that the slots already name. A way that has changed meanwhile keeps its old
//! entry until the new one is resolved. When all plans are there, each is written once more with the ways of today, which
//! changes what leaves only where a way has changed.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use sbc_common::flow::{FlowHead, MediaKind, SlotIndex, Way};
use sbc_core::id::CallId;
use sbc_core::media::plan::{MediaPlan, StreamPlan};

use super::Xdp;
use super::encode::{CALLEE, CALLER, RTCP, RTP, StreamState};
use super::flows::{Family, SlotKey};
use super::neighbours::{HopId, PathKey};
use super::plans::{Call, Owner};
use crate::dataplane::KernelPair;

impl Xdp {
    /// Sees to it that no hop that a live slot names is given to another way. To be called before any plan is taken over
    /// or installed.
    pub(super) fn keep_hops(&mut self) {
        let flows = &self.kernel.flows;
        let named: HashSet<HopId> = flows.live().filter_map(|slot| named_hop(flows.head(slot))).collect();
        self.neighbours.reserve(&named);
    }

    /// Takes a plan over, if the kernel still forwards all of it as it was left.
    pub fn adopt(&mut self, plan: &MediaPlan, left: &[(u8, [KernelPair; 2])]) -> bool {
        if self.check_slots(plan).is_err() {
            return false;
        }
        let Some(streams) = self.find(plan, left) else { return false };
        let mut paths = Vec::new();
        for (stream, state) in plan.streams.iter().zip(&streams) {
            let Ok(sides) = self.ways(plan.call, stream) else { return false };
            for (at, side) in sides.iter().enumerate() {
                for kind in [RTP, RTCP] {
                    // Named by the slot of the other side.
                    let hop = named_hop(self.kernel.flows.head(state.slots(1 - at)[kind]));
                    let [way, signalled] = side.paths_of(kind);
                    if let Some(key) = way {
                        self.adopt_path(key, hop);
                    }
                    if let Some(key) = signalled {
                        self.neighbours.acquire(key);
                    }
                    paths.extend(way.into_iter().chain(signalled));
                }
            }
        }
        for (stream, state) in plan.streams.iter().zip(&streams) {
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
        let call =
            Call { plan: plan.clone(), streams, paths, claimed: BTreeMap::new(), past: BTreeMap::new() };
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
        self.flush_hops();
        let calls: Vec<CallId> = self.calls.keys().copied().collect();
        for call in calls {
            self.follow_claims(now, call);
            self.rewrite(call);
        }
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
            Some((hop, entry)) => self.neighbours.adopt(key, hop, entry.ifindex, entry.destination_mac),
            None => {
                self.neighbours.acquire(key);
            }
        }
    }
}

/// The next hop that a slot names.
fn named_hop(head: FlowHead) -> Option<HopId> {
    (head.next_hop != 0 && head.way != Way::Local).then_some(HopId(head.next_hop))
}
