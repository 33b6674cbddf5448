//! The name of a dialog (RFC 3261 s.12).

use crate::sip::Message;

/// Call-ID and the tags of both sides. The same dialog has them swapped at the other side.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialogId {
    /// The Call-ID.
    pub call_id: Box<str>,
    /// Our tag.
    pub local_tag: Box<str>,
    /// The peer's tag; `None` for a peer that follows RFC 2543 and has none (s.12.1.1, s.12.1.2).
    pub remote_tag: Option<Box<str>>,
}

impl DialogId {
    /// Of the dialog that a peer's request belongs to. `None`: its To has no tag, so it is outside of any dialog, or
    /// what names a dialog is malformed.
    #[must_use]
    pub fn of_request(request: &Message) -> Option<Self> {
        Some(Self {
            call_id: request.call_id().ok()?.into(),
            local_tag: request.to().ok()?.tag()?.into(),
            remote_tag: request.from().ok()?.tag().map(Into::into),
        })
    }

    /// Of the dialog that a peer's response belongs to or makes. `None`: what names a dialog is malformed.
    #[must_use]
    pub fn of_response(response: &Message) -> Option<Self> {
        Some(Self {
            call_id: response.call_id().ok()?.into(),
            local_tag: response.from().ok()?.tag()?.into(),
            remote_tag: response.to().ok()?.tag().map(Into::into),
        })
    }
}
