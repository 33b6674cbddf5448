//! Changes of the session in a call that is up: re-INVITE and UPDATE, from either side, one at a time.

use crate::call::action::{Effect, Purpose};
use crate::call::context::Context;
use crate::call::event::{Ask, Body, Content, Said};
use crate::call::gate::Then;
use crate::call::state::Phase;
use crate::call::update_queue::Verdict;
use crate::call::{Call, Outcome, Side, response_map};
use crate::counter::Counter;
use crate::policy::admission::{Refusal, Saying};
use crate::rng::Rng;
use crate::sip::{Message, Method};
use crate::txn::{ClientTxnId, ServerTxnId};

/// A change in progress.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) asker: Side,
    pub(super) ask: Ask,
    /// The asker made no offer: it is in the 2xx, and the answer in the ACK.
    late: bool,
    /// The asker withdrew it.
    cancelled: bool,
    /// The one asked has accepted.
    accepted: bool,
    /// The asker has its final response.
    replied: bool,
    /// Our request to the one asked.
    pub(super) client: Option<ClientTxnId>,
}

impl Exchange {
    /// The request that still waits for its answer.
    pub(super) fn unanswered(self) -> Option<(Side, Ask)> {
        (!self.replied).then_some((self.asker, self.ask))
    }
}

impl Call {
    pub(super) fn update<R: Rng>(&mut self, cx: &mut Context<'_, R>, from: Side, ask: Ask) {
        match self.phase {
            Phase::Answered => {}
            Phase::Ending => return self.leg_mut(from).reply(cx, &ask, &Said::local(481), None),
            // The first offer has not been answered yet.
            Phase::Preparing | Phase::Offering | Phase::Early | Phase::Connecting => {
                cx.effects.push(Effect::Count(Counter::Glare));
                return self.leg_mut(from).reply(cx, &ask, &Said::local(491), None);
            }
        }
        if matches!(ask.content.body, Body::Other { .. }) {
            let saying = Refusal::ContentType.saying();
            cx.effects.push(Effect::Count(saying.counter));
            return self.leg_mut(from).reply(cx, &ask, &Said::local(saying.status), Some(&saying));
        }
        match self.updates.ask(from, ask) {
            (Verdict::Start, Some(ask)) => self.start_update(cx, from, ask),
            (Verdict::Glare, Some(ask)) => {
                cx.effects.push(Effect::Count(Counter::Glare));
                self.leg_mut(from).reply(cx, &ask, &Said::local(491), None);
            }
            (_, Some(ask)) => {
                // The time to wait is random, so that both sides do not meet again (RFC 3261 s.14.2).
                let wait = u32::try_from(cx.rng.next_u64() % 11).unwrap_or(0);
                let saying = Saying { retry_after_seconds: Some(wait), ..Refusal::ChangePending.saying() };
                cx.effects.push(Effect::Count(saying.counter));
                self.leg_mut(from).reply(cx, &ask, &Said::local(saying.status), Some(&saying));
            }
            (_, None) => {}
        }
    }

    pub(super) fn start_update<R: Rng>(&mut self, cx: &mut Context<'_, R>, asker: Side, ask: Ask) {
        let content = ask.content.clone();
        let late = content.sdp().is_none();
        self.exchange = Some(Exchange {
            asker,
            ask,
            late,
            cancelled: false,
            accepted: false,
            replied: false,
            client: None,
        });
        let offered = match content.sdp().cloned() {
            None => {
                self.gate.follow(Then::Ask(content));
                return self.proceed(cx);
            }
            Some(bytes) => self.take_offer(cx, asker, &bytes),
        };
        match offered {
            Ok((body, plan)) => {
                self.gate.install(cx, plan, Then::Ask(content.with_body(Body::Sdp(body))));
                self.proceed(cx);
            }
            Err(saying) => {
                cx.effects.push(Effect::Count(saying.counter));
                self.refuse_update(cx, &Said::local(saying.status), Some(&saying));
            }
        }
    }

    pub(super) fn ask_other<R: Rng>(&mut self, cx: &mut Context<'_, R>, content: &Content) {
        let Some(exchange) = &self.exchange else { return };
        let (to, method) = (exchange.asker.other(), exchange.ask.method.clone());
        let hops = exchange.ask.max_forwards;
        if exchange.cancelled {
            return self.roll_back(cx, Said::local(487), None);
        }
        if !self.leg_mut(to).request(cx, method, content, Purpose::Update(to), hops, None) {
            self.roll_back(cx, Said::local(481), None);
        }
    }

    pub(super) fn on_update_outcome<R: Rng>(
        &mut self,
        cx: &mut Context<'_, R>,
        side: Side,
        outcome: &Outcome<'_>,
    ) {
        let said = match outcome {
            Outcome::Response(response, flow) => {
                let status = response.status().unwrap_or(500);
                if status < 200 || self.leg_mut(side).repeat_ack(cx, response) {
                    return;
                }
                let said = self.leg_mut(side).on_response(cx, response, *flow);
                let invite = response.cseq().is_ok_and(|cseq| cseq.method == Method::Invite);
                let waited_for = self
                    .exchange
                    .as_ref()
                    .is_some_and(|exchange| exchange.asker == side.other() && !exchange.accepted);
                if !waited_for {
                    // The call has ended meanwhile; a 2xx is acknowledged all the same.
                    let held = self.exchange.as_ref().is_some_and(|exchange| exchange.accepted);
                    if invite && status < 300 && !held {
                        self.leg_mut(side).acknowledge_update(cx, &Body::None);
                    }
                    return;
                }
                said
            }
            Outcome::Failed(status) => Said::local(*status),
        };
        if said.status < 300 {
            self.update_accepted(cx, side, said);
        } else {
            self.update_refused(cx, side, said);
        }
    }

