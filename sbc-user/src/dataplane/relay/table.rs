//! The forwarding rules without sockets: which datagram may pass, and from which port of ours to whom it goes.
//!
//! The same rules as the kernel's, in the same order, with the same numbered reasons ([`Counter`]): is it what the
//! port is for, does it come from where it may, is there somewhere to send it.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use sbc_common::counter::{COUNTERS, Counter};
use sbc_common::flow::MediaKind;
use sbc_common::rtp::{self, MediaError as NotMedia};
use sbc_core::id::CallId;
use sbc_core::media::command::{DirectionCounters, MediaError, MediaEvent, StreamCounters};
use sbc_core::media::plan::{MediaPlan, Placement, SourcePolicy, StreamPlan, StreamSide};

use super::loss::Loss;

/// Claims that wait to be told. More are counted as lost: the engine works without them.
const MAX_EVENTS: usize = 4096;

/// Every plan in force, and the ports that belong to it.
#[derive(Debug)]
pub(in crate::dataplane) struct Table {
    placement: Placement,
    calls: HashMap<CallId, Vec<Stream>>,
    ports: HashMap<SocketAddr, Port>,
    outcomes: [u64; COUNTERS as usize],
    events: VecDeque<MediaEvent>,
}

/// Ports that a plan takes into use and those that it no longer uses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::dataplane) struct PortChange {
    pub(in crate::dataplane) opened: Vec<SocketAddr>,
    pub(in crate::dataplane) closed: Vec<SocketAddr>,
}

/// A datagram that may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) struct Forward {
    /// The port of ours that it leaves from.
    pub(in crate::dataplane) via: SocketAddr,
    /// Where to.
    pub(in crate::dataplane) to: SocketAddr,
    /// Marked how.
    pub(in crate::dataplane) dscp: u8,
    port: Port,
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
    caller: Side,
    callee: Side,
}

