//! What crosses on the way: CANCEL, ACK and BYE, lost, late and at the same time.

use std::time::Duration;

use sbc_core::command::CallState;
use sbc_core::record::EndedBy;

use crate::pair::link::End;
use crate::pair::{Media, Pair, sdp};
use crate::{answer, offer};

#[test]
fn cancel_while_ringing() {
    let mut pair = Pair::new();
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    pair.b.respond(180, None);
    pair.run_ms(100);
    pair.a.cancel_because("Reason: SIP;cause=200;text=\"Call completed elsewhere\"\r\n");
    pair.run_ms(100);
    assert_eq!((pair.a.count("CANCEL", 200), pair.a.count("INVITE", 487)), (1, 1));
    let reason = pair.b.last("CANCEL", 0).header("Reason").unwrap();
    assert_eq!(reason, "SIP;cause=200;text=\"Call completed elsewhere\"");
    pair.assert_nothing_left(1);
    assert_eq!((pair.records[0].status, pair.records[0].ended_by), (487, EndedBy::Caller));
}

#[test]
fn cancel_waits_for_the_first_provisional_response() {
    let mut pair = Pair::new();
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    pair.a.cancel();
    pair.run_ms(100);
    assert_eq!(pair.a.count("INVITE", 487), 1);
    assert_eq!(pair.b.count("CANCEL", 0), 0);
    pair.b.respond(100, None);
    pair.run_ms(100);
    assert_eq!(pair.b.count("CANCEL", 0), 1);
    pair.assert_nothing_left(1);
}

#[test]
fn cancel_before_the_callee_was_called() {
    let mut pair = Pair::new();
    pair.media = Media::Slow(Duration::from_secs(1));
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    pair.a.cancel();
    pair.run_ms(100);
    assert_eq!(pair.a.count("INVITE", 487), 1);
    pair.assert_nothing_left(1);
    assert!(pair.to_b.is_empty());
}

#[test]
fn cancel_that_crosses_the_200() {
    let mut pair = Pair::new();
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    pair.b.respond(180, None);
    pair.run_ms(100);
    pair.a.cancel();
    pair.b.respond(200, Some(&answer()));
    pair.b.invite_done();
    pair.run_ms(100);
    assert_eq!((pair.b.count("ACK", 0), pair.b.count("BYE", 0)), (1, 1));
    assert_eq!((pair.a.count("INVITE", 487), pair.a.count("INVITE", 200)), (1, 0));
    assert_eq!(pair.counter("answer_after_cancel"), 1);
    pair.assert_nothing_left(1);
}

#[test]
fn cancel_after_the_200_changes_nothing() {
    let mut pair = Pair::new();
    pair.link.hold = vec![(End::EngineFromA, "CANCEL")];
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    pair.a.cancel();
    pair.b.respond(200, Some(&answer()));
    pair.b.invite_done();
    pair.run_ms(100);
    pair.link.release(pair.now);
    pair.run_ms(100);
    assert_eq!(pair.a.count("CANCEL", 200), 1);
    assert!(pair.a.up && !pair.b.ended);
    pair.a.bye();
    pair.assert_nothing_left(1);
    assert_eq!(pair.records[0].status, 200);
}

#[test]
fn lost_200_is_repeated() {
    let mut pair = Pair::new();
    pair.link.lose = vec![(End::A, "SIP/2.0 200"), (End::A, "SIP/2.0 200")];
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    pair.b.respond(200, Some(&answer()));
    pair.run_ms(300);
    assert!(!pair.a.up);
    pair.run(Duration::from_secs(3));
    assert!(pair.a.up);
    pair.a.bye();
    pair.assert_nothing_left(1);
}

#[test]
fn late_ack_stops_the_repetitions() {
    let mut pair = Pair::new();
    pair.a.auto_ack = false;
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    pair.b.respond(200, Some(&answer()));
    pair.run(Duration::from_secs(10));
    pair.a.ack();
    pair.run_ms(100);
    let sent = pair.to_a.len();
    pair.run(Duration::from_secs(30));
    assert_eq!(pair.to_a.len(), sent);
    assert_eq!(pair.calls()[0].state, CallState::Answered);
    pair.a.bye();
    pair.assert_nothing_left(1);
}

