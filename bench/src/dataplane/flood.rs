//! Calls through a real `sbcd` while forged sources flood its SIP port: once with our guard, once with a program in its
//! place that drops the forged ones by one comparison and lets everybody else through to the same path.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aya::EbpfLoader;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{Xdp, xdp::XdpLink};
use sbc_common::{limits, names};
use sbc_tests::netns::Namespace;
use sbc_tests::process::Scratch;
use sbc_tests::sbc::{Networks, OUTSIDE, PBX, SBC_INSIDE, SBC_OUTSIDE, SIP, Sbcd, binaries};
use sbc_tests::sipp::{ANSWER_WITH_AUDIO, Answering, Batch, CALL_WITH_AUDIO, Calling};
use serde_json::Value;

use super::guard::SOURCES;
use super::kernel::object;
use super::live::Source;

const PUBLIC: &str = "public0";
/// Calls in each turn. They begin one after the other, so that some are set up while others talk.
const BATCH: Batch =
    Batch { calls: 40, per_second: 8, audio: Duration::from_secs(4), hold: Duration::from_secs(5) };
const LIMIT: Duration = Duration::from_secs(60);
/// RTP packets of a call both ways: one in 20 ms.
const RTP_PER_CALL: u64 = 2 * 4 * 50;
/// Turns of each guard.
const TURNS: usize = 2;
/// Frames sent at a time.
const BURST: u32 = 65_536;

/// What came of the calls of one guard.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Calls.
    pub calls: u32,
    /// Those that failed.
    pub failed: u32,
    /// RTP packets sent by both sides.
    pub sent: u64,
    /// RTP packets that arrived.
    pub received: u64,
    /// Frames of the flood.
    pub flooded: u64,
    /// While calls lasted, seconds.
    pub seconds: f64,
}

impl Outcome {
    /// The part of the RTP that was lost.
    pub fn lost_ratio(&self) -> f64 {
        self.sent.saturating_sub(self.received) as f64 / self.sent.max(1) as f64
    }

    /// Million frames per second of the flood.
    pub fn flood_mpps(&self) -> f64 {
        self.flooded as f64 / self.seconds / 1e6
    }

    fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.failed += other.failed;
        self.sent += other.sent;
        self.received += other.received;
        self.flooded += other.flooded;
        self.seconds += other.seconds;
    }
}

/// Both, side by side.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// With our guard.
    pub guard: Outcome,
    /// With the bare program.
    pub bare: Outcome,
}

/// Measures.
///
/// # Errors
/// If `sbcd` or a client does not start, or the kernel refuses something.
pub fn measure() -> Result<Flood> {
    let binaries = binaries()?;
    let scratch = Scratch::create("bench-flood")?;
    let networks = Networks::create()?;
    // What the source addresses its frames to.
    networks.sbc.run("ip", &["link", "set", "dev", PUBLIC, "address", "02:00:00:00:00:01"])?;
    for party in [&networks.outside, &networks.pbx] {
        count_rtp(party, &scratch)?;
    }
    let sides = format!(
        "[public]\n\
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
    let sbcd = Sbcd::start_with(&networks, &binaries, &sides, &scratch)?;
    let answering =
        Answering::start(&networks.pbx, ANSWER_WITH_AUDIO, SocketAddr::new(PBX, SIP), BATCH.audio, &scratch)?;
    let IpAddr::V4(target) = SBC_OUTSIDE else { bail!("the source speaks IPv4") };
    let mut source = Source::sip(&networks.outside, "outside0", SOURCES, (target, SIP))?;

    let pins = sbcd.pins().join(format!("v{}", limits::ABI));
    let (mut guard, mut bare) = (Outcome::default(), Outcome::default());
    for _ in 0..TURNS {
        put_in_place(&pins, "SBC_EBPF_OBJECT", names::PROGRAM)?;
        guard.add(calls(&networks, &mut source, &scratch)?);
        put_in_place(&pins, "SBC_BENCH_OBJECT", "bare_guard")?;
        bare.add(calls(&networks, &mut source, &scratch)?);
    }
    drop(answering);
    Ok(Flood { guard, bare })
}

/// A batch of calls under flood.
fn calls(networks: &Networks, source: &mut Source, scratch: &Scratch) -> Result<Outcome> {
    let before = rtp(networks)?;
    let done = AtomicBool::new(false);
    let (local, remote) = (SocketAddr::new(OUTSIDE, SIP), SocketAddr::new(SBC_OUTSIDE, SIP));
    let (calls, flooded, seconds) = std::thread::scope(|scope| -> Result<_> {
        let flooding = scope.spawn(|| {
            networks.outside.enter(|| -> Result<(u64, f64)> {
                let began = std::time::Instant::now();
                let mut sent = 0;
                while !done.load(Ordering::Relaxed) && began.elapsed() < 2 * LIMIT {
                    source.send(BURST)?;
                    sent += u64::from(BURST);
                }
                Ok((sent, began.elapsed().as_secs_f64()))
            })
        });
        let calls = Calling::start(&networks.outside, CALL_WITH_AUDIO, local, remote, "100", BATCH, scratch)
            .and_then(|calling| calling.finish(LIMIT));
        done.store(true, Ordering::Relaxed);
        let (flooded, seconds) =
            flooding.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))??;
        Ok((calls?, flooded, seconds))
    })?;
    let after = rtp(networks)?;
    let (sent, received) = (after.0 - before.0, after.1 - before.1);
    let failed = BATCH.calls.saturating_sub(calls.succeeded);
    let expected = u64::from(calls.succeeded) * RTP_PER_CALL;
    ensure!(sent >= expected, "{sent} RTP packets sent, expected {expected} of {} calls", calls.succeeded);
    Ok(Outcome { calls: BATCH.calls, failed, sent, received, flooded, seconds })
}

