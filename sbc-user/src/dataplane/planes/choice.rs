//! Kernel or relay, stream by stream.
//!
//! A command becomes one command to each carrier, one after the other, because the kernel's answer may have to be
//! waited for and decides what is left for the relay:
//!
//! ```text
//!   Install ─► kernel: streams without an objection ──ok──► relay: the others ──ok──► done
//!                      │failed: the relay takes all (but      │failed
//!                      │of a port in use nobody takes any)    │
//!                      └──────────────────────────►           └─► kernel: the plan before ──► failed
//! ```
//!
//! Commands of one call wait for each other; those of different calls do not.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

use sbc_core::guard::{Denial, GuardCommand, Source};
use sbc_core::id::{CallId, OpId};
use sbc_core::media::command::{
    MediaCommand, MediaDone, MediaError, MediaEvent, MediaResult, SideOf, StreamCounters,
};
use sbc_core::media::plan::{MediaPlan, Placement, StreamPlan};

use super::held::HeldPorts;
use crate::dataplane::carrier::{Carrier, Claim, StandsBy};
use crate::dataplane::counters::add_stream;
use crate::dataplane::relay_reason::{Objection, RelayReason, RelayReasons};
use crate::dataplane::xdp::Xdp;
use crate::dataplane::{Dataplane, DataplaneEvent, Difference, KernelPair, MediaCheckpoint};
use crate::trace::{TraceOrder, TraceView};

/// What the choice asks of the kernel besides carrying media.
pub(crate) trait Kernel: Carrier {
    /// Why it cannot carry a stream of a call, as far as is known without waiting.
    fn objection(&mut self, now: Instant, call: CallId, stream: &StreamPlan) -> Option<Objection>;

    /// Lets packets to these streams' ports pass to the relay, and no longer those to streams named before.
    fn relay_streams(&mut self, call: CallId, streams: &[StreamPlan]);

    /// Takes over a plan that an earlier daemon left, if all of it is still there.
    fn adopt(&mut self, plan: &MediaPlan, left: &[(u8, [KernelPair; 2])]) -> bool;

    /// What the next daemon must know to take a call's plan over.
    fn left(&self, call: CallId) -> Vec<(u8, [KernelPair; 2])>;
}

impl Kernel for Xdp {
    fn objection(&mut self, now: Instant, call: CallId, stream: &StreamPlan) -> Option<Objection> {
        Self::objection(self, now, call, stream)
    }

    fn relay_streams(&mut self, call: CallId, streams: &[StreamPlan]) {
        Self::relay_streams(self, call, streams);
    }

    fn adopt(&mut self, plan: &MediaPlan, left: &[(u8, [KernelPair; 2])]) -> bool {
        Self::adopt(self, plan, left)
    }

    fn left(&self, call: CallId) -> Vec<(u8, [KernelPair; 2])> {
        Self::left(self, call)
    }
}

/// Both carriers, and which of them has what.
pub(crate) struct Choice<K, R> {
    /// `None`: no interface runs the program.
    pub(crate) kernel: Option<K>,
    pub(crate) relay: R,
    calls: HashMap<CallId, Call>,
    /// Ports of the plans in force and of those under way.
    ports: HeldPorts,
    /// Commands given to a carrier and not yet answered.
    steps: HashMap<OpId, CallId>,
    next_step: u64,
    /// Streams that went to the relay since the start.
    reasons: RelayReasons,
    events: VecDeque<DataplaneEvent>,
}

#[derive(Default)]
struct Call {
    /// The streams of the plan, in its order, and what carries each; `None` before the first plan.
    plan: Option<Vec<(StreamPlan, Placement)>>,
    /// Why the relay has those that it has, by m-line.
    relayed: BTreeMap<u8, RelayReason>,
    /// Counted by carriers that no longer have the stream, by m-line.
    past: BTreeMap<u8, StreamCounters>,
    task: Option<Task>,
    queue: VecDeque<(OpId, MediaCommand)>,
}

/// A command under way.
struct Task {
    op: OpId,
    step: Step,
    /// The plan that shall be, and what shall carry each stream.
    wanted: Vec<(StreamPlan, Placement)>,
    /// Why the relay shall have those that it shall have, by m-line.
    relayed: BTreeMap<u8, RelayReason>,
    /// What each carrier had counted for streams that it shall not have any more.
    leaving: Vec<StreamCounters>,
    /// Who had claimed ports of the plan before.
    claims: Vec<Claim>,
}

