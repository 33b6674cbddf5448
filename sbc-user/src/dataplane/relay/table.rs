//! The forwarding rules without sockets: which datagram may pass, and from which port of ours to whom it goes.
//!
//! The kernel's rules, with the same numbered reasons ([`Counter`]), for what is inside of a datagram and for who sent it:
//! is it what the port is for, does it come from where it may, are there too many, is there somewhere to send it. Headers
//! and checksums the host has checked before, and next hops it finds itself. Where a datagram goes to another port of ours
//! it does not leave, but arrives there. For a stream that another carries ([`Role::Standby`]) nobody claims a port here:
//! until a claim is told, whoever may claim is let through.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;
use sbc_common::counter::{COUNTERS, Counter};
use sbc_common::flow::MediaKind;
use sbc_core::id::CallId;
use sbc_core::media::command::{MediaError, MediaEvent, SideOf, StreamCounters};
use sbc_core::media::plan::{MediaPlan, Placement, StreamPlan, StreamSide};

use super::side::{Accepted, Role, Side, local};
use crate::dataplane::carrier::Claim;
use crate::dataplane::send_once::Way;

/// Claims that wait to be told. More are counted as lost: the engine works without them.
const MAX_EVENTS: usize = 4096;
/// Copies of RTCP packets that wait to be told, apart from the claims: a flood of reports costs only reports.
const MAX_REPORTS: usize = 1024;
/// What is copied of an RTCP packet: sender and receiver reports with their blocks, not what describes the sender.
const MAX_REPORT_BYTES: usize = 256;
/// Ports of ours that a datagram visits after the first: calls that lead to one another in a circle would keep it.
const MAX_HOPS: usize = 4;

/// Every plan in force, and the ports that belong to it.
#[derive(Debug)]
pub(in crate::dataplane) struct Table {
    placement: Placement,
    calls: HashMap<CallId, Vec<Stream>>,
    ports: HashMap<SocketAddr, Port>,
    outcomes: [u64; COUNTERS as usize],
    events: VecDeque<MediaEvent>,
    reports: VecDeque<MediaEvent>,
}

/// Ports that a plan takes into use and those that it no longer uses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::dataplane) struct PortChange {
    pub(in crate::dataplane) opened: Vec<SocketAddr>,
    pub(in crate::dataplane) closed: Vec<SocketAddr>,
}

impl PortChange {
    fn between(before: &[SocketAddr], after: &[SocketAddr]) -> Self {
        let without = |of: &[SocketAddr], these: &[SocketAddr]| {
            of.iter().filter(|address| !these.contains(address)).copied().collect()
        };
        Self { opened: without(after, before), closed: without(before, after) }
    }
}

/// A datagram that may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) struct Forward {
    /// The way that it leaves by.
    pub(in crate::dataplane) way: Way,
    port: Port,
    kind: MediaKind,
}

/// Whose a port of ours is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Port {
    call: CallId,
    /// Position in the plan.
    stream: usize,
    side: SideName,
    kind: MediaKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SideName {
    Caller,
    Callee,
}

#[derive(Debug)]
struct Stream {
    mline: u8,
    role: Role,
    caller: Side,
    callee: Side,
}

impl Table {
    /// Without plans. `placement` says whose counters these are.
    pub(in crate::dataplane) fn new(placement: Placement) -> Self {
        Self {
            placement,
            calls: HashMap::new(),
            ports: HashMap::new(),
            outcomes: [0; COUNTERS as usize],
            events: VecDeque::new(),
            reports: VecDeque::new(),
        }
    }

