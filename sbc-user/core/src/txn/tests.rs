//! The table with its machines, over virtual time: what is sent and told, and when.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::*;
use crate::flow::{Flow, Transport};
use crate::id::{ConnId, ListenerId, TrunkId};
use crate::sip::{Message, MessageBuilder, Method};

const BRANCH: &str = "z9hG4bKours";
const PEER: Peer = Peer { trunk: TrunkId(0), behind_nat: false };

struct Bench {
    table: Transactions,
    start: Instant,
    now: Instant,
    flow: Flow,
    /// What came out since it was last asked for: milliseconds since the start, and what in short.
    log: Vec<(u128, String)>,
    requests: Vec<(ServerTxnId, Box<Message>)>,
    sent: Vec<(crate::id::OpId, Flow, Bytes)>,
}

impl Bench {
    #[allow(clippy::disallowed_methods)] // Any instant will do as the origin; one cannot be made otherwise.
    fn new(transport: Transport) -> Self {
        let start = Instant::now();
        let conn = transport.is_reliable().then_some(ConnId(1));
        let remote = SocketAddr::from(([192, 0, 2, 1], 5060));
        Self {
            table: Transactions::new(10),
            start,
            now: start,
            flow: Flow { listener: ListenerId(0), transport, remote, conn },
            log: Vec::new(),
            requests: Vec::new(),
            sent: Vec::new(),
        }
    }

    fn drain(&mut self) {
        let at = (self.now - self.start).as_millis();
        while let Some(output) = self.table.poll() {
            let text = match output {
                TxnOutput::Send { op, flow, bytes } => {
                    let text = first_words(&bytes);
                    self.sent.push((op, flow, bytes));
                    text
                }
                TxnOutput::Event(TxnEvent::Request { txn, message, .. }) => {
                    let text = format!("> {}", message.method().unwrap());
                    self.requests.push((txn, message));
                    text
                }
                TxnOutput::Event(TxnEvent::Ack { .. }) => "> ACK".into(),
                TxnOutput::Event(TxnEvent::Response { message, .. }) => {
                    format!("> {}", message.status().unwrap())
                }
                TxnOutput::Event(TxnEvent::ResponseOutside { message, .. }) => {
                    format!("> outside {}", message.status().unwrap())
                }
                TxnOutput::Event(TxnEvent::TimedOut { .. }) => "> timed out".into(),
                TxnOutput::Event(TxnEvent::TransportFailed { .. }) => "> transport failed".into(),
                TxnOutput::Event(TxnEvent::Terminated { .. }) => "> terminated".into(),
                TxnOutput::Event(TxnEvent::Overloaded { .. }) => "> overloaded".into(),
            };
            self.log.push((at, text));
        }
        self.table.check_consistency();
    }

    /// What has come out, without times.
    fn said(&mut self) -> Vec<String> {
        self.drain();
        self.log.drain(..).map(|(_, text)| text).collect()
    }

    /// When `what` came out.
    fn times(&self, what: &str) -> Vec<u128> {
        self.log.iter().filter(|(_, text)| text == what).map(|(at, _)| *at).collect()
    }

    /// Lets time pass, timer by timer.
    fn pass(&mut self, seconds: u64) {
        self.drain();
        let end = self.now + Duration::from_secs(seconds);
        while let Some(due) = self.table.poll_timeout().filter(|due| *due <= end) {
            assert!(due >= self.now, "time goes forward");
            self.now = due;
            self.table.timeout(due);
            self.drain();
        }
        self.now = end;
    }

    fn receive(&mut self, text: &str) {
        let message = Message::parse(Bytes::from(text.replace('\n', "\r\n"))).unwrap();
        self.table.receive(self.now, self.flow, PEER, message);
    }

    fn receive_request(&mut self, method: &str, branch: &str) {
        self.receive(&format!(
            "{method} sip:b@example.com SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.1:5060;rport{branch}\n\
             From: <sip:a@example.com>;tag=a\nTo: <sip:b@example.com>\nCall-ID: c1\nCSeq: 7 {method}\n\
             Content-Length: 0\n\n"
        ));
    }

    fn receive_response(&mut self, status: u16, method: &str) {
        self.receive(&format!(
            "SIP/2.0 {status} X\nVia: SIP/2.0/UDP 192.0.2.2:5060;branch={BRANCH}\n\
             From: <sip:a@example.com>;tag=a\nTo: <sip:b@example.com>;tag=b\nCall-ID: c1\nCSeq: 7 {method}\n\
             Content-Length: 0\n\n"
        ));
    }

