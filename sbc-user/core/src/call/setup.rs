//! From the first INVITE to the ACK: offer, early media, answer; or offer and answer the late way round.

use std::time::Duration;

use bytes::Bytes;

use crate::call::action::{CallTimer, Effect};
use crate::call::context::Context;
use crate::call::event::{Body, Content, Said};
use crate::call::gate::{Gate, Then};
use crate::call::leg::Leg;
use crate::call::media::{CallMedia, MediaSide};
use crate::call::state::{Action, Event, Phase};
use crate::call::teardown::Removal;
use crate::call::update_queue::UpdateQueue;
use crate::call::{Call, Side};
use crate::config::{NextHop, TrunkMedia};
use crate::flow::Flow;
use crate::id::{CallId, TrunkId};
use crate::media::command::MediaResult;
use crate::policy::admission::{Refusal, Saying};
use crate::rng::Rng;
use crate::sdp::Sdp;
use crate::sip::Message;
use crate::sip::header::HeaderError;
use crate::txn::ServerTxnId;

/// How long a callee may ring. Below Timer C (RFC 3261 s.16.6), so that the caller hears it from us.
const NO_ANSWER_LIMIT: Duration = Duration::from_secs(180);

/// An INVITE that was admitted.
#[derive(Debug)]
pub struct Invitation {
    /// Its transaction.
    pub txn: ServerTxnId,
    /// The request.
    pub request: Box<Message>,
    /// Where it came from.
    pub flow: Flow,
    /// Which trunk that is.
    pub from: TrunkId,
    /// Where it goes.
    pub to: TrunkId,
    /// That trunk's next hop.
    pub next_hop: NextHop,
    /// Hops that it may still take.
    pub max_forwards: u8,
}

impl Call {
    /// A new call; [`start`](Self::start) begins it.
    ///
    /// # Errors
    /// The INVITE cannot make a dialog.
    pub fn new<R: Rng>(
        cx: &mut Context<'_, R>,
        id: CallId,
        invitation: Invitation,
    ) -> Result<Self, HeaderError> {
        let Invitation { txn, request, flow, from, to, next_hop, max_forwards } = invitation;
        let transport = cx.listener(next_hop.listener).map_or(flow.transport, |listener| listener.transport);
        let out = Flow { listener: next_hop.listener, transport, remote: next_hop.remote, conn: None };
        let caller = Leg::of_caller(cx, from, flow, txn, request)?;
        let callee = Leg::of_callee(cx, to, out, &caller.invited());
        let caller_media = media_side(cx, from, flow);
        let callee_media = media_side(cx, to, out);
        Ok(Self {
            id,
            phase: Phase::Preparing,
            caller,
            callee,
            max_forwards,
            media: CallMedia::new(id, caller_media, callee_media),
            gate: Gate::default(),
            late_offer: false,
            early_sdp: None,
            updates: UpdateQueue::default(),
            exchange: None,
            relays: Vec::new(),
            began: cx.now.wall,
            ringing: None,
            answered: None,
            watch: None,
            ending: None,
            removal: Removal::NotAsked,
        })
    }

    /// Takes the caller's offer and prepares its media.
    pub fn start<R: Rng>(&mut self, cx: &mut Context<'_, R>) {
        let content = self.caller.invite_content();
        cx.effects.push(Effect::Arm(CallTimer::NoAnswer, cx.now.mono + NO_ANSWER_LIMIT));
        match &content.body {
            Body::None => {
                self.late_offer = true;
                self.gate.follow(Then::Place(content));
            }
            Body::Other { .. } => return self.refuse(cx, Refusal::ContentType.saying()),
            Body::Sdp(bytes) => match self.take_offer(cx, Side::Caller, bytes) {
                Ok((body, plan)) => {
                    let content = content.with_body(Body::Sdp(body));
                    self.gate.install(cx, plan, Then::Place(content));
                }
                Err(saying) => return self.refuse(cx, saying),
            },
        }
        self.proceed(cx);
    }

    /// The dataplane has answered.
    pub fn on_media<R: Rng>(&mut self, cx: &mut Context<'_, R>, op: crate::id::OpId, result: &MediaResult) {
        if self.gate.on_result(op, result) {
            self.proceed(cx);
        } else if !self.on_observed(cx, op, result) {
            self.on_removed(cx, op, result);
        }
    }

    /// Does what waits for nothing any more.
    pub(super) fn proceed<R: Rng>(&mut self, cx: &mut Context<'_, R>) {
        while let Some((then, in_force)) = self.gate.next() {
            if in_force {
                self.run(cx, then);
            } else {
                self.media_failed(cx, then);
            }
        }
    }

