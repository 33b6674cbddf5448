//! What one leg tells the call, in words that the other leg can act upon without knowing any message of this one.

use bytes::Bytes;

use crate::call::hide::{Carried, Secrets};
use crate::sip::header::{HeaderName, NameAddr};
use crate::sip::{Message, Method};
use crate::txn::ServerTxnId;

/// What happened on a leg.
#[derive(Debug)]
pub enum LegEvent {
    /// The callee is being tried; nothing to relay.
    Try,
    /// A provisional response, with or without a description.
    Progress(Said),
    /// 2xx to the call's first INVITE.
    Answer(Said),
    /// The first INVITE was refused, timed out, or could not be sent.
    Fail(Said),
    /// The caller withdrew its INVITE.
    Cancel(Content),
    /// The caller acknowledged the 2xx to its first INVITE.
    Confirm(Content),
    /// The peer hung up.
    Disconnect(Content),
    /// The 2xx that we sent was never acknowledged.
    Unacknowledged,
    /// The connection is gone and did not come back.
    Lost,
    /// The peer wants to change the session.
    Update(Ask),
    /// Any other request inside the dialog (INFO, OPTIONS, MESSAGE …).
    Request(Ask),
}

/// A request that waits for our answer.
#[derive(Debug)]
pub struct Ask {
    /// Answer it there.
    pub txn: ServerTxnId,
    /// Its method.
    pub method: Method,
    /// The request itself, from which its own leg makes the answer.
    pub request: Box<Message>,
    /// What crosses.
    pub content: Content,
    /// How many hops it may still take.
    pub max_forwards: u8,
}

/// Who calls whom, as an INVITE says it.
#[derive(Clone, Debug)]
pub struct Invited {
    /// The calling party.
    pub from: Party,
    /// The called party.
    pub to: Party,
    /// Whom the request is for: its Request-URI.
    pub asked: String,
}

/// A party of a call.
#[derive(Clone, Debug)]
pub struct Party {
    /// Its display name as written, with its quotes; may be empty.
    pub display: Bytes,
    /// Its URI.
    pub uri: String,
    /// The display name mentions the side that the party is on.
    pub tells: bool,
}

impl Party {
    /// Of a From or To value, from a side with these secrets.
    #[must_use]
    pub fn of(value: &NameAddr<'_>, secrets: &Secrets) -> Self {
        let display = value.display_raw().unwrap_or_default();
        Self {
            display: Bytes::copy_from_slice(display),
            uri: value.uri().as_str().to_owned(),
            tells: secrets.mentioned_in(display),
        }
    }

    /// The same at another address, with a display name that tells nothing.
    #[must_use]
    pub fn hidden(&self, uri: String) -> Self {
        let display = if self.tells { Bytes::new() } else { self.display.clone() };
        Self { display, uri, tells: false }
    }

    /// As the value of a From or To, with a tag if it has one.
    #[must_use]
    pub fn value(&self, tag: Option<&str>) -> Vec<u8> {
        let mut out = self.display.to_vec();
        if !out.is_empty() {
            out.push(b' ');
        }
        out.extend_from_slice(format!("<{}>", self.uri).as_bytes());
        if let Some(tag) = tag {
            out.extend_from_slice(format!(";tag={tag}").as_bytes());
        }
        out
    }
}

/// A response's status and what crosses of it.
#[derive(Clone, Debug)]
pub struct Said {
    /// Status code.
    pub status: u16,
    /// Reason phrase; empty: the usual one.
    pub phrase: Bytes,
    /// What crosses.
    pub content: Content,
}

/// What of a message crosses to the other side.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// Header lines.
    pub carried: Carried,
    /// Body.
    pub body: Body,
}

/// The body of a message.
#[derive(Clone, Debug, Default)]
pub enum Body {
    /// None.
    #[default]
    None,
    /// A session description, to be anchored.
    Sdp(Bytes),
    /// Anything else: passes as it is, or not at all.
    Other {
        /// Content-Type.
        content_type: Bytes,
        /// The other header lines that describe it.
        lines: Vec<Bytes>,
        /// The bytes.
        bytes: Bytes,
        /// It is or wraps a session description that nobody can anchor: it crosses nowhere.
        describes_session: bool,
        /// It names its side.
        tells: bool,
    },
}

impl Content {
    /// What crosses of a message from a side with these secrets.
    #[must_use]
    pub fn of(message: &Message, secrets: &Secrets) -> Self {
        Self { carried: Carried::of(message, secrets), body: Body::of(message, secrets) }
    }

    /// Nothing at all.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// The session description, if the body is one.
    #[must_use]
    pub const fn sdp(&self) -> Option<&Bytes> {
        match &self.body {
            Body::Sdp(bytes) => Some(bytes),
            Body::None | Body::Other { .. } => None,
        }
    }

    /// The same headers with another body.
    #[must_use]
    pub fn with_body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }
}

impl Said {
    /// What crosses of a response from a side with these secrets. A phrase that tells of that side does not.
    #[must_use]
    pub fn of(response: &Message, secrets: &Secrets) -> Self {
        let phrase =
            response.reason_phrase().filter(|phrase| !secrets.mentioned_in(phrase)).unwrap_or_default();
        Self {
            status: response.status().unwrap_or(500),
            phrase: Bytes::copy_from_slice(phrase),
            content: Content::of(response, secrets),
        }
    }

    /// A status of our own.
    #[must_use]
    pub fn local(status: u16) -> Self {
        Self { status, phrase: Bytes::new(), content: Content::nothing() }
    }
}

impl Body {
    /// Whether there is none.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    fn of(message: &Message, secrets: &Secrets) -> Self {
        let bytes = message.body_bytes();
        if bytes.is_empty() {
            return Self::None;
        }
        let encoded = message
            .header(HeaderName::ContentEncoding)
            .is_some_and(|it| !it.eq_ignore_ascii_case(b"identity"));
        let is_sdp = message.content_type().ok().flatten().is_some_and(|it| it.is("application", "sdp"));
        if is_sdp && !encoded {
            return Self::Sdp(bytes);
        }
        const DESCRIBING: [HeaderName<'static>; 4] = [
            HeaderName::ContentDisposition,
            HeaderName::ContentEncoding,
            HeaderName::ContentLanguage,
            HeaderName::MimeVersion,
        ];
        let lines = message.headers().filter(|header| DESCRIBING.contains(&header.name));
        let content_type = message.header(HeaderName::ContentType).unwrap_or(b"application/octet-stream");
        // What people write to each other is theirs, whatever it mentions.
        let text = content_type.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"text/"));
        Self::Other {
            describes_session: !text && (is_sdp || wraps_sdp(&bytes)),
            tells: !text && secrets.mentioned_in(&bytes),
            content_type: Bytes::copy_from_slice(content_type),
            lines: lines.map(|header| message.raw().slice_ref(header.line)).collect(),
            bytes,
        }
    }
}

/// Whether one of several parts is a session description.
fn wraps_sdp(body: &[u8]) -> bool {
    memchr::memmem::find(&body.to_ascii_lowercase(), b"application/sdp").is_some()
}
