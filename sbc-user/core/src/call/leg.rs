//! One side of a call: its dialog, its INVITE, and every message that is written or read on it.
//!
//! Messages stop here. Upwards go neutral [`LegEvent`](crate::call::event::LegEvent)s, downwards come [`Content`]s
//! that the leg dresses in its own identifiers and addresses. What its INVITE may do in which state is decided by
//! `received` and `placed`. Reading is in `leg/receive`, writing in `leg/write`, the dialogs of a forked INVITE in
//! `leg/forks`.

mod forks;
mod receive;
mod write;

pub use write::refusal_lines;

use std::net::SocketAddr;

use bytes::Bytes;

use crate::call::Side;
use crate::call::action::{CallTimer, Effect, Purpose};
use crate::call::context::Context;
use crate::call::event::{Ask, Body, Content, Invited, Party, Said};
use crate::call::hide::{self, Face, Secrets};
use crate::call::placed::{self, Placed};
use crate::call::received::{self, Received};
use crate::command::LegView;
use crate::config::MediaSourceRule;
use crate::dialog::{Dialog, DialogEvent, DialogId, DialogState, Unacknowledged};
use crate::flow::{Flow, Transport};
use crate::id::TrunkId;
use crate::policy::admission::Saying;
use crate::rng::Rng;
use crate::sip::header::HeaderError;
use crate::sip::{HeaderName, Message, Method, Uri};
use crate::txn::{ClientTxnId, ServerTxnId};

