//! Media forwarded by the XDP program: the kernel's maps as a [`Dataplane`].
//!
//! An `Install` is asked first and written then: the slots must be ours and free, and every way must have a resolved
//! next hop. A next hop that is not resolved is waited for, [`NEXT_HOP_WAIT`] at most. After that writing cannot
//! fail, so there is nothing to undo.

mod addresses;
mod encode;
mod error;
mod events;
mod flows;
mod load;
mod neighbours;
mod netdev;
mod netlink;
mod object;
mod pins;
mod selftest;
mod stats;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use aya::programs::Xdp as Program;
use sbc_common::counter::Counter;
use sbc_common::event::Event;
use sbc_common::flow::{FlowHead, FlowState, Generation, MediaKind, SlotIndex};
use sbc_common::limits;
use sbc_common::next_hop::NextHop;
use sbc_core::id::{CallId, OpId};
use sbc_core::media::command::{
    DirectionCounters, MediaCommand, MediaDone, MediaError, MediaEvent, MediaResult, StreamCounters,
};
use sbc_core::media::plan::{MediaPlan, Placement, SourcePolicy, StreamPlan, StreamSide};

pub use addresses::MediaBind;
pub use error::StartError;
pub use object::{OBJECT, is_embedded};
pub(crate) use pins::check_instance;
pub use stats::Outcome;

use super::counters::add;
use super::{Dataplane, DataplaneEvent};
use addresses::Placed;
use encode::{CALLEE, CALLER, Hops, PairState};
use load::{Attached, Kernel};
use neighbours::{Neighbours, PathKey, PathState};
use netlink::Netlink;
use pins::PinDirectory;
use selftest::ChecksumWatch;

/// How long an `Install` waits for a next hop: a neighbour that lives answers in a fraction of it, and a call can
/// wait as long without anybody noticing.
pub const NEXT_HOP_WAIT: Duration = Duration::from_millis(250);

/// See the module.
pub struct Xdp {
    kernel: Kernel,
    neighbours: Neighbours,
    /// Our addresses that the kernel serves, and their slots.
    addresses: HashMap<Ipv4Addr, Served>,
    interfaces: Vec<String>,
    calls: HashMap<CallId, Call>,
    /// Whose each slot is that is not Idle.
    owners: HashMap<SlotIndex, Owner>,
    generation: Generation,
    waiting: BTreeMap<CallId, Waiting>,
    events: VecDeque<DataplaneEvent>,
    checksums: ChecksumWatch,
}

/// What came of a media address at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressReport {
    /// The address and its ports.
    pub bind: MediaBind,
    /// The interface that it is on, if it is on one.
    pub interface: Option<String>,
    /// Why the relay serves it; `None`: the driver of the interface runs the program.
    pub relay_reason: Option<String>,
}

#[derive(Clone, Debug)]
struct Served {
    slot: u16,
    ports: std::ops::RangeInclusive<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    call: CallId,
    mline: u8,
    kind: MediaKind,
    caller_side: bool,
    relayed: bool,
}

struct Call {
    plan: MediaPlan,
    /// In the plan's order: the RTP and the RTCP pair of each stream.
    streams: Vec<[PairState; 2]>,
    paths: Vec<PathKey>,
    /// Counted on slots that the call no longer has, by m-line.
    past: BTreeMap<u8, [DirectionCounters; 2]>,
}

/// A command that waits for next hops, and those of the same call behind it.
struct Waiting {
    op: OpId,
    plan: MediaPlan,
    paths: Vec<PathKey>,
    until: Instant,
    behind: VecDeque<(OpId, MediaCommand)>,
}

/// The paths of one side.
struct SidePaths {
    rtp: Option<PathKey>,
    rtcp: Option<PathKey>,
    /// To the signalled addresses, where others may claim: they are used if they lead the same way.
    signalled: Vec<PathKey>,
}

