//! A daemon ends without a word; the next one takes over the media of its calls.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use sbc_core::Input;
use sbc_core::command::{CallState, Command, GuardOrder, Reply};
use sbc_core::config::{MediaTimeouts, Prefix};
use sbc_core::guard::{Denied, DenyReason, DenyScope, ListKind, Source};
use sbc_core::id::{CallId, RealmId};
use sbc_core::media::plan::{Placement, SourcePolicy};
use sbc_core::record::EndedBy;
use sbc_core::restart::{ListChange, RestingPorts, Restored, RestoredCall};

use crate::pair::ua::OnUpdate;
use crate::pair::{Media, Pair, Setup, sdp};
use crate::{answer, learned, offer};

const TALKING: u64 = 300;
const HELD: u64 = 7200;

fn setup() -> Setup {
    let seconds = |it| Some(Duration::from_secs(it));
    let media_timeouts = MediaTimeouts { talking: seconds(TALKING), held: seconds(HELD) };
    Setup { media_timeouts, ..Setup::default() }
}

/// What a daemon with this call leaves.
fn left(pair: &Pair) -> RestoredCall {
    let plan = pair.plans.values().next().unwrap().clone();
    let placements = vec![Placement::Kernel; plan.streams.len()];
    let checkpoint = pair.checkpoints.iter().rfind(|checkpoint| checkpoint.call == plan.call).cloned();
    RestoredCall { checkpoint, plan, placements }
}

/// The next daemon.
fn after(call: RestoredCall, setup: Setup) -> Pair {
    let mut pair = Pair::with(setup);
    pair.plans.insert(call.plan.call, call.plan.clone());
    let restored = Restored { calls: vec![call], ..Restored::default() };
    pair.input(Input::Restored(Box::new(restored)));
    pair
}

fn run_s(pair: &mut Pair, seconds: u64) {
    pair.run(Duration::from_secs(seconds));
}

#[test]
fn a_call_that_is_taken_over_keeps_its_ports_until_its_media_is_silent() {
    let mut before = Pair::with(setup());
    before.basic_call();
    let call = left(&before);
    let plan = call.plan.clone();
    let mut pair = after(call, setup());
    let status = pair.status();
    assert_eq!((status.calls, status.media_only, status.ports_in_use), (0, 1, 4));
    let seen = pair.calls();
    assert_eq!((seen[0].call, seen[0].state), (CallId(1), CallState::MediaOnly));
    assert_eq!((&seen[0].caller, seen[0].plan.as_ref()), (&before.calls()[0].caller, Some(&plan)));

    // A new call gets another id and other ports; the one that was taken over lives while it has media.
    pair.basic_call();
    let new = pair.plans.get(&CallId(2)).unwrap().clone();
    assert_ne!(new.streams[0].caller.local_rtp_port, plan.streams[0].caller.local_rtp_port);
    pair.a.bye();
    for _ in 0..3 {
        pair.carried.0.rtp_kernel += 1;
        run_s(&mut pair, TALKING - 61);
        assert_eq!(pair.status().media_only, 1);
    }
    run_s(&mut pair, TALKING + 61);
    assert_eq!(pair.status().media_only, 0);
    pair.assert_nothing_left(2);
    let record = pair.records.iter().find(|record| record.call == CallId(1)).unwrap();
    assert_eq!((record.ended_by, record.status), (EndedBy::Local, 200));
    assert_eq!(record.cause, "media fell silent after a restart");
    assert_eq!((record.began, record.media.len()), (seen[0].began, 1));
}

#[test]
fn a_port_that_could_be_claimed_before_a_restart_is_closed_after_it() {
    let setup = || Setup { media_a: learned(), ..setup() };
    let mut before = Pair::with(setup());
    before.basic_call();
    let mut pair = after(left(&before), setup());
    let open = |pair: &Pair| match pair.plan().streams[0].caller.source {
        SourcePolicy::Learn { window, .. } => (window.opening, window.open),
        SourcePolicy::Signalled => panic!("not learned"),
    };
    assert_eq!(open(&pair), (0, true));
    // The dataplane would not close it: it is closed later.
    pair.media = Media::Fail;
    run_s(&mut pair, 12);
    assert_eq!(open(&pair), (0, true));
    pair.media = Media::Ok;
    run_s(&mut pair, 5);
    assert_eq!(open(&pair), (0, false));
    let installed = pair.installed.len();
    run_s(&mut pair, 60);
    assert_eq!(pair.installed.len(), installed);
    run_s(&mut pair, TALKING + 61);
    pair.assert_nothing_left(1);
}

