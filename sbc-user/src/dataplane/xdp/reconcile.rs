//! Everything that the kernel should hold of ours, compared with what it holds, and mended.
//!
//! Nothing of this should ever differ: the daemon alone writes it. What an operator did with `bpftool`, a program that was
//! detached by hand, a write that failed: a comparison finds it, says it, and writes what is wanted once more. It changes
//! nothing that is right, so a flow that is as it should be does not notice.

use std::collections::{BTreeMap, HashSet};

use sbc_common::flow::FlowState;
use sbc_core::id::CallId;

use super::addresses;
use super::encode::StreamState;
use super::flows::SlotKey;
use super::load::{Attached, Role};
use super::plans::relay_head;
use super::{Xdp, hop_entry};
use crate::dataplane::Difference;

impl Xdp {
    /// Compares and mends. What differed, and whether it does no more.
    pub fn reconcile(&mut self) -> Vec<Difference> {
        let mut found = Vec::new();
        self.reconcile_links(&mut found);
        self.reconcile_devices(&mut found);
        self.reconcile_addresses(&mut found);
        self.reconcile_hops(&mut found);
        self.reconcile_slots(&mut found);
        found
    }

    /// The program is on every interface that we serve.
    fn reconcile_links(&mut self, found: &mut Vec<Difference>) {
        let present = self.devices();
        let media = self.placed.iter().map(|placed| (&placed.device, Role::Media));
        let media = media.filter(|(device, _)| present.contains(&device.ifindex));
        let guard = self.guarded.iter().filter(|device| self.neighbours.has_link(device.ifindex));
        let guard = guard.map(|device| (device, Role::Guard));
        let devices: BTreeMap<u32, _> =
            guard.chain(media).map(|(device, role)| (device.ifindex, (device.clone(), role))).collect();
        for (device, role) in devices.into_values() {
            match self.kernel.runs_on(self.neighbours.netlink(), &device) {
                Ok(true) => {}
                Ok(false) => {
                    let attached = self.kernel.attach(self.neighbours.netlink(), &device, role);
                    let mended = matches!(attached, Ok(Attached::Native));
                    if let Err(error) = attached {
                        tracing::error!(interface = device.name, "cannot attach again: {error}");
                    }
                    found.push(difference("link", &device.name, "our program is not attached", mended));
                }
                Err(error) => {
                    found.push(difference("link", &device.name, &format!("cannot be asked: {error}"), false));
                }
            }
        }
    }

    /// Packets may leave by the interfaces that we serve and no others.
    fn reconcile_devices(&mut self, found: &mut Vec<Difference>) {
        let wanted = self.devices();
        let held: HashSet<u32> = self.kernel.devices.keys().flatten().collect();
        if held == wanted {
            return;
        }
        let mended = self.kernel.set_devices(&wanted).is_ok();
        for ifindex in held.symmetric_difference(&wanted) {
            let what = if wanted.contains(ifindex) { "is missing" } else { "is not ours" };
            found.push(difference("device", &format!("interface {ifindex}"), what, mended));
        }
    }

    fn reconcile_addresses(&mut self, found: &mut Vec<Difference>) {
        for mended in addresses::reconcile(&mut self.kernel, &self.placed, &self.addresses) {
            let subject = mended.as_ref().map_or_else(ToString::to_string, ToString::to_string);
            found.push(difference("address", &subject, "is not as it was written", mended.is_ok()));
        }
        for slot in self.gaps() {
            if self.kernel.flows.head(slot).state != FlowState::Relay {
                self.kernel.flows.publish(slot, addresses::PASSING);
                let subject = format!("port {}", slot.index.port());
                found.push(difference("slot", &subject, "does not pass to others", true));
            }
        }
    }

    fn reconcile_hops(&mut self, found: &mut Vec<Difference>) {
        for (hop, entry) in self.neighbours.written() {
            let wanted = hop_entry(Some(entry));
            let index = u32::from(hop.0);
            if self.kernel.next_hops.get(&index, 0).is_ok_and(|held| held == wanted) {
                continue;
            }
            let mended = self.kernel.next_hops.set(index, wanted, 0).is_ok();
            found.push(difference("next hop", &index.to_string(), "is another one", mended));
        }
    }

    fn reconcile_slots(&mut self, found: &mut Vec<Difference>) {
        let calls: Vec<CallId> = self.calls.keys().copied().collect();
        for call in calls {
            let before = self.written(call);
            // What is right is written as it is, and no packet notices.
            self.rewrite(call);
            for ((slot, before), (_, after)) in before.into_iter().zip(self.written(call)) {
                if before != after {
                    let subject = format!("{call}, port {}", slot.index.port());
                    found.push(difference("slot", &subject, "is not as it was written", true));
                }
            }
        }
        for (slot, owner) in self.owners.iter().filter(|(_, owner)| owner.relayed) {
            let head = self.kernel.flows.head(*slot);
            if head.state != FlowState::Relay {
                self.kernel.flows.publish(*slot, relay_head(owner.kind, head.generation));
                let subject = format!("{}, port {}", owner.call, slot.index.port());
                found.push(difference("slot", &subject, "does not pass to the relay", true));
            }
        }
        let strangers = self.withdraw_strays();
        if strangers > 0 {
            found.push(difference("slot", &format!("{strangers} slots"), "belong to no call", true));
        }
    }

    /// The daemon's words of a call's slots.
    fn written(&self, call: CallId) -> Vec<(SlotKey, Vec<u64>)> {
        let streams = self.calls.get(&call).into_iter().flat_map(|call| &call.streams);
        let slots = streams.flat_map(StreamState::all_slots);
        slots.map(|slot| (slot, self.kernel.flows.written(slot))).collect()
    }
}

fn difference(object: &'static str, subject: &str, found: &str, mended: bool) -> Difference {
    Difference { object, subject: subject.to_owned(), found: found.to_owned(), mended }
}
