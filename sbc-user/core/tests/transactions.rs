//! Two transaction tables back to back, over a link that loses, doubles, delays and reorders, on a virtual clock.
//!
//! The users on both sides are as small as RFC 3261 s.13 allows: the caller acknowledges every 2xx, the callee rings,
//! answers and repeats its 2xx. The tables must make a call of that whatever the link does, and keep nothing behind.

#[path = "transactions/world.rs"]
mod world;

use std::time::Duration;

use proptest::prelude::*;
use world::{Callee, Link, World};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn perfect() -> Link {
    Link { delay: ms(20)..ms(21), ..Link::default() }
}

#[test]
fn a_call_is_answered_and_acknowledged_once() {
    let mut world = World::new(perfect(), Callee { ring: Some(ms(100)), answer: ms(3000), status: 200 });
    world.call();
    world.run();
    assert_eq!(world.caller_heard(), ["100", "180", "200", "terminated"]);
    assert_eq!(world.callee_heard(), ["INVITE", "ACK", "terminated"]);
    assert_eq!(world.carried("INVITE"), 1);
    assert_eq!(world.carried("200"), 1);
}

#[test]
fn a_lost_invite_is_sent_again() {
    let mut world = World::new(Link { lose: vec![0, 1], ..perfect() }, Callee::answering(200));
    world.call();
    world.run();
    assert_eq!(world.carried("INVITE"), 3);
    assert_eq!(world.callee_heard(), ["INVITE", "ACK", "terminated"]);
}

#[test]
fn a_lost_2xx_is_repeated_by_the_user() {
    // 0 INVITE, 1 100, 2 200: lost.
    let mut world = World::new(Link { lose: vec![2], ..perfect() }, Callee::answering(200));
    world.call();
    world.run();
    assert_eq!(world.caller_heard(), ["100", "200", "terminated"]);
    assert_eq!(world.carried("200"), 2);
    assert_eq!(world.callee_heard(), ["INVITE", "ACK", "terminated"]);
}

#[test]
fn a_lost_ack_to_a_2xx_is_repeated_with_the_next_copy() {
    // 3 is the first ACK, 5 the second.
    let mut world = World::new(Link { lose: vec![3, 5], ..perfect() }, Callee::answering(200));
    world.call();
    world.run();
    assert_eq!(world.caller_heard(), ["100", "200", "200", "200", "terminated"]);
    assert_eq!(world.callee_heard(), ["INVITE", "ACK", "terminated"]);
    assert_eq!(world.carried("ACK"), 3);
}

#[test]
fn a_late_ack_finds_the_2xx_repeated_and_is_one_all_the_same() {
    // The ACK takes 1.6 s, during which two more copies of the 2xx (and their ACKs) are under way.
    let link = Link { slow: vec![(3, ms(1600))], ..perfect() };
    let mut world = World::new(link, Callee::answering(200));
    world.call();
    world.run();
    assert!(world.carried("200") > 1);
    assert!(!world.callee_heard().contains(&"no ACK".to_owned()));
}

#[test]
fn a_lost_refusal_and_a_lost_ack_are_repeated_by_the_transactions() {
    // 2 is the refusal, 4 the ACK to its copy.
    let mut world = World::new(Link { lose: vec![2, 4], ..perfect() }, Callee::answering(486));
    world.call();
    world.run();
    assert_eq!(world.caller_heard(), ["100", "486", "terminated"]);
    assert_eq!(world.callee_heard(), ["INVITE", "terminated"]);
    assert_eq!((world.carried("486"), world.carried("ACK")), (3, 2));
}

#[test]
fn without_any_ack_the_callee_gives_up_after_32_seconds() {
    let mut world = World::new(perfect(), Callee::answering(200));
    world.caller_acknowledges = false;
    world.call();
    world.run();
    assert_eq!(world.callee_heard(), ["INVITE", "terminated", "no ACK"]);
    assert_eq!(world.carried("200"), 11);
}

#[test]
fn a_cancelled_call_ends_with_487() {
    let mut world = World::new(perfect(), Callee { ring: Some(ms(100)), answer: ms(60_000), status: 200 });
    world.call();
    world.cancel_at(ms(5000));
    world.run();
    assert_eq!(world.caller_heard(), ["100", "180", "487", "terminated"]);
    assert_eq!(world.callee_heard(), ["INVITE", "CANCEL", "terminated", "terminated"]);
}

