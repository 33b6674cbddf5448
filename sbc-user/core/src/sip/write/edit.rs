//! Received messages with some lines changed: an overlay, written by copying every unchanged range.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::sip::Message;
use crate::sip::header::HeaderName;
use crate::sip::message::{Line, Start};
use crate::sip::write::{push_body, push_header, push_uri};

/// Changes to a message that itself stays as it is.
#[derive(Clone, Debug)]
pub struct Edit<'a> {
    message: &'a Message,
    uri: Option<&'a str>,
    /// New lines, each before the line of that index, in the order in which they appear.
    inserted: SmallVec<[(usize, HeaderName<'a>, &'a [u8]); 4]>,
    removed: SmallVec<[usize; 8]>,
    body: Option<&'a [u8]>,
}

impl<'a> Edit<'a> {
    /// No changes yet.
    #[must_use]
    pub fn new(message: &'a Message) -> Self {
        Self { message, uri: None, inserted: SmallVec::new(), removed: SmallVec::new(), body: None }
    }

    /// Another Request-URI. Ignored for a response.
    #[must_use]
    pub const fn request_uri(mut self, uri: &'a str) -> Self {
        self.uri = Some(uri);
        self
    }

    /// A line before the first one of that name, or before all lines if there is none: how a Via, Route or
    /// Record-Route is put on top.
    #[must_use]
    pub fn push(mut self, name: HeaderName<'a>, value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        let at = self.lines(name).next().unwrap_or(0);
        // Before what was pushed there earlier, so that the last one pushed is on top.
        let slot = self.inserted.partition_point(|(index, _, _)| *index < at);
        self.inserted.insert(slot, (at, name, value.as_ref()));
        self
    }

    /// A line behind all others.
    #[must_use]
    pub fn append(mut self, name: HeaderName<'a>, value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.inserted.push((self.message.lines.len(), name, value.as_ref()));
        self
    }

    /// Without the lines of that name.
    #[must_use]
    pub fn remove(mut self, name: HeaderName<'a>) -> Self {
        let lines: SmallVec<[usize; 8]> = self.lines(name).collect();
        self.removed.extend(lines);
        self
    }

    /// One line in the place of the first of that name, without the others; at the end if there is none.
    #[must_use]
    pub fn replace(mut self, name: HeaderName<'a>, value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        let at = self.lines(name).next().unwrap_or(self.message.lines.len());
        self = self.remove(name);
        let slot = self.inserted.partition_point(|(index, _, _)| *index <= at);
        self.inserted.insert(slot, (at, name, value.as_ref()));
        self
    }

    /// Another body, and its type; an empty type leaves the Content-Type line as it is.
    #[must_use]
    pub fn body(mut self, content_type: &'a str, body: &'a [u8]) -> Self {
        self.body = Some(body);
        if content_type.is_empty() { self } else { self.replace(HeaderName::ContentType, content_type) }
    }

    fn lines(&self, name: HeaderName<'a>) -> impl Iterator<Item = usize> {
        let message = self.message;
        message.headers().enumerate().filter(move |(_, h)| h.name == name).map(|(index, _)| index)
    }

