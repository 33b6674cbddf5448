//! Whose media is learned, and when: the plans that say so, by the clock and by what arrives.
//!
//! The dataplane obeys `LearnWindow`: a source that comes while no plan has the window open is refused there. What is
//! played here is therefore the attacker's timing: at every moment at which it might come, is the window open?

use std::net::SocketAddr;
use std::time::Duration;

use sbc_core::Input;
use sbc_core::config::{Learning, MediaSourceRule, TrunkMedia};
use sbc_core::media::command::MediaEvent;
use sbc_core::media::plan::{LearnWindow, SourcePolicy, StreamSide};

use crate::pair::ua::OnUpdate;
use crate::pair::{Media, Pair, Setup, sdp};
use crate::{answer, learned, offer};

const WINDOW: Duration = Learning::WINDOW;
const RELATCH: Duration = Learning::RELATCH;
/// One look more than the silence.
const LOOK: Duration = Duration::from_secs(5);
const DELAY: Duration = Duration::from_millis(6);

fn pair() -> Pair {
    with(learned())
}

fn with(media_a: TrunkMedia) -> Pair {
    Pair::with(Setup { media_a, ..Setup::default() })
}

fn rule(source: MediaSourceRule) -> TrunkMedia {
    TrunkMedia { source, ..TrunkMedia::default() }
}

fn caller(pair: &Pair) -> StreamSide {
    pair.plan().streams[0].caller.clone()
}

fn window(pair: &Pair) -> LearnWindow {
    match caller(pair).source {
        SourcePolicy::Learn { window, .. } => window,
        SourcePolicy::Signalled => panic!("not learned"),
    }
}

fn window_is(pair: &Pair, opening: u32, open: bool) {
    assert_eq!(window(pair), LearnWindow { opening, open });
}

/// The dataplane tells who claimed the caller's RTP port.
fn claimed(pair: &mut Pair, source: &str) {
    let (call, source) = (pair.plan().call, source.parse().unwrap());
    let event = MediaEvent::Latched { call, mline: 0, caller_side: true, rtcp: false, source };
    pair.input(Input::Media(event));
}

fn rtp(pair: &Pair) -> SocketAddr {
    caller(pair).peer.unwrap().rtp
}

/// The caller's packets arrive all the time.
fn talk(pair: &mut Pair, time: Duration) {
    let end = pair.now + time;
    while pair.now < end {
        pair.carried.0.rtp_kernel += 50;
        pair.run(Duration::from_secs(1).min(end - pair.now));
    }
}

fn end(mut pair: Pair) {
    pair.a.bye();
    pair.assert_nothing_left(1);
}

#[test]
fn each_rule_names_who_may_claim() {
    let at = |text: &str| -> SocketAddr { format!("{text}:4000").parse().unwrap() };
    for (source, may, may_not) in [
        (MediaSourceRule::Signalled, &[][..], &["198.51.100.10", "203.0.113.77"][..]),
        (MediaSourceRule::Address, &["198.51.100.10"], &["198.51.100.11", "203.0.113.77"]),
        (MediaSourceRule::Subnet, &["198.51.100.10", "198.51.100.254"], &["198.51.101.10", "203.0.113.77"]),
        (MediaSourceRule::SdpSubnet, &["203.0.113.77", "203.0.113.1"], &["198.51.100.10"]),
        (MediaSourceRule::Any, &["198.51.100.10", "203.0.113.77", "9.9.9.9"], &["2001:db8::1"]),
    ] {
        let mut pair = with(rule(source));
        pair.a.invite("bob", Some(&sdp("203.0.113.76", 40000, "0 8 101", "")));
        pair.run_ms(100);
        pair.b.respond(200, Some(&answer()));
        pair.b.invite_done();
        pair.run_ms(100);
        let policy = caller(&pair).source;
        for ip in may {
            assert!(policy.lets_claim(SocketAddr::new(ip.parse().unwrap(), 4000)), "{source:?} {ip}");
        }
        for ip in may_not {
            let from = if ip.contains(':') { format!("[{ip}]:4000").parse().unwrap() } else { at(ip) };
            assert!(!policy.lets_claim(from), "{source:?} {ip}");
        }
        // Whatever the rule: nobody who could not be answered.
        for from in ["0.0.0.0:4000", "224.0.0.1:4000", "255.255.255.255:4000", "198.51.100.10:0"] {
            assert!(!policy.lets_claim(from.parse().unwrap()), "{source:?} {from}");
        }
        assert_eq!(pair.plan().streams[0].callee.source, SourcePolicy::Signalled);
        end(pair);
    }
}

