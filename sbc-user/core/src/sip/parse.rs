//! One pass over the bytes to the offset table (RFC 3261 s.7).
//!
//! Only what leaves no message at all is an error here. A message that is broken but can still be answered is a
//! [`Message`] with its defects noted; [`judge`](crate::sip::judge()) turns them into the answer.

use bytes::{Buf, Bytes};
use memchr::{memchr, memrchr};

use crate::sip::header;
use crate::sip::lex;
use crate::sip::limits;
use crate::sip::message::{Line, LineKind, Message, Span, Start};

/// No message can be made of the bytes; there is nothing to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at byte {offset}")]
pub struct ParseError {
    /// Where, from the start of the bytes.
    pub offset: usize,
    /// What.
    pub kind: ParseErrorKind,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseErrorKind {
    /// Nothing but line ends.
    #[error("no message")]
    Empty,
    /// The first line is neither a request line nor a status line.
    #[error("not a SIP start line")]
    StartLine,
    /// The status of a response is not a number from 100 to 699.
    #[error("status code out of range")]
    Status,
    /// Larger than [`limits::MESSAGE_BYTES`].
    #[error("message too large")]
    MessageTooLarge,
    /// A line longer than [`limits::START_LINE_BYTES`] or [`limits::HEADER_LINE_BYTES`].
    #[error("line too long")]
    LineTooLong,
    /// More header lines than [`limits::HEADER_LINES`].
    #[error("too many header lines")]
    TooManyHeaders,
}

/// Most messages have fewer lines, so that the table is one allocation.
const USUAL_LINES: usize = 32;

pub(super) fn parse(mut raw: Bytes) -> Result<Message, ParseError> {
    let error = |offset, kind| Err(ParseError { offset, kind });
    if raw.len() > limits::MESSAGE_BYTES {
        return error(limits::MESSAGE_BYTES, ParseErrorKind::MessageTooLarge);
    }
    let leading = raw.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    raw.advance(leading);
    if raw.is_empty() {
        return error(leading, ParseErrorKind::Empty);
    }
    let (content, mut at) = line_at(&raw, 0);
    if content > limits::START_LINE_BYTES {
        return error(leading, ParseErrorKind::LineTooLong);
    }
    let (start, start_malformed) =
        start_line(&raw[..content]).map_err(|kind| ParseError { offset: leading, kind })?;

    let mut lines: Vec<Line> = Vec::with_capacity(USUAL_LINES);
    let mut unfolded = Vec::new();
    let mut complete = false;
    while at < raw.len() {
        let line_start = at;
        let (mut content, mut next) = line_at(&raw, at);
        if content == at {
            complete = true;
            at = next;
            break;
        }
        let first_end = content;
        while raw.get(next).is_some_and(|b| lex::is_ws(*b)) {
            (content, next) = line_at(&raw, next);
        }
        if next - line_start > limits::HEADER_LINE_BYTES {
            return error(leading + line_start, ParseErrorKind::LineTooLong);
        }
        if lines.len() == limits::HEADER_LINES {
            return error(leading + line_start, ParseErrorKind::TooManyHeaders);
        }
        lines.push(header_line(&raw, Span::new(line_start, next), first_end, content, &mut unfolded));
        at = next;
    }

    let mut message = Message {
        raw,
        unfolded,
        start,
        start_malformed,
        lines,
        body: Span::default(),
        complete,
        source: None,
    };
    let available = message.raw.len() - at;
    let length = message.content_length().ok().flatten().map_or(available, |n| n.min(available));
    message.body = Span::new(at, at + length);
    message.raw.truncate(at + length);
    Ok(message)
}

/// Where the line that starts at `at` ends without its line end, and where the next one starts. A bare LF ends a line
/// as well: enough senders write it, and reading it otherwise would hide headers from us that others see.
fn line_at(raw: &[u8], at: usize) -> (usize, usize) {
    match memchr(b'\n', &raw[at..]) {
        None => (raw.len(), raw.len()),
        Some(n) => {
            let end = at + n;
            let content = if n > 0 && raw[end - 1] == b'\r' { end - 1 } else { end };
            (content, end + 1)
        }
    }
}

/// The header in `raw[span]`; its first physical line ends at `first_end`, its last one at `content`.
fn header_line(raw: &[u8], span: Span, first_end: usize, content: usize, unfolded: &mut Vec<u8>) -> Line {
    let start = span.start as usize;
    let malformed = |name_length: usize| Line {
        number: header::UNKNOWN,
        kind: LineKind::Malformed,
        name_length: u16::try_from(name_length).unwrap_or(0),
        line: span,
        value: Span::default(),
    };
    let name_end = lex::skip_token(raw, start);
    let colon = lex::skip_ws(raw, name_end);
    if name_end == start || raw.get(colon) != Some(&b':') {
        return malformed(0);
    }
    let name_length = name_end - start;
    let number = header::number_of(&raw[start..name_end]);
    let mut line = Line {
        number,
        kind: LineKind::Plain,
        name_length: u16::try_from(name_length).unwrap_or(0),
        line: span,
        value: Span::default(),
    };
    let value_start = lex::skip_ws(raw, colon + 1).min(first_end);
    if first_end == content {
        let value = lex::trim(&raw[value_start..content]);
        if memchr(b'\r', value).is_some() {
            return malformed(name_length);
        }
        line.value = Span::new(value_start, value_start + value.len());
        return line;
    }
    let from = unfolded.len();
    let mut at = value_start;
    while at < content {
        let (end, next) = line_at(&raw[..content], at);
        let piece = lex::trim(&raw[at..end]);
        if memchr(b'\r', piece).is_some() {
            return malformed(name_length);
        }
        if !piece.is_empty() {
            if unfolded.len() > from {
                unfolded.push(b' ');
            }
            unfolded.extend_from_slice(piece);
        }
        at = next;
    }
    line.kind = LineKind::Folded;
    line.value = Span::new(from, unfolded.len());
    line
}

/// The parts of the start line, and whether it is malformed.
fn start_line(line: &[u8]) -> Result<(Start, bool), ParseErrorKind> {
    let first = memchr(b' ', line).ok_or(ParseErrorKind::StartLine)?;
    if is_version(&line[..first]) {
        return status_line(line, first).map(|start| (start, false));
    }
    let method_end = lex::skip_token(line, 0);
    if method_end == 0 {
        return Err(ParseErrorKind::StartLine);
    }
    // White space behind the version or doubled between the parts is malformed, yet leaves a request to be answered.
    let end = lex::trim(line).len();
    let last = memrchr(b' ', &line[..end]).ok_or(ParseErrorKind::StartLine)?;
    if !is_version(&line[last + 1..end]) {
        return Err(ParseErrorKind::StartLine);
    }
    let uri_start = first.min(last) + 1;
    let uri = if last > uri_start { Span::new(uri_start, last) } else { Span::default() };
    let text = uri.of(line);
    let malformed = method_end != first
        || end != line.len()
        || text.is_empty()
        || text.iter().any(|b| *b <= b' ' || *b == 0x7f)
        || lex::text(text).is_none();
    let start = Start::Request { method: Span::new(0, method_end), uri, version: Span::new(last + 1, end) };
    Ok((start, malformed))
}

fn status_line(line: &[u8], first: usize) -> Result<Start, ParseErrorKind> {
    let rest = &line[first + 1..];
    let end = memchr(b' ', rest).unwrap_or(rest.len());
    let status = match &rest[..end] {
        digits @ [b'1'..=b'6', _, _] => lex::number(digits, 699).ok().and_then(|n| u16::try_from(n).ok()),
        _ => None,
    };
    let reason = (first + 1 + end + 1).min(line.len());
    Ok(Start::Response {
        version: Span::new(0, first),
        status: status.ok_or(ParseErrorKind::Status)?,
        reason: Span::new(reason, line.len()),
    })
}

/// `SIP/` digits `.` digits, in any case.
fn is_version(text: &[u8]) -> bool {
    let Some((name, numbers)) = text.split_at_checked(4) else { return false };
    let Some(dot) = memchr(b'.', numbers) else { return false };
    let digits = |d: &[u8]| !d.is_empty() && d.iter().all(u8::is_ascii_digit);
    name.eq_ignore_ascii_case(b"SIP/") && digits(&numbers[..dot]) && digits(&numbers[dot + 1..])
}
