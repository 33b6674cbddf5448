//! The looks at an answered call's counters, and what follows from them: its end when it has fallen silent, whose media
//! may be learned anew, and which peers must be sent something so that what they send can come in. The dataplane counts, it draws no conclusions and has no clock for that.

use std::time::{Duration, Instant};

use crate::call::Call;
use crate::call::action::{CallTimer, Effect};
use crate::call::context::Context;
use crate::call::gate::Then;
use crate::call::pinhole::Pinholes;
use crate::call::silence::{self, Silence};
use crate::call::state::Phase;
use crate::counter::Counter;
use crate::id::OpId;
use crate::media::command::{MediaCommand, MediaEvent, MediaResult, SideOf};
use crate::restart::CallCheckpoint;
use crate::rng::Rng;

/// Looks at one call.
#[derive(Debug)]
pub(super) struct Watch {
    silence: Silence,
    asked: Option<OpId>,
    pinholes: Pinholes,
}

impl Call {
    /// The call is answered: silence counts from now on.
    pub(super) fn begin_watching<R: Rng>(&mut self, cx: &mut Context<'_, R>) {
        let held = self.media.is_held();
        let silence = Silence::since(cx.now.mono, held);
        self.checkpoint(cx, held);
        self.watch = Some(Watch { silence, asked: None, pinholes: Pinholes::default() });
        self.look_later(cx);
    }

    /// Says what is to be known of the call after a restart.
    fn checkpoint<R: Rng>(&self, cx: &mut Context<'_, R>, held: bool) {
        let Some(answered) = self.answered else { return };
        let checkpoint = CallCheckpoint {
            call: self.id,
            began: self.began,
            ringing: self.ringing,
            answered,
            held,
            caller: self.caller.view(cx),
            callee: self.callee.view(cx),
        };
        cx.effects.push(Effect::Checkpoint(Box::new(checkpoint)));
    }

    fn look_later<R: Rng>(&self, cx: &mut Context<'_, R>) {
        let pinholes = self.watch.as_ref().map(|watch| &watch.pinholes);
        let intervals = [
            silence::interval(cx.config.media_timeouts),
            self.media.learning_interval(),
            pinholes.zip(self.media.prime_interval()).map(|(pinholes, most)| pinholes.next_look(most)),
        ];
        if let Some(interval) = intervals.into_iter().flatten().min() {
            cx.effects.push(Effect::Arm(CallTimer::Look, cx.now.mono + interval));
        }
    }

    /// Another exchange is finished: what has been opened may be another place now.
    pub(super) fn watch_anew<R: Rng>(&mut self, cx: &mut Context<'_, R>) {
        if let Some(watch) = self.watch.as_mut().filter(|_| self.media.prime_interval().is_some()) {
            watch.pinholes.restart();
            self.look_later(cx);
        }
    }

    /// Asks for the counters.
    pub(super) fn look<R: Rng>(&mut self, cx: &mut Context<'_, R>) {
        let Some(watch) = self.watch.as_mut().filter(|_| self.phase == Phase::Answered) else { return };
        let op = cx.next_op();
        watch.asked = Some(op);
        cx.effects.push(Effect::Media(op, MediaCommand::Observe(self.id)));
    }

    /// The dataplane has answered; whether that was the answer to a look.
    pub(super) fn on_observed<R: Rng>(
        &mut self,
        cx: &mut Context<'_, R>,
        op: OpId,
        result: &MediaResult,
    ) -> bool {
        let held = self.media.is_held();
        let Some(watch) = self.watch.as_mut().filter(|watch| watch.asked == Some(op)) else { return false };
        watch.asked = None;
        let changed = watch.silence.held() != held;
        if self.phase != Phase::Answered {
            return true;
        }
        let now = cx.now.mono;
        let counters = result.as_ref().map(|done| done.counters.as_slice()).unwrap_or_default();
        if counters.is_empty() {
            // No stream is carried here, or nobody knows.
            watch.silence.unknown(now);
        } else {
            let packets = counters.iter().fold(0, |sum: u64, stream| sum.wrapping_add(stream.packets()));
            if watch.silence.look(now, packets, held, cx.config.media_timeouts) {
                self.silent(cx);
                return true;
            }
            let idle = watch.pinholes.look(counters);
            if changed {
                self.checkpoint(cx, held);
            }
            self.prime(cx, |mline| idle.contains(&mline));
            let reopened = self.media.look(now, counters);
            cx.effects.extend(std::iter::repeat_n(Counter::MediaReopened, reopened).map(Effect::Count));
            self.follow_latches(cx);
        }
        self.look_later(cx);
        true
    }

    /// Has something sent to the peers of these streams that only our own flows reach.
    pub(super) fn prime<R: Rng>(&self, cx: &mut Context<'_, R>, idle: impl Fn(u8) -> bool) {
        let sides = self.media.to_prime(idle);
        if !sides.is_empty() {
            let op = cx.next_op();
            cx.effects.push(Effect::Count(Counter::MediaPrimed));
            cx.effects.push(Effect::Media(op, MediaCommand::Prime { call: self.id, sides }));
        }
    }

    /// The dataplane noticed something about the call's media.
    pub fn on_media_event(&mut self, now: Instant, event: &MediaEvent) {
        match event {
            MediaEvent::Latched { mline, caller_side, rtcp, source, .. } => {
                let side = SideOf { mline: *mline, caller_side: *caller_side };
                self.media.learned(side, *source, *rtcp);
            }
            MediaEvent::Report { mline, caller_side, packet, .. } => {
                let side = SideOf { mline: *mline, caller_side: *caller_side };
                self.media.reported(now, side, packet);
            }
        }
    }

    /// The time of a window in which sources may be learned is over.
    pub(super) fn close_windows<R: Rng>(&mut self, cx: &mut Context<'_, R>) {
        self.media.close_windows(cx.now.mono);
        self.follow_latches(cx);
    }

    /// The plan says who may claim: it follows when that changes, and the timer with it.
    pub(super) fn follow_latches<R: Rng>(&mut self, cx: &mut Context<'_, R>) {
        if self.phase != Phase::Answered {
            return;
        }
        let plan = self.media.plan();
        self.gate.install(cx, plan, Then::Nothing);
        self.arm_closing(cx);
        self.proceed(cx);
    }

    /// The dataplane could not do it: what was in force is, and it is tried again.
    pub(super) fn latches_not_followed<R: Rng>(&self, cx: &mut Context<'_, R>) {
        cx.effects.push(Effect::Arm(CallTimer::CloseWindows, cx.now.mono + RETRY));
    }

    /// Arms the timer of the next window that is to be closed.
    pub(super) fn arm_closing<R: Rng>(&self, cx: &mut Context<'_, R>) {
        if let Some(at) = self.media.next_closing() {
            cx.effects.push(Effect::Arm(CallTimer::CloseWindows, at));
        }
    }
}

/// After how long a change that the dataplane refused is tried again.
const RETRY: Duration = Duration::from_secs(5);
