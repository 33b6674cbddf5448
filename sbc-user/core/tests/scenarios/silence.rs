//! Calls whose media falls silent.

use std::time::Duration;

use sbc_core::config::MediaTimeouts;
use sbc_core::record::EndedBy;

use crate::pair::ua::OnUpdate;
use crate::pair::{Media, Pair, Setup, sdp};
use crate::{answer, offer};

const TALKING: u64 = 300;
const HELD: u64 = 7200;
/// Two looks, the longest time that the end may come late, and a moment for the messages.
const LATE: u64 = 61;

fn pair() -> Pair {
    let seconds = |it| Some(Duration::from_secs(it));
    let media_timeouts = MediaTimeouts { talking: seconds(TALKING), held: seconds(HELD) };
    Pair::with(Setup { media_timeouts, ..Setup::default() })
}

fn run_s(pair: &mut Pair, seconds: u64) {
    pair.run(Duration::from_secs(seconds));
}

fn hold(pair: &mut Pair) {
    pair.b.on_update = OnUpdate::Answer(sdp("10.9.0.20", 50000, "8", "a=recvonly\r\n"));
    pair.a.reinvite(Some(&sdp("198.51.100.10", 40000, "8", "a=sendonly\r\n")));
    pair.run_ms(200);
}

fn assert_ended_by_silence(mut pair: Pair) {
    for ua in [&pair.a, &pair.b] {
        assert_eq!(ua.count("BYE", 0), 1, "{:?}", ua.summary());
        assert_eq!(ua.last("BYE", 0).header("Reason").unwrap(), "Q.850;cause=102;text=\"Media timeout\"");
    }
    assert_eq!(pair.counter("call_media_timeout"), 1);
    pair.assert_nothing_left(1);
    let record = &pair.records[0];
    assert_eq!((record.ended_by, record.status), (EndedBy::Local, 200));
    assert_eq!(record.cause, "Q.850;cause=102;text=\"Media timeout\"");
    assert!(record.answered.is_some());
}

#[test]
fn a_silent_call_ends_on_both_sides() {
    let mut pair = pair();
    pair.basic_call();
    run_s(&mut pair, TALKING - 1);
    assert_eq!(pair.status().calls, 1, "not too early");
    run_s(&mut pair, LATE + 1);
    assert_ended_by_silence(pair);
}

#[test]
fn a_packet_of_any_kind_in_any_direction_keeps_the_call() {
    for kind in 0..4 {
        let mut pair = pair();
        pair.basic_call();
        for _ in 0..20 {
            run_s(&mut pair, TALKING - LATE);
            let (from_caller, from_callee) = &mut pair.carried;
            match kind {
                0 => from_caller.rtp_kernel += 1,
                1 => from_callee.rtp_relay += 1,
                2 => from_caller.rtcp += 1,
                _ => from_callee.rtcp += 1,
            }
        }
        assert_eq!(pair.status().calls, 1, "kind {kind}");
        run_s(&mut pair, TALKING + LATE);
        assert_ended_by_silence(pair);
    }
}

#[test]
fn a_held_call_may_be_silent_for_longer() {
    let mut pair = pair();
    pair.basic_call();
    hold(&mut pair);
    run_s(&mut pair, HELD - 1);
    assert_eq!(pair.status().calls, 1, "not too early");
    run_s(&mut pair, LATE + 1);
    assert_ended_by_silence(pair);
}

#[test]
fn a_resumed_call_has_its_time_again() {
    let mut pair = pair();
    pair.basic_call();
    hold(&mut pair);
    run_s(&mut pair, HELD / 2);
    pair.b.on_update = OnUpdate::Answer(answer());
    pair.a.reinvite(Some(&offer()));
    run_s(&mut pair, TALKING - 1);
    assert_eq!(pair.status().calls, 1, "the hold was no silence");
    run_s(&mut pair, LATE + 1);
    assert_ended_by_silence(pair);
}

#[test]
fn silence_before_the_answer_does_not_count() {
    let mut pair = pair();
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    pair.b.respond(183, Some(&answer()));
    run_s(&mut pair, 100);
    assert_eq!(pair.status().calls, 1);
    pair.b.respond(200, Some(&answer()));
    pair.b.invite_done();
    run_s(&mut pair, TALKING - 1);
    assert_eq!(pair.status().calls, 1, "counted from the answer");
    run_s(&mut pair, LATE + 1);
    assert_ended_by_silence(pair);
}

#[test]
fn a_dataplane_that_is_late_does_not_end_a_call_twice() {
    let mut pair = pair();
    pair.basic_call();
    pair.media = Media::Slow(Duration::from_secs(5));
    // A look is under way when the caller hangs up.
    run_s(&mut pair, 31);
    pair.a.bye();
    pair.assert_nothing_left(1);
    assert_eq!(pair.records[0].ended_by, EndedBy::Caller);
}

#[test]
fn without_a_limit_nothing_is_asked() {
    let mut pair = Pair::new();
    pair.basic_call();
    run_s(&mut pair, 24 * 3600);
    assert_eq!(pair.status().calls, 1);
    assert_eq!(pair.status().timers, 0);
    pair.a.bye();
    pair.assert_nothing_left(1);
}