impl Task {
    fn new(op: OpId, step: Step) -> Self {
        Self {
            op,
            step,
            wanted: Vec::new(),
            relayed: BTreeMap::new(),
            leaving: Vec::new(),
            claims: Vec::new(),
        }
    }

    /// The claims that still hold when a plan takes the place of the one before.
    fn claims_under(
        &self,
        before: Option<&[(StreamPlan, Placement)]>,
        after: &[(StreamPlan, Placement)],
    ) -> Vec<Claim> {
        let holds = |claim: &&Claim| {
            let mut pairs = before
                .unwrap_or_default()
                .iter()
                .flat_map(|(before, _)| after.iter().map(move |(after, _)| (before, after)));
            pairs.any(|(before, after)| claim.holds(before, after))
        };
        self.claims.iter().filter(holds).copied().collect()
    }
}

enum Step {
    /// The kernel installs its streams, or gives them up.
    Kernel,
    /// The relay installs its streams, or gives them up.
    Relay,
    /// The relay failed; the kernel returns to the plan before.
    Undo(MediaError),
    /// Both forget the call.
    Remove { answers_due: usize },
    /// Each opens the way to the sides that it has.
    Prime { answers_due: usize },
}

impl<K: Kernel, R: StandsBy> Choice<K, R> {
    pub(crate) fn new(kernel: Option<K>, relay: R) -> Self {
        Self {
            kernel,
            relay,
            calls: HashMap::new(),
            ports: HeldPorts::default(),
            steps: HashMap::new(),
            next_step: 0,
            reasons: RelayReasons::default(),
            events: VecDeque::new(),
        }
    }

    /// Takes over a plan that an earlier daemon left: what the kernel forwards goes on, what the relay carried it carries
    /// again. All of it or nothing.
    pub(crate) fn adopt(&mut self, now: Instant, media: &MediaCheckpoint) -> bool {
        let MediaCheckpoint { plan: MediaPlan { call, streams: all }, placements, kernel: left } = media;
        if all.len() != placements.len() || self.ports.take(*call, all.iter()).is_err() {
            return false;
        }
        let plan: Vec<(StreamPlan, Placement)> =
            all.iter().cloned().zip(placements.iter().copied()).collect();
        let [in_kernel, relayed] = [Placement::Kernel, Placement::Relay]
            .map(|carrier| MediaPlan { call: *call, streams: streams(&plan, carrier) });
        let has_kernel = in_kernel.streams.is_empty()
            || self.kernel.as_mut().is_some_and(|kernel| kernel.adopt(&in_kernel, left));
        if has_kernel && (relayed.streams.is_empty() || self.relay_again(now, &relayed)) {
            if let Some(kernel) = &mut self.kernel {
                kernel.relay_streams(*call, &relayed.streams);
            }
            let again =
                relayed.streams.iter().map(|stream| (stream.mline, RelayReason::RelayedBefore)).collect();
            self.calls.insert(*call, Call { plan: Some(plan), ..Call::default() });
            self.count_relayed(*call, again);
            self.stand_by(now, *call);
            return true;
        }
        if has_kernel && let Some(kernel) = &mut self.kernel {
            // Answered like any other, and heard by nobody.
            kernel.apply(now, OpId(self.next_step), MediaCommand::Remove(*call));
            self.next_step += 1;
        }
        self.ports.give_back(all.iter(), std::iter::empty());
        false
    }

    fn relay_again(&mut self, now: Instant, plan: &MediaPlan) -> bool {
        let op = OpId(self.next_step);
        self.next_step += 1;
        self.relay.apply(now, op, MediaCommand::Install(plan.clone()));
        let mut done = false;
        while let Some(event) = self.relay.poll_event() {
            match event {
                DataplaneEvent::Done { op: answered, result } => {
                    if let Err(error) = &result {
                        tracing::warn!(call = %plan.call, %error, "the relay cannot carry a call of before");
                    }
                    done |= answered == op && result.is_ok();
                }
                event @ (DataplaneEvent::Media(_) | DataplaneEvent::Guard(_)) => self.events.push_back(event),
            }
        }
        done
    }

