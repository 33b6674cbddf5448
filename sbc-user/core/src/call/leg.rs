//! One side of a call: its dialog, its INVITE, and every message that is written or read on it.
//!
//! Messages stop here. Upwards go neutral [`LegEvent`]s, downwards come [`Content`]s that the leg dresses in its own
//! identifiers and addresses. What its INVITE may do in which state is decided by `received` and `placed`.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::call::action::{CallTimer, Effect, Purpose};
use crate::call::context::Context;
use crate::call::event::{Ask, Body, Content, LegEvent, Said};
use crate::call::hide::{self, Face, Secrets};
use crate::call::placed::{self, Placed};
use crate::call::received::{self, Received};
use crate::call::{Side, response_map};
use crate::command::LegView;
use crate::counter::Counter;
use crate::dialog::{Dialog, DialogEvent, DialogId, DialogState, Unacknowledged, Verdict};
use crate::flow::Flow;
use crate::id::TrunkId;
use crate::policy::admission::{RETRY_AFTER_SECONDS, Saying};
use crate::rng::Rng;
use crate::sip::header::{HeaderError, NameAddr};
use crate::sip::{HeaderName, Message, MessageBuilder, Method, Uri};
use crate::txn::{ClientTxnId, ServerTxnId};

/// Methods that this SBC takes, told in every Allow.
pub const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, MESSAGE, NOTIFY, REFER, SUBSCRIBE";

/// Early dialogs of one INVITE that are followed; provisional responses of further forks are ignored.
const MOST_FORKS: usize = 8;

/// One side of a call.
#[derive(Debug)]
pub struct Leg {
    side: Side,
    trunk: TrunkId,
    /// The path that its signalling takes.
    flow: Flow,
    face: Face,
    secrets: Secrets,
    call_id: Box<str>,
    local_tag: Box<str>,
    from: String,
    to: String,
    invite: Invite,
    /// The dialog in force: the caller's from the start, the callee's from its last tagged response on.
    dialog: Option<Dialog>,
    /// The callee's early dialogs.
    forks: Vec<Dialog>,
    unacknowledged: Option<Sent2xx>,
    /// The last ACK of ours, for copies of its 2xx.
    last_ack: Option<(DialogId, u32, Bytes)>,
}

#[derive(Debug)]
enum Invite {
    Received { state: Received, txn: ServerTxnId, request: Box<Message> },
    Placed { state: Placed, txn: Option<ClientTxnId>, request: Option<Box<Message>> },
}

/// A 2xx of ours to an INVITE that waits for its ACK.
#[derive(Debug)]
struct Sent2xx {
    clock: Unacknowledged,
    txn: ServerTxnId,
    number: u32,
    bytes: Bytes,
}

/// How a leg is told that it is over: the refusal of its INVITE, or its BYE.
#[derive(Clone, Debug)]
pub struct Farewell {
    /// Status for an INVITE that has not been answered.
    pub said: Said,
    /// Warning and Retry-After of a refusal of our own.
    pub saying: Option<Saying>,
    /// A `Reason` of ours (RFC 3326).
    pub reason: Option<String>,
}

/// An ACK that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// It acknowledges the 2xx to the first INVITE.
    First,
    /// It acknowledges the 2xx to a re-INVITE.
    Again,
    /// A copy, or it belongs to nothing.
    Stray,
}

impl Leg {
    /// The leg of a caller, from its INVITE.
    ///
    /// # Errors
    /// The INVITE cannot make a dialog.
    pub fn of_caller<R: Rng>(
        cx: &mut Context<'_, R>,
        trunk: TrunkId,
        flow: Flow,
        txn: ServerTxnId,
        request: Box<Message>,
    ) -> Result<Self, HeaderError> {
        let local_tag: Box<str> = cx.origin.tag(cx.rng).into();
        let dialog = Dialog::of_callee(&request, &local_tag, DialogState::Early)?;
        let face = cx.face(flow, flow.remote);
        let mut secrets = Secrets::default();
        secrets.add_face(&face);
        secrets.add_of(&request);
        secrets.add(&local_tag);
        cx.effects.push(Effect::Index(local_tag.clone(), Side::Caller));
        Ok(Self {
            side: Side::Caller,
            trunk,
            flow,
            face,
            secrets,
            call_id: request.call_id()?.into(),
            local_tag,
            from: request.from()?.uri().as_str().to_owned(),
            to: request.to()?.uri().as_str().to_owned(),
            invite: Invite::Received { state: Received::Proceeding, txn, request },
            dialog: Some(dialog),
            forks: Vec::new(),
            unacknowledged: None,
            last_ack: None,
        })
    }

