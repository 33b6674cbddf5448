//! Media forwarded by the XDP program: the kernel's maps as a [`Dataplane`].
//!
//! An `Install` is asked first and written then: the slots must be ours and free, and every way must have a resolved
//! next hop. A next hop that is not resolved is waited for, [`NEXT_HOP_WAIT`] at most. After that writing cannot
//! fail, so there is nothing to undo.

mod addresses;
mod adopt;
mod claims;
mod encode;
mod error;
mod events;
mod flows;
mod follow;
mod guard;
pub(crate) mod inspect;
mod load;
mod mapping;
mod neighbours;
mod netdev;
mod netlink;
mod object;
mod pins;
mod plans;
mod prime;
mod reconcile;
mod selftest;
mod start;
mod stats;
mod steer;
mod trace;
mod vlan;
mod ways;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sbc_common::counter::Counter;
use sbc_common::event::Event;
use sbc_common::flow::{Generation, MediaKind};
use sbc_common::next_hop::NextHop;
use sbc_core::guard::{Denial, GuardCommand, Source};
use sbc_core::id::{CallId, OpId};
use sbc_core::media::command::{
    MediaCommand, MediaDone, MediaError, MediaEvent, MediaResult, StreamCounters,
};
use sbc_core::media::plan::{MediaPlan, Placement};

pub use addresses::MediaBind;
pub use error::StartError;
pub use object::{OBJECT, is_embedded};
pub(crate) use pins::{check_instance, has_pins, remove_pins};
pub use start::AddressReport;
pub use stats::Outcome;
pub(crate) use steer::Steering;
pub use trace::{TraceLog, prepare as prepare_trace};

use super::{Dataplane, DataplaneEvent, Difference};
use crate::trace::{TraceOrder, TraceView};
use addresses::{Placed, Served};
use flows::{Family, SlotKey};
use load::Kernel;
use neighbours::{HopEntry, Neighbours, PathKey, PathState};
use netlink::Link;
use plans::{Call, Owner};
use selftest::ChecksumWatch;
use trace::Tracer;
use ways::obstacle;

/// How long an `Install` waits for a next hop: a neighbour that lives answers in a fraction of it, and a call can
/// wait as long without anybody noticing.
pub const NEXT_HOP_WAIT: Duration = Duration::from_millis(250);

/// See the module.
pub struct Xdp {
    kernel: Kernel,
    neighbours: Neighbours,
    /// Our addresses that the kernel serves, and their slots.
    addresses: HashMap<IpAddr, Served>,
    /// Where those addresses are, or were last.
    placed: Vec<Placed>,
    /// Interfaces without media of ours, on which the guard stands.
    guarded: Vec<Link>,
    /// The media addresses of the configuration.
    binds: Vec<MediaBind>,
    /// The addresses where we listen for SIP.
    sip: Vec<IpAddr>,
    /// How often an interface was tried that does not take the program.
    attempts: HashMap<u32, u32>,
    interfaces: Vec<String>,
    calls: HashMap<CallId, Call>,
    /// Whose each slot is that is not Idle.
    owners: HashMap<SlotKey, Owner>,
    /// The slots of each call that the relay serves.
    relayed: HashMap<CallId, Vec<SlotKey>>,
    generation: Generation,
    waiting: BTreeMap<CallId, Waiting>,
    /// Calls of which a port was claimed from where the way is not known yet.
    unsettled: BTreeSet<CallId>,
    events: VecDeque<DataplaneEvent>,
    /// When more reports may wait than were taken at once. The ring tells of new ones only when it is empty.
    more_reports: Option<Instant>,
    checksums: ChecksumWatch,
    tracer: Tracer,
    /// Something could not be written: everything is to be compared.
    doubt: bool,
}

/// A command that waits for next hops, and those of the same call behind it.
struct Waiting {
    op: OpId,
    plan: MediaPlan,
    paths: Vec<PathKey>,
    until: Instant,
    behind: VecDeque<(OpId, MediaCommand)>,
}

impl Xdp {
    /// Descriptors that become readable when `handle_timeout` has work.
    #[must_use]
    pub fn poll_fds(&self) -> Vec<RawFd> {
        vec![self.neighbours.changes_fd(), self.kernel.events.as_raw_fd(), self.kernel.reports.as_raw_fd()]
    }

    /// How often packets had which outcome, by the outcome's number.
    #[must_use]
    pub fn outcomes(&self) -> Vec<Outcome> {
        stats::outcomes(&self.kernel.counters)
    }

    /// Where the instance's pins are.
    #[must_use]
    pub fn pin_directory(&self) -> &std::path::Path {
        self.kernel.pins().path()
    }

    /// The interfaces whose drivers run the program.
    #[must_use]
    pub fn interfaces(&self) -> &[String] {
        &self.interfaces
    }

    /// Lets go of the kernel: flows withdrawn, program detached, pins removed.
    pub fn stop(mut self) -> std::io::Result<()> {
        self.neighbours.stop();
        self.kernel.remove()
    }

