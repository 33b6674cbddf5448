//! IPv6, and IPv4 that becomes IPv6 and the other way round.

use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd;

use sbc_core::media::command::{MediaCommand, MediaEvent};
use sbc_core::media::plan::{Placement, SourcePolicy, StreamPlan};
use sbc_tests::netns::Namespace;
use sbc_tests::pcap::Capture;
use sbc_user::dataplane::planes::PlanesConfig;
use sbc_user::dataplane::xdp::{self};

use super::world::*;

const CALLER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
const INSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);
const CALLEE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 2);

/// The addresses of both families, and a dataplane that has them.
fn config(world: &World) -> PlanesConfig {
    let mut config = world.config();
    let ports = config.media[0].ports.clone();
    for address in [OUTSIDE6, INSIDE6] {
        config.media.push(xdp::MediaBind { address: address.into(), ports: ports.clone() });
    }
    config
}

/// The caller's address, ours, ours and the callee's.
type Four = [IpAddr; 4];

fn pairs() -> [Four; 3] {
    let (caller, callee) = ([CALLER.into(), OUTSIDE.into()], [INSIDE.into(), CALLEE.into()]);
    let (caller6, callee6) = ([CALLER6.into(), OUTSIDE6.into()], [INSIDE6.into(), CALLEE6.into()]);
    [(caller6, callee6), (caller, callee6), (caller6, callee)]
        .map(|([a, b], [c, d]): ([IpAddr; 2], [IpAddr; 2])| [a, b, c, d])
}

fn stream([caller, outside, inside, callee]: Four, source: SourcePolicy) -> StreamPlan {
    StreamPlan {
        mline: 0,
        caller: side(outside, OUTSIDE_PORT, Some((caller, CALLER_PORT)), source),
        callee: side(inside, INSIDE_PORT, Some((callee, CALLEE_PORT)), SourcePolicy::Signalled),
    }
}

#[test]
fn every_pair_of_families_crosses_with_right_checksums() {
    inside("every_pair_of_families_crosses_with_right_checksums", |world| {
        let mut border = world.start_with(&config(world));
        for four @ [caller_ip, outside_ip, inside_ip, callee_ip] in pairs() {
            assert_eq!(
                border.install(vec![stream(four, SourcePolicy::Signalled)]),
                [Placement::Kernel],
                "{four:?}"
            );
            let captures = [
                Capture::start(&world.callee, "eth0", &world.scratch).unwrap(),
                Capture::start(&world.caller, "eth0", &world.scratch).unwrap(),
            ];
            for port in [0, 1] {
                let caller = bind(&world.caller, caller_ip, CALLER_PORT + port);
                let callee = bind(&world.callee, callee_ip, CALLEE_PORT + port);
                let (outside, inside) =
                    (address(outside_ip, OUTSIDE_PORT + port), address(inside_ip, INSIDE_PORT + port));
                for number in 0..20 {
                    let packet = if port == 0 { rtp(number) } else { rtcp(number) };
                    passes(&caller, outside, &callee, inside, &packet);
                    passes(&callee, inside, &caller, outside, &packet);
                }
            }
            for (capture, from) in captures.into_iter().zip([inside_ip, outside_ip]) {
                let packets = capture.finish().unwrap();
                let ours: Vec<_> = packets.iter().filter(|packet| packet.source.ip() == from).collect();
                assert_eq!(ours.len(), 40, "{four:?}");
                for packet in ours {
                    assert_eq!(
                        (packet.checksums_right, packet.ttl, packet.dscp),
                        (true, 64, 46),
                        "{packet:?}"
                    );
                }
            }
            let done = border.apply(MediaCommand::Remove(CALL)).unwrap();
            for direction in [done.counters[0].from_caller, done.counters[0].from_callee] {
                assert_eq!(
                    (direction.rtp_kernel, direction.rtp_relay, direction.rtcp),
                    (20, 0, 20),
                    "{four:?}"
                );
                assert_eq!(direction.lost, Some(0));
            }
        }
        for namespace in [&world.caller, &world.callee] {
            assert_eq!((wrong_checksums(namespace), wrong_checksums6(namespace)), (0, 0));
        }
        border.planes.stop().unwrap();
    });
}

/// A datagram without a checksum is one of IPv4 only.
#[test]
fn a_packet_without_a_checksum_gets_one_for_ipv6() {
    inside("a_packet_without_a_checksum_gets_one_for_ipv6", |world| {
        let mut border = world.start_with(&config(world));
        let four @ [caller_ip, outside_ip, inside_ip, callee_ip] = pairs()[1];
        assert_eq!(border.install(vec![stream(four, SourcePolicy::Signalled)]), [Placement::Kernel]);
        let caller = bind(&world.caller, caller_ip, CALLER_PORT);
        let callee = bind(&world.callee, callee_ip, CALLEE_PORT);
        without_checksums(&caller);
        for number in 0..14 {
            passes(
                &caller,
                address(outside_ip, OUTSIDE_PORT),
                &callee,
                address(inside_ip, INSIDE_PORT),
                &rtp(number),
            );
        }
        border.planes.stop().unwrap();
    });
}