    /// The leg of a callee that has not been called yet.
    pub fn of_callee<R: Rng>(cx: &mut Context<'_, R>, trunk: TrunkId, flow: Flow, caller: &Self) -> Self {
        let face = cx.face(flow, flow.remote);
        let local_tag: Box<str> = cx.origin.tag(cx.rng).into();
        let call_id: Box<str> = cx.origin.call_id(cx.rng).into();
        let mut secrets = Secrets::default();
        secrets.add_face(&face);
        secrets.add(&call_id);
        secrets.add(&local_tag);
        cx.effects.push(Effect::Index(local_tag.clone(), Side::Callee));
        let crossing = |uri: &str, ip| match Uri::parse(uri) {
            Ok(uri) if face.hide => hide::with_host(&uri, ip),
            Ok(_) | Err(_) => uri.to_owned(),
        };
        Self {
            side: Side::Callee,
            trunk,
            flow,
            face,
            secrets,
            call_id,
            local_tag,
            from: crossing(&caller.from, face.local.ip()),
            to: crossing(&caller.to, face.remote.ip()),
            invite: Invite::Placed { state: Placed::Idle, txn: None, request: None },
            dialog: None,
            forks: Vec::new(),
            unacknowledged: None,
            last_ack: None,
        }
    }

    // --- what is asked of it ---

    /// Sends the first INVITE, made from the caller's.
    pub fn place<R: Rng>(
        &mut self,
        cx: &mut Context<'_, R>,
        caller: &Self,
        content: &Content,
        max_forwards: u8,
    ) {
        let Invite::Placed { state, .. } = &mut self.invite else { return };
        let (next, actions) = state.on(placed::Event::Place);
        *state = next;
        if actions.contains(&placed::Action::SendInvite) {
            self.send_invite(cx, caller, content, max_forwards);
        }
    }

    /// Relays a provisional response to the caller.
    pub fn alert<R: Rng>(&mut self, cx: &mut Context<'_, R>, said: &Said) {
        self.on_received(cx, received::Event::Alert, Some(said), None);
    }

    /// Relays the 2xx to the caller.
    pub fn accept<R: Rng>(&mut self, cx: &mut Context<'_, R>, said: &Said) {
        self.on_received(cx, received::Event::Accept, Some(said), None);
    }

    /// Sends the callee the ACK that was held back.
    pub fn acknowledge<R: Rng>(&mut self, cx: &mut Context<'_, R>, body: &Body) {
        self.on_placed(cx, placed::Event::Acknowledge, body, &Farewell::plain());
    }

    /// Ends it, in whatever way its state asks for. Correct to call twice.
    pub fn hang_up<R: Rng>(&mut self, cx: &mut Context<'_, R>, farewell: &Farewell) {
        match self.invite {
            Invite::Received { .. } => {
                self.on_received(cx, received::Event::Hangup, None, Some(farewell));
            }
            Invite::Placed { .. } => {
                self.on_placed(cx, placed::Event::Hangup, &Body::None, farewell);
            }
        }
    }

    /// Sends a request inside the dialog; false if there is none.
    pub fn request<R: Rng>(
        &mut self,
        cx: &mut Context<'_, R>,
        method: Method,
        content: &Content,
        purpose: Purpose,
        reason: Option<&str>,
    ) -> bool {
        let branch = cx.origin.branch(cx.rng);
        let via = self.via(&branch);
        let flow = self.path(cx);
        let Some(dialog) = self.dialog.as_mut() else { return false };
        let mut message = dialog.request(&method, via);
        if target_refresh(&method) {
            message = message.header(HeaderName::Contact, self.contact()).header(HeaderName::Allow, ALLOW);
        }
        if let Some(reason) = reason {
            message = message.header(HeaderName::Reason, reason);
        }
        let bytes = self.dress(cx, message, content).build();
        cx.effects.push(Effect::Request { purpose, method, branch, flow, bytes });
        true
    }

    /// Answers a request inside the dialog, other than the first INVITE. A 2xx to INVITE is repeated until its ACK.
    pub fn reply<R: Rng>(
        &mut self,
        cx: &mut Context<'_, R>,
        ask: &Ask,
        said: &Said,
        saying: Option<&Saying>,
    ) {
        let mut message = self.response(&ask.request, said);
        let session = matches!(ask.method, Method::Invite | Method::Update);
        if session && said.status < 300 {
            message = message.header(HeaderName::Contact, self.contact()).header(HeaderName::Allow, ALLOW);
        }
        message = refusal_lines(message, saying, self.face.local);
        let bytes = self.dress(cx, message, &said.content).build();
        cx.effects.push(Effect::Respond { txn: ask.txn, status: said.status, bytes: bytes.clone() });
        if ask.method == Method::Invite && (200..300).contains(&said.status) {
            self.await_ack(cx, ask.txn, &ask.request, bytes);
        }
        if session
            && said.status < 300
            && let Some(dialog) = &mut self.dialog
        {
            // A malformed Contact was refused when the request was judged.
            let _ = dialog.refresh_target(&ask.request);
        }
    }

