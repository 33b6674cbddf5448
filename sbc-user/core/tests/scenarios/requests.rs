//! Requests that are not about the session.

use sbc_core::Input;
use sbc_core::command::{CallState, Command};
use sbc_core::flow::{Flow, Transport};
use sbc_core::id::ListenerId;

use crate::pair::Pair;
use crate::pair::ua::text_tag;
use crate::{answer, offer};

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

/// What may found a subscription must say where its notifications go (RFC 3515 s.2.2, RFC 6665 s.8.2), here: to us.
#[test]
fn requests_that_found_subscriptions_have_a_contact() {
    let mut pair = Pair::new();
    pair.basic_call();
    pair.a.in_dialog("REFER", None, "Refer-To: <sip:carol@203.0.113.1>\r\n");
    pair.b.in_dialog("NOTIFY", None, "Event: refer\r\nSubscription-State: terminated\r\n");
    pair.a.in_dialog("SUBSCRIBE", None, "Event: dialog\r\n");
    pair.a.in_dialog("INFO", None, "");
    pair.run_ms(100);
    let contact = |ua: &crate::pair::ua::Ua, method, status| ua.last(method, status).header("Contact");
    for method in ["REFER", "SUBSCRIBE"] {
        assert_eq!(contact(&pair.b, method, 0).unwrap(), "<sip:10.9.0.1:5060>");
        assert_eq!(contact(&pair.a, method, 200).unwrap(), "<sip:203.0.113.1:5060>");
    }
    assert_eq!(contact(&pair.a, "NOTIFY", 0).unwrap(), "<sip:203.0.113.1:5060>");
    assert_eq!(contact(&pair.b, "INFO", 0), None);
    pair.a.bye();
    pair.assert_nothing_left(1);
}

/// Behind NAT it is the only way to learn the address under which one is seen (RFC 3581 s.4).
#[test]
fn every_response_says_where_its_request_came_from() {
    let mut pair = Pair::new();
    pair.basic_call();
    pair.a.in_dialog("INFO", None, "");
    pair.a.outside("OPTIONS", "");
    pair.a.outside("REGISTER", "");
    pair.run_ms(100);
    pair.a.bye();
    pair.run_ms(100);
    for (method, status) in [
        ("INVITE", 100),
        ("INVITE", 180),
        ("INVITE", 200),
        ("INFO", 200),
        ("OPTIONS", 200),
        ("REGISTER", 405),
        ("BYE", 200),
    ] {
        let via = pair.a.last(method, status).header("Via").unwrap();
        assert!(via.contains(";received=198.51.100.10;rport=5060"), "{method} {status}: {via}");
    }
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
    let number = |text: &str| crate::pair::ua::cseq_of(text).0;
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

/// So does an INVITE that is still open: a trunk on the same listener that has seen its branch cannot withdraw it.
#[test]
fn only_its_own_trunk_cancels_an_invite() {
    let mut pair = Pair::new();
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    pair.b.respond(180, None);
    pair.run_ms(100);
    pair.a.cancel();
    let cancel: Vec<u8> = pair.a.outbox.pop_front().unwrap();
    let remote = crate::pair::NEIGHBOUR_ADDR.parse().unwrap();
    let flow = Flow { listener: ListenerId(0), transport: Transport::Udp, remote, conn: None };
    pair.input(Input::Datagram { flow, bytes: &cancel });
    pair.run_ms(100);
    assert_eq!((pair.b.count("CANCEL", 0), pair.calls().len()), (0, 1));
    assert!(pair.to_neighbour[0].starts_with("SIP/2.0 481 "), "{}", pair.to_neighbour[0]);
    pair.b.respond(486, None);
    pair.assert_nothing_left(1);
}

/// Both answers come from one UAS (RFC 3261 s.9.2).
#[test]
fn a_cancel_is_answered_with_the_invites_to_tag() {
    let mut pair = Pair::new();
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    pair.b.respond(180, None);
    pair.run_ms(100);
    pair.a.cancel();
    pair.run_ms(100);
    let tag = |method, status| text_tag(&pair.a.last(method, status).text, "To");
    assert_eq!(tag("CANCEL", 200), tag("INVITE", 180));
    assert_eq!(tag("INVITE", 487), tag("INVITE", 180));
    pair.assert_nothing_left(1);
}

/// Nor can it take the place of a request by sending a copy of it first.
#[test]
fn a_neighbour_does_not_pre_empt_an_invite() {
    let mut pair = Pair::new();
    pair.a.invite("bob", Some(&offer()));
    let invite = pair.a.outbox.front().unwrap().clone();
    let remote = crate::pair::NEIGHBOUR_ADDR.parse().unwrap();
    let flow = Flow { listener: ListenerId(0), transport: Transport::Udp, remote, conn: None };
    pair.input(Input::Datagram { flow, bytes: &invite });
    pair.run_ms(100);
    assert_eq!((pair.calls().len(), pair.b.count("INVITE", 0)), (1, 1));
    pair.b.respond(486, None);
    // The neighbour's own, refused for want of a route, is the other record.
    pair.assert_nothing_left(2);
}

/// Nor keep a call from being set up by using its identifiers in one of its own.
#[test]
fn the_identifiers_of_another_trunks_call_are_no_loop() {
    let mut pair = Pair::new();
    pair.a.invite("bob", Some(&offer()));
    let invite = pair.a.outbox.front().unwrap().clone();
    let flow = Flow { listener: ListenerId(1), transport: Transport::Udp, remote: pair.b.addr, conn: None };
    pair.input(Input::Datagram { flow, bytes: &invite });
    pair.run_ms(100);
    assert_eq!((pair.calls().len(), pair.counter("loop")), (2, 0));
    pair.command(Command::HangUpAll);
    pair.run_ms(100);
    pair.assert_nothing_left(2);
}

#[test]
fn timers_of_transactions_show_in_the_status() {
    let mut pair = Pair::new();
    pair.a.outside("OPTIONS", "");
    pair.run_ms(100);
    let status = pair.status();
    assert_eq!((status.calls, status.transactions, status.timers), (0, 1, 1));
    pair.assert_nothing_left(0);
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
    // For another user it is no loop: a proxy there has forwarded the call.
    let forwarded = invite.replacen("INVITE sip:bob@", "INVITE sip:carol@", 1);
    pair.b.raw(
        &forwarded.replace("z9hG4bK", "z9hG4bK-proxy2\r\nVia: SIP/2.0/UDP 10.9.0.1:5060;branch=z9hG4bK"),
    );
    pair.run_ms(100);
    assert_eq!((pair.counter("loop"), pair.calls().len()), (1, 2));
    pair.command(Command::HangUpAll);
    pair.a.invite_done();
    pair.run_ms(100);
    pair.assert_nothing_left(2);
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
