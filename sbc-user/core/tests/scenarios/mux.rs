//! RTP and RTCP on one port (RFC 5761), what the plan says of a stream's codecs, and marking. Each leg agrees with its
//! peer alone.

use sbc_core::config::{Learning, MediaSourceRule, RtcpMux, TrunkMedia};
use sbc_core::media::plan::{MediaPace, PeerMedia, SourcePolicy, StreamPlan};

use crate::pair::ua::OnUpdate;
use crate::pair::{Pair, Setup, sdp};

const MUX: &str = "a=rtcp-mux\r\n";

fn with(a: RtcpMux, b: RtcpMux) -> Pair {
    let rule = |rtcp_mux| TrunkMedia { rtcp_mux, ..TrunkMedia::default() };
    Pair::with(Setup { media_a: rule(a), media_b: rule(b), ..Setup::default() })
}

fn from_a(more: &str) -> String {
    sdp("198.51.100.10", 40000, "0 8", more)
}

fn from_b(more: &str) -> String {
    sdp("10.9.0.20", 50000, "8", more)
}

fn stream(pair: &Pair) -> StreamPlan {
    pair.plan().streams[0].clone()
}

fn muxed(pair: &Pair) -> [bool; 2] {
    let stream = stream(pair);
    [stream.caller.rtcp_mux, stream.callee.rtcp_mux]
}

fn says_mux(body: &str) -> bool {
    assert!(!body.contains("a=rtcp:") && !body.contains("rtcp-mux-only"), "{body}");
    body.contains(MUX)
}

fn end(mut pair: Pair) {
    pair.a.bye();
    pair.assert_nothing_left(1);
}

#[test]
fn each_side_shares_a_port_if_both_of_its_ends_say_so() {
    use RtcpMux::{Accept, Off, Offer};
    for (a, b, offered, answered, told_b, told_a, expected) in [
        (Accept, Accept, "", "", false, false, [false, false]),
        (Accept, Accept, MUX, "", false, true, [true, false]),
        // Not offered to it: it cannot accept.
        (Accept, Accept, MUX, MUX, false, true, [true, false]),
        (Off, Accept, MUX, "", false, false, [false, false]),
        (Accept, Offer, "", "", true, false, [false, false]),
        (Accept, Offer, "", MUX, true, false, [false, true]),
        (Offer, Offer, MUX, MUX, true, true, [true, true]),
        // An answer has it only if the offer had (RFC 8035).
        (Offer, Off, "", MUX, false, false, [false, false]),
    ] {
        let mut pair = with(a, b);
        pair.a.invite("bob", Some(&from_a(offered)));
        pair.run_ms(100);
        assert_eq!(muxed(&pair), [false, false], "nothing is agreed before the answer");
        assert_eq!(says_mux(pair.b.last("INVITE", 0).body()), told_b, "{a:?} {b:?} {offered}");
        pair.b.respond(200, Some(&from_b(answered)));
        pair.b.invite_done();
        pair.run_ms(100);
        assert_eq!(says_mux(pair.a.last("INVITE", 200).body()), told_a, "{a:?} {b:?} {answered}");
        assert_eq!(muxed(&pair), expected, "{a:?} {b:?} {offered} {answered}");
        let stream = stream(&pair);
        let ports = |peer: Option<PeerMedia>| peer.map(|peer| (peer.rtp.port(), peer.rtcp.port()));
        assert_eq!(ports(stream.caller.peer), Some((40000, if expected[0] { 40000 } else { 40001 })));
        assert_eq!(ports(stream.callee.peer), Some((50000, if expected[1] { 50000 } else { 50001 })));
        end(pair);
    }
}

#[test]
fn an_early_answer_agrees_as_well() {
    let mut pair = with(RtcpMux::Accept, RtcpMux::Offer);
    pair.a.invite("bob", Some(&from_a(MUX)));
    pair.run_ms(100);
    pair.b.respond(183, Some(&from_b(MUX)));
    pair.run_ms(100);
    assert!(says_mux(pair.a.last("INVITE", 183).body()));
    assert_eq!(muxed(&pair), [true, true]);
    pair.b.respond(200, Some(&from_b(MUX)));
    pair.b.invite_done();
    pair.run_ms(100);
    assert_eq!(muxed(&pair), [true, true]);
    end(pair);
}

