//! The cases, in the order of `CASES`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use sbc_common::counter::Counter;
use sbc_core::config::Prefix;
use sbc_core::id::CallId;
use sbc_core::media::command::{MediaCommand, MediaDone, MediaError, StreamCounters};
use sbc_core::media::plan::PeerMedia;

use super::Wire;
use super::bench::{
    Bench, CALL, CALLEE, CALLEE_PORT, CALLER, CALLER_PORT, NEXT, OTHER, RTP_BYTES, media, opening, rtcp, rtp,
    up,
};

pub(super) fn each_command_is_answered_once_and_in_order(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let plan = bench.plan(CALL, 1);
    let ops = [
        bench.apply(MediaCommand::Install(plan.clone())),
        bench.apply(MediaCommand::Install(plan.clone())),
        bench.apply(MediaCommand::Remove(CALL)),
        bench.apply(MediaCommand::Remove(CALL)),
        bench.apply(MediaCommand::Install(plan)),
    ];
    let answers = bench.answers(ops.len());
    assert_eq!(answers.iter().map(|(op, _)| *op).collect::<Vec<_>>(), ops);
    assert!(answers.iter().all(|(_, result)| result.is_ok()), "{answers:?}");
    bench.passes(bench.caller(), bench.caller_local(), bench.callee_local(), bench.callee());
}

pub(super) fn packets_flow_both_ways(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    bench.install(&bench.plan(CALL, 2));
    for stream in [0, NEXT] {
        for _ in 0..3 {
            bench.passes(
                up(bench.caller(), stream),
                up(bench.caller_local(), stream),
                up(bench.callee_local(), stream),
                up(bench.callee(), stream),
            );
        }
        bench.passes(
            up(bench.callee(), stream),
            up(bench.callee_local(), stream),
            up(bench.caller_local(), stream),
            up(bench.caller(), stream),
        );
        let stream = stream + 1;
        bench.passes(
            up(bench.caller(), stream),
            up(bench.caller_local(), stream),
            up(bench.callee_local(), stream),
            up(bench.callee(), stream),
        );
        bench.passes(
            up(bench.callee(), stream),
            up(bench.callee_local(), stream),
            up(bench.caller_local(), stream),
            up(bench.caller(), stream),
        );
    }
    let expected = [(3, 3 * RTP_BYTES as u64, 1), (1, RTP_BYTES as u64, 1)];
    assert_eq!(bench.counted(CALL), [expected, expected]);
    assert_eq!(bench.claims(), [], "a signalled source claims nothing");
}

pub(super) fn a_wrong_source_is_refused(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    bench.install(&bench.plan(CALL, 1));
    for (from, to) in [
        (SocketAddr::new(bench.at.stranger, CALLER), bench.caller_local()),
        (up(bench.caller(), 2), bench.caller_local()),
        (up(bench.caller(), 1), bench.caller_local()),
        (bench.callee(), bench.caller_local()),
        (bench.caller(), up(bench.caller_local(), 1)),
        (SocketAddr::new(bench.at.stranger, CALLEE + 1), up(bench.callee_local(), 1)),
    ] {
        // Between families there is no way from the one to the other.
        if from.is_ipv4() == to.is_ipv4() {
            bench.refused(from, to, Counter::DropWrongSource);
        }
    }
    assert_eq!(bench.counted(CALL), [[(0, 0, 0); 2]]);
    bench.passes(bench.caller(), bench.caller_local(), bench.callee_local(), bench.callee());
}

pub(super) fn a_side_without_a_signalled_peer_is_closed(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let mut plan = bench.plan(CALL, 1);
    plan.streams[0].callee.peer = None;
    bench.install(&plan);
    // Whether as a wrong source or as a port without a flow is the implementation's choice.
    bench.stops(bench.callee(), bench.callee_local());
    bench.refused(bench.caller(), bench.caller_local(), Counter::DropNoDestination);
    assert_eq!(bench.counted(CALL), [[(0, 0, 0); 2]]);
}

