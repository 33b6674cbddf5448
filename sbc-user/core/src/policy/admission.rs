//! Whether one more call is admitted, and how a refusal of our own is told to the caller.
//!
//! Every refusal that this SBC decides by itself is listed here with its status, its text and its counter; refusals
//! that come from the other side are mapped by `call::response_map`.

use crate::counter::Counter;

/// Seconds that a refused caller is asked to wait before it tries again.
pub const RETRY_AFTER_SECONDS: u32 = 30;

/// What is in use when a call asks to come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Calls up, in any state.
    pub calls: usize,
    /// Calls that may be up at once.
    pub max_calls: usize,
    /// The operator wants no new calls.
    pub draining: bool,
}

/// Whether one more call may begin.
///
/// # Errors
/// The refusal to send.
pub const fn admit(load: Load) -> Result<(), Refusal> {
    if load.draining {
        Err(Refusal::Draining)
    } else if load.calls >= load.max_calls {
        Err(Refusal::Capacity)
    } else {
        Ok(())
    }
}

/// Why this SBC itself refuses a call or an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No new calls: shutting down.
    Draining,
    /// As many calls as allowed are up.
    Capacity,
    /// No media ports left.
    PortsExhausted,
    /// The caller's trunk has no route to a trunk that can be called.
    NoRoute,
    /// The dataplane has no room or no route for the media.
    MediaUnavailable,
    /// The body says that it is SDP and is not.
    BadSdp,
    /// The body must be understood and is of a type that is not.
    ContentType,
    /// Nobody answered within the time allowed.
    NoAnswer,
    /// The other side answered with something that cannot be used.
    BadAnswer,
    /// Another change of the same side is in progress.
    ChangePending,
    /// The operator ended the call.
    Operator,
}

/// How a refusal is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saying {
    /// Status code.
    pub status: u16,
    /// Reason phrase.
    pub phrase: &'static str,
    /// `Warning` code and text (RFC 3261 s.20.43).
    pub warning: Option<(u16, String)>,
    /// When the caller is asked to come back.
    pub retry_after_seconds: Option<u32>,
    /// Where it is counted.
    pub counter: Counter,
    /// In words, for records.
    pub cause: &'static str,
}

impl Refusal {
    /// Status, text and counter.
    #[must_use]
    pub const fn saying(self) -> Saying {
        let (status, phrase, counter, retry) = match self {
            Self::Draining => (503, "Service Unavailable", Counter::RefusedDraining, true),
            Self::Capacity => (503, "Service Unavailable", Counter::RefusedCapacity, true),
            Self::PortsExhausted => (503, "Service Unavailable", Counter::RefusedPorts, true),
            Self::NoRoute => (404, "Not Found", Counter::RefusedNoRoute, false),
            Self::MediaUnavailable => (503, "Service Unavailable", Counter::RefusedMedia, true),
            Self::BadSdp => (400, "Bad Session Description", Counter::RefusedSdp, false),
            Self::ContentType => (415, "Unsupported Media Type", Counter::RefusedContentType, false),
            Self::NoAnswer => (408, "Request Timeout", Counter::CallNoAnswer, false),
            Self::BadAnswer => (502, "Bad Gateway", Counter::BadAnswer, false),
            Self::ChangePending => (500, "Server Internal Error", Counter::Glare, true),
            Self::Operator => (503, "Service Unavailable", Counter::CallHungUpByOperator, false),
        };
        let retry_after_seconds = if retry { Some(RETRY_AFTER_SECONDS) } else { None };
        Saying { status, phrase, warning: None, retry_after_seconds, counter, cause: self.cause() }
    }

    /// In words, for records.
    #[must_use]
    pub const fn cause(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Capacity => "too many calls",
            Self::PortsExhausted => "no media ports left",
            Self::NoRoute => "no route",
            Self::MediaUnavailable => "media could not be set up",
            Self::BadSdp => "malformed SDP",
            Self::ContentType => "unsupported content type",
            Self::NoAnswer => "no answer",
            Self::BadAnswer => "unusable answer",
            Self::ChangePending => "another change in progress",
            Self::Operator => "ended by the operator",
        }
    }
}

impl Saying {
    /// The same with a `Warning`.
    #[must_use]
    pub fn with_warning(mut self, code: u16, text: String) -> Self {
        self.warning = Some((code, text));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draining_is_said_before_capacity() {
        let load = |calls, draining| Load { calls, max_calls: 2, draining };
        assert_eq!(admit(load(1, false)), Ok(()));
        assert_eq!(admit(load(2, false)), Err(Refusal::Capacity));
        assert_eq!(admit(load(0, true)), Err(Refusal::Draining));
        assert_eq!(admit(load(2, true)), Err(Refusal::Draining));
        assert_eq!(Refusal::Capacity.saying().retry_after_seconds, Some(RETRY_AFTER_SECONDS));
    }
}