#[test]
fn the_window_is_open_from_the_offer_until_its_time_after_the_answer() {
    let mut pair = pair();
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    window_is(&pair, 0, true);
    pair.b.respond(183, Some(&answer()));
    pair.run(Duration::from_secs(100));
    window_is(&pair, 0, true);
    pair.b.respond(200, Some(&answer()));
    pair.b.invite_done();
    talk(&mut pair, WINDOW);
    // The answer needed a moment to get here.
    window_is(&pair, 0, true);
    talk(&mut pair, DELAY);
    window_is(&pair, 0, false);
    // The attacker comes later, and again.
    talk(&mut pair, Duration::from_secs(3600));
    window_is(&pair, 0, false);
    assert_eq!(rtp(&pair), "198.51.100.10:40000".parse().unwrap());
    end(pair);
}

#[test]
fn a_window_that_the_dataplane_would_not_close_is_closed_later() {
    let mut pair = pair();
    pair.basic_call();
    let installed = pair.installed.len();
    pair.media = Media::FailAfter(installed);
    talk(&mut pair, WINDOW);
    window_is(&pair, 0, true);
    assert_eq!(pair.status().calls, 1, "the call goes on");
    pair.media = Media::Ok;
    talk(&mut pair, Duration::from_secs(5));
    window_is(&pair, 0, false);
    end(pair);
}

#[test]
fn only_another_place_opens_it_again_by_signalling() {
    let mut pair = pair();
    pair.basic_call();
    claimed(&mut pair, "198.51.100.10:61000");
    talk(&mut pair, WINDOW);
    window_is(&pair, 0, false);
    // The same place, on hold and back: whoever claimed it keeps it.
    pair.b.on_update = OnUpdate::Answer(sdp("10.9.0.20", 50000, "8", "a=recvonly\r\n"));
    for lines in ["a=sendonly\r\n", "a=sendrecv\r\n"] {
        pair.a.reinvite(Some(&sdp("198.51.100.10", 40000, "8", lines)));
        talk(&mut pair, Duration::from_secs(2));
        window_is(&pair, 0, false);
    }
    // Nowhere, and back to the same place.
    for ip in ["0.0.0.0", "198.51.100.10"] {
        pair.a.reinvite(Some(&sdp(ip, 40000, "8", "")));
        talk(&mut pair, Duration::from_secs(2));
        window_is(&pair, 0, false);
    }
    pair.b.on_update = OnUpdate::Refuse(488);
    pair.a.reinvite(Some(&sdp("198.51.100.10", 40002, "8", "")));
    talk(&mut pair, Duration::from_secs(2));
    window_is(&pair, 0, false);
    pair.b.on_update = OnUpdate::Answer(answer());
    pair.a.reinvite(Some(&sdp("198.51.100.10", 40002, "8", "")));
    talk(&mut pair, Duration::from_secs(1));
    window_is(&pair, 1, true);
    assert_eq!(rtp(&pair), "198.51.100.10:40002".parse().unwrap());
    talk(&mut pair, WINDOW);
    window_is(&pair, 1, false);
    end(pair);
}

#[test]
fn silence_opens_it_again_and_what_was_learned_stays_the_place_until_it_is_heard() {
    let mut pair = pair();
    pair.basic_call();
    claimed(&mut pair, "198.51.100.10:61000");
    talk(&mut pair, Duration::from_secs(20));
    window_is(&pair, 0, false);
    // Nobody is silent who sends RTCP: that of a phone that suppresses silence comes every five seconds.
    for _ in 0..20 {
        pair.carried.0.rtcp += 1;
        pair.run(Duration::from_secs(6));
        window_is(&pair, 0, false);
    }
    // The other side's packets are no life of this one.
    pair.run(RELATCH - LOOK - LOOK);
    pair.carried.1.rtp_kernel += 1000;
    window_is(&pair, 0, false);
    pair.run(LOOK * 3);
    window_is(&pair, 1, true);
    assert_eq!(rtp(&pair), "198.51.100.10:61000".parse().unwrap());
    // For as long as it lasts: there is nobody whose place could be taken.
    pair.run(Duration::from_secs(600));
    window_is(&pair, 1, true);
    claimed(&mut pair, "198.51.100.10:62000");
    talk(&mut pair, LOOK + WINDOW);
    window_is(&pair, 1, false);
    // It moves again.
    pair.run(RELATCH + LOOK);
    window_is(&pair, 2, true);
    assert_eq!(rtp(&pair), "198.51.100.10:62000".parse().unwrap());
    assert_eq!(pair.counter("media_reopened"), 2);
    // Signalling names another place: what was learned is void.
    pair.b.on_update = OnUpdate::Answer(answer());
    pair.a.reinvite(Some(&sdp("198.51.100.10", 40002, "8", "")));
    talk(&mut pair, Duration::from_secs(1));
    window_is(&pair, 3, true);
    assert_eq!(rtp(&pair), "198.51.100.10:40002".parse().unwrap());
    end(pair);
}

