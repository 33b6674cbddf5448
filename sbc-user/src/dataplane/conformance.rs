//! What every dataplane does alike: one suite for the kernel, the relay and the fake.
//!
//! A behaviour that the engine relies on has its case here. What a case needs of the world around the dataplane is a
//! [`Wire`].

#![expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use sbc_common::counter::Counter;
use sbc_core::id::{CallId, OpId, RealmId};
use sbc_core::media::command::{
    DirectionCounters, MediaCommand, MediaDone, MediaError, MediaEvent, MediaResult,
};
use sbc_core::media::plan::{MediaPlan, PeerMedia, Placement, SourcePolicy, StreamPlan, StreamSide};

use super::{Dataplane, DataplaneEvent};

/// A dataplane and the networks on both of its sides.
pub trait Wire {
    /// What is under test, without plans at first.
    fn dataplane(&mut self) -> &mut dyn Dataplane;

    /// The addresses that a case may use.
    fn addresses(&self) -> Addresses;

    /// What must carry every stream.
    fn placement(&self) -> Placement;

    /// Sends a datagram to a port of ours. What leaves for it, if anything does.
    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Option<Datagram>;

    /// How often a datagram had this outcome since the wire was made.
    fn outcome(&self, counter: Counter) -> u64;
}

/// A datagram on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Its source.
    pub from: SocketAddr,
    /// Its destination.
    pub to: SocketAddr,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// Addresses of a wire, all of one family.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Ours on the caller's side.
    pub caller_local: IpAddr,
    /// Ours on the callee's side.
    pub callee_local: IpAddr,
    /// The caller's.
    pub caller: IpAddr,
    /// The callee's.
    pub callee: IpAddr,
    /// Somebody else's, on either side.
    pub stranger: IpAddr,
}

/// A case: its name, and what it does with a fresh wire.
pub type Case = (&'static str, fn(&mut dyn Wire));

/// Every case.
pub const CASES: &[Case] = &[
    ("each command is answered once and in order", each_command_is_answered_once_and_in_order),
    ("packets flow both ways", packets_flow_both_ways),
    ("a wrong source is refused", a_wrong_source_is_refused),
    ("a side without a signalled peer is closed", a_side_without_a_signalled_peer_is_closed),
    ("a learning side is claimed once", a_learning_side_is_claimed_once),
    ("a learning side needs no signalled peer", a_learning_side_needs_no_signalled_peer),
    ("what is not media is dropped and claims nothing", what_is_not_media_is_dropped_and_claims_nothing),
    ("a new peer replaces the old one", a_new_peer_replaces_the_old_one),
    ("an unchanged side keeps its latch", an_unchanged_side_keeps_its_latch),
    ("a changed side learns again", a_changed_side_learns_again),
    ("new ports replace the old ones", new_ports_replace_the_old_ones),
    ("counters outlive an update", counters_outlive_an_update),
    ("remove may be repeated", remove_may_be_repeated),
    ("a taken port leaves nothing of the plan", a_taken_port_leaves_nothing_of_the_plan),
    ("a failed update leaves the old plan", a_failed_update_leaves_the_old_plan),
    ("a plan that leads to itself is refused", a_plan_that_leads_to_itself_is_refused),
    ("the snapshot names the calls", the_snapshot_names_the_calls),
];

/// Every port of the caller's and the callee's address to which a case may expect something to be sent, but for those
/// from which it has sent before.
pub const PEER_PORTS: std::ops::Range<u16> = CALLER..CALLEE + 52;

const CALL: CallId = CallId(7);
const OTHER: CallId = CallId(8);
/// Our ports of the first stream; the second stream's are [`NEXT`] above.
const CALLER_PORT: u16 = 20_000;
const CALLEE_PORT: u16 = 20_100;
/// The peers' ports.
const CALLER: u16 = 30_000;
const CALLEE: u16 = 30_030;
const NEXT: u16 = 2;

/// Longest wait for a command's answer. None of the implementations comes near.
const PATIENCE: Duration = Duration::from_secs(10);

/// A wire with operation numbers and the events that have been heard.
struct Bench<'a> {
    wire: &'a mut dyn Wire,
    at: Addresses,
    next_op: u64,
    sequence: u16,
    heard: Vec<MediaEvent>,
}

