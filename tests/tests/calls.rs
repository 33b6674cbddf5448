//! Real clients call through a real `sbcd` in namespaces: what they hear, what the wire shows, what the records say.
#![allow(clippy::unwrap_used, reason = "a test file")]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use sbc_tests::baresip::{Baresip, Phone};
use sbc_tests::pcap::{Capture, Packet};
use sbc_tests::process::Scratch;
use sbc_tests::rtp::{self, Counts, Side};
use sbc_tests::sbc::{Carried, Networks, OUTSIDE, PBX, SBC_INSIDE, SBC_OUTSIDE, SIP, SIPS, Sbcd, binaries};
use sbc_tests::sipp::{ANSWER_WITH_AUDIO, Answering, Batch, CALL_WITH_AUDIO, Calling, Outcome};
use sbc_tests::{is_root, skip};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(20);

/// Networks with an SBC, and what is captured at both ends. Fields are dropped in this order.
struct Bench {
    sbcd: Sbcd,
    captures: Option<(Capture, Capture)>,
    networks: Networks,
    scratch: Scratch,
}

impl Bench {
    /// `None` (and a reason) where this test cannot run.
    fn start(test: &str) -> Option<Self> {
        Self::start_with(test, None)
    }

    /// With a configuration of both sides.
    fn start_with(test: &str, sides: Option<&str>) -> Option<Self> {
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
        let scratch = Scratch::create("calls").unwrap();
        let networks = Networks::create().unwrap();
        let sbcd = match sides {
            None => Sbcd::start(&networks, &binaries, &scratch),
            Some(sides) => Sbcd::start_with(&networks, &binaries, sides, &scratch),
        };
        let sbcd = sbcd.unwrap();
        let captures = (
            Capture::start(&networks.outside, "outside0", &scratch).unwrap(),
            Capture::start(&networks.pbx, "pbx0", &scratch).unwrap(),
        );
        Some(Self { sbcd, captures: Some(captures), networks, scratch })
    }

    fn answering(&self, scenario: &str, audio: Duration) -> Answering {
        Answering::start(&self.networks.pbx, scenario, SocketAddr::new(PBX, SIP), audio, &self.scratch)
            .unwrap()
    }

    fn calling(&self, scenario: &str, batch: Batch) -> Calling {
        let (local, remote) = (SocketAddr::new(OUTSIDE, SIP), SocketAddr::new(SBC_OUTSIDE, SIP));
        Calling::start(&self.networks.outside, scenario, local, remote, "100", batch, &self.scratch).unwrap()
    }

    fn phone(&self, audio: Duration) -> Baresip {
        let phone = Phone {
            user: "phone",
            interface: "outside0",
            ip: OUTSIDE,
            transport: "tls",
            outbound: Some(SocketAddr::new(SBC_OUTSIDE, SIPS)),
            authority: self.sbcd.authority(),
            audio,
            sip_port: 5070,
        };
        Baresip::start(&self.networks.outside, &phone, &self.scratch).unwrap()
    }

    /// Ends the captures: what was seen outside and at the PBX.
    fn captured(&mut self) -> (Vec<Packet>, Vec<Packet>) {
        let (outside, pbx) = self.captures.take().unwrap();
        (outside.finish().unwrap(), pbx.finish().unwrap())
    }

    fn records(&self, count: usize) -> Vec<Value> {
        self.sbcd.wait_for_records(count, LIMIT).unwrap()
    }
}

fn counts(outside: &[Packet], pbx: &[Packet]) -> Counts {
    rtp::count(Side { party: OUTSIDE, packets: outside }, Side { party: PBX, packets: pbx })
}

fn quiet(calls: u32) -> Batch {
    Batch { calls, per_second: 10, audio: Duration::ZERO, hold: Duration::ZERO }
}

/// Nothing was lost, nothing went by the relay, and the kernel's counters say the same as the wire.
fn assert_all_by_kernel(counts: Counts, records: &[Value]) {
    assert_eq!(counts.wrong_checksums, 0);
    assert_eq!((counts.to_near.received, counts.to_far.received), (counts.to_near.sent, counts.to_far.sent));
    assert_eq!(Carried::sum(records, "rtp_kernel").unwrap().both(), counts.sent());
    assert_eq!(Carried::sum(records, "rtp_relay").unwrap(), Carried::default());
}