/// Methods that this SBC takes, told in every Allow.
pub const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, MESSAGE, NOTIFY, REFER, SUBSCRIBE";

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
    from: Party,
    to: Party,
    /// The Request-URI of its first INVITE.
    asked: String,
    /// How it was told, or will be told, that it is over.
    farewell: Option<Farewell>,
    invite: Invite,
    /// The dialog in force: the caller's from the start, the callee's from its last tagged response on.
    dialog: Option<Dialog>,
    /// The callee's early dialogs.
    forks: Vec<Dialog>,
    /// Those of its second answers, already ended.
    ended_forks: Vec<DialogId>,
    unacknowledged: Option<Sent2xx>,
    /// The number of our last INVITE in the dialog, which its ACK repeats.
    invite_number: u32,
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
            call_id: request.call_id()?.into(),
            local_tag,
            from: Party::of(&request.from()?, &secrets),
            to: Party::of(&request.to()?, &secrets),
            secrets,
            asked: request.request_uri().unwrap_or_default().to_owned(),
            farewell: None,
            invite: Invite::Received { state: Received::Proceeding, txn, request },
            dialog: Some(dialog),
            forks: Vec::new(),
            ended_forks: Vec::new(),
            unacknowledged: None,
            invite_number: 1,
            last_ack: None,
        })
    }

    /// The leg of a callee that has not been called yet.
    pub fn of_callee<R: Rng>(cx: &mut Context<'_, R>, trunk: TrunkId, flow: Flow, invited: &Invited) -> Self {
        let face = cx.face(flow, flow.remote);
        let local_tag: Box<str> = cx.origin.tag(cx.rng).into();
        let call_id: Box<str> = cx.origin.call_id(cx.rng).into();
        let mut secrets = Secrets::default();
        secrets.add_face(&face);
        secrets.add(&call_id);
        secrets.add(&local_tag);
        cx.effects.push(Effect::Index(local_tag.clone(), Side::Callee));
        let crossing = |party: &Party, ip| match Uri::parse(&party.uri) {
            Ok(uri) if face.hide => party.hidden(hide::with_host(&uri, ip)),
            Ok(_) | Err(_) => party.clone(),
        };
        Self {
            side: Side::Callee,
            trunk,
            flow,
            face,
            secrets,
            call_id,
            local_tag,
            from: crossing(&invited.from, face.local.ip()),
            to: crossing(&invited.to, face.remote.ip()),
            asked: hide::asked_at(&invited.asked, &face, flow.transport),
            farewell: None,
            invite: Invite::Placed { state: Placed::Idle, txn: None, request: None },
            dialog: None,
            forks: Vec::new(),
            ended_forks: Vec::new(),
            unacknowledged: None,
            invite_number: 1,
            last_ack: None,
        }
    }

    // --- what is asked of it ---

    /// Sends the first INVITE.
    pub fn place<R: Rng>(&mut self, cx: &mut Context<'_, R>, content: &Content, max_forwards: u8) {
        let Invite::Placed { state, .. } = &mut self.invite else { return };
        let (next, actions) = state.on(placed::Event::Place);
        *state = next;
        if actions.contains(&placed::Action::SendInvite) {
            self.send_invite(cx, content, max_forwards);
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
        self.farewell.get_or_insert_with(|| farewell.clone());
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
        hops: u8,
        reason: Option<&str>,
    ) -> bool {
        let branch = cx.origin.branch(cx.rng);
        let via = self.via(&branch);
        let flow = self.path(cx);
        let Some(dialog) = self.dialog.as_mut() else { return false };
        let mut message = dialog.request(&method, via, hops);
        if method == Method::Invite {
            self.invite_number = dialog.local_number();
        }
        if has_contact(&method) {
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
        if has_contact(&ask.method) && said.status < 300 {
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

    // --- looking ---

    /// Who calls whom on it.
    #[must_use]
    pub fn invited(&self) -> Invited {
        Invited { from: self.from.clone(), to: self.to.clone(), asked: self.asked.clone() }
    }

    /// The user whom its first INVITE asks for.
    #[must_use]
    pub fn asked_user(&self) -> Option<String> {
        Uri::parse(&self.asked).ok()?.user().map(ToOwned::to_owned)
    }

    /// Our tag in its dialog.
    #[must_use]
    pub fn local_tag(&self) -> &str {
        &self.local_tag
    }

    /// The trunk that it talks to.
    #[must_use]
    pub const fn trunk(&self) -> TrunkId {
        self.trunk
    }

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
            from: self.from.uri.clone(),
            to: self.to.uri.clone(),
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
                placed::Action::SendCancel => {
                    let lines = self.crossing(&farewell.said.content);
                    cx.effects.extend(txn.map(|txn| Effect::Cancel(txn, lines)));
                }
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

    // --- the path ---

    /// Where a request in the dialog goes: the address that the dialog names, if it is an address of this trunk; else
    /// where the signalling came from. A peer cannot make us send to a third party. What a peer behind NAT names is an
    /// address of its own network, so it gets everything where it was last heard.
    fn path<R: Rng>(&self, cx: &Context<'_, R>) -> Flow {
        self.path_of(cx, self.dialog.as_ref())
    }

    fn path_of<R: Rng>(&self, cx: &Context<'_, R>, dialog: Option<&Dialog>) -> Flow {
        Flow { remote: self.named_by(cx, dialog).unwrap_or(self.flow.remote), ..self.flow }
    }

    /// The address that a dialog names, if it can be used: under TLS, a configured next hop's, because nobody else's
    /// certificate could be verified.
    fn named_by<R: Rng>(&self, cx: &Context<'_, R>, dialog: Option<&Dialog>) -> Option<SocketAddr> {
        if self.is_behind_nat(cx) {
            return None;
        }
        let uri = Uri::parse(dialog?.next_hop()).ok()?;
        let ip = uri.host()?.ip()?;
        let tls = self.flow.transport == Transport::Tls;
        let named = SocketAddr::new(ip, uri.port().unwrap_or(if tls { 5061 } else { 5060 }));
        (cx.is_address_of(self.trunk, named.ip()) && (!tls || self.is_next_hop(cx, named))).then_some(named)
    }

    fn is_next_hop<R: Rng>(&self, cx: &Context<'_, R>, remote: SocketAddr) -> bool {
        let next_hop = cx.trunk(self.trunk).and_then(|trunk| trunk.next_hop);
        next_hop.is_some_and(|hop| (hop.listener, hop.remote) == (self.flow.listener, remote))
    }

    /// Whether a new connection can take the place of one that has gone.
    fn can_be_connected_to<R: Rng>(&self, cx: &Context<'_, R>) -> bool {
        let named = self.named_by(cx, self.dialog.as_ref()).is_some();
        !self.is_behind_nat(cx) && (named || self.is_next_hop(cx, self.flow.remote))
    }

    /// The peer was heard on this path. A connection that replaced another is used from now on; a peer behind NAT is
    /// answered where it was last.
    fn heard_on<R: Rng>(&mut self, cx: &mut Context<'_, R>, flow: Flow) {
        if flow.listener != self.flow.listener {
            return;
        }
        if flow.conn.is_some() {
            self.flow.conn = flow.conn;
        }
        if self.is_behind_nat(cx) {
            self.flow.remote = flow.remote;
        }
        cx.effects.push(Effect::Disarm(CallTimer::Lost(self.side)));
    }

    fn is_behind_nat<R: Rng>(&self, cx: &Context<'_, R>) -> bool {
        cx.trunk(self.trunk).is_some_and(|it| it.media.source != MediaSourceRule::Signalled)
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

/// Whether a request of this method may move the remote target (RFC 3261 s.12.2, RFC 3311).
const fn target_refresh(method: &Method) -> bool {
    matches!(method, Method::Invite | Method::Update)
}

/// Whether a request of this method and its 2xx say where the dialog's, or a subscription's, requests are to go
/// (RFC 3515 s.2.2, RFC 6665 s.8.2.1).
const fn has_contact(method: &Method) -> bool {
    target_refresh(method) || matches!(method, Method::Refer | Method::Subscribe | Method::Notify)
}

fn is_of(response: &Message, id: &DialogId) -> bool {
    DialogId::of_response(response).is_some_and(|of| of == *id)
}