impl<'a> Bench<'a> {
    fn new(wire: &'a mut dyn Wire) -> Self {
        let at = wire.addresses();
        Self { wire, at, next_op: 1, sequence: 1, heard: Vec::new() }
    }

    fn now() -> Instant {
        Instant::now()
    }

    fn apply(&mut self, command: MediaCommand) -> OpId {
        let op = OpId(self.next_op);
        self.next_op += 1;
        self.wire.dataplane().apply(Self::now(), op, command);
        op
    }

    /// Polls until as many commands are answered, and whatever else there is to hear.
    fn answers(&mut self, count: usize) -> Vec<(OpId, MediaResult)> {
        let (mut answers, deadline) = (Vec::new(), Self::now() + PATIENCE);
        loop {
            self.poll(&mut answers);
            if answers.len() >= count {
                return answers;
            }
            let now = Self::now();
            assert!(now < deadline, "{} of {count} commands answered", answers.len());
            let wait = self.wire.dataplane().poll_timeout().map(|at| at.saturating_duration_since(now));
            std::thread::sleep(wait.unwrap_or_default().min(Duration::from_millis(5)));
            self.wire.dataplane().handle_timeout(Self::now());
        }
    }

    fn poll(&mut self, answers: &mut Vec<(OpId, MediaResult)>) {
        while let Some(event) = self.wire.dataplane().poll_event() {
            match event {
                DataplaneEvent::Done { op, result } => answers.push((op, result)),
                DataplaneEvent::Media(event) => self.heard.push(event),
            }
        }
    }

    #[track_caller]
    fn command(&mut self, command: MediaCommand) -> MediaResult {
        let op = self.apply(command);
        let mut answers = self.answers(1);
        assert_eq!(answers.len(), 1, "one answer to one command");
        let (answered, result) = answers.remove(0);
        assert_eq!(answered, op);
        result
    }

    #[track_caller]
    fn install(&mut self, plan: &MediaPlan) {
        let placements = vec![self.wire.placement(); plan.streams.len()];
        let done = self.command(MediaCommand::Install(plan.clone()));
        assert_eq!(done, Ok(MediaDone { placements, counters: Vec::new() }));
    }

    /// Claims heard since the last time.
    #[track_caller]
    fn claims(&mut self) -> Vec<MediaEvent> {
        self.wire.dataplane().handle_timeout(Self::now());
        let mut answers = Vec::new();
        self.poll(&mut answers);
        assert_eq!(answers, [], "nothing was asked");
        std::mem::take(&mut self.heard)
    }

    /// Sends RTP (to an even port) or RTCP (to an odd one), and expects it to leave so, unchanged.
    #[track_caller]
    fn passes(&mut self, from: SocketAddr, to: SocketAddr, via: SocketAddr, onwards: SocketAddr) {
        let payload = self.packet(to);
        let left = self.wire.deliver(from, to, &payload);
        assert_eq!(left, Some(Datagram { from: via, to: onwards, payload }), "from {from} to {to}");
    }

    /// Sends the same, and expects it to go nowhere.
    #[track_caller]
    fn stops(&mut self, from: SocketAddr, to: SocketAddr) {
        let payload = self.packet(to);
        assert_eq!(self.wire.deliver(from, to, &payload), None, "from {from} to {to}");
    }

    /// Sends the same, and expects it to go nowhere for this reason.
    #[track_caller]
    fn refused(&mut self, from: SocketAddr, to: SocketAddr, reason: Counter) {
        let before = self.wire.outcome(reason);
        self.stops(from, to);
        assert_eq!(self.wire.outcome(reason), before + 1, "{} from {from} to {to}", reason.name());
    }

    fn packet(&mut self, to: SocketAddr) -> Vec<u8> {
        self.sequence += 1;
        if to.port().is_multiple_of(2) { rtp(self.sequence) } else { rtcp() }
    }

    fn caller(&self) -> SocketAddr {
        SocketAddr::new(self.at.caller, CALLER)
    }