/// Addresses of one side must not show in SIP of the other.
fn assert_hidden(packets: &[Packet], hidden: &[IpAddr]) {
    for packet in packets.iter().filter(|packet| packet.destination.port() == SIP) {
        let text = String::from_utf8_lossy(&packet.payload);
        for address in hidden.iter().map(IpAddr::to_string) {
            assert!(!text.contains(&address), "{address} shows in\n{text}");
        }
    }
}

#[test]
fn udp_calls_pass_through_the_kernel() {
    let Some(mut bench) = Bench::start("udp_calls_pass_through_the_kernel") else { return };
    let audio = Duration::from_secs(3);
    let _answering = bench.answering(ANSWER_WITH_AUDIO, audio);
    let batch = Batch { calls: 5, per_second: 10, audio, hold: Duration::from_secs(4) };
    let calling = bench.calling(CALL_WITH_AUDIO, batch);
    // In the middle of the calls the operator sees them.
    std::thread::sleep(Duration::from_secs(2));
    let calls = bench.sbcd.ask("calls").unwrap();
    let calls = calls["calls"].as_array().unwrap().clone();
    assert_eq!(calls.len(), 5);
    for call in &calls {
        assert_eq!(call["streams"][0]["path"], json!("kernel"), "{call}");
        assert!(call["streams"][0]["from_caller"]["rtp_kernel"].as_u64().unwrap() > 0, "{call}");
    }
    let outcome = calling.finish(LIMIT).unwrap();
    assert_eq!(
        outcome,
        Outcome { succeeded: 5, failed: 0 },
        "{}\n{}",
        calling.process().log_tail(),
        bench.sbcd.log()
    );
    let records = bench.records(5);
    let (outside, pbx) = bench.captured();
    let counts = counts(&outside, &pbx);
    assert_eq!((counts.to_near.sent, counts.to_far.sent), (5 * 150, 5 * 150), "{counts:?}");
    assert_all_by_kernel(counts, &records);
    assert_hidden(&outside, &[PBX, SBC_INSIDE]);
    assert_hidden(&pbx, &[OUTSIDE, SBC_OUTSIDE]);
    assert!(bench.sbcd.stop().unwrap().success(), "{}", bench.sbcd.log());
}

/// Both sides over UDP, with more said of the outside.
fn sides_with(more: &str) -> String {
    format!(
        "[public]\nbind = \"{SBC_OUTSIDE}\"\nudp = {SIP}\npeers = [\"{OUTSIDE}/32\"]\n\
         next_hop = \"udp:{OUTSIDE}:{SIP}\"\n{more}\n\n\
         [private]\nbind = \"{SBC_INSIDE}\"\nudp = {SIP}\npbx = \"udp:{PBX}:{SIP}\"\n"
    )
}

/// Nobody says a word after the first moment: whom only our own flows reach is sent something, and nobody else.
#[test]
fn a_silent_call_keeps_the_way_to_its_caller_open() {
    let sides = sides_with("prime_seconds = 4");
    let Some(mut bench) = Bench::start_with("a_silent_call_keeps_the_way_to_its_caller_open", Some(&sides))
    else {
        return;
    };
    // One packet each.
    let audio = Duration::from_millis(20);
    let _answering = bench.answering(ANSWER_WITH_AUDIO, audio);
    let batch = Batch { calls: 1, per_second: 10, audio, hold: Duration::from_millis(4700) };
    let calling = bench.calling(CALL_WITH_AUDIO, batch);
    assert_eq!(calling.finish(LIMIT).unwrap(), Outcome { succeeded: 1, failed: 0 }, "{}", bench.sbcd.log());
    let status = bench.sbcd.ask("status").unwrap();
    // At the second look, after two seconds, and then every two seconds.
    let primed = usize::try_from(status["engine_counters"]["media_primed"].as_u64().unwrap()).unwrap();
    assert!(primed >= 2, "{status}");
    let records = bench.records(1);
    assert_eq!(Carried::sum(&records, "rtp_kernel").unwrap().both(), 2, "{}", records[0]);
    let (outside, pbx) = bench.captured();
    let primes = |packets: &[Packet], to: IpAddr| {
        let arrived = packets.iter().filter(|packet| packet.destination.ip() == to);
        let kinds = arrived.map(|packet| (packet.destination.port() % 2, packet.payload.len()));
        kinds.filter(|kind| [(0, 12), (1, 8)].contains(kind)).collect::<Vec<_>>()
    };
    assert_eq!(primes(&outside, OUTSIDE), [(0, 12), (1, 8)].repeat(primed));
    assert_eq!(primes(&pbx, PBX), []);
}

