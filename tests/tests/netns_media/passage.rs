//! Packets that cross, and those that do not.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use sbc_core::media::command::{MediaCommand, StreamCounters};
use sbc_core::media::plan::{Placement, SourcePolicy};
use sbc_tests::pcap::Capture;
use sbc_user::dataplane::Dataplane;
use sbc_user::dataplane::planes::PlanesConfig;
use sbc_user::dataplane::xdp::MediaBind;

use super::world::*;

#[test]
fn rtp_and_rtcp_cross_the_kernel_both_ways() {
    inside("rtp_and_rtcp_cross_the_kernel_both_ways", |world| {
        let mut border = world.start();
        assert_eq!(border.install(vec![signalled()]), [Placement::Kernel]);
        let [caller, callee, caller_rtcp, callee_rtcp] = [
            bind(&world.caller, CALLER, CALLER_PORT),
            bind(&world.callee, CALLEE, CALLEE_PORT),
            bind(&world.caller, CALLER, CALLER_PORT + 1),
            bind(&world.callee, CALLEE, CALLEE_PORT + 1),
        ];
        let at_callee = Capture::start(&world.callee, "eth0", &world.scratch).unwrap();
        let at_caller = Capture::start(&world.caller, "eth0", &world.scratch).unwrap();
        let (outside, inside) = (address(OUTSIDE, OUTSIDE_PORT), address(INSIDE, INSIDE_PORT));
        let (outside_rtcp, inside_rtcp) =
            (address(OUTSIDE, OUTSIDE_PORT + 1), address(INSIDE, INSIDE_PORT + 1));
        for number in 0..100 {
            passes(&caller, outside, &callee, inside, &rtp(number));
            passes(&callee, inside, &caller, outside, &rtp(number));
        }
        for number in 0..5 {
            passes(&caller_rtcp, outside_rtcp, &callee_rtcp, inside_rtcp, &rtcp(number));
            passes(&callee_rtcp, inside_rtcp, &caller_rtcp, outside_rtcp, &rtcp(number));
        }
        for (capture, from) in [(at_callee, INSIDE), (at_caller, OUTSIDE)] {
            let packets = capture.finish().unwrap();
            let ours: Vec<_> = packets.iter().filter(|packet| packet.source.ip() == from).collect();
            assert_eq!(ours.len(), 105);
            for packet in ours {
                assert_eq!((packet.checksums_right, packet.ttl, packet.dscp), (true, 64, 46), "{packet:?}");
            }
        }
        for namespace in [&world.caller, &world.callee] {
            assert_eq!(wrong_checksums(namespace), 0);
        }
        assert_eq!(border.outcome("bad_checksum"), 0);

        let done = border.apply(MediaCommand::Remove(CALL)).unwrap();
        let [StreamCounters { placement: Some(Placement::Kernel), from_caller, from_callee, .. }] =
            done.counters[..]
        else {
            panic!("{done:?}")
        };
        let bytes: u64 = (0..100).map(|number| rtp(number).len() as u64).sum();
        for direction in [from_caller, from_callee] {
            assert_eq!((direction.rtp_kernel, direction.rtp_relay, direction.rtcp), (100, 0, 5));
            assert_eq!(direction.rtp_bytes, bytes);
        }
        caller.send_to(&rtp(200), outside).unwrap();
        silent(&callee);
        assert_eq!(border.outcome("drop_no_flow"), 1);
        border.planes.stop().unwrap();
    });
}

#[test]
fn only_the_signalled_source_is_let_in() {
    inside("only_the_signalled_source_is_let_in", |world| {
        let mut border = world.start();
        border.install(vec![signalled()]);
        let callee = bind(&world.callee, CALLEE, CALLEE_PORT);
        let outside = address(OUTSIDE, OUTSIDE_PORT);
        let other_port = bind(&world.caller, CALLER, CALLER_PORT + 10);
        let other_address = bind(&world.caller, Ipv4Addr::new(192, 0, 2, 3), CALLER_PORT);
        for stranger in [&other_port, &other_address] {
            stranger.send_to(&rtp(1), outside).unwrap();
        }
        silent(&callee);
        assert_eq!(border.outcome("drop_wrong_source"), 2);
        let caller = bind(&world.caller, CALLER, CALLER_PORT);
        passes(&caller, outside, &callee, address(INSIDE, INSIDE_PORT), &rtp(2));
        border.planes.stop().unwrap();
    });
}

