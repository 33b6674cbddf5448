use std::collections::BTreeSet;
use std::net::SocketAddr;

use sbc_core::config::Prefix;
use sbc_core::id::RealmId;
use sbc_core::media::command::MediaEvent;
use sbc_core::media::plan::{LearnWindow, MediaPace, PeerMedia, SourcePolicy, StreamSide};

use super::*;
use crate::dataplane::fake::Fake;

const CALL: CallId = CallId(3);
const RTP: [u8; 12] = [0x80, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4];

/// A kernel that objects to chosen m-lines, and answers only when it is let.
struct TestKernel {
    fake: Fake,
    refuses: BTreeSet<u8>,
    relayed: Vec<u8>,
    silent: bool,
}

impl Dataplane for TestKernel {
    fn apply(&mut self, now: Instant, op: OpId, command: MediaCommand) {
        self.fake.apply(now, op, command);
    }

    fn poll_event(&mut self) -> Option<DataplaneEvent> {
        if self.silent { None } else { self.fake.poll_event() }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.fake.handle_timeout(now);
    }

    fn counters(&self, call: CallId) -> Vec<StreamCounters> {
        self.fake.counters(call)
    }

    fn snapshot(&self) -> Vec<CallId> {
        self.fake.snapshot()
    }
}

impl Carrier for TestKernel {
    fn claims(&self, call: CallId) -> Vec<Claim> {
        self.fake.claims(call)
    }

    fn teach(&mut self, now: Instant, call: CallId, claims: &[Claim]) {
        self.fake.teach(now, call, claims);
    }
}

impl Kernel for TestKernel {
    fn objection(&mut self, _now: Instant, _call: CallId, stream: &StreamPlan) -> Option<Objection> {
        let error = || MediaError::NotOurs(([127, 0, 0, 1], 0).into());
        self.refuses.contains(&stream.mline).then(|| RelayReason::PeerOnThisHost.because(error()))
    }

    fn relay_streams(&mut self, _call: CallId, streams: &[StreamPlan]) {
        self.relayed = streams.iter().map(|stream| stream.mline).collect();
    }

    fn adopt(&mut self, plan: &MediaPlan, left: &[(u8, [KernelPair; 2])]) -> bool {
        let found = plan.streams.iter().all(|stream| left.iter().any(|(mline, _)| *mline == stream.mline));
        if found {
            self.fake.apply(Instant::now(), OpId(u64::MAX), MediaCommand::Install(plan.clone()));
            while self.fake.poll_event().is_some() {}
        }
        found
    }

    fn left(&self, call: CallId) -> Vec<(u8, [KernelPair; 2])> {
        let pair = KernelPair { generation: 1, kept: [None; 2], base: [vec![], vec![]] };
        let counters = self.fake.counters(call);
        counters.iter().map(|stream| (stream.mline, [pair.clone(), pair.clone()])).collect()
    }
}

struct Bench {
    choice: Choice<TestKernel, Fake>,
    next: u64,
}

impl Bench {
    fn new(refuses: &[u8]) -> Self {
        let refuses = refuses.iter().copied().collect();
        let fake = Fake::new(Placement::Kernel);
        let kernel = TestKernel { fake, refuses, relayed: Vec::new(), silent: false };
        Self { choice: Choice::new(Some(kernel), Fake::new(Placement::Relay)), next: 100 }
    }

    fn kernel(&mut self) -> &mut TestKernel {
        self.choice.kernel.as_mut().unwrap()
    }

    /// Takes in what there is to hear.
    fn hear(&mut self) {
        self.choice.handle_timeout(Instant::now());
        while self.choice.poll_event().is_some() {}
    }

    fn apply(&mut self, command: MediaCommand) -> OpId {
        self.next += 1;
        self.choice.apply(Instant::now(), OpId(self.next), command);
        OpId(self.next)
    }

    fn done(&mut self) -> Option<(OpId, MediaResult)> {
        match self.choice.poll_event()? {
            DataplaneEvent::Done { op, result } => Some((op, result)),
            DataplaneEvent::Media(event) => panic!("{event:?}"),
            DataplaneEvent::Guard(event) => panic!("{event:?}"),
        }
    }

