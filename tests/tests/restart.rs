//! A real `sbcd` that ends without a word, and the next one, under traffic in namespaces.

#![allow(clippy::unwrap_used, reason = "a test file")]

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sbc_tests::netns::{End, connect, run};
use sbc_tests::process::Scratch;
use sbc_tests::sbc::{Networks, OUTSIDE, PBX, SBC_INSIDE, SBC_OUTSIDE, SIP, Sbcd, binaries};
use sbc_tests::streams::{Party, Streams};
use sbc_tests::{is_root, skip};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);
/// Each with a stream in both directions.
const CALLS: u16 = 250;
const INTERVAL: Duration = Duration::from_millis(100);
/// What arrives in a second.
const SECOND: u64 = CALLS as u64 * 2 * 10;
const SILENCE_SECONDS: u64 = 12;

fn sides(outside: IpAddr, carrier: IpAddr, inside: IpAddr, pbx: IpAddr) -> String {
    format!(
        "[limits]\n\
         media_timeout_seconds = {SILENCE_SECONDS}\n\
         media_hold_timeout_seconds = {SILENCE_SECONDS}\n\
         \n\
         [public]\n\
         bind = \"{outside}\"\n\
         udp = {SIP}\n\
         peers = [\"{carrier}/32\"]\n\
         next_hop = \"udp:{carrier}:{SIP}\"\n\
         \n\
         [private]\n\
         bind = \"{inside}\"\n\
         udp = {SIP}\n\
         pbx = \"udp:{pbx}:{SIP}\"\n",
    )
}

struct Bench {
    sbcd: Sbcd,
    networks: Networks,
    scratch: Scratch,
    binaries: PathBuf,
}

impl Bench {
    fn start(test: &str) -> Option<Self> {
        if !is_root() {
            skip(test, "needs root");
            return None;
        }
        let binaries = match binaries() {
            Ok(binaries) => binaries,
            Err(error) => {
                skip(test, &format!("{error:#}"));
                return None;
            }
        };
        let scratch = Scratch::create("restart").unwrap();
        let networks = Networks::create().unwrap();
        let sides = sides(SBC_OUTSIDE, OUTSIDE, SBC_INSIDE, PBX);
        let sbcd = Sbcd::start_with(&networks, &binaries, &sides, &scratch).unwrap();
        Some(Self { sbcd, networks, scratch, binaries })
    }

    fn streams(&self, calls: u16) -> Streams {
        let caller = Party { namespace: &self.networks.outside, address: OUTSIDE, sbc: SBC_OUTSIDE };
        let callee = Party { namespace: &self.networks.pbx, address: PBX, sbc: SBC_INSIDE };
        Streams::start(caller, callee, calls, INTERVAL).unwrap()
    }

    fn start_again(&mut self) {
        self.sbcd.start_again(&self.networks, &self.binaries, &self.scratch).unwrap();
    }

    fn status(&self, field: &str) -> u64 {
        let status = self.sbcd.ask("status").unwrap();
        status[field].as_u64().unwrap_or_else(|| panic!("no {field}: {status}"))
    }

    /// The XDP program on an interface.
    fn program(&self, interface: &str) -> u64 {
        let shown = self.networks.sbc.run("ip", &["-j", "-d", "link", "show", "dev", interface]).unwrap();
        let links: Value = serde_json::from_str(&shown).unwrap();
        links[0]["xdp"]["prog"]["id"].as_u64().unwrap_or_else(|| panic!("no program: {links}"))
    }

    /// The link that holds the program on an interface.
    fn link(&self, interface: &str) -> u64 {
        let pin = self.pins().join(format!("link_{interface}"));
        let mut bpftool = std::process::Command::new("bpftool");
        let shown = run(bpftool.args(["-j", "link", "show", "pinned"]).arg(pin)).unwrap();
        let link: Value = serde_json::from_str(&shown).unwrap();
        link["id"].as_u64().unwrap_or_else(|| panic!("no link: {link}"))
    }

    /// The pins of this version.
    fn pins(&self) -> PathBuf {
        self.sbcd.pins().join(format!("v{}", sbc_common::limits::ABI))
    }