    /// Acknowledges a 2xx to a re-INVITE of ours.
    pub fn acknowledge_update<R: Rng>(&mut self, cx: &mut Context<'_, R>, body: &Body) {
        self.send_ack(cx, body);
    }

    // --- what arrives ---

    /// A response to the first INVITE. `None`: nothing that concerns the call.
    pub fn on_invite_response<R: Rng>(
        &mut self,
        cx: &mut Context<'_, R>,
        response: &Message,
        flow: Flow,
    ) -> Option<LegEvent> {
        let status = response.status()?;
        self.seen_on(flow);
        let Invite::Placed { state, request: Some(request), .. } = &self.invite else { return None };
        let (state, request) = (*state, request.clone());
        self.secrets.add_of(response);
        let event = match status {
            100 => placed::Event::Provisional,
            101..=199 => {
                if !self.follow(cx, &request, response) {
                    return None;
                }
                placed::Event::Provisional
            }
            200..=299 => {
                let known = self.dialog.as_ref().is_some_and(|dialog| {
                    dialog.state() != DialogState::Early && is_of(response, dialog.id())
                });
                let answered =
                    self.dialog.as_ref().is_some_and(|dialog| dialog.state() != DialogState::Early);
                if answered && !known {
                    self.end_second_answer(cx, &request, response);
                    return None;
                }
                if known {
                    // A copy: the machine repeats the ACK where it has been sent.
                    self.on_placed(cx, placed::Event::Success, &Body::None, &Farewell::plain());
                    return None;
                }
                self.confirm(cx, &request, response)?;
                placed::Event::Success
            }
            _ => {
                if let Some(dialog) = &mut self.dialog {
                    dialog.on(DialogEvent::Failure);
                }
                placed::Event::Failure
            }
        };
        if state == Placed::Cancelling && event == placed::Event::Success {
            cx.effects.push(Effect::Count(Counter::AnswerAfterCancel));
        }
        let actions = self.on_placed(cx, event, &Body::None, &Farewell::plain());
        let said = || Said::of(response, &self.secrets);
        if actions.contains(&placed::Action::ReportProgress) {
            return Some(if status == 100 { LegEvent::Try } else { LegEvent::Progress(said()) });
        }
        if actions.contains(&placed::Action::ReportAnswer) {
            return Some(LegEvent::Answer(said()));
        }
        actions.contains(&placed::Action::ReportFailure).then(|| LegEvent::Fail(said()))
    }

    /// The first INVITE got no final response, or could not be sent.
    pub fn on_invite_failed<R: Rng>(&mut self, cx: &mut Context<'_, R>, status: u16) -> Option<LegEvent> {
        let actions = self.on_placed(cx, placed::Event::Failure, &Body::None, &Farewell::plain());
        actions.contains(&placed::Action::ReportFailure).then(|| LegEvent::Fail(Said::local(status)))
    }

    /// The first INVITE has become this transaction.
    pub const fn placed_as(&mut self, id: ClientTxnId) {
        if let Invite::Placed { txn, .. } = &mut self.invite {
            *txn = Some(id);
        }
    }

    /// The caller's CANCEL for its first INVITE; it has been answered.
    pub fn on_cancel<R: Rng>(&mut self, cx: &mut Context<'_, R>, cancel: &Message) -> Option<LegEvent> {
        let actions = self.on_received(cx, received::Event::Cancel, None, None);
        let content = Content::of(cancel, &self.secrets);
        actions.contains(&received::Action::ReportCancelled).then_some(LegEvent::Cancel(content))
    }

    /// The transaction of the caller's first INVITE.
    #[must_use]
    pub const fn first_invite(&self) -> Option<ServerTxnId> {
        match self.invite {
            Invite::Received { txn, .. } => Some(txn),
            Invite::Placed { .. } => None,
        }
    }

    /// A request in its dialog: BYE is answered here, others wait for the call's answer.
    ///
    /// # Errors
    /// The status with which it is refused.
    pub fn on_request<R: Rng>(
        &mut self,
        cx: &mut Context<'_, R>,
        txn: ServerTxnId,
        request: Box<Message>,
        flow: Flow,
        max_forwards: u8,
    ) -> Result<Option<LegEvent>, (Box<Message>, u16)> {
        let Some(dialog) = self.dialog_of(&request) else { return Err((request, 481)) };
        if let Err(refused) = dialog.accept(&request) {
            return Err((request, refused.status()));
        }
        self.seen_on(flow);
        self.found_again(cx);
        let content = Content::of(&request, &self.secrets);
        let Some(method) = request.method() else { return Err((request, 400)) };
        let ask = Ask { txn, method, request, content, max_forwards };
        Ok(match ask.method {
            Method::Bye => self.on_bye(cx, ask),
            Method::Invite => Some(LegEvent::Update(ask)),
            Method::Update if ask.content.sdp().is_some() => Some(LegEvent::Update(ask)),
            Method::Ack
            | Method::Cancel
            | Method::Options
            | Method::Register
            | Method::Info
            | Method::Prack
            | Method::Update
            | Method::Refer
            | Method::Subscribe
            | Method::Notify
            | Method::Message
            | Method::Publish
            | Method::Other(_) => Some(LegEvent::Request(ask)),
        })
    }