    /// Begins a command of a call that has none under way.
    fn begin(&mut self, now: Instant, op: OpId, command: MediaCommand) {
        match command {
            MediaCommand::Install(plan) => match self.admit(now, &plan) {
                Err(error) => self.answer(op, Err(error)),
                Ok(paths) => {
                    let call = plan.call;
                    let waiting =
                        Waiting { op, plan, paths, until: now + NEXT_HOP_WAIT, behind: VecDeque::new() };
                    self.waiting.insert(call, waiting);
                    self.try_waiting(now, call);
                }
            },
            MediaCommand::Remove(call) => {
                let counters = self.remove(now, call);
                self.answer(op, Ok(MediaDone { placements: Vec::new(), counters }));
            }
            MediaCommand::Observe(call) => {
                let counters = self.counters(call);
                self.answer(op, Ok(MediaDone { placements: Vec::new(), counters }));
            }
            MediaCommand::Prime { call, sides } => {
                self.prime(call, &sides);
                self.answer(op, Ok(MediaDone::default()));
            }
        }
    }

    fn answer(&mut self, op: OpId, result: MediaResult) {
        self.events.push_back(DataplaneEvent::Done { op, result });
    }

    /// Installs a waiting plan if its ways are resolved or its time is up; then the commands behind it.
    fn try_waiting(&mut self, now: Instant, call: CallId) {
        let Some(waiting) = self.waiting.get(&call) else { return };
        let states: Vec<(PathKey, PathState)> = self
            .required_paths(&waiting.plan)
            .into_iter()
            .map(|key| (key, self.neighbours.state(key)))
            .collect();
        let lost =
            states.iter().find_map(|(key, state)| obstacle(*key, *state)).map(|objection| objection.error);
        let unresolved = states.iter().find(|(_, state)| *state == PathState::Waiting).map(|(key, _)| *key);
        if lost.is_none() && unresolved.is_some() && now < waiting.until {
            return;
        }
        let Some(waiting) = self.waiting.remove(&call) else { return };
        let late = unresolved.map(|(_, peer)| MediaError::NoRoute(SocketAddr::new(peer, 0)));
        // Another call's plan may have been written meanwhile.
        let taken = self.check_slots(&waiting.plan).err();
        match lost.or(late).or(taken) {
            Some(error) => {
                self.release(now, waiting.paths);
                self.answer(waiting.op, Err(error));
            }
            None => {
                let placements = vec![Placement::Kernel; waiting.plan.streams.len()];
                self.install(now, waiting.plan, waiting.paths);
                self.answer(waiting.op, Ok(MediaDone { placements, counters: Vec::new() }));
            }
        }
        let mut behind = waiting.behind;
        while let Some((op, command)) = behind.pop_front() {
            self.begin(now, op, command);
            if let Some(next) = self.waiting.get_mut(&call) {
                next.behind.append(&mut behind);
            }
        }
    }

    fn flush_hops(&mut self) {
        while let Some((hop, entry)) = self.neighbours.next_write() {
            let entry = hop_entry(entry);
            if let Err(error) = self.kernel.next_hops.set(u32::from(hop.0), entry, 0) {
                tracing::error!(hop = hop.0, %error, "cannot write a next hop");
                self.doubt = true;
            }
        }
    }

    fn hear_kernel(&mut self, now: Instant) {
        while let Some(event) = events::next(&mut self.kernel.events) {
            match event {
                Event::Latched { slot, source, generation } => {
                    let source = SocketAddr::from((source.address, source.port()));
                    self.hear_latched(now, SlotKey { family: Family::V4, index: slot }, source, generation);
                }
                Event::Latched6 { slot, source, generation } => {
                    let source = SocketAddr::from((source.address, source.port()));
                    self.hear_latched(now, SlotKey { family: Family::V6, index: slot }, source, generation);
                }
                Event::Exceeded { limit, source } => {
                    self.events.push_back(DataplaneEvent::Guard(guard::event(limit, source)));
                }
            }
        }
    }

    fn hear_reports(&mut self, now: Instant) {
        let (owners, calls, events) = (&self.owners, &self.calls, &mut self.events);
        let more = events::reports(&mut self.kernel.reports, |report| {
            let family = if report.is_v6 { Family::V6 } else { Family::V4 };
            let slot = SlotKey { family, index: report.slot };
            let Some(Owner { call, mline, caller_side, .. }) = owners.get(&slot).copied() else { return };
            let state = calls.get(&call).and_then(|call| call.stream(mline));
            // What an earlier flow of the port left in the ring is not this call's.
            if state.is_some_and(|state| state.has(slot, report.generation)) {
                let packet = Bytes::copy_from_slice(report.bytes);
                events.push_back(DataplaneEvent::Media(MediaEvent::Report {
                    call,
                    mline,
                    caller_side,
                    packet,
                }));
            }
        });
        self.more_reports = more.then_some(now);
    }

