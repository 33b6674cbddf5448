//! Whole calls through the engine, between two user agents that know nothing of it.
//!
//! Every scenario ends with nothing left: no call, transaction, timer, port or plan, and one record per call.

#![allow(missing_docs, clippy::unwrap_used)]

mod pair;

use std::time::Duration;

use pair::link::{End, Quality};
use pair::ua::OnUpdate;
use pair::{Media, Pair, Setup, sdp};
use sbc_core::Input;
use sbc_core::command::{CallState, Command, Reply};
use sbc_core::flow::{Flow, Transport};
use sbc_core::id::{ConnId, ListenerId};
use sbc_core::media::plan::SourcePolicy;
use sbc_core::record::EndedBy;
use sbc_core::rng::{Rng, SeededRng};

fn offer() -> String {
    sdp("198.51.100.10", 40000, "0 8 101", "")
}

fn answer() -> String {
    sdp("10.9.0.20", 50000, "8 101", "")
}

// --- set-up ---

#[test]
fn basic_call() {
    let mut pair = Pair::new();
    pair.basic_call();
    assert_eq!(pair.a.summary(), ["100 INVITE", "180 INVITE", "200 INVITE"]);
    assert_eq!(pair.b.summary(), ["INVITE", "ACK"]);
    let stream = &pair.plan().streams[0];
    assert_eq!(stream.caller.peer.unwrap().rtp, "198.51.100.10:40000".parse().unwrap());
    assert_eq!(stream.callee.peer.unwrap().rtp, "10.9.0.20:50000".parse().unwrap());
    assert_eq!(
        (stream.caller.source, stream.callee.source),
        (SourcePolicy::Signalled, SourcePolicy::Signalled)
    );
    assert!(pair.b.last("INVITE", 0).body().contains(&format!("m=audio {} ", stream.callee.local_rtp_port)));
    assert!(
        pair.a.last("INVITE", 200).body().contains(&format!("m=audio {} ", stream.caller.local_rtp_port))
    );
    assert_eq!(pair.calls()[0].state, CallState::Answered);
    pair.a.bye();
    pair.run_ms(100);
    assert!(pair.b.ended);
    pair.assert_nothing_left(1);
    let record = &pair.records[0];
    assert_eq!((record.status, record.ended_by), (200, EndedBy::Caller));
    assert_eq!(record.media[0].from_caller.rtp_kernel, 7);
    assert!(record.ringing.unwrap() < record.answered.unwrap());
}

#[test]
fn no_invite_leaves_before_its_media_is_installed() {
    let mut pair = Pair::new();
    pair.media = Media::Slow(Duration::from_millis(300));
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(250);
    assert!(pair.to_b.is_empty());
    pair.run_ms(100);
    assert_eq!(pair.b.count("INVITE", 0), 1);
    pair.b.respond(200, Some(&answer()));
    pair.run_ms(250);
    assert_eq!((pair.a.count("INVITE", 200), pair.b.count("ACK", 0)), (0, 0));
    pair.run_ms(100);
    assert_eq!((pair.a.count("INVITE", 200), pair.b.count("ACK", 0)), (1, 1));
    pair.b.bye();
    pair.assert_nothing_left(1);
}

#[test]
fn early_media_flows_before_the_answer() {
    let mut pair = Pair::new();
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    let before = &pair.plan().streams[0];
    assert_eq!(before.callee.peer, None);
    assert_eq!(before.callee.source, SourcePolicy::Learn { allowed: "10.9.0.20".parse().unwrap() });
    assert_eq!(before.caller.source, SourcePolicy::Signalled);
    pair.media = Media::Slow(Duration::from_millis(50));
    pair.b.respond(183, Some(&answer()));
    pair.b.respond(180, None);
    pair.run_ms(40);
    assert_eq!(
        (pair.a.count("INVITE", 183), pair.a.count("INVITE", 180)),
        (0, 0),
        "neither overtakes the plan"
    );
    pair.run_ms(100);
    assert_eq!(pair.a.summary(), ["100 INVITE", "183 INVITE", "180 INVITE"]);
    assert_eq!(pair.plan().streams[0].callee.peer.unwrap().rtp, "10.9.0.20:50000".parse().unwrap());
    assert_eq!(pair.plan().streams[0].callee.source, SourcePolicy::Signalled);
    assert!(pair.a.last("INVITE", 183).body().contains("203.0.113.1"));
    // The same description in the 2xx changes nothing: it needs no further operation.
    let installed = pair.installed.len();
    pair.b.respond(200, Some(&answer()));
    pair.run_ms(200);
    assert_eq!(pair.installed.len(), installed);
    assert!(pair.a.up);
    pair.a.bye();
    pair.assert_nothing_left(1);
}

#[test]
fn an_answer_only_in_the_183_is_enough() {
    let mut pair = Pair::new();
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    pair.b.respond(183, Some(&answer()));
    pair.run_ms(100);
    pair.b.respond(200, None);
    pair.run_ms(100);
    assert!(pair.a.last("INVITE", 200).body().contains("m=audio"));
    pair.a.bye();
    pair.assert_nothing_left(1);
}

#[test]
fn late_offer() {
    let mut pair = Pair::new();
    pair.a.ack_sdp = Some(offer());
    pair.a.auto_ack = false;
    pair.a.invite("bob", None);
    pair.run_ms(100);
    assert_eq!(pair.b.last("INVITE", 0).body(), "");
    pair.b.respond(200, Some(&answer()));
    pair.run_ms(100);
    assert!(pair.a.last("INVITE", 200).body().contains("203.0.113.1"));
    assert_eq!(pair.b.count("ACK", 0), 0, "the ACK has to carry the answer");
    pair.a.ack();
    pair.run_ms(100);
    assert!(pair.b.last("ACK", 0).body().contains("10.9.0.1"));
    let stream = &pair.plan().streams[0];
    assert_eq!(stream.caller.peer.unwrap().rtp.port(), 40000);
    assert_eq!(stream.callee.peer.unwrap().rtp.port(), 50000);
    pair.b.bye();
    pair.assert_nothing_left(1);
}

