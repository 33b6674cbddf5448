//! Where a message ends: in a stream by Content-Length, in a datagram by its end (RFC 3261 s.18.3), with the
//! keep-alives between messages (RFC 3261 s.7.5, RFC 5626 s.3.5.1).
//!
//! A stream whose framing is lost cannot be found again: every error here means that the connection must be closed.

use bytes::{Bytes, BytesMut};
use memchr::memchr;

use crate::sip::header::{self, HeaderName};
use crate::sip::{lex, limits};

/// What a stream holds next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// One whole message, for [`Message::parse`](crate::sip::Message::parse).
    Message(Bytes),
    /// CRLF CRLF between messages: the peer asks whether we live; answer with one CRLF. The first half of it has
    /// come out as a [`Frame::Pong`] already.
    Ping,
    /// One CRLF between messages: the answer to our own ping, or nothing.
    Pong,
}

/// Why the framing of a stream is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Header section or announced body would exceed [`limits::MESSAGE_BYTES`].
    #[error("message larger than {} bytes", limits::MESSAGE_BYTES)]
    TooLarge,
    /// A message without Content-Length.
    #[error("message without Content-Length")]
    NoContentLength,
    /// A Content-Length that is not a number, or two that differ.
    #[error("unusable Content-Length")]
    ContentLength,
    /// Something that cannot start a message.
    #[error("not a SIP message")]
    NotSip,
    /// Bytes were pushed before the frames of the earlier ones had been taken.
    #[error("frames not taken")]
    Overflow,
}

/// Cuts a stream into frames, however the bytes arrive.
///
/// Push what was read, then take frames until there is none. What is left is at most one unfinished message.
#[derive(Debug, Default)]
pub struct StreamFramer {
    buffer: BytesMut,
    /// Bytes of the unfinished message's header section that have been looked at; always the start of a line.
    scanned: usize,
    /// Bytes behind `scanned` that hold no line end, so that a line that arrives byte by byte is searched once.
    searched: usize,
    lengths: Lengths,
    /// Where the message ends, once its header section is complete.
    end: Option<usize>,
    /// A CRLF between messages came out as a pong, so that a second one makes a ping.
    half_ping: bool,
    failed: Option<FrameError>,
}

/// The Content-Length lines seen so far.
#[derive(Debug, Default)]
struct Lengths {
    length: Option<usize>,
    /// The value of the last header line began as a Content-Length without a number and may continue.
    open: bool,
}

