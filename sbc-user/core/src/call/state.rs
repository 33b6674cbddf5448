//! The life of a call from its first INVITE to its end, without the details of either leg.
//!
//! ```text
//! Preparing ── Prepared ──> Offering ── Progress ──> Early ── Success ──> Connecting ── Connected ──> Answered
//!     │                        │ Success ──────────────┼──────────────────>    │                         │
//!     └── End ─────────────────┴───────────────────────┴───────────────────────┴─────────────────────────┴──> Ending
//! ```
//!
//! `Preparing` and `Connecting` are the two moments in which the call waits for the dataplane: the INVITE does not leave
//! before the offer's media is in force, the 200 not before the answer's is.

use Action::{
    AcceptCaller, CompleteMedia, PlaceCallee, RelayProgress, StartNoAnswer, StopNoAnswer, TearDown,
};

use crate::command::CallState;

/// Where the call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The offer's media is being installed; the callee has not been called.
    Preparing,
    /// Called, nothing heard.
    Offering,
    /// A provisional response was relayed.
    Early,
    /// The callee answered; the answer's media is being installed.
    Connecting,
    /// The 2xx was relayed.
    Answered,
    /// Being torn down.
    Ending,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The offer's media is in force.
    Prepared,
    /// A provisional response.
    Progress,
    /// The callee's 2xx.
    Success,
    /// The answer's media is in force.
    Connected,
    /// Either side, the operator, a timer or a failure ends the call.
    End,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send the callee its INVITE.
    PlaceCallee,
    /// Start (again) the time in which the call must be answered and its media in force.
    StartNoAnswer,
    /// Stop it.
    StopNoAnswer,
    /// Relay the provisional response.
    RelayProgress,
    /// Take the answer into the plan.
    CompleteMedia,
    /// Acknowledge the callee, answer the caller.
    AcceptCaller,
    /// Release everything.
    TearDown,
}

impl Phase {
    /// All, for tests.
    pub const ALL: [Self; 6] =
        [Self::Preparing, Self::Offering, Self::Early, Self::Connecting, Self::Answered, Self::Ending];

    /// The next phase and what to do.
    #[must_use]
    pub const fn on(self, event: Event) -> (Self, &'static [Action]) {
        match (self, event) {
            (Self::Ending, Event::End) => (self, &[]),
            (_, Event::End) => (Self::Ending, &[StopNoAnswer, TearDown]),
            (Self::Preparing, Event::Prepared) => (Self::Offering, &[StartNoAnswer, PlaceCallee]),
            (Self::Offering | Self::Early, Event::Progress) => (Self::Early, &[RelayProgress]),
            (Self::Offering | Self::Early, Event::Success) => (Self::Connecting, &[CompleteMedia]),
            (Self::Connecting, Event::Connected) => (Self::Answered, &[StopNoAnswer, AcceptCaller]),
            (Self::Preparing, Event::Progress | Event::Success | Event::Connected)
            | (Self::Offering | Self::Early, Event::Prepared | Event::Connected)
            | (Self::Connecting, Event::Prepared | Event::Progress | Event::Success)
            | (Self::Answered, Event::Prepared | Event::Progress | Event::Success | Event::Connected)
            | (Self::Ending, Event::Prepared | Event::Progress | Event::Success | Event::Connected) => {
                (self, &[])
            }
        }
    }

    /// As operators see it.
    #[must_use]
    pub const fn visible(self) -> CallState {
        match self {
            Self::Preparing | Self::Offering => CallState::Offering,
            Self::Early | Self::Connecting => CallState::Early,
            Self::Answered => CallState::Answered,
            Self::Ending => CallState::Ending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Event::{Connected, End, Prepared, Progress, Success};
    use Phase::{Answered, Connecting, Early, Ending, Offering, Preparing};

    const EVENTS: [Event; 5] = [Prepared, Progress, Success, Connected, End];
    const END: (Phase, &[Action]) = (Ending, &[StopNoAnswer, TearDown]);

    /// One row per phase, one column per event in the order of `EVENTS`.
    #[rustfmt::skip]
    const TABLE: [[(Phase, &[Action]); 5]; 6] = [
        [(Offering, &[StartNoAnswer, PlaceCallee]), (Preparing, &[]), (Preparing, &[]), (Preparing, &[]), END],
        [(Offering, &[]), (Early, &[RelayProgress]), (Connecting, &[CompleteMedia]), (Offering, &[]), END],
        [(Early, &[]), (Early, &[RelayProgress]), (Connecting, &[CompleteMedia]), (Early, &[]), END],
        [(Connecting, &[]), (Connecting, &[]), (Connecting, &[]), (Answered, &[StopNoAnswer, AcceptCaller]), END],
        [(Answered, &[]), (Answered, &[]), (Answered, &[]), (Answered, &[]), END],
        [(Ending, &[]), (Ending, &[]), (Ending, &[]), (Ending, &[]), (Ending, &[])],
    ];

    #[test]
    fn every_phase_and_event() {
        for (phase, row) in Phase::ALL.into_iter().zip(TABLE) {
            for (event, expected) in EVENTS.into_iter().zip(row) {
                assert_eq!(phase.on(event), expected, "{phase:?} on {event:?}");
            }
        }
    }
}