#[test]
fn a_call_whose_counters_cannot_be_had_is_not_silent() {
    let mut before = Pair::with(setup());
    before.basic_call();
    let mut pair = after(left(&before), setup());
    pair.media = Media::Blind;
    run_s(&mut pair, TALKING * 3);
    assert_eq!(pair.status().media_only, 1);
    pair.media = Media::Ok;
    run_s(&mut pair, TALKING + 61);
    pair.assert_nothing_left(1);
}

#[test]
fn a_held_call_may_be_silent_for_longer_after_a_restart_too() {
    let mut before = Pair::with(setup());
    before.basic_call();
    before.b.on_update = OnUpdate::Answer(sdp("10.9.0.20", 50000, "8", "a=recvonly\r\n"));
    before.a.reinvite(Some(&sdp("198.51.100.10", 40000, "8", "a=sendonly\r\n")));
    run_s(&mut before, 40);
    let mut pair = after(left(&before), setup());
    run_s(&mut pair, HELD - 1);
    assert_eq!(pair.status().media_only, 1);
    run_s(&mut pair, 62);
    assert_eq!(pair.status().media_only, 0);
}

#[test]
fn without_signalling_a_call_ends_even_where_no_silence_would_end_it() {
    let mut before = Pair::with(Setup::default());
    before.basic_call();
    let mut pair = after(left(&before), Setup::default());
    run_s(&mut pair, 400);
    pair.assert_nothing_left(1);
}

#[test]
fn a_call_that_was_never_answered_is_released_at_once() {
    let mut before = Pair::with(setup());
    before.a.invite("bob", Some(&offer()));
    before.run_ms(100);
    before.b.respond(183, Some(&answer()));
    before.run_ms(100);
    let call = left(&before);
    assert!(call.checkpoint.is_none());
    let mut pair = after(call, setup());
    pair.run_ms(1);
    assert_eq!(pair.status().media_only, 0);
    pair.assert_nothing_left(0);
}

#[test]
fn a_stop_ends_what_was_taken_over() {
    let mut before = Pair::with(setup());
    before.basic_call();
    let mut pair = after(left(&before), setup());
    assert_eq!(pair.command(Command::HangUpAll), Reply::Accepted { calls: 1 });
    pair.run_ms(1);
    assert_eq!(pair.records[0].cause, "ended by the operator after a restart");
    pair.assert_nothing_left(1);
}

#[test]
fn ports_of_calls_that_ended_before_the_restart_rest() {
    let mut pair = Pair::with(Setup { ports: 20_000..=20_001, ..setup() });
    let resting = [0, 1].map(|realm| RestingPorts {
        realm: RealmId(realm),
        rtp: 20_000,
        lasts: Duration::from_secs(10),
    });
    pair.input(Input::Restored(Box::new(Restored { resting: resting.into(), ..Restored::default() })));
    pair.a.invite("bob", Some(&offer()));
    run_s(&mut pair, 1);
    assert_eq!(pair.a.count("INVITE", 503), 1, "{:?}", pair.a.summary());
    run_s(&mut pair, 10);
    pair.basic_call();
}

#[test]
fn who_was_denied_stays_denied_and_what_an_operator_changed_stays_changed() {
    let mut pair = Pair::with(setup());
    let Reply::Denied(none) = pair.command(Command::Guard(GuardOrder::Denied)) else { panic!("no list") };
    assert_eq!(none, []);
    let source = |last| Source::of(IpAddr::from([203, 0, 113, last]));
    run_s(&mut pair, 60);
    let began = SystemTime::UNIX_EPOCH;
    let denied = |last, until: Option<u64>| Denied {
        source: source(last),
        reason: DenyReason::Flood,
        scope: DenyScope::All,
        since: began,
        until: until.map(|seconds| began + Duration::from_secs(seconds)),
    };
    let prefix = Prefix { addr: "192.0.2.0".parse().unwrap(), len: 24 };
    let restored = Restored {
        denied: vec![denied(1, None), denied(2, Some(50)), denied(3, Some(70))],
        lists: vec![ListChange { list: ListKind::Block, prefix, listed: true }],
        ..Restored::default()
    };
    pair.input(Input::Restored(Box::new(restored)));
    let list = |pair: &mut Pair| {
        let Reply::Denied(denied) = pair.command(Command::Guard(GuardOrder::Denied)) else {
            panic!("no list")
        };
        denied.into_iter().map(|denied| denied.source).collect::<Vec<_>>()
    };
    assert_eq!(list(&mut pair), [source(1), source(3)]);
    let blocked = pair.command(Command::Guard(GuardOrder::List(ListKind::Block)));
    assert_eq!(blocked, Reply::Listed(vec![prefix]));
    run_s(&mut pair, 11);
    assert_eq!(list(&mut pair), [source(1)]);
}
