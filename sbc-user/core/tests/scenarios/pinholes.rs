//! Peers that only flows reach which we opened: neither begins, hold, and the calls that need nothing (R-TMS-2).

use std::time::Duration;

use sbc_core::config::TrunkMedia;
use sbc_core::media::command::{DirectionCounters, SideOf};

use crate::pair::ua::OnUpdate;
use crate::pair::{Pair, Setup, sdp};
use crate::{answer, offer};

const PRIME: Duration = TrunkMedia::PRIME;
const CALLER: SideOf = SideOf { mline: 0, caller_side: true };
const CALLEE: SideOf = SideOf { mline: 0, caller_side: false };

fn pair(a: bool, b: bool) -> Pair {
    let rules = |primes: bool| TrunkMedia { prime: primes.then_some(PRIME), ..TrunkMedia::default() };
    let mut pair = Pair::with(Setup { media_a: rules(a), media_b: rules(b), ..Setup::default() });
    pair.carried = Default::default();
    pair
}

/// Packets of one direction, a burst each second.
fn flow(pair: &mut Pair, from_caller: bool, time: Duration) {
    let end = pair.now + time;
    while pair.now < end {
        let (a, b) = &mut pair.carried;
        let direction: &mut DirectionCounters = if from_caller { a } else { b };
        direction.rtp_kernel += 50;
        pair.run(Duration::from_secs(1).min(end - pair.now));
    }
}

fn hold(pair: &mut Pair, lines: &str, answer: &str) {
    pair.b.on_update = OnUpdate::Answer(sdp("10.9.0.20", 50000, "8 101", answer));
    pair.a.reinvite(Some(&sdp("198.51.100.10", 40000, "0 8 101", lines)));
    pair.run_ms(200);
}

fn end(mut pair: Pair) {
    pair.a.bye();
    pair.assert_nothing_left(1);
}

#[test]
fn who_waits_for_the_other_is_sent_something_soon_and_again() {
    for (a, b, expected) in
        [(true, false, &[CALLER][..]), (false, true, &[CALLEE]), (true, true, &[CALLER, CALLEE])]
    {
        let mut pair = pair(a, b);
        pair.basic_call();
        let answered = pair.now;
        pair.run(Duration::from_secs(3));
        let sides: Vec<_> = pair.primed.iter().map(|(_, sides)| sides.as_slice()).collect();
        assert_eq!(sides, [expected, expected]);
        assert!(pair.primed[0].0 - answered <= Duration::from_millis(500));
        flow(&mut pair, true, Duration::from_secs(600));
        assert_eq!(pair.primed.len(), 2, "it flows: nothing more is needed");
        end(pair);
    }
}

#[test]
fn a_call_that_flows_needs_nothing() {
    for from_caller in [true, false] {
        let mut pair = pair(true, true);
        pair.a.invite("bob", Some(&offer()));
        pair.run_ms(100);
        pair.b.respond(183, Some(&answer()));
        pair.run_ms(100);
        pair.primed.clear();
        flow(&mut pair, from_caller, Duration::from_secs(5));
        pair.b.respond(200, Some(&answer()));
        pair.b.invite_done();
        flow(&mut pair, from_caller, Duration::from_secs(600));
        assert!(pair.primed.is_empty(), "{:?}", pair.primed);
        end(pair);
    }
}

#[test]
fn an_announcement_before_the_answer_can_come_in() {
    let mut pair = pair(false, true);
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    pair.b.respond(180, None);
    pair.run_ms(100);
    assert!(pair.primed.is_empty(), "nobody knows where to");
    pair.b.respond(183, Some(&answer()));
    pair.run_ms(100);
    let sides: Vec<_> = pair.primed.iter().map(|(_, sides)| sides.as_slice()).collect();
    assert_eq!(sides, [[CALLEE]]);
    assert_eq!(pair.counter("media_primed"), 1);
    pair.a.cancel();
    pair.run_ms(100);
    pair.assert_nothing_left(1);
}

#[test]
fn a_flow_is_kept_open_through_hold() {
    let mut pair = pair(true, false);
    pair.basic_call();
    flow(&mut pair, true, Duration::from_secs(30));
    hold(&mut pair, "a=inactive\r\n", "a=inactive\r\n");
    pair.primed.clear();
    let held = pair.now;
    pair.run(Duration::from_secs(300));
    let mut last = held;
    for (at, sides) in &pair.primed {
        assert_eq!(sides, &[CALLER]);
        assert!(*at - last <= PRIME, "never longer without a packet");
        last = *at;
    }
    assert!(pair.now - last <= PRIME);
    // Music on hold: what we send keeps it open.
    hold(&mut pair, "a=recvonly\r\n", "a=sendonly\r\n");
    flow(&mut pair, false, PRIME);
    pair.primed.clear();
    flow(&mut pair, false, Duration::from_secs(300));
    assert!(pair.primed.is_empty(), "{:?}", pair.primed);
    end(pair);
}

#[test]
fn a_peer_that_receives_nowhere_is_sent_nothing() {
    let mut pair = pair(true, false);
    pair.basic_call();
    flow(&mut pair, true, Duration::from_secs(5));
    pair.b.on_update = OnUpdate::Answer(answer());
    pair.a.reinvite(Some(&sdp("0.0.0.0", 40000, "0 8 101", "")));
    pair.run(Duration::from_secs(100));
    assert!(pair.primed.is_empty(), "{:?}", pair.primed);
    end(pair);
}

#[test]
fn a_new_place_is_looked_at_soon() {
    let mut pair = pair(false, true);
    pair.basic_call();
    flow(&mut pair, true, Duration::from_secs(60));
    pair.run(Duration::from_secs(1));
    pair.primed.clear();
    pair.a.on_update = OnUpdate::Answer(offer());
    pair.b.reinvite(Some(&sdp("10.9.0.20", 50010, "8 101", "")));
    let asked = pair.now;
    pair.run(Duration::from_secs(2) + Duration::from_millis(100));
    assert!(pair.primed.iter().any(|(at, sides)| *at - asked < Duration::from_secs(3) && sides == &[CALLEE]));
    end(pair);
}

#[test]
fn what_we_send_ourselves_is_no_life() {
    let limits = sbc_core::config::MediaTimeouts {
        talking: Some(Duration::from_secs(300)),
        held: Some(Duration::from_secs(7200)),
    };
    let media_a = TrunkMedia { prime: Some(PRIME), ..TrunkMedia::default() };
    let mut pair = Pair::with(Setup { media_a, media_timeouts: limits, ..Setup::default() });
    pair.basic_call();
    pair.run(Duration::from_secs(299));
    assert_eq!(pair.status().calls, 1);
    assert!(pair.primed.len() > 10);
    pair.run(Duration::from_secs(30));
    assert_eq!(pair.counter("call_media_timeout"), 1);
    pair.assert_nothing_left(1);
}