#[test]
fn the_first_packet_claims_a_side_of_either_family() {
    inside("the_first_packet_claims_a_side_of_either_family", |world| {
        let mut border = world.start_with(&config(world));
        for four @ [caller_ip, outside_ip, inside_ip, callee_ip] in pairs() {
            let plan = stream(four, SourcePolicy::learn_from(caller_ip));
            assert_eq!(border.install(vec![plan]), [Placement::Kernel], "{four:?}");
            let (outside, inside) = (address(outside_ip, OUTSIDE_PORT), address(inside_ip, INSIDE_PORT));
            let caller = bind(&world.caller, caller_ip, 47_011);
            let late = bind(&world.caller, caller_ip, 47_012);
            let callee = bind(&world.callee, callee_ip, CALLEE_PORT);
            passes(&caller, outside, &callee, inside, &rtp(2));
            passes(&callee, inside, &caller, outside, &rtp(3));
            late.send_to(&rtp(4), outside).unwrap();
            silent(&callee);
            let source = address(caller_ip, 47_011);
            assert_eq!(
                border.hears_latch(),
                MediaEvent::Latched { call: CALL, mline: 0, caller_side: true, rtcp: false, source }
            );
            border.apply(MediaCommand::Remove(CALL)).unwrap();
        }
        border.planes.stop().unwrap();
    });
}

#[test]
fn a_gateway_with_a_link_local_address_is_used() {
    inside("a_gateway_with_a_link_local_address_is_used", |world| {
        let far: Ipv6Addr = "2001:db8:9::7".parse().unwrap();
        world.callee.run("ip", &["addr", "add", "2001:db8:9::7/128", "dev", "lo"]).unwrap();
        world.callee.run("ip", &["addr", "add", "fe80::2/64", "dev", "eth0", "nodad"]).unwrap();
        world.border.run("ip", &["addr", "add", "fe80::1/64", "dev", "in0", "nodad"]).unwrap();
        world.border.run("ip", &["route", "add", "2001:db8:9::/64", "via", "fe80::2", "dev", "in0"]).unwrap();
        let mut border = world.start_with(&config(world));
        let four = [CALLER6.into(), OUTSIDE6.into(), INSIDE6.into(), far.into()];
        assert_eq!(border.install(vec![stream(four, SourcePolicy::Signalled)]), [Placement::Kernel]);
        let caller = bind(&world.caller, CALLER6, CALLER_PORT);
        let callee = bind(&world.callee, far, CALLEE_PORT);
        let (outside, inside) = (address(OUTSIDE6, OUTSIDE_PORT), address(INSIDE6, INSIDE_PORT));
        passes(&caller, outside, &callee, inside, &rtp(1));
        passes(&callee, inside, &caller, outside, &rtp(2));
        let hop = world.border.run("ip", &["neigh", "show", "fe80::2", "dev", "in0"]).unwrap();
        assert!(hop.contains("managed"), "the kernel keeps it: {hop}");
        border.planes.stop().unwrap();
    });
}

/// What grows by 20 bytes must still fit.
#[test]
fn a_narrow_way_out_leaves_ipv4_that_becomes_ipv6_to_the_relay() {
    inside("a_narrow_way_out_leaves_ipv4_that_becomes_ipv6_to_the_relay", |world| {
        world.border.run("ip", &["link", "set", "in0", "mtu", "1280"]).unwrap();
        let mut border = world.start_with(&config(world));
        let [v6, mixed, other] = pairs();
        assert_eq!(border.install(vec![stream(mixed, SourcePolicy::Signalled)]), [Placement::Relay]);
        assert_eq!(border.install(vec![stream(v6, SourcePolicy::Signalled)]), [Placement::Kernel]);
        assert_eq!(border.install(vec![stream(other, SourcePolicy::Signalled)]), [Placement::Kernel]);
        border.planes.stop().unwrap();
    });
}

/// From now on the socket's datagrams have none.
fn without_checksums(socket: &UdpSocket) {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is one int, which outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NO_CHECK,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    assert_eq!(done, 0);
}

/// As `wrong_checksums`, of IPv6.
fn wrong_checksums6(namespace: &Namespace) -> u64 {
    let text = namespace.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp6")).unwrap().unwrap();
    let line = text.lines().find(|line| line.starts_with("Udp6InCsumErrors")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
