//! `cargo xtask demo`: real calls through a real `sbcd`, counted on the wire.
//!
//! One phone calls over TLS, a batch of phones over UDP, all to a PBX on another network; every party plays audio. What
//! was sent and what arrived is counted in captures of the two end networks, what the kernel and the relay carried in
//! the records of the ended calls; the demo passes only if all these numbers agree and the relay carried nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sbc_tests::baresip::{Baresip, Phone};
use sbc_tests::netns;
use sbc_tests::pcap::Capture;
use sbc_tests::process::Scratch;
use sbc_tests::rtp::{self, Counts, Direction, Side};
use sbc_tests::sbc::{Carried, Networks, OUTSIDE, PBX, SBC_OUTSIDE, SIP, SIPS, Sbcd};
use sbc_tests::sipp::{ANSWER_WITH_AUDIO, Answering, Batch, CALL_WITH_AUDIO, Calling};
use serde_json::{Value, json};

use crate::build_and_load;
use crate::run::say;
use crate::setup::{self, HostCannot, Tool};

/// Calls over UDP, all at the same time.
const BATCH: u32 = 60;
/// Calls over TLS.
const TLS_CALLS: u32 = 1;
/// Audio each way in every call.
const AUDIO: Duration = Duration::from_secs(10);
/// The phone over TLS plays a little longer and hangs up at the end, when the PBX has long been silent.
const PHONE_AUDIO: Duration = Duration::from_millis(11_000);
/// From ACK to BYE in the batch.
const HOLD: Duration = Duration::from_millis(11_500);

/// When to look into the kernel: all calls are up.
const LOOK_AFTER: Duration = Duration::from_secs(5);

/// Options of the command.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The last line of standard output is one JSON object
    #[arg(long)]
    json: bool,
}

/// What the demo found.
struct Findings {
    calls: u32,
    answered: u32,
    failed: u32,
    counts: Counts,
    kernel: Carried,
    relay: Carried,
    setup_ms: Vec<f64>,
    /// Arguments of bpftool.
    operator_lines: Vec<String>,
}

/// The command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let tools: Vec<&Tool> = setup::NETWORK.iter().chain(&setup::CLIENTS).chain(&setup::OPERATOR).collect();
    setup::require(&tools)?;
    if !sbc_tests::is_root() {
        return Err(HostCannot("namespaces and kernel programs need root".into()).into());
    }
    let binaries = build_and_load::build()?;
    let found = calls(&binaries)?;
    found.print_table();
    if arguments.json {
        println!("{}", found.to_json());
    }
    found.verdict()
}

fn calls(binaries: &Path) -> Result<Findings> {
    let scratch = Scratch::create("demo")?;
    say("three networks: outside, sbc, pbx");
    let networks = Networks::create()?;
    say("sbcd in the middle");
    let sbcd = Sbcd::start(&networks, binaries, &scratch)?;
    let through = through(&networks, &sbcd, &scratch);
    if through.is_err() {
        eprintln!("--- the end of sbcd's log:");
        let log = sbcd.log();
        let lines: Vec<&str> = log.lines().collect();
        eprintln!("{}", lines[lines.len().saturating_sub(30)..].join("\n"));
    }
    through
}

fn through(networks: &Networks, sbcd: &Sbcd, scratch: &Scratch) -> Result<Findings> {
    let outside = Capture::start(&networks.outside, "outside0", scratch)?;
    let pbx = Capture::start(&networks.pbx, "pbx0", scratch)?;
    let _answering =
        Answering::start(&networks.pbx, ANSWER_WITH_AUDIO, SocketAddr::new(PBX, SIP), AUDIO, scratch)?;

    say("a phone calls over SIP/TLS");
    let phone = Phone {
        user: "phone",
        interface: "outside0",
        ip: OUTSIDE,
        transport: "tls",
        outbound: Some(SocketAddr::new(SBC_OUTSIDE, SIPS)),
        authority: sbcd.authority(),
        audio: PHONE_AUDIO,
        sip_port: 5070,
    };
    let phone = Baresip::start(&networks.outside, &phone, scratch)?;
    phone.dial(&format!("sip:100@{SBC_OUTSIDE}:{SIPS};transport=tls"))?;
    let phone_answered = phone.wait_for("CALL_ESTABLISHED", Duration::from_secs(10));
    if let Err(error) = &phone_answered {
        eprintln!("{error:#}");
    }

    say(&format!("{BATCH} calls over UDP"));
    let batch = Batch { calls: BATCH, per_second: 20, audio: AUDIO, hold: HOLD };
    let (local, remote) = (SocketAddr::new(OUTSIDE, SIP), SocketAddr::new(SBC_OUTSIDE, SIP));
    let calling = Calling::start(&networks.outside, CALL_WITH_AUDIO, local, remote, "100", batch, scratch)?;
    let operator_lines = watch(sbcd, &calling)?;
    let outcome = calling.finish(Duration::from_secs(60))?;
    if outcome.failed > 0 {
        eprintln!("{}", calling.process().log_tail());
    }
    let phone_closed = phone_answered.and_then(|()| phone.wait_for("CALL_CLOSED", Duration::from_secs(20)));
    let phones = u32::from(phone_closed.is_ok());

    say("counting");
    let offered = BATCH + TLS_CALLS;
    let records =
        sbcd.wait_for_records(usize::try_from(outcome.succeeded + phones)?, Duration::from_secs(10))?;
    let (outside, pbx) = (outside.finish()?, pbx.finish()?);
    let status = sbcd.stop()?;
    if !status.success() {
        bail!("sbcd did not stop cleanly: {status}");
    }
    let setup_ms = rtp::setup_times_ms(&outside);
    let counts = rtp::count(Side { party: OUTSIDE, packets: &outside }, Side { party: PBX, packets: &pbx });
    if counts.wrong_checksums > 0 {
        bail!("{} packets with a wrong checksum were captured", counts.wrong_checksums);
    }
    Ok(Findings {
        calls: offered,
        answered: u32::try_from(setup_ms.len())? + phones,
        failed: offered - outcome.succeeded - phones,
        counts,
        kernel: Carried::sum(&records, "rtp_kernel")?,
        relay: Carried::sum(&records, "rtp_relay")?,
        setup_ms,
        operator_lines,
    })
}

