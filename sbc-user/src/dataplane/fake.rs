//! The dataplane of tests: the relay's rules without sockets.
//!
//! It verifies the invariants that it has been taught (see [`Fake::apply`]) and cannot discover others: a behaviour
//! that only a kernel or a socket has is not in it. What it does show, the conformance suite holds it to.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use sbc_common::counter::Counter;
use sbc_core::guard::{GuardCommand, GuardEvent};
use sbc_core::id::{CallId, OpId};
use sbc_core::media::command::{MediaCommand, MediaDone, MediaError, MediaResult, StreamCounters};
use sbc_core::media::plan::{MediaPlan, Placement, StreamPlan};

use super::carrier::{Carrier, Claim, StandsBy};
use super::relay::Table;
use super::{Dataplane, DataplaneEvent, prime};

/// See the module.
#[derive(Debug)]
pub struct Fake {
    placement: Placement,
    table: Table,
    epoch: Option<Instant>,
    /// Since the first time that it was told.
    now_ns: u64,
    done: VecDeque<DataplaneEvent>,
    fail_next: Option<MediaError>,
    ops: BTreeSet<OpId>,
    guarded: Vec<GuardCommand>,
    sent: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
}

impl Fake {
    /// Without plans. It will say that `placement` carries every stream.
    #[must_use]
    pub fn new(placement: Placement) -> Self {
        Self {
            placement,
            table: Table::new(placement),
            epoch: None,
            now_ns: 0,
            done: VecDeque::new(),
            fail_next: None,
            ops: BTreeSet::new(),
            guarded: Vec::new(),
            sent: Vec::new(),
        }
    }

    /// The next command fails with this error and changes nothing.
    pub fn fail_next(&mut self, error: MediaError) {
        self.fail_next = Some(error);
    }

    /// A datagram arrives on a port of ours. What leaves: from where, to whom.
    pub fn deliver(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        payload: &[u8],
    ) -> Option<(SocketAddr, SocketAddr)> {
        let way = self.table.forward(to, from, payload, self.now_ns).ok()?.way;
        Some((way.via, way.to))
    }

    /// What it sent of itself since the last time: from where, to whom, what.
    pub fn take_sent(&mut self) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
        std::mem::take(&mut self.sent)
    }

    /// What the guard was told, in order.
    #[must_use]
    pub fn guarded(&self) -> &[GuardCommand] {
        &self.guarded
    }

    /// The guard notices something.
    pub fn notice(&mut self, event: GuardEvent) {
        self.done.push_back(DataplaneEvent::Guard(event));
    }

    /// How often a datagram had this outcome.
    #[must_use]
    pub fn outcome(&self, counter: Counter) -> u64 {
        self.table.outcome(counter)
    }

    fn hear_time(&mut self, now: Instant) {
        let epoch = *self.epoch.get_or_insert(now);
        self.now_ns = u64::try_from(now.saturating_duration_since(epoch).as_nanos()).unwrap_or(u64::MAX);
    }

    fn carry_out(&mut self, command: MediaCommand) -> MediaResult {
        if let Some(error) = self.fail_next.take() {
            return Err(error);
        }
        match command {
            MediaCommand::Install(plan) => {
                verify(&plan);
                self.table.admit(&plan)?;
                let placements = vec![self.placement; plan.streams.len()];
                self.table.install(plan);
                Ok(MediaDone { placements, counters: Vec::new() })
            }
            MediaCommand::Remove(call) => {
                let (counters, _) = self.table.remove(call);
                Ok(MediaDone { placements: Vec::new(), counters })
            }
            MediaCommand::Observe(call) => {
                Ok(MediaDone { placements: Vec::new(), counters: self.table.counters(call) })
            }
            MediaCommand::Prime { call, sides } => {
                for ways in self.table.ways(call, &sides) {
                    prime::send(ways, |way, packet| {
                        self.sent.push((way.via, way.to, packet.to_vec()));
                        Ok(())
                    });
                }
                Ok(MediaDone::default())
            }
        }
    }
}

/// What every plan must hold, whatever carries it.
fn verify(plan: &MediaPlan) {
    let mlines: Vec<u8> = plan.streams.iter().map(|stream| stream.mline).collect();
    assert!(
        mlines.is_sorted_by(|a, b| a < b),
        "streams in the order of their m-lines, each once: {mlines:?}"
    );
    for side in plan.streams.iter().flat_map(|stream| [&stream.caller, &stream.callee]) {
        assert!(
            side.local_rtp_port.is_multiple_of(2) && side.local_rtp_port != 0,
            "RTP port is even: {side:?}"
        );
        assert!(side.dscp < 64, "DSCP has six bits: {side:?}");
        assert!(!side.local_ip.is_unspecified(), "our address is one: {side:?}");
        for peer in side.peer.iter().flat_map(|peer| [peer.rtp, peer.rtcp]) {
            assert!(!peer.ip().is_unspecified() && peer.port() != 0, "a peer can be sent to: {side:?}");
        }
    }
}

