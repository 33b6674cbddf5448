//! The kernel's window and the engine's are one rule: whatever arrives when, both say the same.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test file")]

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use proptest::prelude::*;
use sbc_common::flow::TICK_NS;
use sbc_common::window::{Decision, Window};
use sbc_core::Now;
use sbc_core::config::{EngineConfig, Listener, MediaTimeouts};
use sbc_core::flow::Transport;
use sbc_core::guard::{Guard, GuardCommand, GuardPolicy, Limit, Sender, Verdict};
use sbc_core::id::RealmId;

/// An engine's guard whose denials are over at once, so that only its window speaks.
fn guard(limit: Limit) -> Guard {
    let bind = "192.0.2.1:5060".parse().unwrap();
    Guard::new(&EngineConfig {
        node: 0,
        epoch: 0,
        realms: Vec::new(),
        listeners: vec![Listener { realm: RealmId(0), transport: Transport::Udp, bind, advertised: bind }],
        trunks: Vec::new(),
        routes: Vec::new(),
        max_calls: 1,
        guard: GuardPolicy { requests: limit, retention: Some(Duration::ZERO), ..GuardPolicy::default() },
        media_timeouts: MediaTimeouts::default(),
    })
}

proptest! {
    #[test]
    fn kernel_and_engine_decide_alike(
        count in 0..30u32,
        ticks in 1..4000u32,
        steps in prop::collection::vec(prop_oneof![0..3u32, 0..200u32, 0..9000u32], 1..300),
    ) {
        let window = Duration::from_nanos(u64::from(ticks) * TICK_NS);
        let mut guard = guard(Limit { count, window });
        let (mut kernel, mut now) = (Window::default(), 12_345u32);
        let start = Instant::now();
        let sender = Sender {
            realm: RealmId(0),
            address: IpAddr::from([203, 0, 113, 5]),
            transport: Transport::Udp,
        };
        let mut passed = Duration::ZERO;
        for step in steps {
            now += step;
            passed += Duration::from_nanos(u64::from(step) * TICK_NS);
            let (next, by_kernel) = kernel.arrive(now, sbc_common::window::Limit { count, ticks });
            kernel = next;
            let now = Now { mono: start + passed, wall: SystemTime::UNIX_EPOCH + passed };
            let mut commands = Vec::new();
            guard.on_timeout(now.mono, &mut Vec::new());
            let verdict = guard.on_message(now, sender, false, &mut commands);
            let told = commands.iter().any(|command| matches!(command, GuardCommand::Deny(_)));
            let by_engine = match verdict {
                Verdict::Admit => Decision::Within,
                Verdict::OverLimit if told => Decision::Exceeded,
                Verdict::OverLimit => Decision::Over,
                other => panic!("{other:?}"),
            };
            prop_assert_eq!(by_engine, by_kernel);
        }
    }
}