    fn run<R: Rng>(&mut self, cx: &mut Context<'_, R>, then: Then) {
        match then {
            Then::Place(content) => self.place(cx, &content),
            Then::Progress(said) => {
                self.relay_progress(cx, &said);
                // An announcement before the answer: nobody else may send before it has been heard.
                if matches!(said.content.body, Body::Sdp(_)) {
                    self.prime(cx, |_| true);
                }
            }
            Then::Connect(said) => self.connect(cx, &said),
            Then::ConnectLate(said) => self.connect_late(cx, &said),
            Then::AcknowledgeLate(body) => {
                self.callee.acknowledge(cx, &body);
                self.watch_anew(cx);
                self.opened(cx);
            }
            Then::Ask(content) => self.ask_other(cx, &content),
            Then::Agree(said) => self.agree(cx, &said),
            Then::OfferBack(said) => self.offer_back(cx, &said),
            Then::AcknowledgeChange(body) => self.acknowledge_change(cx, &body),
            Then::Refuse(said, saying) => self.refuse_update(cx, &said, saying.as_ref()),
            Then::Nothing => {}
        }
    }

    fn media_failed<R: Rng>(&mut self, cx: &mut Context<'_, R>, then: Then) {
        match then {
            // The change is refused, what held before holds on.
            Then::Ask(_) => {
                let saying = Refusal::MediaUnavailable.saying();
                cx.effects.push(Effect::Count(saying.counter));
                let _ = self.media.refuse_offer(cx.pools, cx.now.mono);
                self.refuse_update(cx, &Said::local(saying.status), Some(&saying));
            }
            Then::Nothing => self.latches_not_followed(cx),
            Then::Place(_)
            | Then::Progress(_)
            | Then::Connect(_)
            | Then::ConnectLate(_)
            | Then::AcknowledgeLate(_)
            | Then::Agree(_)
            | Then::OfferBack(_)
            | Then::AcknowledgeChange(_)
            | Then::Refuse(..) => self.refuse(cx, Refusal::MediaUnavailable.saying()),
        }
    }

    // --- the callee's responses ---

    pub(super) fn progress<R: Rng>(&mut self, cx: &mut Context<'_, R>, said: Said) {
        if !self.step(Event::Progress).contains(&Action::RelayProgress) {
            return;
        }
        // A description in an unreliable response to an INVITE without offer is no offer (RFC 3261 s.13.2.1).
        let described = if self.late_offer { None } else { said.content.sdp().cloned() };
        let Some(bytes) = described else {
            let said = without_sdp(said);
            self.gate.follow(Then::Progress(said));
            return self.proceed(cx);
        };
        match Sdp::parse(&bytes).map_err(|_| ()).and_then(|sdp| self.media.early_answer(&sdp).map_err(|_| ()))
        {
            Ok(described) => {
                self.early_sdp = Some(bytes);
                let said = with_sdp(said, described.body);
                self.gate.install(cx, described.plan, Then::Progress(said));
            }
            // The call may still get a usable answer.
            Err(()) => self.gate.follow(Then::Progress(without_sdp(said))),
        }
        self.proceed(cx);
    }

    pub(super) fn answer<R: Rng>(&mut self, cx: &mut Context<'_, R>, said: Said) {
        if !self.step(Event::Success).contains(&Action::CompleteMedia) {
            return;
        }
        let described = said.content.sdp().cloned();
        let prepared = if self.late_offer {
            let offer = described.ok_or_else(|| Refusal::BadAnswer.saying());
            offer.and_then(|bytes| {
                let (body, plan) = self.take_offer(cx, Side::Callee, &bytes)?;
                Ok((plan, Then::ConnectLate(with_sdp(said, body))))
            })
        } else {
            let answer =
                described.or_else(|| self.early_sdp.take()).ok_or_else(|| Refusal::BadAnswer.saying());
            answer.and_then(|bytes| {
                let (body, plan) = self.take_answer(cx, &bytes)?;
                Ok((plan, Then::Connect(with_sdp(said, body))))
            })
        };
        match prepared {
            Ok((plan, then)) => {
                self.gate.install(cx, plan, then);
                self.proceed(cx);
            }
            Err(saying) => self.refuse(cx, saying),
        }
    }