#[test]
fn late_offer_without_an_answer_is_ended() {
    let mut pair = Pair::new();
    pair.a.invite("bob", None);
    pair.run_ms(100);
    pair.b.respond(200, Some(&answer()));
    pair.run_ms(200);
    assert_eq!((pair.b.count("ACK", 0), pair.b.count("BYE", 0), pair.a.count("BYE", 0)), (1, 1, 1));
    pair.assert_nothing_left(1);
    assert_eq!(pair.counter("bad_answer"), 1);
}

#[test]
fn busy() {
    let mut pair = Pair::new();
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    pair.b.respond_as(486, None, "busy", "Reason: Q.850;cause=17;text=\"user busy\"\r\n");
    pair.run_ms(100);
    let refusal = pair.a.last("INVITE", 486);
    assert_eq!(refusal.header("Reason").unwrap(), "Q.850;cause=17;text=\"user busy\"");
    pair.assert_nothing_left(1);
    let record = &pair.records[0];
    assert_eq!((record.status, record.ended_by, record.answered), (486, EndedBy::Callee, None));
}

#[test]
fn what_speaks_about_the_hop_is_replaced_and_told_as_reason() {
    for (from, to) in [(302, 480), (407, 500), (503, 500)] {
        let mut pair = Pair::new();
        pair.a.invite("bob", Some(&offer()));
        pair.run_ms(100);
        pair.b.respond(from, None);
        pair.run_ms(100);
        let reason = pair.a.last("INVITE", to).header("Reason").unwrap();
        assert!(reason.starts_with(&format!("SIP;cause={from};")), "{reason}");
        pair.assert_nothing_left(1);
    }
}

#[test]
fn no_answer() {
    let mut pair = Pair::new();
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    pair.b.respond(180, None);
    pair.run(Duration::from_secs(179));
    assert_eq!(pair.a.count("INVITE", 408), 0);
    pair.run(Duration::from_secs(2));
    assert_eq!(pair.a.count("INVITE", 408), 1);
    assert_eq!(pair.b.count("CANCEL", 0), 1);
    pair.assert_nothing_left(1);
    assert_eq!(pair.counter("call_no_answer"), 1);
}

#[test]
fn a_callee_that_does_not_exist_is_given_up() {
    let mut pair = Pair::new();
    pair.link.quality = Quality::PERFECT;
    pair.link.lose = vec![(End::B, "INVITE"); 20];
    pair.a.invite("bob", Some(&offer()));
    pair.run(Duration::from_secs(33));
    assert_eq!(pair.a.count("INVITE", 408), 1);
    pair.assert_nothing_left(1);
}

#[test]
fn forked_answers() {
    let mut pair = Pair::new();
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    pair.b.respond_as(183, Some(&sdp("10.9.0.21", 51000, "8", "")), "fork-1", "");
    pair.run_ms(100);
    assert_eq!(pair.plan().streams[0].callee.peer.unwrap().rtp.port(), 51000);
    pair.b.respond_as(180, None, "fork-2", "");
    pair.b.respond_as(200, Some(&answer()), "fork-2", "");
    pair.run_ms(100);
    assert_eq!(pair.plan().streams[0].callee.peer.unwrap().rtp.port(), 50000);
    assert!(pair.b.last("ACK", 0).header("To").unwrap().contains("fork-2"));
    pair.b.respond_as(200, Some(&sdp("10.9.0.21", 51000, "8", "")), "fork-1", "");
    pair.b.invite_done();
    pair.run_ms(100);
    assert!(pair.b.last("ACK", 0).header("To").unwrap().contains("fork-1"));
    assert!(pair.b.last("BYE", 0).header("To").unwrap().contains("fork-1"));
    assert_eq!(pair.a.count("INVITE", 200), 1);
    assert_eq!(pair.counter("fork_ended"), 1);
    assert_eq!(pair.calls().len(), 1);
    pair.a.bye();
    pair.run_ms(100);
    assert!(pair.b.last("BYE", 0).header("To").unwrap().contains("fork-2"));
    pair.assert_nothing_left(1);
}

// --- CANCEL ---