/// The caller's port is learned and its window closes in the middle of the call: it goes on, and nobody takes its place.
#[test]
fn a_learned_caller_keeps_its_place() {
    let sides = sides_with("media_source = \"subnet\"\nlatch_seconds = 1");
    let Some(bench) = Bench::start_with("a_learned_caller_keeps_its_place", Some(&sides)) else { return };
    let audio = Duration::from_secs(4);
    let _answering = bench.answering(ANSWER_WITH_AUDIO, audio);
    let batch = Batch { calls: 1, per_second: 10, audio, hold: Duration::from_secs(5) };
    let calling = bench.calling(CALL_WITH_AUDIO, batch);
    // Inside of the second in which the port may be claimed, the caller has claimed it; then nobody may.
    let mut seen = Value::Null;
    let closed = (0..30).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        let calls = bench.sbcd.ask("calls").unwrap();
        seen = calls.pointer("/calls/0/streams/0").cloned().unwrap_or_default();
        seen["caller"]["learning"] == json!(false)
    });
    assert!(closed, "{seen}\n{}", bench.sbcd.log());
    assert_eq!(seen["caller"]["source"], json!("learned from 198.51.100.0/24"), "{seen}");
    let port: SocketAddr = seen["caller"]["local"].as_str().unwrap().parse().unwrap();
    const INTRUSIONS: u64 = 50;
    let sent = bench.networks.outside.enter(|| {
        let intruder = UdpSocket::bind((OUTSIDE, 0)).unwrap();
        let mut rtp = [0x55; 172];
        rtp[..2].copy_from_slice(&[0x80, 8]);
        (0..INTRUSIONS).filter(|_| intruder.send_to(&rtp, port).is_ok()).count()
    });
    assert_eq!(sent.unwrap(), usize::try_from(INTRUSIONS).unwrap());
    assert_eq!(calling.finish(LIMIT).unwrap(), Outcome { succeeded: 1, failed: 0 }, "{}", bench.sbcd.log());
    let records = bench.records(1);
    let carried = Carried::sum(&records, "rtp_kernel").unwrap();
    assert_eq!((carried.from_caller, carried.from_callee), (200, 200), "{}", records[0]);
    let status = bench.sbcd.ask("status").unwrap();
    assert_eq!(status["dataplane_counters"]["drop_wrong_source"], json!(INTRUSIONS), "{status}");
    assert_eq!(status["relay_streams"]["no_route"], json!(0), "{status}");
}

#[test]
fn a_phone_calls_over_tls() {
    let Some(mut bench) = Bench::start("a_phone_calls_over_tls") else { return };
    let _answering = bench.answering(ANSWER_WITH_AUDIO, Duration::from_secs(2));
    let phone = bench.phone(Duration::from_millis(2500));
    phone.dial(&format!("sip:100@{SBC_OUTSIDE}:{SIPS};transport=tls")).unwrap();
    phone
        .wait_for("CALL_ESTABLISHED", LIMIT)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", bench.sbcd.log()));
    phone.wait_for("CALL_CLOSED", LIMIT).unwrap();
    let records = bench.records(1);
    assert_eq!(records[0]["caller"]["transport"], json!("tls"), "{}", records[0]);
    let (outside, pbx) = bench.captured();
    let counts = counts(&outside, &pbx);
    assert!(counts.to_near.sent >= 120 && counts.to_far.sent == 100, "{counts:?}");
    assert_all_by_kernel(counts, &records);
    assert_hidden(&pbx, &[OUTSIDE, SBC_OUTSIDE]);
}