impl Carrier for Fake {
    fn claims(&self, call: CallId) -> Vec<Claim> {
        self.table.claims(call)
    }

    fn teach(&mut self, _now: Instant, call: CallId, claims: &[Claim]) {
        self.table.teach(call, claims);
    }
}

impl StandsBy for Fake {
    fn stand_by(&mut self, call: CallId, streams: &[StreamPlan]) {
        self.table.stand_by(call, streams);
    }
}

impl Dataplane for Fake {
    /// # Panics
    /// If an operation is used twice, or a plan is one that no dataplane could carry: m-lines out of order or twice, an
    /// odd RTP port, a DSCP of more than six bits, an unspecified address of ours or of a peer.
    fn apply(&mut self, now: Instant, op: OpId, command: MediaCommand) {
        self.hear_time(now);
        assert!(self.ops.insert(op), "{op} is used twice");
        let result = self.carry_out(command);
        self.done.push_back(DataplaneEvent::Done { op, result });
    }

    fn poll_event(&mut self) -> Option<DataplaneEvent> {
        self.done.pop_front().or_else(|| self.table.poll_event().map(DataplaneEvent::Media))
    }

    fn guard(&mut self, command: &GuardCommand) {
        self.guarded.push(command.clone());
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.hear_time(now);
    }

    fn counters(&self, call: CallId) -> Vec<StreamCounters> {
        self.table.counters(call)
    }

    fn snapshot(&self) -> Vec<CallId> {
        self.table.calls()
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use sbc_core::id::RealmId;
    use sbc_core::media::plan::{MediaPace, PeerMedia, SourcePolicy, StreamPlan, StreamSide};

    use super::*;

    fn plan(change: impl FnOnce(&mut MediaPlan)) -> MediaCommand {
        let side = |port| StreamSide {
            realm: RealmId(0),
            local_ip: "192.0.2.1".parse().unwrap(),
            local_rtp_port: port,
            peer: Some(PeerMedia {
                rtp: "192.0.2.9:4000".parse().unwrap(),
                rtcp: "192.0.2.9:4001".parse().unwrap(),
            }),
            source: SourcePolicy::Signalled,
            dscp: 46,
            rtcp_mux: false,
            pace: MediaPace::default(),
        };
        let stream = StreamPlan { mline: 0, caller: side(20_000), callee: side(20_002) };
        let mut plan = MediaPlan { call: CallId(1), streams: vec![stream] };
        change(&mut plan);
        MediaCommand::Install(plan)
    }

    #[test]
    fn a_failure_that_was_asked_for_changes_nothing_and_comes_once() {
        let (mut fake, now) = (Fake::new(Placement::Kernel), Instant::now());
        fake.fail_next(MediaError::Full("slots"));
        fake.apply(now, OpId(1), plan(|_| ()));
        let result = Err(MediaError::Full("slots"));
        assert_eq!(fake.poll_event(), Some(DataplaneEvent::Done { op: OpId(1), result }));
        assert_eq!(fake.snapshot(), []);
        fake.apply(now, OpId(2), plan(|_| ()));
        assert!(matches!(fake.poll_event(), Some(DataplaneEvent::Done { result: Ok(_), .. })));
        assert_eq!(fake.snapshot(), [CallId(1)]);
    }

    #[test]
    fn a_peer_cannot_be_on_our_loopback_interface() {
        let (mut fake, now) = (Fake::new(Placement::Relay), Instant::now());
        let inside: SocketAddr = "127.0.0.1:4001".parse().unwrap();
        let plan = plan(|plan| plan.streams[0].caller.peer.iter_mut().for_each(|peer| peer.rtcp = inside));
        fake.apply(now, OpId(1), plan);
        let result = Err(MediaError::NoRoute(inside));
        assert_eq!(fake.poll_event(), Some(DataplaneEvent::Done { op: OpId(1), result }));
    }

    #[test]
    fn a_plan_that_nothing_could_carry_is_a_fault_of_the_engine() {
        let faults: [fn(&mut MediaPlan); 6] = [
            |plan| plan.streams[0].caller.local_rtp_port = 20_001,
            |plan| plan.streams[0].callee.local_rtp_port = 0,
            |plan| plan.streams[0].callee.dscp = 64,
            |plan| plan.streams[0].caller.local_ip = "0.0.0.0".parse().unwrap(),
            |plan| plan.streams[0].caller.peer.iter_mut().for_each(|peer| peer.rtcp.set_port(0)),
            |plan| plan.streams.push(plan.streams[0].clone()),
        ];
        for fault in faults {
            let mut fake = Fake::new(Placement::Kernel);
            let apply = || fake.apply(Instant::now(), OpId(1), plan(fault));
            assert!(catch_unwind(AssertUnwindSafe(apply)).is_err());
        }
        let mut fake = Fake::new(Placement::Kernel);
        fake.apply(Instant::now(), OpId(1), plan(|_| ()));
        let again = || fake.apply(Instant::now(), OpId(1), plan(|_| ()));
        assert!(catch_unwind(AssertUnwindSafe(again)).is_err(), "an operation is used once");
    }
}