impl StreamFramer {
    /// For a new connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes of the stream. Take every frame before the next push.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.buffer.len() > limits::MESSAGE_BYTES {
            return Err(self.fail(FrameError::Overflow));
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next frame, if it is complete.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.advance().map_err(|error| self.fail(error))
    }

    /// Bytes held of an unfinished message.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    fn fail(&mut self, error: FrameError) -> FrameError {
        self.failed = Some(error);
        self.buffer = BytesMut::new();
        error
    }

    fn advance(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.scanned == 0
            && let Some(frame) = self.between_messages()?
        {
            return Ok(Some(frame));
        }
        if self.end.is_none() {
            self.scan_headers()?;
        }
        match self.end {
            Some(end) if self.buffer.len() >= end => {
                let message = self.buffer.split_to(end).freeze();
                self.scanned = 0;
                self.end = None;
                self.lengths = Lengths::default();
                Ok(Some(Frame::Message(message)))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// Line ends where a message could start.
    fn between_messages(&mut self) -> Result<Option<Frame>, FrameError> {
        match self.buffer.as_ref() {
            [] | [b'\r'] => Ok(None),
            [b'\r', b'\n', ..] => {
                let _ = self.buffer.split_to(2);
                self.searched = 0;
                self.half_ping = !self.half_ping;
                Ok(Some(if self.half_ping { Frame::Pong } else { Frame::Ping }))
            }
            [first, ..] if lex::is_token_byte(*first) => {
                self.half_ping = false;
                Ok(None)
            }
            [..] => Err(FrameError::NotSip),
        }
    }

    /// Length of the next line, once its end is there.
    fn line_end(&mut self) -> Option<usize> {
        let rest = self.buffer.get(self.scanned..)?;
        match rest.get(self.searched..).and_then(|unseen| memchr(b'\n', unseen)) {
            Some(n) => Some(std::mem::take(&mut self.searched) + n),
            None => {
                self.searched = rest.len();
                None
            }
        }
    }

    /// Looks at every complete line that was not looked at yet.
    fn scan_headers(&mut self) -> Result<(), FrameError> {
        while let Some(n) = self.line_end() {
            let line = &self.buffer[self.scanned..self.scanned + n];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let first_line = self.scanned == 0;
            self.scanned += n + 1;
            if self.scanned > limits::MESSAGE_BYTES {
                return Err(FrameError::TooLarge);
            }
            if line.is_empty() {
                let length = self.lengths.finish()?;
                let end = self.scanned.saturating_add(length);
                if end > limits::MESSAGE_BYTES {
                    return Err(FrameError::TooLarge);
                }
                self.end = Some(end);
                return Ok(());
            }
            if !first_line {
                self.lengths.line(line)?;
            }
        }
        if self.buffer.len() > limits::MESSAGE_BYTES {
            return Err(FrameError::TooLarge);
        }
        Ok(())
    }
}

impl Lengths {
    fn line(&mut self, line: &[u8]) -> Result<(), FrameError> {
        let value = if lex::is_ws(line[0]) {
            if !self.open {
                // A fold of a Content-Length that has its number would make it another number elsewhere.
                return Ok(());
            }
            line
        } else {
            if self.open {
                return Err(FrameError::ContentLength);
            }
            let name_end = lex::skip_token(line, 0);
            let colon = lex::skip_ws(line, name_end);
            if line.get(colon) != Some(&b':')
                || header::number_of(&line[..name_end]) != HeaderName::ContentLength.known_number()
            {
                return Ok(());
            }
            &line[colon + 1..]
        };
        let value = lex::trim(value);
        self.open = value.is_empty();
        if self.open {
            return Ok(());
        }
        let length = lex::number(value, u64::MAX).map_err(|e| match e {
            lex::NumberError::NotDigits => FrameError::ContentLength,
            lex::NumberError::Overflow => FrameError::TooLarge,
        })?;
        let length = usize::try_from(length).map_err(|_| FrameError::TooLarge)?;
        if self.length.is_some_and(|earlier| earlier != length) {
            return Err(FrameError::ContentLength);
        }
        self.length = Some(length);
        Ok(())
    }

    fn finish(&self) -> Result<usize, FrameError> {
        if self.open {
            return Err(FrameError::ContentLength);
        }
        self.length.ok_or(FrameError::NoContentLength)
    }
}

/// What a datagram holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// A message, without the line ends before it.
    Message(&'a [u8]),
    /// Line ends, zeros or nothing: keeps a NAT binding open and gets no answer.
    KeepAlive,
}

/// Looks at one datagram. What lies behind the Content-Length is let go by
/// [`Message::parse`](crate::sip::Message::parse).
#[must_use]
pub fn datagram(bytes: &[u8]) -> Datagram<'_> {
    match bytes.iter().position(|b| !matches!(b, b'\r' | b'\n')) {
        None => Datagram::KeepAlive,
        Some(start) if bytes[start..].iter().all(|b| *b == 0) => Datagram::KeepAlive,
        Some(start) => Datagram::Message(&bytes[start..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(chunks: &[&[u8]]) -> Result<Vec<Frame>, FrameError> {
        let mut framer = StreamFramer::new();
        let mut out = Vec::new();
        for chunk in chunks {
            framer.push(chunk)?;
            while let Some(frame) = framer.next_frame()? {
                out.push(frame);
            }
        }
        Ok(out)
    }

    fn message(bytes: &[u8]) -> Frame {
        Frame::Message(Bytes::copy_from_slice(bytes))
    }

    const BYE: &[u8] = b"BYE sip:a@h SIP/2.0\r\nl : 3\r\n\r\nabc";

    #[test]
    fn messages_and_keep_alives_split_anywhere() {
        let stream = [b"\r\n\r\n", BYE, b"\r\n", BYE, BYE, b"\r\n\r\n\r\n"].concat();
        let expected = [
            Frame::Pong,
            Frame::Ping,
            message(BYE),
            Frame::Pong,
            message(BYE),
            message(BYE),
            Frame::Pong,
            Frame::Ping,
            Frame::Pong,
        ];
        assert_eq!(frames(&[&stream]).unwrap(), expected);
        for cut in 0..stream.len() {
            assert_eq!(frames(&[&stream[..cut], &stream[cut..]]).unwrap(), expected, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(frames(&bytes).unwrap(), expected);
    }

    #[test]
    fn content_length_in_every_legal_form() {
        for length in ["Content-Length: 1", "l:1", "CONTENT-LENGTH\t:\r\n 01 ", "L: 1\r\nContent-Length: 1"] {
            let bytes = format!("BYE sip:a@h SIP/2.0\r\nX: y\r\n{length}\r\n\r\n!");
            assert_eq!(frames(&[bytes.as_bytes()]), Ok(vec![message(bytes.as_bytes())]), "{length}");
        }
    }

    #[test]
    fn lost_framing_is_final() {
        for (headers, error) in [
            ("X: y", FrameError::NoContentLength),
            ("l: -1", FrameError::ContentLength),
            ("l: 1x", FrameError::ContentLength),
            ("l:", FrameError::ContentLength),
            ("l: 1\r\nContent-Length: 2", FrameError::ContentLength),
            ("l: 65536", FrameError::TooLarge),
            ("l: 99999999999999999999999", FrameError::TooLarge),
        ] {
            let bytes = format!("BYE sip:a@h SIP/2.0\r\n{headers}\r\n\r\n");
            let mut framer = StreamFramer::new();
            framer.push(bytes.as_bytes()).unwrap();
            assert_eq!(framer.next_frame(), Err(error), "{headers}");
            assert_eq!(framer.push(BYE), Err(error));
            assert_eq!(framer.next_frame(), Err(error));
            assert_eq!(framer.buffered(), 0);
        }
        assert_eq!(frames(&[b"\0\0\0\0"]), Err(FrameError::NotSip));
        assert_eq!(frames(&[b"\r\r\n"]), Err(FrameError::NotSip));
    }

    #[test]
    fn a_header_section_without_end_is_bounded() {
        let mut framer = StreamFramer::new();
        let line = [b'x'; 4096];
        let result = (0..64).find_map(|_| framer.push(&line).and_then(|()| framer.next_frame()).err());
        assert_eq!(result, Some(FrameError::TooLarge));
    }

    #[test]
    fn datagrams() {
        assert_eq!(datagram(b""), Datagram::KeepAlive);
        assert_eq!(datagram(b"\r\n\r\n"), Datagram::KeepAlive);
        assert_eq!(datagram(b"\0\0\0\0"), Datagram::KeepAlive);
        assert_eq!(datagram(b"\r\nBYE"), Datagram::Message(b"BYE"));
    }
}