/// One side, and what arrived on its ports.
#[derive(Debug)]
struct Side {
    plan: StreamSide,
    learned_rtp: Option<SocketAddr>,
    learned_rtcp: Option<SocketAddr>,
    rtp: u64,
    rtp_bytes: u64,
    rtcp: u64,
    loss: Loss,
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
        let without = |of: &[SocketAddr], these: &[SocketAddr]| {
            of.iter().filter(|address| !these.contains(address)).copied().collect()
        };
        Ok(PortChange { opened: without(&wanted, &held), closed: without(&held, &wanted) })
    }

    /// Makes an admitted plan the call's. A side that stays as it was keeps its latch; a stream keeps its counters.
    pub(in crate::dataplane) fn install(&mut self, plan: MediaPlan) {
        let call = plan.call;
        let mut before = self.take(call);
        self.ports.extend(ports_of(&plan));
        let streams = plan.streams.into_iter().map(|stream| {
            let old =
                before.iter().position(|old| old.mline == stream.mline).map(|at| before.swap_remove(at));
            Stream::new(stream, old)
        });
        self.calls.insert(call, streams.collect());
    }

    /// Forgets a call's plan: its final counters, and the ports that are free now.
    pub(in crate::dataplane) fn remove(&mut self, call: CallId) -> (Vec<StreamCounters>, Vec<SocketAddr>) {
        let (counters, ports) = (self.counters(call), self.ports_held(call));
        self.take(call);
        (counters, ports)
    }

    /// Decides on a datagram that arrived on a port of ours, and counts it as forwarded or dropped.
    pub(in crate::dataplane) fn forward(
        &mut self,
        at: SocketAddr,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<Forward, Counter> {
        self.decide(at, from, datagram).inspect_err(|reason| self.count(*reason))
    }

    /// What was to be forwarded could not be sent.
    pub(in crate::dataplane) fn not_sent(&mut self, forward: &Forward, datagram: &[u8]) {
        self.count(Counter::DropNotSent);
        let Port { call, stream, side, kind } = forward.port;
        let Some(stream) = self.calls.get_mut(&call).and_then(|streams| streams.get_mut(stream)) else {
            return;
        };
        let (arrival, _) = stream.sides(side);
        // The call may have got another plan meanwhile, whose streams count from zero.
        match kind {
            MediaKind::Rtp => {
                arrival.rtp = arrival.rtp.saturating_sub(1);
                arrival.rtp_bytes = arrival.rtp_bytes.saturating_sub(datagram.len() as u64);
            }
            MediaKind::Rtcp => arrival.rtcp = arrival.rtcp.saturating_sub(1),
        }
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

    /// The calls that have a plan.
    pub(in crate::dataplane) fn calls(&self) -> Vec<CallId> {
        let mut calls: Vec<CallId> = self.calls.keys().copied().collect();
        calls.sort_unstable();
        calls
    }

    /// The next claim to tell.
    pub(in crate::dataplane) fn poll_event(&mut self) -> Option<MediaEvent> {
        self.events.pop_front()
    }

    fn decide(&mut self, at: SocketAddr, from: SocketAddr, datagram: &[u8]) -> Result<Forward, Counter> {
        let port = *self.ports.get(&at).ok_or(Counter::DropNoFlow)?;
        let stream = self.calls.get_mut(&port.call).and_then(|streams| streams.get_mut(port.stream));
        let stream = stream.ok_or(Counter::DropNoFlow)?;
        rtp::check(port.kind, datagram).map_err(reason)?;
        let mline = stream.mline;
        let (arrival, departure) = stream.sides(port.side);
        let claimed = arrival.admit(port.kind, from)?;
        let forward = departure
            .destination(port.kind)
            .map(|to| Forward { via: local(&departure.plan, port.kind), to, dscp: departure.plan.dscp, port })
            .ok_or(Counter::DropNoDestination);
        if forward.is_ok() {
            arrival.forwarded(port.kind, datagram);
        }
        if claimed {
            self.tell(MediaEvent::Latched {
                call: port.call,
                mline,
                caller_side: port.side == SideName::Caller,
                rtcp: port.kind == MediaKind::Rtcp,
                source: from,
            });
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
    fn new(plan: StreamPlan, old: Option<Self>) -> Self {
        let (old_caller, old_callee) = old.map(|old| (old.caller, old.callee)).unzip();
        Self {
            mline: plan.mline,
            caller: Side::new(plan.caller, old_caller),
            callee: Side::new(plan.callee, old_callee),
        }
    }

    /// The side on which a datagram arrives, and the other.
    fn sides(&mut self, arrival: SideName) -> (&mut Side, &Side) {
        match arrival {
            SideName::Caller => (&mut self.caller, &self.callee),
            SideName::Callee => (&mut self.callee, &self.caller),
        }
    }
}

impl Side {
    fn new(plan: StreamSide, old: Option<Self>) -> Self {
        let fresh = Self {
            plan,
            learned_rtp: None,
            learned_rtcp: None,
            rtp: 0,
            rtp_bytes: 0,
            rtcp: 0,
            loss: Loss::default(),
        };
        match old {
            None => fresh,
            Some(old) if keeps_learned(&old.plan, &fresh.plan) => Self { plan: fresh.plan, ..old },
            Some(old) => Self { plan: fresh.plan, learned_rtp: None, learned_rtcp: None, ..old },
        }
    }

    /// Whether the source claims the port, if it may send at all.
    fn admit(&mut self, kind: MediaKind, from: SocketAddr) -> Result<bool, Counter> {
        let learned = match kind {
            MediaKind::Rtp => &mut self.learned_rtp,
            MediaKind::Rtcp => &mut self.learned_rtcp,
        };
        match (self.plan.source, *learned) {
            (SourcePolicy::Learn { .. }, Some(source)) if source == from => Ok(false),
            (policy @ SourcePolicy::Learn { .. }, None) if policy.lets_claim(from) => {
                *learned = Some(from);
                Ok(true)
            }
            (SourcePolicy::Signalled, _) if signalled(&self.plan, kind) == Some(from) => Ok(false),
            (SourcePolicy::Learn { .. } | SourcePolicy::Signalled, _) => Err(Counter::DropWrongSource),
        }
    }

    /// Counts a datagram that arrived here and goes on.
    fn forwarded(&mut self, kind: MediaKind, datagram: &[u8]) {
        match kind {
            MediaKind::Rtp => {
                self.rtp += 1;
                self.rtp_bytes += datagram.len() as u64;
                self.loss.see(datagram);
            }
            MediaKind::Rtcp => self.rtcp += 1,
        }
    }

    /// Where packets to this side go: to what it learned, else where signalling said.
    fn destination(&self, kind: MediaKind) -> Option<SocketAddr> {
        let learned = match kind {
            MediaKind::Rtp => self.learned_rtp,
            MediaKind::Rtcp => self.learned_rtcp,
        };
        learned.or_else(|| signalled(&self.plan, kind))
    }

    fn counters(&self, placement: Placement) -> DirectionCounters {
        let (rtp_kernel, rtp_relay) = match placement {
            Placement::Kernel => (self.rtp, 0),
            Placement::Relay => (0, self.rtp),
        };
        DirectionCounters {
            rtp_kernel,
            rtp_relay,
            rtp_bytes: self.rtp_bytes,
            rtcp: self.rtcp,
            lost: self.loss.lost(),
            ..DirectionCounters::default()
        }
    }
}

/// Whether what was learned under one plan holds under the next: on the same port, while no other opening voids it.
fn keeps_learned(old: &StreamSide, fresh: &StreamSide) -> bool {
    let opening = |side: &StreamSide| match side.source {
        SourcePolicy::Learn { window, .. } => Some(window.opening),
        SourcePolicy::Signalled => None,
    };
    (old.local_ip, old.local_rtp_port) == (fresh.local_ip, fresh.local_rtp_port)
        && opening(old) == opening(fresh)
}

fn signalled(side: &StreamSide, kind: MediaKind) -> Option<SocketAddr> {
    side.peer.map(|peer| match kind {
        MediaKind::Rtp => peer.rtp,
        MediaKind::Rtcp => peer.rtcp,
    })
}

/// Our port on a side. RTP is even, so that setting the lowest bit is the next one.
pub(super) fn local(side: &StreamSide, kind: MediaKind) -> SocketAddr {
    let port = match kind {
        MediaKind::Rtp => side.local_rtp_port,
        MediaKind::Rtcp => side.local_rtp_port | 1,
    };
    SocketAddr::new(side.local_ip, port)
}

fn ports_of(plan: &MediaPlan) -> impl Iterator<Item = (SocketAddr, Port)> {
    let call = plan.call;
    let sides = plan.streams.iter().enumerate().flat_map(|(stream, streams)| {
        [(stream, SideName::Caller, &streams.caller), (stream, SideName::Callee, &streams.callee)]
    });
    sides.flat_map(move |(stream, side, plan)| {
        [MediaKind::Rtp, MediaKind::Rtcp].map(|kind| (local(plan, kind), Port { call, stream, side, kind }))
    })
}

fn reason(error: NotMedia) -> Counter {
    match error {
        NotMedia::Short => Counter::DropShortMedia,
        NotMedia::Stun => Counter::DropStun,
        NotMedia::Dtls => Counter::DropDtls,
        NotMedia::NotRtp => Counter::DropNotRtp,
        NotMedia::WrongKind => Counter::DropWrongKind,
    }
}