    fn request(&mut self, method: &Method) -> ClientTxnId {
        let bytes = MessageBuilder::request(method, "sip:b@example.com")
            .header("Via", format!("SIP/2.0/UDP 192.0.2.2:5060;branch={BRANCH}"))
            .header("From", "<sip:a@example.com>;tag=a")
            .header("To", "<sip:b@example.com>")
            .header("Call-ID", "c1")
            .header("CSeq", format!("7 {method}"))
            .build();
        self.table.request(self.now, method.clone(), BRANCH, self.flow, bytes)
    }

    fn respond(&mut self, status: u16) -> bool {
        self.drain();
        let (txn, request) = self.requests.last().unwrap();
        let remote = Some(self.flow.remote);
        let bytes = MessageBuilder::response_to(request, status, "X", remote, Some("ours")).build();
        self.table.respond(self.now, *txn, status, bytes)
    }
}

fn first_words(bytes: &[u8]) -> String {
    let line = std::str::from_utf8(bytes).unwrap().lines().next().unwrap();
    let line = line.strip_prefix("SIP/2.0 ").unwrap_or(line);
    line.split(' ').next().unwrap().into()
}

#[test]
fn an_invite_is_repeated_until_nobody_can_be_there() {
    let mut bench = Bench::new(Transport::Udp);
    bench.request(&Method::Invite);
    bench.pass(60);
    assert_eq!(bench.times("INVITE"), [0, 500, 1500, 3500, 7500, 15_500, 31_500]);
    assert_eq!(bench.times("> timed out"), [32_000]);
    assert_eq!(bench.times("> terminated"), [32_000]);
    assert!(bench.table.is_empty());
}

#[test]
fn another_request_is_repeated_at_most_every_four_seconds() {
    let mut bench = Bench::new(Transport::Udp);
    bench.request(&Method::Options);
    bench.pass(60);
    let expected = [0, 500, 1500, 3500, 7500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500];
    assert_eq!(bench.times("OPTIONS"), expected);
    assert_eq!(bench.times("> timed out"), [32_000]);
}

#[test]
fn a_provisional_answer_slows_another_requests_copies_and_stops_an_invites() {
    let mut bench = Bench::new(Transport::Udp);
    bench.request(&Method::Options);
    bench.receive_response(100, "OPTIONS");
    bench.pass(10);
    assert_eq!(bench.times("OPTIONS"), [0, 500, 4500, 8500]);

    let mut bench = Bench::new(Transport::Udp);
    bench.request(&Method::Invite);
    bench.receive_response(180, "INVITE");
    bench.pass(100);
    assert_eq!(bench.times("INVITE"), [0]);
}

#[test]
fn over_a_stream_nothing_is_repeated_and_nothing_late_is_awaited() {
    let mut bench = Bench::new(Transport::Tcp);
    bench.request(&Method::Options);
    bench.pass(10);
    assert_eq!(bench.times("OPTIONS"), [0]);
    bench.receive_response(200, "OPTIONS");
    assert_eq!(bench.said(), ["OPTIONS", "> 200", "> terminated"]);

    bench.request(&Method::Invite);
    bench.receive_response(486, "INVITE");
    assert_eq!(bench.said(), ["INVITE", "ACK", "> 486", "> terminated"]);

    bench.receive_request("OPTIONS", ";branch=z9hG4bKo");
    assert!(bench.respond(200));
    assert_eq!(bench.said(), ["> OPTIONS", "200", "> terminated"]);

    bench.receive_request("INVITE", ";branch=z9hG4bKi");
    assert!(bench.respond(486));
    bench.pass(10);
    bench.receive_request("ACK", ";branch=z9hG4bKi");
    assert_eq!(bench.said(), ["100", "> INVITE", "486", "> terminated"]);
    assert!(bench.table.is_empty());
    assert_eq!(bench.table.poll_timeout(), None);
}

#[test]
fn without_an_answer_a_stream_request_times_out_all_the_same() {
    for method in [Method::Invite, Method::Bye] {
        let mut bench = Bench::new(Transport::Tls);
        bench.request(&method);
        bench.pass(60);
        assert_eq!(bench.times(method.as_str()), [0]);
        assert_eq!(bench.times("> timed out"), [32_000]);
    }
}