    /// Takes in what the carriers tell, until they have nothing more to tell.
    fn settle(&mut self, now: Instant) {
        loop {
            let kernels = self.kernel.as_mut().and_then(Dataplane::poll_event);
            let of_kernel = kernels.is_some();
            match kernels.or_else(|| self.relay.poll_event()) {
                None => return,
                Some(DataplaneEvent::Media(event)) => {
                    // Its own claims the relay knows; what it tells late may be void by now.
                    if let (true, MediaEvent::Latched { call, mline, caller_side, rtcp, source }) =
                        (of_kernel, &event)
                    {
                        let (call, mline, caller_side, rtcp, source) =
                            (*call, *mline, *caller_side, *rtcp, *source);
                        self.relay.teach(now, call, &[Claim { mline, caller_side, rtcp, source }]);
                    }
                    self.events.push_back(DataplaneEvent::Media(event));
                }
                Some(event @ DataplaneEvent::Guard(_)) => self.events.push_back(event),
                Some(DataplaneEvent::Done { op, result }) => {
                    if let Some(call) = self.steps.remove(&op) {
                        self.advance(now, call, result);
                    }
                }
            }
        }
    }

    fn begin(&mut self, now: Instant, op: OpId, command: MediaCommand) {
        match command {
            MediaCommand::Install(plan) => {
                if let Err(port) = self.ports.take(plan.call, plan.streams.iter()) {
                    return self.answer(now, plan.call, op, Err(MediaError::PortInUse(port)));
                }
                let mut wanted = Vec::with_capacity(plan.streams.len());
                let mut relayed = BTreeMap::new();
                for stream in plan.streams {
                    let objection = match &mut self.kernel {
                        Some(kernel) => kernel.objection(now, plan.call, &stream),
                        None => {
                            let nowhere = MediaError::NoRoute((stream.caller.local_ip, 0).into());
                            Some(RelayReason::NoKernel.because(nowhere))
                        }
                    };
                    if let Some(Objection { reason, error }) = &objection {
                        relayed.insert(stream.mline, *reason);
                        if self.kernel.is_some() {
                            tracing::debug!(call = %plan.call, mline = stream.mline, reason = %error, "the relay carries a stream");
                        }
                    }
                    wanted.push((
                        stream,
                        if objection.is_none() { Placement::Kernel } else { Placement::Relay },
                    ));
                }
                let mut claims = self.kernel.as_ref().map(|it| it.claims(plan.call)).unwrap_or_default();
                claims.extend(self.relay.claims(plan.call));
                let call = self.calls.entry(plan.call).or_default();
                call.task = Some(Task { wanted, relayed, claims, ..Task::new(op, Step::Kernel) });
                self.kernel_step(now, plan.call);
            }
            MediaCommand::Remove(call) => self.remove(now, call, op),
            MediaCommand::Observe(call) => {
                let counters = self.counters(call);
                self.answer(now, call, op, Ok(MediaDone { placements: Vec::new(), counters }));
            }
            MediaCommand::Prime { call, sides } => self.prime(now, op, call, sides),
        }
    }

    /// Makes the kernel have the streams that it shall have.
    fn kernel_step(&mut self, now: Instant, id: CallId) {
        let Some((held, wanted)) = self.held_and_wanted(id, Placement::Kernel) else { return };
        if wanted.is_empty() && held.is_empty() {
            return self.relay_step(now, id);
        }
        let counted = self.kernel.as_ref().map(|kernel| kernel.counters(id)).unwrap_or_default();
        self.note_leaving(id, counted, &wanted);
        self.command(now, id, Placement::Kernel, wanted);
    }

    /// Makes the relay have the streams that it shall have.
    fn relay_step(&mut self, now: Instant, id: CallId) {
        let Some((held, wanted)) = self.held_and_wanted(id, Placement::Relay) else { return };
        if let Some(task) = self.calls.get_mut(&id).and_then(|call| call.task.as_mut()) {
            task.step = Step::Relay;
        }
        if let Some(kernel) = &mut self.kernel {
            kernel.relay_streams(id, &wanted);
        }
        if wanted.is_empty() && held.is_empty() {
            return self.finish(now, id);
        }
        let counted = self.relay.counters(id);
        self.note_leaving(id, counted, &wanted);
        self.command(now, id, Placement::Relay, wanted);
    }

