//! How a message is written: new ones line by line, received ones by copying what did not change.
//!
//! No value can break out of its line: CR and LF inside values become spaces, whoever they come from. The
//! Content-Length is always computed.

mod build;
mod edit;

pub use build::MessageBuilder;
pub use edit::Edit;

use memchr::{memchr, memchr2};

use crate::sip::lex;

/// Appends `value` as one line's content.
fn push_value(out: &mut Vec<u8>, mut value: &[u8]) {
    while let Some(n) = memchr2(b'\r', b'\n', value) {
        out.extend_from_slice(&value[..n]);
        out.push(b' ');
        value = &value[n + 1..];
    }
    out.extend_from_slice(value);
}

/// Appends `name: value` as a line. A name that is no token gets its other characters replaced.
fn push_header(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend(name.bytes().map(|b| if lex::is_token_byte(b) { b } else { b'-' }));
    out.extend_from_slice(b": ");
    push_value(out, value);
    out.extend_from_slice(b"\r\n");
}

/// Appends a header line as it was received. Its folds stay; line ends become CRLF; any other line end in it becomes a
/// space.
fn push_raw_line(out: &mut Vec<u8>, line: &[u8]) {
    let mut line = line.strip_suffix(b"\n").unwrap_or(line);
    line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return;
    }
    while let Some(n) = memchr(b'\n', line) {
        let folds = line.get(n + 1).is_some_and(|b| lex::is_ws(*b));
        push_value(out, line[..n].strip_suffix(b"\r").unwrap_or(&line[..n]));
        out.extend_from_slice(if folds { b"\r\n" } else { b" " });
        line = &line[n + 1..];
    }
    push_value(out, line);
    out.extend_from_slice(b"\r\n");
}

/// Appends a Request-URI: what cannot stand in one is escaped.
fn push_uri(out: &mut Vec<u8>, uri: &str) {
    for byte in uri.bytes() {
        if byte <= b' ' || byte == 0x7f {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            out.push(byte);
        }
    }
}

/// Appends the Content-Length, the empty line and the body.
fn push_body(out: &mut Vec<u8>, body: &[u8]) {
    use std::io::Write;
    // Writing into a vector cannot fail.
    let _ = write!(out, "Content-Length: {}\r\n\r\n", body.len());
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(line: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        push_raw_line(&mut out, line);
        out
    }

    #[test]
    fn raw_lines_stay_one_header() {
        assert_eq!(raw(b"X:\xff a\r\n  b\r\n"), b"X:\xff a\r\n  b\r\n");
        assert_eq!(raw(b"X: a\n\tb\n"), b"X: a\r\n\tb\r\n");
        assert_eq!(raw(b"X: a\r\nEvil: b\r\n"), b"X: a Evil: b\r\n");
        assert_eq!(raw(b"X: a\r\n\r\nbody"), b"X: a  body\r\n");
        assert_eq!(raw(b"X: a\rb"), b"X: a b\r\n");
        assert_eq!(raw(b""), b"");
    }
}
