//! New messages.

use std::io::Write;
use std::net::SocketAddr;

use bytes::Bytes;

use crate::sip::header::{HeaderName, Via, number_of};
use crate::sip::lex::{self, CommaList};
use crate::sip::write::{push_body, push_header, push_raw_line, push_uri, push_value};
use crate::sip::{Message, Method};

/// A message under construction. Lines appear in the order in which they are given.
#[derive(Clone, Debug)]
pub struct MessageBuilder {
    head: Vec<u8>,
    body: Bytes,
}

/// What a response copies from its request besides the Via lines.
const COPIED: [HeaderName<'static>; 5] =
    [HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq, HeaderName::Timestamp];

/// Room for a usual message, so that it is one allocation.
const USUAL_BYTES: usize = 1536;

impl MessageBuilder {
    /// A request.
    #[must_use]
    pub fn request(method: &Method, uri: &str) -> Self {
        let mut head = Vec::with_capacity(USUAL_BYTES);
        head.extend_from_slice(method.as_str().as_bytes());
        head.push(b' ');
        push_uri(&mut head, uri);
        head.extend_from_slice(b" SIP/2.0\r\n");
        Self { head, body: Bytes::new() }
    }

    /// A response with any status and words.
    #[must_use]
    pub fn response(status: u16, reason: impl AsRef<[u8]>) -> Self {
        let mut head = Vec::with_capacity(USUAL_BYTES);
        // Writing into a vector cannot fail.
        let _ = write!(head, "SIP/2.0 {status} ");
        push_value(&mut head, reason.as_ref());
        head.extend_from_slice(b"\r\n");
        Self { head, body: Bytes::new() }
    }

    /// The response to a request with what RFC 3261 s.8.2.6.2 has it copy: every Via, From, To, Call-ID, CSeq.
    ///
    /// `source` is where the request came from, if it does not say so itself ([`Message::arrived_from`]), and goes into
    /// the top Via (s.18.2.1, RFC 3581); `to_tag` is ours, and is added if the request's To has none.
    #[must_use]
    pub fn response_to(
        request: &Message,
        status: u16,
        reason: impl AsRef<[u8]>,
        source: Option<SocketAddr>,
        to_tag: Option<&str>,
    ) -> Self {
        let mut builder = Self::response(status, reason);
        let mut source = source.or(request.source);
        let untagged = request.to().is_ok_and(|to| to.tag().is_none());
        for header in request.headers() {
            let (name, value) = (header.name, header.value);
            builder = if name == HeaderName::Via {
                match source.take() {
                    Some(source) => builder.stamped_vias(value, source),
                    None => builder.header(name, value),
                }
            } else if let (HeaderName::To, Some(tag)) = (name, to_tag.filter(|_| untagged)) {
                builder.header(name, tagged(value, tag))
            } else if COPIED.contains(&name) {
                builder.header(name, value)
            } else {
                builder
            };
        }
        builder
    }

    /// The values of the first Via line, the first of them with its sender's address.
    fn stamped_vias(mut self, line: &[u8], source: SocketAddr) -> Self {
        let mut values = CommaList::new(line);
        let Some(top) = values.next() else { return self };
        self = match Via::parse(top) {
            Some(via) => self.header(HeaderName::Via, stamped(top, &via, source)),
            None => self.header(HeaderName::Via, top),
        };
        for value in values {
            self = self.header(HeaderName::Via, value);
        }
        self
    }

    /// A header line. A Content-Length is let go: [`build`](Self::build) computes it.
    #[must_use]
    pub fn header<'n>(mut self, name: impl Into<HeaderName<'n>>, value: impl AsRef<[u8]>) -> Self {
        let name = name.into();
        if name != HeaderName::ContentLength {
            push_header(&mut self.head, name.as_str(), value.as_ref());
        }
        self
    }

    /// A header line as it was received, name, folds and all; its line end may be there or not. A Content-Length is
    /// let go here too.
    #[must_use]
    pub fn raw_line(mut self, line: &[u8]) -> Self {
        if number_of(&line[..lex::skip_token(line, 0)]) != HeaderName::ContentLength.known_number() {
            push_raw_line(&mut self.head, line);
        }
        self
    }

    /// The body and its type.
    #[must_use]
    pub fn body(self, content_type: impl AsRef<[u8]>, body: impl Into<Bytes>) -> Self {
        let mut with = self.header(HeaderName::ContentType, content_type);
        with.body = body.into();
        with
    }

    /// The bytes to send.
    #[must_use]
    pub fn build(self) -> Bytes {
        let Self { mut head, body } = self;
        push_body(&mut head, &body);
        head.into()
    }
}