    /// An ACK in its dialog.
    pub fn on_ack<R: Rng>(
        &mut self,
        cx: &mut Context<'_, R>,
        ack: &Message,
        flow: Flow,
    ) -> (Acknowledged, Content) {
        let content = Content::of(ack, &self.secrets);
        let number = ack.cseq().ok().map(|cseq| cseq.number);
        let awaited = self.unacknowledged.as_ref().is_some_and(|sent| Some(sent.number) == number);
        if !awaited {
            return (Acknowledged::Stray, content);
        }
        self.seen_on(flow);
        self.stop_2xx(cx);
        let first = match &self.invite {
            Invite::Received { state, .. } => matches!(state, Received::Accepted | Received::Releasing),
            Invite::Placed { .. } => false,
        };
        if first {
            self.on_received(cx, received::Event::Ack, None, None);
            (Acknowledged::First, content)
        } else {
            (Acknowledged::Again, content)
        }
    }

    /// The response to a request of ours inside the dialog, other than the first INVITE and BYE.
    pub fn on_response<R: Rng>(&mut self, cx: &mut Context<'_, R>, response: &Message, flow: Flow) -> Said {
        self.seen_on(flow);
        self.found_again(cx);
        if response.status().is_some_and(|status| (200..300).contains(&status))
            && response.cseq().is_ok_and(|cseq| target_refresh(&cseq.method))
            && let Some(dialog) = &mut self.dialog
        {
            // A malformed Contact leaves the target as it was.
            let _ = dialog.refresh_target(response);
        }
        Said::of(response, &self.secrets)
    }

    /// A copy of a 2xx whose ACK has left; whether it was one.
    pub fn repeat_ack<R: Rng>(&mut self, cx: &mut Context<'_, R>, response: &Message) -> bool {
        let flow = self.path(cx);
        let Some((id, number, bytes)) = &self.last_ack else { return false };
        let same = is_of(response, id) && response.cseq().is_ok_and(|cseq| cseq.number == *number);
        if same {
            cx.effects.push(Effect::Ack { flow, bytes: bytes.clone() });
        }
        same
    }

    /// Our BYE was answered or given up.
    pub fn on_bye_done<R: Rng>(&mut self, cx: &mut Context<'_, R>) {
        match self.invite {
            Invite::Received { .. } => {
                self.on_received(cx, received::Event::ByeDone, None, None);
            }
            Invite::Placed { .. } => {
                self.on_placed(cx, placed::Event::ByeDone, &Body::None, &Farewell::plain());
            }
        }
    }

    /// Time to repeat a 2xx, or to give up waiting for its ACK.
    pub fn on_unacknowledged<R: Rng>(&mut self, cx: &mut Context<'_, R>) -> Option<LegEvent> {
        let sent = self.unacknowledged.as_mut()?;
        match sent.clock.on_timeout(cx.now.mono) {
            Verdict::Repeat => {
                cx.effects.push(Effect::Respond { txn: sent.txn, status: 200, bytes: sent.bytes.clone() });
                cx.effects.push(Effect::Arm(CallTimer::Unacknowledged(self.side), sent.clock.poll_timeout()));
                None
            }
            Verdict::Wait => {
                cx.effects.push(Effect::Arm(CallTimer::Unacknowledged(self.side), sent.clock.poll_timeout()));
                None
            }
            Verdict::GiveUp => {
                self.unacknowledged = None;
                let reports = match &self.invite {
                    Invite::Received { state: Received::Accepted | Received::Releasing, .. } => {
                        let farewell = Farewell::reason("SIP;cause=408;text=\"ACK missing\"");
                        let actions =
                            self.on_received(cx, received::Event::AckTimeout, None, Some(&farewell));
                        actions.contains(&received::Action::ReportNoAck)
                    }
                    Invite::Received { .. } | Invite::Placed { .. } => true,
                };
                reports.then_some(LegEvent::Unacknowledged)
            }
        }
    }

    /// What crosses of the INVITE that made it.
    #[must_use]
    pub fn invite_content(&self) -> Content {
        match &self.invite {
            Invite::Received { request, .. } => Content::of(request, &self.secrets),
            Invite::Placed { .. } => Content::nothing(),
        }
    }

    /// Whether its signalling runs over this connection.
    #[must_use]
    pub fn uses(&self, conn: crate::id::ConnId) -> bool {
        self.flow.conn == Some(conn)
    }

