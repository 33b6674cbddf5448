//! The leg that we call: the client side of its INVITE, seen from the call (RFC 3261 s.13.2, s.15, s.9.1).
//!
//! ```text
//! Idle ── Place ──> Calling ── Provisional ──> Proceeding ── Success ──> Answered ── Acknowledge ──> Confirmed ─> Closing ─> Closed
//!                      │ Hangup                     │ Hangup                   └── Hangup: ACK and BYE ──────────────┘
//!                      └──> Cancelling <────────────┘
//!                               ├── Failure ──> Closed
//!                               └── Success: ACK and BYE ──> Closing
//! ```
//!
//! A CANCEL waits for the first provisional response (s.9.1): the transaction sees to that. A 2xx that crosses it is
//! acknowledged and ended. The ACK to a 2xx leaves only when the call says so, because the answer's media must be
//! installed first.

use Action::{
    AnswerBye, ReportAnswer, ReportFailure, ReportLost, ReportProgress, ReportReleased, SendAck, SendBye,
    SendCancel, SendInvite,
};

/// Where the leg is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Placed {
    /// The INVITE has not been sent.
    Idle,
    /// Sent, no response yet.
    Calling,
    /// A provisional response came.
    Proceeding,
    /// Withdrawn by CANCEL; no final response came yet.
    Cancelling,
    /// 2xx came, our ACK is held back.
    Answered,
    /// ACK was sent.
    Confirmed,
    /// BYE was sent.
    Closing,
    /// Nothing more to do.
    Closed,
}

/// What happened to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The call wants it called.
    Place,
    /// 1xx.
    Provisional,
    /// 2xx to the INVITE, new or repeated.
    Success,
    /// Final failure, or none came at all.
    Failure,
    /// The call is ready for the ACK.
    Acknowledge,
    /// The call wants the leg gone.
    Hangup,
    /// The peer sent BYE.
    Bye,
    /// Our BYE was answered or given up.
    ByeDone,
    /// The signalling connection is gone.
    Lost,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send the INVITE.
    SendInvite,
    /// Withdraw it by CANCEL.
    SendCancel,
    /// Send the ACK to the 2xx.
    SendAck,
    /// Send BYE.
    SendBye,
    /// Answer the BYE with 200.
    AnswerBye,
    /// Tell the call: 1xx.
    ReportProgress,
    /// Tell the call: 2xx.
    ReportAnswer,
    /// Tell the call: refused or unreachable.
    ReportFailure,
    /// Tell the call: the peer hung up.
    ReportReleased,
    /// Tell the call: connection lost.
    ReportLost,
}

impl Placed {
    /// All states, for tests.
    pub const ALL: [Self; 8] = [
        Self::Idle,
        Self::Calling,
        Self::Proceeding,
        Self::Cancelling,
        Self::Answered,
        Self::Confirmed,
        Self::Closing,
        Self::Closed,
    ];