    /// Whether a plan can be installed, and what that does to the ports. Changes nothing.
    pub(in crate::dataplane) fn admit(&self, plan: &MediaPlan) -> Result<PortChange, MediaError> {
        let wanted: Vec<SocketAddr> = ports_of(plan).map(|(address, _)| address).collect();
        for (position, address) in wanted.iter().enumerate() {
            let foreign = self.ports.get(address).is_some_and(|port| port.call != plan.call);
            if foreign || wanted[..position].contains(address) {
                return Err(MediaError::PortInUse(*address));
            }
        }
        for side in plan.streams.iter().flat_map(|stream| [&stream.caller, &stream.callee]) {
            for peer in side.peer.iter().flat_map(|peer| [peer.rtp, peer.rtcp]) {
                // To a port of the same call is to itself, in a circle. To our own loopback interface a peer has no
                // business: what listens there trusts whoever reaches it.
                let inside = peer.ip().is_loopback() && !side.local_ip.is_loopback();
                if peer.is_ipv4() != side.local_ip.is_ipv4() || inside || wanted.contains(&peer) {
                    return Err(MediaError::NoRoute(peer));
                }
            }
        }
        let held: Vec<SocketAddr> = self.ports_held(plan.call);
        Ok(PortChange::between(&held, &wanted))
    }

    /// Makes an admitted plan the call's. A side that stays as it was keeps its latch; a stream keeps its counters.
    pub(in crate::dataplane) fn install(&mut self, plan: MediaPlan) {
        let call = plan.call;
        let mut before = self.take(call);
        self.ports.extend(ports_of(&plan));
        let streams = plan.streams.into_iter().map(|stream| {
            let old =
                before.iter().position(|old| old.mline == stream.mline).map(|at| before.swap_remove(at));
            Stream::new(stream, Role::Carrier, old)
        });
        self.calls.insert(call, streams.collect());
    }

    /// Stands by for streams of a call that another carries, besides those that it carries itself; for others no longer.
    /// What it stood by for before it still knows. The ports that are taken into use, and those no longer used.
    pub(in crate::dataplane) fn stand_by(&mut self, call: CallId, plans: &[StreamPlan]) -> PortChange {
        let held = self.ports_held(call);
        let streams = self.calls.remove(&call).unwrap_or_default();
        self.ports.retain(|_, port| port.call != call);
        let (mut standing, mut streams): (Vec<Stream>, Vec<Stream>) =
            streams.into_iter().partition(|stream| stream.role == Role::Standby);
        for plan in plans {
            let old =
                standing.iter().position(|old| old.mline == plan.mline).map(|at| standing.swap_remove(at));
            streams.push(Stream::new(plan.clone(), Role::Standby, old));
        }
        let ports = streams.iter().enumerate().flat_map(|(position, stream)| stream.ports(call, position));
        self.ports.extend(ports);
        if !streams.is_empty() {
            self.calls.insert(call, streams);
        }
        PortChange::between(&held, &self.ports_held(call))
    }

    /// Who claimed which ports of the streams that it carries.
    pub(in crate::dataplane) fn claims(&self, call: CallId) -> Vec<Claim> {
        let streams = self.calls.get(&call).into_iter().flatten();
        let carried = streams.filter(|stream| stream.role == Role::Carrier);
        let sides = carried
            .flat_map(|stream| [(stream.mline, true, &stream.caller), (stream.mline, false, &stream.callee)]);
        let claims = sides.flat_map(|(mline, caller_side, side)| {
            let ports = [(false, side.learned.rtp), (true, side.learned.rtcp)];
            ports.map(|(rtcp, source)| Some(Claim { mline, caller_side, rtcp, source: source? }))
        });
        claims.flatten().collect()
    }

    /// Takes over claims. Where the table stands by, whoever carries the stream knows better.
    pub(in crate::dataplane) fn teach(&mut self, call: CallId, claims: &[Claim]) {
        for claim in claims {
            let streams = self.calls.get_mut(&call).into_iter().flatten();
            for stream in streams.filter(|stream| stream.mline == claim.mline) {
                let side = if claim.caller_side { &mut stream.caller } else { &mut stream.callee };
                side.teach(claim.rtcp, claim.source, stream.role);
            }
        }
    }

    /// Forgets a call's plan: its final counters, and the ports that are free now.
    pub(in crate::dataplane) fn remove(&mut self, call: CallId) -> (Vec<StreamCounters>, Vec<SocketAddr>) {
        let (counters, ports) = (self.counters(call), self.ports_held(call));
        self.take(call);
        (counters, ports)
    }

