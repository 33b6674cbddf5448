//! Changes of the session in a call that is up.

use sbc_core::command::CallState;

use crate::pair::ua::OnUpdate;
use crate::pair::{Pair, sdp};
use crate::{answer, offer};

#[test]
fn hold_and_resume() {
    let mut pair = Pair::new();
    pair.basic_call();
    let ports = pair.plan().clone();
    pair.b.on_update = OnUpdate::Answer(sdp("10.9.0.20", 50000, "8 101", "a=recvonly\r\n"));
    pair.a.reinvite(Some(&sdp("198.51.100.10", 40000, "0 8 101", "a=sendonly\r\n")));
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
fn a_change_of_an_unknown_kind_is_refused() {
    let mut pair = Pair::new();
    pair.basic_call();
    pair.a.in_dialog("UPDATE", Some(("application/unheard-of", "v=0")), "");
    pair.run_ms(100);
    assert_eq!(pair.a.last("UPDATE", 415).header("Accept").unwrap(), "application/sdp");
    assert_eq!(pair.b.count("UPDATE", 0), 0);
    // A description that nobody asked for shows addresses and stays behind.
    pair.b.on_update = OnUpdate::Answer(answer());
    pair.a.in_dialog("UPDATE", None, "");
    pair.run_ms(100);
    assert_eq!((pair.a.last("UPDATE", 200).body(), pair.b.count("UPDATE", 0)), ("", 1));
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
