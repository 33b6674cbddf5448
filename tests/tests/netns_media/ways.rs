//! Next hops, routes and interfaces: what carries a stream, and where its packets leave.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use sbc_core::id::CallId;
use sbc_core::media::plan::{PeerMedia, Placement, SourcePolicy, StreamPlan};
use sbc_tests::netns::{End, Namespace, connect};
use sbc_user::dataplane::Dataplane;
use sbc_user::dataplane::planes::Planes;
use sbc_user::dataplane::xdp::{self};

use super::world::*;

#[test]
fn a_peer_on_this_host_is_served_by_the_relay() {
    inside("a_peer_on_this_host_is_served_by_the_relay", |world| {
        let mut border = world.start();
        let mut local = signalled();
        local.callee.peer = Some(PeerMedia { rtp: address(INSIDE, 6000), rtcp: address(INSIDE, 6001) });
        let mut remote = signalled();
        remote.mline = 1;
        remote.caller.local_rtp_port += 2;
        remote.callee.local_rtp_port += 2;
        assert_eq!(border.install(vec![local, remote]), [Placement::Relay, Placement::Kernel]);
        assert_eq!(border.relay_streams(), [("peer_on_this_host", 1)]);
        let caller = bind(&world.caller, CALLER, CALLER_PORT);
        let callee = bind(&world.border, INSIDE, 6000);
        let (outside, inside) = (address(OUTSIDE, OUTSIDE_PORT), address(INSIDE, INSIDE_PORT));
        passes(&caller, outside, &callee, inside, &rtp(1));
        passes(&callee, inside, &caller, outside, &rtp(2));
        assert_eq!(border.outcome("pass_relay"), 1);
        let counters = border.planes.counters(CALL);
        assert_eq!((counters[0].from_caller.rtp_relay, counters[0].from_callee.rtp_relay), (1, 1));

        // Once the peer is a remote one, the kernel has the stream, and what was counted stays.
        assert_eq!(border.install(vec![signalled()]), [Placement::Kernel]);
        let callee = bind(&world.callee, CALLEE, CALLEE_PORT);
        passes(&caller, outside, &callee, inside, &rtp(3));
        let counters = border.planes.counters(CALL);
        assert_eq!((counters[0].from_caller.rtp_relay, counters[0].from_caller.rtp_kernel), (1, 1));
        border.planes.stop().unwrap();
    });
}

#[test]
fn a_neighbour_that_does_not_answer_leaves_the_stream_to_the_relay() {
    inside("a_neighbour_that_does_not_answer_leaves_the_stream_to_the_relay", |world| {
        let mut border = world.start();
        let mut stream = signalled();
        stream.callee.peer = Some(PeerMedia { rtp: address(NOBODY, 6000), rtcp: address(NOBODY, 6001) });
        let asked = Instant::now();
        assert_eq!(border.install(vec![stream]), [Placement::Relay]);
        assert!(asked.elapsed() < xdp::NEXT_HOP_WAIT * 4, "the wait is bounded");
        assert_eq!(border.relay_streams(), [("no_route", 1)]);
        border.planes.stop().unwrap();
    });
}

#[test]
fn a_peer_behind_a_gateway_is_reached_and_a_changed_route_is_followed() {
    inside("a_peer_behind_a_gateway_is_reached_and_a_changed_route_is_followed", |world| {
        let far = Ipv4Addr::new(203, 0, 113, 7);
        world.callee.run("ip", &["addr", "add", "203.0.113.7/32", "dev", "lo"]).unwrap();
        world.callee.run("ip", &["addr", "add", "198.51.100.3/24", "dev", "eth0"]).unwrap();
        let via = |gateway| ["route", "replace", "203.0.113.0/24", "via", gateway];
        world.border.run("ip", &via("198.51.100.2")).unwrap();
        let mut border = world.start();
        let mut stream = signalled();
        stream.callee.peer =
            Some(PeerMedia { rtp: address(far, CALLEE_PORT), rtcp: address(far, CALLEE_PORT + 1) });
        assert_eq!(border.install(vec![stream]), [Placement::Kernel]);
        let caller = bind(&world.caller, CALLER, CALLER_PORT);
        let callee = bind(&world.callee, far, CALLEE_PORT);
        let (outside, inside) = (address(OUTSIDE, OUTSIDE_PORT), address(INSIDE, INSIDE_PORT));
        passes(&caller, outside, &callee, inside, &rtp(1));

        let hop = |border: &Namespace| border.run("ip", &["neigh", "show", "198.51.100.3"]).unwrap();
        assert_eq!(hop(&world.border), "");
        world.border.run("ip", &via("198.51.100.3")).unwrap();
        border.drive(|_| hop(&world.border).contains("lladdr"));
        border.planes.handle_timeout(Instant::now());
        passes(&caller, outside, &callee, inside, &rtp(2));
        border.planes.stop().unwrap();
        assert!(!hop(&world.border).contains("managed"), "{}", hop(&world.border));
    });
}

