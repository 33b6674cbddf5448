//! See `bodies/sip_stream_split.rs`.

#![no_main]

#[path = "../bodies/sip_stream_split.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