/// Shows the calls while they run, and what an operator sees of them in the kernel.
fn watch(sbcd: &Sbcd, calling: &Calling) -> Result<Vec<String>> {
    let began = Instant::now();
    let mut lines = Vec::new();
    while calling.process().ended()?.is_none() && began.elapsed() < Duration::from_secs(90) {
        std::thread::sleep(Duration::from_secs(1));
        let calls = sbcd.ask("calls")?;
        let calls = calls["calls"].as_array().map_or(&[][..], Vec::as_slice);
        eprintln!("    {:>2} s: {} calls", began.elapsed().as_secs(), calls.len());
        if let (true, Some(call)) = (lines.is_empty() && began.elapsed() > LOOK_AFTER, calls.first()) {
            lines = look_into_kernel(sbcd, call)?;
        }
    }
    Ok(lines)
}

/// What an operator types to see the flows of a running call in the kernel; each line is run and shown once here.
fn look_into_kernel(sbcd: &Sbcd, call: &Value) -> Result<Vec<String>> {
    let pins = sbcd.pins();
    let mut versions =
        std::fs::read_dir(&pins).with_context(|| format!("nothing is pinned at {}", pins.display()))?;
    let version = versions.next().context("no version is pinned")??.path();
    let pin = |name: &str| version.join(name).display().to_string();
    let local = call["streams"][0]["caller"]["local"].as_str().context("a call without media")?;
    let port = local.parse::<SocketAddr>()?.port();

    let mut lines =
        vec![format!("map show pinned {}", pin("FLOWS")), format!("map dump pinned {}", pin("ADDRESSES"))];
    // A flow's key is the number of its address and its port, as the kernel keeps numbers: little end first.
    let flows = [0u16, 1].map(|address| {
        let key = [port.to_le_bytes(), address.to_le_bytes()].concat();
        let key: Vec<String> = key.iter().map(|byte| format!("0x{byte:02x}")).collect();
        format!("map lookup pinned {} key {}", pin("FLOWS"), key.join(" "))
    });
    lines.extend(
        flows.into_iter().find(|line| bpftool(line).is_ok_and(|said| !said.contains("\"packets\": 0"))),
    );
    lines.push(format!("map dump pinned {}", pin("COUNTERS")));
    eprintln!("    the media of call {} at {local}, as an operator sees it:", call["call"]);
    for line in lines.iter().filter(|line| line.contains("FLOWS")) {
        eprintln!("    # bpftool {line}");
        for text in bpftool(line)?.lines().take(45) {
            eprintln!("      {text}");
        }
    }
    Ok(lines)
}

fn bpftool(line: &str) -> Result<String> {
    netns::run(Command::new("bpftool").args(line.split(' ')))
}

impl Findings {
    fn print_table(&self) {
        let percentile = |percent| rtp::percentile(&self.setup_ms, percent);
        println!("calls      offered {}  answered {}  failed {}", self.calls, self.answered, self.failed);
        println!(
            "set-up     p50 {:.1} ms  p99 {:.1} ms  (INVITE to 200, calls over UDP)",
            percentile(50.0),
            percentile(99.0)
        );
        println!(
            "RTP               {:>9} {:>9} {:>9} {:>10} {:>9}",
            "sent", "received", "lost", "by kernel", "by relay"
        );
        let rows = [
            ("outside to pbx", self.counts.to_near, self.kernel.from_caller, self.relay.from_caller),
            ("pbx to outside", self.counts.to_far, self.kernel.from_callee, self.relay.from_callee),
        ];
        for (name, Direction { sent, received }, kernel, relay) in rows {
            let lost = i128::from(sent) - i128::from(received);
            println!("  {name:<15} {sent:>9} {received:>9} {lost:>9} {kernel:>10} {relay:>9}");
        }
        println!("while the calls ran, an operator saw their flows with");
        for line in &self.operator_lines {
            println!("  bpftool {line}");
        }
    }

    fn to_json(&self) -> serde_json::Value {
        let percentile = |percent| (rtp::percentile(&self.setup_ms, percent) * 1000.0).round() / 1000.0;
        json!({
            "schema": 1,
            "calls": self.calls,
            "answered": self.answered,
            "failed": self.failed,
            "rtp_sent": self.counts.sent(),
            "rtp_received": self.counts.received(),
            "kernel_packets": self.kernel.both(),
            "relay_packets": self.relay.both(),
            "setup_ms_p50": percentile(50.0),
            "setup_ms_p99": percentile(99.0),
        })
    }

    fn verdict(&self) -> Result<()> {
        if self.failed > 0 {
            bail!("{} of {} calls failed", self.failed, self.calls);
        }
        let (sent, received, kernel) = (self.counts.sent(), self.counts.received(), self.kernel.both());
        if sent == 0 || sent != received || received != kernel {
            bail!("RTP: {sent} sent, {received} received, {kernel} carried by the kernel");
        }
        if self.relay.both() > 0 {
            bail!("the relay carried {} packets", self.relay.both());
        }
        Ok(())
    }
}
