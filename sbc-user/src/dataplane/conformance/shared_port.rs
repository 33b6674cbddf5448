//! RTP and RTCP on one port (RFC 5761), on one side or on both.

use std::net::SocketAddr;

use sbc_common::counter::Counter;
use sbc_core::media::plan::{MediaPlan, PeerMedia};

use super::bench::{Bench, CALL, RTP_BYTES, rtcp, rtp, up};
use super::{Datagram, Wire};

fn plan(bench: &Bench<'_>, caller_shares: bool, callee_shares: bool) -> MediaPlan {
    let mut plan = bench.plan(CALL, 1);
    let stream = &mut plan.streams[0];
    for (side, shares) in [(&mut stream.caller, caller_shares), (&mut stream.callee, callee_shares)] {
        side.rtcp_mux = shares;
        if let (true, Some(PeerMedia { rtp, rtcp })) = (shares, &mut side.peer) {
            *rtcp = *rtp;
        }
    }
    plan
}

/// Sends a packet, and expects it to leave so, unchanged.
#[track_caller]
fn goes(bench: &mut Bench<'_>, payload: &[u8], way: [SocketAddr; 4]) {
    let [from, to, via, onwards] = way;
    let left = bench.wire.deliver(from, to, payload);
    assert_eq!(
        left,
        Some(Datagram { from: via, to: onwards, payload: payload.to_vec() }),
        "from {from} to {to}"
    );
}

#[track_caller]
fn dropped(bench: &mut Bench<'_>, payload: &[u8], from: SocketAddr, to: SocketAddr, reason: Counter) {
    let before = bench.wire.outcome(reason);
    assert_eq!(bench.wire.deliver(from, to, payload), None, "from {from} to {to}");
    assert_eq!(bench.wire.outcome(reason), before + 1, "{}", reason.name());
}

pub(super) fn on_both_sides_everything_takes_the_even_ports(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    bench.install(&plan(&bench, true, true));
    let (caller, ours, theirs, callee) =
        (bench.caller(), bench.caller_local(), bench.callee_local(), bench.callee());
    for payload in [rtp(1), rtcp(), rtp(2)] {
        goes(&mut bench, &payload, [caller, ours, theirs, callee]);
    }
    goes(&mut bench, &rtcp(), [callee, theirs, ours, caller]);
    dropped(&mut bench, &rtcp(), up(caller, 1), up(ours, 1), Counter::DropNoFlow);
    dropped(&mut bench, &rtcp(), up(caller, 1), ours, Counter::DropWrongSource);
    assert_eq!(bench.counted(CALL), [[(2, 2 * RTP_BYTES as u64, 1), (0, 0, 1)]]);
}

pub(super) fn on_one_side_the_other_has_two_ports(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    bench.install(&plan(&bench, true, false));
    let (caller, ours, theirs, callee) =
        (bench.caller(), bench.caller_local(), bench.callee_local(), bench.callee());
    goes(&mut bench, &rtp(1), [caller, ours, theirs, callee]);
    goes(&mut bench, &rtcp(), [caller, ours, up(theirs, 1), up(callee, 1)]);
    goes(&mut bench, &rtp(1), [callee, theirs, ours, caller]);
    goes(&mut bench, &rtcp(), [up(callee, 1), up(theirs, 1), ours, caller]);
    dropped(&mut bench, &rtcp(), up(caller, 1), up(ours, 1), Counter::DropNoFlow);
    dropped(&mut bench, &rtcp(), callee, theirs, Counter::DropWrongKind);
    assert_eq!(bench.counted(CALL), [[(1, RTP_BYTES as u64, 1); 2]]);
}

pub(super) fn a_claim_of_it_is_for_both(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let mut plan = plan(&bench, true, false);
    plan.streams[0].caller.source = bench.learning_plan().streams[0].caller.source;
    bench.install(&plan);
    let (caller, ours, theirs, callee) =
        (bench.caller(), bench.caller_local(), bench.callee_local(), bench.callee());
    let source = SocketAddr::new(bench.at.caller, 61_234);
    goes(&mut bench, &rtcp(), [up(callee, 1), up(theirs, 1), ours, caller]);
    // RTCP may come first.
    goes(&mut bench, &rtcp(), [source, ours, up(theirs, 1), up(callee, 1)]);
    assert_eq!(bench.claims(), [bench.latched(source, false)]);
    dropped(&mut bench, &rtp(1), caller, ours, Counter::DropWrongSource);
    goes(&mut bench, &rtp(1), [source, ours, theirs, callee]);
    goes(&mut bench, &rtp(1), [callee, theirs, ours, source]);
    goes(&mut bench, &rtcp(), [up(callee, 1), up(theirs, 1), ours, source]);
    assert_eq!(bench.claims(), []);
}

pub(super) fn it_may_begin_with_the_answer(wire: &mut dyn Wire) {
    let mut bench = Bench::new(wire);
    let (caller, ours, theirs, callee) =
        (bench.caller(), bench.caller_local(), bench.callee_local(), bench.callee());
    bench.install(&plan(&bench, false, false));
    goes(&mut bench, &rtcp(), [up(caller, 1), up(ours, 1), up(theirs, 1), up(callee, 1)]);
    bench.install(&plan(&bench, false, true));
    goes(&mut bench, &rtcp(), [up(caller, 1), up(ours, 1), theirs, callee]);
    goes(&mut bench, &rtcp(), [callee, theirs, up(ours, 1), up(caller, 1)]);
    goes(&mut bench, &rtp(1), [callee, theirs, ours, caller]);
    assert_eq!(bench.counted(CALL), [[(0, 0, 2), (1, RTP_BYTES as u64, 1)]]);
}
