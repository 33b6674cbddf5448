//! What this SBC refuses by itself, and how.

use std::time::Duration;

use sbc_core::Input;
use sbc_core::command::{CallState, Command, Reply};
use sbc_core::flow::{Flow, Transport};
use sbc_core::id::ListenerId;
use sbc_core::media::plan::SourcePolicy;
use sbc_core::record::EndedBy;

use crate::learned;
use crate::pair::{Media, Pair, Setup, sdp};
use crate::{answer, offer};

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
fn a_dataplane_that_does_not_answer_holds_no_call() {
    let mut pair = Pair::new();
    pair.media = Media::Slow(Duration::from_secs(3000));
    pair.a.invite("bob", Some(&offer()));
    pair.run(Duration::from_secs(181));
    assert_eq!(pair.a.count("INVITE", 408), 1);
    pair.run(Duration::from_secs(71));
    let status = pair.status();
    assert_eq!((status.calls, status.ports_in_use, pair.records.len()), (0, 0, 1));
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
    let mut pair = Pair::with(Setup { media_a: learned(), ..Setup::default() });
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
    let mut pair = Pair::with(Setup { media_a: learned(), ..Setup::default() });
    pair.a.invite("bob", Some(&sdp("192.168.1.10", 40000, "8", "")));
    pair.run_ms(100);
    let learn = SourcePolicy::learn_from("198.51.100.10".parse().unwrap());
    assert_eq!(pair.plan().streams[0].caller.source, learn);
    pair.b.respond(200, Some(&answer()));
    pair.run_ms(100);
    assert_eq!(pair.plan().streams[0].caller.source, learn);
    assert_eq!(pair.plan().streams[0].callee.source, SourcePolicy::Signalled);
    pair.a.bye();
    pair.assert_nothing_left(1);
}

/// The address in its Contact is one of its own network, or of a binding that is gone.
#[test]
fn a_peer_behind_nat_is_asked_where_it_was_last_heard() {
    let mut pair = Pair::with(Setup { media_a: learned(), ..Setup::default() });
    pair.basic_call();
    pair.a.addr.set_port(40_001);
    pair.a.in_dialog("INFO", None, "");
    pair.run_ms(100);
    pair.b.bye();
    pair.run_ms(100);
    assert_eq!((pair.a.count("BYE", 0), pair.last_to_a), (1, Some(pair.a.addr)));
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
