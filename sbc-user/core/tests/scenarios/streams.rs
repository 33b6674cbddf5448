//! Signalling over connections.

use std::time::Duration;

use sbc_core::Input;
use sbc_core::flow::{Flow, Transport};
use sbc_core::id::{ConnId, ListenerId};

use crate::learned;
use crate::pair::{Pair, Setup};
use crate::{assert_hidden, offer};

#[test]
fn a_tls_leg_in_odd_chunks() {
    for chunks in [vec![1], vec![7, 1, 300], vec![4096], vec![13, 1000]] {
        let mut pair = Pair::with(Setup {
            a_transport: Transport::Tls,
            b_transport: Transport::Tcp,
            chunks,
            ..Setup::default()
        });
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

/// Nothing more is heard of the connection then, so its calls know at once.
#[test]
fn a_call_whose_connection_breaks_is_ended() {
    // Behind NAT: nobody can connect to it.
    let setup = Setup { a_transport: Transport::Tls, media_a: learned(), ..Setup::default() };
    let mut pair = Pair::with(setup);
    pair.basic_call();
    pair.input(Input::StreamBytes { conn: ConnId(1), bytes: b"\0" });
    assert_eq!(pair.closed, [ConnId(1)]);
    pair.run(Duration::from_secs(33));
    assert_eq!(pair.b.count("BYE", 0), 1);
    pair.input(Input::StreamClosed { conn: ConnId(1) });
    pair.assert_nothing_left(1);
    assert_eq!(pair.records[0].cause, "connection lost");
}

#[test]
fn a_lost_connection_ends_the_call_unless_it_comes_back() {
    // Behind NAT: nobody can connect to it.
    let setup = Setup { a_transport: Transport::Tls, media_a: learned(), ..Setup::default() };
    let mut pair = Pair::with(setup);
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

#[test]
fn a_callee_that_cannot_be_reached() {
    let mut pair = Pair::with(Setup { b_transport: Transport::Tcp, ..Setup::default() });
    pair.b_unreachable = true;
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    assert!(pair.a.last("INVITE", 500).header("Reason").unwrap().starts_with("SIP;cause=503;"));
    assert_eq!(pair.counter("send_failed"), 1);
    pair.assert_nothing_left(1);
    // And one that disappears: its BYE is given up at once.
    pair.b_unreachable = false;
    pair.basic_call();
    pair.b_unreachable = true;
    pair.a.bye();
    pair.run_ms(100);
    assert_eq!((pair.a.count("BYE", 200), pair.calls().len()), (1, 0));
    pair.assert_nothing_left(2);
}

#[test]
fn a_caller_whose_connection_is_lost_while_it_waits() {
    let mut pair = Pair::with(Setup { a_transport: Transport::Tls, media_a: learned(), ..Setup::default() });
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    pair.b.respond(180, None);
    pair.run_ms(100);
    pair.input(Input::StreamClosed { conn: ConnId(1) });
    pair.run(Duration::from_secs(33));
    assert_eq!(pair.b.count("CANCEL", 0), 1);
    pair.assert_nothing_left(1);
    assert_eq!((pair.records[0].cause.as_str(), pair.records[0].status), ("connection lost", 503));
}

/// A dialog does not depend on a connection: PBXs close idle ones after minutes. Where we can connect anew, we do when
/// there is something to send.
#[test]
fn a_peer_that_can_be_connected_to_may_close_idle_connections() {
    for b_transport in [Transport::Tcp, Transport::Tls] {
        let mut pair = Pair::with(Setup { b_transport, ..Setup::default() });
        pair.basic_call();
        pair.input(Input::StreamClosed { conn: ConnId(2) });
        pair.run(Duration::from_secs(300));
        assert_eq!((pair.calls().len(), pair.a.count("BYE", 0)), (1, 0));
        let flow = Flow {
            listener: ListenerId(1),
            transport: b_transport,
            remote: pair.b.addr,
            conn: Some(ConnId(2)),
        };
        pair.input(Input::StreamOpened { flow });
        pair.a.bye();
        pair.run_ms(100);
        assert_eq!((pair.b.count("BYE", 0), pair.a.count("BYE", 200)), (1, 1));
        pair.assert_nothing_left(1);
    }
}
