//! Requests: which call gets one, which opens one, and the answer to those that concern none.

use bytes::Bytes;

use crate::call::context::Context;
use crate::call::leg::refusal_lines;
use crate::call::{Call, Side, setup::Invitation};
use crate::command::LegView;
use crate::counter::Counter;
use crate::engine::Engine;
use crate::flow::Flow;
use crate::id::{CallId, TrunkId};
use crate::identity::Origin;
use crate::output::Output;
use crate::policy::admission::{self, Load, Refusal};
use crate::policy::route;
use crate::record::{CallRecord, EndedBy};
use crate::rng::Rng;
use crate::sip::{HeaderName, Message, MessageBuilder, Method};
use crate::time::Now;
use crate::txn::ServerTxnId;

/// Methods that are served outside of a dialog, or that belong to a call.
const ALLOW_OUTSIDE: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE";

/// Hops that a request without Max-Forwards may take (RFC 3261 s.8.1.1.6).
const DEFAULT_MAX_FORWARDS: u8 = 70;

impl<R: Rng> Engine<R> {
    pub(super) fn on_request(&mut self, now: Now, txn: ServerTxnId, request: Box<Message>, flow: Flow) {
        let Some(method) = request.method() else { return };
        if method == Method::Cancel {
            return self.on_cancel(now, txn, &request, flow);
        }
        let hops = request.max_forwards().ok().flatten();
        if hops == Some(0) && method != Method::Options {
            self.counters.count(Counter::TooManyHops);
            return self.answer(now, txn, &request, 483, "Too Many Hops", &[]);
        }
        let max_forwards = hops.unwrap_or(DEFAULT_MAX_FORWARDS).saturating_sub(1);
        if let Some(unsupported) = required(&request) {
            self.counters.count(Counter::BadExtension);
            return self.answer(
                now,
                txn,
                &request,
                420,
                "Bad Extension",
                &[(HeaderName::Unsupported, &unsupported)],
            );
        }
        let tag = request.to().ok().and_then(|to| to.tag().map(ToOwned::to_owned));
        match tag {
            Some(tag) => self.on_request_inside(now, txn, request, flow, &tag, max_forwards),
            None => self.on_request_outside(now, txn, request, flow, &method, max_forwards),
        }
    }

    fn on_request_inside(
        &mut self,
        now: Now,
        txn: ServerTxnId,
        request: Box<Message>,
        flow: Flow,
        tag: &str,
        max_forwards: u8,
    ) {
        let Some((id, side)) = self.leg_of(tag, flow) else {
            self.counters.count(Counter::NoSuchDialog);
            return self.answer(now, txn, &request, 481, "Call/Transaction Does Not Exist", &[]);
        };
        if request.method() == Some(Method::Invite) {
            self.invites.insert(txn, (id, side));
        }
        let taken =
            self.with_call(now, id, |call, cx| call.on_request(cx, side, txn, request, flow, max_forwards));
        if let Some(Err((request, status))) = taken {
            let (counter, phrase) = match status {
                481 => (Counter::NoSuchDialog, "Call/Transaction Does Not Exist"),
                500 => (Counter::CseqOutOfOrder, "CSeq Out Of Order"),
                _ => (Counter::MalformedRequest, "Bad Request"),
            };
            self.counters.count(counter);
            self.answer(now, txn, &request, status, phrase, &[]);
        }
    }

    fn on_request_outside(
        &mut self,
        now: Now,
        txn: ServerTxnId,
        request: Box<Message>,
        flow: Flow,
        method: &Method,
        max_forwards: u8,
    ) {
        match method {
            Method::Invite => self.on_invite(now, txn, request, flow, max_forwards),
            Method::Options if self.draining => {
                let wait = admission::RETRY_AFTER_SECONDS.to_string();
                self.answer(
                    now,
                    txn,
                    &request,
                    503,
                    "Service Unavailable",
                    &[(HeaderName::RetryAfter, &wait)],
                );
            }
            Method::Options => {
                let lines = [(HeaderName::Allow, ALLOW_OUTSIDE), (HeaderName::Accept, "application/sdp")];
                self.answer(now, txn, &request, 200, "OK", &lines);
            }
            Method::Bye | Method::Info | Method::Update | Method::Prack | Method::Ack | Method::Cancel => {
                self.counters.count(Counter::NoSuchDialog);
                self.answer(now, txn, &request, 481, "Call/Transaction Does Not Exist", &[]);
            }
            Method::Register
            | Method::Refer
            | Method::Subscribe
            | Method::Notify
            | Method::Message
            | Method::Publish => {
                self.counters.count(Counter::MethodRefused);
                let lines = [(HeaderName::Allow, ALLOW_OUTSIDE)];
                self.answer(now, txn, &request, 405, "Method Not Allowed", &lines);
            }
            Method::Other(_) => {
                self.counters.count(Counter::MethodRefused);
                let lines = [(HeaderName::Allow, ALLOW_OUTSIDE)];
                self.answer(now, txn, &request, 501, "Not Implemented", &lines);
            }
        }
    }