/// Puts a program of an object in front of the public interface, on the maps of `sbcd`.
fn put_in_place(pins: &Path, variable: &str, name: &str) -> Result<()> {
    let mut loader = EbpfLoader::new();
    for name in names::MAPS {
        let pin = pins.join(name);
        ensure!(pin.exists(), "no {}", pin.display());
        loader.map_pin_path(name, pin);
    }
    let mut ebpf = loader.load(&object(variable)?)?;
    let program: &mut Xdp =
        ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?;
    program.load()?;
    // The link keeps the program.
    replace(program, pins)
}

/// Puts a program into the pinned link of the public interface.
fn replace(program: &mut Xdp, pins: &Path) -> Result<()> {
    let pin = pins.join(format!("link_{PUBLIC}"));
    let link: FdLink = PinnedLink::from_pin(&pin).with_context(|| format!("no {}", pin.display()))?.into();
    let id = program.attach_to_link(XdpLink::try_from(link)?)?;
    // The pin keeps the link, whoever else lets it go.
    drop(program.take_link(id)?);
    Ok(())
}

/// Counts the RTP that a party sends and gets: UDP packets of 172 bytes, which nothing else in these calls has.
fn count_rtp(party: &Namespace, scratch: &Scratch) -> Result<()> {
    let rules = "table ip rtp {\n\
         counter sent { }\n\
         counter received { }\n\
         chain sending { type filter hook output priority 0\nudp length 180 counter name sent\n}\n\
         chain receiving { type filter hook input priority 0\nudp length 180 counter name received\n}\n\
         }\n";
    let file = scratch.write("rtp.nft", rules)?;
    party.run("nft", &["-f", &file.to_string_lossy()])?;
    Ok(())
}

/// RTP packets sent and received by both parties so far.
fn rtp(networks: &Networks) -> Result<(u64, u64)> {
    let (mut sent, mut received) = (0, 0);
    for party in [&networks.outside, &networks.pbx] {
        let said = party.run("nft", &["-j", "list", "counters"])?;
        sent += counted(&said, "sent")?;
        received += counted(&said, "received")?;
    }
    Ok((sent, received))
}

/// Packets of a named counter in what nft says.
fn counted(said: &str, name: &str) -> Result<u64> {
    let said: Value = serde_json::from_str(said)?;
    let counters = said["nftables"].as_array().into_iter().flatten().map(|object| &object["counter"]);
    let counter = counters.into_iter().find(|counter| counter["name"] == name);
    counter.and_then(|counter| counter["packets"].as_u64()).with_context(|| format!("no counter {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_name() {
        let said = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"counter": {"family": "ip", "name": "sent", "table": "rtp", "packets": 7, "bytes": 1400}},
            {"counter": {"family": "ip", "name": "received", "table": "rtp", "packets": 5, "bytes": 1000}}]}"#;
        assert_eq!((counted(said, "sent").unwrap(), counted(said, "received").unwrap()), (7, 5));
        assert!(counted(said, "other").is_err() && counted("no", "sent").is_err());
    }

    #[test]
    fn turns_add_up() {
        let turn =
            Outcome { calls: 10, failed: 1, sent: 100, received: 99, flooded: 4_000_000, seconds: 2.0 };
        let mut sum = turn;
        sum.add(turn);
        assert_eq!((sum.calls, sum.failed, sum.lost_ratio(), sum.flood_mpps()), (20, 2, 0.01, 2.0));
        assert_eq!(Outcome::default().lost_ratio(), 0.0);
    }
}