    /// Decides on a datagram that arrived on a port of ours, and counts it as forwarded or dropped. Times are those of one
    /// monotonic clock.
    pub(in crate::dataplane) fn forward(
        &mut self,
        at: SocketAddr,
        from: SocketAddr,
        datagram: &[u8],
        now_ns: u64,
    ) -> Result<Forward, Counter> {
        let (mut at, mut from) = (at, from);
        for _ in 0..=MAX_HOPS {
            let forward =
                self.decide(at, from, datagram, now_ns).inspect_err(|reason| self.count(*reason))?;
            if !self.ports.contains_key(&forward.way.to) {
                return Ok(forward);
            }
            (at, from) = (forward.way.to, forward.way.via);
        }
        self.count(Counter::DropCircle);
        Err(Counter::DropCircle)
    }

    /// What was to be forwarded could not be sent.
    pub(in crate::dataplane) fn not_sent(&mut self, forward: &Forward, datagram: &[u8]) {
        self.count(Counter::DropNotSent);
        let Port { call, stream, side, .. } = forward.port;
        if let Some(stream) = self.calls.get_mut(&call).and_then(|streams| streams.get_mut(stream)) {
            let (arrival, _) = stream.sides(side);
            arrival.not_sent(forward.kind, datagram.len());
        }
    }

    /// The ways of RTP and RTCP to some sides of a call; a side that has none is left out.
    pub(in crate::dataplane) fn ways(&self, call: CallId, sides: &[SideOf]) -> Vec<[Option<Way>; 2]> {
        let streams = self.calls.get(&call).map_or(&[][..], Vec::as_slice);
        let sides = sides.iter().filter_map(|of| {
            let mut carried = streams.iter().filter(|stream| stream.role == Role::Carrier);
            let stream = carried.find(|stream| stream.mline == of.mline)?;
            Some(if of.caller_side { &stream.caller } else { &stream.callee })
        });
        let way = |side, kind| way(side, kind, |address| self.ports.contains_key(&address));
        sides.map(|side| [MediaKind::Rtp, MediaKind::Rtcp].map(|kind| way(side, kind))).collect()
    }

    /// Counts an outcome.
    pub(in crate::dataplane) fn count(&mut self, counter: Counter) {
        self.outcomes[counter.number() as usize] += 1; // every number is below COUNTERS: tested in sbc-common
    }

    /// How often an outcome was counted.
    pub(in crate::dataplane) fn outcome(&self, counter: Counter) -> u64 {
        self.outcomes[counter.number() as usize]
    }

    /// Counters of a call's streams, in the plan's order.
    pub(in crate::dataplane) fn counters(&self, call: CallId) -> Vec<StreamCounters> {
        let streams = self.calls.get(&call).map_or(&[][..], Vec::as_slice);
        let counters = streams.iter().map(|stream| StreamCounters {
            mline: stream.mline,
            placement: Some(self.placement),
            from_caller: stream.caller.counters(self.placement),
            from_callee: stream.callee.counters(self.placement),
        });
        counters.collect()
    }

    /// The calls that have a plan, but for those of which others carry everything.
    pub(in crate::dataplane) fn calls(&self) -> Vec<CallId> {
        let carries = |streams: &[Stream]| {
            streams.is_empty() || streams.iter().any(|stream| stream.role == Role::Carrier)
        };
        let carried = self.calls.iter().filter(|(_, streams)| carries(streams));
        let mut calls: Vec<CallId> = carried.map(|(call, _)| *call).collect();
        calls.sort_unstable();
        calls
    }

    /// The next thing to tell.
    pub(in crate::dataplane) fn poll_event(&mut self) -> Option<MediaEvent> {
        self.events.pop_front().or_else(|| self.reports.pop_front())
    }

    /// Whether there is something to tell.
    pub(super) fn has_news(&self) -> bool {
        !self.events.is_empty() || !self.reports.is_empty()
    }

