//! The rules, with times that are said and not waited for.

use std::net::IpAddr;

use sbc_core::config::Prefix;
use sbc_core::id::RealmId;
use sbc_core::media::command::DirectionCounters;
use sbc_core::media::plan::{LearnWindow, MediaPace, PeerMedia, SourcePolicy, StreamSide};

use super::*;

const SECOND: u64 = 1_000_000_000;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn side(local: &str, peer: &str) -> StreamSide {
    let (local, peer) = (at(local), at(peer));
    let rtcp = SocketAddr::new(peer.ip(), peer.port() + 1);
    StreamSide {
        realm: RealmId(0),
        local_ip: local.ip(),
        local_rtp_port: local.port(),
        peer: Some(PeerMedia { rtp: peer, rtcp }),
        source: SourcePolicy::Signalled,
        dscp: 46,
        rtcp_mux: false,
        pace: MediaPace::default(),
    }
}

fn plan(call: u64, caller: StreamSide, callee: StreamSide) -> MediaPlan {
    MediaPlan { call: CallId(call), streams: vec![StreamPlan { mline: 0, caller, callee }] }
}

/// One call between 192.0.2.3 and 198.51.100.4.
fn one_call(change: impl FnOnce(&mut StreamPlan)) -> (Table, MediaPlan) {
    let mut plan =
        plan(1, side("192.0.2.1:20000", "192.0.2.3:30000"), side("198.51.100.1:20100", "198.51.100.4:40000"));
    change(&mut plan.streams[0]);
    let mut table = Table::new(Placement::Relay);
    table.admit(&plan).unwrap();
    table.install(plan.clone());
    (table, plan)
}

fn rtp_of(source: u8, payload_type: u8, sequence: u16, timestamp: u32) -> Vec<u8> {
    let mut packet = vec![0x80, payload_type];
    packet.extend(sequence.to_be_bytes());
    packet.extend(timestamp.to_be_bytes());
    packet.extend([source; 4]);
    packet.extend([0x5a; 160]);
    packet
}

fn rtp(sequence: u16) -> Vec<u8> {
    rtp_of(1, 0, sequence, u32::from(sequence) * 160)
}