    /// A carrier answered the call's present step.
    fn advance(&mut self, now: Instant, id: CallId, result: MediaResult) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some(task) = call.task.as_mut() else { return };
        match (&mut task.step, result) {
            (Step::Kernel, Ok(_)) => {
                let claims = task.claims_under(call.plan.as_deref(), &task.wanted);
                if let Some(kernel) = &mut self.kernel {
                    kernel.teach(now, id, &claims);
                }
                self.relay_step(now, id);
            }
            // Another call has the port: the relay could bind it, but would never see a packet.
            (Step::Kernel, Err(error @ MediaError::PortInUse(_))) => self.fail(now, id, error),
            (Step::Kernel, Err(reason)) => {
                tracing::debug!(call = %id, %reason, "the relay carries all streams");
                for (stream, placement) in &mut task.wanted {
                    *placement = Placement::Relay;
                    task.relayed.entry(stream.mline).or_insert(RelayReason::from(&reason));
                }
                task.leaving.clear();
                self.kernel_step(now, id);
            }
            (Step::Relay, Ok(_)) => self.finish(now, id),
            (Step::Relay, Err(error)) => self.undo(now, id, error),
            (Step::Undo(error), result) => {
                let error = error.clone();
                let before = call.plan.as_deref().unwrap_or_default();
                let claims = task.claims_under(Some(before), before);
                if let Some(kernel) = &mut self.kernel {
                    kernel.teach(now, id, &claims);
                }
                if let Err(second) = result {
                    tracing::error!(call = %id, %second, "the kernel does not take the plan back that it had");
                }
                self.fail(now, id, error);
            }
            (Step::Prime { answers_due }, _) => {
                *answers_due -= 1;
                if *answers_due == 0 {
                    let op = task.op;
                    call.task = None;
                    self.answer(now, id, op, Ok(MediaDone::default()));
                }
            }
            (Step::Remove { answers_due }, result) => {
                *answers_due -= 1;
                let done = *answers_due == 0;
                task.leaving.extend(result.unwrap_or_default().counters);
                if done {
                    self.removed(now, id);
                }
            }
        }
    }

    /// The relay refused: the kernel gets the streams back that it had.
    fn undo(&mut self, now: Instant, id: CallId, error: MediaError) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some(task) = call.task.as_mut() else { return };
        let kernel_wanted = task.wanted.iter().any(|(_, placement)| *placement == Placement::Kernel);
        let in_kernel = streams(call.plan.as_deref().unwrap_or_default(), Placement::Kernel);
        // What the kernel gave up and takes back now starts from zero there; what the relay has it never gave up.
        let gave_up: Vec<StreamCounters> = std::mem::take(&mut task.leaving)
            .into_iter()
            .filter(|counted| in_kernel.iter().any(|stream| stream.mline == counted.mline))
            .collect();
        task.step = Step::Undo(error.clone());
        keep(&mut call.past, gave_up);
        if kernel_wanted || !in_kernel.is_empty() {
            self.command(now, id, Placement::Kernel, in_kernel);
        } else {
            self.fail(now, id, error);
        }
    }

    fn finish(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some(task) = call.task.take() else { return };
        let placements = task.wanted.iter().map(|(_, placement)| *placement).collect();
        let claims = task.claims_under(call.plan.as_deref(), &task.wanted);
        keep(&mut call.past, task.leaving);
        call.past.retain(|mline, _| task.wanted.iter().any(|(stream, _)| stream.mline == *mline));
        let before = call.plan.replace(task.wanted);
        self.ports.give_back(streams_of(before.as_ref()), streams_of(call.plan.as_ref()));
        self.count_relayed(id, task.relayed);
        self.stand_by(now, id);
        self.relay.teach(now, id, &claims);
        self.answer(now, id, task.op, Ok(MediaDone { placements, counters: Vec::new() }));
    }

    /// How many streams went to the relay, by reason.
    pub(crate) fn relay_streams(&self) -> Vec<(&'static str, u64)> {
        self.reasons.list()
    }

    /// Counts the streams of a plan that the relay has now and did not have for this reason before.
    fn count_relayed(&mut self, id: CallId, relayed: BTreeMap<u8, RelayReason>) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let before = std::mem::replace(&mut call.relayed, relayed);
        for (mline, reason) in &call.relayed {
            if before.get(mline) != Some(reason) {
                self.reasons.count(*reason);
            }
        }
    }

    /// Has the relay take what the kernel passes of its streams.
    fn stand_by(&mut self, now: Instant, id: CallId) {
        let plan = self.calls.get(&id).and_then(|call| call.plan.as_deref()).unwrap_or_default();
        if let Some(kernel) = &self.kernel {
            self.relay.stand_by(id, &streams(plan, Placement::Kernel));
            self.relay.teach(now, id, &kernel.claims(id));
        }
    }

    /// Nothing of the command took effect: the relay still has what it had.
    fn fail(&mut self, now: Instant, id: CallId, error: MediaError) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some(task) = call.task.take() else { return };
        self.ports.give_back(streams_of(Some(&task.wanted)), streams_of(call.plan.as_ref()));
        if let Some(kernel) = &mut self.kernel {
            kernel.relay_streams(id, &streams(call.plan.as_deref().unwrap_or_default(), Placement::Relay));
        }
        self.answer(now, id, task.op, Err(error));
    }

    fn prime(&mut self, now: Instant, op: OpId, id: CallId, sides: Vec<SideOf>) {
        let Some(call) = self.calls.get_mut(&id).filter(|call| call.plan.is_some()) else {
            return self.answer(now, id, op, Ok(MediaDone::default()));
        };
        let carriers: &[Placement] =
            if self.kernel.is_some() { &[Placement::Kernel, Placement::Relay] } else { &[Placement::Relay] };
        let step = Step::Prime { answers_due: carriers.len() };
        call.task = Some(Task::new(op, step));
        for carrier in carriers {
            self.give(now, id, *carrier, MediaCommand::Prime { call: id, sides: sides.clone() });
        }
    }

    fn remove(&mut self, now: Instant, id: CallId, op: OpId) {
        if self.calls.get(&id).is_none_or(|call| call.plan.is_none()) {
            return self.answer(now, id, op, Ok(MediaDone::default()));
        }
        let carriers = if self.kernel.is_some() { 2 } else { 1 };
        if let Some(call) = self.calls.get_mut(&id) {
            let step = Step::Remove { answers_due: carriers };
            call.task = Some(Task::new(op, step));
        }
        if let Some(kernel) = &mut self.kernel {
            kernel.relay_streams(id, &[]);
            self.command(now, id, Placement::Kernel, Vec::new());
        }
        self.command(now, id, Placement::Relay, Vec::new());
    }

    fn removed(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some(task) = call.task.take() else { return };
        let plan = call.plan.take().unwrap_or_default();
        self.ports.give_back(streams_of(Some(&plan)), std::iter::empty());
        let counters = total(&plan, &std::mem::take(&mut call.past), &task.leaving);
        self.answer(now, id, task.op, Ok(MediaDone { placements: Vec::new(), counters }));
    }

    /// Answers a command and begins the call's next one.
    fn answer(&mut self, now: Instant, id: CallId, op: OpId, result: MediaResult) {
        self.events.push_back(DataplaneEvent::Done { op, result });
        let Some(call) = self.calls.get_mut(&id) else { return };
        match call.queue.pop_front() {
            Some((op, command)) => self.begin(now, op, command),
            None if call.plan.is_none() => drop(self.calls.remove(&id)),
            None => {}
        }
    }

    /// Tells a carrier to have these streams of the call and no others.
    fn command(&mut self, now: Instant, call: CallId, carrier: Placement, streams: Vec<StreamPlan>) {
        let command = if streams.is_empty() {
            MediaCommand::Remove(call)
        } else {
            MediaCommand::Install(MediaPlan { call, streams })
        };
        self.give(now, call, carrier, command);
    }

    /// Gives a carrier a command, whose answer is awaited.
    fn give(&mut self, now: Instant, call: CallId, carrier: Placement, command: MediaCommand) {
        let op = OpId(self.next_step);
        self.next_step += 1;
        self.steps.insert(op, call);
        match (carrier, &mut self.kernel) {
            (Placement::Kernel, Some(kernel)) => kernel.apply(now, op, command),
            (Placement::Kernel, None) | (Placement::Relay, _) => self.relay.apply(now, op, command),
        }
    }

    /// The streams that a carrier has, and those that it shall have.
    fn held_and_wanted(&self, id: CallId, carrier: Placement) -> Option<(Vec<StreamPlan>, Vec<StreamPlan>)> {
        let call = self.calls.get(&id)?;
        let held = streams(call.plan.as_deref().unwrap_or_default(), carrier);
        Some((held, streams(&call.task.as_ref()?.wanted, carrier)))
    }

    /// Remembers what a carrier counted for streams that it is about to lose.
    fn note_leaving(&mut self, id: CallId, counted: Vec<StreamCounters>, wanted: &[StreamPlan]) {
        let Some(task) = self.calls.get_mut(&id).and_then(|call| call.task.as_mut()) else { return };
        let stays = |counters: &StreamCounters| wanted.iter().any(|stream| stream.mline == counters.mline);
        task.leaving.extend(counted.into_iter().filter(|counters| !stays(counters)));
    }
}