#[test]
fn a_cancel_that_crosses_the_2xx_changes_nothing() {
    let mut world = World::new(perfect(), Callee { ring: None, answer: ms(1000), status: 200 });
    world.call();
    // The 2xx leaves at 1020 ms and arrives at 1040 ms; the CANCEL leaves between.
    world.cancel_at(ms(1030));
    world.run();
    assert_eq!(world.caller_heard(), ["100", "200", "terminated"]);
    assert_eq!(world.callee_heard(), ["INVITE", "CANCEL", "ACK", "terminated", "terminated"]);
}

#[test]
fn a_cancel_before_any_answer_leaves_with_the_first() {
    let mut world = World::new(perfect(), Callee { ring: None, answer: ms(60_000), status: 200 });
    world.call();
    world.cancel_at(ms(1));
    world.run();
    assert_eq!(world.caller_heard(), ["100", "487", "terminated"]);
    assert_eq!(world.carried("CANCEL"), 1);
}

#[test]
fn a_dead_link_times_out() {
    let mut world = World::new(Link { loss_percent: 100, ..perfect() }, Callee::answering(200));
    world.call();
    world.options();
    world.run();
    assert_eq!(world.caller_heard(), ["timed out", "terminated", "timed out", "terminated"]);
    assert_eq!(world.callee_heard(), [] as [&str; 0]);
}

prop_compose! {
    fn link()(
        loss_percent in prop_oneof![0..30_u8, 30..101_u8],
        double_percent in 0..50_u8,
        longest in 1..3000_u64,
        seed: u64,
    ) -> Link {
        Link { loss_percent, double_percent, delay: ms(0)..ms(longest), seed, ..Link::default() }
    }
}

prop_compose! {
    fn callee()(
        ring in prop::option::of(0..4000_u64),
        answer in 0..40_000_u64,
        status in prop::sample::select(vec![200_u16, 202, 302, 404, 486, 503, 603]),
    ) -> Callee {
        Callee { ring: ring.map(ms), answer: ms(answer), status }
    }
}

proptest! {
    #[test]
    fn whatever_the_link_does_a_call_ends_once_and_nothing_stays(
        link in link(),
        callee in callee(),
        cancel in prop::option::of(0..45_000_u64),
        reliable: bool,
    ) {
        let mut world = World::new(link, callee);
        if reliable {
            world.use_stream();
        }
        world.call();
        world.options();
        if let Some(after) = cancel {
            world.cancel_at(ms(after));
        }
        // `run` panics if a transaction outlives its bound or an event comes twice or after the end.
        world.run();
    }
}

/// One thing that a peer, the user or time does to a single table.
#[derive(Clone, Debug)]
enum Op {
    Request { method: usize, branch: usize, cookie: bool },
    Response { nth: usize, status: u16 },
    Ask { method: usize },
    Answer { nth: usize, status: u16 },
    Cancel { nth: usize },
    Fail { nth: usize },
    Wait { ms: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    let status = prop::sample::select(vec![100_u16, 180, 199, 200, 299, 302, 408, 487, 503, 699]);
    prop_oneof![
        (0..5_usize, 0..4_usize, any::<bool>()).prop_map(|(method, branch, cookie)| Op::Request {
            method,
            branch,
            cookie
        }),
        (0..32_usize, status.clone()).prop_map(|(nth, status)| Op::Response { nth, status }),
        (0..4_usize).prop_map(|method| Op::Ask { method }),
        (0..32_usize, status).prop_map(|(nth, status)| Op::Answer { nth, status }),
        (0..32_usize).prop_map(|nth| Op::Cancel { nth }),
        (0..64_usize).prop_map(|nth| Op::Fail { nth }),
        (0..40_000_u64).prop_map(|ms| Op::Wait { ms }),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_in_whatever_order_every_transaction_ends(
        ops in prop::collection::vec(op(), 0..120),
        reliable: bool,
    ) {
        let mut lone = world::Lone::new(reliable, 12);
        for op in ops {
            match op {
                Op::Request { method, branch, cookie } => lone.receive_request(method, branch, cookie),
                Op::Response { nth, status } => lone.receive_response(nth, status),
                Op::Ask { method } => lone.request(method),
                Op::Answer { nth, status } => lone.respond(nth, status),
                Op::Cancel { nth } => lone.cancel(nth),
                Op::Fail { nth } => lone.fail(nth),
                Op::Wait { ms: length } => lone.wait(ms(length)),
            }
        }
        lone.end();
    }
}
