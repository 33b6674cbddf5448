//! Who may claim a port, and who may try.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Barrier;
use std::time::Instant;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use sbc_core::config::Prefix;
use sbc_core::media::command::MediaEvent;
use sbc_core::media::plan::{LearnWindow, PeerMedia, Placement, SourcePolicy};
use sbc_user::dataplane::Dataplane;

use super::world::*;

#[test]
fn the_first_packet_claims_a_learning_side_and_is_forwarded() {
    inside("the_first_packet_claims_a_learning_side_and_is_forwarded", |world| {
        let mut border = world.start();
        let mut stream = signalled();
        // As from behind a NAT: what was signalled is not what packets come from.
        stream.caller.peer = Some(PeerMedia { rtp: address(CALLER, 9), rtcp: address(CALLER, 10) });
        stream.caller.source = SourcePolicy::learn_from(CALLER.into());
        assert_eq!(border.install(vec![stream.clone()]), [Placement::Kernel]);
        let (outside, inside) = (address(OUTSIDE, OUTSIDE_PORT), address(INSIDE, INSIDE_PORT));
        let caller = bind(&world.caller, CALLER, 47_011);
        let late = bind(&world.caller, CALLER, 47_012);
        let stranger = bind(&world.caller, Ipv4Addr::new(192, 0, 2, 3), 47_011);
        let callee = bind(&world.callee, CALLEE, CALLEE_PORT);
        stranger.send_to(&rtp(1), outside).unwrap();
        silent(&callee);
        passes(&caller, outside, &callee, inside, &rtp(2));
        passes(&callee, inside, &caller, outside, &rtp(3));
        late.send_to(&rtp(4), outside).unwrap();
        silent(&callee);
        assert_eq!(border.outcome("drop_wrong_source"), 2);
        let source = address(CALLER, 47_011);
        assert_eq!(
            border.hears_latch(),
            MediaEvent::Latched { call: CALL, mline: 0, caller_side: true, rtcp: false, source }
        );

        // The callee's side moves: the caller's claim stays.
        stream.callee.peer = Some(PeerMedia { rtp: address(CALLEE, 6100), rtcp: address(CALLEE, 6101) });
        border.install(vec![stream]);
        let moved = bind(&world.callee, CALLEE, 6100);
        passes(&caller, outside, &moved, inside, &rtp(5));
        passes(&moved, inside, &caller, outside, &rtp(6));
        callee.send_to(&rtp(7), inside).unwrap();
        silent(&caller);
        border.planes.stop().unwrap();
    });
}

/// Sends from many ports of an address, and forgets the sockets.
fn spray(world: &World, from: Ipv4Addr, ports: std::ops::Range<u16>, to: SocketAddr) -> u64 {
    for port in ports.clone() {
        bind(&world.caller, from, port).send_to(&rtp(port), to).unwrap();
    }
    ports.len() as u64
}

