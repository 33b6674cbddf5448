//! See `bodies/sip_frame.rs`.

#![no_main]

#[path = "../bodies/sip_frame.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
