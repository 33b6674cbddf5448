//! A real `sbcd` that ends without a word, and the next one, under traffic in namespaces.

#![allow(clippy::unwrap_used, reason = "a test file")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

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
        let sides = format!(
            "[limits]\n\
             media_timeout_seconds = {SILENCE_SECONDS}\n\
             media_hold_timeout_seconds = {SILENCE_SECONDS}\n\
             \n\
             [public]\n\
             bind = \"{SBC_OUTSIDE}\"\n\
             udp = {SIP}\n\
             peers = [\"{OUTSIDE}/32\"]\n\
             next_hop = \"udp:{OUTSIDE}:{SIP}\"\n\
             \n\
             [private]\n\
             bind = \"{SBC_INSIDE}\"\n\
             udp = {SIP}\n\
             pbx = \"udp:{PBX}:{SIP}\"\n",
        );
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
