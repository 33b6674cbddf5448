//! Calls: two legs that never see each other's messages, the media between them, and what happens to both.
//!
//! A call takes what reaches one of its legs, decides, and asks for [`Effect`](action::Effect)s. It waits for the
//! dataplane wherever a message must not leave before its media is in force (the `gate`), lets through one change of
//! the session at a time (the `update_queue`), and ends in one way only (`teardown`).

pub mod action;
pub mod context;
pub mod event;
mod gate;
pub mod hide;
pub mod leg;
pub mod media;
mod pinhole;
pub mod placed;
pub mod received;
mod relay;
pub mod response_map;
pub mod setup;
pub(crate) mod silence;
pub mod state;
mod teardown;
mod update;
pub mod update_queue;
mod watch;

use std::time::SystemTime;

use bytes::Bytes;

use crate::call::action::{CallTimer, Purpose};
use crate::call::context::Context;
use crate::call::event::{Ask, LegEvent};
use crate::call::gate::Gate;
use crate::call::leg::{Acknowledged, Leg};
use crate::call::media::CallMedia;
use crate::call::state::Phase;
use crate::call::teardown::{Ending, Removal};
use crate::call::update::Exchange;
use crate::call::update_queue::UpdateQueue;
use crate::call::watch::Watch;
use crate::command::{CallState, CallView};
use crate::flow::Flow;
use crate::id::{CallId, ConnId, TrunkId};
use crate::rng::Rng;
use crate::sip::Message;
use crate::txn::{ClientTxnId, ServerTxnId};

/// One of the two sides of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The side that called us.
    Caller,
    /// The side that we call.
    Callee,
}

impl Side {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Caller, Self::Callee];

    /// The side across.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Caller => Self::Callee,
            Self::Callee => Self::Caller,
        }
    }
}

/// One call.
#[derive(Debug)]
pub struct Call {
    id: CallId,
    phase: Phase,
    caller: Leg,
    callee: Leg,
    /// Hops that the callee's INVITE may still take.
    max_forwards: u8,
    media: CallMedia,
    gate: Gate,
    /// The caller's INVITE had no offer: the callee's 2xx has it, the caller's ACK the answer.
    late_offer: bool,
    /// The last description of a provisional response, for callees that do not repeat it in the 2xx.
    early_sdp: Option<Bytes>,
    updates: UpdateQueue<Ask>,
    exchange: Option<Exchange>,
    /// Other requests that wait for the answer of the side across.
    relays: Vec<(Side, Ask)>,
    began: SystemTime,
    ringing: Option<SystemTime>,
    answered: Option<SystemTime>,
    watch: Option<Watch>,
    ending: Option<Ending>,
    removal: Removal,
}

/// What reaches a call through a transaction of ours.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// A response.
    Response(&'a Message, Flow),
    /// No final response; to be treated as this status (RFC 3261 s.8.1.3.1).
    Failed(u16),
}

impl Call {
    /// Its id.
    #[must_use]
    pub const fn id(&self) -> CallId {
        self.id
    }

    /// Its state, as operators see it.
    #[must_use]
    pub const fn state(&self) -> CallState {
        match (self.phase, &self.exchange) {
            (Phase::Answered, Some(_)) => CallState::Updating,
            (phase, _) => phase.visible(),
        }
    }

    /// As operators see it.
    pub fn view<R: Rng>(&self, cx: &Context<'_, R>) -> CallView {
        let (plan, placements) = self.gate.in_force();
        CallView {
            call: self.id,
            state: self.state(),
            began: self.began,
            answered: self.answered,
            caller: self.caller.view(cx),
            callee: self.callee.view(cx),
            plan: plan.cloned(),
            placements: placements.to_vec(),
            quality: self.media.quality().to_vec(),
        }
    }

    /// The trunk of a leg.
    #[must_use]
    pub const fn trunk(&self, side: Side) -> TrunkId {
        self.leg(side).trunk()
    }

    /// Our tag in the dialog of a leg.
    #[must_use]
    pub fn local_tag(&self, side: Side) -> &str {
        self.leg(side).local_tag()
    }

    /// Whether the callee's INVITE asks for the user whom this one asks for.
    #[must_use]
    pub fn asks_for_same_user(&self, invite: &Message) -> bool {
        self.callee.asked_user() == invite.uri().and_then(|uri| uri.user().map(ToOwned::to_owned))
    }

    /// Whether the signalling of a leg runs over this connection.
    #[must_use]
    pub fn uses(&self, conn: ConnId) -> bool {
        self.caller.uses(conn) || self.callee.uses(conn)
    }

    /// A request inside a dialog of `side`, neither ACK nor CANCEL.
    ///
    /// # Errors
    /// The status with which it is to be refused.
    pub fn on_request<R: Rng>(
        &mut self,
        cx: &mut Context<'_, R>,
        side: Side,
        txn: ServerTxnId,
        request: Box<Message>,
        flow: Flow,
        max_forwards: u8,
    ) -> Result<(), (Box<Message>, u16)> {
        if let Some(event) = self.leg_mut(side).on_request(cx, txn, request, flow, max_forwards)? {
            self.on_leg(cx, side, event);
        }
        Ok(())
    }

