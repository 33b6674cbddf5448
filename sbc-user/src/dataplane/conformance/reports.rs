//! Copies of RTCP.

use sbc_core::media::command::MediaEvent;

use super::Wire;
use super::bench::{Bench, CALL, OTHER, rtcp, up};

pub(super) fn of_what_is_forwarded_there_are_copies(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    bench.install(&bench.plan(OTHER, 1));
    bench.install(&bench.plan(CALL, 2));
    let (caller, ours, theirs, callee) =
        (bench.caller(), bench.caller_local(), bench.callee_local(), bench.callee());
    bench.passes(up(caller, 1), up(ours, 1), up(theirs, 1), up(callee, 1));
    bench.passes(up(callee, 3), up(theirs, 3), up(ours, 3), up(caller, 3));
    bench.passes(caller, ours, theirs, callee);
    bench.stops(up(caller, 7), up(ours, 1));
    let report =
        |mline, caller_side| MediaEvent::Report { call: CALL, mline, caller_side, packet: rtcp().into() };
    assert_eq!(bench.reports(2), [report(0, true), report(1, false)]);
}

pub(super) fn of_a_shared_port_there_are_copies(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let mut plan = bench.plan(CALL, 1);
    plan.streams[0].caller.rtcp_mux = true;
    bench.install(&plan);
    let left = bench.wire.deliver(bench.caller(), bench.caller_local(), &rtcp());
    assert_eq!(left.map(|datagram| datagram.to), Some(bench.callee_rtcp()));
    let report = MediaEvent::Report { call: CALL, mline: 0, caller_side: true, packet: rtcp().into() };
    assert_eq!(bench.reports(1), [report]);
}
