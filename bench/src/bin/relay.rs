//! What the userspace relay costs, by both of its ways of holding ports: descriptors and memory for many ports, packets
//! per second and processor time per packet. Over the loopback interface of a namespace of its own; one line per way.
//!
//! `cargo run --release --package sbc-bench --bin relay`, as root, with the kernel objects (`SBC_EBPF_OBJECT`).

#![allow(clippy::print_stdout)]

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sbc_core::id::{CallId, OpId, RealmId};
use sbc_core::media::command::{MediaCommand, StreamCounters};
use sbc_core::media::plan::{MediaPace, MediaPlan, PeerMedia, SourcePolicy, StreamPlan, StreamSide};
use sbc_tests::netns::Namespace;
use sbc_user::dataplane::relay::Relay;
use sbc_user::dataplane::{Dataplane, DataplaneEvent};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Streams; each has four ports.
const STREAMS: u16 = 2500;
const FIRST_PORT: u16 = 20_000;
const SOURCE_PORT: u16 = 40_000;
const SINK_PORT: u16 = 40_010;
/// How long packets are offered.
const LOAD: Duration = Duration::from_secs(5);

fn main() -> Result<()> {
    if !sbc_tests::is_root() {
        bail!("needs root");
    }
    // Descriptors for a socket per port, as many as may be.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let namespace = Namespace::create("bench-relay")?;
    namespace.enter(|| -> Result<()> {
        let bound = measure(Relay::start_with_bound_ports()?)?;
        let relay = Relay::start()?;
        if let Some(reason) = relay.not_steered() {
            bail!("no steering: {reason}");
        }
        let steered = measure(relay)?;
        println!("                      socket per port      steered");
        let line = |what: &str, bound: f64, steered: f64| {
            println!("{what:<20} {bound:>16.0} {steered:>12.0}   {:.2}", steered / bound);
        };
        line("descriptors", bound.descriptors, steered.descriptors);
        line("memory, KiB", bound.memory_kib, steered.memory_kib);
        line("packets per second", bound.packets_per_second, steered.packets_per_second);
        line("ns per packet, relay", bound.ns_per_packet, steered.ns_per_packet);
        Ok(())
    })?
}

/// What one way cost.
struct Cost {
    descriptors: f64,
    memory_kib: f64,
    packets_per_second: f64,
    ns_per_packet: f64,
}

fn measure(mut relay: Relay) -> Result<Cost> {
    let source = UdpSocket::bind((HERE, SOURCE_PORT))?;
    // Nobody reads: what does not fit any more is dropped by the kernel, after the relay sent it.
    let _sink = UdpSocket::bind((HERE, SINK_PORT))?;
    let (descriptors, memory) = (descriptors()?, kernel_and_own_memory_kib()?);
    for stream in 0..STREAMS {
        let port = FIRST_PORT + 4 * stream;
        let plan = MediaPlan {
            call: CallId(stream.into()),
            streams: vec![StreamPlan {
                mline: 0,
                caller: side(port, source.local_addr()?),
                callee: side(port + 2, SocketAddr::new(HERE, SINK_PORT)),
            }],
        };
        relay.apply(Instant::now(), OpId(stream.into()), MediaCommand::Install(plan));
        match relay.poll_event() {
            Some(DataplaneEvent::Done { result: Ok(_), .. }) => {}
            other => bail!("install: {other:?}"),
        }
    }
    let cost = (self::descriptors()? - descriptors, kernel_and_own_memory_kib()? - memory);
    let mut packet = [0x5a; 172];
    packet[..12].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
    let (began, cpu) = (Instant::now(), relay_cpu()?);
    while began.elapsed() < LOAD {
        for stream in 0..STREAMS {
            source.send_to(&packet, (HERE, FIRST_PORT + 4 * stream))?;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let forwarded: u64 = (0..STREAMS)
        .flat_map(|stream| relay.counters(CallId(stream.into())))
        .map(|stream: StreamCounters| stream.packets())
        .sum();
    let cpu = relay_cpu()? - cpu;
    Ok(Cost {
        descriptors: cost.0,
        memory_kib: cost.1,
        packets_per_second: forwarded as f64 / seconds,
        ns_per_packet: cpu * 1e9 / forwarded as f64,
    })
}

fn side(port: u16, peer: SocketAddr) -> StreamSide {
    StreamSide {
        realm: RealmId(0),
        local_ip: HERE,
        local_rtp_port: port,
        peer: Some(PeerMedia { rtp: peer, rtcp: SocketAddr::new(peer.ip(), peer.port() + 1) }),
        source: SourcePolicy::Signalled,
        dscp: 46,
        rtcp_mux: false,
        pace: MediaPace::default(),
    }
}

fn descriptors() -> Result<f64> {
    Ok(fs::read_dir("/proc/self/fd")?.count() as f64)
}

/// The process's resident memory and the kernel's slab, where sockets are.
fn kernel_and_own_memory_kib() -> Result<f64> {
    let field = |file: &str, name: &str| -> Result<f64> {
        let text = fs::read_to_string(file)?;
        let line = text.lines().find(|line| line.starts_with(name)).context("no such field")?;
        Ok(line.split_whitespace().nth(1).context("no value")?.parse()?)
    };
    Ok(field("/proc/self/status", "VmRSS:")? + field("/proc/meminfo", "Slab:")?)
}

/// Processor time of the relay's threads so far, in seconds.
fn relay_cpu() -> Result<f64> {
    let mut ns = 0u64;
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        if fs::read_to_string(task.join("comm"))?.trim() == "relay" {
            let schedstat = fs::read_to_string(task.join("schedstat"))?;
            ns += schedstat.split_whitespace().next().context("no time")?.parse::<u64>()?;
        }
    }
    Ok(ns as f64 / 1e9)
}