    /// An ACK inside a dialog of `side`; whether it acknowledged anything.
    pub fn on_ack<R: Rng>(&mut self, cx: &mut Context<'_, R>, side: Side, ack: &Message, flow: Flow) -> bool {
        let (acknowledged, content) = self.leg_mut(side).on_ack(cx, ack, flow);
        match acknowledged {
            Acknowledged::First => self.on_leg(cx, side, LegEvent::Confirm(content)),
            Acknowledged::Again => self.on_update_acknowledged(cx, &content),
            Acknowledged::Stray => {}
        }
        acknowledged != Acknowledged::Stray
    }

    /// A CANCEL, already answered, for the INVITE with this transaction.
    pub fn on_cancel<R: Rng>(&mut self, cx: &mut Context<'_, R>, invite: ServerTxnId, cancel: &Message) {
        if self.caller.first_invite() == Some(invite) {
            if let Some(event) = self.caller.on_cancel(cx, cancel) {
                self.on_leg(cx, Side::Caller, event);
            }
        } else {
            self.cancel_update(cx, invite, cancel);
        }
    }

    /// A request of ours has become this transaction.
    pub fn on_started(&mut self, purpose: Purpose, txn: ClientTxnId) {
        match purpose {
            Purpose::Invite => self.callee.placed_as(txn),
            Purpose::Update(_) => {
                if let Some(exchange) = &mut self.exchange {
                    exchange.client = Some(txn);
                }
            }
            Purpose::Relay(..) | Purpose::Bye(_) | Purpose::Nothing => {}
        }
    }

    /// What came of a request of ours.
    pub fn on_outcome<R: Rng>(&mut self, cx: &mut Context<'_, R>, purpose: Purpose, outcome: &Outcome<'_>) {
        match (purpose, outcome) {
            (Purpose::Invite, Outcome::Response(response, flow)) => {
                if let Some(event) = self.callee.on_invite_response(cx, response, *flow) {
                    self.on_leg(cx, Side::Callee, event);
                }
            }
            (Purpose::Invite, Outcome::Failed(status)) => {
                if let Some(event) = self.callee.on_invite_failed(cx, *status) {
                    self.on_leg(cx, Side::Callee, event);
                }
            }
            (Purpose::Update(side), outcome) => self.on_update_outcome(cx, side, outcome),
            (Purpose::Relay(side, txn), outcome) => self.on_relay_outcome(cx, side, txn, outcome),
            (Purpose::Bye(side), Outcome::Response(response, _)) => {
                if response.status().is_some_and(|status| status >= 200) {
                    self.leg_mut(side).on_bye_done(cx);
                }
            }
            (Purpose::Bye(side), Outcome::Failed(_)) => self.leg_mut(side).on_bye_done(cx),
            (Purpose::Nothing, _) => {}
        }
    }

    /// A 2xx to an INVITE of ours on `side` that no transaction waits for any more; whether its ACK was repeated.
    pub fn on_stray_success<R: Rng>(
        &mut self,
        cx: &mut Context<'_, R>,
        side: Side,
        response: &Message,
    ) -> bool {
        self.leg_mut(side).repeat_ack(cx, response)
    }

    /// One of its timers.
    pub fn on_timer<R: Rng>(&mut self, cx: &mut Context<'_, R>, timer: CallTimer) {
        match timer {
            CallTimer::NoAnswer => self.no_answer(cx),
            CallTimer::Unacknowledged(side) => {
                if let Some(event) = self.leg_mut(side).on_unacknowledged(cx) {
                    self.on_leg(cx, side, event);
                }
            }
            CallTimer::Lost(side) => {
                if let Some(event) = self.leg_mut(side).on_lost(cx) {
                    self.on_leg(cx, side, event);
                }
            }
            CallTimer::Look => self.look(cx),
            CallTimer::CloseWindows => self.close_windows(cx),
            CallTimer::Teardown => self.give_up_teardown(cx),
        }
    }

    /// A connection has gone.
    pub fn on_connection_lost<R: Rng>(&mut self, cx: &mut Context<'_, R>, conn: ConnId) {
        for side in Side::BOTH {
            if self.leg_mut(side).on_connection_lost(cx, conn) {
                let until = cx.now.mono + teardown::RECONNECT_LIMIT;
                cx.effects.push(action::Effect::Arm(CallTimer::Lost(side), until));
            }
        }
    }

    fn on_leg<R: Rng>(&mut self, cx: &mut Context<'_, R>, side: Side, event: LegEvent) {
        match event {
            LegEvent::Try => {}
            LegEvent::Progress(said) => self.progress(cx, said),
            LegEvent::Answer(said) => self.answer(cx, said),
            LegEvent::Fail(said) => self.callee_failed(cx, &said),
            LegEvent::Confirm(content) => self.confirmed(cx, &content),
            LegEvent::Cancel(content) => self.cancelled(cx, content),
            LegEvent::Disconnect(content) => self.disconnected(cx, side, content),
            LegEvent::Unacknowledged => self.unacknowledged(cx),
            LegEvent::Lost => self.lost(cx, side),
            LegEvent::Update(ask) => self.update(cx, side, ask),
            LegEvent::Request(ask) => self.relay(cx, side, ask),
        }
    }

    const fn leg(&self, side: Side) -> &Leg {
        match side {
            Side::Caller => &self.caller,
            Side::Callee => &self.callee,
        }
    }

    const fn leg_mut(&mut self, side: Side) -> &mut Leg {
        match side {
            Side::Caller => &mut self.caller,
            Side::Callee => &mut self.callee,
        }
    }
}
