//! Plans of a daemon before: taken over where the kernel still forwards them, and everything else withdrawn.
//!
//! Taking over changes nothing that a packet could notice. The slots are found where the plan says, with the generation
//! that the store says; the ways get the numbers in `NEXT_HOPS` that the slots already name, so that what is written once
//! more is what was there. A way that has changed meanwhile keeps its old entry until the new one is resolved.

use std::collections::{BTreeMap, HashSet};

use sbc_common::flow::{MediaKind, SlotIndex};
use sbc_core::id::CallId;
use sbc_core::media::plan::{MediaPlan, StreamPlan};

use super::Xdp;
use super::encode::{CALLEE, CALLER, PairState};
use super::neighbours::{HopId, PathKey};
use super::plans::{Call, Owner};
use crate::dataplane::KernelPair;

impl Xdp {
    /// Sees to it that no hop that a live slot names is given to another way. To be called before any plan is taken over
    /// or installed.
    pub(super) fn keep_hops(&mut self) {
        let mut named = HashSet::new();
        for slot in self.kernel.flows.live() {
            named.insert(HopId(self.kernel.flows.read(slot).head.next_hop));
        }
        self.neighbours.reserve(&named);
    }

    /// Takes a plan over, if the kernel still forwards all of it as it was left.
    pub fn adopt(&mut self, plan: &MediaPlan, left: &[(u8, [KernelPair; 2])]) -> bool {
        if self.check_slots(plan).is_err() {
            return false;
        }
        let Some(streams) = self.find(plan, left) else { return false };
        let mut paths = Vec::new();
        for (stream, pairs) in plan.streams.iter().zip(&streams) {
            let Ok(sides) = self.side_paths(stream) else { return false };
            let hops = self.named_hops(pairs);
            for (at, side) in sides.iter().enumerate() {
                for (key, hop) in [side.rtp, side.rtcp].into_iter().zip(hops[at]) {
                    let Some(key) = key else { continue };
                    self.adopt_path(key, hop);
                    paths.push(key);
                }
                for key in &side.signalled {
                    self.neighbours.acquire(*key);
                    paths.push(*key);
                }
            }
        }
        for (stream, pairs) in plan.streams.iter().zip(&streams) {
            for (pair, kind) in pairs.iter().zip([MediaKind::Rtp, MediaKind::Rtcp]) {
                for (slot, caller_side) in pair.slots().into_iter().zip([true, false]) {
                    let (call, mline) = (plan.call, stream.mline);
                    self.owners.insert(slot, Owner { call, mline, kind, caller_side, relayed: false });
                }
                if pair.generation().number() > self.generation.number() {
                    self.generation = pair.generation();
                }
            }
        }
        let call = Call { plan: plan.clone(), streams, paths, past: BTreeMap::new() };
        self.calls.insert(plan.call, call);
        self.flush_hops();
        self.rewrite(plan.call);
        true
    }

    /// What the next daemon must know of a call's slots.
    pub fn left(&self, call: CallId) -> Vec<(u8, [KernelPair; 2])> {
        let Some(call) = self.calls.get(&call) else { return Vec::new() };
        let pairs = call.streams.iter().map(|pairs| pairs.each_ref().map(PairState::checkpoint));
        call.plan.streams.iter().map(|stream| stream.mline).zip(pairs).collect()
    }

    /// Withdraws every flow that is nobody's; says how many there were.
    pub(crate) fn withdraw_strangers(&mut self) -> u32 {
        let gaps: HashSet<SlotIndex> = self
            .addresses
            .values()
            .flat_map(|served| served.gaps().map(|port| SlotIndex::new(served.slot, port)))
            .collect();
        let owners = &self.owners;
        let stays = |slot: SlotIndex| owners.contains_key(&slot) || gaps.contains(&slot);
        // No plan has a slot for IPv6.
        self.kernel.flows.withdraw_but(stays) + self.kernel.flows6.withdraw_all()
    }

    /// The pairs of a plan in the kernel.
    fn find(&self, plan: &MediaPlan, left: &[(u8, [KernelPair; 2])]) -> Option<Vec<[PairState; 2]>> {
        let of = |stream: &StreamPlan| {
            let (_, left) = left.iter().find(|(mline, _)| *mline == stream.mline)?;
            let [rtp, rtcp] = self.pairs(stream);
            let flows = &self.kernel.flows;
            Some([PairState::left(flows, rtp, &left[0])?, PairState::left(flows, rtcp, &left[1])?])
        };
        plan.streams.iter().map(of).collect()
    }

    /// The hops that the slots name: towards the caller and towards the callee, of RTP and of RTCP.
    fn named_hops(&self, pairs: &[PairState; 2]) -> [[HopId; 2]; 2] {
        [CALLER, CALLEE].map(|at| {
            pairs.each_ref().map(|pair| HopId(self.kernel.flows.read(pair.slots()[1 - at]).head.next_hop))
        })
    }

    fn adopt_path(&mut self, key: PathKey, hop: HopId) {
        let entry = self.kernel.next_hops.get(&u32::from(hop.0), 0).ok();
        let known = entry.filter(|entry| hop != HopId(0) && entry.ifindex != 0);
        match known {
            Some(entry) => self.neighbours.adopt(key, hop, entry.ifindex, entry.destination_mac),
            None => {
                self.neighbours.acquire(key);
            }
        }
    }
}