/// Two ways over one gateway; one of them has another gateway by the time that the next daemon takes over.
#[test]
fn a_way_that_changed_between_two_daemons_keeps_its_hop_until_the_new_one_is_known() {
    inside("a_way_that_changed_between_two_daemons_keeps_its_hop_until_the_new_one_is_known", |world| {
        let far = [7, 8].map(|last| Ipv4Addr::new(203, 0, 113, last));
        for address in far {
            world.callee.run("ip", &["addr", "add", &format!("{address}/32"), "dev", "lo"]).unwrap();
        }
        world.border.run("ip", &["route", "add", "203.0.113.0/24", "via", "198.51.100.2"]).unwrap();
        let mut border = world.start();
        let calls = [CALL, CallId(2)];
        let ports = [0, 10].map(|more| [OUTSIDE_PORT + more, INSIDE_PORT + more, CALLER_PORT + more]);
        for ((call, far), [outside, inside, caller]) in calls.into_iter().zip(far).zip(ports) {
            let stream = StreamPlan {
                mline: 0,
                caller: side(OUTSIDE, outside, Some((CALLER, caller)), SourcePolicy::Signalled),
                callee: side(INSIDE, inside, Some((far, CALLEE_PORT)), SourcePolicy::Signalled),
            };
            assert_eq!(border.install_call(call, vec![stream]), [Placement::Kernel]);
        }
        let left = calls.map(|call| border.planes.checkpoint(call).unwrap());
        border.planes.leave();
        // Out of another interface, to a neighbour that nobody is, for whom the kernel asks until the test is over.
        world.border.sysctl("ipv4/neigh/out0/mcast_solicit", "1000").unwrap();
        let stray = ["route", "add", "203.0.113.8/32", "via", "192.0.2.99", "src", "192.0.2.1"];
        world.border.run("ip", &stray).unwrap();

        let callers = ports.map(|[.., port]| bind(&world.caller, CALLER, port));
        let callees = far.map(|far| bind(&world.callee, far, CALLEE_PORT));
        let pass = |at: usize, sequence| {
            let [outside, inside, _] = ports[at];
            let (to, via) = (address(OUTSIDE, outside), address(INSIDE, inside));
            passes(&callers[at], to, &callees[at], via, &rtp(sequence));
        };
        for order in [[0, 1], [1, 0]] {
            let config = world.config();
            let lock = Planes::lock(&config).unwrap();
            let left = order.map(|at: usize| left[at].clone());
            let (mut planes, _, adopted) = Planes::take_over(&config, lock, &left, Instant::now()).unwrap();
            assert_eq!(adopted, order.map(|at| calls[at]));
            for at in order {
                pass(at, 1);
            }
            // Nor does it rest meanwhile.
            planes.handle_timeout(Instant::now() + Duration::from_secs(2));
            for at in order {
                pass(at, 2);
            }
            planes.leave();
        }
    });
}

#[test]
fn a_peer_that_changes_its_ethernet_address_is_followed() {
    inside("a_peer_that_changes_its_ethernet_address_is_followed", |world| {
        let mut border = world.start();
        border.install(vec![signalled()]);
        let caller = bind(&world.caller, CALLER, CALLER_PORT);
        let callee = bind(&world.callee, CALLEE, CALLEE_PORT);
        let (outside, inside) = (address(OUTSIDE, OUTSIDE_PORT), address(INSIDE, INSIDE_PORT));
        passes(&caller, outside, &callee, inside, &rtp(1));

        world.callee.run("ip", &["link", "set", "dev", "eth0", "address", "02:00:00:00:be:ef"]).unwrap();
        caller.send_to(&rtp(2), outside).unwrap();
        silent(&callee);
        // The peer asks for us, and thereby tells its new address.
        world.callee.run("ip", &["neigh", "flush", "dev", "eth0"]).unwrap();
        callee.send_to(b"to another port, which asks for the Ethernet address first", (INSIDE, 9)).unwrap();
        let shows = || world.border.run("ip", &["neigh", "show", "198.51.100.2"]).unwrap().contains("be:ef");
        border.drive(|_| shows());
        border.planes.handle_timeout(Instant::now());
        passes(&caller, outside, &callee, inside, &rtp(3));
        border.planes.stop().unwrap();
    });
}