impl Xdp {
    /// Loads, attaches and fills the tables; in the network namespace of the calling thread. Reports on each of
    /// `binds`, in their order. `None` if no address can be served: nothing is left in the kernel then.
    pub fn start(
        instance: &str,
        object: &[u8],
        binds: &[MediaBind],
        now: Instant,
    ) -> Result<(Option<Self>, Vec<AddressReport>), StartError> {
        if object.is_empty() {
            return Err(StartError::NoObject);
        }
        let asked = |what| move |source| StartError::Network { what, source };
        let mut netlink = Netlink::open().map_err(asked("a netlink socket"))?;
        let links = netlink.links().map_err(asked("interfaces"))?;
        let held = netlink.addresses().map_err(asked("addresses"))?;
        let placed = addresses::place(binds, &links, &held);

        let pins = PinDirectory::open(instance, limits::ABI)?;
        let first = pins.is_empty();
        let distinct: HashSet<_> = placed.iter().flatten().map(|placed| placed.address).collect();
        let mut kernel = Kernel::load(object, pins, distinct.len() as u32)?;
        let left = kernel.flows.withdraw_all();
        if left > 0 {
            tracing::info!(slots = left, "withdrew flows that an earlier daemon left");
        }
        let (served, reports) = match attach(&mut kernel, &mut netlink, binds, &placed) {
            Ok(attached) => attached,
            Err(error) => {
                // What an earlier daemon left stays as it is; what is all ours goes.
                if first && let Err(error) = kernel.remove() {
                    tracing::warn!(%error, "cannot remove the pins again");
                }
                return Err(error);
            }
        };
        if served.is_empty() {
            kernel.remove().map_err(asked("the removal of pins"))?;
            return Ok((None, reports));
        }
        let devices: HashSet<u32> = served.iter().map(|placed| placed.device.ifindex).collect();
        let mut interfaces: Vec<String> = served.iter().map(|placed| placed.device.name.clone()).collect();
        interfaces.sort();
        interfaces.dedup();
        kernel.detach_others(&interfaces)?;
        kernel.set_devices(&devices)?;
        let slots = addresses::write(&mut kernel, &served)?;
        let addresses = served
            .iter()
            .filter_map(|placed| {
                let slot = *slots.get(&placed.address)?;
                Some((placed.address, Served { slot, ports: placed.ports.clone() }))
            })
            .collect();
        let neighbours =
            Neighbours::new(netlink, devices, limits::NEXT_HOPS as u16).map_err(asked("interfaces"))?;
        let wrong = stats::outcome(&kernel.counters, Counter::BadChecksum).unwrap_or(0);
        let xdp = Self {
            kernel,
            neighbours,
            addresses,
            interfaces,
            calls: HashMap::new(),
            owners: HashMap::new(),
            generation: Generation::FIRST,
            waiting: BTreeMap::new(),
            events: VecDeque::new(),
            checksums: ChecksumWatch::new(now, wrong),
        };
        Ok((Some(xdp), reports))
    }

    /// What `start` would find, without touching the kernel's state.
    pub fn survey(binds: &[MediaBind]) -> Result<Vec<AddressReport>, StartError> {
        let asked = |what| move |source| StartError::Network { what, source };
        let mut netlink = Netlink::open().map_err(asked("a netlink socket"))?;
        let links = netlink.links().map_err(asked("interfaces"))?;
        let held = netlink.addresses().map_err(asked("addresses"))?;
        let placed = addresses::place(binds, &links, &held);
        Ok(binds
            .iter()
            .zip(placed)
            .map(|(bind, placed)| match placed {
                Ok(placed) => AddressReport {
                    bind: bind.clone(),
                    interface: Some(placed.device.name),
                    relay_reason: None,
                },
                Err(reason) => {
                    AddressReport { bind: bind.clone(), interface: None, relay_reason: Some(reason) }
                }
            })
            .collect())
    }

