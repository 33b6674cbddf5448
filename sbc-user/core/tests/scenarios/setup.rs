//! How a call comes about: offer, early media, answer, forks, refusals of the callee.

use std::time::Duration;

use sbc_core::command::CallState;
use sbc_core::media::plan::SourcePolicy;
use sbc_core::record::EndedBy;

use crate::pair::link::{End, Quality};
use crate::pair::{Media, Pair, sdp};
use crate::{answer, offer};

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
    assert_eq!(before.callee.source, SourcePolicy::learn_from("10.9.0.20".parse().unwrap()));
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

/// Each second answer is ended once, whatever its copies and however many others there are.
#[test]
fn second_answers_are_ended_once() {
    let mut pair = Pair::new();
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    pair.b.respond_as(200, Some(&answer()), "kept", "");
    pair.run_ms(100);
    let copied = |pair: &mut Pair, tag: &str| {
        pair.b.respond_as(200, Some(&answer()), tag, "");
        let copy = pair.b.sent.last().unwrap().clone();
        pair.b.raw(&copy);
        pair.b.raw(&copy);
        pair.run_ms(100);
    };
    copied(&mut pair, "second");
    assert_eq!(pair.b.count("BYE", 0), 1);
    let acks = pair.to_b.iter().filter(|it| it.starts_with("ACK") && it.contains("tag=second")).count();
    assert_eq!(acks, 3);
    for fork in 0..20 {
        copied(&mut pair, &format!("fork-{fork}"));
    }
    assert_eq!(pair.b.count("BYE", 0), 8);
    pair.b.invite_done();
    pair.a.bye();
    pair.assert_nothing_left(1);
}

/// Requests in the early dialog are numbered on, whatever provisional responses follow.
#[test]
fn an_early_dialog_keeps_its_numbers() {
    let mut pair = Pair::new();
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    pair.b.respond_as(180, None, "bob-tag-1", "");
    pair.run_ms(100);
    let ringing = pair.a.last("INVITE", 180).text.clone();
    pair.a.adopt(&ringing);
    pair.a.in_dialog("INFO", None, "");
    pair.run_ms(100);
    pair.b.respond_as(183, Some(&answer()), "other", "");
    pair.b.respond_as(180, None, "bob-tag-1", "");
    pair.run_ms(100);
    pair.a.in_dialog("INFO", None, "");
    pair.run_ms(100);
    pair.b.respond_as(200, Some(&answer()), "bob-tag-1", "");
    pair.b.invite_done();
    pair.run_ms(100);
    pair.a.in_dialog("INFO", None, "");
    pair.run_ms(100);
    let infos = pair.b.seen.iter().filter(|seen| seen.method == "INFO" && seen.status == 0);
    let numbers: Vec<u32> = infos.map(|info| crate::pair::ua::cseq_of(&info.text).0).collect();
    assert_eq!(numbers, [2, 3, 4]);
    pair.a.bye();
    pair.assert_nothing_left(1);
}
