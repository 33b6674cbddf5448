//! A message as the bytes that arrived and a table of offsets into them.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::sip::header::HeaderName;
use crate::sip::lex::{self, CommaList};
use crate::sip::{Method, ParseError, parse};

/// A parsed message. Cloning shares the bytes.
#[derive(Clone, Debug)]
pub struct Message {
    pub(super) raw: Bytes,
    /// The values of folded lines, each with its folds replaced by one space; empty for most messages.
    pub(super) unfolded: Vec<u8>,
    pub(super) start: Start,
    /// The start line is broken in a way that still lets the message be answered.
    pub(super) start_malformed: bool,
    pub(super) lines: Vec<Line>,
    pub(super) body: Span,
    /// The header section ends in an empty line.
    pub(super) complete: bool,
    pub(super) source: Option<SocketAddr>,
}

/// Offsets into the message. Messages are at most 64 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Span {
    pub(super) fn new(start: usize, end: usize) -> Self {
        let offset = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { start: offset(start), end: offset(end) }
    }

    pub(super) fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Start {
    Request { method: Span, uri: Span, version: Span },
    Response { version: Span, status: u16, reason: Span },
}

/// One header line, with its folds and its line end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    /// See `header::name`.
    pub(super) number: u8,
    pub(super) kind: LineKind,
    pub(super) name_length: u16,
    pub(super) line: Span,
    /// Into the raw bytes, or into the unfolded ones.
    pub(super) value: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineKind {
    Plain,
    Folded,
    /// No name, no colon, or a carriage return inside: the message must not be relayed.
    Malformed,
}

/// A header line of a message.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// Its name.
    pub name: HeaderName<'a>,
    /// Its name as written.
    pub name_text: &'a str,
    /// Its value, unfolded, without white space at either end. Any bytes but CR and LF. A malformed line has none.
    pub value: &'a [u8],
    /// The whole line as it arrived, with folds and line end.
    pub line: &'a [u8],
}

impl Message {
    /// The message in `raw`: one datagram or one frame of a stream. Leading empty lines and bytes behind the
    /// Content-Length are let go; with fewer bytes than that, the body is what there is, and [`crate::sip::judge()`]
    /// says so.
    pub fn parse(raw: Bytes) -> Result<Self, ParseError> {
        parse::parse(raw)
    }

    /// Notes where it came from, for the top Via of its responses (RFC 3261 s.18.2.1, RFC 3581 s.4).
    #[must_use]
    pub const fn arrived_from(mut self, source: SocketAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// The bytes as they arrived.
    #[must_use]
    pub const fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// Whether it is a request.
    #[must_use]
    pub const fn is_request(&self) -> bool {
        matches!(self.start, Start::Request { .. })
    }

    /// The method of a request.
    #[must_use]
    pub fn method(&self) -> Option<Method> {
        match self.start {
            Start::Request { method, .. } => Method::from_token(method.of(&self.raw)),
            Start::Response { .. } => None,
        }
    }

    /// The Request-URI of a request, as written.
    #[must_use]
    pub fn request_uri(&self) -> Option<&str> {
        match self.start {
            Start::Request { uri, .. } => lex::text(uri.of(&self.raw)),
            Start::Response { .. } => None,
        }
    }

    /// The status code of a response.
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        match self.start {
            Start::Request { .. } => None,
            Start::Response { status, .. } => Some(status),
        }
    }

    /// The reason phrase of a response, which may be empty and in any encoding.
    #[must_use]
    pub fn reason_phrase(&self) -> Option<&[u8]> {
        match self.start {
            Start::Request { .. } => None,
            Start::Response { reason, .. } => Some(reason.of(&self.raw)),
        }
    }

    /// The version as written; `SIP/2.0` in any case is the only one we speak.
    #[must_use]
    pub fn version(&self) -> &[u8] {
        match self.start {
            Start::Request { version, .. } | Start::Response { version, .. } => version.of(&self.raw),
        }
    }

    /// The header lines in order.
    pub fn headers(&self) -> impl DoubleEndedIterator<Item = Header<'_>> + ExactSizeIterator {
        self.lines.iter().map(|line| self.view(line))
    }

    /// The value of the first line of that name.
    #[must_use]
    pub fn header(&self, name: HeaderName<'_>) -> Option<&[u8]> {
        self.lines_of(name).next().map(|line| self.value(line))
    }

    /// The values of every line of that name, each line whole.
    pub fn all<'m>(&'m self, name: HeaderName<'m>) -> impl Iterator<Item = &'m [u8]> {
        self.lines_of(name).map(|line| self.value(line))
    }

    /// The values of a header that is a comma-separated list, over all of its lines, in order.
    pub fn values<'m>(&'m self, name: HeaderName<'m>) -> impl Iterator<Item = &'m [u8]> {
        self.all(name).flat_map(CommaList::new)
    }

    /// Whether a listed header holds this token, case ignored: `Require`, `Supported`, `Allow` …
    #[must_use]
    pub fn lists(&self, name: HeaderName<'_>, token: &str) -> bool {
        self.lines_of(name)
            .flat_map(|line| CommaList::new(self.value(line)))
            .any(|v| v.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.body.of(&self.raw)
    }

    /// The body, sharing the message's bytes.
    #[must_use]
    pub fn body_bytes(&self) -> Bytes {
        self.raw.slice(self.body.start as usize..self.body.end as usize)
    }

    pub(super) fn lines_of<'m>(&'m self, name: HeaderName<'m>) -> impl Iterator<Item = &'m Line> {
        let number = name.known_number();
        self.lines.iter().filter(move |line| {
            line.number == number
                && line.kind != LineKind::Malformed
                && (number != crate::sip::header::UNKNOWN
                    || self.name_text(line).eq_ignore_ascii_case(name.as_str()))
        })
    }

    fn name_text(&self, line: &Line) -> &str {
        let start = line.line.start as usize;
        self.raw.get(start..start + usize::from(line.name_length)).and_then(lex::text).unwrap_or_default()
    }

    pub(super) fn value(&self, line: &Line) -> &[u8] {
        line.value.of(match line.kind {
            LineKind::Plain | LineKind::Malformed => &self.raw,
            LineKind::Folded => &self.unfolded,
        })
    }

    fn view(&self, line: &Line) -> Header<'_> {
        let name_text = self.name_text(line);
        Header {
            name: HeaderName::from_number(line.number, name_text),
            name_text,
            value: self.value(line),
            line: line.line.of(&self.raw),
        }
    }
}