#[test]
fn cancel_while_ringing() {
    let mut pair = Pair::new();
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    pair.b.respond(180, None);
    pair.run_ms(100);
    pair.a.cancel();
    pair.run_ms(100);
    assert_eq!((pair.a.count("CANCEL", 200), pair.a.count("INVITE", 487)), (1, 1));
    assert_eq!(pair.b.count("CANCEL", 0), 1);
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

// --- ACK ---

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

// --- BYE ---

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

// --- changes ---

#[test]
fn hold_and_resume() {
    let mut pair = Pair::new();
    pair.basic_call();
    let ports = pair.plan().clone();
    pair.b.on_update = OnUpdate::Answer(sdp("10.9.0.20", 50000, "8", "a=recvonly\r\n"));
    pair.a.reinvite(Some(&sdp("198.51.100.10", 40000, "8", "a=sendonly\r\n")));
    pair.run_ms(200);
    assert!(pair.b.last("INVITE", 0).body().contains("a=sendonly"));
    assert!(pair.a.last("INVITE", 200).body().contains("a=recvonly"));
    assert_eq!(pair.b.count("ACK", 0), 2);
    assert_eq!(pair.plan(), &ports, "the ports stay");
    pair.b.on_update = OnUpdate::Answer(answer());
    pair.a.reinvite(Some(&offer()));
    pair.run_ms(200);
    assert!(!pair.a.last("INVITE", 200).body().contains("a=recvonly"));
    assert_eq!(pair.calls()[0].state, CallState::Answered);
    pair.b.bye();
    pair.assert_nothing_left(1);
}

#[test]
fn the_callee_moves_its_media() {
    let mut pair = Pair::new();
    pair.basic_call();
    pair.a.on_update = OnUpdate::Answer(offer());
    pair.b.reinvite(Some(&sdp("10.9.0.20", 50010, "0 8", "")));
    pair.run_ms(200);
    assert_eq!(pair.plan().streams[0].callee.peer.unwrap().rtp.port(), 50010);
    assert_eq!(pair.b.count("INVITE", 200), 1);
    assert_eq!(pair.a.count("ACK", 0), 1);
    // The same by UPDATE.
    pair.b.update(&sdp("10.9.0.20", 50020, "0 8", ""));
    pair.run_ms(200);
    assert_eq!(pair.plan().streams[0].callee.peer.unwrap().rtp.port(), 50020);
    assert_eq!(pair.b.count("UPDATE", 200), 1);
    pair.a.bye();
    pair.assert_nothing_left(1);
}

#[test]
fn a_refused_change_changes_nothing() {
    let mut pair = Pair::new();
    pair.basic_call();
    let before = pair.plan().clone();
    pair.b.on_update = OnUpdate::Refuse(488);
    let video = sdp("198.51.100.10", 40002, "8", "m=video 40100 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n");
    pair.a.reinvite(Some(&video));
    pair.run_ms(200);
    assert_eq!(pair.a.count("INVITE", 488), 1);
    assert_eq!(pair.plan(), &before);
    assert_eq!(pair.status().ports_in_use, 4);
    pair.b.on_update = OnUpdate::Answer(sdp("10.9.0.20", 50000, "8", "m=video 50100 RTP/AVP 96\r\n"));
    pair.a.reinvite(Some(&video));
    pair.run_ms(200);
    assert_eq!(pair.a.count("INVITE", 200), 2);
    assert_eq!(pair.plan().streams.len(), 2);
    assert_eq!(pair.status().ports_in_use, 8);
    // And without video again.
    pair.b.on_update = OnUpdate::Answer(sdp("10.9.0.20", 50000, "8", "m=video 0 RTP/AVP 96\r\n"));
    pair.a.reinvite(Some(&sdp("198.51.100.10", 40002, "8", "m=video 0 RTP/AVP 96\r\n")));
    pair.run_ms(200);
    assert_eq!(pair.plan().streams.len(), 1);
    assert_eq!(pair.status().ports_in_use, 4);
    pair.a.bye();
    pair.assert_nothing_left(1);
}

#[test]
fn a_reinvite_without_offer() {
    let mut pair = Pair::new();
    pair.basic_call();
    pair.a.ack_sdp = Some(sdp("198.51.100.10", 40004, "8", ""));
    pair.b.on_update = OnUpdate::Answer(sdp("10.9.0.20", 50004, "8", ""));
    pair.a.reinvite(None);
    pair.run_ms(200);
    assert!(pair.b.last("ACK", 0).body().contains("10.9.0.1"));
    assert_eq!(pair.plan().streams[0].caller.peer.unwrap().rtp.port(), 40004);
    assert_eq!(pair.plan().streams[0].callee.peer.unwrap().rtp.port(), 50004);
    pair.a.bye();
    pair.assert_nothing_left(1);
}

#[test]
fn glare() {
    let mut pair = Pair::new();
    pair.basic_call();
    pair.a.reinvite(Some(&offer()));
    pair.run_ms(20);
    pair.b.reinvite(Some(&answer()));
    pair.run_ms(100);
    assert_eq!(pair.b.count("INVITE", 491), 1);
    pair.b.respond(491, None);
    pair.run_ms(100);
    assert_eq!(pair.a.count("INVITE", 491), 1);
    assert_eq!(pair.calls()[0].state, CallState::Answered);
    pair.a.bye();
    pair.assert_nothing_left(1);
}

#[test]
fn a_second_change_of_one_side_has_to_wait() {
    let mut pair = Pair::new();
    pair.basic_call();
    pair.a.reinvite(Some(&offer()));
    pair.run_ms(50);
    pair.a.update(&offer());
    pair.run_ms(50);
    assert!(pair.a.last("UPDATE", 500).header("Retry-After").is_some());
    pair.b.respond(200, Some(&answer()));
    pair.b.invite_done();
    pair.run_ms(100);
    assert_eq!(pair.a.count("INVITE", 200), 2);
    pair.a.bye();
    pair.assert_nothing_left(1);
}

#[test]
fn a_change_waits_for_the_first_ack() {
    let mut pair = Pair::new();
    pair.a.auto_ack = false;
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    pair.b.respond(200, Some(&answer()));
    pair.b.invite_done();
    pair.run_ms(100);
    pair.a.on_update = OnUpdate::Answer(offer());
    pair.b.reinvite(Some(&answer()));
    pair.run_ms(100);
    assert_eq!(pair.a.count("INVITE", 0), 0);
    pair.a.ack();
    pair.run_ms(100);
    assert_eq!(pair.a.count("INVITE", 0), 1);
    assert_eq!(pair.b.count("INVITE", 200), 1);
    pair.a.bye();
    pair.assert_nothing_left(1);
}

#[test]
fn a_cancelled_reinvite() {
    let mut pair = Pair::new();
    pair.basic_call();
    pair.a.reinvite(Some(&offer()));
    pair.run_ms(50);
    pair.b.respond(180, None);
    pair.run_ms(50);
    pair.a.cancel();
    pair.run_ms(100);
    assert_eq!(pair.b.count("CANCEL", 0), 1);
    assert_eq!(pair.a.count("INVITE", 487), 1);
    assert_eq!(pair.calls()[0].state, CallState::Answered);
    pair.a.bye();
    pair.assert_nothing_left(1);
}

#[test]
fn a_peer_without_the_dialog_ends_the_call() {
    let mut pair = Pair::new();
    pair.basic_call();
    pair.b.on_update = OnUpdate::Refuse(481);
    pair.a.reinvite(Some(&offer()));
    pair.run_ms(200);
    assert_eq!((pair.a.count("BYE", 0), pair.a.count("INVITE", 487)), (1, 1));
    pair.assert_nothing_left(1);
}

// --- other requests ---

#[test]
fn info_and_options_inside_the_dialog_are_relayed() {
    let mut pair = Pair::new();
    pair.basic_call();
    let dtmf = "Signal=5\r\nDuration=160\r\n";
    pair.a.in_dialog("INFO", Some(("application/dtmf-relay", dtmf)), "X-Trace: a  b\r\n");
    pair.b.in_dialog("OPTIONS", None, "");
    pair.run_ms(100);
    let info = pair.b.last("INFO", 0);
    assert_eq!(info.body(), dtmf);
    assert_eq!(info.header("Content-Type").unwrap(), "application/dtmf-relay");
    assert!(info.text.contains("\r\nX-Trace: a  b\r\n"));
    assert_eq!((pair.a.count("INFO", 200), pair.b.count("OPTIONS", 200)), (1, 1));
    pair.a.bye();
    pair.assert_nothing_left(1);
}

/// The ACK repeats the number of its INVITE, whatever was sent since.
#[test]
fn info_while_a_change_is_pending() {
    let mut pair = Pair::new();
    pair.basic_call();
    pair.a.reinvite(Some(&offer()));
    pair.run_ms(50);
    pair.a.in_dialog("INFO", None, "");
    pair.run_ms(50);
    pair.b.respond(200, Some(&answer()));
    pair.b.invite_done();
    pair.run_ms(100);
    let number = |text: &str| pair::ua::cseq_of(text).0;
    assert_eq!(number(&pair.b.last("ACK", 0).text), number(&pair.b.last("INVITE", 0).text));
    assert_eq!(pair.b.last("INFO", 0).header("Max-Forwards").unwrap(), "69");
    pair.a.bye();
    pair.assert_nothing_left(1);
}

/// Who knows the identifiers of a dialog but is another trunk gets nowhere.
#[test]
fn a_dialog_belongs_to_its_trunk() {
    let mut pair = Pair::new();
    pair.basic_call();
    pair.a.bye();
    let bye: Vec<u8> = pair.a.outbox.pop_front().unwrap();
    let flow = Flow { listener: ListenerId(1), transport: Transport::Udp, remote: pair.b.addr, conn: None };
    pair.input(Input::Datagram { flow, bytes: &bye });
    assert_eq!(pair.counter("no_such_dialog"), 1);
    assert_eq!(pair.calls()[0].state, CallState::Answered);
    pair.command(Command::HangUpAll);
    pair.assert_nothing_left(1);
}

#[test]
fn an_invite_that_comes_by_two_ways_is_one_call() {
    let mut pair = Pair::new();
    pair.a.invite("bob", Some(&offer()));
    let copy = pair.a.sent.last().unwrap().replace("branch=z9hG4bK", "branch=z9hG4bKother");
    pair.a.raw(&copy);
    pair.run_ms(100);
    assert_eq!((pair.calls().len(), pair.counter("loop")), (1, 1));
    pair.b.respond(486, None);
    pair.assert_nothing_left(1);
}

#[test]
fn requests_outside_of_a_dialog() {
    let mut pair = Pair::new();
    for (method, status) in [
        ("OPTIONS", 200),
        ("REGISTER", 405),
        ("SUBSCRIBE", 405),
        ("INFO", 481),
        ("BYE", 481),
        ("MESSAGE", 405),
    ] {
        pair.a.outside(method, "");
        pair.run_ms(100);
        assert_eq!(pair.a.count(method, status), 1, "{method}");
    }
    assert!(pair.a.last("OPTIONS", 200).header("Allow").unwrap().contains("INVITE"));
    assert!(pair.a.last("REGISTER", 405).header("Allow").is_some());
    assert!(pair.to_b.is_empty());
    pair.assert_nothing_left(0);
}

#[test]
fn an_unknown_method_is_not_implemented() {
    let mut pair = Pair::new();
    let flow = Flow { listener: ListenerId(0), transport: Transport::Udp, remote: pair.a.addr, conn: None };
    let request = "FROBNICATE sip:x@203.0.113.1 SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.10:5060;branch=z9hG4bKx\r\n\
                   From: <sip:a@h>;tag=1\r\nTo: <sip:x@203.0.113.1>\r\nCall-ID: f\r\nCSeq: 1 FROBNICATE\r\n\
                   Content-Length: 0\r\n\r\n";
    pair.input(Input::Datagram { flow, bytes: request.as_bytes() });
    assert!(pair.to_a[0].starts_with("SIP/2.0 501 "), "{}", pair.to_a[0]);
}

#[test]
fn hops_extensions_and_loops() {
    let mut pair = Pair::new();
    pair.a.extra = "Require: 100rel\r\n".into();
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    assert_eq!(pair.a.last("INVITE", 420).header("Unsupported").unwrap(), "100rel");
    pair.a.extra = String::new();
    pair.a.invite("bob", Some(&offer()));
    let text = pair.a.sent.last().unwrap().replace("Max-Forwards: 70", "Max-Forwards: 0");
    pair.a.outbox.clear();
    pair.a.raw(&text);
    pair.run_ms(100);
    assert_eq!(pair.a.count("INVITE", 483), 1);
    pair.settle();
    // What we send to B comes back from B.
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    let invite = pair.b.last("INVITE", 0).text.clone();
    assert_eq!(pair.b.last("INVITE", 0).header("Max-Forwards").unwrap(), "69");
    pair.b.raw(&invite.replace("z9hG4bK", "z9hG4bK-proxy\r\nVia: SIP/2.0/UDP 10.9.0.1:5060;branch=z9hG4bK"));
    pair.run_ms(100);
    assert_eq!(pair.counter("loop"), 1);
    pair.b.respond(486, None);
    pair.assert_nothing_left(1);
}

#[test]
fn an_old_cseq_is_refused() {
    let mut pair = Pair::new();
    pair.basic_call();
    pair.a.in_dialog("INFO", None, "");
    pair.run_ms(100);
    let old = pair.a.sent.iter().rev().find(|text| text.starts_with("INFO")).unwrap().clone();
    pair.a.raw(&old.replace("CSeq: 2 INFO", "CSeq: 1 INFO").replace(";branch=z9hG4bK", ";branch=z9hG4bKold"));
    pair.run_ms(100);
    assert_eq!(pair.a.count("INFO", 500), 1);
    assert_eq!(pair.b.count("INFO", 0), 1);
    pair.a.bye();
    pair.assert_nothing_left(1);
}

// --- refusals ---

#[test]
fn media_failure_is_never_a_200() {
    let mut pair = Pair::new();
    pair.media = Media::Fail;
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    assert_eq!(pair.a.count("INVITE", 503), 1);
    assert!(pair.to_b.is_empty());
    pair.assert_nothing_left(1);

    let mut pair = Pair::new();
    pair.media = Media::FailAfter(1);
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    pair.b.respond(200, Some(&answer()));
    pair.b.invite_done();
    pair.run_ms(100);
    assert_eq!((pair.a.count("INVITE", 503), pair.a.count("INVITE", 200)), (1, 0));
    assert_eq!((pair.b.count("ACK", 0), pair.b.count("BYE", 0)), (1, 1));
    pair.assert_nothing_left(1);
    assert_eq!(pair.records[0].ended_by, EndedBy::Local);
}

#[test]
fn media_failure_of_a_change_leaves_the_call_as_it_was() {
    let mut pair = Pair::new();
    pair.basic_call();
    pair.media = Media::FailAfter(0);
    let before = pair.plan().clone();
    pair.a.reinvite(Some(&sdp("198.51.100.10", 40002, "8", "m=video 40100 RTP/AVP 96\r\n")));
    pair.run_ms(100);
    assert_eq!(pair.a.count("INVITE", 503), 1);
    assert_eq!(pair.plan(), &before);
    assert_eq!(pair.status().ports_in_use, 4);
    pair.a.bye();
    pair.assert_nothing_left(1);
}

#[test]
fn dtls_is_refused_and_says_why() {
    let mut pair = Pair::new();
    let dtls =
        offer().replace("RTP/AVP", "UDP/TLS/RTP/SAVPF") + "a=fingerprint:sha-256 AB\r\na=setup:actpass\r\n";
    pair.a.invite("bob", Some(&dtls));
    pair.run_ms(100);
    let warning = pair.a.last("INVITE", 488).header("Warning").unwrap();
    assert!(warning.starts_with("302 203.0.113.1 ") && warning.contains("DTLS"), "{warning}");
    assert!(pair.to_b.is_empty());
    pair.assert_nothing_left(1);
}

#[test]
fn sdes_is_never_learned() {
    let mut pair = Pair::with(Setup { learn_a: true, ..Setup::default() });
    let key = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz\r\n";
    pair.a.invite("bob", Some(&sdp("198.51.100.10", 40000, "8", key).replace("RTP/AVP", "RTP/SAVP")));
    pair.run_ms(100);
    assert!(pair.b.last("INVITE", 0).body().contains("a=crypto:1 "));
    for side in [&pair.plan().streams[0].caller, &pair.plan().streams[0].callee] {
        assert_eq!(side.source, SourcePolicy::Signalled);
    }
    pair.a.cancel();
    pair.b.respond(100, None);
    pair.assert_nothing_left(1);
}

#[test]
fn media_behind_nat_is_learned_from_the_signalling_address() {
    let mut pair = Pair::with(Setup { learn_a: true, ..Setup::default() });
    pair.a.invite("bob", Some(&sdp("192.168.1.10", 40000, "8", "")));
    pair.run_ms(100);
    let learn = SourcePolicy::Learn { allowed: "198.51.100.10".parse().unwrap() };
    assert_eq!(pair.plan().streams[0].caller.source, learn);
    pair.b.respond(200, Some(&answer()));
    pair.run_ms(100);
    assert_eq!(pair.plan().streams[0].caller.source, learn);
    assert_eq!(pair.plan().streams[0].callee.source, SourcePolicy::Signalled);
    pair.a.bye();
    pair.assert_nothing_left(1);
}

#[test]
fn other_streams_are_refused_with_port_0() {
    let mut pair = Pair::new();
    pair.a.invite("bob", Some(&sdp("198.51.100.10", 40000, "8", "m=image 40010 udptl t38\r\n")));
    pair.run_ms(100);
    assert!(pair.b.last("INVITE", 0).body().contains("m=image 0 udptl t38"));
    pair.b.respond(200, Some(&sdp("10.9.0.20", 50000, "8", "m=image 0 udptl t38\r\n")));
    pair.run_ms(100);
    assert!(pair.a.last("INVITE", 200).body().contains("m=image 0 udptl t38"));
    assert_eq!(pair.plan().streams.len(), 1);
    pair.a.bye();
    pair.assert_nothing_left(1);
}

#[test]
fn bodies_that_are_not_understood() {
    let mut pair = Pair::new();
    pair.a.invite("bob", None);
    let text = pair.a.sent.last().unwrap().replace(
        "Content-Length: 0\r\n\r\n",
        "Content-Type: multipart/mixed;boundary=x\r\nContent-Length: 5\r\n\r\n--x--",
    );
    pair.a.outbox.clear();
    pair.a.raw(&text);
    pair.run_ms(100);
    assert_eq!(pair.a.last("INVITE", 415).header("Accept").unwrap(), "application/sdp");
    pair.assert_nothing_left(1);
    let mut pair = Pair::new();
    pair.a.invite("bob", Some("this is no SDP\r\n"));
    pair.run_ms(100);
    assert_eq!(pair.a.count("INVITE", 400), 1);
    pair.assert_nothing_left(1);
}

#[test]
fn an_unusable_answer_ends_the_call() {
    for answer in [None, Some(sdp("10.9.0.20", 50000, "8", "m=video 50100 RTP/AVP 96\r\n"))] {
        let mut pair = Pair::new();
        pair.a.invite("bob", Some(&offer()));
        pair.run_ms(100);
        pair.b.respond(200, answer.as_deref());
        pair.b.invite_done();
        pair.run_ms(100);
        assert_eq!(pair.a.count("INVITE", 502), 1);
        assert_eq!((pair.b.count("ACK", 0), pair.b.count("BYE", 0)), (1, 1));
        pair.assert_nothing_left(1);
    }
}

#[test]
fn ports_exhausted() {
    let mut pair = Pair::with(Setup { ports: 20000..=20001, ..Setup::default() });
    pair.basic_call();
    let first = (pair.a.call_id.clone(), pair.b.call_id.clone());
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    assert!(pair.a.last("INVITE", 503).header("Retry-After").is_some());
    assert_eq!(pair.counter("refused_ports"), 1);
    assert_eq!(pair.calls().len(), 1, "{first:?}");
    pair.command(Command::HangUpAll);
    pair.assert_nothing_left(2);
}

#[test]
fn a_full_house_and_a_draining_one() {
    let mut pair = Pair::with(Setup { max_calls: 1, ..Setup::default() });
    pair.basic_call();
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    assert!(pair.a.last("INVITE", 503).header("Retry-After").is_some());
    assert_eq!(pair.counter("refused_capacity"), 1);
    assert_eq!(pair.command(Command::Drain), Reply::Accepted { calls: 1 });
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    assert_eq!(pair.counter("refused_draining"), 1);
    pair.a.outside("OPTIONS", "");
    pair.run_ms(100);
    assert_eq!(pair.a.count("OPTIONS", 503), 1);
    assert_eq!(pair.calls()[0].state, CallState::Answered);
    assert_eq!(pair.command(Command::HangUpAll), Reply::Accepted { calls: 1 });
    pair.run_ms(100);
    assert_eq!(pair.b.count("BYE", 0), 1);
    assert!(pair.b.last("BYE", 0).header("Reason").is_some());
    pair.assert_nothing_left(3);
}

#[test]
fn retransmitted_requests_open_one_call() {
    let mut pair = Pair::new();
    pair.a.invite("bob", Some(&offer()));
    let invite = pair.a.sent.last().unwrap().clone();
    pair.a.raw(&invite);
    pair.a.raw(&invite);
    pair.run_ms(100);
    assert_eq!(pair.calls().len(), 1);
    assert_eq!(pair.to_b.len(), 1);
    pair.b.respond(486, None);
    pair.assert_nothing_left(1);
}

#[test]
fn a_stranger_hears_nothing() {
    let mut pair = Pair::new();
    pair.a.invite("bob", Some(&offer()));
    pair.a.outside("OPTIONS", "");
    let messages: Vec<_> = pair.a.outbox.drain(..).collect();
    for (listener, remote) in [(0, "192.0.2.66:5060"), (1, "198.51.100.10:5060")] {
        let flow = Flow {
            listener: ListenerId(listener),
            transport: Transport::Udp,
            remote: remote.parse().unwrap(),
            conn: None,
        };
        for bytes in &messages {
            pair.input(Input::Datagram { flow, bytes });
        }
        pair.input(Input::Datagram { flow, bytes: b"\r\n\r\n" });
        pair.input(Input::Datagram { flow, bytes: b"INVITE garbage" });
    }
    assert!(pair.to_a.is_empty() && pair.to_b.is_empty());
    assert_eq!(pair.counter("unknown_source"), 6);
}

// --- topology ---

/// Names and addresses of each side, as the other must never see them.
fn assert_hidden(pair: &Pair) {
    let of_b = ["10.9.0.", "pbx.internal", "bob-ua", "bob-server", &pair.b.call_id, &pair.b.local_tag];
    let of_a = [
        "198.51.100.",
        "203.0.113.",
        "carrier.example",
        "alice-ua",
        "alice-server",
        &pair.a.call_id,
        &pair.a.local_tag,
    ];
    for (messages, secrets) in [(&pair.to_a, &of_b[..]), (&pair.to_b, &of_a[..])] {
        for message in messages {
            for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
                assert!(!message.contains(secret), "{secret} in {message}");
            }
        }
    }
}