    /// Writes an entry of a map.
    fn write(&self, map: &str, key: &[u8], value: &[u8]) {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>();
        let words =
            [vec!["key".to_owned(), "hex".to_owned()], hex(key), vec!["value".into(), "hex".into()]].concat();
        self.bpftool(&["map", "update", "pinned"], map, &words, value);
    }

    fn bpftool(&self, command: &[&str], pin: &str, words: &[String], bytes: &[u8]) {
        let mut bpftool = std::process::Command::new("bpftool");
        let bytes = bytes.iter().map(|byte| format!("{byte:02x}"));
        run(bpftool.args(command).arg(self.pins().join(pin)).args(words).args(bytes)).unwrap();
    }

    fn reserved(&self) -> String {
        let read = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap();
        self.networks.sbc.enter(read).unwrap()
    }

    fn wait_until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let end = Instant::now() + LIMIT;
        while !condition(self) {
            assert!(Instant::now() < end, "{what}: not within {LIMIT:?}\n{}", self.sbcd.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn no_packet_is_lost_when_the_daemon_is_killed_and_started_again() {
    let name = "no_packet_is_lost_when_the_daemon_is_killed_and_started_again";
    let Some(mut bench) = Bench::start(name) else { return };
    let streams = bench.streams(CALLS);
    streams.wait_for(2 * SECOND, LIMIT).unwrap();
    let programs = ["public0", "private0"].map(|interface| bench.program(interface));
    let ports = bench.status("ports_in_use");
    assert_eq!(ports, u64::from(CALLS) * 4);

    bench.sbcd.kill().unwrap();
    // Nobody is there; the kernel goes on.
    streams.wait_for(3 * SECOND, LIMIT).unwrap();
    bench.start_again();
    streams.wait_for(2 * SECOND, LIMIT).unwrap();

    for (interface, before) in ["public0", "private0"].into_iter().zip(programs) {
        assert_ne!(bench.program(interface), before, "{interface} has the new daemon's program");
    }
    assert_eq!(bench.status("media_only_calls"), u64::from(CALLS), "{}", bench.sbcd.log());
    assert_eq!(bench.status("ports_in_use"), ports);
    let calls = bench.sbcd.ask("calls").unwrap();
    let call = &calls["calls"][0];
    assert_eq!(
        (&call["state"], &call["streams"][0]["path"]),
        (&"media_only".into(), &"kernel".into()),
        "{call}"
    );

    // Killed once more: what was taken over once is taken over again.
    bench.sbcd.kill().unwrap();
    streams.wait_for(SECOND, LIMIT).unwrap();
    bench.start_again();
    streams.wait_for(SECOND, LIMIT).unwrap();
    assert_eq!(bench.status("media_only_calls"), u64::from(CALLS), "{}", bench.sbcd.log());

    let tally = streams.stop();
    assert_eq!((tally.sent - tally.received, tally.wrong), (0, 0), "{tally:?}");
    assert!(tally.sent > 9 * SECOND, "{tally:?}");
    println!("{} packets in {} streams, {} lost", tally.sent, CALLS * 2, tally.sent - tally.received);

    bench.wait_until("silence ends what was taken over", |bench| bench.status("media_only_calls") == 0);
    assert_eq!(bench.status("ports_in_use"), 0);
    let records = bench.sbcd.wait_for_records(CALLS.into(), LIMIT).unwrap();
    let packets: u64 = records
        .iter()
        .map(|record| {
            let stream = &record["media"][0];
            ["from_caller", "from_callee"]
                .map(|side| stream[side]["rtp_kernel"].as_u64().unwrap())
                .iter()
                .sum::<u64>()
        })
        .sum();
    assert_eq!((records.len(), packets), (CALLS.into(), tally.sent), "{}", records[0]);
    assert_eq!(records[0]["cause"], "media fell silent after a restart");
}

/// What hinders the next daemon is found after it took the calls over, and does not end them.
#[test]
fn a_start_that_fails_leaves_the_calls_to_the_next_one() {
    let name = "a_start_that_fails_leaves_the_calls_to_the_next_one";
    let Some(mut bench) = Bench::start(name) else { return };
    let streams = bench.streams(20);
    streams.wait_for(SECOND / 10, LIMIT).unwrap();
    bench.sbcd.kill().unwrap();
    let holder = bench.networks.sbc.enter(|| std::net::UdpSocket::bind((SBC_OUTSIDE, SIP))).unwrap().unwrap();
    assert!(bench.sbcd.start_again(&bench.networks, &bench.binaries, &bench.scratch).is_err());
    assert!(bench.sbcd.log().contains("in use"), "{}", bench.sbcd.log());
    streams.wait_for(SECOND / 10, LIMIT).unwrap();
    drop(holder);
    bench.start_again();
    streams.wait_for(SECOND / 10, LIMIT).unwrap();
    assert_eq!(bench.status("media_only_calls"), 20, "{}", bench.sbcd.log());
    let tally = streams.stop();
    assert_eq!((tally.sent - tally.received, tally.wrong), (0, 0), "{tally:?}");
}

/// As on an upgrade: the next program takes the place of the one before in its link, and calls go on.
#[test]
fn a_daemon_that_leaves_hands_its_calls_to_the_next_program() {
    let name = "a_daemon_that_leaves_hands_its_calls_to_the_next_program";
    let Some(mut bench) = Bench::start(name) else { return };
    let streams = bench.streams(20);
    streams.wait_for(SECOND / 10, LIMIT).unwrap();
    let (link, program) = (bench.link("public0"), bench.program("public0"));
    assert!(bench.sbcd.leave().unwrap().success(), "{}", bench.sbcd.log());
    bench.start_again();
    streams.wait_for(SECOND / 10, LIMIT).unwrap();
    assert_eq!(bench.link("public0"), link, "never detached");
    assert_ne!(bench.program("public0"), program);
    assert_eq!(bench.status("media_only_calls"), 20);
    let tally = streams.stop();
    assert_eq!((tally.sent - tally.received, tally.wrong), (0, 0), "{tally:?}");

    // What has no signalling does not keep a stop waiting, and leaves a record.
    assert!(bench.sbcd.stop().unwrap().success(), "{}", bench.sbcd.log());
    assert!(!bench.sbcd.pins().exists());
    let records = bench.sbcd.records().unwrap();
    assert_eq!(records.len(), 20);
    assert_eq!(records[0]["cause"], "ended by the operator after a restart");
}

/// The pins of another layout are those of the same instance, not of somebody else.
#[test]
fn pins_of_another_version_are_taken_over_without_their_calls() {
    let name = "pins_of_another_version_are_taken_over_without_their_calls";
    let Some(mut bench) = Bench::start(name) else { return };
    let streams = bench.streams(2);
    streams.wait_for(20, LIMIT).unwrap();
    let (link, program) = (bench.link("public0"), bench.program("public0"));
    bench.sbcd.kill().unwrap();
    let (current, old) = (bench.pins(), bench.sbcd.pins().join("v1"));
    std::fs::rename(&current, &old).unwrap();
    bench.start_again();
    assert_eq!(bench.link("public0"), link, "no moment without a program");
    assert_ne!(bench.program("public0"), program);
    assert!(!old.exists() && current.exists(), "{}", bench.sbcd.log());
    assert_eq!((bench.status("media_only_calls"), bench.status("ports_in_use")), (0, 0));
    assert!(streams.stop().sent > 0);
    // And it works.
    let streams = bench.streams(2);
    streams.wait_for(40, LIMIT).unwrap();
    let tally = streams.stop();
    assert_eq!((tally.sent - tally.received, tally.wrong), (0, 0), "{tally:?}");
}

#[test]
fn one_of_two_instances_is_killed_and_the_other_does_not_notice() {
    let Some(mut bench) = Bench::start("one_of_two_instances_is_killed_and_the_other_does_not_notice") else {
        return;
    };
    let address = |c, last| IpAddr::V4(Ipv4Addr::new(192, 168, c, last));
    let networks = &bench.networks;
    let end = |namespace, interface, addresses| End { namespace, interface, addresses };
    connect(
        end(&networks.outside, "outside1", &["192.168.1.2/24"]),
        end(&networks.sbc, "public1", &["192.168.1.1/24"]),
    )
    .unwrap();
    connect(
        end(&networks.sbc, "private1", &["192.168.2.1/24"]),
        end(&networks.pbx, "pbx1", &["192.168.2.2/24"]),
    )
    .unwrap();
    let scratch = Scratch::create("other").unwrap();
    let sides = sides(address(1, 1), address(1, 2), address(2, 1), address(2, 2));
    let instance = format!("{}-2", networks.sbc.name());
    let other =
        Sbcd::start_as(&instance, address(2, 1), networks, &bench.binaries, &sides, &scratch).unwrap();
    let caller = Party { namespace: &networks.outside, address: address(1, 2), sbc: address(1, 1) };
    let callee = Party { namespace: &networks.pbx, address: address(2, 2), sbc: address(2, 1) };
    let theirs = Streams::start(caller, callee, 20, INTERVAL).unwrap();
    let ours = bench.streams(20);
    for streams in [&ours, &theirs] {
        streams.wait_for(SECOND / 10, LIMIT).unwrap();
    }
    let reserved = bench.reserved();
    let program = bench.program("public1");

    bench.sbcd.kill().unwrap();
    bench.start_again();
    assert_eq!(bench.reserved(), reserved);
    for streams in [&ours, &theirs] {
        streams.wait_for(SECOND / 10, LIMIT).unwrap();
    }
    assert_eq!(bench.program("public1"), program);
    let calls = other.ask("status").unwrap();
    assert_eq!((&calls["calls"], &calls["media_only_calls"]), (&20.into(), &0.into()));
    assert_eq!(bench.status("media_only_calls"), 20);
    for streams in [ours, theirs] {
        let tally = streams.stop();
        assert_eq!((tally.sent - tally.received, tally.wrong), (0, 0), "{tally:?}");
    }
    // Whoever goes takes nothing along that the other needs.
    assert!(bench.sbcd.stop().unwrap().success());
    assert_eq!(bench.reserved(), reserved);
    assert_eq!(bench.program("public1"), program);
    other.kill().unwrap();
}

/// Whatever somebody did to the kernel's tables by hand is found and mended, and calls go on.
#[test]
fn what_was_broken_by_hand_is_found_and_mended() {
    let Some(bench) = Bench::start("what_was_broken_by_hand_is_found_and_mended") else { return };
    let streams = bench.streams(2);
    streams.wait_for(20, LIMIT).unwrap();
    let found = |bench: &Bench| {
        let said = bench.sbcd.ask("reconcile").unwrap();
        let differences = said["differences"].as_array().unwrap().clone();
        assert!(differences.iter().all(|difference| difference["mended"] == true), "{said}");
        let mut objects: Vec<String> =
            differences.iter().map(|it| it["object"].as_str().unwrap().to_owned()).collect();
        objects.dedup();
        objects
    };
    assert_eq!(found(&bench), Vec::<String>::new(), "nothing is wrong at first");

    let call = bench.sbcd.ask("calls").unwrap()["calls"][0].clone();
    let port = call["streams"][0]["caller"]["local"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    let slot = (0..2).map(|slot| slot << 16 | port.parse::<u32>().unwrap());
    for index in slot {
        bench.write("FLOWS", &index.to_ne_bytes(), &[0; 64]);
    }
    assert_eq!(found(&bench), ["slot"]);
    for hop in 1_u32..3 {
        bench.write("NEXT_HOPS", &hop.to_ne_bytes(), &[0; 24]);
    }
    assert_eq!(found(&bench), ["next hop"]);
    bench.write("ADDRESSES", &0_u32.to_ne_bytes(), &[0; 20]);
    assert_eq!(found(&bench), ["address"]);
    let interface = bench.networks.sbc.interface_index("private0").unwrap();
    bench.bpftool(
        &["map", "delete", "pinned"],
        "DEVICES",
        &["key".into(), "hex".into()],
        &interface.to_ne_bytes(),
    );
    assert_eq!(found(&bench), ["device"]);
    bench.bpftool(&["link", "detach", "pinned"], "link_public0", &[], &[]);
    assert_eq!(found(&bench), ["link"]);
    // A flow of nobody's: a way through that no call opened.
    let mut stray = [0; 64];
    stray[0] = 1;
    bench.write("FLOWS", &20_100_u32.to_ne_bytes(), &stray);
    assert_eq!(found(&bench), ["slot"]);
    assert_eq!(found(&bench), Vec::<String>::new());
    streams.wait_for(40, LIMIT).unwrap();
    assert_eq!(bench.status("calls"), 2);
}