    fn on_invite(&mut self, now: Now, txn: ServerTxnId, request: Box<Message>, flow: Flow, max_forwards: u8) {
        // Its source was a trunk's when it arrived.
        let Some(from) = self.trunk_of(flow) else { return };
        if self.has_been_here(&request) {
            self.counters.count(Counter::Loop);
            return self.answer(now, txn, &request, 482, "Loop Detected", &[]);
        }
        if request.contacts().next().is_none() {
            self.counters.count(Counter::MalformedRequest);
            return self.answer(now, txn, &request, 400, "Missing Contact", &[]);
        }
        let name = name_of(from, &request);
        if self.open_invites.contains_key(&name) {
            // The same request by another way (RFC 3261 s.8.2.2.2).
            self.counters.count(Counter::Loop);
            return self.answer(now, txn, &request, 482, "Loop Detected", &[]);
        }
        self.offered += 1;
        let load = Load {
            calls: self.calls.len() + self.adopted.len(),
            max_calls: self.config.max_calls,
            draining: self.draining,
        };
        if let Err(refusal) = admission::admit(load) {
            return self.refuse_invite(now, txn, &request, flow, from, refusal);
        }
        let Some((to, next_hop)) = route::route(&self.config, from) else {
            return self.refuse_invite(now, txn, &request, flow, from, Refusal::NoRoute);
        };
        self.last_call += 1;
        let id = CallId(self.last_call);
        let invitation = Invitation { txn, request: request.clone(), flow, from, to, next_hop, max_forwards };
        let mut cx = Context {
            now,
            config: &self.config,
            origin: self.origin,
            rng: &mut self.rng,
            pools: &mut self.pools,
            ops: &mut self.last_op,
            effects: Vec::new(),
        };
        match Call::new(&mut cx, id, invitation) {
            Ok(call) => {
                let effects = cx.effects;
                self.calls.insert(id, call);
                self.invites.insert(txn, (id, Side::Caller));
                self.open_invites.insert(name.clone(), id);
                self.names_of.insert(id, name);
                for effect in effects {
                    self.perform(now, id, effect);
                }
                self.with_call(now, id, Call::start);
            }
            Err(error) => {
                self.counters.count(Counter::MalformedRequest);
                self.failed += 1;
                self.answer(now, txn, &request, 400, &error.to_string(), &[]);
            }
        }
    }

    fn on_cancel(&mut self, now: Now, txn: ServerTxnId, cancel: &Message, flow: Flow) {
        let invite =
            self.txns.matching_invite(txn).and_then(|invite| Some((invite, *self.invites.get(&invite)?)));
        // A branch may be known to others: only the trunk that asked may withdraw.
        let call = invite.and_then(|(invite, (id, side))| {
            let call = self.calls.get(&id)?;
            (self.trunk_of(flow) == Some(call.trunk(side))).then_some((invite, id, side))
        });
        let Some((invite, id, side)) = call else {
            return self.answer(now, txn, cancel, 481, "Call/Transaction Does Not Exist", &[]);
        };
        self.answer_cancel(now, txn, cancel, id, side);
        self.with_call(now, id, |call, cx| call.on_cancel(cx, invite, cancel));
    }

    /// Accepts a CANCEL as the UAS that answers its INVITE (RFC 3261 s.9.2).
    fn answer_cancel(&mut self, now: Now, txn: ServerTxnId, cancel: &Message, id: CallId, side: Side) {
        let tag = self.calls.get(&id).map(|call| call.local_tag(side));
        let message = MessageBuilder::response_to(cancel, 200, "OK", None, tag);
        self.txns.respond(now.mono, txn, 200, message.build());
    }