    /// Descriptors that become readable when `handle_timeout` has work.
    #[must_use]
    pub fn poll_fds(&self) -> Vec<RawFd> {
        vec![self.neighbours.changes_fd(), self.kernel.events.as_raw_fd()]
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

    /// The program, for `BPF_PROG_TEST_RUN`.
    pub fn program(&mut self) -> Result<&mut Program, StartError> {
        self.kernel.program()
    }

    /// Lets go of the kernel: flows withdrawn, program detached, pins removed.
    pub fn stop(mut self) -> std::io::Result<()> {
        self.neighbours.stop();
        self.kernel.remove()
    }

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
        let relayed = |owner: &Owner| owner.call == call && owner.relayed;
        let before: Vec<SlotIndex> =
            self.owners.iter().filter(|(_, owner)| relayed(owner)).map(|(slot, _)| *slot).collect();
        for slot in before {
            if !wanted.iter().any(|(index, _)| *index == slot) {
                self.kernel.flows.withdraw(slot);
                self.owners.remove(&slot);
            }
        }
        for (slot, owner) in wanted {
            if self.owners.get(&slot).is_some_and(|other| !relayed(other)) {
                tracing::warn!(?slot, %call, "a relayed port is in use in the kernel");
                continue;
            }
            self.owners.insert(slot, owner);
            let generation = self.kernel.flows.read(slot).head.generation;
            let head = FlowHead { state: FlowState::Relay, kind: owner.kind, next_hop: 0, generation };
            self.kernel.flows.publish(slot, head);
        }
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
        }
    }

    fn answer(&mut self, op: OpId, result: MediaResult) {
        self.events.push_back(DataplaneEvent::Done { op, result });
    }

    /// Whether the plan's slots are ours and free; acquires its paths.
    fn admit(&mut self, now: Instant, plan: &MediaPlan) -> Result<Vec<PathKey>, MediaError> {
        let mut slots = HashSet::new();
        for side in plan.streams.iter().flat_map(|stream| [&stream.caller, &stream.callee]) {
            let address_slot = self.address_slot(side)?;
            for port in [side.local_rtp_port, side.local_rtp_port + 1] {
                let slot = SlotIndex::new(address_slot, port);
                let others = self.owners.get(&slot).is_some_and(|owner| owner.call != plan.call);
                if others || !slots.insert(slot) {
                    return Err(MediaError::PortInUse(SocketAddr::new(side.local_ip, port)));
                }
            }
        }
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

    fn required_paths(&self, plan: &MediaPlan) -> Vec<PathKey> {
        let sides = plan.streams.iter().filter_map(|stream| self.side_paths(stream).ok()).flatten();
        sides.flat_map(|side| side.required().collect::<Vec<_>>()).collect()
    }

    fn release(&mut self, now: Instant, paths: Vec<PathKey>) {
        for key in paths {
            self.neighbours.release(now, key);
        }
    }

    /// Installs a waiting plan if its ways are resolved or its time is up; then the commands behind it.
    fn try_waiting(&mut self, now: Instant, call: CallId) {
        let Some(waiting) = self.waiting.get(&call) else { return };
        let states: Vec<(PathKey, PathState)> = self
            .required_paths(&waiting.plan)
            .into_iter()
            .map(|key| (key, self.neighbours.state(key)))
            .collect();
        let lost = states.iter().find_map(|(key, state)| obstacle(*key, *state));
        let unresolved = states.iter().find(|(_, state)| *state == PathState::Waiting).map(|(key, _)| *key);
        if lost.is_none() && unresolved.is_some() && now < waiting.until {
            return;
        }
        let Some(waiting) = self.waiting.remove(&call) else { return };
        let late = unresolved.map(|(_, peer)| MediaError::NoRoute(SocketAddr::new(IpAddr::V4(peer), 0)));
        match lost.or(late) {
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

    /// Writes an admitted plan.
    fn install(&mut self, now: Instant, plan: MediaPlan, paths: Vec<PathKey>) {
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

    fn remove(&mut self, now: Instant, call: CallId) -> Vec<StreamCounters> {
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
    fn rewrite(&mut self, call: CallId) {
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
    fn pairs(&self, stream: &StreamPlan) -> [encode::Pair; 2] {
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
                if served.ports.contains(&side.local_rtp_port)
                    && rtcp_port.is_some_and(|port| served.ports.contains(&port)) =>
            {
                Ok(served.slot)
            }
            Some(_) | None => Err(not_ours),
        }
    }

    /// The paths of both sides, if the kernel can serve such a stream at all.
    fn side_paths(&self, stream: &StreamPlan) -> Result<[SidePaths; 2], MediaError> {
        for side in [&stream.caller, &stream.callee] {
            self.address_slot(side)?;
            let allowed = match side.source {
                SourcePolicy::Learn { allowed } => Some(SocketAddr::new(allowed, 0)),
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

    fn flush_hops(&mut self) {
        while let Some((hop, entry)) = self.neighbours.next_write() {
            let entry = entry.map_or_else(NextHop::default, |entry| NextHop {
                destination_mac: entry.destination_mac,
                source_mac: entry.source_mac,
                vlan: entry.vlan.unwrap_or(0),
                mtu: u16::try_from(entry.mtu).unwrap_or(u16::MAX),
                ifindex: entry.ifindex,
                unused: [0; 4],
            });
            if let Err(error) = self.kernel.next_hops.set(u32::from(hop.0), entry, 0) {
                tracing::error!(hop = hop.0, %error, "cannot write a next hop");
            }
        }
    }

    fn hear_kernel(&mut self) {
        while let Some(Event::Latched { slot, source, generation }) = events::next(&mut self.kernel.events) {
            let Some(owner) = self.owners.get(&slot) else { continue };
            let Some(pairs) = self.calls.get(&owner.call).and_then(|call| call.stream(owner.mline)) else {
                continue;
            };
            if pairs
                .iter()
                .any(|pair| pair.slots().contains(&slot) && pair.generation().number() == generation)
            {
                let source = SocketAddr::new(Ipv4Addr::from(source.address).into(), source.port());
                self.events.push_back(DataplaneEvent::Media(MediaEvent::Latched {
                    call: owner.call,
                    mline: owner.mline,
                    caller_side: owner.caller_side,
                    rtcp: owner.kind == MediaKind::Rtcp,
                    source,
                }));
            }
        }
    }
}

impl Dataplane for Xdp {
    fn apply(&mut self, now: Instant, op: OpId, command: MediaCommand) {
        let call = match &command {
            MediaCommand::Install(plan) => plan.call,
            MediaCommand::Remove(call) => *call,
        };
        match self.waiting.get_mut(&call) {
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
        [waiting, self.neighbours.poll_timeout(), Some(self.checksums.poll_timeout())]
            .into_iter()
            .flatten()
            .min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Err(error) = self.neighbours.handle_changes(now) {
            tracing::error!(%error, "cannot follow the network's changes");
        }
        self.neighbours.handle_timeout(now);
        self.flush_hops();
        let mut moved = HashSet::new();
        while let Some(key) = self.neighbours.next_moved() {
            moved.insert(key);
        }
        if !moved.is_empty() {
            let uses = |call: &Call| call.paths.iter().any(|key| moved.contains(key));
            let calls: Vec<CallId> =
                self.calls.iter().filter(|(_, call)| uses(call)).map(|(id, _)| *id).collect();
            for call in calls {
                self.rewrite(call);
            }
        }
        let waiting: Vec<CallId> = self.waiting.keys().copied().collect();
        for call in waiting {
            self.try_waiting(now, call);
        }
        self.flush_hops();
        self.hear_kernel();
        let counters = &self.kernel.counters;
        let wrong = || stats::outcome(counters, Counter::BadChecksum).unwrap_or(0);
        if let Some(warning) = self.checksums.look(now, wrong, &self.interfaces) {
            tracing::warn!("{warning}");
        }
    }

    fn counters(&self, call: CallId) -> Vec<StreamCounters> {
        self.calls.get(&call).map_or_else(Vec::new, |call| call.counters(&self.kernel.flows))
    }

    fn snapshot(&self) -> Vec<CallId> {
        self.calls.keys().copied().collect()
    }
}

impl Call {
    fn stream(&self, mline: u8) -> Option<&[PairState; 2]> {
        let position = self.plan.streams.iter().position(|stream| stream.mline == mline)?;
        self.streams.get(position)
    }

    fn counters(&self, flows: &flows::FlowTable) -> Vec<StreamCounters> {
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
            SourcePolicy::Learn { allowed } => {
                let allowed = path(allowed);
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

/// Attaches to every interface that has one of the addresses; tells which addresses are served, and of each what came
/// of it.
fn attach(
    kernel: &mut Kernel,
    netlink: &mut Netlink,
    binds: &[MediaBind],
    placed: &[Result<Placed, String>],
) -> Result<(Vec<Placed>, Vec<AddressReport>), StartError> {
    let mut outcomes: HashMap<u32, Attached> = HashMap::new();
    for placed in placed.iter().flatten() {
        if let Entry::Vacant(entry) = outcomes.entry(placed.device.ifindex) {
            entry.insert(kernel.attach(netlink, &placed.device)?);
        }
    }
    let mut served = Vec::new();
    let mut reports = Vec::new();
    for (bind, placed) in binds.iter().zip(placed) {
        let interface = placed.as_ref().ok().map(|placed| placed.device.name.clone());
        let outcome = placed.as_ref().map(|placed| (placed, &outcomes[&placed.device.ifindex]));
        let relay_reason = match outcome {
            Err(reason) => Some(reason.clone()),
            Ok((_, Attached::Refused(reason))) => Some(reason.clone()),
            Ok((placed, Attached::Native)) => {
                served.push(placed.clone());
                None
            }
        };
        reports.push(AddressReport { bind: bind.clone(), interface, relay_reason });
    }
    Ok((served, reports))
}

/// What keeps the kernel from using a path, if it is not just a matter of time.
fn obstacle((local, peer): PathKey, state: PathState) -> Option<MediaError> {
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
fn directions(flows: &flows::FlowTable, [rtp, rtcp]: &[PairState; 2]) -> [DirectionCounters; 2] {
    let (rtp, rtcp) = (rtp.counted(flows), rtcp.counted(flows));
    [CALLER, CALLEE].map(|at| DirectionCounters {
        rtp_kernel: rtp[at].0,
        rtp_relay: 0,
        rtp_bytes: rtp[at].1,
        rtcp: rtcp[at].0,
        lost: None,
    })
}