    fn callee(&self) -> SocketAddr {
        SocketAddr::new(self.at.callee, CALLEE)
    }

    fn caller_local(&self) -> SocketAddr {
        SocketAddr::new(self.at.caller_local, CALLER_PORT)
    }

    fn callee_local(&self) -> SocketAddr {
        SocketAddr::new(self.at.callee_local, CALLEE_PORT)
    }

    /// A call's plan of some streams, strict sources on both sides. The streams of `CALL` and `OTHER` share no port.
    fn plan(&self, call: CallId, streams: u8) -> MediaPlan {
        let side = |realm, local_ip, local_rtp_port, peer: SocketAddr| StreamSide {
            realm,
            local_ip,
            local_rtp_port,
            peer: Some(media(peer)),
            source: SourcePolicy::Signalled,
            dscp: 46,
        };
        let offset = if call == CALL { 0 } else { 10 };
        let stream = |mline: u8| {
            let offset = offset + NEXT * u16::from(mline);
            StreamPlan {
                mline,
                caller: side(
                    RealmId(0),
                    self.at.caller_local,
                    CALLER_PORT + offset,
                    up(self.caller(), offset),
                ),
                callee: side(
                    RealmId(1),
                    self.at.callee_local,
                    CALLEE_PORT + offset,
                    up(self.callee(), offset),
                ),
            }
        };
        MediaPlan { call, streams: (0..streams).map(stream).collect() }
    }

    /// One stream, the caller's side of which learns from the caller's address.
    fn learning_plan(&self) -> MediaPlan {
        let mut plan = self.plan(CALL, 1);
        plan.streams[0].caller.source = SourcePolicy::Learn { allowed: self.at.caller };
        plan
    }

    fn latched(&self, source: SocketAddr, rtcp: bool) -> MediaEvent {
        MediaEvent::Latched { call: CALL, mline: 0, caller_side: true, rtcp, source }
    }

    /// RTP packets, RTP bytes and RTCP packets by stream and direction.
    fn counted(&mut self, call: CallId) -> Vec<[(u64, u64, u64); 2]> {
        let counters = self.wire.dataplane().counters(call);
        let kernel = self.wire.placement() == Placement::Kernel;
        let direction = |it: DirectionCounters| {
            let (ours, theirs) =
                if kernel { (it.rtp_kernel, it.rtp_relay) } else { (it.rtp_relay, it.rtp_kernel) };
            assert_eq!(theirs, 0, "counted by what carried it");
            (ours, it.rtp_bytes, it.rtcp)
        };
        counters.iter().map(|stream| [direction(stream.from_caller), direction(stream.from_callee)]).collect()
    }
}

fn media(rtp: SocketAddr) -> PeerMedia {
    PeerMedia { rtp, rtcp: up(rtp, 1) }
}

fn up(address: SocketAddr, ports: u16) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port() + ports)
}

const RTP_BYTES: usize = 172;
const RTCP_BYTES: usize = 28;

/// 20 ms of G.711.
fn rtp(sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x5a; RTP_BYTES];
    packet[..2].copy_from_slice(&[0x80, 0]);
    packet[2..4].copy_from_slice(&sequence.to_be_bytes());
    packet[8..12].copy_from_slice(&[1, 2, 3, 4]);
    packet
}

/// A sender report.
fn rtcp() -> Vec<u8> {
    let mut packet = vec![0x5a; RTCP_BYTES];
    packet[..4].copy_from_slice(&[0x80, 200, 0, 6]);
    packet
}

fn each_command_is_answered_once_and_in_order(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let plan = bench.plan(CALL, 1);
    let ops = [
        bench.apply(MediaCommand::Install(plan.clone())),
        bench.apply(MediaCommand::Install(plan.clone())),
        bench.apply(MediaCommand::Remove(CALL)),
        bench.apply(MediaCommand::Remove(CALL)),
        bench.apply(MediaCommand::Install(plan)),
    ];
    let answers = bench.answers(ops.len());
    assert_eq!(answers.iter().map(|(op, _)| *op).collect::<Vec<_>>(), ops);
    assert!(answers.iter().all(|(_, result)| result.is_ok()), "{answers:?}");
    bench.passes(bench.caller(), bench.caller_local(), bench.callee_local(), bench.callee());
}