pub(super) fn a_learning_side_is_claimed_once(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    bench.install(&bench.learning_plan());
    let (ours, theirs) = (bench.caller_local(), bench.callee_local());
    let behind_nat = SocketAddr::new(bench.at.caller, 61_234);
    bench.passes(bench.callee(), theirs, ours, bench.caller());
    bench.refused(SocketAddr::new(bench.at.stranger, CALLER), ours, Counter::DropWrongSource);
    bench.passes(behind_nat, ours, theirs, bench.callee());
    assert_eq!(bench.claims(), [bench.latched(behind_nat, false)]);
    bench.passes(bench.callee(), theirs, ours, behind_nat);
    bench.refused(bench.caller(), ours, Counter::DropWrongSource);
    bench.refused(up(behind_nat, 1), ours, Counter::DropWrongSource);
    bench.passes(behind_nat, ours, theirs, bench.callee());

    let rtcp_behind_nat = up(behind_nat, 7);
    bench.passes(bench.callee_rtcp(), up(theirs, 1), up(ours, 1), up(bench.caller(), 1));
    bench.passes(rtcp_behind_nat, up(ours, 1), up(theirs, 1), bench.callee_rtcp());
    assert_eq!(bench.claims(), [bench.latched(rtcp_behind_nat, true)]);
    bench.passes(bench.callee_rtcp(), up(theirs, 1), up(ours, 1), rtcp_behind_nat);
    bench.refused(behind_nat, up(ours, 1), Counter::DropWrongSource);
    assert_eq!(bench.claims(), []);
}

pub(super) fn a_learning_side_needs_no_signalled_peer(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let mut plan = bench.learning_plan();
    plan.streams[0].caller.peer = None;
    bench.install(&plan);
    bench.refused(bench.callee(), bench.callee_local(), Counter::DropNoDestination);
    let source = SocketAddr::new(bench.at.caller, 61_234);
    bench.passes(source, bench.caller_local(), bench.callee_local(), bench.callee());
    bench.passes(bench.callee(), bench.callee_local(), bench.caller_local(), source);
}

pub(super) fn what_is_not_media_is_dropped_and_claims_nothing(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    bench.install(&bench.learning_plan());
    let (caller, ours) = (bench.caller(), bench.caller_local());
    let with_first = |byte| {
        let mut packet = rtp(1);
        packet[0] = byte;
        packet
    };
    let mut many_sources = rtp(1);
    many_sources.truncate(40);
    many_sources[0] = 0x8f;
    for (port, payload, reason) in [
        (0, rtp(1)[..11].to_vec(), Counter::DropShortMedia),
        (0, vec![0x80; 4], Counter::DropShortMedia),
        (0, many_sources, Counter::DropShortMedia),
        (0, with_first(0), Counter::DropStun),
        (0, with_first(22), Counter::DropDtls),
        (0, with_first(0x40), Counter::DropNotRtp),
        (0, with_first(0xff), Counter::DropNotRtp),
        (0, rtcp(), Counter::DropWrongKind),
        (1, rtp(1), Counter::DropWrongKind),
        (1, rtcp()[..20].to_vec(), Counter::DropShortMedia),
    ] {
        let before = bench.wire.outcome(reason);
        let left = bench.wire.deliver(up(caller, port), up(ours, port), &payload);
        assert_eq!(left, None, "{}", reason.name());
        assert_eq!(bench.wire.outcome(reason), before + 1, "{}", reason.name());
    }
    assert_eq!(bench.claims(), []);
    assert_eq!(bench.counted(CALL), [[(0, 0, 0); 2]]);
    let source = SocketAddr::new(bench.at.caller, 61_234);
    bench.passes(source, ours, bench.callee_local(), bench.callee());
    assert_eq!(bench.claims(), [bench.latched(source, false)], "the port was still to be claimed");
}