/// An attacker sends from wherever it can, before the window opens, while it is open, and after it has closed: nothing of
/// it arrives, nothing goes there, and every packet is counted.
#[test]
fn what_is_sprayed_on_a_port_reaches_nobody() {
    inside("what_is_sprayed_on_a_port_reaches_nobody", |world| {
        let mut border = world.start();
        let (outside, inside) = (address(OUTSIDE, OUTSIDE_PORT), address(INSIDE, INSIDE_PORT));
        let neighbour = Ipv4Addr::new(192, 0, 2, 3);
        let caller = bind(&world.caller, CALLER, 47_011);
        let callee = bind(&world.callee, CALLEE, CALLEE_PORT);
        let mut opening = |opening, open| {
            let mut stream = signalled();
            stream.caller.peer = Some(media(CALLER.into(), 9));
            let window = LearnWindow { opening, open };
            stream.caller.source = SourcePolicy::Learn { allowed: Prefix::host(CALLER.into()), window };
            assert_eq!(border.install(vec![stream]), [Placement::Kernel]);
            border.outcome("drop_wrong_source")
        };
        // Before: even the caller's own address may not claim.
        let mut dropped = opening(1, false);
        dropped +=
            spray(world, neighbour, 30_000..30_050, outside) + spray(world, CALLER, 30_000..30_050, outside);
        silent(&callee);
        assert_eq!(opening(2, true), dropped);
        // During: the caller's address alone may, and only once.
        dropped += spray(world, neighbour, 30_000..30_050, outside);
        passes(&caller, outside, &callee, inside, &rtp(1));
        dropped +=
            spray(world, neighbour, 30_000..30_050, outside) + spray(world, CALLER, 30_000..30_050, outside);
        passes(&caller, outside, &callee, inside, &rtp(2));
        passes(&callee, inside, &caller, outside, &rtp(3));
        assert_eq!(opening(2, false), dropped);
        // After.
        dropped +=
            spray(world, neighbour, 30_000..30_050, outside) + spray(world, CALLER, 30_000..30_050, outside);
        passes(&caller, outside, &callee, inside, &rtp(4));
        passes(&callee, inside, &caller, outside, &rtp(5));
        silent(&callee);
        assert_eq!(opening(2, false), dropped);
        let counters = border.planes.counters(CALL);
        assert_eq!((counters[0].from_caller.rtp_kernel, counters[0].from_callee.rtp_kernel), (3, 2));
        border.planes.stop().unwrap();
    });
}

/// Two sources send at the same moment from two processors: one of them is it, and stays it, and the other is nobody.
#[test]
fn of_two_that_race_for_a_port_one_gets_it() {
    const ROUNDS: u32 = 40;
    const EACH: u64 = 5;
    inside("of_two_that_race_for_a_port_one_gets_it", |world| {
        let mut border = world.start();
        let (outside, inside) = (address(OUTSIDE, OUTSIDE_PORT), address(INSIDE, INSIDE_PORT));
        let rivals =
            [bind(&world.caller, CALLER, 47_011), bind(&world.caller, Ipv4Addr::new(192, 0, 2, 3), 47_012)];
        let callee = bind(&world.callee, CALLEE, CALLEE_PORT);
        let dropped =
            |border: &Border| border.outcome("drop_wrong_source") + border.outcome("drop_lost_claim");
        let mut won = [0; 2];
        for opening in 0..ROUNDS {
            let mut stream = signalled();
            let allowed = Prefix { addr: CALLER.into(), len: 24 };
            stream.caller.source =
                SourcePolicy::Learn { allowed, window: LearnWindow { opening, open: true } };
            border.install(vec![stream]);
            let before = dropped(&border);
            let start = Barrier::new(2);
            std::thread::scope(|scope| {
                for (cpu, rival) in rivals.iter().enumerate() {
                    let start = &start;
                    scope.spawn(move || {
                        let mut cpus = CpuSet::new();
                        cpus.set(cpu).unwrap();
                        // On a machine with one processor they take turns.
                        let _ = sched_setaffinity(Pid::from_raw(0), &cpus);
                        start.wait();
                        for _ in 0..EACH {
                            rival.send_to(&rtp(cpu as u16), outside).unwrap();
                        }
                    });
                }
            });
            // What was sent has been forwarded or dropped when `send_to` returns, or a moment later.
            let deadline = Instant::now() + PATIENCE;
            while dropped(&border) - before < EACH {
                assert!(Instant::now() < deadline, "{} dropped", dropped(&border) - before);
            }
            let mut winner = None;
            let mut buffer = [0; 2048];
            for _ in 0..2 * EACH - (dropped(&border) - before) {
                callee.recv(&mut buffer).unwrap();
                let rival = usize::from(u16::from_be_bytes([buffer[2], buffer[3]]));
                assert_eq!(*winner.get_or_insert(rival), rival, "round {opening}");
            }
            let winner = winner.unwrap();
            won[winner] += 1;
            passes(&callee, inside, &rivals[winner], outside, &rtp(9));
            passes(&rivals[winner], outside, &callee, inside, &rtp(8));
        }
        assert_eq!(won[0] + won[1], ROUNDS);
        silent(&callee);
        rivals.iter().for_each(silent);
        border.planes.stop().unwrap();
    });
}