    pub(super) fn confirmed<R: Rng>(&mut self, cx: &mut Context<'_, R>, content: &Content) {
        if self.phase != Phase::Answered {
            return;
        }
        if !self.late_offer {
            return self.opened(cx);
        }
        let answer = content.sdp().ok_or_else(|| Refusal::BadAnswer.saying());
        match answer.and_then(|bytes| self.take_answer(cx, bytes)) {
            Ok((body, plan)) => {
                self.gate.install(cx, plan, Then::AcknowledgeLate(Body::Sdp(body)));
                self.proceed(cx);
            }
            Err(saying) => self.refuse(cx, saying),
        }
    }

    // --- what waited for media ---

    fn place<R: Rng>(&mut self, cx: &mut Context<'_, R>, content: &Content) {
        for action in self.step(Event::Prepared) {
            match action {
                Action::StartNoAnswer => {
                    cx.effects.push(Effect::Arm(CallTimer::NoAnswer, cx.now.mono + NO_ANSWER_LIMIT));
                }
                Action::PlaceCallee => self.callee.place(cx, content, self.max_forwards),
                Action::StopNoAnswer
                | Action::RelayProgress
                | Action::CompleteMedia
                | Action::AcceptCaller
                | Action::TearDown => {}
            }
        }
    }

    fn relay_progress<R: Rng>(&mut self, cx: &mut Context<'_, R>, said: &Said) {
        self.ringing.get_or_insert(cx.now.wall);
        self.caller.alert(cx, said);
    }

    fn connect<R: Rng>(&mut self, cx: &mut Context<'_, R>, said: &Said) {
        if self.connected(cx) {
            self.callee.acknowledge(cx, &Body::None);
            self.caller.accept(cx, said);
        }
    }

    fn connect_late<R: Rng>(&mut self, cx: &mut Context<'_, R>, said: &Said) {
        if self.connected(cx) {
            self.caller.accept(cx, said);
        }
    }

    fn connected<R: Rng>(&mut self, cx: &mut Context<'_, R>) -> bool {
        let actions = self.step(Event::Connected);
        if actions.contains(&Action::StopNoAnswer) {
            cx.effects.push(Effect::Disarm(CallTimer::NoAnswer));
        }
        let accept = actions.contains(&Action::AcceptCaller);
        if accept {
            self.answered = Some(cx.now.wall);
            cx.effects.push(Effect::Answered);
            self.begin_watching(cx);
        }
        accept
    }

    /// Both sides are confirmed: changes that waited go on.
    fn opened<R: Rng>(&mut self, cx: &mut Context<'_, R>) {
        if let Some((side, ask)) = self.updates.finish() {
            self.start_update(cx, side, ask);
        }
    }

    // --- descriptions ---

    pub(super) fn take_offer<R: Rng>(
        &mut self,
        cx: &mut Context<'_, R>,
        from: Side,
        bytes: &[u8],
    ) -> Result<(Bytes, crate::media::plan::MediaPlan), Saying> {
        let sdp = Sdp::parse(bytes).map_err(|_| Refusal::BadSdp.saying())?;
        let described = self.media.offer(from, &sdp, cx.pools, cx.rng, cx.now.mono)?;
        Ok((described.body, described.plan))
    }

    pub(super) fn take_answer<R: Rng>(
        &mut self,
        cx: &mut Context<'_, R>,
        bytes: &[u8],
    ) -> Result<(Bytes, crate::media::plan::MediaPlan), Saying> {
        let sdp = Sdp::parse(bytes).map_err(|_| Refusal::BadAnswer.saying())?;
        let described = self.media.answer(&sdp, cx.pools, cx.now.mono)?;
        self.arm_closing(cx);
        Ok((described.body, described.plan))
    }

    pub(super) fn step(&mut self, event: Event) -> &'static [Action] {
        let (phase, actions) = self.phase.on(event);
        self.phase = phase;
        actions
    }
}

fn media_side<R: Rng>(cx: &mut Context<'_, R>, trunk: TrunkId, flow: Flow) -> MediaSide {
    let rules = cx.trunk(trunk).map_or_else(TrunkMedia::default, |trunk| trunk.media);
    let config = cx.config;
    let listener = config.listeners.get(usize::from(flow.listener.0));
    let realm = listener.map_or(crate::id::RealmId(0), |listener| listener.realm);
    MediaSide::new(
        realm,
        config.realms.get(usize::from(realm.0)).map(|it| &it.media),
        rules,
        flow.remote.ip(),
        cx.rng,
    )
}

fn with_sdp(said: Said, body: Bytes) -> Said {
    Said { content: said.content.with_body(Body::Sdp(body)), ..said }
}

fn without_sdp(said: Said) -> Said {
    match said.content.body {
        Body::Sdp(_) => Said { content: said.content.with_body(Body::None), ..said },
        Body::None | Body::Other { .. } => said,
    }
}