#[test]
fn a_peer_whose_link_was_lost_is_resolved_anew() {
    inside("a_peer_whose_link_was_lost_is_resolved_anew", |world| {
        let mut border = world.start();
        border.install(vec![signalled()]);
        let caller = bind(&world.caller, CALLER, CALLER_PORT);
        let callee = bind(&world.callee, CALLEE, CALLEE_PORT);
        let (outside, inside) = (address(OUTSIDE, OUTSIDE_PORT), address(INSIDE, INSIDE_PORT));
        passes(&caller, outside, &callee, inside, &rtp(1));

        // A link without a carrier forgets its neighbours, and this one says nothing of its own accord.
        for change in [&["down"][..], &["address", "02:00:00:00:be:ef"], &["up"]] {
            world.callee.run("ip", &[&["link", "set", "dev", "eth0"], change].concat()).unwrap();
        }
        let hop = || world.border.run("ip", &["neigh", "show", "198.51.100.2"]).unwrap();
        border.drive(|_| hop().contains("be:ef") && hop().contains("managed"));
        border.planes.handle_timeout(Instant::now());
        passes(&caller, outside, &callee, inside, &rtp(2));
        border.planes.stop().unwrap();
    });
}

#[test]
fn an_interface_that_takes_no_redirected_packets_is_left_to_the_relay() {
    inside("an_interface_that_takes_no_redirected_packets_is_left_to_the_relay", |world| {
        // Without GRO, and without an XDP program of its own, the other end of a veth hears nothing of them.
        world.callee.run("ethtool", &["-K", "eth0", "gro", "off"]).unwrap();
        let (planes, report) = world.try_start(&world.config()).unwrap();
        assert_eq!(report.addresses[0].relay_reason, None);
        let reason = report.addresses[1].relay_reason.as_deref().unwrap();
        assert!(reason.contains("gro on"), "{reason}");
        let mut border = Border::new(planes);
        assert_eq!(border.install(vec![signalled()]), [Placement::Relay]);
        let caller = bind(&world.caller, CALLER, CALLER_PORT);
        let callee = bind(&world.callee, CALLEE, CALLEE_PORT);
        passes(&caller, address(OUTSIDE, OUTSIDE_PORT), &callee, address(INSIDE, INSIDE_PORT), &rtp(1));
        border.planes.stop().unwrap();
    });
}

#[test]
fn an_interface_that_comes_back_is_served_again_and_its_flows_go_on() {
    inside("an_interface_that_comes_back_is_served_again_and_its_flows_go_on", |world| {
        let mut border = world.start();
        assert_eq!(border.install(vec![signalled()]), [Placement::Kernel]);
        world.border.run("ip", &["link", "del", "in0"]).unwrap();
        let settled = Instant::now() + Duration::from_millis(300);
        while Instant::now() < settled {
            border.planes.handle_timeout(Instant::now());
            std::thread::sleep(Duration::from_millis(10));
        }
        connect(
            End { namespace: &world.border, interface: "in0", addresses: &["198.51.100.1/24"] },
            End { namespace: &world.callee, interface: "eth0", addresses: &["198.51.100.2/24"] },
        )
        .unwrap();
        let caller = bind(&world.caller, CALLER, CALLER_PORT);
        let callee = bind(&world.callee, CALLEE, CALLEE_PORT);
        let forwarded = |border: &Border| border.planes.counters(CALL)[0].from_caller.rtp_kernel;
        let (before, patience) = (forwarded(&border), Instant::now() + Duration::from_secs(10));
        while forwarded(&border) == before {
            assert!(Instant::now() < patience, "its flow does not go on");
            caller.send_to(&rtp(1), address(OUTSIDE, OUTSIDE_PORT)).unwrap();
            std::thread::sleep(Duration::from_millis(10));
            border.planes.handle_timeout(Instant::now());
        }
        callee.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        while callee.recv_from(&mut [0; 256]).is_ok() {}
        callee.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        passes(&caller, address(OUTSIDE, OUTSIDE_PORT), &callee, address(INSIDE, INSIDE_PORT), &rtp(2));
        assert_eq!(border.install(vec![signalled()]), [Placement::Kernel]);
        assert_eq!(border.planes.reconcile(), []);
        border.planes.stop().unwrap();
    });
}

/// A virtual address that moves here.
#[test]
fn an_address_that_appears_later_is_served_then() {
    inside("an_address_that_appears_later_is_served_then", |world| {
        world.border.run("ip", &["address", "del", "198.51.100.1/24", "dev", "in0"]).unwrap();
        let (planes, report) = world.try_start(&world.config()).unwrap();
        assert_eq!(report.addresses[1].relay_reason.as_deref(), Some("no interface has this address"));
        let mut border = Border { planes, next_op: 1, heard: Vec::new() };
        world.border.run("ip", &["address", "add", "198.51.100.1/24", "dev", "in0"]).unwrap();
        let settled = Instant::now() + Duration::from_millis(300);
        border.drive(|_| Instant::now() >= settled);
        assert_eq!(border.install(vec![signalled()]), [Placement::Kernel]);
        let caller = bind(&world.caller, CALLER, CALLER_PORT);
        let callee = bind(&world.callee, CALLEE, CALLEE_PORT);
        passes(&caller, address(OUTSIDE, OUTSIDE_PORT), &callee, address(INSIDE, INSIDE_PORT), &rtp(1));
        border.planes.stop().unwrap();
    });
}