#[test]
fn topology_is_hidden() {
    let mut pair = Pair::new();
    pair.a.extra = "P-Asserted-Identity: \"Alice\" <sip:+331@carrier.example;user=phone>, <tel:+331>\r\n\
                    Diversion: <sip:+332@198.51.100.77:5060;transport=udp>;reason=unconditional\r\n\
                    History-Info: <sip:bob@carrier.example?Reason=SIP%3Bcause%3D302>;index=1\r\n\
                    Record-Route: <sip:198.51.100.10;lr>\r\n\
                    X-Carrier: kept  as: it is\r\n\
                    X-Trunk-Host: gw7.carrier.example\r\n\
                    P-Charging-Vector: icid-value=1;icid-generated-at=198.51.100.9\r\n\
                    Call-Info: <http://198.51.100.9/pic.png>;purpose=icon\r\n\
                    Warning: 399 carrier.example \"hello\"\r\n"
        .into();
    pair.basic_call();
    let invite = pair.b.last("INVITE", 0);
    assert!(invite.text.contains("\r\nX-Carrier: kept  as: it is\r\n"));
    assert_eq!(
        invite.header("P-Asserted-Identity").unwrap(),
        "\"Alice\" <sip:+331@10.9.0.1;user=phone>, <tel:+331>"
    );
    assert_eq!(invite.header("Diversion").unwrap(), "<sip:+332@10.9.0.1>;reason=unconditional");
    assert_eq!(invite.header("X-Trunk-Host"), None);
    assert_eq!(invite.header("From").unwrap().split(';').next().unwrap(), "<sip:alice@10.9.0.1>");
    assert!(invite.text.starts_with("INVITE sip:bob@10.9.0.20:5060 SIP/2.0\r\n"));
    assert_eq!(pair.counter("header_hidden"), 1);
    pair.a.in_dialog("INFO", Some(("text/plain", "x")), "");
    pair.b.in_dialog("OPTIONS", None, "");
    pair.a.on_update = OnUpdate::Answer(offer());
    pair.run_ms(100);
    pair.b.reinvite(Some(&answer()));
    pair.run_ms(200);
    pair.b.bye();
    pair.assert_nothing_left(1);
    assert_hidden(&pair);
}