    fn update_accepted<R: Rng>(&mut self, cx: &mut Context<'_, R>, side: Side, said: Said) {
        let Some(exchange) = &mut self.exchange else { return };
        exchange.accepted = true;
        let late = exchange.late;
        let invite = exchange.ask.method == Method::Invite;
        let described = said.content.sdp().cloned().ok_or_else(|| Refusal::BadAnswer.saying());
        let prepared = described.and_then(|bytes| {
            if late { self.take_offer(cx, side, &bytes) } else { self.take_answer(cx, &bytes) }
        });
        match prepared {
            Ok((body, plan)) => {
                let said = Said { content: said.content.with_body(Body::Sdp(body)), ..said };
                self.gate.install(cx, plan, if late { Then::OfferBack(said) } else { Then::Agree(said) });
                self.proceed(cx);
            }
            Err(saying) => {
                if invite {
                    self.leg_mut(side).acknowledge_update(cx, &Body::None);
                }
                self.refuse(cx, saying);
            }
        }
    }

    fn update_refused<R: Rng>(&mut self, cx: &mut Context<'_, R>, side: Side, said: Said) {
        // The one asked has no such dialog any more, or is gone (RFC 3261 s.12.2.1.2).
        if matches!(said.status, 408 | 481) {
            return self.dialog_gone(cx, side, said.status);
        }
        let asker = side.other();
        let status = response_map::in_dialog(said.status, self.leg(asker).face().hide);
        let phrase = if status == said.status { said.phrase } else { bytes::Bytes::new() };
        let content = said.content.with_body(Body::None);
        self.roll_back(cx, Said { status, phrase, content }, None);
    }

    /// What held before the offer holds again; then the asker is refused.
    fn roll_back<R: Rng>(&mut self, cx: &mut Context<'_, R>, said: Said, saying: Option<Saying>) {
        let plan = self.media.refuse_offer(cx.pools, cx.now.mono);
        self.gate.install(cx, plan, Then::Refuse(said, saying));
        self.proceed(cx);
    }

    pub(super) fn agree<R: Rng>(&mut self, cx: &mut Context<'_, R>, said: &Said) {
        let Some(exchange) = &self.exchange else { return };
        let (asker, invite) = (exchange.asker, exchange.ask.method == Method::Invite);
        if invite {
            self.leg_mut(asker.other()).acknowledge_update(cx, &Body::None);
        }
        self.reply_to_asker(cx, said, None);
        self.watch_anew(cx);
        if invite {
            self.updates.answered();
        } else {
            self.finish_update(cx);
        }
    }

    pub(super) fn offer_back<R: Rng>(&mut self, cx: &mut Context<'_, R>, said: &Said) {
        self.reply_to_asker(cx, said, None);
        self.updates.answered();
    }

    pub(super) fn on_update_acknowledged<R: Rng>(&mut self, cx: &mut Context<'_, R>, content: &Content) {
        let Some(exchange) = &self.exchange else { return };
        if !exchange.late {
            return self.finish_update(cx);
        }
        let asked = exchange.asker.other();
        let answer = content.sdp().ok_or_else(|| Refusal::BadAnswer.saying());
        match answer.and_then(|bytes| self.take_answer(cx, bytes)) {
            Ok((body, plan)) => {
                self.gate.install(cx, plan, Then::AcknowledgeChange(Body::Sdp(body)));
                self.proceed(cx);
            }
            Err(saying) => {
                self.leg_mut(asked).acknowledge_update(cx, &Body::None);
                self.refuse(cx, saying);
            }
        }
    }

    pub(super) fn acknowledge_change<R: Rng>(&mut self, cx: &mut Context<'_, R>, body: &Body) {
        if let Some(exchange) = &self.exchange {
            let asked = exchange.asker.other();
            self.leg_mut(asked).acknowledge_update(cx, body);
        }
        self.watch_anew(cx);
        self.finish_update(cx);
    }

    pub(super) fn refuse_update<R: Rng>(
        &mut self,
        cx: &mut Context<'_, R>,
        said: &Said,
        saying: Option<&Saying>,
    ) {
        self.reply_to_asker(cx, said, saying);
        self.finish_update(cx);
    }

    pub(super) fn cancel_update<R: Rng>(
        &mut self,
        cx: &mut Context<'_, R>,
        invite: ServerTxnId,
        cancel: &Message,
    ) {
        if let Some(exchange) = &mut self.exchange
            && exchange.ask.txn == invite
        {
            exchange.cancelled = true;
            let (asker, client) = (exchange.asker, exchange.client);
            let lines = self.leg(asker.other()).crossing(&self.leg(asker).content_of(cancel));
            cx.effects.extend(client.map(|client| Effect::Cancel(client, lines)));
        } else if let Some((side, ask)) = self.updates.withdraw(|ask| ask.txn == invite) {
            self.leg_mut(side).reply(cx, &ask, &Said::local(487), None);
        }
    }

    fn reply_to_asker<R: Rng>(&mut self, cx: &mut Context<'_, R>, said: &Said, saying: Option<&Saying>) {
        let Some(mut exchange) = self.exchange.take() else { return };
        exchange.replied = true;
        self.leg_mut(exchange.asker).reply(cx, &exchange.ask, said, saying);
        self.exchange = Some(exchange);
    }

    fn finish_update<R: Rng>(&mut self, cx: &mut Context<'_, R>) {
        self.exchange = None;
        if let Some((side, ask)) = self.updates.finish() {
            self.start_update(cx, side, ask);
        }
    }
}
