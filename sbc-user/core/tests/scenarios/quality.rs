//! What the two parties report of the streams, from copies of their RTCP, in the operators' view and in the record.

use std::time::Duration;

use bytes::Bytes;
use sbc_core::Input;
use sbc_core::media::command::MediaEvent;
use sbc_core::media::quality::Heard;

use crate::pair::{Pair, sdp};

/// A sender report with this middle of its NTP time; its block refers to `last` after `delay` 65536ths of a second.
fn report(sent: u32, lost: u32, jitter: u32, last: u32, delay: u32) -> Bytes {
    let words = [1, sent >> 16, sent << 16, 0, 0, 0, 2, lost, 0, jitter, last, delay];
    let header = [0x81, 200, 0, 12];
    header.into_iter().chain(words.into_iter().flat_map(u32::to_be_bytes)).collect()
}

fn passes(pair: &mut Pair, caller_side: bool, packet: Bytes) {
    let call = pair.plan().call;
    pair.input(Input::Media(MediaEvent::Report { call, mline: 0, caller_side, packet }));
}

#[test]
fn reports_of_both_parties_reach_the_view_and_the_record() {
    let mut pair = Pair::new();
    pair.basic_call();
    assert!(pair.calls()[0].quality.is_empty());
    passes(&mut pair, true, report(0x1234_5678, 0, 0, 0, 0));
    pair.run(Duration::from_millis(2030));
    // Two seconds after it heard that one.
    passes(&mut pair, false, report(0x9999_0000, 0x1a00_0007, 240, 0x1234_5678, 2 << 16));
    let view = pair.calls().remove(0);
    let expected = Heard {
        reports: 1,
        lost: 7,
        fraction_lost: 0x1a,
        fraction_lost_max: 0x1a,
        jitter_us: Some(30_000),
        jitter_us_max: Some(30_000),
        round_trip_us: Some(30_000),
        round_trip_us_max: Some(30_000),
    };
    assert_eq!(view.quality[0].callee.heard, Some(expected));
    assert_eq!(view.quality[0].caller.heard.unwrap().lost, 0);
    // Rubbish, and a stream that the call does not have.
    for packet in [&b""[..], b"\x81\xc8", b"\x81\xc9\xff\xff", &[0xff; 64]] {
        passes(&mut pair, true, Bytes::copy_from_slice(packet));
    }
    let call = pair.plan().call;
    for mline in [1, 255] {
        let packet = report(1, 0, 0, 0, 0);
        pair.input(Input::Media(MediaEvent::Report { call, mline, caller_side: true, packet }));
    }
    assert_eq!(pair.calls()[0].quality.len(), 1);
    pair.a.bye();
    pair.assert_nothing_left(1);
    assert_eq!(pair.records[0].quality[0].callee.heard, Some(expected));
    assert_eq!(pair.records[0].quality.len(), 1);
}

#[test]
fn encrypted_reports_are_not_read() {
    let key = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj\r\n";
    let secure = |ip: &str, port| sdp(ip, port, "0", key).replace("RTP/AVP", "RTP/SAVP");
    let mut pair = Pair::new();
    pair.a.invite("bob", Some(&secure("198.51.100.10", 40000)));
    pair.run_ms(100);
    pair.b.respond(200, Some(&secure("10.9.0.20", 50000)));
    pair.b.invite_done();
    pair.run_ms(100);
    passes(&mut pair, true, report(1, 9, 9, 0, 0));
    assert!(pair.calls()[0].quality.is_empty());
    pair.a.bye();
    pair.assert_nothing_left(1);
}