#[test]
fn a_sender_that_leaves_its_checksums_unfinished_is_noticed() {
    inside("a_sender_that_leaves_its_checksums_unfinished_is_noticed", |world| {
        world.caller.run("ethtool", &["-K", "eth0", "tx", "on"]).unwrap();
        let mut border = world.start();
        border.install(vec![signalled()]);
        let caller = bind(&world.caller, CALLER, CALLER_PORT);
        let callee = bind(&world.callee, CALLEE, CALLEE_PORT);
        caller.send_to(&rtp(1), address(OUTSIDE, OUTSIDE_PORT)).unwrap();
        silent(&callee);
        assert_eq!(border.outcome("bad_checksum"), 1);
        border.planes.stop().unwrap();
    });
}

#[test]
fn two_realms_share_an_address_and_leave_the_ports_between_their_ranges_alone() {
    inside("two_realms_share_an_address_and_leave_the_ports_between_their_ranges_alone", |world| {
        let bind_to = |ports| MediaBind { address: OUTSIDE.into(), ports };
        let media = vec![bind_to(20_000..=20_049), bind_to(20_100..=20_199)];
        let (planes, report) = world.try_start(&PlanesConfig { media, ..world.config() }).unwrap();
        assert!(report.addresses.iter().all(|address| address.relay_reason.is_none()), "{report:?}");
        let mut border = Border { planes, next_op: 1, heard: Vec::new() };
        let other = Ipv4Addr::new(192, 0, 2, 3);
        let mut stream = signalled();
        stream.callee = side(OUTSIDE, INSIDE_PORT, Some((other, CALLEE_PORT)), SourcePolicy::Signalled);
        assert_eq!(border.install(vec![stream]), [Placement::Kernel]);
        let caller = bind(&world.caller, CALLER, CALLER_PORT);
        let callee = bind(&world.caller, other, CALLEE_PORT);
        let (to_caller, to_callee) = (address(OUTSIDE, OUTSIDE_PORT), address(OUTSIDE, INSIDE_PORT));
        passes(&caller, to_caller, &callee, to_callee, &rtp(1));
        passes(&callee, to_callee, &caller, to_caller, &rtp(2));
        assert_eq!(border.outcome("forward_same"), 2, "out of the interface that it came in from");

        let between = bind(&world.border, OUTSIDE, 20_070);
        passes(&caller, address(OUTSIDE, 20_070), &between, address(CALLER, CALLER_PORT), b"not media");
        border.planes.stop().unwrap();
    });
}

#[test]
fn an_update_loses_no_packet() {
    const PACKETS: u32 = 5000;
    /// Packets on the way at most, so that the receiver's socket never overflows.
    const WINDOW: u32 = 64;
    inside("an_update_loses_no_packet", |world| {
        let mut border = world.start();
        let mut stream = signalled();
        stream.caller.source = SourcePolicy::learn_from(CALLER.into());
        border.install(vec![stream.clone()]);
        let caller = bind(&world.caller, CALLER, CALLER_PORT);
        let callee = bind(&world.callee, CALLEE, CALLEE_PORT);
        let outside = address(OUTSIDE, OUTSIDE_PORT);
        let received = AtomicU32::new(0);
        let updates = std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let deadline = Instant::now() + PATIENCE * 3;
                for number in 0..PACKETS {
                    while number >= received.load(Ordering::Relaxed) + WINDOW {
                        assert!(Instant::now() < deadline, "{number} packets sent, and then nothing arrived");
                        std::thread::yield_now();
                    }
                    caller.send_to(&rtp(number as u16), outside).unwrap();
                }
            });
            let receiver = scope.spawn(|| {
                let mut buffer = [0; 2048];
                for number in 0..PACKETS {
                    let length = callee.recv(&mut buffer).unwrap_or_else(|error| panic!("{number}: {error}"));
                    assert_eq!(&buffer[2..4], (number as u16).to_be_bytes(), "of {length} bytes");
                    received.store(number + 1, Ordering::Relaxed);
                }
            });
            let mut updates = 0_u32;
            while !sender.is_finished() {
                // Another mark each time; and every second time a callee's side that learns, which takes a new
                // generation, while the caller keeps what it claimed.
                stream.callee.dscp = (updates % 64) as u8;
                stream.callee.source = match updates % 2 {
                    0 => SourcePolicy::learn_from(CALLEE.into()),
                    _ => SourcePolicy::Signalled,
                };
                border.install(vec![stream.clone()]);
                updates += 1;
            }
            sender.join().unwrap();
            receiver.join().unwrap();
            updates
        });
        assert!(updates > 10, "{updates}");
        let counters = border.planes.counters(CALL);
        assert_eq!(counters[0].from_caller.rtp_kernel, u64::from(PACKETS));
        for (outcome, count) in border.planes.figures().outcomes {
            assert!(!outcome.starts_with("drop_") || count == 0, "{outcome}: {count}");
        }
        border.planes.stop().unwrap();
    });
}
