//! The server transaction of an INVITE (RFC 3261 s.17.2.1 with RFC 6026 s.7.1).
//!
//! ```text
//!                  │ INVITE: send 100, tell the user
//!                  ▼
//!            ┌────────────┐ INVITE again: repeat the latest response
//!            │ Proceeding │ 1xx of the user: send it
//!            └─┬────┬───┬─┘
//!       2xx of │    │   │ 300-699 of the user: send it, G and H start
//!     the user │    │   └────────────┐
//!   ┌──────────▼┐   │          ┌─────▼─────┐ INVITE again, G: repeat the response
//!   │ Accepted  │   │          │ Completed ├──────────┐
//!   └─────────┬─┘   │          └─────┬─────┘          │
//!  ACK: to    │     │ user never     │ ACK            │ H: report the timeout
//!  the user;  │     │ answered:      ▼                │
//!  2xx again: │     │ report   ┌───────────┐          │
//!  send it    │ L   │          │ Confirmed │          │
//!             │     │          └─────┬─────┘          │
//!             │     │                │ I              │
//!   ┌─────────▼─────▼────────────────▼────────────────▼─┐
//!   │                    Terminated                     │
//!   └───────────────────────────────────────────────────┘
//! ```
//!
//! A transport error is reported and changes no state (RFC 6026 s.8.8): the client repeats its request and may be
//! reached then. Repeating a 2xx until its ACK is the user's duty (RFC 3261 s.13.3.1.4).

use super::machine::{Action, Timer, closed_enum};

closed_enum!(
    /// Where the transaction is.
    State {
        /// The user is working on it.
        Proceeding,
        /// Refused; waits for the ACK.
        Completed,
        /// Refused and acknowledged; absorbs late copies of the ACK.
        Confirmed,
        /// Accepted; absorbs late copies of the INVITE and lets 2xx and ACK pass.
        Accepted,
        /// Over.
        Terminated,
    }
);

closed_enum!(
    /// What can happen to it.
    Event {
        /// A copy of the INVITE arrived.
        Invite,
        /// An ACK arrived.
        Ack,
        /// The user sends a 1xx.
        Provisional,
        /// The user sends a 2xx.
        Success,
        /// The user sends a 300 to 699.
        Failure,
        /// Time to repeat the failure.
        TimerG,
        /// No ACK.
        TimerH,
        /// No more copies of the ACK.
        TimerI,
        /// No more copies of the accepted INVITE.
        TimerL,
        /// The user kept silent.
        Unanswered,
        /// What we sent could not be delivered.
        TransportError,
    }
);

impl State {
    /// The state at the start and what to do on entering it.
    pub(super) const START: (Self, &'static [Action]) = (
        Self::Proceeding,
        &[Action::TransmitTrying, Action::Start(Timer::InviteUnanswered), Action::Deliver],
    );

    /// One step.
    pub(super) const fn on(self, event: Event) -> (Self, &'static [Action]) {
        const BROKEN: &[Action] = &[Action::ReportTransportFailure];

        match self {
            Self::Proceeding => match event {
                Event::Invite => (self, &[Action::Transmit]),
                Event::Provisional => {
                    (self, &[Action::StopTimers, Action::Start(Timer::InviteUnanswered), Action::Transmit])
                }
                Event::Success => {
                    (Self::Accepted, &[Action::StopTimers, Action::Start(Timer::L), Action::Transmit])
                }
                Event::Failure => (
                    Self::Completed,
                    &[Action::StopTimers, Action::Start(Timer::G), Action::Start(Timer::H), Action::Transmit],
                ),
                Event::Unanswered => (Self::Terminated, &[Action::ReportTimeout]),
                Event::TransportError => (self, BROKEN),
                Event::Ack | Event::TimerG | Event::TimerH | Event::TimerI | Event::TimerL => (self, &[]),
            },
            Self::Completed => match event {
                Event::Invite => (self, &[Action::Transmit]),
                Event::Ack => (Self::Confirmed, &[Action::StopTimers, Action::Start(Timer::I)]),
                Event::TimerG => (self, &[Action::Transmit, Action::Start(Timer::G)]),
                Event::TimerH => (Self::Terminated, &[Action::ReportTimeout]),
                Event::TransportError => (self, BROKEN),
                Event::Provisional
                | Event::Success
                | Event::Failure
                | Event::TimerI
                | Event::TimerL
                | Event::Unanswered => (self, &[]),
            },
            Self::Confirmed => match event {
                Event::TimerI => (Self::Terminated, &[]),
                Event::Invite
                | Event::Ack
                | Event::Provisional
                | Event::Success
                | Event::Failure
                | Event::TimerG
                | Event::TimerH
                | Event::TimerL
                | Event::Unanswered
                | Event::TransportError => (self, &[]),
            },
            Self::Accepted => match event {
                Event::Ack => (self, &[Action::Deliver]),
                Event::Success => (self, &[Action::Transmit]),
                Event::TimerL => (Self::Terminated, &[]),
                Event::TransportError => (self, BROKEN),
                Event::Invite
                | Event::Provisional
                | Event::Failure
                | Event::TimerG
                | Event::TimerH
                | Event::TimerI
                | Event::Unanswered => (self, &[]),
            },
            Self::Terminated => (self, &[]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine::{Rows, check_every_pair};
    use super::Action::{Deliver, ReportTimeout, ReportTransportFailure, Start, StopTimers, Transmit};
    use super::*;

    const TABLE: Rows<State, Event> = {
        use Event::*;
        use State::*;
        &[
            (&[Proceeding, Completed], &[Invite], None, &[Transmit]),
            (&[Proceeding], &[Provisional], None, &[StopTimers, Start(Timer::InviteUnanswered), Transmit]),
            (&[Proceeding], &[Success], Some(Accepted), &[StopTimers, Start(Timer::L), Transmit]),
            (
                &[Proceeding],
                &[Failure],
                Some(Completed),
                &[StopTimers, Start(Timer::G), Start(Timer::H), Transmit],
            ),
            (&[Proceeding], &[Unanswered], Some(Terminated), &[ReportTimeout]),
            (&[Completed], &[Ack], Some(Confirmed), &[StopTimers, Start(Timer::I)]),
            (&[Completed], &[TimerG], None, &[Transmit, Start(Timer::G)]),
            (&[Completed], &[TimerH], Some(Terminated), &[ReportTimeout]),
            (&[Confirmed], &[TimerI], Some(Terminated), &[]),
            (&[Accepted], &[Ack], None, &[Deliver]),
            (&[Accepted], &[Success], None, &[Transmit]),
            (&[Accepted], &[TimerL], Some(Terminated), &[]),
            (&[Proceeding, Completed, Accepted], &[TransportError], None, &[ReportTransportFailure]),
            // What cannot happen, or means nothing any more, changes nothing.
            (&[Proceeding], &[Ack, TimerG, TimerH, TimerI, TimerL], None, &[]),
            (&[Completed], &[Provisional, Success, Failure, TimerI, TimerL, Unanswered], None, &[]),
            (
                &[Confirmed],
                &[
                    Invite,
                    Ack,
                    Provisional,
                    Success,
                    Failure,
                    TimerG,
                    TimerH,
                    TimerL,
                    Unanswered,
                    TransportError,
                ],
                None,
                &[],
            ),
            (&[Accepted], &[Invite, Provisional, Failure, TimerG, TimerH, TimerI, Unanswered], None, &[]),
            (&[Terminated], Event::ALL, None, &[]),
        ]
    };

    #[test]
    fn every_state_and_event() {
        check_every_pair(State::ALL, Event::ALL, State::on, TABLE);
    }
}
