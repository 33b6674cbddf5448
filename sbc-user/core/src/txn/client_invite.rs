//! The client transaction of an INVITE (RFC 3261 s.17.1.1 with RFC 6026 s.7.2; CANCEL by s.9.1, Timer C by s.16.6).
//!
//! ```text
//!                     │ request is sent, A and B start
//!        A: repeat ┌─►▼
//!        ┌─────────┴────────┐  Cancel   ┌───────────┐ A: repeat
//!        │     Calling      ├──────────►│ Withdrawn │ (a CANCEL must wait for a 1xx)
//!        └──┬────┬──────┬───┘           └─┬──┬──┬───┘
//!           │    │1xx   │                 │  │  │1xx: send CANCEL
//!           │    ▼      │   Cancel, C:    │  │  ▼
//!           │ ┌──────────┐ send CANCEL  ┌───────────┐
//!           │ │Proceeding├─────────────►│ Cancelled │ B: no answer to the CANCEL in time
//!           │ └──┬───┬───┘              └──┬───┬────┘
//!           │2xx │   │ 300-699: send ACK   │   │   (2xx and 300-699 lead to the same states from all four)
//!           ▼    ▼   └──────────┐  ┌───────┘   │
//!        ┌──────────┐         ┌─▼──▼──────┐    │
//!        │ Accepted │         │ Completed │    │  B in Calling, Withdrawn, Cancelled: report the timeout;
//!        └────┬─────┘         └────┬──────┘    │  transport error in Calling, Withdrawn, Completed: report it
//!             │ M                  │ D         │
//!             ▼                    ▼           ▼
//!        ┌────────────────────────────────────────┐
//!        │               Terminated               │
//!        └────────────────────────────────────────┘
//! ```
//!
//! Accepted hands every 2xx to the user (copies and those of further forks), who acknowledges each; Completed repeats
//! the ACK by itself.

use super::machine::{Action, Timer, closed_enum};

closed_enum!(
    /// Where the transaction is.
    State {
        /// Sent, nothing heard.
        Calling,
        /// Like `Calling`, but the user no longer wants it: CANCEL leaves with the first 1xx.
        Withdrawn,
        /// The callee is working on it.
        Proceeding,
        /// CANCEL is sent; the callee should now refuse.
        Cancelled,
        /// Refused; absorbs late copies.
        Completed,
        /// Accepted; passes further 2xx on.
        Accepted,
        /// Over.
        Terminated,
    }
);

closed_enum!(
    /// What can happen to it.
    Event {
        /// A 1xx arrived.
        Provisional,
        /// A 2xx arrived.
        Success,
        /// A 300 to 699 arrived.
        Failure,
        /// The user withdraws the request.
        Cancel,
        /// Time to repeat the request.
        TimerA,
        /// No answer.
        TimerB,
        /// No final answer.
        TimerC,
        /// No more copies of the failure.
        TimerD,
        /// No more 2xx.
        TimerM,
        /// What we sent could not be delivered.
        TransportError,
    }
);

