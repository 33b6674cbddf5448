//! The leg that called us: the server side of its INVITE, seen from the call (RFC 3261 s.13.3, s.15, s.9.2).
//!
//! ```text
//! Proceeding ── Alert ──> Alerting ── Accept ──> Accepted ── Ack ──> Confirmed ── Hangup ──> Closing ── ByeDone ──> Closed
//!      └── Refuse, Cancel, Bye, Hangup ──> Closed     └── Hangup ──> Releasing ── Ack, AckTimeout ──┘
//! ```
//!
//! A BYE never leaves before the ACK to our 2xx has come or its time is over (s.15): that is what `Releasing` waits for.
//! Only decides; the leg performs the actions.

use Action::{
    AnswerBye, ReportCancelled, ReportConfirmed, ReportLost, ReportNoAck, ReportReleased, SendBye,
    SendFailure, SendProvisional, SendSuccess, SendTerminated, StopSuccess,
};

/// Where the leg is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Received {
    /// INVITE came, only 100 was sent.
    Proceeding,
    /// 18x was sent.
    Alerting,
    /// 2xx was sent, its ACK is awaited.
    Accepted,
    /// 2xx was sent and the call wants the leg gone: BYE follows the ACK.
    Releasing,
    /// ACK came.
    Confirmed,
    /// BYE was sent.
    Closing,
    /// Nothing more to do.
    Closed,
}

/// What happened to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The call has an 18x to relay.
    Alert,
    /// The call has a 2xx to relay.
    Accept,
    /// The call refuses with a final status.
    Refuse,
    /// The call wants the leg gone.
    Hangup,
    /// ACK to our 2xx.
    Ack,
    /// No ACK within 64*T1.
    AckTimeout,
    /// The peer cancelled.
    Cancel,
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
    /// Send the 18x.
    SendProvisional,
    /// Send the 2xx, and again until its ACK comes.
    SendSuccess,
    /// Send no more 2xx.
    StopSuccess,
    /// Send the final failure that the call chose.
    SendFailure,
    /// Send 487 Request Terminated.
    SendTerminated,
    /// Send BYE.
    SendBye,
    /// Answer the BYE with 200.
    AnswerBye,
    /// Tell the call: confirmed.
    ReportConfirmed,
    /// Tell the call: cancelled.
    ReportCancelled,
    /// Tell the call: the peer hung up.
    ReportReleased,
    /// Tell the call: never acknowledged.
    ReportNoAck,
    /// Tell the call: connection lost.
    ReportLost,
}

impl Received {
    /// All states, for tests.
    pub const ALL: [Self; 7] = [
        Self::Proceeding,
        Self::Alerting,
        Self::Accepted,
        Self::Releasing,
        Self::Confirmed,
        Self::Closing,
        Self::Closed,
    ];