#[test]
fn every_exchange_agrees_anew_and_offers_what_the_peer_wanted_before() {
    let mut pair = with(RtcpMux::Accept, RtcpMux::Accept);
    pair.a.invite("bob", Some(&from_a(MUX)));
    pair.run_ms(100);
    pair.b.respond(200, Some(&from_b("")));
    pair.b.invite_done();
    pair.run_ms(100);
    assert_eq!(muxed(&pair), [true, false]);
    // The other side asks for a change: the caller is offered what it has.
    pair.a.on_update = OnUpdate::Answer(from_a(MUX));
    pair.b.reinvite(Some(&from_b("a=ptime:20\r\n")));
    pair.run_ms(100);
    assert!(says_mux(pair.a.last("INVITE", 0).body()));
    assert_eq!(muxed(&pair), [true, false]);
    // It does not want it any more.
    pair.a.on_update = OnUpdate::Answer(from_a(""));
    pair.b.reinvite(Some(&from_b("")));
    pair.run_ms(100);
    assert_eq!(muxed(&pair), [false, false]);
    // The callee wants it, the caller refuses the change: what held holds.
    pair.a.on_update = OnUpdate::Refuse(488);
    pair.b.reinvite(Some(&from_b(MUX)));
    pair.run_ms(200);
    assert_eq!(muxed(&pair), [false, false]);
    pair.a.on_update = OnUpdate::Answer(from_a(""));
    pair.b.reinvite(Some(&from_b(MUX)));
    pair.run_ms(200);
    assert_eq!(muxed(&pair), [false, true]);
    end(pair);
}

#[test]
fn who_may_claim_is_open_anew_when_a_port_is_shared_or_no_longer() {
    let media_a = TrunkMedia { source: MediaSourceRule::Address, ..TrunkMedia::default() };
    let mut pair = Pair::with(Setup { media_a, ..Setup::default() });
    pair.basic_call();
    pair.run(Learning::WINDOW);
    let window = |pair: &Pair| match stream(pair).caller.source {
        SourcePolicy::Learn { window, .. } => (window.opening, window.open),
        SourcePolicy::Signalled => panic!("not learned"),
    };
    assert_eq!(window(&pair), (0, false));
    pair.b.on_update = OnUpdate::Answer(from_b(""));
    pair.a.reinvite(Some(&from_a(MUX)));
    pair.run_ms(200);
    assert_eq!((window(&pair), muxed(&pair)), ((1, true), [true, false]));
    pair.run(Learning::WINDOW);
    pair.a.reinvite(Some(&from_a(MUX)));
    pair.run_ms(200);
    assert_eq!(window(&pair), (1, false));
    end(pair);
}

#[test]
fn a_stream_that_cannot_do_without_is_refused_where_it_may_not_be() {
    let only = "a=rtcp-mux-only\r\na=rtcp-mux\r\n";
    let mut pair = with(RtcpMux::Off, RtcpMux::Accept);
    pair.a.invite("bob", Some(&from_a(only)));
    pair.run_ms(100);
    assert_eq!(pair.a.count("INVITE", 488), 1);
    pair.assert_nothing_left(1);
    let mut pair = with(RtcpMux::Accept, RtcpMux::Accept);
    pair.a.invite("bob", Some(&from_a(only)));
    pair.run_ms(100);
    pair.b.respond(200, Some(&from_b("")));
    pair.b.invite_done();
    pair.run_ms(100);
    assert!(says_mux(pair.a.last("INVITE", 200).body()));
    assert_eq!(muxed(&pair), [true, false]);
    end(pair);
}

#[test]
fn the_plan_knows_what_the_codecs_call_for_and_marks_by_kind() {
    let mut pair = Pair::new();
    let video = "m=video 40002 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\nb=AS:800\r\n";
    pair.a.invite("bob", Some(&sdp("198.51.100.10", 40000, "0 8 101", video)));
    pair.run_ms(100);
    let pace = |pair: &Pair, stream: usize| {
        let stream = &pair.plan().streams[stream];
        [stream.caller.pace, stream.callee.pace].map(|pace| (pace.packets_per_second, pace.clock_rate_hz))
    };
    // Nobody knows yet what the callee will ask the caller to send.
    assert_eq!(pace(&pair, 0), [(0, 0), (300, 8000)]);
    let video = "m=video 50002 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\nb=AS:400\r\n";
    pair.b.respond(200, Some(&sdp("10.9.0.20", 50000, "8", video)));
    pair.b.invite_done();
    pair.run_ms(100);
    assert_eq!(pace(&pair, 0), [(300, 8000), (300, 8000)]);
    assert_eq!(pace(&pair, 1), [(1200, 90_000), (1200, 90_000)]);
    let dscp = |stream: usize| pair.plan().streams[stream].caller.dscp;
    assert_eq!((dscp(0), dscp(1)), (46, 34));
    end(pair);
    let mut pair = Pair::with(Setup { rate_factor: 0, ..Setup::default() });
    pair.basic_call();
    assert_eq!(stream(&pair).caller.pace, MediaPace { packets_per_second: 0, clock_rate_hz: 8000 });
    end(pair);
}