#[test]
fn refusals_hide_topology_too() {
    for status in [302, 404, 407, 488, 503] {
        let mut pair = Pair::new();
        pair.a.invite("bob", Some(&offer()));
        pair.run_ms(100);
        let extra = "Warning: 370 pbx.internal:5060 \"no bandwidth\"\r\nWWW-Authenticate: Digest realm=\"pbx.internal\"\r\n\
                     X-Where: at 10.9.0.20, there\r\n";
        pair.b.respond_as(status, None, "refused", extra);
        pair.run_ms(100);
        pair.assert_nothing_left(1);
        assert_hidden(&pair);
        assert!(
            pair.to_a.iter().any(|message| message.contains("Warning: 370 203.0.113.1 \"no bandwidth\""))
        );
    }
}

#[test]
fn without_hiding_names_pass() {
    let mut pair = Pair::with(Setup { hide: false, ..Setup::default() });
    pair.a.extra = "P-Asserted-Identity: <sip:+331@carrier.example>\r\n".into();
    pair.basic_call();
    let invite = pair.b.last("INVITE", 0);
    assert!(invite.header("From").unwrap().starts_with("<sip:alice@carrier.example>"));
    assert_eq!(invite.header("P-Asserted-Identity").unwrap(), "<sip:+331@carrier.example>");
    assert_ne!(invite.header("Call-ID").unwrap(), pair.a.call_id);
    pair.a.bye();
    pair.assert_nothing_left(1);
}