impl State {
    /// The state at the start and what to do on entering it.
    pub(super) const START: (Self, &'static [Action]) =
        (Self::Calling, &[Action::Transmit, Action::Start(Timer::A), Action::Start(Timer::B)]);

    /// One step.
    pub(super) const fn on(self, event: Event) -> (Self, &'static [Action]) {
        const ACCEPTED: (State, &[Action]) =
            (State::Accepted, &[Action::StopTimers, Action::Start(Timer::M), Action::Deliver]);
        const REFUSED: (State, &[Action]) = (
            State::Completed,
            &[Action::StopTimers, Action::TransmitAck, Action::Start(Timer::D), Action::Deliver],
        );
        const CANCELLED: (State, &[Action]) =
            (State::Cancelled, &[Action::StopTimers, Action::TransmitCancel, Action::Start(Timer::B)]);
        const TIMED_OUT: (State, &[Action]) = (State::Terminated, &[Action::ReportTimeout]);
        const BROKEN: (State, &[Action]) = (State::Terminated, &[Action::ReportTransportFailure]);

        match self {
            Self::Calling => match event {
                Event::Provisional => {
                    (Self::Proceeding, &[Action::StopTimers, Action::Start(Timer::C), Action::Deliver])
                }
                Event::Success => ACCEPTED,
                Event::Failure => REFUSED,
                Event::Cancel => (Self::Withdrawn, &[]),
                Event::TimerA => (self, &[Action::Transmit, Action::Start(Timer::A)]),
                Event::TimerB => TIMED_OUT,
                Event::TransportError => BROKEN,
                Event::TimerC | Event::TimerD | Event::TimerM => (self, &[]),
            },
            Self::Withdrawn => match event {
                Event::Provisional => (
                    Self::Cancelled,
                    &[Action::StopTimers, Action::TransmitCancel, Action::Start(Timer::B), Action::Deliver],
                ),
                Event::Success => ACCEPTED,
                Event::Failure => REFUSED,
                Event::TimerA => (self, &[Action::Transmit, Action::Start(Timer::A)]),
                Event::TimerB => TIMED_OUT,
                Event::TransportError => BROKEN,
                Event::Cancel | Event::TimerC | Event::TimerD | Event::TimerM => (self, &[]),
            },
            Self::Proceeding => match event {
                Event::Provisional => (self, &[Action::StopTimers, Action::Start(Timer::C), Action::Deliver]),
                Event::Success => ACCEPTED,
                Event::Failure => REFUSED,
                Event::Cancel | Event::TimerC => CANCELLED,
                Event::TimerA | Event::TimerB | Event::TimerD | Event::TimerM | Event::TransportError => {
                    (self, &[])
                }
            },
            Self::Cancelled => match event {
                Event::Provisional => (self, &[Action::Deliver]),
                Event::Success => ACCEPTED,
                Event::Failure => REFUSED,
                Event::TimerB => TIMED_OUT,
                Event::Cancel
                | Event::TimerA
                | Event::TimerC
                | Event::TimerD
                | Event::TimerM
                | Event::TransportError => (self, &[]),
            },
            Self::Completed => match event {
                Event::Failure => (self, &[Action::TransmitAck]),
                Event::TimerD => (Self::Terminated, &[]),
                Event::TransportError => BROKEN,
                Event::Provisional
                | Event::Success
                | Event::Cancel
                | Event::TimerA
                | Event::TimerB
                | Event::TimerC
                | Event::TimerM => (self, &[]),
            },
            Self::Accepted => match event {
                Event::Success => (self, &[Action::Deliver]),
                Event::TimerM => (Self::Terminated, &[]),
                Event::Provisional
                | Event::Failure
                | Event::Cancel
                | Event::TimerA
                | Event::TimerB
                | Event::TimerC
                | Event::TimerD
                | Event::TransportError => (self, &[]),
            },
            Self::Terminated => (self, &[]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine::{Rows, check_every_pair};
    use super::Action::{Deliver, ReportTimeout, ReportTransportFailure, Start, StopTimers};
    use super::Action::{Transmit, TransmitAck, TransmitCancel};
    use super::*;

    const TABLE: Rows<State, Event> = {
        use Event::*;
        use State::*;
        &[
            (&[Calling], &[Provisional], Some(Proceeding), &[StopTimers, Start(Timer::C), Deliver]),
            (&[Proceeding], &[Provisional], None, &[StopTimers, Start(Timer::C), Deliver]),
            (
                &[Withdrawn],
                &[Provisional],
                Some(Cancelled),
                &[StopTimers, TransmitCancel, Start(Timer::B), Deliver],
            ),
            (&[Cancelled], &[Provisional], None, &[Deliver]),
            (
                &[Calling, Withdrawn, Proceeding, Cancelled],
                &[Success],
                Some(Accepted),
                &[StopTimers, Start(Timer::M), Deliver],
            ),
            (
                &[Calling, Withdrawn, Proceeding, Cancelled],
                &[Failure],
                Some(Completed),
                &[StopTimers, TransmitAck, Start(Timer::D), Deliver],
            ),
            (&[Calling], &[Cancel], Some(Withdrawn), &[]),
            (
                &[Proceeding],
                &[Cancel, TimerC],
                Some(Cancelled),
                &[StopTimers, TransmitCancel, Start(Timer::B)],
            ),
            (&[Withdrawn, Cancelled, Completed, Accepted], &[Cancel], None, &[]),
            (&[Calling, Withdrawn], &[TimerA], None, &[Transmit, Start(Timer::A)]),
            (&[Calling, Withdrawn, Cancelled], &[TimerB], Some(Terminated), &[ReportTimeout]),
            (
                &[Calling, Withdrawn, Completed],
                &[TransportError],
                Some(Terminated),
                &[ReportTransportFailure],
            ),
            (&[Completed], &[Failure], None, &[TransmitAck]),
            (&[Completed], &[TimerD], Some(Terminated), &[]),
            (&[Accepted], &[Success], None, &[Deliver]),
            (&[Accepted], &[TimerM], Some(Terminated), &[]),
            // What cannot happen, or means nothing any more, changes nothing.
            (&[Calling, Withdrawn], &[TimerC, TimerD, TimerM], None, &[]),
            (&[Proceeding], &[TimerA, TimerB, TimerD, TimerM, TransportError], None, &[]),
            (&[Cancelled], &[TimerA, TimerC, TimerD, TimerM, TransportError], None, &[]),
            (&[Completed], &[Provisional, Success, TimerA, TimerB, TimerC, TimerM], None, &[]),
            (&[Accepted], &[Provisional, Failure, TimerA, TimerB, TimerC, TimerD, TransportError], None, &[]),
            (&[Terminated], Event::ALL, None, &[]),
        ]
    };

    #[test]
    fn every_state_and_event() {
        check_every_pair(State::ALL, Event::ALL, State::on, TABLE);
    }
}