fn packets_flow_both_ways(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    bench.install(&bench.plan(CALL, 2));
    for stream in [0, NEXT] {
        for _ in 0..3 {
            bench.passes(
                up(bench.caller(), stream),
                up(bench.caller_local(), stream),
                up(bench.callee_local(), stream),
                up(bench.callee(), stream),
            );
        }
        bench.passes(
            up(bench.callee(), stream),
            up(bench.callee_local(), stream),
            up(bench.caller_local(), stream),
            up(bench.caller(), stream),
        );
        let stream = stream + 1;
        bench.passes(
            up(bench.caller(), stream),
            up(bench.caller_local(), stream),
            up(bench.callee_local(), stream),
            up(bench.callee(), stream),
        );
        bench.passes(
            up(bench.callee(), stream),
            up(bench.callee_local(), stream),
            up(bench.caller_local(), stream),
            up(bench.caller(), stream),
        );
    }
    let expected = [(3, 3 * RTP_BYTES as u64, 1), (1, RTP_BYTES as u64, 1)];
    assert_eq!(bench.counted(CALL), [expected, expected]);
    assert_eq!(bench.claims(), [], "a signalled source claims nothing");
}

fn a_wrong_source_is_refused(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    bench.install(&bench.plan(CALL, 1));
    for (from, to) in [
        (SocketAddr::new(bench.at.stranger, CALLER), bench.caller_local()),
        (up(bench.caller(), 2), bench.caller_local()),
        (up(bench.caller(), 1), bench.caller_local()),
        (bench.callee(), bench.caller_local()),
        (bench.caller(), up(bench.caller_local(), 1)),
        (SocketAddr::new(bench.at.stranger, CALLEE + 1), up(bench.callee_local(), 1)),
    ] {
        bench.refused(from, to, Counter::DropWrongSource);
    }
    assert_eq!(bench.counted(CALL), [[(0, 0, 0); 2]]);
    bench.passes(bench.caller(), bench.caller_local(), bench.callee_local(), bench.callee());
}

fn a_side_without_a_signalled_peer_is_closed(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let mut plan = bench.plan(CALL, 1);
    plan.streams[0].callee.peer = None;
    bench.install(&plan);
    // Whether as a wrong source or as a port without a flow is the implementation's choice.
    bench.stops(bench.callee(), bench.callee_local());
    bench.refused(bench.caller(), bench.caller_local(), Counter::DropNoDestination);
    assert_eq!(bench.counted(CALL), [[(0, 0, 0); 2]]);
}

fn a_learning_side_is_claimed_once(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    bench.install(&bench.learning_plan());
    let (ours, theirs) = (bench.caller_local(), bench.callee_local());
    let behind_nat = SocketAddr::new(bench.at.caller, 61_234);
    bench.passes(bench.callee(), theirs, ours, bench.caller());
    bench.refused(SocketAddr::new(bench.at.stranger, CALLER), ours, Counter::DropWrongSource);
    bench.passes(behind_nat, ours, theirs, bench.callee());
    assert_eq!(bench.claims(), [bench.latched(behind_nat, false)]);
    bench.passes(bench.callee(), theirs, ours, behind_nat);
    bench.refused(bench.caller(), ours, Counter::DropWrongSource);
    bench.refused(up(behind_nat, 1), ours, Counter::DropWrongSource);
    bench.passes(behind_nat, ours, theirs, bench.callee());

    let rtcp_behind_nat = up(behind_nat, 7);
    bench.passes(bench.callee_rtcp(), up(theirs, 1), up(ours, 1), up(bench.caller(), 1));
    bench.passes(rtcp_behind_nat, up(ours, 1), up(theirs, 1), bench.callee_rtcp());
    assert_eq!(bench.claims(), [bench.latched(rtcp_behind_nat, true)]);
    bench.passes(bench.callee_rtcp(), up(theirs, 1), up(ours, 1), rtcp_behind_nat);
    bench.refused(behind_nat, up(ours, 1), Counter::DropWrongSource);
    assert_eq!(bench.claims(), []);
}

