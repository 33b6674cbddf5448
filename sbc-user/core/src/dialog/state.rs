//! The life of a dialog (RFC 3261 s.12.1, s.12.3, s.13.2.2.4).
//!
//! ```text
//!      101-199 with tag ┌───────┐ 2xx ┌───────────┐ copies of the 2xx, refused
//!      ────────────────►│ Early ├────►│ Confirmed │ re-INVITEs: no change
//!                       └───┬───┘     └─────┬─────┘
//!            300-699, no    │               │ BYE (either way),
//!            answer at all  │               │ 481 or no answer to a request inside it
//!                       ┌───▼───────────────▼───┐
//!                       │      Terminated       │
//!                       └───────────────────────┘
//! ```

/// Where a dialog is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialogState {
    /// Made by a provisional response; ends with the INVITE if that is refused.
    Early,
    /// Made or confirmed by a 2xx; ends with BYE.
    Confirmed,
    /// Over; no request may be sent in it, and one that arrives is answered 481.
    Terminated,
}

/// What can happen to a dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialogEvent {
    /// A 101 to 199 to the INVITE that made it.
    Provisional,
    /// A 2xx to the INVITE that made it.
    Success,
    /// A 300 to 699 to the INVITE that made it, or none.
    Failure,
    /// BYE was sent or accepted, or the peer showed that it has no such dialog any more (s.12.2.1.2).
    Bye,
}

impl DialogState {
    /// One step.
    #[must_use]
    pub const fn on(self, event: DialogEvent) -> Self {
        match self {
            Self::Early => match event {
                DialogEvent::Provisional => Self::Early,
                DialogEvent::Success => Self::Confirmed,
                DialogEvent::Failure | DialogEvent::Bye => Self::Terminated,
            },
            Self::Confirmed => match event {
                DialogEvent::Provisional | DialogEvent::Success | DialogEvent::Failure => Self::Confirmed,
                DialogEvent::Bye => Self::Terminated,
            },
            Self::Terminated => Self::Terminated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::DialogEvent::{Bye, Failure, Provisional, Success};
    use super::DialogState::{Confirmed, Early, Terminated};

    #[test]
    fn every_state_and_event() {
        let table = [
            (Early, [(Provisional, Early), (Success, Confirmed), (Failure, Terminated), (Bye, Terminated)]),
            (
                Confirmed,
                [(Provisional, Confirmed), (Success, Confirmed), (Failure, Confirmed), (Bye, Terminated)],
            ),
            (
                Terminated,
                [(Provisional, Terminated), (Success, Terminated), (Failure, Terminated), (Bye, Terminated)],
            ),
        ];
        for (state, row) in table {
            for (event, next) in row {
                assert_eq!(state.on(event), next, "{state:?} on {event:?}");
            }
        }
    }
}