#[test]
fn each_copy_of_a_refusal_is_acknowledged_and_the_first_is_told() {
    let mut bench = Bench::new(Transport::Udp);
    bench.request(&Method::Invite);
    bench.receive_response(486, "INVITE");
    bench.receive_response(486, "INVITE");
    assert_eq!(bench.said(), ["INVITE", "ACK", "> 486", "ACK"]);
    assert_eq!(bench.sent[1].2, bench.sent[2].2);
    bench.pass(32);
    assert_eq!(bench.said(), ["> terminated"]);
}

#[test]
fn every_2xx_is_told_and_later_ones_are_told_as_outside() {
    let mut bench = Bench::new(Transport::Udp);
    bench.request(&Method::Invite);
    bench.receive_response(200, "INVITE");
    bench.receive_response(200, "INVITE");
    assert_eq!(bench.said(), ["INVITE", "> 200", "> 200"]);
    bench.pass(32);
    assert_eq!(bench.said(), ["> terminated"]);
    bench.receive_response(200, "INVITE");
    assert_eq!(bench.said(), ["> outside 200"]);
}

#[test]
fn a_callee_that_rings_for_ever_is_cancelled() {
    let mut bench = Bench::new(Transport::Udp);
    bench.request(&Method::Invite);
    bench.receive_response(180, "INVITE");
    bench.pass(400);
    assert_eq!(bench.times("CANCEL").first(), Some(&185_000));
    assert_eq!(bench.times("> timed out"), [217_000]);
    assert!(bench.table.is_empty());
}

#[test]
fn cancel_waits_for_a_provisional_answer_and_leaves_once() {
    let mut bench = Bench::new(Transport::Udp);
    let invite = bench.request(&Method::Invite);
    bench.table.cancel(bench.now, invite, &[]);
    assert_eq!(bench.said(), ["INVITE"]);
    bench.receive_response(100, "INVITE");
    bench.table.cancel(bench.now, invite, &[]);
    assert_eq!(bench.said(), ["> 100", "CANCEL"]);
    bench.receive_response(200, "CANCEL");
    bench.receive_response(487, "INVITE");
    assert_eq!(bench.said(), ["ACK", "> 487"]);
    bench.pass(40);
    assert_eq!(bench.said(), ["> terminated"]);
    assert!(bench.table.is_empty());
}

#[test]
fn a_2xx_that_is_faster_than_the_cancel_is_told() {
    let mut bench = Bench::new(Transport::Udp);
    let invite = bench.request(&Method::Invite);
    bench.receive_response(180, "INVITE");
    bench.table.cancel(bench.now, invite, &[]);
    bench.receive_response(200, "INVITE");
    bench.receive_response(481, "CANCEL");
    assert_eq!(bench.said(), ["INVITE", "> 180", "CANCEL", "> 200"]);
}

#[test]
fn an_invite_that_does_not_answer_its_cancel_is_given_up() {
    let mut bench = Bench::new(Transport::Tcp);
    let invite = bench.request(&Method::Invite);
    bench.receive_response(180, "INVITE");
    bench.table.cancel(bench.now, invite, &[]);
    bench.pass(32);
    assert_eq!(bench.said(), ["INVITE", "> 180", "CANCEL", "> timed out", "> terminated"]);
    assert!(bench.table.is_empty());
}

#[test]
fn an_invite_is_tried_at_once_and_its_copies_get_the_latest_response() {
    let mut bench = Bench::new(Transport::Udp);
    bench.receive_request("INVITE", ";branch=z9hG4bKi");
    bench.receive_request("INVITE", ";branch=z9hG4bKi");
    assert_eq!(bench.said(), ["100", "> INVITE", "100"]);
    bench.respond(180);
    bench.receive_request("INVITE", ";branch=z9hG4bKi");
    assert_eq!(bench.said(), ["180", "180"]);
    let trying = String::from_utf8(bench.sent[0].2.to_vec()).unwrap();
    assert!(trying.contains("rport=5060") && trying.contains("received=192.0.2.1"), "{trying}");
    assert!(trying.contains("\r\nTo: <sip:b@example.com>\r\n"), "{trying}");
}