impl Bench<'_> {
    fn callee_rtcp(&self) -> SocketAddr {
        up(self.callee(), 1)
    }
}

fn a_learning_side_needs_no_signalled_peer(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let mut plan = bench.learning_plan();
    plan.streams[0].caller.peer = None;
    bench.install(&plan);
    bench.refused(bench.callee(), bench.callee_local(), Counter::DropNoDestination);
    let source = SocketAddr::new(bench.at.caller, 61_234);
    bench.passes(source, bench.caller_local(), bench.callee_local(), bench.callee());
    bench.passes(bench.callee(), bench.callee_local(), bench.caller_local(), source);
}

fn what_is_not_media_is_dropped_and_claims_nothing(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    bench.install(&bench.learning_plan());
    let (caller, ours) = (bench.caller(), bench.caller_local());
    let with_first = |byte| {
        let mut packet = rtp(1);
        packet[0] = byte;
        packet
    };
    let mut many_sources = rtp(1);
    many_sources.truncate(40);
    many_sources[0] = 0x8f;
    for (port, payload, reason) in [
        (0, rtp(1)[..11].to_vec(), Counter::DropShortMedia),
        (0, vec![0x80; 4], Counter::DropShortMedia),
        (0, many_sources, Counter::DropShortMedia),
        (0, with_first(0), Counter::DropStun),
        (0, with_first(22), Counter::DropDtls),
        (0, with_first(0x40), Counter::DropNotRtp),
        (0, with_first(0xff), Counter::DropNotRtp),
        (0, rtcp(), Counter::DropWrongKind),
        (1, rtp(1), Counter::DropWrongKind),
        (1, rtcp()[..20].to_vec(), Counter::DropShortMedia),
    ] {
        let before = bench.wire.outcome(reason);
        let left = bench.wire.deliver(up(caller, port), up(ours, port), &payload);
        assert_eq!(left, None, "{}", reason.name());
        assert_eq!(bench.wire.outcome(reason), before + 1, "{}", reason.name());
    }
    assert_eq!(bench.claims(), []);
    assert_eq!(bench.counted(CALL), [[(0, 0, 0); 2]]);
    let source = SocketAddr::new(bench.at.caller, 61_234);
    bench.passes(source, ours, bench.callee_local(), bench.callee());
    assert_eq!(bench.claims(), [bench.latched(source, false)], "the port was still to be claimed");
}

fn a_new_peer_replaces_the_old_one(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let mut plan = bench.plan(CALL, 1);
    bench.install(&plan);
    let moved = up(bench.callee(), 50);
    plan.streams[0].callee.peer = Some(media(moved));
    bench.install(&plan);
    bench.passes(bench.caller(), bench.caller_local(), bench.callee_local(), moved);
    bench.passes(moved, bench.callee_local(), bench.caller_local(), bench.caller());
    bench.passes(
        up(bench.caller(), 1),
        up(bench.caller_local(), 1),
        up(bench.callee_local(), 1),
        up(moved, 1),
    );
    bench.refused(bench.callee(), bench.callee_local(), Counter::DropWrongSource);
}

fn an_unchanged_side_keeps_its_latch(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let mut plan = bench.learning_plan();
    bench.install(&plan);
    let source = SocketAddr::new(bench.at.caller, 61_234);
    bench.passes(source, bench.caller_local(), bench.callee_local(), bench.callee());
    assert_eq!(bench.claims(), [bench.latched(source, false)]);

    let moved = up(bench.callee(), 50);
    plan.streams[0].callee.peer = Some(media(moved));
    plan.streams[0].caller.dscp = 0;
    bench.install(&plan);
    bench.passes(moved, bench.callee_local(), bench.caller_local(), source);
    bench.refused(bench.caller(), bench.caller_local(), Counter::DropWrongSource);
    bench.passes(source, bench.caller_local(), bench.callee_local(), moved);
    assert_eq!(bench.claims(), [], "claimed before, not again");
    let rtcp = up(source, 1);
    bench.passes(rtcp, up(bench.caller_local(), 1), up(bench.callee_local(), 1), up(moved, 1));
    assert_eq!(bench.claims(), [bench.latched(rtcp, true)], "RTCP was still to be claimed");
}