impl<K: Kernel, R: StandsBy> Dataplane for Choice<K, R> {
    fn apply(&mut self, now: Instant, op: OpId, command: MediaCommand) {
        match self.calls.get_mut(&command.call()) {
            Some(call) if call.task.is_some() => call.queue.push_back((op, command)),
            Some(_) | None => self.begin(now, op, command),
        }
        self.settle(now);
    }

    fn poll_event(&mut self) -> Option<DataplaneEvent> {
        self.events.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let kernel = self.kernel.as_ref().and_then(Dataplane::poll_timeout);
        [kernel, self.relay.poll_timeout()].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(kernel) = &mut self.kernel {
            kernel.handle_timeout(now);
        }
        self.relay.handle_timeout(now);
        self.settle(now);
    }

    fn counters(&self, id: CallId) -> Vec<StreamCounters> {
        let Some(call) = self.calls.get(&id) else { return Vec::new() };
        let mut counted = self.kernel.as_ref().map(|kernel| kernel.counters(id)).unwrap_or_default();
        counted.extend(self.relay.counters(id));
        total(call.plan.as_deref().unwrap_or_default(), &call.past, &counted)
    }

    fn guard(&mut self, command: &GuardCommand) {
        if let Some(kernel) = &mut self.kernel {
            kernel.guard(command);
        }
        self.relay.guard(command);
    }

