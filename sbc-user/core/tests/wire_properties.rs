//! Properties of the wire layer over generated messages: what is built is read back, whatever the values hold; a
//! stream cut anywhere yields the same messages; an edit changes what it names and nothing else.

#![allow(missing_docs)]

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use sbc_core::sip::frame::{Frame, StreamFramer};
use sbc_core::sip::{Edit, HeaderName, Message, MessageBuilder, Method, Uri};

/// A header name that is none of ours to compute.
fn name() -> impl Strategy<Value = String> {
    "[A-Za-z][A-Za-z0-9.!%*_+`'~-]{1,20}"
        .prop_filter("computed", |n| HeaderName::from(n.as_str()) != HeaderName::ContentLength)
}

fn headers() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    vec((name(), vec(any::<u8>(), 0..60)), 0..20)
}

fn build(headers: &[(String, Vec<u8>)], body: &[u8]) -> Bytes {
    let mut builder = MessageBuilder::request(&Method::Info, "sip:a@h");
    for (name, value) in headers {
        builder = builder.header(name.as_str(), value);
    }
    builder.body("application/octet-stream", body.to_vec()).build()
}

/// What must be read back for a value: no line end survives, and white space at the ends is not part of a value.
fn expected(value: &[u8]) -> Vec<u8> {
    let line: Vec<u8> = value.iter().map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { *b }).collect();
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let start = line.iter().position(|b| !blank(b)).unwrap_or(line.len());
    let end = line.iter().rposition(|b| !blank(b)).map_or(start, |n| n + 1);
    line[start..end].to_vec()
}

proptest! {
    #[test]
    fn what_is_built_is_read_back(headers in headers(), body in vec(any::<u8>(), 0..200)) {
        let message = Message::parse(build(&headers, &body)).unwrap();
        let read: Vec<_> = message.headers().map(|h| (h.name_text.to_owned(), h.value.to_vec())).collect();
        let mut built: Vec<_> = headers
            .iter()
            .map(|(n, v)| (HeaderName::from(n.as_str()).as_str().to_owned(), expected(v)))
            .collect();
        built.push(("Content-Type".to_owned(), b"application/octet-stream".to_vec()));
        built.push(("Content-Length".to_owned(), body.len().to_string().into_bytes()));
        prop_assert_eq!(read, built);
        prop_assert_eq!(message.body(), &body[..]);
        prop_assert_eq!(Edit::new(&message).build(), message.raw());
    }

    #[test]
    fn a_stream_cut_anywhere_yields_the_same(
        bodies in vec(vec(any::<u8>(), 0..50), 1..4),
        cuts in vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let messages: Vec<Bytes> = bodies.iter().map(|b| build(&[], b)).collect();
        let stream = messages.concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(stream.len())).collect();
        cuts.push(stream.len());
        cuts.sort_unstable();
        let mut framer = StreamFramer::new();
        let mut frames = Vec::new();
        let mut from = 0;
        for cut in cuts {
            framer.push(&stream[from..cut]).unwrap();
            from = cut;
            while let Some(frame) = framer.next_frame().unwrap() {
                frames.push(frame);
            }
        }
        prop_assert_eq!(frames, messages.into_iter().map(Frame::Message).collect::<Vec<_>>());
    }

    #[test]
    fn an_edit_changes_what_it_names(headers in headers(), pick in any::<prop::sample::Index>(), value in "[ -~]{0,30}") {
        let message = Message::parse(build(&headers, b"body")).unwrap();
        let lines: Vec<_> = message.headers().collect();
        let name = pick.get(&lines).name;
        let lines = |m: &Message| m.headers().map(|h| h.line.to_vec()).collect::<Vec<_>>();

        let removed = Message::parse(Edit::new(&message).remove(name).build()).unwrap();
        let others: Vec<_> = message.headers().filter(|h| h.name != name).map(|h| h.line.to_vec()).collect();
        prop_assert_eq!(lines(&removed), others);

        let pushed = Message::parse(Edit::new(&message).push(HeaderName::Via, &value).build()).unwrap();
        prop_assert_eq!(pushed.header(HeaderName::Via).unwrap(), value.trim().as_bytes());
        prop_assert_eq!(pushed.headers().len(), message.headers().len() + 1);

        if name != HeaderName::ContentLength {
            let replaced = Message::parse(Edit::new(&message).replace(name, &value).build()).unwrap();
            prop_assert_eq!(replaced.header(name).unwrap(), value.trim().as_bytes());
            prop_assert_eq!(replaced.all(name).count(), 1);
            prop_assert_eq!(replaced.body(), b"body");
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..300)) {
        let start = b"INVITE sip:a@h SIP/2.0\r\nVia: ";
        if let Ok(message) = Message::parse([&start[..], &bytes].concat().into()) {
            let _ = sbc_core::sip::judge(&message);
        }
        let _ = Message::parse(bytes.into());
    }

    #[test]
    fn a_uri_is_its_text(text in "(sip|sips|tel|urn|x):[!-~]{0,40}") {
        if let Ok(uri) = Uri::parse(&text) {
            prop_assert_eq!(uri.as_str(), &text);
            prop_assert!(uri.equivalent(&uri));
            if uri.is_sip() {
                let user = uri.user().map(|u| match uri.password() {
                    Some(password) => format!("{u}:{password}@"),
                    None => format!("{u}@"),
                });
                let after_host = &text[text.len() - uri.params_text().len() - uri.headers_text().map_or(0, |h| h.len() + 1)..];
                let scheme_and_user = format!("{}{}", &text[..=text.find(':').unwrap()], user.unwrap_or_default());
                let before = scheme_and_user + uri.host_text();
                prop_assert!(text.starts_with(&before), "{} {}", text, before);
                prop_assert!(after_host.is_empty() || after_host.starts_with([';', '?']));
            }
        }
    }
}
