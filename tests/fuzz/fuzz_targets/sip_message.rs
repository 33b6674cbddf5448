//! See `bodies/sip_message.rs`.

#![no_main]

#[path = "../bodies/sip_message.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
