//! Whether a message makes sense, before anybody acts on it: RFC 3261 s.8.1.1 (mandatory headers), s.16.3 and s.20.
//!
//! Checks only what follows from the message itself. What depends on configuration, dialogs or what we support
//! (Require, unknown methods, Max-Forwards of zero, bodies) is decided by those who know.

use crate::sip::header::{HeaderError, HeaderName};
use crate::sip::message::LineKind;
use crate::sip::{Message, Method, Uri, limits};

/// What to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It makes sense.
    Ok,
    /// A request that is refused, without a transaction, to where it came from.
    Answer {
        /// The status of the answer.
        status: u16,
        /// Its reason phrase, which says what is wrong.
        reason: &'static str,
    },
    /// A response, an ACK, or a request that could not be answered.
    Drop {
        /// What is wrong, for the counter and the log.
        reason: &'static str,
    },
}

/// Headers that a message has at most once (RFC 3261 s.7.3.1 and the definitions in s.20).
const SINGLE: [HeaderName<'static>; 18] = [
    HeaderName::From,
    HeaderName::To,
    HeaderName::CallId,
    HeaderName::CSeq,
    HeaderName::MaxForwards,
    HeaderName::ContentLength,
    HeaderName::ContentType,
    HeaderName::ContentDisposition,
    HeaderName::Date,
    HeaderName::Event,
    HeaderName::Expires,
    HeaderName::MinSe,
    HeaderName::RAck,
    HeaderName::ReferTo,
    HeaderName::Replaces,
    HeaderName::RSeq,
    HeaderName::SessionExpires,
    HeaderName::Timestamp,
];

/// Lists whose every value somebody walks.
const LISTS: [HeaderName<'static>; 4] =
    [HeaderName::Via, HeaderName::Route, HeaderName::RecordRoute, HeaderName::Contact];

/// Judges a message by itself.
#[must_use]
pub fn judge(message: &Message) -> Judgement {
    let fault = if message.is_request() { request_fault(message) } else { message_fault(message) };
    match fault {
        None => Judgement::Ok,
        Some((_, reason)) if !answerable(message) => Judgement::Drop { reason },
        Some((status, reason)) => Judgement::Answer { status, reason },
    }
}

type Fault = (u16, &'static str);

/// An answer copies the Via lines, so there must be one. Nothing answers a response or an ACK.
fn answerable(message: &Message) -> bool {
    message.is_request() && message.method() != Some(Method::Ack) && message.header(HeaderName::Via).is_some()
}

fn request_fault(message: &Message) -> Option<Fault> {
    // The version comes first: in another version nothing else need mean what it means here.
    if !message.version().eq_ignore_ascii_case(b"SIP/2.0") {
        return Some((505, "Version Not Supported"));
    }
    if message.start_malformed {
        return Some((400, "Malformed Request Line"));
    }
    message_fault(message).or_else(|| cseq_fault(message)).or_else(|| request_uri_fault(message))
}

fn message_fault(message: &Message) -> Option<Fault> {
    if !message.version().eq_ignore_ascii_case(b"SIP/2.0") {
        return Some((505, "Version Not Supported"));
    }
    if !message.complete {
        return Some((400, "Header Section Not Ended"));
    }
    if message.lines.iter().any(|line| line.kind == LineKind::Malformed) {
        return Some((400, "Malformed Header Line"));
    }
    repeated(message).or_else(|| mandatory(message)).or_else(|| optional(message)).or_else(|| body(message))
}

fn repeated(message: &Message) -> Option<Fault> {
    let mut seen = 0_u32;
    for line in &message.lines {
        let Some(index) = SINGLE.iter().position(|name| name.known_number() == line.number) else { continue };
        if seen & (1 << index) != 0 {
            return Some((400, "Repeated Header"));
        }
        seen |= 1 << index;
    }
    LISTS
        .iter()
        .any(|name| message.values(*name).nth(limits::LIST_VALUES).is_some())
        .then_some((400, "Too Many Header Values"))
}

fn mandatory(message: &Message) -> Option<Fault> {
    if let Err(error) = message.top_via() {
        return Some(wording(error, "Missing Via", "Malformed Via"));
    }
    if message.vias().any(|via| via.is_err()) {
        return Some((400, "Malformed Via"));
    }
    if let Err(error) = message.from() {
        return Some(wording(error, "Missing From", "Malformed From"));
    }
    if let Err(error) = message.to() {
        return Some(wording(error, "Missing To", "Malformed To"));
    }
    if let Err(error) = message.call_id() {
        return Some(wording(error, "Missing Call-ID", "Malformed Call-ID"));
    }
    message.cseq().err().map(|error| wording(error, "Missing CSeq", "Malformed CSeq"))
}

const fn wording(error: HeaderError, missing: &'static str, malformed: &'static str) -> Fault {
    match error {
        HeaderError::Missing(_) => (400, missing),
        HeaderError::Malformed(_) | HeaderError::Overflow(_) => (400, malformed),
    }
}

/// Headers that may be absent, and that somebody here will act on.
fn optional(message: &Message) -> Option<Fault> {
    if message.max_forwards().is_err() {
        return Some((400, "Malformed Max-Forwards"));
    }
    if message.contacts().any(|contact| contact.is_err()) {
        return Some((400, "Malformed Contact"));
    }
    if message.routes().any(|route| route.is_err()) {
        return Some((400, "Malformed Route"));
    }
    if message.record_routes().any(|route| route.is_err()) {
        return Some((400, "Malformed Record-Route"));
    }
    if message.content_type().is_err() {
        return Some((400, "Malformed Content-Type"));
    }
    if message.session_expires().is_err() {
        return Some((400, "Malformed Session-Expires"));
    }
    message.rseq().is_err().then_some((400, "Malformed RSeq"))
}

fn body(message: &Message) -> Option<Fault> {
    match message.content_length() {
        Err(_) => Some((400, "Malformed Content-Length")),
        Ok(Some(length)) if length != message.body().len() => Some((400, "Body Shorter Than Content-Length")),
        Ok(_) => None,
    }
}

fn cseq_fault(message: &Message) -> Option<Fault> {
    let method = message.cseq().ok()?.method;
    (message.method().as_ref() != Some(&method)).then_some((400, "CSeq Method Mismatch"))
}

fn request_uri_fault(message: &Message) -> Option<Fault> {
    match Uri::parse(message.request_uri().unwrap_or_default()) {
        Err(_) => Some((400, "Malformed Request-URI")),
        // Headers belong to URIs that are still to become requests (s.19.1.1).
        Ok(uri) if uri.headers_text().is_some() => Some((400, "Headers In Request-URI")),
        Ok(uri) if uri.is_sip() || ["tel", "urn"].contains(&uri.scheme().to_ascii_lowercase().as_str()) => {
            None
        }
        Ok(_) => Some((416, "Unsupported URI Scheme")),
    }
}
