//! The one way in which a call ends, whoever wants it and in whatever state. Correct to take twice.
//!
//! Both legs are told in the way that their state asks for; ports are given back; the plan is removed; the record is
//! written once, with the counters that the removal brings; what still waits for an answer gets one. The call itself is
//! forgotten when both legs have closed, or when that takes too long.

use std::time::Duration;

use crate::call::action::{CallTimer, Effect};
use crate::call::context::Context;
use crate::call::event::{Content, Said};
use crate::call::leg::Farewell;
use crate::call::state::{Action, Event};
use crate::call::{Call, Side, response_map};
use crate::counter::Counter;
use crate::id::OpId;
use crate::media::command::{MediaCommand, MediaResult, StreamCounters};
use crate::policy::admission::{Refusal, Saying};
use crate::record::{CallRecord, EndedBy};
use crate::rng::Rng;

/// How long a teardown may take: an ACK that never comes, then a BYE that is never answered, 64*T1 each, and a margin.
const TEARDOWN_LIMIT: Duration = Duration::from_secs(70);

/// How long a leg may be without its connection: the time in which a transaction would give up.
pub(super) const RECONNECT_LIMIT: Duration = Duration::from_secs(32);

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    by: EndedBy,
    status: u16,
    cause: String,
}

/// Where the removal of the plan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    /// Not begun.
    NotAsked,
    /// Under way.
    Asked(OpId),
    /// Done, and the record written.
    Done,
}

