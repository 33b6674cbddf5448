//! Calls of the daemon before of which only the media is left.
//!
//! Their signalling is lost: no message finds them, and they cannot say good-bye. Their ports stay theirs, operators see
//! them, and they end when their media has fallen silent or an operator ends everything; then plan and ports are
//! released and the record is written. A call that was never answered when its signalling was lost is released at once:
//! no answer to it can ever be handed on.

use std::time::Duration;

use crate::call::action::CallTimer;
use crate::call::silence::{Silence, interval};
use crate::command::{CallState, CallView};
use crate::config::{Learning, MediaTimeouts};
use crate::counter::Counter;
use crate::engine::Engine;
use crate::id::{CallId, OpId, RealmId};
use crate::media::command::{MediaCommand, MediaResult, StreamCounters};
use crate::media::plan::{MediaPlan, Placement};
use crate::media::ports::PortPair;
use crate::output::Output;
use crate::record::{CallRecord, EndedBy};
use crate::restart::{CallCheckpoint, Restored, RestoredCall};
use crate::rng::Rng;
use crate::time::Now;

/// Where no silence ends a call with signalling, these end one without: nobody else can.
const TALKING: Duration = Duration::from_secs(300);
const HELD: Duration = Duration::from_secs(7200);

/// After how long windows that the dataplane would not close are closed again.
const RETRY: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(super) struct Adopted {
    /// `None`: it was never answered.
    checkpoint: Option<CallCheckpoint>,
    plan: MediaPlan,
    placements: Vec<Placement>,
    ports: Vec<(RealmId, PortPair)>,
    silence: Silence,
    phase: Phase,
    /// Its windows are being closed.
    closing: Option<OpId>,
}

#[derive(Debug)]
enum Phase {
    Going,
    /// Its counters were asked for.
    Looking(OpId),
    /// Its plan is being removed, for this reason.
    Ending(OpId, &'static str),
}

impl Adopted {
    /// As operators see it.
    pub(super) fn view(&self) -> Option<CallView> {
        let checkpoint = self.checkpoint.as_ref()?;
        Some(CallView {
            call: self.plan.call,
            state: CallState::MediaOnly,
            began: checkpoint.began,
            answered: Some(checkpoint.answered),
            caller: checkpoint.caller.clone(),
            callee: checkpoint.callee.clone(),
            plan: Some(self.plan.clone()),
            placements: self.placements.clone(),
            quality: Vec::new(),
        })
    }

    fn record(self, now: Now, cause: &str, media: Vec<StreamCounters>) -> Option<CallRecord> {
        let checkpoint = self.checkpoint?;
        Some(CallRecord {
            call: checkpoint.call,
            began: checkpoint.began,
            ringing: checkpoint.ringing,
            answered: Some(checkpoint.answered),
            ended: now.wall,
            ended_by: EndedBy::Local,
            status: 200,
            cause: cause.to_owned(),
            caller: checkpoint.caller,
            callee: Some(checkpoint.callee),
            media,
            quality: Vec::new(),
        })
    }
}

impl<R: Rng> Engine<R> {
    /// Takes over what a daemon before left.
    pub(super) fn on_restored(&mut self, now: Now, restored: Restored) {
        for resting in &restored.resting {
            if let Some(pool) = self.pools.get_mut(usize::from(resting.realm.0)) {
                pool.rest(resting.rtp, now.mono + resting.lasts);
            }
        }
        self.last_call = self.last_call.max(restored.last_call.0);
        for call in restored.calls {
            self.adopt(now, call);
        }
        self.guard.restore(now, &restored.denied, &restored.lists);
    }

    fn adopt(&mut self, now: Now, call: RestoredCall) {
        let RestoredCall { checkpoint, plan, placements } = call;
        let id = plan.call;
        // Ids are unique: those of this daemon begin after those that it took over.
        self.last_call = self.last_call.max(id.0);
        let mut ports = Vec::new();
        for side in plan.streams.iter().flat_map(|stream| [&stream.caller, &stream.callee]) {
            let pool = self.pools.get_mut(usize::from(side.realm.0));
            match pool.and_then(|pool| pool.hold(side.local_rtp_port)) {
                Some(pair) => ports.push((side.realm, pair)),
                None => {
                    tracing::warn!(call = %id, port = side.local_rtp_port, "a port of a call taken over is not free")
                }
            }
        }
        let held = checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.held);
        let silence = Silence::since(now.mono, held);
        let answered = checkpoint.is_some();
        let adopted =
            Adopted { checkpoint, plan, placements, ports, silence, phase: Phase::Going, closing: None };
        self.adopted.insert(id, adopted);
        if answered {
            self.counters.count(Counter::CallAdopted);
            self.observe_adopted_later(now, id);
            // Its own window would be over by then, or was opened for a silence that nobody watches any more.
            self.arm(id, CallTimer::CloseWindows, now.mono + Learning::WINDOW);
        } else {
            self.end_one_adopted(now, id, "never answered");
        }
    }

