//! Requests inside the dialog that change nothing here (INFO, OPTIONS, MESSAGE, NOTIFY, REFER …): passed to the other
//! side, whose answer is passed back.
//!
//! A session description in one of them says nothing about this session and would show addresses: it stays behind.

use crate::call::action::{Effect, Purpose};
use crate::call::context::Context;
use crate::call::event::{Ask, Body, Content, Said};
use crate::call::state::Phase;
use crate::call::{Call, Outcome, Side, response_map};
use crate::counter::Counter;
use crate::rng::Rng;
use crate::sip::{HeaderName, Method};
use crate::txn::ServerTxnId;

/// How many may wait for an answer at once.
const MOST_WAITING: usize = 16;

impl Call {
    pub(super) fn relay<R: Rng>(&mut self, cx: &mut Context<'_, R>, from: Side, ask: Ask) {
        let refusal = if self.phase == Phase::Ending || !self.leg(from.other()).has_dialog() {
            Some((481, Counter::NoSuchDialog))
        } else if ask.method == Method::Prack {
            // No provisional response of ours is reliable (RFC 3262 s.3).
            Some((481, Counter::MethodRefused))
        } else if ask.method == Method::Refer && names_a_dialog(&ask) {
            // The dialog that it names is one of this side, which the other side has never seen.
            Some((403, Counter::MethodRefused))
        } else if self.relays.len() >= MOST_WAITING {
            Some((500, Counter::TooManyRelays))
        } else {
            None
        };
        if let Some((status, counter)) = refusal {
            cx.effects.push(Effect::Count(counter));
            return self.leg_mut(from).reply(cx, &ask, &Said::local(status), None);
        }
        let content = without_sdp(ask.content.clone());
        let purpose = Purpose::Relay(from.other(), ask.txn);
        self.leg_mut(from.other()).request(cx, ask.method.clone(), &content, purpose, ask.max_forwards, None);
        self.relays.push((from, ask));
    }

    pub(super) fn on_relay_outcome<R: Rng>(
        &mut self,
        cx: &mut Context<'_, R>,
        side: Side,
        txn: ServerTxnId,
        outcome: &Outcome<'_>,
    ) {
        let said = match outcome {
            Outcome::Response(response, flow) => {
                if response.status().is_none_or(|status| status < 200) {
                    return;
                }
                self.leg_mut(side).on_response(cx, response, *flow)
            }
            Outcome::Failed(status) => Said::local(*status),
        };
        let Some(index) = self.relays.iter().position(|(_, ask)| ask.txn == txn) else { return };
        let (from, ask) = self.relays.swap_remove(index);
        let status = if said.status < 300 {
            said.status
        } else {
            response_map::in_dialog(said.status, self.leg(from).face().hide)
        };
        let phrase = if status == said.status { said.phrase } else { bytes::Bytes::new() };
        let said = Said { status, phrase, content: without_sdp(said.content) };
        self.leg_mut(from).reply(cx, &ask, &said, None);
    }
}

/// Whether a REFER asks to replace a dialog (attended transfer).
fn names_a_dialog(refer: &Ask) -> bool {
    refer.request.header(HeaderName::ReferTo).is_some_and(|value| {
        let value = value.to_ascii_lowercase();
        memchr::memmem::find(&value, b"replaces").is_some()
    })
}

fn without_sdp(content: Content) -> Content {
    match content.body {
        Body::Sdp(_) => content.with_body(Body::None),
        Body::None | Body::Other { .. } => content,
    }
}
