//! What `Prime` sends, from where, and to whom.

use std::net::SocketAddr;

use sbc_common::flow::MediaKind;
use sbc_common::rtp;
use sbc_core::media::command::{MediaCommand, MediaDone, SideOf};
use sbc_core::media::plan::PeerMedia;

use super::bench::{Bench, CALL, OTHER, up};
use super::{Datagram, Wire};

/// Primes sides, and expects an RTP and an RTCP packet by each of these ways and nothing else.
#[track_caller]
fn primed(bench: &mut Bench<'_>, sides: &[bool], expected: &[(MediaKind, SocketAddr, SocketAddr)]) {
    let sides = sides.iter().map(|caller_side| SideOf { mline: 0, caller_side: *caller_side }).collect();
    let done = bench.command(MediaCommand::Prime { call: CALL, sides });
    assert_eq!(done, Ok(MediaDone::default()));
    let sent = bench.wire.sent(expected.len());
    assert_eq!(sent.len(), expected.len(), "{sent:?}");
    for (kind, via, to) in expected {
        let by = |datagram: &&Datagram| (datagram.from, datagram.to) == (*via, *to);
        let is_kind = |datagram: &&Datagram| rtp::check(*kind, &datagram.payload).is_ok();
        assert!(sent.iter().filter(by).any(|datagram| is_kind(&datagram)), "{kind:?} {via} {to}: {sent:?}");
    }
}

pub(super) fn it_reaches_a_signalled_peer(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    bench.install(&bench.plan(CALL, 1));
    let [caller, callee] = [bench.caller(), bench.callee()];
    let [caller_local, callee_local] = [bench.caller_local(), bench.callee_local()];
    let of_caller =
        [(MediaKind::Rtp, caller_local, caller), (MediaKind::Rtcp, up(caller_local, 1), up(caller, 1))];
    let of_callee =
        [(MediaKind::Rtp, callee_local, callee), (MediaKind::Rtcp, up(callee_local, 1), up(callee, 1))];
    primed(&mut bench, &[true], &of_caller);
    primed(&mut bench, &[false], &of_callee);
    primed(&mut bench, &[true, false], &[of_caller, of_callee].concat());
    bench.passes(caller, caller_local, callee_local, callee);
}

pub(super) fn it_reaches_whoever_claimed_a_side(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    bench.install(&bench.learning_plan());
    let source = SocketAddr::new(bench.at.caller, super::bench::CALLER + 7);
    let local = bench.caller_local();
    bench.passes(source, local, bench.callee_local(), bench.callee());
    let claims = bench.claims();
    assert_eq!(claims, [bench.latched(source, false)]);
    let rtcp = up(bench.caller(), 1);
    primed(&mut bench, &[true], &[(MediaKind::Rtp, local, source), (MediaKind::Rtcp, up(local, 1), rtcp)]);
}

pub(super) fn of_a_shared_port_it_uses_that_port(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let mut plan = bench.plan(CALL, 1);
    let (caller, local) = (bench.caller(), bench.caller_local());
    plan.streams[0].caller.rtcp_mux = true;
    plan.streams[0].caller.peer = Some(PeerMedia { rtp: caller, rtcp: caller });
    bench.install(&plan);
    primed(&mut bench, &[true], &[(MediaKind::Rtp, local, caller), (MediaKind::Rtcp, local, caller)]);
}

pub(super) fn without_a_peer_it_sends_nothing(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    primed(&mut bench, &[true, false], &[]);
    let mut plan = bench.plan(CALL, 1);
    plan.streams[0].caller.peer = None;
    bench.install(&plan);
    bench.install(&bench.plan(OTHER, 1));
    primed(&mut bench, &[true], &[]);
    let sides = vec![SideOf { mline: 3, caller_side: true }];
    assert_eq!(bench.command(MediaCommand::Prime { call: CALL, sides }), Ok(MediaDone::default()));
    assert_eq!(bench.wire.sent(0), []);
}