impl Call {
    /// Nothing of it is left to be done.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.removal == Removal::Done && self.caller.is_closed() && self.callee.is_closed()
    }

    /// Ends it on the operator's order.
    pub fn hang_up<R: Rng>(&mut self, cx: &mut Context<'_, R>) {
        self.refuse(cx, Refusal::Operator.saying());
    }

    /// Ends it for a reason of our own.
    pub(super) fn refuse<R: Rng>(&mut self, cx: &mut Context<'_, R>, saying: Saying) {
        if self.ending.is_some() {
            return;
        }
        cx.effects.push(Effect::Count(saying.counter));
        let reason = format!("SIP;cause={};text=\"{}\"", saying.status, saying.phrase);
        let ending = Ending { by: EndedBy::Local, status: saying.status, cause: saying.cause.to_owned() };
        let said = Said { phrase: saying.phrase.into(), ..Said::local(saying.status) };
        let farewell = Farewell { said, saying: Some(saying), reason: None };
        let to_callee = Farewell { reason: Some(reason.clone()), ..Farewell::plain() };
        let to_caller = if self.answered.is_some() {
            Farewell { reason: Some(reason), ..Farewell::plain() }
        } else {
            farewell
        };
        self.end(cx, ending, &to_caller, &to_callee);
    }

    pub(super) fn no_answer<R: Rng>(&mut self, cx: &mut Context<'_, R>) {
        let saying = Refusal::NoAnswer.saying();
        cx.effects.push(Effect::Count(saying.counter));
        let ending = Ending { by: EndedBy::Callee, status: saying.status, cause: saying.cause.to_owned() };
        let farewell = Farewell { said: Said::local(saying.status), saying: Some(saying), reason: None };
        self.end(cx, ending, &farewell, &Farewell::plain());
    }

    /// The callee refused, or could not be reached.
    pub(super) fn callee_failed<R: Rng>(&mut self, cx: &mut Context<'_, R>, said: &Said) {
        let status = response_map::initial(said.status, self.caller.face().hide);
        let same = status == said.status;
        let content = said.content.clone().with_body(crate::call::event::Body::None);
        let phrase = if same { said.phrase.clone() } else { bytes::Bytes::new() };
        let cause = String::from_utf8_lossy(if said.phrase.is_empty() {
            response_map::phrase(said.status).as_bytes()
        } else {
            &said.phrase
        })
        .into_owned();
        let reason = (!same && content.carried.reason().is_none())
            .then(|| format!("SIP;cause={};text=\"{}\"", said.status, response_map::phrase(said.status)));
        let farewell = Farewell { said: Said { status, phrase, content }, saying: None, reason };
        self.end(cx, Ending { by: EndedBy::Callee, status, cause }, &farewell, &Farewell::plain());
    }

    pub(super) fn cancelled<R: Rng>(&mut self, cx: &mut Context<'_, R>, content: Content) {
        let ending = Ending { by: EndedBy::Caller, status: 487, cause: "cancelled".to_owned() };
        let farewell = Farewell { said: Said { content, ..Said::local(487) }, ..Farewell::plain() };
        self.end(cx, ending, &Farewell::plain(), &farewell);
    }

    pub(super) fn disconnected<R: Rng>(&mut self, cx: &mut Context<'_, R>, side: Side, content: Content) {
        let cause =
            content.carried.reason().map_or_else(|| "BYE".into(), String::from_utf8_lossy).into_owned();
        let ending =
            Ending { by: ended_by(side), status: if self.answered.is_some() { 200 } else { 487 }, cause };
        let farewell = Farewell { said: Said { content, ..Said::local(480) }, ..Farewell::plain() };
        self.end(cx, ending, &farewell, &farewell);
    }

    pub(super) fn unacknowledged<R: Rng>(&mut self, cx: &mut Context<'_, R>) {
        if self.ending.is_none() {
            cx.effects.push(Effect::Count(Counter::CallNoAck));
        }
        let ending = Ending { by: EndedBy::Local, status: 408, cause: "2xx never acknowledged".to_owned() };
        let farewell = Farewell::reason("SIP;cause=408;text=\"ACK missing\"");
        self.end(cx, ending, &farewell, &farewell);
    }

    /// No stream has carried anything for too long: the peers are gone, or the network between.
    pub(super) fn silent<R: Rng>(&mut self, cx: &mut Context<'_, R>) {
        cx.effects.push(Effect::Count(Counter::CallMediaTimeout));
        // Q.850: recovery on timer expiry.
        let reason = "Q.850;cause=102;text=\"Media timeout\"";
        let ending = Ending { by: EndedBy::Local, status: 408, cause: reason.to_owned() };
        let farewell = Farewell::reason(reason);
        self.end(cx, ending, &farewell, &farewell);
    }

    pub(super) fn lost<R: Rng>(&mut self, cx: &mut Context<'_, R>, side: Side) {
        if self.ending.is_none() {
            cx.effects.push(Effect::Count(Counter::CallConnectionLost));
        }
        let ending = Ending { by: ended_by(side), status: 503, cause: "connection lost".to_owned() };
        let farewell = Farewell::reason("SIP;cause=503;text=\"Connection lost\"");
        self.end(cx, ending, &farewell, &farewell);
    }

    /// A side says that it has no such dialog any more, or no longer answers.
    pub(super) fn dialog_gone<R: Rng>(&mut self, cx: &mut Context<'_, R>, side: Side, status: u16) {
        let cause = format!("{status} {}", response_map::phrase(status));
        let farewell =
            Farewell::reason(&format!("SIP;cause={status};text=\"{}\"", response_map::phrase(status)));
        self.end(cx, Ending { by: ended_by(side), status, cause }, &farewell, &farewell);
    }

    fn end<R: Rng>(
        &mut self,
        cx: &mut Context<'_, R>,
        ending: Ending,
        to_caller: &Farewell,
        to_callee: &Farewell,
    ) {
        let actions = self.step(Event::End);
        if !actions.contains(&Action::TearDown) {
            return;
        }
        let status = if self.answered.is_some() { 200 } else { ending.status };
        self.ending = Some(Ending { status, ..ending });
        cx.effects.push(Effect::Disarm(CallTimer::NoAnswer));
        cx.effects.push(Effect::Disarm(CallTimer::Look));
        cx.effects.push(Effect::Disarm(CallTimer::CloseWindows));
        cx.effects.push(Effect::Arm(CallTimer::Teardown, cx.now.mono + TEARDOWN_LIMIT));
        self.answer_what_waits(cx);
        self.caller.hang_up(cx, to_caller);
        self.callee.hang_up(cx, to_callee);
        self.media.release(cx.pools, cx.now.mono);
        if self.gate.close() {
            let op = cx.next_op();
            self.removal = Removal::Asked(op);
            cx.effects.push(Effect::Media(op, MediaCommand::Remove(self.id)));
        } else {
            self.write_record(cx, Vec::new());
        }
    }

    /// The dataplane has removed the plan, or could not.
    pub(super) fn on_removed<R: Rng>(&mut self, cx: &mut Context<'_, R>, op: OpId, result: &MediaResult) {
        if self.removal == Removal::Asked(op) {
            self.write_record(cx, result.as_ref().map(|done| done.counters.clone()).unwrap_or_default());
        }
    }

    /// The teardown took too long: what is left is forgotten.
    pub(super) fn give_up_teardown<R: Rng>(&mut self, cx: &mut Context<'_, R>) {
        cx.effects.push(Effect::Count(Counter::TeardownTimeout));
        if self.removal != Removal::Done {
            self.write_record(cx, Vec::new());
        }
        for side in Side::BOTH {
            self.leg_mut(side).forget();
        }
    }

    fn answer_what_waits<R: Rng>(&mut self, cx: &mut Context<'_, R>) {
        if let Some((side, ask)) = self.exchange.take().and_then(crate::call::update::Exchange::unanswered) {
            self.leg_mut(side).reply(cx, &ask, &Said::local(487), None);
        }
        let waiting: Vec<_> = self.updates.clear().collect();
        for (side, ask) in waiting {
            self.leg_mut(side).reply(cx, &ask, &Said::local(487), None);
        }
        for (side, ask) in std::mem::take(&mut self.relays) {
            self.leg_mut(side).reply(cx, &ask, &Said::local(481), None);
        }
    }

    fn write_record<R: Rng>(&mut self, cx: &mut Context<'_, R>, media: Vec<StreamCounters>) {
        let Some(ending) = &self.ending else { return };
        self.removal = Removal::Done;
        let record = CallRecord {
            call: self.id,
            began: self.began,
            ringing: self.ringing,
            answered: self.answered,
            ended: cx.now.wall,
            ended_by: ending.by,
            status: ending.status,
            cause: ending.cause.clone(),
            caller: self.caller.view(cx),
            callee: Some(self.callee.view(cx)),
            media,
            quality: self.media.quality().to_vec(),
        };
        cx.effects.push(Effect::Record(Box::new(record)));
    }
}

const fn ended_by(side: Side) -> EndedBy {
    match side {
        Side::Caller => EndedBy::Caller,
        Side::Callee => EndedBy::Callee,
    }
}