fn rtcp() -> Vec<u8> {
    vec![0x80, 200, 0, 6, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// Via and destination of what leaves.
fn way_of(result: Result<Forward, Counter>) -> (String, String) {
    let way = result.unwrap().way;
    (way.via.to_string(), way.to.to_string())
}

fn goes(via: &str, to: &str) -> (String, String) {
    (via.to_owned(), to.to_owned())
}

#[test]
fn a_shared_port_takes_both_and_the_next_one_nothing() {
    let (mut table, _) = one_call(|stream| {
        stream.caller.rtcp_mux = true;
        stream.caller.peer = Some(PeerMedia { rtp: at("192.0.2.3:30000"), rtcp: at("192.0.2.3:30000") });
    });
    let (shared, caller, callee) = (at("192.0.2.1:20000"), at("192.0.2.3:30000"), at("198.51.100.4:40000"));
    assert_eq!(
        way_of(table.forward(shared, caller, &rtp(1), 0)),
        goes("198.51.100.1:20100", "198.51.100.4:40000")
    );
    assert_eq!(
        way_of(table.forward(shared, caller, &rtcp(), 0)),
        goes("198.51.100.1:20101", "198.51.100.4:40001")
    );
    assert_eq!(table.forward(at("192.0.2.1:20001"), caller, &rtcp(), 0), Err(Counter::DropNoFlow));
    // The other way both leave from the port that is shared.
    let from_rtcp = SocketAddr::new(callee.ip(), 40_001);
    assert_eq!(
        way_of(table.forward(at("198.51.100.1:20100"), callee, &rtp(1), 0)),
        goes("192.0.2.1:20000", "192.0.2.3:30000")
    );
    assert_eq!(
        way_of(table.forward(at("198.51.100.1:20101"), from_rtcp, &rtcp(), 0)),
        goes("192.0.2.1:20000", "192.0.2.3:30000")
    );
}

#[test]
fn one_claim_of_a_shared_port_is_of_rtp_and_rtcp() {
    let (mut table, _) = one_call(|stream| {
        stream.caller.rtcp_mux = true;
        stream.caller.source = SourcePolicy::learn_from("192.0.2.3".parse().unwrap());
    });
    let (shared, claimer) = (at("192.0.2.1:20000"), at("192.0.2.3:61000"));
    table.forward(shared, claimer, &rtcp(), 0).unwrap();
    let event = table.poll_event();
    assert!(matches!(event, Some(MediaEvent::Latched { rtcp: false, .. })), "of the one port: {event:?}");
    assert_eq!(table.forward(shared, at("192.0.2.3:61001"), &rtp(1), 0), Err(Counter::DropWrongSource));
    table.forward(shared, claimer, &rtp(1), 0).unwrap();
    let from = [(at("198.51.100.1:20100"), at("198.51.100.4:40000"), rtp(1))];
    let from_rtcp = [(at("198.51.100.1:20101"), at("198.51.100.4:40001"), rtcp())];
    for (port, source, packet) in from.into_iter().chain(from_rtcp) {
        assert_eq!(
            way_of(table.forward(port, source, &packet, 0)),
            goes("192.0.2.1:20000", "192.0.2.3:61000")
        );
    }
}

#[test]
fn a_window_is_open_for_those_who_are_allowed() {
    let learn = |opening, open| SourcePolicy::Learn {
        allowed: Prefix { addr: IpAddr::from([192, 0, 2, 0]), len: 29 },
        window: LearnWindow { opening, open },
    };
    let (mut table, mut plan) = one_call(|stream| stream.caller.source = learn(1, true));
    let port = at("192.0.2.1:20000");
    let (within, beyond) = (at("192.0.2.6:5000"), at("192.0.2.8:5000"));
    assert_eq!(table.forward(port, beyond, &rtp(1), 0), Err(Counter::DropWrongSource));
    table.forward(port, within, &rtp(1), 0).unwrap();

    plan.streams[0].caller.source = learn(1, false);
    table.install(plan.clone());
    table.forward(port, within, &rtp(2), 0).unwrap();
    assert_eq!(table.forward(port, at("192.0.2.3:30000"), &rtp(2), 0), Err(Counter::DropWrongSource));

    plan.streams[0].caller.source = learn(2, true);
    table.install(plan.clone());
    let back = table.forward(at("198.51.100.1:20100"), at("198.51.100.4:40000"), &rtp(1), 0);
    assert_eq!(back.unwrap().way.to, at("192.0.2.3:30000"), "where signalling said, until the next claim");
    table.forward(port, at("192.0.2.5:7000"), &rtp(3), 0).unwrap();

    // Closed before anybody claimed: as signalled.
    plan.streams[0].caller.source = learn(3, false);
    table.install(plan);
    assert_eq!(table.forward(port, at("192.0.2.5:7000"), &rtp(4), 0), Err(Counter::DropWrongSource));
    table.forward(port, at("192.0.2.3:30000"), &rtp(4), 0).unwrap();
    assert_eq!(table.outcome(Counter::Claimed), 2);
}

#[test]
fn more_than_the_pace_is_dropped_until_the_next_window() {
    let pace = MediaPace { packets_per_second: 50, clock_rate_hz: 8000 };
    let (mut table, _) = one_call(|stream| stream.caller.pace = pace);
    let (port, caller) = (at("192.0.2.1:20000"), at("192.0.2.3:30000"));
    let mut passed = 0;
    for sequence in 0..100 {
        match table.forward(port, caller, &rtp(sequence), SECOND) {
            Ok(_) => passed += 1,
            Err(reason) => assert_eq!(reason, Counter::DropOverRate),
        }
    }
    // A window is 1.07 seconds.
    assert_eq!(passed, 54);
    assert_eq!(table.counters(CallId(1))[0].from_caller.over_rate, 46);
    table.forward(SocketAddr::new(port.ip(), 20_001), at("192.0.2.3:30001"), &rtcp(), SECOND).unwrap();
    table.forward(port, caller, &rtp(100), 3 * SECOND).unwrap();
}

#[test]
fn a_stream_says_how_it_arrives() {
    let pace = MediaPace { packets_per_second: 0, clock_rate_hz: 8000 };
    let (mut table, plan) = one_call(|stream| stream.caller.pace = pace);
    let (port, caller) = (at("192.0.2.1:20000"), at("192.0.2.3:30000"));
    assert_eq!(table.counters(CallId(1))[0].from_caller, DirectionCounters::default(), "nothing is known");
    let steady = |sequence: u16| u64::from(sequence) * 20_000_000;
    let mut hear = |packet: Vec<u8>, ns| assert!(table.forward(port, caller, &packet, ns).is_ok());
    for sequence in [0, 1, 2, 5, 4] {
        hear(rtp(sequence), steady(sequence));
    }
    hear(rtp_of(1, 8, 6, 6 * 160), steady(6));
    hear(rtp_of(2, 8, 900, 0), steady(7));
    let counters = table.counters(CallId(1))[0].from_caller;
    assert_eq!((counters.lost, counters.out_of_order), (Some(1), 1));
    assert_eq!((counters.payload_type_changes, counters.source_changes), (1, 1));
    assert_eq!(
        counters.jitter_us,
        Some(0),
        "each came when its timestamp said, and a new source begins anew"
    );
    let late = rtp_of(2, 8, 901, 160);
    table.forward(port, caller, &late, steady(8) + 8_000_000).unwrap();
    let jitter = table.counters(CallId(1))[0].from_caller.jitter_us.unwrap();
    assert!((400..600).contains(&jitter), "a sixteenth of 8 ms: {jitter}");
    // A plan that changes nothing of the side keeps all of it.
    table.install(plan);
    assert_eq!(table.counters(CallId(1))[0].from_caller.lost, Some(1));
}

#[test]
fn between_calls_of_ours_a_packet_does_not_leave() {
    // The caller of the first call is the callee of the second: both are ours.
    let (mut table, _) = one_call(|stream| {
        stream.callee = side("198.51.100.1:20100", "203.0.113.1:20200");
    });
    let second = plan(
        2,
        side("203.0.113.1:20200", "198.51.100.1:20100"),
        side("203.0.113.1:20300", "203.0.113.9:50000"),
    );
    table.admit(&second).unwrap();
    table.install(second);
    let (port, caller) = (at("192.0.2.1:20000"), at("192.0.2.3:30000"));
    let way = way_of(table.forward(port, caller, &rtp(1), 0));
    assert_eq!(way, goes("203.0.113.1:20300", "203.0.113.9:50000"));
    let way = way_of(table.forward(at("203.0.113.1:20300"), at("203.0.113.9:50000"), &rtp(1), 0));
    assert_eq!(way, goes("192.0.2.1:20000", "192.0.2.3:30000"));
    for call in [1, 2] {
        let counters = table.counters(CallId(call))[0];
        assert_eq!((counters.from_caller.rtp_relay, counters.from_callee.rtp_relay), (1, 1), "call {call}");
    }
}

#[test]
fn calls_in_a_circle_do_not_keep_a_packet() {
    // Each call's callee is the next one's caller, and the last one's is the first's.
    let mut table = Table::new(Placement::Relay);
    let here = |call: u64, callee: bool| format!("192.0.2.1:{}", 20_000 + 20 * call + 10 * u64::from(callee));
    for call in 0..3 {
        let (next, previous) = ((call + 1) % 3, (call + 2) % 3);
        let plan = plan(
            call,
            side(&here(call, false), &here(previous, true)),
            side(&here(call, true), &here(next, false)),
        );
        table.admit(&plan).unwrap();
        table.install(plan);
    }
    let from = at(&here(2, true));
    assert_eq!(table.forward(at(&here(0, false)), from, &rtp(1), 0), Err(Counter::DropCircle));
    assert_eq!(table.outcome(Counter::DropCircle), 1);
}

#[test]
fn reports_are_copied_up_to_a_limit_and_do_not_push_out_claims() {
    let (mut table, _) = one_call(|stream| {
        stream.caller.source = SourcePolicy::learn_from("192.0.2.3".parse().unwrap());
    });
    let port = at("192.0.2.1:20001");
    let mut long = rtcp();
    long.resize(600, 0);
    for number in 0..=MAX_REPORTS as u64 {
        // As many in a second as a port takes, and no more.
        table.forward(port, at("192.0.2.3:61001"), &long, number * SECOND / 100).unwrap();
    }
    assert!(matches!(table.poll_event(), Some(MediaEvent::Latched { rtcp: true, .. })), "claims go first");
    let mut reports = 0;
    while let Some(event) = table.poll_event() {
        let MediaEvent::Report { call: CallId(1), mline: 0, caller_side: true, packet } = event else {
            panic!("{event:?}");
        };
        assert_eq!(packet[..], long[..MAX_REPORT_BYTES]);
        reports += 1;
    }
    assert_eq!(reports, MAX_REPORTS);
    assert_eq!(table.forward(port, at("192.0.2.9:61001"), &rtcp(), 0), Err(Counter::DropWrongSource));
    assert!(!table.has_news(), "what is dropped is not told");
}