    fn decide(
        &mut self,
        at: SocketAddr,
        from: SocketAddr,
        datagram: &[u8],
        now_ns: u64,
    ) -> Result<Forward, Counter> {
        let port = *self.ports.get(&at).ok_or(Counter::DropNoFlow)?;
        let Port { call, side, .. } = port;
        let stream = self.calls.get_mut(&call).and_then(|streams| streams.get_mut(port.stream));
        let stream = stream.ok_or(Counter::DropNoFlow)?;
        let (mline, role, caller_side) = (stream.mline, stream.role, side == SideName::Caller);
        let (arrival, departure) = stream.sides(side);
        let is_ours = |address| self.ports.contains_key(&address);
        let Accepted { kind, claimed } = arrival.accept(role, port.kind, from, datagram, is_ours)?;
        let forward = arrival.within_rate(kind, now_ns).and_then(|()| {
            let way = way(departure, kind, is_ours).ok_or(Counter::DropNoDestination)?;
            arrival.forwarded(role, kind, datagram, now_ns);
            Ok(Forward { way, port, kind })
        });
        if claimed {
            let rtcp = port.kind == MediaKind::Rtcp;
            self.tell(MediaEvent::Latched { call, mline, caller_side, rtcp, source: from });
        }
        if kind == MediaKind::Rtcp && forward.is_ok() && self.reports.len() < MAX_REPORTS {
            let packet = Bytes::copy_from_slice(&datagram[..datagram.len().min(MAX_REPORT_BYTES)]);
            self.reports.push_back(MediaEvent::Report { call, mline, caller_side, packet });
        }
        forward
    }

    fn tell(&mut self, event: MediaEvent) {
        self.count(Counter::Claimed);
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        } else {
            self.count(Counter::EventLost);
        }
    }

    fn take(&mut self, call: CallId) -> Vec<Stream> {
        for address in self.ports_held(call) {
            self.ports.remove(&address);
        }
        self.calls.remove(&call).unwrap_or_default()
    }

    fn ports_held(&self, call: CallId) -> Vec<SocketAddr> {
        let sides =
            self.calls.get(&call).into_iter().flatten().flat_map(|stream| [&stream.caller, &stream.callee]);
        sides
            .flat_map(|side| [local(&side.plan, MediaKind::Rtp), local(&side.plan, MediaKind::Rtcp)])
            .collect()
    }
}

impl Stream {
    fn new(plan: StreamPlan, role: Role, old: Option<Self>) -> Self {
        let (old_caller, old_callee) = old.map(|old| (old.caller, old.callee)).unzip();
        Self {
            mline: plan.mline,
            role,
            caller: Side::new(plan.caller, old_caller),
            callee: Side::new(plan.callee, old_callee),
        }
    }

    /// Its ports, as a call's stream at a position.
    fn ports(&self, call: CallId, position: usize) -> impl Iterator<Item = (SocketAddr, Port)> {
        ports_of_stream(call, position, &self.caller.plan, &self.callee.plan)
    }

    /// The side on which a datagram arrives, and the other.
    fn sides(&mut self, arrival: SideName) -> (&mut Side, &Side) {
        match arrival {
            SideName::Caller => (&mut self.caller, &self.callee),
            SideName::Callee => (&mut self.callee, &self.caller),
        }
    }
}

/// The way to a side, if there is one.
fn way(side: &Side, kind: MediaKind, is_ours: impl Fn(SocketAddr) -> bool) -> Option<Way> {
    side.destination(kind, is_ours).map(|to| Way { via: side.via(kind), to, dscp: side.plan.dscp })
}

fn ports_of(plan: &MediaPlan) -> impl Iterator<Item = (SocketAddr, Port)> {
    let streams = plan.streams.iter().enumerate();
    streams.flat_map(|(position, it)| ports_of_stream(plan.call, position, &it.caller, &it.callee))
}

fn ports_of_stream(
    call: CallId,
    stream: usize,
    caller: &StreamSide,
    callee: &StreamSide,
) -> impl Iterator<Item = (SocketAddr, Port)> + use<> {
    let port = |plan, side, kind| (local(plan, kind), Port { call, stream, side, kind });
    let sides = [(caller, SideName::Caller), (callee, SideName::Callee)];
    sides
        .map(|(plan, side)| [MediaKind::Rtp, MediaKind::Rtcp].map(|kind| port(plan, side, kind)))
        .into_iter()
        .flatten()
}

#[cfg(test)]
mod tests;
