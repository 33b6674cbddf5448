//! The real clients against each other, with nothing in between: what one sends is what the other receives. This
//! proves the scenarios and the counting that the tests with the SBC stand on.

#![allow(clippy::unwrap_used, reason = "a test file")]

use std::time::Duration;

use sbc_tests::baresip::{Baresip, Phone};
use sbc_tests::netns::{End, Namespace, connect};
use sbc_tests::pcap::Capture;
use sbc_tests::process::Scratch;
use sbc_tests::rtp::{self, Side};
use sbc_tests::sipp::{ANSWER_WITH_AUDIO, Answering, Batch, CALL_WITH_AUDIO, Calling};
use sbc_tests::{is_root, skip};

const LEFT: &str = "198.51.100.2";
const RIGHT: &str = "198.51.100.3";

fn network() -> (Namespace, Namespace) {
    let (left, right) = (Namespace::create("left").unwrap(), Namespace::create("right").unwrap());
    connect(
        End { namespace: &left, interface: "veth0", addresses: &["198.51.100.2/24"] },
        End { namespace: &right, interface: "veth0", addresses: &["198.51.100.3/24"] },
    )
    .unwrap();
    (left, right)
}

fn side<'a>(party: &str, packets: &'a [sbc_tests::pcap::Packet]) -> Side<'a> {
    Side { party: party.parse().unwrap(), packets }
}

#[test]
fn sipp_calls_sipp_with_audio_both_ways() {
    if !is_root() {
        return skip("sipp_calls_sipp_with_audio_both_ways", "needs root");
    }
    let scratch = Scratch::create("clients").unwrap();
    let (left, right) = network();
    let captures = (
        Capture::start(&left, "veth0", &scratch).unwrap(),
        Capture::start(&right, "veth0", &scratch).unwrap(),
    );
    let audio = Duration::from_secs(2);
    let _answering = Answering::start(
        &right,
        ANSWER_WITH_AUDIO,
        format!("{RIGHT}:5060").parse().unwrap(),
        audio,
        &scratch,
    )
    .unwrap();
    let batch = Batch { calls: 10, per_second: 20, audio, hold: Duration::from_millis(3000) };
    let (local, remote) = (format!("{LEFT}:5060").parse().unwrap(), format!("{RIGHT}:5060").parse().unwrap());
    let calling = Calling::start(&left, CALL_WITH_AUDIO, local, remote, "100", batch, &scratch).unwrap();
    let outcome = calling.finish(Duration::from_secs(30)).unwrap();
    assert_eq!((outcome.succeeded, outcome.failed), (10, 0), "{}", calling.process().log_tail());
    let (left, right) = (captures.0.finish().unwrap(), captures.1.finish().unwrap());
    let counts = rtp::count(side(LEFT, &left), side(RIGHT, &right));
    assert_eq!(counts.to_near.sent, 10 * 100, "{counts:?}");
    assert_eq!(counts.to_far.sent, 10 * 100, "{counts:?}");
    assert_eq!(counts.sent(), counts.received());
    assert_eq!(counts.wrong_checksums, 0);
    assert_eq!(rtp::setup_times_ms(&left).len(), 10);
}

#[test]
fn baresip_calls_sipp_and_hangs_up_when_all_is_said() {
    if !is_root() {
        return skip("baresip_calls_sipp_and_hangs_up_when_all_is_said", "needs root");
    }
    let scratch = Scratch::create("clients").unwrap();
    let (left, right) = network();
    let captures = (
        Capture::start(&left, "veth0", &scratch).unwrap(),
        Capture::start(&right, "veth0", &scratch).unwrap(),
    );
    let two_seconds = Duration::from_secs(2);
    let answering = Answering::start(
        &right,
        ANSWER_WITH_AUDIO,
        format!("{RIGHT}:5060").parse().unwrap(),
        two_seconds,
        &scratch,
    )
    .unwrap();
    let phone = Phone {
        user: "caller",
        interface: "veth0",
        ip: LEFT.parse().unwrap(),
        transport: "udp",
        outbound: None,
        authority: None,
        audio: two_seconds + Duration::from_millis(500),
        sip_port: 5060,
    };
    let caller = Baresip::start(&left, &phone, &scratch).unwrap();
    caller.dial(&format!("sip:100@{RIGHT}")).unwrap();
    let limit = Duration::from_secs(10);
    caller.wait_for("CALL_ESTABLISHED", limit).unwrap();
    caller.wait_for("CALL_CLOSED", limit).unwrap();
    let (left, right) = (captures.0.finish().unwrap(), captures.1.finish().unwrap());
    drop(answering);
    let counts = rtp::count(side(LEFT, &left), side(RIGHT, &right));
    assert!(counts.to_near.sent >= 120, "2.5 s of audio: {counts:?}");
    assert_eq!(counts.to_far.sent, 100, "{counts:?}");
    assert_eq!(counts.sent(), counts.received());
    assert_eq!(counts.wrong_checksums, 0);
}

/// Scenarios without audio that belong together: who calls, who is called.
const PAIRS: [(&str, &str); 3] = [
    ("hold_and_resume.xml", "answer_and_be_held.xml"),
    ("cancel_while_ringing.xml", "ring_until_cancelled.xml"),
    ("call_and_find_busy.xml", "answer_busy.xml"),
];

#[test]
fn hold_cancel_and_busy_work_between_the_clients_themselves() {
    if !is_root() {
        return skip("hold_cancel_and_busy_work_between_the_clients_themselves", "needs root");
    }
    for (caller, called) in PAIRS {
        let scratch = Scratch::create("clients").unwrap();
        let (left, right) = network();
        let (local, remote) =
            (format!("{LEFT}:5060").parse().unwrap(), format!("{RIGHT}:5060").parse().unwrap());
        let answering = Answering::start(&right, called, remote, Duration::ZERO, &scratch).unwrap();
        let batch = Batch { calls: 3, per_second: 10, audio: Duration::ZERO, hold: Duration::ZERO };
        let calling = Calling::start(&left, caller, local, remote, "100", batch, &scratch).unwrap();
        let outcome = calling.finish(Duration::from_secs(20)).unwrap();
        let called_outcome = answering.finish(Duration::from_secs(20)).unwrap();
        assert_eq!(called_outcome, outcome, "{called}: {}", answering.process().log_tail());
        assert_eq!(
            (outcome.succeeded, outcome.failed),
            (3, 0),
            "{caller}: {}",
            answering.process().log_tail()
        );
    }
}
