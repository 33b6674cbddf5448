//! The fuzz targets' bodies over their committed corpora and over the torture messages, on stable.

#![allow(missing_docs, clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stdout)] // a test reads files, and may panic

#[path = "../../../tests/fuzz/bodies/engine.rs"]
mod engine;
#[path = "../../../tests/fuzz/bodies/sdp.rs"]
mod sdp;
#[path = "../../../tests/fuzz/bodies/sip_frame.rs"]
mod sip_frame;
#[path = "../../../tests/fuzz/bodies/sip_message.rs"]
mod sip_message;
#[path = "../../../tests/fuzz/bodies/sip_stream_split.rs"]
mod sip_stream_split;

use std::path::{Path, PathBuf};

const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests");

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            files.extend(self::files(&entry));
        } else {
            files.push(entry);
        }
    }
    files.sort();
    files
}

/// Names the file if the body panics.
struct Running<'a>(&'a Path);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failing input: {}", self.0.display());
        }
    }
}

fn replay(dir: &str, body: fn(&[u8])) {
    let dir = Path::new(TESTS).join(dir);
    let files = files(&dir);
    assert!(files.len() >= 8, "a corpus of {} files in {} is none", files.len(), dir.display());
    for file in files {
        let _running = Running(&file);
        body(&std::fs::read(&file).unwrap());
    }
}

#[test]
fn sip_frame() {
    replay("fuzz/corpus/sip_frame", sip_frame::run);
    replay("fixtures/torture", sip_frame::run);
}

#[test]
fn sip_message() {
    replay("fuzz/corpus/sip_message", sip_message::run);
    replay("fixtures/torture", sip_message::run);
}

#[test]
fn sip_stream_split() {
    replay("fuzz/corpus/sip_stream_split", sip_stream_split::run);
    replay("fixtures/torture", sip_stream_split::run);
}

#[test]
fn sdp() {
    replay("fuzz/corpus/sdp", sdp::run);
}

#[test]
fn engine() {
    replay("fuzz/corpus/engine", engine::run);
}