    /// Its connection has gone. Arms the time in which it may come back; whether it concerned this leg.
    pub fn on_connection_lost(&mut self, conn: crate::id::ConnId) -> bool {
        let ours = self.flow.conn == Some(conn);
        if ours {
            self.flow.conn = None;
        }
        ours && !self.is_closed()
    }

    /// The connection did not come back.
    pub fn on_lost<R: Rng>(&mut self, cx: &mut Context<'_, R>) -> Option<LegEvent> {
        let reports = match self.invite {
            Invite::Received { .. } => {
                let actions = self.on_received(cx, received::Event::Lost, None, None);
                actions.contains(&received::Action::ReportLost)
            }
            Invite::Placed { .. } => {
                let actions = self.on_placed(cx, placed::Event::Lost, &Body::None, &Farewell::plain());
                actions.contains(&placed::Action::ReportLost)
            }
        };
        reports.then_some(LegEvent::Lost)
    }

    /// Its teardown took too long.
    pub const fn forget(&mut self) {
        match &mut self.invite {
            Invite::Received { state, .. } => *state = Received::Closed,
            Invite::Placed { state, .. } => *state = Placed::Closed,
        }
    }

    // --- looking ---

    /// Nothing more to do on it.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        match self.invite {
            Invite::Received { state, .. } => matches!(state, Received::Closed),
            Invite::Placed { state, .. } => matches!(state, Placed::Closed),
        }
    }

    /// Whether requests can be sent in its dialog.
    #[must_use]
    pub fn has_dialog(&self) -> bool {
        self.dialog.as_ref().is_some_and(|dialog| dialog.state() != DialogState::Terminated)
    }

    /// Whether a 2xx of ours waits for its ACK.
    #[must_use]
    pub const fn awaits_ack(&self) -> bool {
        self.unacknowledged.is_some()
    }

    /// How it looks from its own network.
    #[must_use]
    pub const fn face(&self) -> &Face {
        &self.face
    }

    /// The address its signalling comes from.
    #[must_use]
    pub const fn remote(&self) -> SocketAddr {
        self.flow.remote
    }

    /// As operators see it.
    pub fn view<R: Rng>(&self, cx: &Context<'_, R>) -> LegView {
        LegView {
            realm: cx.realm_of(self.flow.listener).map_or_else(String::new, |realm| realm.name.clone()),
            trunk: cx.trunk(self.trunk).map_or_else(String::new, |trunk| trunk.name.clone()),
            transport: self.flow.transport,
            remote: self.flow.remote,
            sip_call_id: self.call_id.to_string(),
            from: self.from.clone(),
            to: self.to.clone(),
        }
    }

    // --- machines ---

    fn on_received<R: Rng>(
        &mut self,
        cx: &mut Context<'_, R>,
        event: received::Event,
        said: Option<&Said>,
        farewell: Option<&Farewell>,
    ) -> &'static [received::Action] {
        let Invite::Received { state, txn, request } = &mut self.invite else { return &[] };
        let (next, actions) = state.on(event);
        *state = next;
        let (txn, request) = (*txn, request.clone());
        for action in actions {
            match action {
                received::Action::SendProvisional => {
                    if let Some(said) = said {
                        self.answer_invite(cx, txn, &request, said, None);
                    }
                }
                received::Action::SendSuccess => {
                    if let Some(said) = said {
                        let bytes = self.answer_invite(cx, txn, &request, said, None);
                        if let Some(dialog) = &mut self.dialog {
                            dialog.on(DialogEvent::Success);
                        }
                        self.await_ack(cx, txn, &request, bytes);
                    }
                }
                received::Action::StopSuccess => self.stop_2xx(cx),
                received::Action::SendFailure => {
                    if let Some(farewell) = farewell {
                        self.answer_invite(cx, txn, &request, &farewell.said, Some(farewell));
                    }
                }
                received::Action::SendTerminated => {
                    self.answer_invite(cx, txn, &request, &Said::local(487), None);
                }
                received::Action::SendBye => {
                    self.stop_2xx(cx);
                    self.send_bye(cx, farewell);
                }
                received::Action::AnswerBye
                | received::Action::ReportConfirmed
                | received::Action::ReportCancelled
                | received::Action::ReportReleased
                | received::Action::ReportNoAck
                | received::Action::ReportLost => {}
            }
        }
        if self.is_closed()
            && let Some(dialog) = &mut self.dialog
        {
            dialog.on(DialogEvent::Bye);
        }
        actions
    }

    fn on_placed<R: Rng>(
        &mut self,
        cx: &mut Context<'_, R>,
        event: placed::Event,
        body: &Body,
        farewell: &Farewell,
    ) -> &'static [placed::Action] {
        let Invite::Placed { state, txn, .. } = &mut self.invite else { return &[] };
        let copy = matches!(state, Placed::Confirmed | Placed::Closing | Placed::Closed);
        let (next, actions) = state.on(event);
        *state = next;
        let txn = *txn;
        for action in actions {
            match action {
                placed::Action::SendCancel => cx.effects.extend(txn.map(Effect::Cancel)),
                placed::Action::SendAck if copy => self.resend_ack(cx),
                placed::Action::SendAck => self.send_ack(cx, body),
                placed::Action::SendBye => {
                    self.send_bye(cx, Some(farewell));
                }
                placed::Action::SendInvite
                | placed::Action::AnswerBye
                | placed::Action::ReportProgress
                | placed::Action::ReportAnswer
                | placed::Action::ReportFailure
                | placed::Action::ReportReleased
                | placed::Action::ReportLost => {}
            }
        }
        actions
    }

    fn on_bye<R: Rng>(&mut self, cx: &mut Context<'_, R>, ask: Ask) -> Option<LegEvent> {
        let reports = match self.invite {
            Invite::Received { .. } => {
                let actions = self.on_received(cx, received::Event::Bye, None, None);
                actions.contains(&received::Action::ReportReleased)
            }
            Invite::Placed { .. } => {
                let actions = self.on_placed(cx, placed::Event::Bye, &Body::None, &Farewell::plain());
                actions.contains(&placed::Action::ReportReleased)
            }
        };
        self.reply(cx, &ask, &Said::local(200), None);
        if let Some(dialog) = &mut self.dialog {
            dialog.on(DialogEvent::Bye);
        }
        reports.then_some(LegEvent::Disconnect(ask.content))
    }

    // --- dialogs ---

    fn dialog_of(&mut self, request: &Message) -> Option<&mut Dialog> {
        let id = DialogId::of_request(request)?;
        let in_force = self.dialog.as_ref().is_some_and(|dialog| *dialog.id() == id);
        if in_force {
            return self.dialog.as_mut();
        }
        self.forks.iter_mut().find(|dialog| *dialog.id() == id)
    }

    /// A provisional response: its dialog is the one in force from now on. False: one fork too many.
    fn follow<R: Rng>(&mut self, cx: &mut Context<'_, R>, request: &Message, response: &Message) -> bool {
        if response.to().is_ok_and(|to| to.tag().is_none()) {
            return true;
        }
        if let Some(dialog) = self.forks.iter().find(|dialog| is_of(response, dialog.id())) {
            self.dialog = Some(dialog.clone());
            return true;
        }
        let Ok(dialog) = Dialog::of_caller(request, response) else {
            cx.effects.push(Effect::Count(Counter::MalformedResponse));
            return false;
        };
        if self.forks.len() >= MOST_FORKS {
            cx.effects.push(Effect::Count(Counter::ForkIgnored));
            return false;
        }
        self.forks.push(dialog.clone());
        self.dialog = Some(dialog);
        true
    }

    /// The 2xx decides which dialog is the call's.
    fn confirm<R: Rng>(
        &mut self,
        cx: &mut Context<'_, R>,
        request: &Message,
        response: &Message,
    ) -> Option<()> {
        let early = self.forks.iter().position(|dialog| is_of(response, dialog.id()));
        let dialog = match early.map(|index| self.forks.swap_remove(index)) {
            Some(mut dialog) => dialog.confirm(response).map(|()| dialog),
            None => Dialog::of_caller(request, response),
        };
        let Ok(dialog) = dialog else {
            // Without a dialog there is nothing to acknowledge; the callee will give up.
            cx.effects.push(Effect::Count(Counter::MalformedResponse));
            return None;
        };
        self.dialog = Some(dialog);
        self.forks.clear();
        Some(())
    }

    /// A second 2xx of a forked INVITE: acknowledged and ended at once (RFC 3261 s.13.2.2.4).
    fn end_second_answer<R: Rng>(&mut self, cx: &mut Context<'_, R>, request: &Message, response: &Message) {
        let Ok(mut dialog) = Dialog::of_caller(request, response) else {
            cx.effects.push(Effect::Count(Counter::MalformedResponse));
            return;
        };
        let Ok(number) = request.cseq().map(|cseq| cseq.number) else { return };
        let flow = self.path(cx);
        let via = self.via(&cx.origin.branch(cx.rng));
        let ack = dialog.ack(number, via).build();
        cx.effects.push(Effect::Ack { flow, bytes: ack });
        let branch = cx.origin.branch(cx.rng);
        let bye = dialog.request(&Method::Bye, self.via(&branch)).build();
        cx.effects.push(Effect::Request {
            purpose: Purpose::Nothing,
            method: Method::Bye,
            branch,
            flow,
            bytes: bye,
        });
        cx.effects.push(Effect::Count(Counter::ForkEnded));
    }

    // --- writing ---

    fn send_invite<R: Rng>(
        &mut self,
        cx: &mut Context<'_, R>,
        caller: &Self,
        content: &Content,
        max_forwards: u8,
    ) {
        let Invite::Received { request: received, .. } = &caller.invite else { return };
        let branch = cx.origin.branch(cx.rng);
        let party = |value: Option<NameAddr<'_>>, uri: &str| {
            let display = value.and_then(|value| value.display_raw().map(<[u8]>::to_vec)).unwrap_or_default();
            let mut out = display;
            if !out.is_empty() {
                out.push(b' ');
            }
            out.extend_from_slice(format!("<{uri}>").as_bytes());
            out
        };
        let mut from = party(received.from().ok(), &self.from);
        from.extend_from_slice(format!(";tag={}", self.local_tag).as_bytes());
        let to = party(received.to().ok(), &self.to);
        let message = MessageBuilder::request(&Method::Invite, &self.request_uri(received))
            .header(HeaderName::Via, self.via(&branch))
            .header(HeaderName::MaxForwards, max_forwards.to_string())
            .header(HeaderName::From, from)
            .header(HeaderName::To, to)
            .header(HeaderName::CallId, self.call_id.as_bytes())
            .header(HeaderName::CSeq, "1 INVITE")
            .header(HeaderName::Contact, self.contact())
            .header(HeaderName::Allow, ALLOW);
        let bytes = self.dress(cx, message, content).build();
        // What the builder has written can be read again: values cannot break out of their lines.
        let parsed = Message::parse(bytes.clone()).ok().map(Box::new);
        if let Invite::Placed { request, .. } = &mut self.invite {
            *request = parsed;
        }
        cx.effects.push(Effect::Request {
            purpose: Purpose::Invite,
            method: Method::Invite,
            branch,
            flow: self.flow,
            bytes,
        });
    }

    /// Whom the callee's INVITE is for: the user whom the caller named, at the next hop.
    fn request_uri(&self, received: &Message) -> String {
        let asked = received.request_uri().unwrap_or_default();
        let Ok(uri) = Uri::parse(asked) else { return asked.to_owned() };
        let next_hop = |user: &str, params: &str| {
            let transport = if self.flow.transport.is_reliable() {
                format!(";transport={}", self.flow.transport)
            } else {
                String::new()
            };
            let at = if user.is_empty() { "" } else { "@" };
            format!("sip:{user}{at}{}{params}{transport}", self.face.remote)
        };
        if uri.is_sip() {
            next_hop(uri.user().unwrap_or_default(), &hide::params_that_cross(&uri))
        } else if uri.scheme() == "tel" {
            next_hop(&format!("{}{}", uri.opaque(), uri.params_text()), ";user=phone")
        } else {
            asked.to_owned()
        }
    }

    fn answer_invite<R: Rng>(
        &mut self,
        cx: &mut Context<'_, R>,
        txn: ServerTxnId,
        request: &Message,
        said: &Said,
        farewell: Option<&Farewell>,
    ) -> Bytes {
        let mut message = self.response(request, said);
        if said.status < 300 {
            for route in request.all(HeaderName::RecordRoute) {
                message = message.header(HeaderName::RecordRoute, route);
            }
            message = message.header(HeaderName::Contact, self.contact()).header(HeaderName::Allow, ALLOW);
        }
        message = refusal_lines(message, farewell.and_then(|it| it.saying.as_ref()), self.face.local);
        if let Some(reason) = farewell.and_then(|it| it.reason.as_ref()) {
            message = message.header(HeaderName::Reason, reason);
        }
        let bytes = self.dress(cx, message, &said.content).build();
        cx.effects.push(Effect::Respond { txn, status: said.status, bytes: bytes.clone() });
        bytes
    }

    fn response(&self, request: &Message, said: &Said) -> MessageBuilder {
        let phrase =
            if said.phrase.is_empty() { response_map::phrase(said.status).as_bytes() } else { &said.phrase };
        MessageBuilder::response_to(request, said.status, phrase, None, Some(&self.local_tag))
    }

    fn send_ack<R: Rng>(&mut self, cx: &mut Context<'_, R>, body: &Body) {
        let flow = self.path(cx);
        let via = self.via(&cx.origin.branch(cx.rng));
        let Some(dialog) = &self.dialog else { return };
        let number = dialog.local_number();
        let content = Content::nothing().with_body(body.clone());
        let message = dialog.ack(number, via);
        let id = dialog.id().clone();
        let bytes = self.dress(cx, message, &content).build();
        self.last_ack = Some((id, number, bytes.clone()));
        cx.effects.push(Effect::Ack { flow, bytes });
    }

    fn resend_ack<R: Rng>(&mut self, cx: &mut Context<'_, R>) {
        let flow = self.path(cx);
        if let Some((_, _, bytes)) = &self.last_ack {
            cx.effects.push(Effect::Ack { flow, bytes: bytes.clone() });
        }
    }

    fn send_bye<R: Rng>(&mut self, cx: &mut Context<'_, R>, farewell: Option<&Farewell>) {
        let nothing = Content::nothing();
        let content = farewell.map_or(&nothing, |farewell| &farewell.said.content);
        let content = Content { carried: content.carried.clone(), body: Body::None };
        let reason = farewell.and_then(|farewell| farewell.reason.as_deref());
        self.request(cx, Method::Bye, &content, Purpose::Bye(self.side), reason);
    }

    fn await_ack<R: Rng>(
        &mut self,
        cx: &mut Context<'_, R>,
        txn: ServerTxnId,
        request: &Message,
        bytes: Bytes,
    ) {
        let Ok(cseq) = request.cseq() else { return };
        let clock = Unacknowledged::since(cx.now.mono);
        cx.effects.push(Effect::Arm(CallTimer::Unacknowledged(self.side), clock.poll_timeout()));
        self.unacknowledged = Some(Sent2xx { clock, txn, number: cseq.number, bytes });
    }

    fn stop_2xx<R: Rng>(&mut self, cx: &mut Context<'_, R>) {
        if self.unacknowledged.take().is_some() {
            cx.effects.push(Effect::Disarm(CallTimer::Unacknowledged(self.side)));
        }
    }

    /// Adds what crosses from the other side.
    fn dress<R: Rng>(
        &self,
        cx: &mut Context<'_, R>,
        mut message: MessageBuilder,
        content: &Content,
    ) -> MessageBuilder {
        let crossing = content.carried.lines(&self.face);
        for _ in 0..crossing.hidden {
            cx.effects.push(Effect::Count(Counter::HeaderHidden));
        }
        for line in &crossing.lines {
            message = message.raw_line(line);
        }
        match &content.body {
            Body::None => message,
            Body::Sdp(bytes) => message.body("application/sdp", bytes.clone()),
            Body::Other { content_type, lines, bytes } => {
                for line in lines {
                    message = message.raw_line(line);
                }
                message.body(content_type, bytes.clone())
            }
        }
    }

    fn via(&self, branch: &str) -> String {
        format!("SIP/2.0/{} {};branch={branch};rport", self.flow.transport.via_token(), self.face.local)
    }

    fn contact(&self) -> String {
        if self.flow.transport.is_reliable() {
            format!("<sip:{};transport={}>", self.face.local, self.flow.transport)
        } else {
            format!("<sip:{}>", self.face.local)
        }
    }

    // --- the path ---

    /// Where a request in the dialog goes: the address that the dialog names, if it is an address of this trunk; else
    /// where the signalling came from. A peer cannot make us send to a third party.
    fn path<R: Rng>(&self, cx: &Context<'_, R>) -> Flow {
        let named = self.dialog.as_ref().and_then(|dialog| {
            let uri = Uri::parse(dialog.next_hop()).ok()?;
            let ip = uri.host()?.ip()?;
            let default = if self.flow.transport == crate::flow::Transport::Tls { 5061 } else { 5060 };
            Some(SocketAddr::new(ip, uri.port().unwrap_or(default)))
        });
        let remote =
            named.filter(|named| cx.is_address_of(self.trunk, named.ip())).unwrap_or(self.flow.remote);
        Flow { remote, ..self.flow }
    }

    /// The peer was heard on this path: a connection that replaced another is used from now on.
    fn seen_on(&mut self, flow: Flow) {
        if flow.listener == self.flow.listener && flow.conn.is_some() {
            self.flow.conn = flow.conn;
        }
    }

    fn found_again<R: Rng>(&self, cx: &mut Context<'_, R>) {
        cx.effects.push(Effect::Disarm(CallTimer::Lost(self.side)));
    }
}