    /// The next state and what to do.
    #[must_use]
    pub const fn on(self, event: Event) -> (Self, &'static [Action]) {
        match self {
            Self::Proceeding | Self::Alerting => match event {
                Event::Alert => (Self::Alerting, &[SendProvisional]),
                Event::Accept => (Self::Accepted, &[SendSuccess]),
                Event::Refuse | Event::Hangup => (Self::Closed, &[SendFailure]),
                Event::Cancel => (Self::Closed, &[SendTerminated, ReportCancelled]),
                Event::Bye => (Self::Closed, &[AnswerBye, SendTerminated, ReportReleased]),
                Event::Lost => (Self::Closed, &[SendTerminated, ReportLost]),
                Event::Ack | Event::AckTimeout | Event::ByeDone => (self, &[]),
            },
            Self::Accepted => match event {
                Event::Ack => (Self::Confirmed, &[StopSuccess, ReportConfirmed]),
                Event::AckTimeout => (Self::Closing, &[SendBye, ReportNoAck]),
                Event::Hangup => (Self::Releasing, &[]),
                Event::Bye => (Self::Closed, &[StopSuccess, AnswerBye, ReportReleased]),
                Event::Lost => (Self::Closed, &[StopSuccess, ReportLost]),
                Event::Alert | Event::Accept | Event::Refuse | Event::Cancel | Event::ByeDone => (self, &[]),
            },
            Self::Releasing => match event {
                Event::Ack => (Self::Closing, &[StopSuccess, SendBye]),
                Event::AckTimeout => (Self::Closing, &[SendBye]),
                Event::Bye => (Self::Closed, &[StopSuccess, AnswerBye]),
                Event::Lost => (Self::Closed, &[StopSuccess]),
                Event::Alert
                | Event::Accept
                | Event::Refuse
                | Event::Hangup
                | Event::Cancel
                | Event::ByeDone => (self, &[]),
            },
            Self::Confirmed => match event {
                Event::Hangup => (Self::Closing, &[SendBye]),
                Event::Bye => (Self::Closed, &[AnswerBye, ReportReleased]),
                Event::Lost => (Self::Closed, &[ReportLost]),
                Event::Alert
                | Event::Accept
                | Event::Refuse
                | Event::Ack
                | Event::AckTimeout
                | Event::Cancel
                | Event::ByeDone => (self, &[]),
            },
            Self::Closing => match event {
                Event::Bye => (self, &[AnswerBye]),
                Event::ByeDone | Event::Lost => (Self::Closed, &[]),
                Event::Alert
                | Event::Accept
                | Event::Refuse
                | Event::Hangup
                | Event::Ack
                | Event::AckTimeout
                | Event::Cancel => (self, &[]),
            },
            Self::Closed => match event {
                Event::Bye => (self, &[AnswerBye]),
                Event::Alert
                | Event::Accept
                | Event::Refuse
                | Event::Hangup
                | Event::Ack
                | Event::AckTimeout
                | Event::Cancel
                | Event::ByeDone
                | Event::Lost => (self, &[]),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Event::{Accept, Ack, AckTimeout, Alert, Bye, ByeDone, Cancel, Hangup, Lost, Refuse};
    use Received::{Accepted, Alerting, Closed, Closing, Confirmed, Proceeding, Releasing};

    const EVENTS: [Event; 10] = [Alert, Accept, Refuse, Hangup, Ack, AckTimeout, Cancel, Bye, ByeDone, Lost];

    /// One row per state, one column per event in the order of `EVENTS`.
    #[rustfmt::skip]
    const TABLE: [[(Received, &[Action]); 10]; 7] = [
        // Proceeding
        [(Alerting, &[SendProvisional]), (Accepted, &[SendSuccess]), (Closed, &[SendFailure]), (Closed, &[SendFailure]),
         (Proceeding, &[]), (Proceeding, &[]), (Closed, &[SendTerminated, ReportCancelled]),
         (Closed, &[AnswerBye, SendTerminated, ReportReleased]), (Proceeding, &[]), (Closed, &[SendTerminated, ReportLost])],
        // Alerting
        [(Alerting, &[SendProvisional]), (Accepted, &[SendSuccess]), (Closed, &[SendFailure]), (Closed, &[SendFailure]),
         (Alerting, &[]), (Alerting, &[]), (Closed, &[SendTerminated, ReportCancelled]),
         (Closed, &[AnswerBye, SendTerminated, ReportReleased]), (Alerting, &[]), (Closed, &[SendTerminated, ReportLost])],
        // Accepted
        [(Accepted, &[]), (Accepted, &[]), (Accepted, &[]), (Releasing, &[]),
         (Confirmed, &[StopSuccess, ReportConfirmed]), (Closing, &[SendBye, ReportNoAck]), (Accepted, &[]),
         (Closed, &[StopSuccess, AnswerBye, ReportReleased]), (Accepted, &[]), (Closed, &[StopSuccess, ReportLost])],
        // Releasing
        [(Releasing, &[]), (Releasing, &[]), (Releasing, &[]), (Releasing, &[]),
         (Closing, &[StopSuccess, SendBye]), (Closing, &[SendBye]), (Releasing, &[]),
         (Closed, &[StopSuccess, AnswerBye]), (Releasing, &[]), (Closed, &[StopSuccess])],
        // Confirmed
        [(Confirmed, &[]), (Confirmed, &[]), (Confirmed, &[]), (Closing, &[SendBye]),
         (Confirmed, &[]), (Confirmed, &[]), (Confirmed, &[]),
         (Closed, &[AnswerBye, ReportReleased]), (Confirmed, &[]), (Closed, &[ReportLost])],
        // Closing
        [(Closing, &[]), (Closing, &[]), (Closing, &[]), (Closing, &[]),
         (Closing, &[]), (Closing, &[]), (Closing, &[]),
         (Closing, &[AnswerBye]), (Closed, &[]), (Closed, &[])],
        // Closed
        [(Closed, &[]), (Closed, &[]), (Closed, &[]), (Closed, &[]),
         (Closed, &[]), (Closed, &[]), (Closed, &[]),
         (Closed, &[AnswerBye]), (Closed, &[]), (Closed, &[])],
    ];

    #[test]
    fn every_state_and_event() {
        for (state, row) in Received::ALL.into_iter().zip(TABLE) {
            for (event, expected) in EVENTS.into_iter().zip(row) {
                assert_eq!(state.on(event), expected, "{state:?} on {event:?}");
            }
        }
    }

    #[test]
    fn no_bye_leaves_before_the_ack_or_its_time() {
        for state in Received::ALL {
            for event in EVENTS {
                let (_, actions) = state.on(event);
                if actions.contains(&SendBye) {
                    let acknowledged = state == Confirmed || matches!(event, Ack | AckTimeout);
                    assert!(acknowledged, "{state:?} on {event:?}");
                }
            }
        }
    }
}