/// What the phone reports in RTCP of what it hears stands in the call's record.
#[test]
fn a_phones_report_is_recorded() {
    let Some(bench) = Bench::start("a_phones_report_is_recorded") else { return };
    let _answering = bench.answering(ANSWER_WITH_AUDIO, Duration::from_secs(8));
    // Its first report comes after five seconds.
    let phone = bench.phone(Duration::from_secs(8));
    phone.dial(&format!("sip:100@{SBC_OUTSIDE}:{SIPS};transport=tls")).unwrap();
    phone.wait_for("CALL_CLOSED", LIMIT).unwrap_or_else(|error| panic!("{error:#}\n{}", bench.sbcd.log()));
    let records = bench.records(1);
    let heard = &records[0]["media"][0]["heard_by_caller"];
    assert!(heard["reports"].as_u64().is_some_and(|reports| reports > 0), "{}", records[0]);
    assert_eq!((&heard["lost"], &heard["lost_percent_max"]), (&json!(0), &json!(0.0)), "{heard}");
    assert!(heard["jitter_us"].is_u64(), "{heard}");
    assert_eq!(records[0]["media"][0]["heard_by_callee"], Value::Null, "nobody at the PBX reports");
}

#[test]
fn the_pbx_calls_out() {
    let Some(mut bench) = Bench::start("the_pbx_calls_out") else { return };
    let audio = Duration::from_secs(1);
    let (inside, outside) = (SocketAddr::new(PBX, SIP), SocketAddr::new(OUTSIDE, SIP));
    let _answering =
        Answering::start(&bench.networks.outside, ANSWER_WITH_AUDIO, outside, audio, &bench.scratch).unwrap();
    let batch = Batch { calls: 3, per_second: 10, audio, hold: Duration::from_secs(2) };
    let sbc = SocketAddr::new(SBC_INSIDE, SIP);
    let pbx = &bench.networks.pbx;
    let calling = Calling::start(pbx, CALL_WITH_AUDIO, inside, sbc, "4420", batch, &bench.scratch).unwrap();
    let outcome = calling.finish(LIMIT).unwrap();
    assert_eq!(outcome, Outcome { succeeded: 3, failed: 0 }, "{}", bench.sbcd.log());
    let records = bench.records(3);
    let (outside, pbx) = bench.captured();
    assert_all_by_kernel(counts(&outside, &pbx), &records);
    assert_hidden(&outside, &[PBX, SBC_INSIDE]);
}

/// Three calls of a pair of scenarios, each of which must run to its end on both sides; the calls' records.
fn both_sides_succeed(test: &str, caller: &str, called: &str) -> Option<Vec<Value>> {
    let bench = Bench::start(test)?;
    let answering = bench.answering(called, Duration::ZERO);
    let calling = bench.calling(caller, quiet(3));
    let all = Outcome { succeeded: 3, failed: 0 };
    let outcomes = (calling.finish(LIMIT).unwrap(), answering.finish(LIMIT).unwrap());
    let logs = [calling.process().log_tail(), answering.process().log_tail(), bench.sbcd.log()];
    assert_eq!(outcomes, (all, all), "{}", logs.join("\n---\n"));
    Some(bench.records(3))
}

#[test]
fn hold_and_resume_pass() {
    let pair = ("hold_and_resume.xml", "answer_and_be_held.xml");
    let Some(records) = both_sides_succeed("hold_and_resume_pass", pair.0, pair.1) else { return };
    for record in records {
        assert_eq!((&record["status"], &record["ended_by"]), (&json!(200), &json!("caller")), "{record}");
    }
}

#[test]
fn a_cancelled_call_ends_on_both_sides() {
    let pair = ("cancel_while_ringing.xml", "ring_until_cancelled.xml");
    let Some(records) = both_sides_succeed("a_cancelled_call_ends_on_both_sides", pair.0, pair.1) else {
        return;
    };
    for record in records {
        assert_eq!((&record["status"], &record["answered"]), (&json!(487), &Value::Null), "{record}");
    }
}

#[test]
fn a_refusal_reaches_the_caller() {
    let pair = ("call_and_find_busy.xml", "answer_busy.xml");
    let Some(records) = both_sides_succeed("a_refusal_reaches_the_caller", pair.0, pair.1) else { return };
    for record in records {
        assert_eq!(record["status"], json!(486), "{record}");
    }
}