// --- streams ---

#[test]
fn a_tls_leg_in_odd_chunks() {
    for chunks in [vec![1], vec![7, 1, 300], vec![4096], vec![13, 1000]] {
        let mut pair = Pair::with(Setup {
            a_transport: Transport::Tls,
            b_transport: Transport::Tcp,
            ..Setup::default()
        });
        pair.chunks = chunks;
        pair.basic_call();
        assert!(pair.b.last("INVITE", 0).header("Via").unwrap().starts_with("SIP/2.0/TCP 10.9.0.1:5060"));
        assert!(pair.a.last("INVITE", 200).header("Contact").unwrap().contains("transport=tls"));
        pair.b.bye();
        pair.run_ms(100);
        assert!(pair.a.ended);
        pair.assert_nothing_left(1);
        assert_hidden(&pair);
    }
}

#[test]
fn keep_alive_on_a_stream_is_answered() {
    let mut pair = Pair::with(Setup { a_transport: Transport::Tls, ..Setup::default() });
    pair.input(Input::StreamBytes { conn: ConnId(1), bytes: b"\r\n" });
    pair.input(Input::StreamBytes { conn: ConnId(1), bytes: b"\r\n" });
    assert_eq!(pair.to_a, ["\r\n"]);
}

#[test]
fn broken_framing_closes_the_connection() {
    let mut pair = Pair::with(Setup { a_transport: Transport::Tls, ..Setup::default() });
    let endless = vec![b'x'; 200_000];
    pair.input(Input::StreamBytes { conn: ConnId(1), bytes: &endless });
    assert_eq!(pair.closed, [ConnId(1)]);
    assert_eq!(pair.counter("framing_broken"), 1);
    pair.input(Input::StreamBytes { conn: ConnId(1), bytes: b"more" });
    assert_eq!(pair.counter("unknown_connection"), 1);
}