    /// Refuses a call before there is one, and keeps a record of it.
    fn refuse_invite(
        &mut self,
        now: Now,
        txn: ServerTxnId,
        request: &Message,
        flow: Flow,
        from: TrunkId,
        refusal: Refusal,
    ) {
        let saying = refusal.saying();
        self.counters.count(saying.counter);
        let tag = self.origin.tag(&mut self.rng);
        let local =
            self.config.listeners.get(usize::from(flow.listener.0)).map_or(flow.remote, |it| it.advertised);
        let message = MessageBuilder::response_to(request, saying.status, saying.phrase, None, Some(&tag));
        let bytes = refusal_lines(message, Some(&saying), local).build();
        self.txns.respond(now.mono, txn, saying.status, bytes);
        self.last_call += 1;
        self.failed += 1;
        let uri = |address: Option<crate::sip::header::NameAddr<'_>>| {
            address.map_or_else(String::new, |address| address.uri().as_str().to_owned())
        };
        let trunk = self.config.trunks.get(usize::from(from.0));
        let realm = trunk.and_then(|trunk| self.config.realms.get(usize::from(trunk.realm.0)));
        self.outputs.push_back(Output::Record(Box::new(CallRecord {
            call: CallId(self.last_call),
            began: now.wall,
            ringing: None,
            answered: None,
            ended: now.wall,
            ended_by: EndedBy::Local,
            status: saying.status,
            cause: saying.cause.to_owned(),
            caller: LegView {
                realm: realm.map_or_else(String::new, |realm| realm.name.clone()),
                trunk: trunk.map_or_else(String::new, |trunk| trunk.name.clone()),
                transport: flow.transport,
                remote: flow.remote,
                sip_call_id: request.call_id().unwrap_or_default().to_owned(),
                from: uri(request.from().ok()),
                to: uri(request.to().ok()),
            },
            callee: None,
            media: Vec::new(),
            quality: Vec::new(),
        })));
    }

    /// Whether it is an INVITE of ours that has come back for the same user. For another user it is no loop but a
    /// spiral (RFC 3261 s.16.3): a proxy of the called side has forwarded the call.
    fn has_been_here(&self, request: &Message) -> bool {
        let tag = request.from().ok().and_then(|from| from.tag().map(ToOwned::to_owned));
        let sent = tag.and_then(|tag| self.calls.get(&self.tags.get(tag.as_str())?.0));
        if !sent.is_some_and(|call| call.asks_for_same_user(request)) {
            return false;
        }
        request.vias().flatten().any(|via| {
            via.branch().and_then(Origin::of).is_some_and(|origin| origin.node == self.origin.node)
                && via.host().ip().is_some_and(|ip| {
                    self.config.listeners.iter().any(|listener| listener.advertised.ip() == ip)
                })
        })
    }

    /// Answers a request that concerns no call.
    fn answer(
        &mut self,
        now: Now,
        txn: ServerTxnId,
        request: &Message,
        status: u16,
        phrase: &str,
        lines: &[(HeaderName<'static>, &str)],
    ) {
        let tag = self.origin.tag(&mut self.rng);
        let mut message = MessageBuilder::response_to(request, status, phrase, None, Some(&tag));
        for (name, value) in lines {
            message = message.header(*name, value);
        }
        let bytes: Bytes = message.build();
        self.txns.respond(now.mono, txn, status, bytes);
    }
}

/// What two copies of one INVITE have in common, whatever way they took. The trunk is part of it: nobody who knows the
/// identifiers of another trunk's call keeps it from being set up.
fn name_of(trunk: TrunkId, invite: &Message) -> Box<str> {
    let from = invite.from().ok();
    let tag = from.as_ref().and_then(|from| from.tag()).unwrap_or_default();
    let number = invite.cseq().map_or(0, |cseq| cseq.number);
    format!("{trunk} {number} {} {tag}", invite.call_id().unwrap_or_default()).into()
}

/// The options that a request requires; none is supported (RFC 3261 s.8.2.2.3).
fn required(request: &Message) -> Option<String> {
    if request.method() == Some(Method::Ack) {
        return None;
    }
    let options: Vec<_> = request
        .values(HeaderName::Require)
        .map(|option| String::from_utf8_lossy(option).into_owned())
        .collect();
    (!options.is_empty()).then(|| options.join(", "))
}
