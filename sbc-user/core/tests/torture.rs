//! Torture tests: for every case of RFC 4475 and RFC 5118 a message of our own that has the property which its section
//! describes, with what must come of it and why.
//!
//! `SBC_TORTURE_DIR` names a directory of further messages, for example the originals: each is run through the same
//! exercise and its outcome is printed; none may panic or come out changed.

#![allow(missing_docs, clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stdout)] // a test reads files, and may panic

#[path = "torture/table.rs"]
mod table;
#[path = "torture/through.rs"]
mod through;

use std::path::Path;

use bytes::Bytes;
use sbc_core::sip::frame::{self, Datagram, Frame, StreamFramer};
use sbc_core::sip::{Edit, HeaderName, Judgement, Message, judge};

use table::{CASES, Outcome};

/// What the wire layer makes of one datagram; everything that anybody could ask of it is asked on the way.
fn exercise(name: &str, bytes: &[u8]) -> (Outcome, Option<Message>) {
    let Datagram::Message(content) = frame::datagram(bytes) else { return (Outcome::Dropped, None) };
    let Ok(message) = Message::parse(Bytes::copy_from_slice(content)) else {
        return (Outcome::Dropped, None);
    };
    ask_everything(&message);
    assert_eq!(Edit::new(&message).build(), message.raw(), "{name}: an unchanged message is the same bytes");
    assert!(content.starts_with(message.raw()), "{name}: the message is where the datagram starts");
    let outcome = match judge(&message) {
        Judgement::Ok => Outcome::Taken,
        Judgement::Answer { status, .. } => Outcome::Answered(status),
        Judgement::Drop { .. } => Outcome::Dropped,
    };
    (outcome, Some(message))
}

/// No accessor may panic on any message, sound or not.
fn ask_everything(m: &Message) {
    let _ =
        (m.is_request(), m.method(), m.request_uri(), m.uri(), m.status(), m.reason_phrase(), m.version());
    let _ = (
        m.top_via(),
        m.from(),
        m.to(),
        m.call_id(),
        m.cseq(),
        m.max_forwards(),
        m.content_length(),
        m.rseq(),
    );
    let _ = (
        m.min_se(),
        m.expires(),
        m.retry_after(),
        m.content_type(),
        m.rack(),
        m.session_expires(),
        m.replaces(),
    );
    let _ = (m.vias().count(), m.contacts().count(), m.routes().count(), m.record_routes().count());
    let _ = (m.reasons().count(), m.body(), m.headers().map(|h| h.value.len() + h.line.len()).sum::<usize>());
}

#[test]
fn every_case_has_its_outcome() {
    for case in CASES {
        let (outcome, message) = exercise(case.name, case.bytes);
        assert_eq!(outcome, case.wire, "{} ({}): {}", case.name, case.section, case.why);
        if let Some(message) = message {
            (case.values)(&message);
        }
    }
}

#[test]
fn the_engine_does_what_follows() {
    for case in CASES {
        let passage = through::engine(case.bytes);
        assert_eq!(passage.outcome(), case.engine, "{} ({}): {}", case.name, case.section, case.why);
        if case.wire != Outcome::Taken {
            assert_eq!(
                case.wire, case.engine,
                "{}: what the wire layer refuses, the engine refuses alike",
                case.name
            );
        }
        for sent in &passage.onward {
            let arrived = exercise(case.name, case.bytes).1.unwrap();
            relayed_as_it_must(case.name, &arrived, sent);
        }
    }
}

/// What goes on is sound, goes to the same user, keeps what we do not know byte for byte, and shows nothing of the
/// side that it came from.
fn relayed_as_it_must(name: &str, arrived: &Message, sent: &Message) {
    assert_eq!(judge(sent), Judgement::Ok, "{name}");
    assert_eq!(sent.method(), arrived.method(), "{name}");
    assert_eq!(sent.uri().unwrap().user(), arrived.uri().unwrap().user(), "{name}: escapes stay as written");
    assert_eq!(sent.vias().count(), 1, "{name}: the path up to here is nobody's business");
    let unknown = |m: &Message| {
        let lines = m.headers().filter(|h| matches!(h.name, HeaderName::Other(_))).map(|h| h.line.to_vec());
        lines.collect::<Vec<_>>()
    };
    assert_eq!(unknown(sent), unknown(arrived), "{name}");
    for secret in [
        &b"198.51.100.20"[..],
        b"@carrier.example",
        b"branch=z9hG4bK-",
        arrived.call_id().unwrap().as_bytes(),
    ] {
        let shown = sent.raw().windows(secret.len()).any(|window| window == secret);
        assert!(!shown, "{name}: {} shows", secret.escape_ascii());
    }
}

#[test]
fn every_section_is_covered() {
    let count = |rfc: &str| CASES.iter().filter(|c| c.section.starts_with(rfc)).count();
    assert_eq!((count("4475 "), count("5118 ")), (49, 12));
    let mut names: Vec<_> = CASES.iter().map(|c| c.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), CASES.len(), "each case once");
}

#[test]
fn no_truncation_and_no_flipped_byte_panics() {
    for case in CASES {
        let step = 1 + case.bytes.len() / 1024;
        for end in (0..case.bytes.len()).step_by(step) {
            let _ = exercise(case.name, &case.bytes[..end]);
        }
        let mut bytes = case.bytes.to_vec();
        for index in (0..bytes.len()).step_by(step) {
            let flip = [0x20, 0x80, 0xff][index % 3];
            bytes[index] ^= flip;
            let _ = exercise(case.name, &bytes);
            bytes[index] ^= flip;
        }
    }
}

/// On a stream, too, a whole message comes out as it went in, however it is cut; or the framing is refused.
#[test]
fn streams_cut_the_same_messages() {
    for case in CASES {
        let whole = frames([case.bytes].into_iter());
        let cut = frames(case.bytes.chunks(3));
        assert_eq!(whole, cut, "{}", case.name);
        let (_, message) = exercise(case.name, case.bytes);
        if let (Ok(frames), Some(message), Outcome::Taken) = (whole, message, case.wire) {
            assert_eq!(frames.first(), Some(&Frame::Message(message.raw().clone())), "{}", case.name);
        }
    }
}

fn frames<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Frame>, frame::FrameError> {
    let mut framer = StreamFramer::new();
    let mut frames = Vec::new();
    for chunk in chunks {
        framer.push(chunk)?;
        while let Some(frame) = framer.next_frame()? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

#[test]
fn further_messages() {
    let Some(dir) = std::env::var_os("SBC_TORTURE_DIR") else {
        println!("SBC_TORTURE_DIR is not set: no further messages");
        return;
    };
    let mut files = Vec::new();
    collect(Path::new(&dir), &mut files);
    assert!(!files.is_empty(), "no files in {dir:?}");
    files.sort();
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        let name = file.display().to_string();
        let (outcome, message) = exercise(&name, &bytes);
        let reason = message.map_or("no message".to_owned(), |m| format!("{:?}", judge(&m)));
        let _ = frames(bytes.chunks(7));
        println!("{name}: {:?}; by itself {outcome:?} ({reason})", through::engine(&bytes).outcome());
    }
}

fn collect(dir: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        if entry.is_dir() { collect(&entry, files) } else { files.push(entry) }
    }
}