#[test]
fn a_lost_connection_ends_the_call_unless_it_comes_back() {
    let mut pair = Pair::with(Setup { a_transport: Transport::Tls, ..Setup::default() });
    pair.basic_call();
    pair.input(Input::StreamClosed { conn: ConnId(1) });
    pair.run(Duration::from_secs(10));
    assert_eq!(pair.calls().len(), 1);
    let flow = Flow {
        listener: ListenerId(0),
        transport: Transport::Tls,
        remote: pair.a.addr,
        conn: Some(ConnId(1)),
    };
    pair.input(Input::StreamOpened { flow });
    pair.a.in_dialog("INFO", None, "");
    pair.run(Duration::from_secs(60));
    assert_eq!((pair.a.count("INFO", 200), pair.calls().len()), (1, 1));
    pair.input(Input::StreamClosed { conn: ConnId(1) });
    pair.run(Duration::from_secs(33));
    assert_eq!(pair.b.count("BYE", 0), 1);
    pair.assert_nothing_left(1);
    assert_eq!(pair.records[0].cause, "connection lost");
}

// --- chance ---

/// A call over a link that loses a fifth of everything: whatever happens, nothing is left of it.
#[test]
fn any_call_over_a_bad_link_leaves_nothing() {
    let mut answered = 0;
    for seed in 0..300 {
        let mut pair = Pair::with(Setup { quality: Quality::BAD, seed, ..Setup::default() });
        pair.media =
            if seed % 3 == 0 { Media::Slow(Duration::from_millis(seed * 7 % 400)) } else { Media::Ok };
        pair.a.on_update = OnUpdate::Answer(offer());
        pair.b.on_update = OnUpdate::Answer(answer());
        pair.a.invite("bob", Some(&offer()));
        pair.run_ms(seed * 37 % 3000);
        match seed % 5 {
            0 => pair.a.cancel(),
            1 if !pair.b.invites.is_empty() => pair.b.respond(486, None),
            _ if !pair.b.invites.is_empty() => {
                pair.b.respond(183, Some(&answer()));
                pair.run_ms(seed * 11 % 700);
                pair.b.respond(200, Some(&answer()));
                pair.b.invite_done();
            }
            _ => {}
        }
        pair.run_ms(seed * 53 % 4000);
        if pair.a.up && seed % 2 == 0 {
            pair.a.reinvite(Some(&sdp("198.51.100.10", 40002, "8", "")));
        }
        if pair.b.up && seed % 3 == 0 && !pair.b.ended {
            pair.b.reinvite(Some(&sdp("10.9.0.20", 50002, "8", "")));
        }
        pair.run_ms(seed * 29 % 2500);
        answered += u32::from(pair.a.up);
        if pair.b.up && seed % 4 < 2 && !pair.b.ended {
            pair.b.bye();
        }
        if pair.a.up && seed % 4 > 0 && !pair.a.ended {
            pair.a.bye();
        }
        pair.run(Duration::from_secs(100));
        pair.command(Command::HangUpAll);
        pair.assert_nothing_left(1);
        assert_hidden(&pair);
    }
    assert!(answered > 100, "{answered} calls were answered");
}