    fn hear_latched(&mut self, now: Instant, slot: SlotKey, source: SocketAddr, generation: u16) {
        let Some(Owner { call, mline, kind, caller_side, .. }) = self.owners.get(&slot).copied() else {
            return;
        };
        let state = self.calls.get(&call).and_then(|call| call.stream(mline));
        if state.is_some_and(|state| state.has(slot, generation)) {
            let rtcp = kind == MediaKind::Rtcp;
            let latched = MediaEvent::Latched { call, mline, caller_side, rtcp, source };
            self.events.push_back(DataplaneEvent::Media(latched));
            self.follow_claims(now, call);
        }
    }
}

/// A hop as the kernel reads it; `None` is none.
fn hop_entry(entry: Option<HopEntry>) -> NextHop {
    entry.map_or_else(NextHop::default, |entry| NextHop {
        destination_mac: entry.destination_mac,
        source_mac: entry.source_mac,
        vlan: entry.tags.inner,
        mtu: u16::try_from(entry.mtu).unwrap_or(u16::MAX),
        ifindex: entry.ifindex,
        outer_vlan: entry.tags.outer,
        tag_type: entry.tags.tag_type,
    })
}

impl Dataplane for Xdp {
    fn apply(&mut self, now: Instant, op: OpId, command: MediaCommand) {
        match self.waiting.get_mut(&command.call()) {
            Some(waiting) => waiting.behind.push_back((op, command)),
            None => self.begin(now, op, command),
        }
        self.flush_hops();
    }

    fn poll_event(&mut self) -> Option<DataplaneEvent> {
        self.events.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.waiting.values().map(|waiting| waiting.until).min();
        let own = [Some(self.checksums.poll_timeout()), self.tracer.poll_timeout(), self.more_reports];
        [waiting, self.neighbours.poll_timeout()].into_iter().chain(own).flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Err(error) = self.neighbours.handle_changes(now) {
            tracing::error!(%error, "cannot follow the network's changes");
        }
        if self.neighbours.is_settling(now) {
            self.follow_addresses();
        }
        self.neighbours.handle_timeout(now);
        self.flush_hops();
        let mut moved = HashSet::new();
        while let Some(key) = self.neighbours.next_moved() {
            moved.insert(key);
        }
        if !moved.is_empty() {
            let calls: Vec<CallId> =
                self.calls.iter().filter(|(_, call)| call.uses(&moved)).map(|(id, _)| *id).collect();
            for call in calls {
                self.rewrite(call);
            }
        }
        let waiting: Vec<CallId> = self.waiting.keys().copied().collect();
        for call in waiting {
            self.try_waiting(now, call);
        }
        self.hear_kernel(now);
        self.hear_reports(now);
        self.settle_claims();
        self.flush_hops();
        let present = self.present_interfaces();
        self.tracer.handle_timeout(now, &mut self.kernel, &present);
        if std::mem::take(&mut self.doubt) {
            for difference in self.reconcile() {
                tracing::warn!(%difference, "the kernel did not hold what it should");
            }
        }
        let counters = &self.kernel.counters;
        let wrong = || stats::outcome(counters, Counter::BadChecksum).unwrap_or(0);
        if let Some(warning) = self.checksums.look(now, wrong, &self.interfaces) {
            tracing::warn!("{warning}");
        }
    }

    fn counters(&self, call: CallId) -> Vec<StreamCounters> {
        self.calls.get(&call).map_or_else(Vec::new, |call| call.counters(&self.kernel.flows))
    }

    fn guard(&mut self, command: &GuardCommand) {
        self.kernel.guard.apply(command);
    }

    fn trace(&mut self, now: Instant, order: TraceOrder) -> Result<TraceView, String> {
        let present = self.present_interfaces();
        self.tracer.order(now, &mut self.kernel, &present, order)
    }

    fn denied(&self) -> Vec<Denial> {
        self.kernel.guard.denied()
    }

    fn denied_packets(&self, source: Source) -> u64 {
        self.kernel.guard.denied_packets(source)
    }

    fn reconcile(&mut self) -> Vec<Difference> {
        Self::reconcile(self)
    }

    fn snapshot(&self) -> Vec<CallId> {
        self.calls.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vlan::Tags;

    #[test]
    fn a_next_hop_is_written_with_the_tags_and_the_mtu_of_its_interface() {
        let entry =
            |tags| HopEntry { ifindex: 2, source_mac: [2; 6], destination_mac: [4; 6], tags, mtu: 1496 };
        let hop = hop_entry(Some(entry(Tags { outer: 7, inner: 9, tag_type: 0x88a8 })));
        assert_eq!((hop.outer_vlan, hop.vlan, hop.tag_type), (7, 9, 0x88a8));
        assert_eq!((hop.ifindex, hop.source_mac, hop.destination_mac, hop.mtu), (2, [2; 6], [4; 6], 1496));
        let hop = hop_entry(Some(entry(Tags::default())));
        assert_eq!((hop.outer_vlan, hop.vlan, hop.tag_type), (0, 0, 0));
        assert_eq!(hop_entry(None), NextHop::default());
    }
}
