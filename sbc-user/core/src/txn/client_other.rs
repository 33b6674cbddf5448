//! The client transaction of any request but INVITE and ACK (RFC 3261 s.17.1.2).
//!
//! ```text
//!                 │ request is sent, E and F start
//!   E: repeat ┌─►▼
//!        ┌────┴──────┐ 1xx  ┌────────────┐ E: repeat, every T2
//!        │  Trying   ├─────►│ Proceeding │
//!        └──┬──────┬─┘      └─┬───────┬──┘
//!           │      │ 200-699  │       │
//!           │      └───┬──────┘       │  F: report the timeout
//!           │    ┌─────▼─────┐        │  transport error: report it
//!           │    │ Completed │        │
//!           │    └─────┬─────┘        │
//!           │          │ K            │
//!        ┌──▼──────────▼──────────────▼──┐
//!        │          Terminated           │
//!        └───────────────────────────────┘
//! ```

use super::machine::{Action, Timer, closed_enum};

closed_enum!(
    /// Where the transaction is.
    State {
        /// Sent, nothing heard.
        Trying,
        /// The peer is working on it.
        Proceeding,
        /// Answered; absorbs late copies.
        Completed,
        /// Over.
        Terminated,
    }
);

closed_enum!(
    /// What can happen to it.
    Event {
        /// A 1xx arrived.
        Provisional,
        /// A 200 to 699 arrived.
        Final,
        /// Time to repeat the request.
        TimerE,
        /// No answer.
        TimerF,
        /// No more copies of the answer.
        TimerK,
        /// What we sent could not be delivered.
        TransportError,
    }
);

impl State {
    /// The state at the start and what to do on entering it.
    pub(super) const START: (Self, &'static [Action]) =
        (Self::Trying, &[Action::Transmit, Action::Start(Timer::E), Action::Start(Timer::F)]);

    /// One step.
    pub(super) const fn on(self, event: Event) -> (Self, &'static [Action]) {
        const ANSWERED: (State, &[Action]) =
            (State::Completed, &[Action::StopTimers, Action::Start(Timer::K), Action::Deliver]);
        const TIMED_OUT: (State, &[Action]) = (State::Terminated, &[Action::ReportTimeout]);
        const BROKEN: (State, &[Action]) = (State::Terminated, &[Action::ReportTransportFailure]);

        match self {
            Self::Trying => match event {
                Event::Provisional => (Self::Proceeding, &[Action::Deliver]),
                Event::Final => ANSWERED,
                Event::TimerE => (self, &[Action::Transmit, Action::Start(Timer::E)]),
                Event::TimerF => TIMED_OUT,
                Event::TransportError => BROKEN,
                Event::TimerK => (self, &[]),
            },
            Self::Proceeding => match event {
                Event::Provisional => (self, &[Action::Deliver]),
                Event::Final => ANSWERED,
                Event::TimerE => (self, &[Action::Transmit, Action::StartAtT2(Timer::E)]),
                Event::TimerF => TIMED_OUT,
                Event::TransportError => BROKEN,
                Event::TimerK => (self, &[]),
            },
            Self::Completed => match event {
                Event::TimerK => (Self::Terminated, &[]),
                Event::Provisional | Event::Final | Event::TimerE | Event::TimerF | Event::TransportError => {
                    (self, &[])
                }
            },
            Self::Terminated => (self, &[]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine::{Rows, check_every_pair};
    use super::Action::{
        Deliver, ReportTimeout, ReportTransportFailure, Start, StartAtT2, StopTimers, Transmit,
    };
    use super::*;

    const TABLE: Rows<State, Event> = {
        use Event::*;
        use State::*;
        &[
            (&[Trying], &[Provisional], Some(Proceeding), &[Deliver]),
            (&[Proceeding], &[Provisional], None, &[Deliver]),
            (&[Trying, Proceeding], &[Final], Some(Completed), &[StopTimers, Start(Timer::K), Deliver]),
            (&[Trying], &[TimerE], None, &[Transmit, Start(Timer::E)]),
            (&[Proceeding], &[TimerE], None, &[Transmit, StartAtT2(Timer::E)]),
            (&[Trying, Proceeding], &[TimerF], Some(Terminated), &[ReportTimeout]),
            (&[Trying, Proceeding], &[TransportError], Some(Terminated), &[ReportTransportFailure]),
            (&[Completed], &[TimerK], Some(Terminated), &[]),
            // What cannot happen, or means nothing any more, changes nothing.
            (&[Trying, Proceeding], &[TimerK], None, &[]),
            (&[Completed], &[Provisional, Final, TimerE, TimerF, TransportError], None, &[]),
            (&[Terminated], Event::ALL, None, &[]),
        ]
    };

    #[test]
    fn every_state_and_event() {
        check_every_pair(State::ALL, Event::ALL, State::on, TABLE);
    }
}