pub(super) fn a_new_peer_replaces_the_old_one(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let mut plan = bench.plan(CALL, 1);
    bench.install(&plan);
    let moved = up(bench.callee(), 50);
    plan.streams[0].callee.peer = Some(media(moved));
    bench.install(&plan);
    bench.passes(bench.caller(), bench.caller_local(), bench.callee_local(), moved);
    bench.passes(moved, bench.callee_local(), bench.caller_local(), bench.caller());
    bench.passes(
        up(bench.caller(), 1),
        up(bench.caller_local(), 1),
        up(bench.callee_local(), 1),
        up(moved, 1),
    );
    bench.refused(bench.callee(), bench.callee_local(), Counter::DropWrongSource);
}

pub(super) fn an_unchanged_side_keeps_its_latch(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let mut plan = bench.learning_plan();
    bench.install(&plan);
    let source = SocketAddr::new(bench.at.caller, 61_234);
    bench.passes(source, bench.caller_local(), bench.callee_local(), bench.callee());
    assert_eq!(bench.claims(), [bench.latched(source, false)]);

    let moved = up(bench.callee(), 50);
    plan.streams[0].callee.peer = Some(media(moved));
    plan.streams[0].caller.dscp = 0;
    bench.install(&plan);
    bench.passes(moved, bench.callee_local(), bench.caller_local(), source);
    bench.refused(bench.caller(), bench.caller_local(), Counter::DropWrongSource);
    bench.passes(source, bench.caller_local(), bench.callee_local(), moved);
    assert_eq!(bench.claims(), [], "claimed before, not again");
    let rtcp = up(source, 1);
    bench.passes(rtcp, up(bench.caller_local(), 1), up(bench.callee_local(), 1), up(moved, 1));
    assert_eq!(bench.claims(), [bench.latched(rtcp, true)], "RTCP was still to be claimed");
}

pub(super) fn another_opening_learns_again(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let mut plan = bench.learning_plan();
    bench.install(&plan);
    let (old, new) = (SocketAddr::new(bench.at.caller, 61_234), SocketAddr::new(bench.at.caller, 61_300));
    bench.passes(old, bench.caller_local(), bench.callee_local(), bench.callee());
    assert_eq!(bench.claims(), [bench.latched(old, false)]);

    plan.streams[0].caller.peer = Some(media(up(bench.caller(), 20)));
    plan.streams[0].caller.source = opening(Prefix::host(bench.at.caller), 1, true);
    bench.install(&plan);
    bench.passes(bench.callee(), bench.callee_local(), bench.caller_local(), up(bench.caller(), 20));
    bench.passes(new, bench.caller_local(), bench.callee_local(), bench.callee());
    assert_eq!(bench.claims(), [bench.latched(new, false)]);
    bench.refused(old, bench.caller_local(), Counter::DropWrongSource);
    bench.passes(bench.callee(), bench.callee_local(), bench.caller_local(), new);
}

pub(super) fn new_ports_replace_the_old_ones(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let mut plan = bench.plan(CALL, 1);
    bench.install(&plan);
    plan.streams[0].caller.local_rtp_port += 20;
    bench.install(&plan);
    let moved = up(bench.caller_local(), 20);
    bench.passes(bench.caller(), moved, bench.callee_local(), bench.callee());
    bench.passes(bench.callee(), bench.callee_local(), moved, bench.caller());
    bench.stops(bench.caller(), bench.caller_local());
    bench.stops(up(bench.caller(), 1), up(bench.caller_local(), 1));

    let mut other = bench.plan(OTHER, 1);
    other.streams[0].caller.local_rtp_port = CALLER_PORT;
    bench.install(&other);
}