#[test]
fn a_claim_that_is_not_of_who_may_is_no_place_to_send_to() {
    let mut pair = pair();
    pair.basic_call();
    claimed(&mut pair, "192.0.2.66:61000");
    talk(&mut pair, Duration::from_secs(20));
    pair.run(RELATCH + LOOK);
    window_is(&pair, 1, true);
    assert_eq!(rtp(&pair), "198.51.100.10:40000".parse().unwrap());
    end(pair);
}

#[test]
fn whoever_may_not_send_is_not_silent() {
    let mut pair = pair();
    pair.basic_call();
    claimed(&mut pair, "198.51.100.10:61000");
    talk(&mut pair, Duration::from_secs(20));
    pair.b.on_update = OnUpdate::Answer(sdp("10.9.0.20", 50000, "8", "a=sendonly\r\n"));
    pair.a.reinvite(Some(&sdp("198.51.100.10", 40000, "8", "a=recvonly\r\n")));
    pair.run(Duration::from_secs(600));
    window_is(&pair, 0, false);
    // It may again: whoever claimed its place keeps it, and has time to be heard.
    pair.b.on_update = OnUpdate::Answer(answer());
    pair.a.reinvite(Some(&offer()));
    pair.run(RELATCH - LOOK);
    window_is(&pair, 0, false);
    talk(&mut pair, Duration::from_secs(600));
    window_is(&pair, 0, false);
    assert_eq!(pair.counter("media_reopened"), 0);
    end(pair);
}

#[test]
fn whoever_is_not_heard_after_a_hold_is_silent_from_its_end() {
    let mut pair = pair();
    pair.basic_call();
    claimed(&mut pair, "198.51.100.10:61000");
    talk(&mut pair, Duration::from_secs(20));
    pair.b.on_update = OnUpdate::Answer(sdp("10.9.0.20", 50000, "8", "a=inactive\r\n"));
    pair.a.reinvite(Some(&sdp("198.51.100.10", 40000, "8", "a=inactive\r\n")));
    pair.run(RELATCH * 10);
    window_is(&pair, 0, false);
    // Its NAT has forgotten it meanwhile.
    pair.b.on_update = OnUpdate::Answer(answer());
    pair.a.reinvite(Some(&offer()));
    pair.run(RELATCH - LOOK);
    window_is(&pair, 0, false);
    pair.run(LOOK * 3);
    window_is(&pair, 1, true);
    assert_eq!(pair.counter("media_reopened"), 1);
    assert_eq!(rtp(&pair), "198.51.100.10:61000".parse().unwrap());
    end(pair);
}

#[test]
fn without_a_relatch_time_silence_opens_nothing() {
    let learning = Learning { window: Duration::from_secs(3), relatch: None };
    let mut pair = with(TrunkMedia { learning, ..rule(MediaSourceRule::Any) });
    pair.basic_call();
    window_is(&pair, 0, true);
    pair.run(Duration::from_secs(3));
    window_is(&pair, 0, false);
    pair.run(Duration::from_secs(3600));
    window_is(&pair, 0, false);
    end(pair);
}

#[test]
fn encrypted_media_is_never_learned() {
    for source in [MediaSourceRule::Address, MediaSourceRule::Any] {
        let mut pair = with(rule(source));
        let secure = |ip: &str, port: u16| {
            sdp(
                ip,
                port,
                "0",
                "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj\r\n",
            )
            .replace("RTP/AVP", "RTP/SAVP")
        };
        pair.a.invite("bob", Some(&secure("198.51.100.10", 40000)));
        pair.run_ms(100);
        pair.b.respond(200, Some(&secure("10.9.0.20", 50000)));
        pair.b.invite_done();
        for _ in 0..10 {
            pair.run(RELATCH);
            claimed(&mut pair, "198.51.100.10:61000");
            let side = caller(&pair);
            assert_eq!(side.source, SourcePolicy::Signalled);
            assert_eq!(side.peer.unwrap().rtp, "198.51.100.10:40000".parse().unwrap());
        }
        assert!(pair.installed.iter().all(|plan| {
            let stream = &plan.streams[0];
            (stream.caller.source, stream.callee.source) == (SourcePolicy::Signalled, SourcePolicy::Signalled)
        }));
        end(pair);
    }
}