#[test]
fn a_200_that_is_never_acknowledged_ends_the_call() {
    let mut pair = Pair::new();
    pair.a.auto_ack = false;
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    pair.b.respond(200, Some(&answer()));
    pair.run(Duration::from_secs(33));
    assert_eq!((pair.a.count("BYE", 0), pair.b.count("BYE", 0)), (1, 1));
    assert!(pair.b.last("BYE", 0).header("Reason").unwrap().contains("408"));
    pair.assert_nothing_left(1);
    assert_eq!(pair.counter("call_no_ack"), 1);
}

#[test]
fn a_lost_ack_to_the_callee_is_repeated() {
    let mut pair = Pair::new();
    pair.link.lose = vec![(End::B, "ACK"), (End::B, "ACK")];
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    pair.b.respond(200, Some(&answer()));
    pair.run(Duration::from_secs(3));
    assert_eq!(pair.b.count("ACK", 0), 1);
    pair.a.bye();
    pair.assert_nothing_left(1);
}

#[test]
fn bye_from_each_side_with_its_reason() {
    for caller in [true, false] {
        let mut pair = Pair::new();
        pair.basic_call();
        let reason = "Reason: Q.850;cause=16;text=\"bye\"\r\n";
        let (from, to) = if caller { (&mut pair.a, EndedBy::Caller) } else { (&mut pair.b, EndedBy::Callee) };
        from.ended = true;
        from.in_dialog("BYE", None, reason);
        pair.run_ms(100);
        let heard = if caller { pair.b.last("BYE", 0) } else { pair.a.last("BYE", 0) };
        assert_eq!(heard.header("Reason").unwrap(), "Q.850;cause=16;text=\"bye\"");
        pair.assert_nothing_left(1);
        assert_eq!(pair.records[0].ended_by, to);
        assert_eq!(pair.records[0].cause, "Q.850;cause=16;text=\"bye\"");
    }
}

/// The caller has not acknowledged yet: its BYE has to wait, and still says why when it leaves.
#[test]
fn bye_that_waits_for_the_ack() {
    let mut pair = Pair::new();
    pair.a.auto_ack = false;
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    pair.b.respond(200, Some(&answer()));
    pair.b.invite_done();
    pair.run_ms(100);
    pair.b.ended = true;
    pair.b.in_dialog("BYE", None, "Reason: Q.850;cause=31\r\n");
    pair.run_ms(400);
    assert_eq!((pair.b.count("BYE", 200), pair.a.count("BYE", 0)), (1, 0));
    pair.a.ack();
    pair.run_ms(100);
    assert_eq!(pair.a.last("BYE", 0).header("Reason").unwrap(), "Q.850;cause=31");
    pair.assert_nothing_left(1);
}

#[test]
fn byes_that_cross() {
    let mut pair = Pair::new();
    pair.basic_call();
    pair.a.bye();
    pair.b.bye();
    pair.run_ms(200);
    assert_eq!((pair.a.count("BYE", 200), pair.b.count("BYE", 200)), (1, 1));
    pair.assert_nothing_left(1);
}

#[test]
fn bye_before_the_answer() {
    let mut pair = Pair::new();
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    pair.b.respond(180, None);
    pair.run_ms(100);
    let ringing = pair.a.last("INVITE", 180).text.clone();
    pair.a.adopt(&ringing);
    pair.a.bye();
    pair.run_ms(100);
    assert_eq!((pair.a.count("BYE", 200), pair.a.count("INVITE", 487)), (1, 1));
    assert_eq!(pair.b.count("CANCEL", 0), 1);
    pair.assert_nothing_left(1);
}

#[test]
fn bye_that_meets_a_reinvite() {
    let mut pair = Pair::new();
    pair.basic_call();
    pair.a.reinvite(Some(&sdp("198.51.100.10", 40000, "8", "a=sendonly\r\n")));
    pair.run_ms(20);
    pair.b.bye();
    pair.run_ms(100);
    assert_eq!(pair.a.count("BYE", 0), 1);
    assert_eq!(pair.a.count("INVITE", 487), 1);
    pair.b.respond(481, None);
    pair.assert_nothing_left(1);
}

#[test]
fn bye_to_a_call_that_is_gone() {
    let mut pair = Pair::new();
    pair.basic_call();
    pair.a.bye();
    pair.settle();
    pair.a.bye();
    pair.run_ms(100);
    assert_eq!(pair.a.count("BYE", 481), 1);
    pair.assert_nothing_left(1);
    assert!(pair.counter("no_such_dialog") > 0);
}