pub(super) fn counters_outlive_an_update(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let mut plan = bench.plan(CALL, 1);
    bench.install(&plan);
    bench.passes(bench.caller(), bench.caller_local(), bench.callee_local(), bench.callee());
    let moved = up(bench.callee(), 50);
    plan.streams[0].callee.peer = Some(media(moved));
    bench.install(&plan);
    bench.passes(bench.caller(), bench.caller_local(), bench.callee_local(), moved);
    plan.streams[0].caller.local_rtp_port += 20;
    bench.install(&plan);
    bench.passes(bench.caller(), up(bench.caller_local(), 20), bench.callee_local(), moved);
    assert_eq!(bench.counted(CALL), [[(3, 3 * RTP_BYTES as u64, 0), (0, 0, 0)]]);
}

/// The engine takes a call for silent by these numbers, so each kind of packet must move them, and nothing else.
pub(super) fn an_observation_shows_what_was_carried(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    assert_eq!(bench.command(MediaCommand::Observe(CALL)), Ok(MediaDone::default()), "no plan, no streams");
    bench.install(&bench.plan(CALL, 2));
    let observe = |bench: &mut Bench<'_>| -> Vec<u64> {
        let done = bench.command(MediaCommand::Observe(CALL)).expect("a call can be observed");
        assert_eq!(done.placements, []);
        assert_eq!(done.counters, bench.wire.dataplane().counters(CALL));
        done.counters.iter().map(StreamCounters::packets).collect()
    };
    assert_eq!(observe(&mut bench), [0, 0]);
    assert_eq!(observe(&mut bench), [0, 0], "to look is not to speak");
    bench.passes(bench.caller(), bench.caller_local(), bench.callee_local(), bench.callee());
    assert_eq!(observe(&mut bench), [1, 0], "RTP of the caller");
    bench.passes(
        bench.callee_rtcp(),
        up(bench.callee_local(), 1),
        up(bench.caller_local(), 1),
        up(bench.caller(), 1),
    );
    assert_eq!(observe(&mut bench), [2, 0], "RTCP of the callee");
    bench.stops(SocketAddr::new(bench.at.stranger, CALLER), bench.caller_local());
    assert_eq!(observe(&mut bench), [2, 0], "a stranger keeps no call alive");
    let second = |address| up(address, NEXT);
    bench.passes(
        second(bench.callee()),
        second(bench.callee_local()),
        second(bench.caller_local()),
        second(bench.caller()),
    );
    assert_eq!(observe(&mut bench), [2, 1], "another stream");
    bench.passes(bench.caller(), bench.caller_local(), bench.callee_local(), bench.callee());
}

pub(super) fn remove_may_be_repeated(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    assert_eq!(bench.command(MediaCommand::Remove(CALL)), Ok(MediaDone::default()));
    bench.install(&bench.plan(CALL, 1));
    for sequence in [1, 2, 5] {
        let left = bench.wire.deliver(bench.caller(), bench.caller_local(), &rtp(sequence));
        assert_eq!(left.map(|datagram| datagram.to), Some(bench.callee()));
    }
    let before = bench.wire.dataplane().counters(CALL);
    let done = bench.command(MediaCommand::Remove(CALL)).expect("a plan can be removed");
    assert_eq!(done.placements, []);
    assert_eq!(done.counters, before, "the last counters are the final ones");
    let [stream] = done.counters[..] else { panic!("one stream, {} counted", done.counters.len()) };
    assert_eq!((stream.mline, stream.placement), (0, Some(bench.wire.placement())));
    assert_eq!(stream.from_caller.rtp_kernel + stream.from_caller.rtp_relay, 3);
    assert!(matches!(stream.from_caller.lost, None | Some(2)), "{:?}", stream.from_caller.lost);

    assert_eq!(bench.command(MediaCommand::Remove(CALL)), Ok(MediaDone::default()));
    bench.stops(bench.caller(), bench.caller_local());
    bench.stops(bench.callee(), bench.callee_local());
    assert_eq!(bench.wire.dataplane().counters(CALL), []);
    assert_eq!(bench.wire.dataplane().snapshot(), []);
    bench.install(&bench.plan(CALL, 1));
    bench.passes(bench.caller(), bench.caller_local(), bench.callee_local(), bench.callee());
    assert_eq!(bench.counted(CALL), [[(1, RTP_BYTES as u64, 0), (0, 0, 0)]], "counted from zero");
}