#[test]
fn a_refusal_is_repeated_until_its_ack() {
    let mut bench = Bench::new(Transport::Udp);
    bench.receive_request("INVITE", ";branch=z9hG4bKi");
    bench.respond(404);
    bench.pass(5);
    assert_eq!(bench.times("404"), [0, 500, 1500, 3500]);
    bench.said();
    bench.receive_request("ACK", ";branch=z9hG4bKi");
    bench.receive_request("ACK", ";branch=z9hG4bKi");
    bench.receive_request("INVITE", ";branch=z9hG4bKi");
    assert_eq!(bench.said(), [] as [&str; 0]);
    bench.pass(5);
    assert_eq!(bench.said(), ["> terminated"]);
    assert!(bench.table.is_empty());
}

#[test]
fn a_refusal_without_ack_times_out() {
    let mut bench = Bench::new(Transport::Udp);
    bench.receive_request("INVITE", ";branch=z9hG4bKi");
    bench.respond(404);
    bench.pass(60);
    assert_eq!(bench.times("404").len(), 11);
    assert_eq!(bench.times("> timed out"), [32_000]);
    assert!(bench.table.is_empty());
}

#[test]
fn an_accepted_invite_absorbs_copies_and_lets_2xx_and_ack_pass() {
    let mut bench = Bench::new(Transport::Udp);
    bench.receive_request("INVITE", ";branch=z9hG4bKi");
    assert!(bench.respond(200));
    bench.receive_request("INVITE", ";branch=z9hG4bKi");
    assert!(bench.respond(200));
    bench.receive_request("ACK", ";branch=z9hG4bKi");
    bench.receive_request("ACK", ";branch=z9hG4bKanother");
    assert_eq!(bench.said(), ["100", "> INVITE", "200", "200", "> ACK", "> ACK"]);
    bench.pass(31);
    assert!(bench.respond(200));
    bench.pass(1);
    assert_eq!(bench.said(), ["200", "> terminated"]);
    assert!(!bench.respond(200));
}

#[test]
fn an_answer_repeats_itself_to_copies_for_32_seconds() {
    let mut bench = Bench::new(Transport::Udp);
    bench.receive_request("OPTIONS", ";branch=z9hG4bKo");
    bench.receive_request("OPTIONS", ";branch=z9hG4bKo");
    assert_eq!(bench.said(), ["> OPTIONS"]);
    bench.respond(200);
    bench.pass(31);
    bench.receive_request("OPTIONS", ";branch=z9hG4bKo");
    assert_eq!(bench.said(), ["200", "200"]);
    bench.pass(1);
    bench.receive_request("OPTIONS", ";branch=z9hG4bKo");
    assert_eq!(bench.said(), ["> terminated", "> OPTIONS"]);
}

#[test]
fn what_rfc_4320_forbids_is_not_sent() {
    let mut bench = Bench::new(Transport::Udp);
    bench.receive_request("OPTIONS", ";branch=z9hG4bKo");
    bench.respond(183);
    bench.respond(100);
    assert_eq!(bench.said(), ["> OPTIONS", "100"]);
    bench.respond(408);
    assert_eq!(bench.said(), ["> terminated"]);
}

#[test]
fn what_its_user_forgets_ends_by_itself() {
    let mut bench = Bench::new(Transport::Udp);
    bench.receive_request("OPTIONS", ";branch=z9hG4bKo");
    bench.receive_request("INVITE", ";branch=z9hG4bKi");
    bench.pass(299);
    assert_eq!(bench.times("> timed out"), [32_000]);
    bench.respond(183);
    bench.pass(299);
    assert_eq!(bench.times("> terminated"), [32_000]);
    bench.pass(1);
    assert_eq!(bench.times("> terminated"), [32_000, 599_000]);
    assert!(bench.table.is_empty());
}

#[test]
fn a_cancel_finds_its_invite() {
    let mut bench = Bench::new(Transport::Udp);
    bench.receive_request("INVITE", ";branch=z9hG4bKi");
    bench.receive_request("CANCEL", ";branch=z9hG4bKi");
    bench.receive_request("CANCEL", ";branch=z9hG4bKother");
    bench.drain();
    let [(invite, _), (cancel, _), (stray, _)] = &bench.requests[..] else { panic!("three requests") };
    assert_eq!(bench.table.matching_invite(*cancel), Some(*invite));
    assert_eq!(bench.table.matching_invite(*stray), None);
    assert_eq!(bench.table.matching_invite(*invite), None);
}

