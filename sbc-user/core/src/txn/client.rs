//! A client transaction: its machine, and what the machine's actions act upon.

use bytes::Bytes;

use super::clock::{Clock, Outlet};
use super::event::{ClientTxnId, TxnEvent, TxnId};
use super::key::ClientKey;
use super::machine::{Action, Timer};
use super::{client_invite, client_other, own_messages};
use crate::flow::Flow;
use crate::sip::{Message, Method};

/// A response, and where it came from.
pub(super) type Received = (Box<Message>, Flow);

/// One client transaction.
#[derive(Debug)]
pub(super) struct Client {
    state: State,
    pub(super) key: ClientKey,
    pub(super) flow: Flow,
    /// The request, for copies of it and for the ACK and CANCEL that are made from it.
    pub(super) request: Bytes,
    /// The ACK to a refusal, once there is one.
    ack: Option<Bytes>,
    /// What a CANCEL that may still have to wait says besides.
    pub(super) cancel_lines: Vec<Bytes>,
    pub(super) clock: Clock,
    /// A CANCEL made here: nobody above knows it or waits for its answer.
    pub(super) silent: bool,
}

/// The machine, by method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Invite(client_invite::State),
    Other(client_other::State),
}

/// What can happen to a client transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientEvent {
    Response { status: u16 },
    Cancel,
    Fired(Timer),
    TransportError,
}

/// What the table still has to do after the actions are performed.
#[derive(Debug, Default)]
pub(super) struct After {
    /// CANCEL is to be sent.
    pub(super) cancel: bool,
    /// A timer that needs no waiting over this transport.
    pub(super) fires_at_once: Option<Timer>,
}

impl Client {
    /// A transaction whose request is to be sent, and the first actions.
    pub(super) fn new(key: ClientKey, flow: Flow, request: Bytes, silent: bool) -> (Self, &'static [Action]) {
        let (state, actions) = if key.method == Method::Invite {
            (State::Invite(client_invite::State::START.0), client_invite::State::START.1)
        } else {
            (State::Other(client_other::State::START.0), client_other::State::START.1)
        };
        let clock = Clock::new(flow.transport.is_reliable());
        (Self { state, key, flow, request, ack: None, cancel_lines: Vec::new(), clock, silent }, actions)
    }

    pub(super) const fn is_terminated(&self) -> bool {
        match self.state {
            State::Invite(state) => matches!(state, client_invite::State::Terminated),
            State::Other(state) => matches!(state, client_other::State::Terminated),
        }
    }

    /// One step of whichever machine it is. An event that the machine does not have changes nothing.
    pub(super) fn on(&mut self, event: ClientEvent) -> &'static [Action] {
        match self.state {
            State::Invite(state) => invite_event(event).map_or(&[], |event| {
                let (next, actions) = state.on(event);
                self.state = State::Invite(next);
                actions
            }),
            State::Other(state) => other_event(event).map_or(&[], |event| {
                let (next, actions) = state.on(event);
                self.state = State::Other(next);
                actions
            }),
        }
    }

    /// Does what the machine asked for.
    pub(super) fn perform(
        &mut self,
        id: ClientTxnId,
        actions: &[Action],
        mut response: Option<Received>,
        mut outlet: Outlet<'_>,
    ) -> After {
        let txn = TxnId::Client(id);
        let mut after = After::default();
        for action in actions {
            match action {
                Action::Transmit => outlet.send(txn, self.flow, self.request.clone()),
                Action::TransmitAck => {
                    if self.ack.is_none() {
                        let refusal = response.as_ref().map(|(message, _)| message);
                        self.ack = refusal.and_then(|refusal| own_messages::ack(&self.request, refusal));
                    }
                    if let Some(ack) = &self.ack {
                        outlet.send(txn, self.flow, ack.clone());
                    }
                }
                Action::TransmitCancel => after.cancel = true,
                Action::Deliver => {
                    if let Some((message, flow)) = response.take()
                        && !self.silent
                    {
                        outlet.tell(TxnEvent::Response { txn: id, message, flow });
                    }
                }
                Action::Start(timer) => {
                    if self.clock.start(&mut outlet, txn, *timer) {
                        after.fires_at_once = Some(*timer);
                    }
                }
                Action::StartAtT2(timer) => self.clock.start_at_t2(&mut outlet, txn, *timer),
                Action::StopTimers => self.clock.stop(outlet.timers),
                Action::ReportTimeout if !self.silent => outlet.tell(TxnEvent::TimedOut { txn }),
                Action::ReportTransportFailure if !self.silent => {
                    outlet.tell(TxnEvent::TransportFailed { txn })
                }
                // The first is a server's.
                Action::TransmitTrying | Action::ReportTimeout | Action::ReportTransportFailure => {}
            }
        }
        after
    }
}

const fn invite_event(event: ClientEvent) -> Option<client_invite::Event> {
    use client_invite::Event;
    match event {
        ClientEvent::Response { status: 100..=199 } => Some(Event::Provisional),
        ClientEvent::Response { status: 200..=299 } => Some(Event::Success),
        ClientEvent::Response { .. } => Some(Event::Failure),
        ClientEvent::Cancel => Some(Event::Cancel),
        ClientEvent::TransportError => Some(Event::TransportError),
        ClientEvent::Fired(Timer::A) => Some(Event::TimerA),
        ClientEvent::Fired(Timer::B) => Some(Event::TimerB),
        ClientEvent::Fired(Timer::C) => Some(Event::TimerC),
        ClientEvent::Fired(Timer::D) => Some(Event::TimerD),
        ClientEvent::Fired(Timer::M) => Some(Event::TimerM),
        ClientEvent::Fired(
            Timer::E
            | Timer::F
            | Timer::G
            | Timer::H
            | Timer::I
            | Timer::J
            | Timer::K
            | Timer::L
            | Timer::InviteUnanswered
            | Timer::OtherUnanswered,
        ) => None,
    }
}

const fn other_event(event: ClientEvent) -> Option<client_other::Event> {
    use client_other::Event;
    match event {
        ClientEvent::Response { status: 100..=199 } => Some(Event::Provisional),
        ClientEvent::Response { .. } => Some(Event::Final),
        ClientEvent::TransportError => Some(Event::TransportError),
        ClientEvent::Fired(Timer::E) => Some(Event::TimerE),
        ClientEvent::Fired(Timer::F) => Some(Event::TimerF),
        ClientEvent::Fired(Timer::K) => Some(Event::TimerK),
        ClientEvent::Cancel
        | ClientEvent::Fired(
            Timer::A
            | Timer::B
            | Timer::C
            | Timer::D
            | Timer::G
            | Timer::H
            | Timer::I
            | Timer::J
            | Timer::L
            | Timer::M
            | Timer::InviteUnanswered
            | Timer::OtherUnanswered,
        ) => None,
    }
}