/// A To value with a tag.
fn tagged(value: &[u8], tag: &str) -> Vec<u8> {
    // An empty `tag=` of the peer's would stand before ours: then the value starts over from the address.
    let value = match crate::sip::header::NameAddr::parse(value) {
        Some(to) if to.params().contains("tag") => &value[..value.len() - to.params().raw().len()],
        Some(_) | None => value,
    };
    [lex::trim(value), b";tag=", tag.as_bytes()].concat()
}

/// A Via value with `received` and `rport` as its receiver has to set them: the source address always, the port where
/// it was asked for. What the sender wrote in their place is taken out.
fn stamped(value: &[u8], via: &Via<'_>, source: SocketAddr) -> Vec<u8> {
    let params = via.params();
    let head = lex::trim(&value[..value.len() - params.raw().len()]);
    let mut out = Vec::with_capacity(value.len() + 64);
    out.extend_from_slice(head);
    for (name, text) in params.iter() {
        let ours = name.eq_ignore_ascii_case("received") || name.eq_ignore_ascii_case("rport");
        if ours {
            continue;
        }
        out.push(b';');
        out.extend_from_slice(name.as_bytes());
        if let Some(text) = text {
            out.push(b'=');
            out.extend_from_slice(text);
        }
    }
    // Writing into a vector cannot fail.
    let _ = write!(out, ";received={}", source.ip().to_canonical());
    if via.rport().is_some() {
        let _ = write!(out, ";rport={}", source.port());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_in_their_line() {
        let bytes = MessageBuilder::request(&Method::Info, "sip:a@h\r\nEvil: 1")
            .header("X Y", "a\r\nEvil: 2\r\n\r\nbody")
            .header("l", "7")
            .body("text/plain\r\nEvil: 3", "hi")
            .build();
        let text = std::str::from_utf8(&bytes).unwrap();
        assert_eq!(
            text,
            "INFO sip:a@h%0D%0AEvil:%201 SIP/2.0\r\nX-Y: a  Evil: 2    body\r\n\
             Content-Type: text/plain  Evil: 3\r\nContent-Length: 2\r\n\r\nhi"
        );
    }

    #[test]
    fn responses_copy_what_they_must() {
        let request = Message::parse(Bytes::from_static(
            b"OPTIONS sip:a@h SIP/2.0\r\nv: SIP/2.0/UDP 10.0.0.1 ;rport;branch=z9hG4bK1;received=1.2.3.4;X, SIP/2.0/TCP b\r\n\
              Via: SIP/2.0/TLS c\r\nf: <sip:f@h>;tag=1\r\nt: <sip:t@h>\r\ni: id\r\nCSeq: 1 OPTIONS\r\nX: y\r\nl: 0\r\n\r\n",
        ))
        .unwrap();
        let source = Some("192.0.2.9:4321".parse().unwrap());
        let bytes = MessageBuilder::response_to(&request, 200, "OK", source, Some("mine")).build();
        assert_eq!(
            std::str::from_utf8(&bytes).unwrap(),
            "SIP/2.0 200 OK\r\n\
             Via: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1;X;received=192.0.2.9;rport=4321\r\n\
             Via: SIP/2.0/TCP b\r\nVia: SIP/2.0/TLS c\r\n\
             From: <sip:f@h>;tag=1\r\nTo: <sip:t@h>;tag=mine\r\nCall-ID: id\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
        );
    }

    #[test]
    fn an_empty_tag_is_replaced() {
        assert_eq!(tagged(b"<sip:t@h>;tag=", "x"), b"<sip:t@h>;tag=x");
        assert_eq!(tagged(b"<sip:t@h>;a=b ", "x"), b"<sip:t@h>;a=b;tag=x");
    }
}