impl Farewell {
    /// Nothing to say.
    #[must_use]
    pub fn plain() -> Self {
        Self { said: Said::local(480), saying: None, reason: None }
    }

    /// With a `Reason` of ours.
    #[must_use]
    pub fn reason(reason: &str) -> Self {
        Self { reason: Some(reason.to_owned()), ..Self::plain() }
    }
}

/// Adds Warning and Retry-After of a refusal of our own.
pub fn refusal_lines(
    mut message: MessageBuilder,
    saying: Option<&Saying>,
    local: SocketAddr,
) -> MessageBuilder {
    let Some(saying) = saying else { return message };
    if let Some((code, text)) = &saying.warning {
        message =
            message.header(HeaderName::Warning, format!("{code} {} \"{text}\"", hide::host(local.ip())));
    }
    if saying.retry_after {
        message = message.header(HeaderName::RetryAfter, RETRY_AFTER_SECONDS.to_string());
    }
    if saying.status == 415 {
        message = message.header(HeaderName::Accept, "application/sdp");
    }
    message
}

/// Whether a request of this method may move the remote target (RFC 3261 s.12.2, RFC 3311).
const fn target_refresh(method: &Method) -> bool {
    matches!(method, Method::Invite | Method::Update)
}

fn is_of(response: &Message, id: &DialogId) -> bool {
    DialogId::of_response(response).is_some_and(|of| of == *id)
}