    fn install(&mut self, streams: &[StreamPlan]) -> Result<Vec<Placement>, MediaError> {
        let op = self.apply(MediaCommand::Install(MediaPlan { call: CALL, streams: streams.to_vec() }));
        let (answered, result) = self.done().expect("an answer");
        assert_eq!(answered, op);
        assert_eq!(self.done(), None, "exactly one");
        result.map(|done| done.placements)
    }

    /// What was counted of reasons, without those that were not.
    fn reasons(&self) -> Vec<(&'static str, u64)> {
        self.choice.relay_streams().into_iter().filter(|(_, count)| *count > 0).collect()
    }

    /// A packet from the caller of the stream; whether it was forwarded.
    fn packet(&mut self, mline: u8) -> bool {
        let stream = stream(mline);
        let from = stream.caller.peer.unwrap().rtp;
        let to = SocketAddr::new(stream.caller.local_ip, stream.caller.local_rtp_port);
        self.kernel()
            .fake
            .deliver(from, to, &RTP)
            .or_else(|| self.choice.relay.deliver(from, to, &RTP))
            .is_some()
    }
}

fn stream(mline: u8) -> StreamPlan {
    let side = |ours: u16, peer: [u8; 4]| {
        let port = 40_000 + u16::from(mline) * 2;
        StreamSide {
            realm: RealmId(0),
            local_ip: [203, 0, 113, 1].into(),
            local_rtp_port: ours + u16::from(mline) * 2,
            peer: Some(PeerMedia { rtp: (peer, port).into(), rtcp: (peer, port + 1).into() }),
            source: SourcePolicy::Signalled,
            dscp: 46,
            rtcp_mux: false,
            pace: MediaPace::default(),
        }
    };
    StreamPlan { mline, caller: side(20_000, [192, 0, 2, 1]), callee: side(30_000, [198, 51, 100, 1]) }
}