fn a_changed_side_learns_again(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let mut plan = bench.learning_plan();
    bench.install(&plan);
    let (old, new) = (SocketAddr::new(bench.at.caller, 61_234), SocketAddr::new(bench.at.caller, 61_300));
    bench.passes(old, bench.caller_local(), bench.callee_local(), bench.callee());
    assert_eq!(bench.claims(), [bench.latched(old, false)]);

    plan.streams[0].caller.peer = Some(media(up(bench.caller(), 20)));
    bench.install(&plan);
    bench.passes(bench.callee(), bench.callee_local(), bench.caller_local(), up(bench.caller(), 20));
    bench.passes(new, bench.caller_local(), bench.callee_local(), bench.callee());
    assert_eq!(bench.claims(), [bench.latched(new, false)]);
    bench.refused(old, bench.caller_local(), Counter::DropWrongSource);
    bench.passes(bench.callee(), bench.callee_local(), bench.caller_local(), new);
}

fn new_ports_replace_the_old_ones(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let mut plan = bench.plan(CALL, 1);
    bench.install(&plan);
    plan.streams[0].caller.local_rtp_port += 20;
    bench.install(&plan);
    let moved = up(bench.caller_local(), 20);
    bench.passes(bench.caller(), moved, bench.callee_local(), bench.callee());
    bench.passes(bench.callee(), bench.callee_local(), moved, bench.caller());
    bench.stops(bench.caller(), bench.caller_local());
    bench.stops(up(bench.caller(), 1), up(bench.caller_local(), 1));

    let mut other = bench.plan(OTHER, 1);
    other.streams[0].caller.local_rtp_port = CALLER_PORT;
    bench.install(&other);
}

fn counters_outlive_an_update(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let mut plan = bench.plan(CALL, 1);
    bench.install(&plan);
    bench.passes(bench.caller(), bench.caller_local(), bench.callee_local(), bench.callee());
    let moved = up(bench.callee(), 50);
    plan.streams[0].callee.peer = Some(media(moved));
    bench.install(&plan);
    bench.passes(bench.caller(), bench.caller_local(), bench.callee_local(), moved);
    plan.streams[0].caller.local_rtp_port += 20;
    bench.install(&plan);
    bench.passes(bench.caller(), up(bench.caller_local(), 20), bench.callee_local(), moved);
    assert_eq!(bench.counted(CALL), [[(3, 3 * RTP_BYTES as u64, 0), (0, 0, 0)]]);
}

fn remove_may_be_repeated(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    assert_eq!(bench.command(MediaCommand::Remove(CALL)), Ok(MediaDone::default()));
    bench.install(&bench.plan(CALL, 1));
    for sequence in [1, 2, 5] {
        let left = bench.wire.deliver(bench.caller(), bench.caller_local(), &rtp(sequence));
        assert_eq!(left.map(|datagram| datagram.to), Some(bench.callee()));
    }
    let before = bench.wire.dataplane().counters(CALL);
    let done = bench.command(MediaCommand::Remove(CALL)).unwrap();
    assert_eq!(done.placements, []);
    assert_eq!(done.counters, before, "the last counters are the final ones");
    let [stream] = done.counters[..] else { panic!("one stream, {} counted", done.counters.len()) };
    assert_eq!((stream.mline, stream.placement), (0, Some(bench.wire.placement())));
    assert_eq!(stream.from_caller.rtp_kernel + stream.from_caller.rtp_relay, 3);
    assert!(matches!(stream.from_caller.lost, None | Some(2)), "{:?}", stream.from_caller.lost);

    assert_eq!(bench.command(MediaCommand::Remove(CALL)), Ok(MediaDone::default()));
    bench.stops(bench.caller(), bench.caller_local());
    bench.stops(bench.callee(), bench.callee_local());
    assert_eq!(bench.wire.dataplane().counters(CALL), []);
    assert_eq!(bench.wire.dataplane().snapshot(), []);
    bench.install(&bench.plan(CALL, 1));
    bench.passes(bench.caller(), bench.caller_local(), bench.callee_local(), bench.callee());
    assert_eq!(bench.counted(CALL), [[(1, RTP_BYTES as u64, 0), (0, 0, 0)]], "counted from zero");
}

