//! The server transaction of any request but INVITE and ACK (RFC 3261 s.17.2.2, RFC 4320).
//!
//! ```text
//!                 │ request: tell the user
//!                 ▼
//!           ┌──────────┐ 1xx of the user: send it  ┌────────────┐ request again: repeat the 1xx
//!           │  Trying  ├──────────────────────────►│ Proceeding │
//!           └─┬──────┬─┘                           └─┬────────┬─┘
//!             │      │    200-699 of the user: send it        │
//!   user never│      └──────────────┬────────────────┘        │ user never answered:
//!   answered: │               ┌─────▼─────┐                   │ report
//!   report    │               │ Completed │ request again: repeat the answer
//!             │               └─────┬─────┘                   │
//!             │                     │ J                       │
//!         ┌───▼─────────────────────▼─────────────────────────▼───┐
//!         │                      Terminated                       │
//!         └───────────────────────────────────────────────────────┘
//! ```
//!
//! A transport error is reported and changes no state (RFC 6026 s.8.8). An answer that comes after 64*T1 has nobody
//! waiting for it (RFC 4320 s.4.2), so the transaction does not wait for it either.

use super::machine::{Action, Timer, closed_enum};

closed_enum!(
    /// Where the transaction is.
    State {
        /// The user has not answered.
        Trying,
        /// The user has sent a 1xx.
        Proceeding,
        /// Answered; repeats the answer to late copies of the request.
        Completed,
        /// Over.
        Terminated,
    }
);

closed_enum!(
    /// What can happen to it.
    Event {
        /// A copy of the request arrived.
        Request,
        /// The user sends a 1xx.
        Provisional,
        /// The user sends a 200 to 699.
        Final,
        /// No more copies of the request.
        TimerJ,
        /// The user kept silent.
        Unanswered,
        /// What we sent could not be delivered.
        TransportError,
    }
);

impl State {
    /// The state at the start and what to do on entering it.
    pub(super) const START: (Self, &'static [Action]) =
        (Self::Trying, &[Action::Start(Timer::OtherUnanswered), Action::Deliver]);

    /// One step.
    pub(super) const fn on(self, event: Event) -> (Self, &'static [Action]) {
        const ANSWERED: (State, &[Action]) =
            (State::Completed, &[Action::StopTimers, Action::Start(Timer::J), Action::Transmit]);
        const BROKEN: &[Action] = &[Action::ReportTransportFailure];

        match self {
            Self::Trying => match event {
                Event::Provisional => (Self::Proceeding, &[Action::Transmit]),
                Event::Final => ANSWERED,
                Event::Unanswered => (Self::Terminated, &[Action::ReportTimeout]),
                Event::Request | Event::TimerJ | Event::TransportError => (self, &[]),
            },
            Self::Proceeding => match event {
                Event::Request | Event::Provisional => (self, &[Action::Transmit]),
                Event::Final => ANSWERED,
                Event::Unanswered => (Self::Terminated, &[Action::ReportTimeout]),
                Event::TransportError => (self, BROKEN),
                Event::TimerJ => (self, &[]),
            },
            Self::Completed => match event {
                Event::Request => (self, &[Action::Transmit]),
                Event::TimerJ => (Self::Terminated, &[]),
                Event::TransportError => (self, BROKEN),
                Event::Provisional | Event::Final | Event::Unanswered => (self, &[]),
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
            (&[Trying], &[Provisional], Some(Proceeding), &[Transmit]),
            (&[Proceeding], &[Provisional, Request], None, &[Transmit]),
            (&[Trying, Proceeding], &[Final], Some(Completed), &[StopTimers, Start(Timer::J), Transmit]),
            (&[Trying, Proceeding], &[Unanswered], Some(Terminated), &[ReportTimeout]),
            (&[Completed], &[Request], None, &[Transmit]),
            (&[Completed], &[TimerJ], Some(Terminated), &[]),
            (&[Proceeding, Completed], &[TransportError], None, &[ReportTransportFailure]),
            // What cannot happen, or means nothing any more, changes nothing.
            (&[Trying], &[Request, TimerJ, TransportError], None, &[]),
            (&[Proceeding], &[TimerJ], None, &[]),
            (&[Completed], &[Provisional, Final, Unanswered], None, &[]),
            (&[Terminated], Event::ALL, None, &[]),
        ]
    };

    #[test]
    fn every_state_and_event() {
        assert_eq!(State::START.1, [Start(Timer::OtherUnanswered), Deliver]);
        check_every_pair(State::ALL, Event::ALL, State::on, TABLE);
    }
}