#[test]
fn each_stream_is_carried_by_what_can() {
    let mut bench = Bench::new(&[1]);
    let placements = bench.install(&[stream(0), stream(1), stream(2)]);
    assert_eq!(placements, Ok(vec![Placement::Kernel, Placement::Relay, Placement::Kernel]));
    assert_eq!(bench.kernel().relayed, [1]);
    assert!((0..3).all(|mline| bench.packet(mline)));
    let counters = bench.choice.counters(CALL);
    assert_eq!(counters.iter().map(|stream| stream.mline).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(counters[0].from_caller.rtp_kernel, 1);
    assert_eq!((counters[1].from_caller.rtp_relay, counters[1].placement), (1, Some(Placement::Relay)));
    assert_eq!(bench.choice.snapshot(), [CALL]);
}

#[test]
fn the_final_counters_hold_what_both_carriers_counted() {
    let mut bench = Bench::new(&[]);
    bench.install(&[stream(0)]).unwrap();
    assert!(bench.packet(0) && bench.packet(0));
    bench.kernel().refuses.insert(0);
    assert_eq!(bench.install(&[stream(0)]), Ok(vec![Placement::Relay]));
    assert!(bench.packet(0));
    assert_eq!(bench.choice.counters(CALL)[0].from_caller.rtp_kernel, 2);

    bench.apply(MediaCommand::Remove(CALL));
    let (_, result) = bench.done().unwrap();
    let counters = result.unwrap().counters;
    assert_eq!((counters[0].from_caller.rtp_kernel, counters[0].from_caller.rtp_relay), (2, 1));
    assert_eq!(counters[0].placement, Some(Placement::Relay));
    assert!(bench.choice.snapshot().is_empty() && bench.choice.calls.is_empty());
    assert!(bench.kernel().relayed.is_empty());
    assert!(!bench.packet(0));
}

#[test]
fn what_the_kernel_fails_to_take_the_relay_takes() {
    let mut bench = Bench::new(&[]);
    bench.kernel().fake.fail_next(MediaError::NoRoute(([198, 51, 100, 1], 0).into()));
    assert_eq!(bench.install(&[stream(0), stream(1)]), Ok(vec![Placement::Relay; 2]));
    assert_eq!(bench.kernel().relayed, [0, 1]);
    assert!(bench.kernel().fake.snapshot().is_empty());
}

#[test]
fn each_stream_of_the_relay_is_counted_once_with_its_reason() {
    let mut bench = Bench::new(&[1, 2]);
    assert_eq!(bench.reasons(), []);
    bench.install(&[stream(0), stream(1), stream(2)]).unwrap();
    assert_eq!(bench.reasons(), [("peer_on_this_host", 2)]);
    // The same plan again is nothing new.
    bench.install(&[stream(0), stream(1), stream(2)]).unwrap();
    assert_eq!(bench.reasons(), [("peer_on_this_host", 2)]);
    // What the kernel refuses later has a reason of its own; the others keep theirs.
    bench.kernel().fake.fail_next(MediaError::NoRoute(([198, 51, 100, 1], 0).into()));
    bench.install(&[stream(0), stream(1)]).unwrap();
    assert_eq!(bench.reasons(), [("peer_on_this_host", 2), ("no_route", 1)]);
    // A plan that fails counts nothing; a stream that the kernel had meanwhile is counted again.
    bench.kernel().refuses.clear();
    bench.install(&[stream(0), stream(1)]).unwrap();
    bench.kernel().refuses.insert(1);
    bench.choice.relay.fail_next(MediaError::Full("sockets"));
    assert!(bench.install(&[stream(0), stream(1)]).is_err());
    assert_eq!(bench.reasons(), [("peer_on_this_host", 2), ("no_route", 1)]);
    bench.install(&[stream(0), stream(1)]).unwrap();
    assert_eq!(bench.reasons(), [("peer_on_this_host", 3), ("no_route", 1)]);
}

#[test]
fn a_port_of_another_call_is_not_given_to_the_relay() {
    let mut bench = Bench::new(&[]);
    bench.install(&[stream(0)]).unwrap();
    let plan = MediaPlan { call: CallId(9), streams: vec![stream(0)] };
    bench.apply(MediaCommand::Install(plan));
    assert!(matches!(bench.done(), Some((_, Err(MediaError::PortInUse(_))))));
    assert_eq!(bench.choice.snapshot(), [CALL]);
    assert!(bench.packet(0) && bench.choice.relay.snapshot().is_empty());
}

#[test]
fn a_failing_relay_undoes_what_the_kernel_took() {
    let mut bench = Bench::new(&[1]);
    bench.choice.relay.fail_next(MediaError::Full("sockets"));
    assert_eq!(bench.install(&[stream(0), stream(1)]), Err(MediaError::Full("sockets")));
    assert!(bench.kernel().fake.snapshot().is_empty() && bench.choice.calls.is_empty());

    bench.install(&[stream(0), stream(1)]).unwrap();
    assert!(bench.packet(0) && bench.packet(1));
    bench.kernel().refuses.extend([0, 2]);
    bench.choice.relay.fail_next(MediaError::Full("sockets"));
    assert!(bench.install(&[stream(0), stream(1), stream(2)]).is_err());
    assert_eq!(bench.kernel().relayed, [1]);
    assert!(bench.packet(0) && bench.packet(1));
    let counters = bench.choice.counters(CALL);
    assert_eq!(counters.len(), 2, "the plan before");
    assert_eq!((counters[0].from_caller.rtp_kernel, counters[1].from_caller.rtp_relay), (2, 2));
}

#[test]
fn commands_of_a_call_wait_for_each_other_and_not_for_those_of_others() {
    let mut bench = Bench::new(&[]);
    bench.kernel().silent = true;
    let install = bench.apply(MediaCommand::Install(MediaPlan { call: CALL, streams: vec![stream(0)] }));
    let remove = bench.apply(MediaCommand::Remove(CALL));
    assert_eq!(bench.done(), None);
    let other = bench.apply(MediaCommand::Remove(CallId(9)));
    assert_eq!(bench.done().map(|(op, _)| op), Some(other));
    bench.kernel().silent = false;
    bench.choice.handle_timeout(Instant::now());
    assert_eq!(bench.done().map(|(op, _)| op), Some(install));
    let (op, result) = bench.done().unwrap();
    assert_eq!((op, result.unwrap().counters.len()), (remove, 1));
    assert!(bench.choice.calls.is_empty() && bench.choice.steps.is_empty());
}

#[test]
fn without_a_kernel_the_relay_carries_everything() {
    let mut choice = Choice::<TestKernel, Fake>::new(None, Fake::new(Placement::Relay));
    let command = MediaCommand::Install(MediaPlan { call: CALL, streams: vec![stream(0)] });
    choice.apply(Instant::now(), OpId(1), command);
    let Some(DataplaneEvent::Done { result: Ok(done), .. }) = choice.poll_event() else {
        panic!("no answer")
    };
    assert_eq!(done.placements, [Placement::Relay]);
    assert!(choice.relay_streams().contains(&("no_kernel", 1)));
    choice.apply(Instant::now(), OpId(2), MediaCommand::Remove(CALL));
    assert!(matches!(choice.poll_event(), Some(DataplaneEvent::Done { op: OpId(2), result: Ok(_) })));
}

#[test]
fn events_of_both_carriers_are_passed_on() {
    let mut bench = Bench::new(&[1]);
    let learning = |mline| {
        let mut plan = stream(mline);
        plan.caller.source = SourcePolicy::learn_from(plan.caller.peer.unwrap().rtp.ip());
        plan
    };
    bench.install(&[learning(0), learning(1)]).unwrap();
    assert!(bench.packet(0) && bench.packet(1));
    bench.choice.handle_timeout(Instant::now());
    for _ in 0..2 {
        let event = bench.choice.poll_event();
        assert!(matches!(event, Some(DataplaneEvent::Media(MediaEvent::Latched { caller_side: true, .. }))));
    }
}

/// What one daemon leaves, the next carries on: the kernel's streams as they are, the relay's anew.
#[test]
fn a_plan_that_was_left_is_taken_over_whole_or_not_at_all() {
    let mut before = Bench::new(&[1]);
    before.install(&[stream(0), stream(1)]).unwrap();
    let left = before.choice.checkpoint(CALL).unwrap();
    assert_eq!(left.placements, [Placement::Kernel, Placement::Relay]);
    assert_eq!(left.kernel.iter().map(|(mline, _)| *mline).collect::<Vec<_>>(), [0]);

    let mut after = Bench::new(&[]);
    assert!(after.choice.adopt(Instant::now(), &left));
    assert_eq!(after.done(), None, "nobody asked");
    assert!(after.packet(0) && after.packet(1));
    assert_eq!((after.choice.snapshot(), &after.kernel().relayed[..]), (vec![CALL], &[1][..]));
    assert_eq!(after.choice.checkpoint(CALL), Some(left.clone()));
    // Its ports are its own.
    let other = MediaPlan { call: CallId(4), streams: vec![stream(0)] };
    let op = after.apply(MediaCommand::Install(other.clone()));
    assert!(matches!(after.done(), Some((answered, Err(MediaError::PortInUse(_)))) if answered == op));

    // The kernel has lost it: nothing of it is carried, and its ports are free.
    let mut after = Bench::new(&[]);
    assert!(!after.choice.adopt(Instant::now(), &MediaCheckpoint { kernel: Vec::new(), ..left }));
    assert!(!after.packet(0) && !after.packet(1));
    assert_eq!(after.choice.snapshot(), []);
    after.apply(MediaCommand::Install(other));
    assert!(matches!(after.done(), Some((_, Ok(_)))));
}

/// The stream, learning its caller.
fn learning(opening: u32) -> StreamPlan {
    let mut plan = stream(0);
    let allowed = Prefix::host(plan.caller.peer.unwrap().rtp.ip());
    plan.caller.source = SourcePolicy::Learn { allowed, window: LearnWindow { opening, open: true } };
    plan
}

#[test]
fn what_was_learned_goes_with_the_stream_to_another_carrier() {
    let mut bench = Bench::new(&[]);
    bench.install(&[learning(1)]).unwrap();
    let plan = learning(1);
    let port = SocketAddr::new(plan.caller.local_ip, plan.caller.local_rtp_port);
    let ours = SocketAddr::new(plan.callee.local_ip, plan.callee.local_rtp_port);
    let callee = plan.callee.peer.unwrap().rtp;
    let [claimer, late] = [61_000, 61_001].map(|at| SocketAddr::new(plan.caller.peer.unwrap().rtp.ip(), at));
    assert!(bench.kernel().fake.deliver(claimer, port, &RTP).is_some());

    for (refused, carrier) in [(true, Placement::Relay), (false, Placement::Kernel), (true, Placement::Relay)]
    {
        if refused {
            bench.kernel().refuses.insert(0);
        } else {
            bench.kernel().refuses.clear();
        }
        bench.hear();
        assert_eq!(bench.install(&[learning(1)]), Ok(vec![carrier]));
        let kernel = carrier == Placement::Kernel;
        let fake =
            if kernel { &mut bench.choice.kernel.as_mut().unwrap().fake } else { &mut bench.choice.relay };
        assert_eq!(fake.deliver(late, port, &RTP), None, "{carrier:?}");
        assert_eq!(fake.deliver(claimer, port, &RTP).map(|(_, to)| to), Some(callee));
        assert_eq!(fake.deliver(callee, ours, &RTP).map(|(_, to)| to), Some(claimer));
    }
    // Another opening is another claim, whoever carries it.
    bench.kernel().refuses.clear();
    assert_eq!(bench.install(&[learning(2)]), Ok(vec![Placement::Kernel]));
    assert!(bench.kernel().fake.deliver(late, port, &RTP).is_some());
}

#[test]
fn a_relay_that_fails_leaves_the_kernel_what_it_learned() {
    let mut bench = Bench::new(&[]);
    bench.install(&[learning(1)]).unwrap();
    let plan = learning(1);
    let port = SocketAddr::new(plan.caller.local_ip, plan.caller.local_rtp_port);
    let [claimer, late] = [61_000, 61_001].map(|at| SocketAddr::new(plan.caller.peer.unwrap().rtp.ip(), at));
    assert!(bench.kernel().fake.deliver(claimer, port, &RTP).is_some());
    bench.hear();
    bench.kernel().refuses.insert(0);
    bench.choice.relay.fail_next(MediaError::Full("descriptors"));
    assert_eq!(bench.install(&[learning(1)]), Err(MediaError::Full("descriptors")));
    assert_eq!(bench.kernel().fake.deliver(late, port, &RTP), None);
    assert!(bench.kernel().fake.deliver(claimer, port, &RTP).is_some());
}

#[test]
fn the_relay_stands_by_for_what_the_kernel_passes() {
    let mut bench = Bench::new(&[1]);
    bench.install(&[learning(1), stream(1)]).unwrap();
    let plan = learning(1);
    let port = SocketAddr::new(plan.caller.local_ip, plan.caller.local_rtp_port);
    let callee = plan.callee.peer.unwrap().rtp;
    let ours = SocketAddr::new(plan.callee.local_ip, plan.callee.local_rtp_port);
    let [claimer, late] = [61_000, 61_001].map(|at| SocketAddr::new(plan.caller.peer.unwrap().rtp.ip(), at));
    let relayed = |bench: &mut Bench, from, to| bench.choice.relay.deliver(from, to, &RTP).map(|(_, to)| to);
    // Nobody claims there: whoever the kernel lets through is forwarded, and nothing is heard of it.
    assert_eq!(relayed(&mut bench, late, port), Some(callee));
    assert_eq!(bench.done(), None);
    // Nor does it open ways: whoever carries the stream does.
    let sides = vec![SideOf { mline: 0, caller_side: true }, SideOf { mline: 1, caller_side: true }];
    bench.apply(MediaCommand::Prime { call: CALL, sides });
    assert!(matches!(bench.done(), Some((_, Ok(_)))));
    assert_eq!([bench.kernel().fake.take_sent().len(), bench.choice.relay.take_sent().len()], [2, 2]);
    // It hears of the claim where it is decided.
    assert!(bench.kernel().fake.deliver(claimer, port, &RTP).is_some());
    bench.choice.handle_timeout(Instant::now());
    assert!(matches!(bench.choice.poll_event(), Some(DataplaneEvent::Media(MediaEvent::Latched { .. }))));
    assert_eq!(relayed(&mut bench, late, port), None);
    assert_eq!(relayed(&mut bench, claimer, port), Some(callee));
    assert_eq!(relayed(&mut bench, callee, ours), Some(claimer));
    let counted = bench.choice.counters(CALL)[0];
    assert_eq!((counted.from_caller.rtp_kernel, counted.from_caller.rtp_relay), (1, 2));
    assert_eq!(counted.placement, Some(Placement::Kernel));

    // Another plan of the same: still known, and counted once.
    bench.install(&[learning(1), stream(1)]).unwrap();
    assert_eq!(relayed(&mut bench, late, port), None);
    assert_eq!(relayed(&mut bench, claimer, port), Some(callee));
    assert_eq!(bench.choice.counters(CALL)[0].from_caller.rtp_relay, 3);
    bench.apply(MediaCommand::Remove(CALL));
    let (_, result) = bench.done().unwrap();
    assert_eq!(result.unwrap().counters[0].from_caller.rtp_relay, 3);
    assert_eq!(relayed(&mut bench, claimer, port), None);
}
