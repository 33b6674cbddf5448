//! Whether an answered call still has media: the one place that decides that it has fallen silent.
//!
//! While a call is up its counters are asked for at an interval. If nothing was counted between two looks, in either
//! direction, in any stream, RTP or RTCP, the time between them was silent. A call ends when it has been silent for
//! longer than its state allows: a peer on hold, or one that sends nothing while nobody speaks, is no peer that is gone.
//! What is seen at a look counts as if it had come at that moment, so a call never ends too early, and at most two
//! intervals late.

use std::time::{Duration, Instant};

use crate::call::Call;
use crate::call::action::{CallTimer, Effect};
use crate::call::context::Context;
use crate::call::state::Phase;
use crate::config::MediaTimeouts;
use crate::id::OpId;
use crate::media::command::{MediaCommand, MediaResult};
use crate::restart::CallCheckpoint;
use crate::rng::Rng;

/// Longest time between two looks.
const INTERVAL_LIMIT: Duration = Duration::from_secs(30);
/// Looks in the shortest time that a call may be silent.
const LOOKS: u32 = 10;

/// What the last look saw.
#[derive(Debug)]
pub(crate) struct Silence {
    /// When something was last seen, or the silence began to count anew.
    heard: Instant,
    packets: u64,
    held: bool,
    asked: Option<OpId>,
}

impl Silence {
    /// Counts from now.
    pub(crate) const fn since(now: Instant, held: bool) -> Self {
        Self { heard: now, packets: 0, held, asked: None }
    }

    /// Whether the last look found no stream that is agreed to flow both ways.
    pub(crate) const fn held(&self) -> bool {
        self.held
    }

    /// Takes in a look; whether the call has been silent for longer than it may.
    pub(crate) fn look(&mut self, now: Instant, packets: u64, held: bool, limits: MediaTimeouts) -> bool {
        // A change counts as life as well: whoever resumes after an hour on hold has not been silent for an hour.
        if (self.packets, self.held) != (packets, held) {
            (self.heard, self.packets, self.held) = (now, packets, held);
        }
        let limit = if held { limits.held } else { limits.talking };
        limit.is_some_and(|limit| now.saturating_duration_since(self.heard) >= limit)
    }
}

/// Time between two looks; `None` if no silence ends a call.
pub(crate) fn interval(limits: MediaTimeouts) -> Option<Duration> {
    let shortest = [limits.talking, limits.held].into_iter().flatten().min()?;
    Some((shortest / LOOKS).min(INTERVAL_LIMIT))
}

impl Call {
    /// The call is answered: silence counts from now on.
    pub(super) fn begin_observing<R: Rng>(&mut self, cx: &mut Context<'_, R>) {
        let held = self.media.is_held();
        self.silence = Some(Silence::since(cx.now.mono, held));
        self.checkpoint(cx, held);
        self.observe_later(cx);
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

    fn observe_later<R: Rng>(&self, cx: &mut Context<'_, R>) {
        if let Some(interval) = interval(cx.config.media_timeouts) {
            cx.effects.push(Effect::Arm(CallTimer::Silence, cx.now.mono + interval));
        }
    }

    /// Asks for the counters.
    pub(super) fn observe<R: Rng>(&mut self, cx: &mut Context<'_, R>) {
        let Some(silence) = self.silence.as_mut().filter(|_| self.phase == Phase::Answered) else { return };
        let op = cx.next_op();
        silence.asked = Some(op);
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
        let Some(silence) = self.silence.as_mut().filter(|silence| silence.asked == Some(op)) else {
            return false;
        };
        silence.asked = None;
        let changed = silence.held != held;
        if self.phase != Phase::Answered {
            return true;
        }
        let counters = result.as_ref().map(|done| done.counters.as_slice()).unwrap_or_default();
        if counters.is_empty() {
            // No stream is carried here, or nobody knows: that tells nothing about the peers.
            silence.heard = cx.now.mono;
            self.observe_later(cx);
            return true;
        }
        let packets = counters.iter().fold(0, |sum: u64, stream| sum.wrapping_add(stream.packets()));
        if silence.look(cx.now.mono, packets, held, cx.config.media_timeouts) {
            self.silent(cx);
        } else {
            if changed {
                self.checkpoint(cx, held);
            }
            self.observe_later(cx);
        }
        true
    }
}