/// The messages of a whole call, of both sides, in the order in which they were sent.
fn script(setup: Setup) -> Vec<(bool, Vec<u8>)> {
    let mut pair = Pair::with(setup);
    pair.basic_call();
    let no_video = "m=video 0 RTP/AVP 96\r\n";
    pair.a.on_update = OnUpdate::Answer(sdp("198.51.100.10", 40002, "8", no_video));
    pair.b.on_update = OnUpdate::Answer(sdp("10.9.0.20", 50000, "8", no_video));
    pair.a.reinvite(Some(&sdp("198.51.100.10", 40002, "8", "m=video 40100 RTP/AVP 96\r\n")));
    pair.run_ms(200);
    pair.b.in_dialog("INFO", Some(("text/plain", "x")), "");
    pair.run_ms(100);
    pair.b.update(&sdp("10.9.0.20", 50010, "8", no_video));
    pair.run_ms(100);
    pair.a.bye();
    pair.settle();
    pair.heard
}

/// The messages of a call, damaged, lost, doubled and in a wrong order: nothing panics, nothing is left.
#[test]
fn damaged_calls_leave_nothing() {
    let script = script(Setup::default());
    assert!(script.len() > 12);
    let mut reached = [0_u32; 2];
    for seed in 0..400 {
        let mut rng = SeededRng::new(seed);
        // The same seed inside: tags and branches come out as the script knows them.
        let mut pair = Pair::with(Setup { mute: true, ..Setup::default() });
        pair.media = if rng.next_u64() % 8 == 0 { Media::FailAfter(1) } else { Media::Ok };
        let mut messages = script.clone();
        for _ in 0..rng.next_u64() % 4 {
            let (from, to) =
                (rng.next_u64() as usize % messages.len(), rng.next_u64() as usize % messages.len());
            let message = messages[from].clone();
            match rng.next_u64() % 4 {
                0 => messages.swap(from, to),
                1 => messages.insert(to, message),
                2 => drop(messages.remove(from)),
                _ => {
                    let bytes = &mut messages[from].1;
                    for _ in 0..=rng.next_u64() % 3 {
                        let at = rng.next_u64() as usize % bytes.len();
                        bytes[at] = (rng.next_u64() % 256) as u8;
                    }
                }
            }
        }
        for (from_a, bytes) in messages {
            let (listener, remote) = if from_a { (0, pair.a.addr) } else { (1, pair.b.addr) };
            let flow = Flow { listener: ListenerId(listener), transport: Transport::Udp, remote, conn: None };
            pair.input(Input::Datagram { flow, bytes: &bytes });
            pair.run_ms(rng.next_u64() % 50);
        }
        let status = pair.status();
        reached[0] += u32::from(status.calls_answered > 0);
        reached[1] += u32::from(status.calls_failed > 0);
        pair.run(Duration::from_secs(rng.next_u64() % 100));
        pair.command(Command::HangUpAll);
        pair.settle();
        let status = pair.status();
        let left = (status.calls, status.transactions, status.timers, status.ports_in_use, pair.plans.len());
        assert_eq!(left, (0, 0, 0, 0, 0), "seed {seed}");
        assert_eq!(pair.records.len() as u64, status.calls_offered, "seed {seed}");
    }
    assert!(reached[0] > 200 && reached[1] > 5, "{reached:?}");
}