    /// The next state and what to do.
    #[must_use]
    pub const fn on(self, event: Event) -> (Self, &'static [Action]) {
        match self {
            Self::Idle => match event {
                Event::Place => (Self::Calling, &[SendInvite]),
                Event::Hangup => (Self::Closed, &[]),
                Event::Bye => (self, &[AnswerBye]),
                Event::Provisional
                | Event::Success
                | Event::Failure
                | Event::Acknowledge
                | Event::ByeDone
                | Event::Lost => (self, &[]),
            },
            Self::Calling => match event {
                Event::Provisional => (Self::Proceeding, &[ReportProgress]),
                Event::Success => (Self::Answered, &[ReportAnswer]),
                Event::Failure => (Self::Closed, &[ReportFailure]),
                Event::Hangup => (Self::Cancelling, &[SendCancel]),
                Event::Bye => (Self::Cancelling, &[AnswerBye, SendCancel, ReportReleased]),
                Event::Lost => (Self::Closed, &[ReportLost]),
                Event::Place | Event::Acknowledge | Event::ByeDone => (self, &[]),
            },
            Self::Proceeding => match event {
                Event::Provisional => (self, &[ReportProgress]),
                Event::Success => (Self::Answered, &[ReportAnswer]),
                Event::Failure => (Self::Closed, &[ReportFailure]),
                Event::Hangup => (Self::Cancelling, &[SendCancel]),
                Event::Bye => (Self::Cancelling, &[AnswerBye, SendCancel, ReportReleased]),
                Event::Lost => (Self::Closed, &[ReportLost]),
                Event::Place | Event::Acknowledge | Event::ByeDone => (self, &[]),
            },
            Self::Cancelling => match event {
                Event::Success => (Self::Closing, &[SendAck, SendBye]),
                Event::Failure | Event::Lost => (Self::Closed, &[]),
                Event::Bye => (self, &[AnswerBye]),
                Event::Provisional | Event::Place | Event::Acknowledge | Event::Hangup | Event::ByeDone => {
                    (self, &[])
                }
            },
            Self::Answered => match event {
                Event::Acknowledge => (Self::Confirmed, &[SendAck]),
                Event::Hangup => (Self::Closing, &[SendAck, SendBye]),
                Event::Bye => (Self::Closed, &[AnswerBye, SendAck, ReportReleased]),
                Event::Lost => (Self::Closed, &[ReportLost]),
                Event::Place | Event::Provisional | Event::Success | Event::Failure | Event::ByeDone => {
                    (self, &[])
                }
            },
            Self::Confirmed => match event {
                Event::Success => (self, &[SendAck]),
                Event::Hangup => (Self::Closing, &[SendBye]),
                Event::Bye => (Self::Closed, &[AnswerBye, ReportReleased]),
                Event::Lost => (Self::Closed, &[ReportLost]),
                Event::Place | Event::Provisional | Event::Failure | Event::Acknowledge | Event::ByeDone => {
                    (self, &[])
                }
            },
            Self::Closing => match event {
                Event::Success => (self, &[SendAck]),
                Event::Bye => (self, &[AnswerBye]),
                Event::ByeDone | Event::Lost => (Self::Closed, &[]),
                Event::Place | Event::Provisional | Event::Failure | Event::Acknowledge | Event::Hangup => {
                    (self, &[])
                }
            },
            Self::Closed => match event {
                Event::Success => (self, &[SendAck]),
                Event::Bye => (self, &[AnswerBye]),
                Event::Place
                | Event::Provisional
                | Event::Failure
                | Event::Acknowledge
                | Event::Hangup
                | Event::ByeDone
                | Event::Lost => (self, &[]),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Event::{Acknowledge, Bye, ByeDone, Failure, Hangup, Lost, Place, Provisional, Success};
    use Placed::{Answered, Cancelling, Closed, Closing, Confirmed, Idle, Proceeding};

    const EVENTS: [Event; 9] =
        [Place, Provisional, Success, Failure, Acknowledge, Hangup, Bye, ByeDone, Lost];

    /// One row per state, one column per event in the order of `EVENTS`.
    #[rustfmt::skip]
    const TABLE: [[(Placed, &[Action]); 9]; 8] = [
        // Idle
        [(Placed::Calling, &[SendInvite]), (Idle, &[]), (Idle, &[]), (Idle, &[]), (Idle, &[]), (Closed, &[]),
         (Idle, &[AnswerBye]), (Idle, &[]), (Idle, &[])],
        // Calling
        [(Placed::Calling, &[]), (Proceeding, &[ReportProgress]), (Answered, &[ReportAnswer]), (Closed, &[ReportFailure]),
         (Placed::Calling, &[]), (Cancelling, &[SendCancel]), (Cancelling, &[AnswerBye, SendCancel, ReportReleased]), (Placed::Calling, &[]),
         (Closed, &[ReportLost])],
        // Proceeding
        [(Proceeding, &[]), (Proceeding, &[ReportProgress]), (Answered, &[ReportAnswer]), (Closed, &[ReportFailure]),
         (Proceeding, &[]), (Cancelling, &[SendCancel]), (Cancelling, &[AnswerBye, SendCancel, ReportReleased]),
         (Proceeding, &[]), (Closed, &[ReportLost])],
        // Cancelling
        [(Cancelling, &[]), (Cancelling, &[]), (Closing, &[SendAck, SendBye]), (Closed, &[]),
         (Cancelling, &[]), (Cancelling, &[]), (Cancelling, &[AnswerBye]), (Cancelling, &[]), (Closed, &[])],
        // Answered
        [(Answered, &[]), (Answered, &[]), (Answered, &[]), (Answered, &[]),
         (Confirmed, &[SendAck]), (Closing, &[SendAck, SendBye]), (Closed, &[AnswerBye, SendAck, ReportReleased]),
         (Answered, &[]), (Closed, &[ReportLost])],
        // Confirmed
        [(Confirmed, &[]), (Confirmed, &[]), (Confirmed, &[SendAck]), (Confirmed, &[]),
         (Confirmed, &[]), (Closing, &[SendBye]), (Closed, &[AnswerBye, ReportReleased]), (Confirmed, &[]),
         (Closed, &[ReportLost])],
        // Closing
        [(Closing, &[]), (Closing, &[]), (Closing, &[SendAck]), (Closing, &[]),
         (Closing, &[]), (Closing, &[]), (Closing, &[AnswerBye]), (Closed, &[]), (Closed, &[])],
        // Closed
        [(Closed, &[]), (Closed, &[]), (Closed, &[SendAck]), (Closed, &[]),
         (Closed, &[]), (Closed, &[]), (Closed, &[AnswerBye]), (Closed, &[]), (Closed, &[])],
    ];

    #[test]
    fn every_state_and_event() {
        for (state, row) in Placed::ALL.into_iter().zip(TABLE) {
            for (event, expected) in EVENTS.into_iter().zip(row) {
                assert_eq!(state.on(event), expected, "{state:?} on {event:?}");
            }
        }
    }

    #[test]
    fn a_hung_up_leg_ends_whatever_comes_first() {
        for (events, expected) in [
            (&[Place, Hangup, Provisional, Failure][..], Closed),
            (&[Place, Hangup, Success, ByeDone][..], Closed),
            (&[Place, Provisional, Hangup, Success, ByeDone][..], Closed),
            (&[Place, Provisional, Hangup, Failure][..], Closed),
            (&[Place, Success, Hangup, ByeDone][..], Closed),
            (&[Place, Success, Acknowledge, Hangup, Bye, ByeDone][..], Closed),
        ] {
            let end = events.iter().fold(Idle, |state, &event| state.on(event).0);
            assert_eq!(end, expected, "{events:?}");
        }
    }
}
