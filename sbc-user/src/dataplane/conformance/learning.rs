//! Who may claim a side, and for how long (RFC 7362).

use std::net::{IpAddr, SocketAddr};

use sbc_common::counter::Counter;
use sbc_core::config::Prefix;
use sbc_core::media::plan::MediaPlan;

use super::Wire;
use super::bench::{Bench, CALLER, media, opening, up};

/// What has all but the last few bits in common with an address.
fn around(address: IpAddr) -> Prefix {
    let len = if address.is_ipv4() { 24 } else { 64 };
    Prefix { addr: address, len }
}

fn anywhere(address: IpAddr) -> Prefix {
    Prefix { addr: address, len: 0 }
}

/// One stream, the caller's side of which is in an opening.
fn plan(bench: &Bench<'_>, allowed: Prefix, number: u32, open: bool) -> MediaPlan {
    let mut plan = bench.learning_plan();
    plan.streams[0].caller.source = opening(allowed, number, open);
    plan
}

pub(super) fn a_prefix_may_claim_and_nobody_else(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let (ours, theirs) = (bench.caller_local(), bench.callee_local());
    let inside = SocketAddr::new(bench.at.caller, 61_234);
    let stranger = SocketAddr::new(bench.at.stranger, CALLER);
    let allowed = around(bench.at.caller);
    assert!(allowed.contains(inside.ip()));
    bench.install(&plan(&bench, allowed, 1, true));
    if !allowed.contains(stranger.ip()) {
        bench.refused(stranger, ours, Counter::DropWrongSource);
    }
    bench.passes(inside, ours, theirs, bench.callee());
    assert_eq!(bench.claims(), [bench.latched(inside, false)]);
    bench.refused(bench.caller(), ours, Counter::DropWrongSource);
    bench.passes(bench.callee(), theirs, ours, inside);
}

/// The way to who claims may be another one than that to the signalled peer.
pub(super) fn whoever_claims_is_answered(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let (ours, theirs) = (bench.caller_local(), bench.callee_local());
    let anybody = SocketAddr::new(bench.at.stranger, CALLER + 3);
    bench.install(&plan(&bench, anywhere(bench.at.caller), 1, true));
    bench.passes(anybody, ours, theirs, bench.callee());
    assert_eq!(bench.claims(), [bench.latched(anybody, false)]);
    bench.passes(bench.callee(), theirs, ours, anybody);
    bench.refused(bench.caller(), ours, Counter::DropWrongSource);
}

pub(super) fn a_closed_window_keeps_who_claimed(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let (ours, theirs) = (bench.caller_local(), bench.callee_local());
    let behind_nat = SocketAddr::new(bench.at.caller, 61_234);
    let host = Prefix::host(bench.at.caller);
    bench.install(&plan(&bench, host, 1, true));
    bench.passes(behind_nat, ours, theirs, bench.callee());
    assert_eq!(bench.claims(), [bench.latched(behind_nat, false)]);
    bench.install(&plan(&bench, host, 1, false));
    bench.passes(behind_nat, ours, theirs, bench.callee());
    bench.passes(bench.callee(), theirs, ours, behind_nat);
    bench.refused(bench.caller(), ours, Counter::DropWrongSource);
    // Nobody claimed the RTCP port in time: its signalled peer has it, and nobody else.
    bench.refused(up(behind_nat, 1), up(ours, 1), Counter::DropWrongSource);
    bench.passes(up(bench.caller(), 1), up(ours, 1), up(theirs, 1), bench.callee_rtcp());
    bench.passes(bench.callee_rtcp(), up(theirs, 1), up(ours, 1), up(bench.caller(), 1));
    assert_eq!(bench.claims(), []);
}