pub(super) fn a_taken_port_leaves_nothing_of_the_plan(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    bench.install(&bench.plan(CALL, 1));
    let mut other = bench.plan(OTHER, 2);
    other.streams[1].callee.local_rtp_port = CALLEE_PORT;
    let refused = bench.command(MediaCommand::Install(other));
    assert_eq!(refused, Err(MediaError::PortInUse(bench.callee_local())));
    assert_eq!(bench.wire.dataplane().snapshot(), [CALL]);
    bench.stops(up(bench.caller(), 10), up(bench.caller_local(), 10));
    bench.stops(up(bench.callee(), 10), up(bench.callee_local(), 10));
    bench.passes(bench.caller(), bench.caller_local(), bench.callee_local(), bench.callee());
    bench.passes(bench.callee(), bench.callee_local(), bench.caller_local(), bench.caller());

    let mut twice = bench.plan(OTHER, 2);
    twice.streams[1].caller.local_rtp_port = twice.streams[0].caller.local_rtp_port;
    let refused = bench.command(MediaCommand::Install(twice));
    assert_eq!(refused, Err(MediaError::PortInUse(up(bench.caller_local(), 10))), "also within one plan");
    bench.install(&bench.plan(OTHER, 2));
}

pub(super) fn a_failed_update_leaves_the_old_plan(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let plan = bench.learning_plan();
    bench.install(&plan);
    bench.install(&bench.plan(OTHER, 1));
    let source = SocketAddr::new(bench.at.caller, 61_234);
    bench.passes(source, bench.caller_local(), bench.callee_local(), bench.callee());

    let mut update = bench.plan(CALL, 2);
    update.streams[0].callee.peer = Some(media(up(bench.callee(), 50)));
    update.streams[1].caller.local_rtp_port = CALLER_PORT + 10;
    let refused = bench.command(MediaCommand::Install(update));
    assert_eq!(refused, Err(MediaError::PortInUse(up(bench.caller_local(), 10))));
    bench.passes(source, bench.caller_local(), bench.callee_local(), bench.callee());
    bench.passes(bench.callee(), bench.callee_local(), bench.caller_local(), source);
    bench.refused(bench.caller(), bench.caller_local(), Counter::DropWrongSource);
    bench.stops(up(bench.callee(), NEXT), up(bench.callee_local(), NEXT));
    assert_eq!(bench.counted(CALL).len(), 1);
}

pub(super) fn a_plan_that_leads_to_itself_is_refused(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    for own in [bench.caller_local(), bench.callee_local(), up(bench.callee_local(), 1)] {
        let mut plan = bench.plan(CALL, 1);
        plan.streams[0].caller.peer = Some(PeerMedia { rtp: own, rtcp: up(bench.caller(), 1) });
        let refused = bench.command(MediaCommand::Install(plan));
        assert!(
            matches!(refused, Err(MediaError::NoRoute(_) | MediaError::NotOurs(_))),
            "{own}: {refused:?}"
        );
    }
    assert_eq!(bench.wire.dataplane().snapshot(), []);
}

pub(super) fn the_snapshot_names_the_calls(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    assert_eq!(bench.wire.dataplane().snapshot(), []);
    bench.install(&bench.plan(OTHER, 1));
    bench.install(&bench.plan(CALL, 2));
    let mut calls = bench.wire.dataplane().snapshot();
    calls.sort_unstable();
    assert_eq!(calls, [CALL, OTHER]);
    let streams: BTreeMap<CallId, usize> =
        calls.into_iter().map(|call| (call, bench.wire.dataplane().counters(call).len())).collect();
    assert_eq!(streams, BTreeMap::from([(CALL, 2), (OTHER, 1)]));
    bench.command(MediaCommand::Remove(OTHER)).expect("a plan can be removed");
    assert_eq!(bench.wire.dataplane().snapshot(), [CALL]);
}