    fn trace(&mut self, now: Instant, order: TraceOrder) -> Result<TraceView, String> {
        match &mut self.kernel {
            Some(kernel) => kernel.trace(now, order),
            None => self.relay.trace(now, order),
        }
    }

    fn denied(&self) -> Vec<Denial> {
        self.kernel.as_ref().map_or_else(Vec::new, Dataplane::denied)
    }

    fn denied_packets(&self, source: Source) -> u64 {
        let kernel = self.kernel.as_ref().map_or(0, |kernel| kernel.denied_packets(source));
        kernel + self.relay.denied_packets(source)
    }

    fn checkpoint(&self, id: CallId) -> Option<MediaCheckpoint> {
        let plan = self.calls.get(&id)?.plan.as_ref()?;
        Some(MediaCheckpoint {
            plan: MediaPlan { call: id, streams: plan.iter().map(|(stream, _)| stream.clone()).collect() },
            placements: plan.iter().map(|(_, placement)| *placement).collect(),
            kernel: self.kernel.as_ref().map(|kernel| kernel.left(id)).unwrap_or_default(),
        })
    }

    fn reconcile(&mut self) -> Vec<Difference> {
        let mut found = self.kernel.as_mut().map(Dataplane::reconcile).unwrap_or_default();
        found.extend(self.relay.reconcile());
        found
    }

    fn snapshot(&self) -> Vec<CallId> {
        self.calls.iter().filter(|(_, call)| call.plan.is_some()).map(|(id, _)| *id).collect()
    }
}

fn streams(plan: &[(StreamPlan, Placement)], carrier: Placement) -> Vec<StreamPlan> {
    plan.iter().filter(|(_, placement)| *placement == carrier).map(|(stream, _)| stream.clone()).collect()
}

fn streams_of(plan: Option<&Vec<(StreamPlan, Placement)>>) -> impl Iterator<Item = &StreamPlan> {
    plan.into_iter().flatten().map(|(stream, _)| stream)
}

fn keep(past: &mut BTreeMap<u8, StreamCounters>, counted: Vec<StreamCounters>) {
    for counters in counted {
        let sum = past.entry(counters.mline).or_default();
        add_stream(sum, &counters);
    }
}

/// Each stream of the plan with everything that was ever counted for it.
fn total(
    plan: &[(StreamPlan, Placement)],
    past: &BTreeMap<u8, StreamCounters>,
    counted: &[StreamCounters],
) -> Vec<StreamCounters> {
    plan.iter()
        .map(|(stream, placement)| {
            let mut sum =
                StreamCounters { mline: stream.mline, placement: Some(*placement), ..Default::default() };
            let present = counted.iter().filter(|counters| counters.mline == stream.mline);
            for counters in past.get(&stream.mline).into_iter().chain(present) {
                add_stream(&mut sum, counters);
            }
            sum
        })
        .collect()
}

#[cfg(test)]
mod tests;
