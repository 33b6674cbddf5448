//! What arrives on a leg, and the neutral event that it becomes.

use crate::call::action::{CallTimer, Effect};
use crate::call::context::Context;
use crate::call::event::{Ask, Body, Content, LegEvent, Said};
use crate::call::leg::{Acknowledged, Farewell, Invite, Leg, is_of, target_refresh};
use crate::call::placed::{self, Placed};
use crate::call::received::{self, Received};
use crate::counter::Counter;
use crate::dialog::{DialogEvent, DialogState, Verdict};
use crate::flow::Flow;
use crate::id::ConnId;
use crate::rng::Rng;
use crate::sip::{Message, Method};
use crate::txn::{ClientTxnId, ServerTxnId};

impl Leg {
    /// A response to the first INVITE. `None`: nothing that concerns the call.
    pub fn on_invite_response<R: Rng>(
        &mut self,
        cx: &mut Context<'_, R>,
        response: &Message,
        flow: Flow,
    ) -> Option<LegEvent> {
        let status = response.status()?;
        self.heard_on(cx, flow);
        let Invite::Placed { state, request: Some(request), .. } = &self.invite else { return None };
        let (state, request) = (*state, request.clone());
        self.secrets.add_of(response);
        let event = match status {
            // 199 says that another fork ended, to callers that asked for it: ours did not (RFC 6228).
            100 | 199 => placed::Event::Provisional,
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
            return Some(if matches!(status, 100 | 199) {
                LegEvent::Try
            } else {
                LegEvent::Progress(said())
            });
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
        self.heard_on(cx, flow);
        let content = Content::of(&request, &self.secrets);
        let Some(method) = request.method() else { return Err((request, 400)) };
        let ask = Ask { txn, method, request, content, max_forwards };
        Ok(match ask.method {
            Method::Bye => self.on_bye(cx, ask),
            Method::Invite => Some(LegEvent::Update(ask)),
            // Without a body it only refreshes the target.
            Method::Update if !ask.content.body.is_none() => Some(LegEvent::Update(ask)),
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
        self.heard_on(cx, flow);
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
        self.heard_on(cx, flow);
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

    /// What crosses of a message that arrived on it.
    #[must_use]
    pub fn content_of(&self, message: &Message) -> Content {
        Content::of(message, &self.secrets)
    }

    /// Whether its signalling runs over this connection.
    #[must_use]
    pub fn uses(&self, conn: ConnId) -> bool {
        self.flow.conn == Some(conn)
    }

    /// Its connection has gone. Whether the leg is lost unless its peer comes back.
    pub fn on_connection_lost<R: Rng>(&mut self, cx: &Context<'_, R>, conn: ConnId) -> bool {
        let ours = self.flow.conn == Some(conn);
        if ours {
            self.flow.conn = None;
        }
        ours && !self.is_closed() && !self.can_be_connected_to(cx)
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
}
