//! What the four machines have in common: the actions that they ask for and the timers that they start.
//!
//! A machine is a closed enum with `fn on(self, Event) -> (Self, &'static [Action])`: no data, no time, no bytes, so
//! that one table covers every pair of state and event. Each timer belongs to exactly one machine.

use std::time::Duration;

/// Round-trip estimate: first retransmission interval (RFC 3261 s.17.1.1.1).
pub(crate) const T1: Duration = Duration::from_millis(500);
/// Longest retransmission interval of anything but an INVITE request (RFC 3261 s.17.1.2.2).
pub(crate) const T2: Duration = Duration::from_secs(4);
/// How long a message may stay in the network (RFC 3261 s.17.1.2.2).
pub(crate) const T4: Duration = Duration::from_secs(5);
/// How long an unreliable peer is given to answer, and how long late copies of its messages are absorbed.
pub(crate) const T1_64: Duration = Duration::from_millis(500 * 64);
/// Timer D over an unreliable transport: more than 32 s (RFC 3261 s.17.1.1.2).
const ABSORB_FAILURES: Duration = Duration::from_secs(32);
/// Timer C: more than three minutes (RFC 3261 s.16.6). A callee that rings longer repeats a provisional response every
/// minute (s.13.3.1.1), each of which starts the timer anew.
const RINGING_LIMIT: Duration = Duration::from_secs(185);
/// How long an INVITE may wait for its user's next response. Longer than any client transaction on whose outcome that
/// user may wait (Timer C, then the CANCEL's 64*T1), so it only ends what was forgotten.
const INVITE_UNANSWERED_LIMIT: Duration = Duration::from_secs(300);

/// What a machine asks of [`Transactions`](super::Transactions).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Send (again) what is ours: a client's request, a server's latest response.
    Transmit,
    /// Send 100 (Trying).
    TransmitTrying,
    /// Send (again) the ACK for a final response other than 2xx (RFC 3261 s.17.1.1.3).
    TransmitAck,
    /// Send CANCEL, a transaction of its own (RFC 3261 s.9.1).
    TransmitCancel,
    /// Hand the message that came in to the transaction's user.
    Deliver,
    /// Start a timer; one that repeats starts at T1 and doubles each time it is started again.
    Start(Timer),
    /// Start a timer at T2.
    StartAtT2(Timer),
    /// Stop every timer of the transaction.
    StopTimers,
    /// Tell the user that the peer (or, for a server before its answer, the user itself) kept silent.
    ReportTimeout,
    /// Tell the user that what was sent could not be delivered.
    ReportTransportFailure,
}

/// The timers of RFC 3261 s.17 (table 4) and RFC 6026, and two of ours that end a server transaction whose user never
/// answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Timer {
    /// Client INVITE: repeat the request.
    A,
    /// Client INVITE: no response at all, or none after CANCEL.
    B,
    /// Client INVITE: no final response.
    C,
    /// Client INVITE: late copies of a failure no longer expected.
    D,
    /// Client: repeat the request.
    E,
    /// Client: no final response.
    F,
    /// Server INVITE: repeat the failure response.
    G,
    /// Server INVITE: no ACK.
    H,
    /// Server INVITE: late copies of ACK no longer expected.
    I,
    /// Server: late copies of the request no longer expected.
    J,
    /// Client: late copies of the response no longer expected.
    K,
    /// Server INVITE: late copies of an accepted request no longer expected.
    L,
    /// Client INVITE: 2xx of further forks and late copies no longer expected.
    M,
    /// Server INVITE: the user neither answers nor reports progress.
    InviteUnanswered,
    /// Server: the user does not answer, and by now no client waits for it (RFC 4320).
    OtherUnanswered,
}

impl Timer {
    /// How long it runs (a repeating one: the first time); `None`: not at all over this transport, which repeats by
    /// itself. Zero: over this transport nothing late can arrive, it fires at once.
    pub(super) const fn length(self, reliable: bool) -> Option<Duration> {
        match (self, reliable) {
            (Self::A | Self::E | Self::G, true) => None,
            (Self::A | Self::E | Self::G, false) => Some(T1),
            (Self::D | Self::I | Self::J | Self::K, true) => Some(Duration::ZERO),
            (Self::D, false) => Some(ABSORB_FAILURES),
            (Self::I | Self::K, false) => Some(T4),
            (Self::J, false) => Some(T1_64),
            (Self::B | Self::F | Self::H | Self::L | Self::M | Self::OtherUnanswered, _) => Some(T1_64),
            (Self::C, _) => Some(RINGING_LIMIT),
            (Self::InviteUnanswered, _) => Some(INVITE_UNANSWERED_LIMIT),
        }
    }

    /// The interval after `interval`: doubled, for all but the INVITE request at most T2 (RFC 3261 s.17.1.1.2,
    /// s.17.1.2.2, s.17.2.1).
    pub(super) fn next_interval(self, interval: Duration) -> Duration {
        if self == Self::A { interval * 2 } else { (interval * 2).min(T2) }
    }
}

/// Defines an enum that can list its variants to the tests, so that no pair of state and event stays untested.
macro_rules! closed_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum $name { $($(#[$variant_doc])* $variant,)+ }

        #[cfg(test)]
        impl $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];
        }
    };
}
pub(super) use closed_enum;

/// Rows of a machine's test table: in each of these states, on each of these events, the next state (`None`: the same)
/// and the actions.
#[cfg(test)]
pub(super) type Rows<S, E> = &'static [(&'static [S], &'static [E], Option<S>, &'static [Action])];

/// Holds a machine against its table: every pair of state and event occurs in exactly one row and does what it says.
#[cfg(test)]
pub(super) fn check_every_pair<S, E>(
    states: &[S],
    events: &[E],
    on: impl Fn(S, E) -> (S, &'static [Action]),
    rows: Rows<S, E>,
) where
    S: Copy + PartialEq + std::fmt::Debug,
    E: Copy + PartialEq + std::fmt::Debug,
{
    for &state in states {
        for &event in events {
            let mut matching = rows.iter().filter(|row| row.0.contains(&state) && row.1.contains(&event));
            let row = matching.next().unwrap_or_else(|| panic!("no row for {state:?} on {event:?}"));
            assert!(matching.next().is_none(), "two rows for {state:?} on {event:?}");
            assert_eq!(on(state, event), (row.2.unwrap_or(state), row.3), "{state:?} on {event:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reliable_transport_repeats_nothing_and_has_nothing_late() {
        for timer in [Timer::A, Timer::E, Timer::G] {
            assert_eq!(timer.length(true), None);
            assert_eq!(timer.length(false), Some(T1));
        }
        for timer in [Timer::D, Timer::I, Timer::J, Timer::K] {
            assert_eq!(timer.length(true), Some(Duration::ZERO));
            assert!(timer.length(false) > Some(Duration::ZERO));
        }
        for timer in [Timer::B, Timer::F, Timer::H, Timer::L, Timer::M] {
            assert_eq!(timer.length(true), Some(64 * T1));
            assert_eq!(timer.length(false), Some(64 * T1));
        }
    }

    #[test]
    fn only_the_invite_request_doubles_without_end() {
        assert_eq!(Timer::A.next_interval(T2), 2 * T2);
        assert_eq!(Timer::E.next_interval(T1), 2 * T1);
        assert_eq!(Timer::E.next_interval(T2), T2);
        assert_eq!(Timer::G.next_interval(T2), T2);
    }

    #[test]
    fn an_invite_is_not_forgotten_before_the_other_side_gave_up() {
        assert!(INVITE_UNANSWERED_LIMIT > RINGING_LIMIT + T1_64);
    }
}
