//! Starts, ends, and what must not be taken for ours.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Instant;

use sbc_core::media::plan::{Placement, SourcePolicy};
use sbc_tests::netns::run;
use sbc_user::dataplane::Dataplane;
use sbc_user::dataplane::planes::{Planes, PlanesConfig};
use sbc_user::dataplane::xdp::StartError;

use super::world::*;

/// What `bpftool` tells of the program on an interface, and of a pinned map.
fn ids(world: &World) -> (String, u64, u64) {
    let link = world.border.run("ip", &["-o", "-d", "link", "show", "dev", "out0"]).unwrap();
    let program = link.split("prog/xdp id ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or("none");
    let id = |kind: &str, name: &str| {
        let pin = world.pin(name);
        let shown =
            run(std::process::Command::new("bpftool").args(["-j", kind, "show", "pinned"]).arg(pin)).unwrap();
        let rest = shown.split("\"id\":").nth(1).unwrap();
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u64>().unwrap()
    };
    (program.to_owned(), id("link", "link_out0"), id("map", "FLOWS"))
}

#[test]
fn the_kernel_forwards_without_the_daemon_and_the_next_daemon_takes_over() {
    inside("the_kernel_forwards_without_the_daemon_and_the_next_daemon_takes_over", |world| {
        let mut border = world.start();
        border.install(vec![signalled()]);
        let caller = bind(&world.caller, CALLER, CALLER_PORT);
        let callee = bind(&world.callee, CALLEE, CALLEE_PORT);
        let (outside, inside) = (address(OUTSIDE, OUTSIDE_PORT), address(INSIDE, INSIDE_PORT));
        let (program, link, flows) = ids(world);
        border.planes.leave();
        passes(&caller, outside, &callee, inside, &rtp(1));
        assert_eq!(ids(world), (program.clone(), link, flows));

        let mut border = world.start();
        let (new_program, new_link, new_flows) = ids(world);
        assert_ne!(new_program, program);
        assert_eq!((new_link, new_flows), (link, flows), "replaced, never detached");
        // The new daemon knows no calls.
        caller.send_to(&rtp(2), outside).unwrap();
        silent(&callee);
        border.install(vec![signalled()]);
        passes(&caller, outside, &callee, inside, &rtp(3));
        let counters = border.planes.counters(CALL);
        assert_eq!(counters[0].from_caller.rtp_kernel, 1, "its own packets only");
        border.planes.stop().unwrap();
    });
}

#[test]
fn stopping_leaves_nothing_behind() {
    inside("stopping_leaves_nothing_behind", |world| {
        world.border.sysctl("ipv4/ip_local_reserved_ports", "8080,20050").unwrap();
        let reserved = || {
            let read = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports");
            world.border.enter(read).unwrap().unwrap().trim().to_owned()
        };
        let mut border = world.start();
        border.install(vec![signalled()]);
        assert_eq!(reserved(), "5060-5061,8080,20000-20199");
        // A daemon that was killed is followed by one that still knows what was added.
        border.planes.leave();
        let border = world.start();
        assert_eq!(reserved(), "5060-5061,8080,20000-20199");
        border.planes.stop().unwrap();
        assert_eq!(reserved(), "8080,20050");
        assert!(!Path::new("/sys/fs/bpf/sbc").join(&world.instance).exists());
        for interface in ["out0", "in0"] {
            let link = world.border.run("ip", &["-o", "link", "show", "dev", interface]).unwrap();
            assert!(!link.contains("xdp"), "{link}");
        }
    });
}

fn has_pins(world: &World) -> bool {
    Path::new("/sys/fs/bpf/sbc").join(&world.instance).exists()
}

#[test]
fn a_start_that_fails_later_removes_what_it_made_and_cuts_no_call() {
    inside("a_start_that_fails_later_removes_what_it_made_and_cuts_no_call", |world| {
        drop(world.start());
        assert!(!has_pins(world), "it was the first");

        let mut border = world.start();
        border.install(vec![signalled()]);
        let left = vec![border.planes.checkpoint(CALL).unwrap()];
        border.planes.leave();
        let caller = bind(&world.caller, CALLER, CALLER_PORT);
        let callee = bind(&world.callee, CALLEE, CALLEE_PORT);
        let (outside, inside) = (address(OUTSIDE, OUTSIDE_PORT), address(INSIDE, INSIDE_PORT));
        // The second takes over what the one that failed had taken over.
        for sequence in 1..=2 {
            let config = world.config();
            let lock = Planes::lock(&config).unwrap();
            let (planes, _, adopted) = Planes::take_over(&config, lock, &left, Instant::now()).unwrap();
            assert_eq!(adopted, [CALL]);
            drop(planes);
            passes(&caller, outside, &callee, inside, &rtp(sequence));
        }
        assert!(has_pins(world));
    });
}

#[test]
fn a_daemon_without_the_kernel_removes_what_one_before_has_there() {
    inside("a_daemon_without_the_kernel_removes_what_one_before_has_there", |world| {
        world.start().planes.leave();
        assert!(has_pins(world));
        let config = PlanesConfig { kernel: false, ..world.config() };
        let (planes, _) = world.try_start(&config).unwrap();
        let mut border = Border::new(planes);
        assert_eq!(border.install(vec![signalled()]), [Placement::Relay]);
        // The program goes a moment after its pin.
        border
            .drive(|_| !world.border.run("ip", &["-o", "-d", "link", "show"]).unwrap().contains("prog/xdp"));
        assert!(!has_pins(world));
        let caller = bind(&world.caller, CALLER, CALLER_PORT);
        let callee = bind(&world.callee, CALLEE, CALLEE_PORT);
        let via = address(INSIDE, INSIDE_PORT);
        passes(&caller, address(OUTSIDE, OUTSIDE_PORT), &callee, via, &rtp(1));
        border.planes.stop().unwrap();
    });
}

#[test]
fn a_second_daemon_of_the_instance_is_refused() {
    inside("a_second_daemon_of_the_instance_is_refused", |world| {
        let border = world.start();
        let refused = world.try_start(&world.config()).err().unwrap();
        assert!(matches!(refused, StartError::InstanceRunning { .. }), "{refused}");
        assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
        // A directory of its own does not make it another instance.
        let elsewhere = PlanesConfig { run_dir: world.scratch.path().join("elsewhere"), ..world.config() };
        let refused = world.try_start(&elsewhere).err().unwrap();
        assert!(matches!(refused, StartError::InstanceRunning { .. }), "{refused}");
        border.planes.stop().unwrap();
    });
}

#[test]
fn a_program_of_somebody_else_is_refused() {
    inside("a_program_of_somebody_else_is_refused", |world| {
        let border = world.start();
        let other = PlanesConfig {
            instance: format!("{}-other", world.instance),
            run_dir: world.scratch.path().join("other"),
            ..world.config()
        };
        let refused = world.try_start(&other).err().unwrap();
        let (program, ..) = ids(world);
        let StartError::ForeignProgram { interface, id, name } = &refused else { panic!("{refused}") };
        assert_eq!((interface.as_str(), id.to_string(), name.as_str()), ("out0", program, "sbc"));
        assert!(refused.to_string().contains("bpftool net show dev out0"), "{refused}");
        let surveyed = Planes::survey(&other).err().unwrap();
        assert_eq!(surveyed.to_string(), refused.to_string());
        assert_eq!(Planes::survey(&world.config()).unwrap().addresses, border.planes.report().addresses);
        assert!(!Path::new("/sys/fs/bpf/sbc").join(&other.instance).exists(), "a refusal leaves no pins");
        border.planes.stop().unwrap();
    });
}

#[test]
fn a_pinned_map_of_another_shape_is_refused() {
    inside("a_pinned_map_of_another_shape_is_refused", |world| {
        std::fs::create_dir_all(world.pin("")).unwrap();
        let pin = world.pin("NEXT_HOPS");
        let create = ["type", "array", "key", "4", "value", "16", "entries", "4096", "name", "NEXT_HOPS"];
        run(std::process::Command::new("bpftool").args(["map", "create"]).arg(&pin).args(create)).unwrap();
        let refused = world.try_start(&world.config()).err().unwrap();
        let said = refused.to_string();
        assert!(matches!(refused, StartError::PinnedMapDiffers { field: "value size", .. }), "{said}");
        assert!(said.contains("NEXT_HOPS") && said.contains(pin.to_str().unwrap()), "{said}");
        assert!(pin.exists(), "what is not ours stays");
    });
}

#[test]
fn an_address_that_the_kernel_cannot_serve_is_reported_with_the_reason() {
    inside("an_address_that_the_kernel_cannot_serve_is_reported_with_the_reason", |world| {
        let mut config = world.config();
        config.media[1].address = Ipv4Addr::LOCALHOST.into();
        let (planes, report) = world.try_start(&config).unwrap();
        assert_eq!(report.addresses[0].relay_reason, None);
        let reason = report.addresses[1].relay_reason.as_deref().unwrap();
        assert!(reason.contains("lo has no Ethernet header"), "{reason}");

        // A stream across both is the relay's: it reaches the callee by the routes of the host.
        let mut border = Border { planes, next_op: 1, heard: Vec::new() };
        let mut stream = signalled();
        stream.callee = side(
            Ipv4Addr::LOCALHOST,
            INSIDE_PORT,
            Some((Ipv4Addr::LOCALHOST, CALLEE_PORT)),
            SourcePolicy::Signalled,
        );
        assert_eq!(border.install(vec![stream]), [Placement::Relay]);
        let caller = bind(&world.caller, CALLER, CALLER_PORT);
        let callee = bind(&world.border, Ipv4Addr::LOCALHOST, CALLEE_PORT);
        let via = address(Ipv4Addr::LOCALHOST, INSIDE_PORT);
        passes(&caller, address(OUTSIDE, OUTSIDE_PORT), &callee, via, &rtp(1));
        border.planes.stop().unwrap();
    });
}

#[test]
fn a_program_of_an_earlier_daemon_on_an_interface_for_the_relay_is_not_somebody_elses() {
    inside("a_program_of_an_earlier_daemon_on_an_interface_for_the_relay_is_not_somebody_elses", |world| {
        let gro = |state| drop(world.callee.run("ethtool", &["-K", "eth0", "gro", state]).unwrap());
        // The kernel takes it off some time after its pin is gone, so that once shows nothing.
        for _ in 0..8 {
            gro("on");
            world.start().planes.leave();
            gro("off");
            let (planes, report) = world.try_start(&world.config()).unwrap();
            assert!(report.addresses[1].relay_reason.is_some());
            planes.stop().unwrap();
        }
    });
}