pub(super) fn a_closed_window_lets_nobody_claim(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let (ours, theirs) = (bench.caller_local(), bench.callee_local());
    let mut silent = plan(&bench, anywhere(bench.at.caller), 1, false);
    silent.streams[0].caller.peer = None;
    bench.install(&silent);
    bench.refused(bench.caller(), ours, Counter::DropWrongSource);
    bench.install(&plan(&bench, anywhere(bench.at.caller), 1, false));
    bench.refused(SocketAddr::new(bench.at.caller, 61_234), ours, Counter::DropWrongSource);
    bench.refused(SocketAddr::new(bench.at.stranger, CALLER), ours, Counter::DropWrongSource);
    bench.passes(bench.caller(), ours, theirs, bench.callee());
    assert_eq!(bench.claims(), []);
}

pub(super) fn a_window_opened_anew_is_claimed_anew(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let (ours, theirs) = (bench.caller_local(), bench.callee_local());
    let [first, second] = [61_234, 61_300].map(|port| SocketAddr::new(bench.at.caller, port));
    let host = Prefix::host(bench.at.caller);
    bench.install(&plan(&bench, host, 1, true));
    bench.passes(first, ours, theirs, bench.callee());
    assert_eq!(bench.claims(), [bench.latched(first, false)]);
    bench.install(&plan(&bench, host, 1, false));
    bench.refused(second, ours, Counter::DropWrongSource);
    bench.install(&plan(&bench, host, 2, true));
    bench.passes(bench.callee(), theirs, ours, bench.caller());
    bench.passes(second, ours, theirs, bench.callee());
    bench.refused(first, ours, Counter::DropWrongSource);
    bench.passes(bench.callee(), theirs, ours, second);
    assert_eq!(bench.claims(), [bench.latched(second, false)]);
}

pub(super) fn a_moved_peer_keeps_the_claim_of_its_opening(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let (ours, theirs) = (bench.caller_local(), bench.callee_local());
    let behind_nat = SocketAddr::new(bench.at.caller, 61_234);
    let mut plan = plan(&bench, Prefix::host(bench.at.caller), 1, true);
    bench.install(&plan);
    bench.passes(behind_nat, ours, theirs, bench.callee());
    plan.streams[0].caller.peer = Some(media(up(bench.caller(), 20)));
    bench.install(&plan);
    bench.passes(bench.callee(), theirs, ours, behind_nat);
    bench.refused(up(bench.caller(), 20), ours, Counter::DropWrongSource);
    bench.passes(behind_nat, ours, theirs, bench.callee());
}

/// What an old call's peer still sends does not reach the next call that has the port, and takes nothing from it.
pub(super) fn late_packets_of_an_old_call_stay_out(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let (ours, theirs) = (bench.caller_local(), bench.callee_local());
    let [old, new] = [61_234, 61_300].map(|port| SocketAddr::new(bench.at.stranger, port));
    bench.install(&plan(&bench, anywhere(bench.at.caller), 1, true));
    bench.passes(old, ours, theirs, bench.callee());
    let done = bench.command(sbc_core::media::command::MediaCommand::Remove(super::bench::CALL));
    assert!(done.is_ok());
    bench.stops(old, ours);
    // The port is another call's now, which lets in whom its signalling names.
    let mut next = bench.plan(super::bench::OTHER, 1);
    let ports = [super::bench::CALLER_PORT, super::bench::CALLEE_PORT];
    (next.streams[0].caller.local_rtp_port, next.streams[0].callee.local_rtp_port) = (ports[0], ports[1]);
    next.streams[0].caller.source = opening(Prefix::host(bench.at.caller), 1, true);
    let callee = up(bench.callee(), 10);
    bench.install(&next);
    bench.refused(old, ours, Counter::DropWrongSource);
    bench.refused(new, ours, Counter::DropWrongSource);
    bench.passes(callee, theirs, ours, up(bench.caller(), 10));
    let right = SocketAddr::new(bench.at.caller, 61_400);
    bench.passes(right, ours, theirs, callee);
    bench.refused(old, ours, Counter::DropWrongSource);
    bench.passes(callee, theirs, ours, right);
}
