//! What leaves on a leg: each message has this leg's own identifiers and addresses, and what crosses from the other side.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::call::action::{CallTimer, Effect, Purpose};
use crate::call::context::Context;
use crate::call::event::{Body, Content, Said};
use crate::call::leg::{ALLOW, Farewell, Invite, Leg, Sent2xx};
use crate::call::{hide, response_map};
use crate::counter::Counter;
use crate::dialog::{MAX_FORWARDS, Unacknowledged};
use crate::policy::admission::Saying;
use crate::rng::Rng;
use crate::sip::{HeaderName, Message, MessageBuilder, Method};
use crate::txn::ServerTxnId;

impl Leg {
    pub(super) fn send_invite<R: Rng>(
        &mut self,
        cx: &mut Context<'_, R>,
        content: &Content,
        max_forwards: u8,
    ) {
        let branch = cx.origin.branch(cx.rng);
        let message = MessageBuilder::request(&Method::Invite, &self.asked)
            .header(HeaderName::Via, self.via(&branch))
            .header(HeaderName::MaxForwards, max_forwards.to_string())
            .header(HeaderName::From, self.from.value(Some(&self.local_tag)))
            .header(HeaderName::To, self.to.value(None))
            .header(HeaderName::CallId, self.call_id.as_bytes())
            .header(HeaderName::CSeq, format!("{} INVITE", self.invite_number))
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

    pub(super) fn answer_invite<R: Rng>(
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

    pub(super) fn response(&self, request: &Message, said: &Said) -> MessageBuilder {
        let phrase =
            if said.phrase.is_empty() { response_map::phrase(said.status).as_bytes() } else { &said.phrase };
        MessageBuilder::response_to(request, said.status, phrase, None, Some(&self.local_tag))
    }

    pub(super) fn send_ack<R: Rng>(&mut self, cx: &mut Context<'_, R>, body: &Body) {
        let flow = self.path(cx);
        let via = self.via(&cx.origin.branch(cx.rng));
        let Some(dialog) = &self.dialog else { return };
        let number = self.invite_number;
        let content = Content::nothing().with_body(body.clone());
        let message = dialog.ack(number, via);
        let id = dialog.id().clone();
        let bytes = self.dress(cx, message, &content).build();
        self.last_ack = Some((id, number, bytes.clone()));
        cx.effects.push(Effect::Ack { flow, bytes });
    }

    pub(super) fn resend_ack<R: Rng>(&mut self, cx: &mut Context<'_, R>) {
        let flow = self.path(cx);
        if let Some((_, _, bytes)) = &self.last_ack {
            cx.effects.push(Effect::Ack { flow, bytes: bytes.clone() });
        }
    }

    pub(super) fn send_bye<R: Rng>(&mut self, cx: &mut Context<'_, R>, farewell: Option<&Farewell>) {
        let farewell = farewell.cloned().or_else(|| self.farewell.clone()).unwrap_or_else(Farewell::plain);
        let content = farewell.said.content.with_body(Body::None);
        let purpose = Purpose::Bye(self.side);
        self.request(cx, Method::Bye, &content, purpose, MAX_FORWARDS, farewell.reason.as_deref());
    }

    pub(super) fn await_ack<R: Rng>(
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

    pub(super) fn stop_2xx<R: Rng>(&mut self, cx: &mut Context<'_, R>) {
        if self.unacknowledged.take().is_some() {
            cx.effects.push(Effect::Disarm(CallTimer::Unacknowledged(self.side)));
        }
    }

    /// Adds what crosses from the other side.
    pub(super) fn dress<R: Rng>(
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
            Body::Other { describes_session, tells, .. }
                if *describes_session || (*tells && self.face.hide) =>
            {
                cx.effects.push(Effect::Count(Counter::BodyHidden));
                message
            }
            Body::Other { content_type, lines, bytes, .. } => {
                for line in lines {
                    message = message.raw_line(line);
                }
                message.body(content_type, bytes.clone())
            }
        }
    }

    /// The header lines of a content as they leave on this leg.
    pub fn crossing(&self, content: &Content) -> Vec<Bytes> {
        content.carried.lines(&self.face).lines
    }

    pub(super) fn via(&self, branch: &str) -> String {
        format!("SIP/2.0/{} {};branch={branch};rport", self.flow.transport.via_token(), self.face.local)
    }

    pub(super) fn contact(&self) -> String {
        if self.flow.transport.is_reliable() {
            format!("<sip:{};transport={}>", self.face.local, self.flow.transport)
        } else {
            format!("<sip:{}>", self.face.local)
        }
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
    if let Some(seconds) = saying.retry_after_seconds {
        message = message.header(HeaderName::RetryAfter, seconds.to_string());
    }
    if saying.status == 415 {
        message = message.header(HeaderName::Accept, "application/sdp");
    }
    message
}