#[test]
fn an_old_senders_ack_must_have_our_tag() {
    let mut bench = Bench::new(Transport::Udp);
    bench.receive_request("INVITE", "");
    bench.respond(404);
    bench.receive_request("ACK", "");
    assert_eq!(bench.said(), ["100", "> INVITE", "404", "> ACK"]);
    bench.receive(
        "ACK sip:b@example.com SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.1:5060;rport\nFrom: <sip:a@example.com>;tag=a\n\
         To: <sip:b@example.com>;tag=ours\nCall-ID: c1\nCSeq: 7 ACK\nContent-Length: 0\n\n",
    );
    bench.pass(5);
    assert_eq!(bench.said(), ["> terminated"]);
}

#[test]
fn a_broken_transport_ends_a_client_and_not_a_server() {
    let mut bench = Bench::new(Transport::Tcp);
    bench.request(&Method::Invite);
    bench.drain();
    bench.table.send_failed(bench.now, bench.sent[0].0);
    assert_eq!(bench.said(), ["INVITE", "> transport failed", "> terminated"]);
    bench.table.send_failed(bench.now, bench.sent[0].0);
    assert_eq!(bench.said(), [] as [&str; 0]);

    let mut bench = Bench::new(Transport::Udp);
    bench.receive_request("INVITE", ";branch=z9hG4bKi");
    bench.respond(404);
    bench.drain();
    bench.table.send_failed(bench.now, bench.sent[1].0);
    assert_eq!(bench.said(), ["100", "> INVITE", "404", "> transport failed"]);
    bench.receive_request("INVITE", ";branch=z9hG4bKi");
    assert_eq!(bench.said(), ["404"]);
}

#[test]
fn a_failed_send_of_no_transaction_is_nobodys() {
    let mut bench = Bench::new(Transport::Tcp);
    bench.table.send(bench.flow, Bytes::from_static(b"ACK sip:b SIP/2.0\r\n\r\n"));
    bench.drain();
    bench.table.send_failed(bench.now, bench.sent[0].0);
    assert_eq!(bench.said(), ["ACK"]);
}

#[test]
fn one_request_too_many_is_refused_with_the_same_words_each_time() {
    let mut bench = Bench::new(Transport::Udp);
    for n in 0..10 {
        bench.receive_request("OPTIONS", &format!(";branch=z9hG4bK{n}"));
    }
    bench.said();
    bench.receive_request("INVITE", ";branch=z9hG4bKi");
    bench.receive_request("INVITE", ";branch=z9hG4bKi");
    bench.receive_request("ACK", ";branch=z9hG4bKi");
    assert_eq!(bench.said(), ["503", "> overloaded", "503", "> overloaded", "> ACK"]);
    assert_eq!(bench.sent[0].2, bench.sent[1].2);
    assert_eq!(bench.table.len(), 10);
    bench.request(&Method::Bye);
    assert_eq!(bench.said(), ["BYE"]);
}

#[test]
fn another_listener_is_another_world() {
    let mut bench = Bench::new(Transport::Udp);
    bench.request(&Method::Options);
    bench.receive_request("INVITE", ";branch=z9hG4bKi");
    bench.said();
    bench.flow.listener = ListenerId(1);
    bench.receive_response(200, "OPTIONS");
    bench.receive_request("INVITE", ";branch=z9hG4bKi");
    assert_eq!(bench.said(), ["> outside 200", "100", "> INVITE"]);
}

#[test]
fn responses_go_where_rport_or_the_sent_by_says() {
    let mut bench = Bench::new(Transport::Udp);
    bench.flow.remote.set_port(40_000);
    bench.receive_request("OPTIONS", ";branch=z9hG4bK1");
    bench.respond(200);
    bench.receive(
        "OPTIONS sip:b@example.com SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bK2\n\
         From: <sip:a@example.com>;tag=a\nTo: <sip:b@example.com>\nCall-ID: c1\nCSeq: 7 OPTIONS\n\n",
    );
    bench.respond(200);
    bench.drain();
    let ports: Vec<_> = bench.sent.iter().map(|(_, flow, _)| flow.remote.port()).collect();
    assert_eq!(ports, [40_000, 5070]);
}

#[test]
fn what_names_no_transaction_is_dropped() {
    let mut bench = Bench::new(Transport::Udp);
    bench.receive("OPTIONS sip:b@example.com SIP/2.0\nFrom: <sip:a@example.com>;tag=a\n\n");
    bench.receive("SIP/2.0 200 OK\nCSeq: 7 OPTIONS\n\n");
    assert_eq!(bench.said(), ["> outside 200"]);
}
