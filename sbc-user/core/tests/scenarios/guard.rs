//! What the engine concludes from what strangers and peers send.

use sbc_core::Input;
use sbc_core::command::{Command, GuardOrder, Reply};
use sbc_core::flow::{Flow, Transport};
use sbc_core::guard::{Denied, DenyReason, DenyScope};
use sbc_core::id::ListenerId;

use crate::pair::{A_ADDR, Pair};

const STRANGER: &str = "192.0.2.66:5060";

fn flow(remote: &str) -> Flow {
    Flow { listener: ListenerId(0), transport: Transport::Udp, remote: remote.parse().unwrap(), conn: None }
}

fn request(line: &str, number: u32, more: &str) -> Vec<u8> {
    let method = line.split(' ').next().unwrap();
    format!(
        "{line} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.66:5060;branch=z9hG4bKx{number}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:x@192.0.2.66>;tag=t{number}\r\nTo: <sip:y@203.0.113.1>\r\n\
         Call-ID: c{number}\r\nCSeq: 1 {method}\r\nContact: <sip:x@192.0.2.66>\r\n{more}Content-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

fn denied(pair: &mut Pair) -> Vec<Denied> {
    let Reply::Denied(denied) = pair.command(Command::Guard(GuardOrder::Denied)) else { panic!("no list") };
    denied
}

fn send(pair: &mut Pair, from: &str, bytes: &[u8]) {
    pair.input(Input::Datagram { flow: flow(from), bytes });
}

/// C-11: at its first message, and without an answer.
#[test]
fn a_scanner_is_shut_out_at_its_first_message() {
    for tell in ["User-Agent: Friendly-Scanner\r\n", "User-Agent: sipcli/v1.8\r\n"] {
        let mut pair = Pair::new();
        send(&mut pair, STRANGER, &request("OPTIONS sip:100@203.0.113.1", 1, tell));
        send(&mut pair, STRANGER, &request("OPTIONS sip:101@203.0.113.1", 2, tell));
        let denied = denied(&mut pair);
        assert_eq!(denied.len(), 1);
        assert_eq!((denied[0].reason, denied[0].scope), (DenyReason::Scanner, DenyScope::Udp));
        assert_eq!(denied[0].source.to_string(), "192.0.2.66");
        assert_eq!((pair.counter("scanner"), pair.counter("guard_denied")), (1, 1));
        assert!(pair.to_a.is_empty() && pair.to_b.is_empty());
    }
}

/// Whole words of `User-Agent` and whole names of `From` tell a scanner: others have them as a part of theirs.
#[test]
fn whoever_is_only_named_like_a_scanner_is_none() {
    let tell = |agent: &str, from: &str| {
        let bytes = String::from_utf8(request("OPTIONS sip:100@203.0.113.1", 1, agent)).unwrap();
        let bytes = bytes.replace("From: <sip:x@192.0.2.66>", &format!("From: {from}"));
        let mut pair = Pair::new();
        send(&mut pair, STRANGER, bytes.as_bytes());
        denied(&mut pair).len()
    };
    for from in [
        "\"Anil Tiwari\" <sip:x@192.0.2.66>",
        "Tiwari <sip:anil.tiwari@192.0.2.66>",
        "\"Iwar Smith\" <sip:x@sipvicious.example>",
    ] {
        assert_eq!(tell("", from), 0, "{from}");
    }
    for from in ["\"sipvicious\" <sip:100@1.1.1.1>", "SIPVicious <sip:100@1.1.1.1>", "<sip:iwar@1.1.1.1>"] {
        assert_eq!(tell("", from), 1, "{from}");
    }
    const FROM: &str = "<sip:x@192.0.2.66>";
    for (agent, expected) in [("Tiwariphone/1", 0), ("iwarden", 0), ("iwar", 1), ("x (iwar/0.1)", 1)] {
        assert_eq!(tell(&format!("User-Agent: {agent}\r\n"), FROM), expected, "{agent}");
    }
}

/// C-11: broken messages speak against their source; dialling `*55*123456` does not, and neither do other strange but
/// whole messages.
#[test]
fn rubbish_counts_and_strange_numbers_do_not() {
    let mut pair = Pair::new();
    for number in 0..50 {
        send(&mut pair, STRANGER, &request("INVITE sip:*55*123456@203.0.113.1", number, ""));
        send(&mut pair, STRANGER, &request("FANCY sip:y@203.0.113.1", 100 + number, "X-What: ever\r\n"));
    }
    assert_eq!(denied(&mut pair), []);
    for _ in 0..10 {
        send(&mut pair, STRANGER, b"INVITE garbage");
    }
    assert_eq!(denied(&mut pair), []);
    send(&mut pair, STRANGER, b"INVITE garbage");
    assert_eq!(denied(&mut pair)[0].reason, DenyReason::Malformed);
    assert_eq!((pair.counter("unparseable"), pair.counter("denied_malformed")), (11, 1));
}

/// Signalling of a call comes from a configured peer, so whoever has a live call is counted by nobody, whatever else is
/// sent in its name.
#[test]
fn who_has_a_live_call_is_neither_counted_nor_denied() {
    let mut pair = Pair::new();
    pair.basic_call();
    let heard = pair.to_a.len();
    for number in 0..2000 {
        send(&mut pair, A_ADDR, &request("OPTIONS sip:203.0.113.1", number, "User-Agent: sipvicious\r\n"));
        send(&mut pair, A_ADDR, b"INVITE garbage");
    }
    assert_eq!(denied(&mut pair), []);
    assert_eq!(pair.to_a.len() - heard, 2000, "each is answered");
    assert_eq!((pair.counter("guard_over_limit"), pair.counter("unparseable")), (0, 2000));
    pair.a.bye();
    pair.run_ms(200);
    pair.assert_nothing_left(1);
}