    /// The bytes to send. Without changes they are the bytes that arrived.
    #[must_use]
    pub fn build(mut self) -> Bytes {
        let message = self.message;
        if self.body.is_some() {
            self = self.remove(HeaderName::ContentLength);
        }
        self.removed.sort_unstable();
        self.removed.dedup();
        let added: usize =
            self.inserted.iter().map(|(_, name, value)| name.as_str().len() + value.len() + 4).sum();
        let added = added + self.uri.map_or(0, str::len) + self.body.map_or(0, |body| body.len() + 32);
        let mut out = Vec::with_capacity(message.raw.len() + added);

        let mut copied = self.start_line(&mut out);
        let mut inserted = self.inserted.iter().peekable();
        let mut removed = self.removed.iter().peekable();
        let end = message.lines.last().map_or(self.first_line(), |line| line.line.end as usize);
        let mut insert = |out: &mut Vec<u8>, index: usize, from: usize, to: usize| -> usize {
            let mut from = from;
            while let Some((_, name, value)) = inserted.next_if(|(at, _, _)| *at == index) {
                out.extend_from_slice(&message.raw[from..to]);
                from = to;
                push_header(out, name.as_str(), value);
            }
            from
        };
        for (index, Line { line, .. }) in message.lines.iter().enumerate() {
            copied = insert(&mut out, index, copied, line.start as usize);
            if removed.next_if(|at| **at == index).is_some() {
                out.extend_from_slice(&message.raw[copied..line.start as usize]);
                copied = line.end as usize;
            }
        }
        copied = insert(&mut out, message.lines.len(), copied, end);
        match self.body {
            None => out.extend_from_slice(&message.raw[copied..]),
            Some(body) => {
                out.extend_from_slice(&message.raw[copied..end]);
                push_body(&mut out, body);
            }
        }
        out.into()
    }

    /// Where the header section starts.
    fn first_line(&self) -> usize {
        let content = match self.message.start {
            Start::Request { version, .. } => version.end,
            Start::Response { reason, .. } => reason.end,
        };
        let raw = &self.message.raw[content as usize..];
        memchr::memchr(b'\n', raw).map_or(self.message.raw.len(), |n| content as usize + n + 1)
    }

    /// Writes the start line if it changed; returns up to where the message has been dealt with.
    fn start_line(&self, out: &mut Vec<u8>) -> usize {
        match (self.uri, self.message.start) {
            (Some(uri), Start::Request { method, uri: old, .. }) => {
                out.extend_from_slice(method.of(&self.message.raw));
                out.push(b' ');
                push_uri(out, uri);
                old.end as usize
            }
            (Some(_) | None, Start::Request { .. } | Start::Response { .. }) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = "INVITE sip:a@h SIP/2.0\r\nVia: SIP/2.0/UDP b\r\nX-A: one\r\n two\r\nRoute: <sip:r1>\r\n\
                           Via: SIP/2.0/UDP c\r\nroute: <sip:r2>\r\nl: 2\r\n\r\nhi";

    fn message() -> Message {
        Message::parse(Bytes::from_static(REQUEST.as_bytes())).unwrap()
    }

    fn text(edit: Edit<'_>) -> String {
        String::from_utf8(edit.build().to_vec()).unwrap()
    }

    #[test]
    fn nothing_changed_is_the_same_bytes() {
        assert_eq!(text(Edit::new(&message())), REQUEST);
    }

    #[test]
    fn lines_come_and_go() {
        let message = message();
        let edit = Edit::new(&message)
            .request_uri("sip:new@h")
            .push(HeaderName::Via, "first")
            .push(HeaderName::Via, "top")
            .push(HeaderName::RecordRoute, "<sip:rr>")
            .replace(HeaderName::Other("x-a"), "three")
            .remove(HeaderName::Route)
            .append(HeaderName::Server, "me\r\nEvil: 1");
        assert_eq!(
            text(edit),
            "INVITE sip:new@h SIP/2.0\r\nRecord-Route: <sip:rr>\r\nVia: top\r\nVia: first\r\nVia: SIP/2.0/UDP b\r\n\
             x-a: three\r\nVia: SIP/2.0/UDP c\r\nl: 2\r\nServer: me  Evil: 1\r\n\r\nhi"
        );
    }

    #[test]
    fn a_new_body_has_its_length() {
        let message = message();
        assert_eq!(
            text(Edit::new(&message).body("text/plain", b"hello")),
            "INVITE sip:a@h SIP/2.0\r\nVia: SIP/2.0/UDP b\r\nX-A: one\r\n two\r\nRoute: <sip:r1>\r\n\
             Via: SIP/2.0/UDP c\r\nroute: <sip:r2>\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
        );
    }
}