    fn observe_adopted_later(&mut self, now: Now, id: CallId) {
        if let Some(interval) = interval(self.adopted_limits()) {
            self.arm(id, CallTimer::Look, now.mono + interval);
        }
    }

    fn adopted_limits(&self) -> MediaTimeouts {
        let configured = self.config.media_timeouts;
        MediaTimeouts {
            talking: Some(configured.talking.unwrap_or(TALKING)),
            held: Some(configured.held.unwrap_or(HELD)),
        }
    }

    pub(super) fn on_adopted_timer(&mut self, id: CallId, timer: CallTimer) {
        if timer == CallTimer::CloseWindows {
            self.close_adopted_windows(id);
        } else {
            self.observe_adopted(id);
        }
    }

    /// What a daemon before left open is closed.
    fn close_adopted_windows(&mut self, id: CallId) {
        let Some(adopted) = self.adopted.get_mut(&id) else { return };
        let mut plan = adopted.plan.clone();
        if plan.close_windows() {
            let command = MediaCommand::Install(plan);
            self.last_op += 1;
            let op = OpId(self.last_op);
            adopted.closing = Some(op);
            self.media_ops.insert(op, id);
            self.outputs.push_back(Output::Media { op, command });
        }
    }

    /// Asks for its counters.
    fn observe_adopted(&mut self, id: CallId) {
        let Some(adopted) = self.adopted.get_mut(&id).filter(|it| matches!(it.phase, Phase::Going)) else {
            return;
        };
        self.last_op += 1;
        let op = OpId(self.last_op);
        adopted.phase = Phase::Looking(op);
        self.media_ops.insert(op, id);
        self.outputs.push_back(Output::Media { op, command: MediaCommand::Observe(id) });
    }

    /// The dataplane has answered.
    pub(super) fn on_adopted_media(&mut self, now: Now, id: CallId, op: OpId, result: &MediaResult) {
        let limits = self.adopted_limits();
        let Some(adopted) = self.adopted.get_mut(&id) else { return };
        if adopted.closing == Some(op) {
            adopted.closing = None;
            if result.is_ok() {
                adopted.plan.close_windows();
            } else if !matches!(adopted.phase, Phase::Ending(..)) {
                self.arm(id, CallTimer::CloseWindows, now.mono + RETRY);
            }
            return;
        }
        let counters = result.as_ref().map(|done| done.counters.as_slice()).unwrap_or_default();
        match adopted.phase {
            Phase::Looking(asked) if asked == op && result.is_err() => {
                // Nobody knows, which tells nothing about the media.
                adopted.phase = Phase::Going;
                adopted.silence.unknown(now.mono);
                self.observe_adopted_later(now, id);
            }
            Phase::Looking(asked) if asked == op => {
                adopted.phase = Phase::Going;
                let packets = counters.iter().fold(0, |sum: u64, stream| sum.wrapping_add(stream.packets()));
                let held = adopted.silence.held();
                // A dataplane that does not know the call any more will not carry it again.
                if counters.is_empty() || adopted.silence.look(now.mono, packets, held, limits) {
                    self.counters.count(Counter::CallMediaTimeout);
                    self.end_one_adopted(now, id, "media fell silent after a restart");
                } else {
                    self.observe_adopted_later(now, id);
                }
            }
            Phase::Ending(asked, cause) if asked == op => {
                let record = self.adopted.remove(&id).and_then(|it| it.record(now, cause, counters.to_vec()));
                self.outputs.extend(record.map(|record| Output::Record(Box::new(record))));
            }
            Phase::Going | Phase::Looking(_) | Phase::Ending(..) => {}
        }
    }

    /// Ends all of them.
    pub(super) fn end_adopted(&mut self, now: Now) {
        let ids: Vec<CallId> = self.adopted.keys().copied().collect();
        for id in ids {
            self.counters.count(Counter::CallHungUpByOperator);
            self.end_one_adopted(now, id, "ended by the operator after a restart");
        }
    }

    fn end_one_adopted(&mut self, now: Now, id: CallId, cause: &'static str) {
        let Some(adopted) = self.adopted.get_mut(&id) else { return };
        if matches!(adopted.phase, Phase::Ending(..)) {
            return;
        }
        self.last_op += 1;
        let op = OpId(self.last_op);
        adopted.phase = Phase::Ending(op, cause);
        for (realm, pair) in std::mem::take(&mut adopted.ports) {
            if let Some(pool) = self.pools.get_mut(usize::from(realm.0)) {
                pool.release(pair, now.mono);
            }
        }
        self.disarm(id, CallTimer::Look);
        self.disarm(id, CallTimer::CloseWindows);
        self.media_ops.insert(op, id);
        self.outputs.push_back(Output::Media { op, command: MediaCommand::Remove(id) });
    }
}
