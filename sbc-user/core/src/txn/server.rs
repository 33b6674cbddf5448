//! A server transaction: its machine, and what the machine's actions act upon.

use std::mem;

use bytes::Bytes;

use super::clock::{Clock, Outlet};
use super::event::{ServerTxnId, TxnEvent, TxnId};
use super::key::ServerKey;
use super::machine::{Action, Timer};
use super::{own_messages, server_invite, server_other};
use crate::flow::Flow;
use crate::sip::{Message, Method};

/// What comes with an event.
#[derive(Debug)]
pub(super) enum Carried {
    Nothing,
    /// The request or an ACK, and where it came from.
    Message(Box<Message>, Flow),
    /// The user's response.
    Response(Bytes),
}

/// One server transaction.
#[derive(Debug)]
pub(super) struct Server {
    state: State,
    pub(super) key: ServerKey,
    /// Where responses go.
    flow: Flow,
    /// The latest response, for copies of the request.
    pub(super) response: Option<Bytes>,
    pub(super) clock: Clock,
}

/// The machine, by method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Invite(server_invite::State),
    Other(server_other::State),
}

/// What can happen to a server transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerEvent {
    /// A copy of the request arrived.
    Copy,
    Ack,
    Response {
        status: u16,
    },
    Fired(Timer),
    TransportError,
}

impl Server {
    /// A transaction whose request has just arrived, and the first actions. `flow` is where responses go.
    pub(super) fn new(key: ServerKey, flow: Flow) -> (Self, &'static [Action]) {
        let (state, actions) = if *key.method() == Method::Invite {
            (State::Invite(server_invite::State::START.0), server_invite::State::START.1)
        } else {
            (State::Other(server_other::State::START.0), server_other::State::START.1)
        };
        let clock = Clock::new(flow.transport.is_reliable());
        (Self { state, key, flow, response: None, clock }, actions)
    }

    pub(super) const fn is_invite(&self) -> bool {
        matches!(self.state, State::Invite(_))
    }

    pub(super) const fn is_terminated(&self) -> bool {
        match self.state {
            State::Invite(state) => matches!(state, server_invite::State::Terminated),
            State::Other(state) => matches!(state, server_other::State::Terminated),
        }
    }

    /// One step of whichever machine it is. An event that the machine does not have changes nothing.
    pub(super) fn on(&mut self, event: ServerEvent) -> &'static [Action] {
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

    /// Does what the machine asked for. Returns a timer that needs no waiting over this transport.
    pub(super) fn perform(
        &mut self,
        id: ServerTxnId,
        actions: &[Action],
        mut carried: Carried,
        mut outlet: Outlet<'_>,
    ) -> Option<Timer> {
        let txn = TxnId::Server(id);
        let mut fires_at_once = None;
        for action in actions {
            match action {
                Action::Transmit => {
                    if let Carried::Response(bytes) = &carried {
                        self.response = Some(bytes.clone());
                    }
                    if let Some(response) = &self.response {
                        outlet.send(txn, self.flow, response.clone());
                    }
                }
                Action::TransmitTrying => {
                    if let Carried::Message(request, source) = &carried {
                        let trying = own_messages::trying(request, *source);
                        self.response = Some(trying.clone());
                        outlet.send(txn, self.flow, trying);
                    }
                }
                Action::Deliver => {
                    if let Carried::Message(message, flow) = mem::replace(&mut carried, Carried::Nothing) {
                        outlet.tell(if message.method() == Some(Method::Ack) {
                            TxnEvent::Ack { message, flow }
                        } else {
                            TxnEvent::Request { txn: id, message, flow }
                        });
                    }
                }
                Action::Start(timer) => {
                    if self.clock.start(&mut outlet, txn, *timer) {
                        fires_at_once = Some(*timer);
                    }
                }
                Action::StartAtT2(timer) => self.clock.start_at_t2(&mut outlet, txn, *timer),
                Action::StopTimers => self.clock.stop(outlet.timers),
                Action::ReportTimeout => outlet.tell(TxnEvent::TimedOut { txn }),
                Action::ReportTransportFailure => outlet.tell(TxnEvent::TransportFailed { txn }),
                // A client's.
                Action::TransmitAck | Action::TransmitCancel => {}
            }
        }
        fires_at_once
    }
}

const fn invite_event(event: ServerEvent) -> Option<server_invite::Event> {
    use server_invite::Event;
    match event {
        ServerEvent::Copy => Some(Event::Invite),
        ServerEvent::Ack => Some(Event::Ack),
        ServerEvent::Response { status: 100..=199 } => Some(Event::Provisional),
        ServerEvent::Response { status: 200..=299 } => Some(Event::Success),
        ServerEvent::Response { .. } => Some(Event::Failure),
        ServerEvent::TransportError => Some(Event::TransportError),
        ServerEvent::Fired(Timer::G) => Some(Event::TimerG),
        ServerEvent::Fired(Timer::H) => Some(Event::TimerH),
        ServerEvent::Fired(Timer::I) => Some(Event::TimerI),
        ServerEvent::Fired(Timer::L) => Some(Event::TimerL),
        ServerEvent::Fired(Timer::InviteUnanswered) => Some(Event::Unanswered),
        ServerEvent::Fired(
            Timer::A
            | Timer::B
            | Timer::C
            | Timer::D
            | Timer::E
            | Timer::F
            | Timer::J
            | Timer::K
            | Timer::M
            | Timer::OtherUnanswered,
        ) => None,
    }
}

const fn other_event(event: ServerEvent) -> Option<server_other::Event> {
    use server_other::Event;
    match event {
        ServerEvent::Copy => Some(Event::Request),
        ServerEvent::Response { status: 100..=199 } => Some(Event::Provisional),
        ServerEvent::Response { .. } => Some(Event::Final),
        ServerEvent::TransportError => Some(Event::TransportError),
        ServerEvent::Fired(Timer::J) => Some(Event::TimerJ),
        ServerEvent::Fired(Timer::OtherUnanswered) => Some(Event::Unanswered),
        ServerEvent::Ack
        | ServerEvent::Fired(
            Timer::A
            | Timer::B
            | Timer::C
            | Timer::D
            | Timer::E
            | Timer::F
            | Timer::G
            | Timer::H
            | Timer::I
            | Timer::K
            | Timer::L
            | Timer::M
            | Timer::InviteUnanswered,
        ) => None,
    }
}