fn a_taken_port_leaves_nothing_of_the_plan(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    bench.install(&bench.plan(CALL, 1));
    let mut other = bench.plan(OTHER, 2);
    other.streams[1].callee.local_rtp_port = CALLEE_PORT;
    let refused = bench.command(MediaCommand::Install(other));
    assert_eq!(refused, Err(MediaError::PortInUse(bench.callee_local())));
    assert_eq!(bench.wire.dataplane().snapshot(), [CALL]);
    bench.stops(up(bench.caller(), 10), up(bench.caller_local(), 10));
    bench.stops(up(bench.callee(), 10), up(bench.callee_local(), 10));
    bench.passes(bench.caller(), bench.caller_local(), bench.callee_local(), bench.callee());
    bench.passes(bench.callee(), bench.callee_local(), bench.caller_local(), bench.caller());

    let mut twice = bench.plan(OTHER, 2);
    twice.streams[1].caller.local_rtp_port = twice.streams[0].caller.local_rtp_port;
    let refused = bench.command(MediaCommand::Install(twice));
    assert_eq!(refused, Err(MediaError::PortInUse(up(bench.caller_local(), 10))), "also within one plan");
    bench.install(&bench.plan(OTHER, 2));
}

fn a_failed_update_leaves_the_old_plan(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let plan = bench.learning_plan();
    bench.install(&plan);
    bench.install(&bench.plan(OTHER, 1));
    let source = SocketAddr::new(bench.at.caller, 61_234);
    bench.passes(source, bench.caller_local(), bench.callee_local(), bench.callee());

    let mut update = bench.plan(CALL, 2);
    update.streams[0].callee.peer = Some(media(up(bench.callee(), 50)));
    update.streams[1].caller.local_rtp_port = CALLER_PORT + 10;
    let refused = bench.command(MediaCommand::Install(update));
    assert_eq!(refused, Err(MediaError::PortInUse(up(bench.caller_local(), 10))));
    bench.passes(source, bench.caller_local(), bench.callee_local(), bench.callee());
    bench.passes(bench.callee(), bench.callee_local(), bench.caller_local(), source);
    bench.refused(bench.caller(), bench.caller_local(), Counter::DropWrongSource);
    bench.stops(up(bench.callee(), NEXT), up(bench.callee_local(), NEXT));
    assert_eq!(bench.counted(CALL).len(), 1);
}

fn a_plan_that_leads_to_itself_is_refused(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    for own in [bench.caller_local(), bench.callee_local(), up(bench.callee_local(), 1)] {
        let mut plan = bench.plan(CALL, 1);
        plan.streams[0].caller.peer = Some(PeerMedia { rtp: own, rtcp: up(bench.caller(), 1) });
        let refused = bench.command(MediaCommand::Install(plan));
        assert!(
            matches!(refused, Err(MediaError::NoRoute(_) | MediaError::NotOurs(_))),
            "{own}: {refused:?}"
        );
    }
    assert_eq!(bench.wire.dataplane().snapshot(), []);
}

fn the_snapshot_names_the_calls(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    assert_eq!(bench.wire.dataplane().snapshot(), []);
    bench.install(&bench.plan(OTHER, 1));
    bench.install(&bench.plan(CALL, 2));
    let mut calls = bench.wire.dataplane().snapshot();
    calls.sort_unstable();
    assert_eq!(calls, [CALL, OTHER]);
    let streams: BTreeMap<CallId, usize> =
        calls.into_iter().map(|call| (call, bench.wire.dataplane().counters(call).len())).collect();
    assert_eq!(streams, BTreeMap::from([(CALL, 2), (OTHER, 1)]));
    bench.command(MediaCommand::Remove(OTHER)).unwrap();
    assert_eq!(bench.wire.dataplane().snapshot(), [CALL]);
}
