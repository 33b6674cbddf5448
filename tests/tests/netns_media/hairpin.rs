//! Two calls whose media would leave to ourselves: each party is another call's, behind a PBX that passes descriptions
//! through.

use sbc_core::id::CallId;
use sbc_core::media::command::MediaCommand;
use sbc_core::media::plan::{Placement, SourcePolicy, StreamPlan};
use sbc_user::dataplane::Dataplane;

use super::world::*;

const OTHER: CallId = CallId(2);
/// Our ports towards the PBX, and the other call's towards its party.
const FIRST: u16 = INSIDE_PORT;
const SECOND: u16 = INSIDE_PORT + 2;
const FAR: u16 = INSIDE_PORT + 4;

/// From the caller to the PBX; it answers with a port of the other call.
fn towards_the_pbx(answered: bool) -> StreamPlan {
    let peer = answered.then_some((INSIDE, SECOND));
    StreamPlan {
        mline: 0,
        caller: side(OUTSIDE, OUTSIDE_PORT, Some((CALLER, CALLER_PORT)), SourcePolicy::Signalled),
        callee: side(INSIDE, FIRST, peer, SourcePolicy::Signalled),
    }
}

/// From the PBX, which offers what the first call offered to it, to the callee.
fn from_the_pbx(answered: bool) -> StreamPlan {
    let peer = answered.then_some((CALLEE, CALLEE_PORT));
    StreamPlan {
        mline: 0,
        caller: side(INSIDE, SECOND, Some((INSIDE, FIRST)), SourcePolicy::learn_from(CALLEE.into())),
        callee: side(INSIDE, FAR, peer, SourcePolicy::Signalled),
    }
}

#[test]
fn two_calls_meet_without_a_packet_to_ourselves() {
    inside("two_calls_meet_without_a_packet_to_ourselves", |world| {
        let mut border = world.start();
        for (call, stream) in [
            (CALL, towards_the_pbx(false)),
            (OTHER, from_the_pbx(false)),
            (OTHER, from_the_pbx(true)),
            (CALL, towards_the_pbx(true)),
        ] {
            assert_eq!(border.install_call(call, vec![stream]), [Placement::Kernel], "{call}");
        }
        for (port, packet) in [(0, rtp(1)), (1, rtcp(1)), (0, rtp(2))] {
            let caller = bind(&world.caller, CALLER, CALLER_PORT + port);
            let callee = bind(&world.callee, CALLEE, CALLEE_PORT + port);
            let (outside, far) = (address(OUTSIDE, OUTSIDE_PORT + port), address(INSIDE, FAR + port));
            passes(&caller, outside, &callee, far, &packet);
            passes(&callee, far, &caller, outside, &packet);
        }
        for call in [CALL, OTHER] {
            let [counted] = border.planes.counters(call)[..] else { panic!("one stream") };
            for direction in [counted.from_caller, counted.from_callee] {
                assert_eq!((direction.rtp_kernel, direction.rtp_relay, direction.rtcp), (2, 0, 1), "{call}");
            }
        }
        for namespace in [&world.caller, &world.callee] {
            assert_eq!(wrong_checksums(namespace), 0);
        }
        // The ports between the two are nobody else's way in.
        let callee = bind(&world.callee, CALLEE, CALLEE_PORT);
        let caller = bind(&world.caller, CALLER, CALLER_PORT);
        let before = border.outcome("drop_wrong_source");
        for port in [FIRST, SECOND] {
            callee.send_to(&rtp(3), address(INSIDE, port)).unwrap();
        }
        silent(&caller);
        assert_eq!(border.outcome("drop_wrong_source"), before + 2);

        // One ends: what comes for it goes nowhere.
        border.apply(MediaCommand::Remove(OTHER)).unwrap();
        let before = border.outcome("drop_no_flow");
        caller.send_to(&rtp(4), address(OUTSIDE, OUTSIDE_PORT)).unwrap();
        silent(&callee);
        assert_eq!(border.outcome("drop_no_flow"), before + 1);
        border.planes.stop().unwrap();
    });
}
