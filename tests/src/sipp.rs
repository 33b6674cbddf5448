//! sipp: calls in batches over UDP, with audio from a file that ends before the call does.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::netns::Namespace;
use crate::process::{Process, Scratch};

/// PCMA: one byte per sample.
const SAMPLES_PER_SECOND: usize = 8000;
/// A-law for silence, with its even bits inverted as on the wire.
const SILENCE: u8 = 0xd5;

/// What the calling party does: a scenario in `tests/sipp`.
pub const CALL_WITH_AUDIO: &str = "call_with_audio.xml";
/// What the called party does.
pub const ANSWER_WITH_AUDIO: &str = "answer_with_audio.xml";

/// Who answers.
#[derive(Debug)]
pub struct Answering(Party);

/// Who calls.
#[derive(Debug)]
pub struct Calling(Party);

#[derive(Debug)]
struct Party {
    process: Process,
    statistics: std::path::PathBuf,
}

/// A batch of calls.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// How many calls.
    pub calls: u32,
    /// New calls per second.
    pub per_second: u32,
    /// Audio each way.
    pub audio: Duration,
    /// From ACK to BYE; longer than `audio`.
    pub hold: Duration,
}

/// How a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Calls that went through the whole scenario.
    pub succeeded: u32,
    /// Calls that did not.
    pub failed: u32,
}

impl Party {
    /// Starts sipp with `scenario` (a file in `tests/sipp`) in its own directory.
    fn start(
        namespace: &Namespace,
        name: &str,
        scenario: &str,
        local: SocketAddr,
        audio: Duration,
        arguments: &[&str],
        scratch: &Scratch,
    ) -> Result<Self> {
        let folder = scratch.path().join(name);
        std::fs::create_dir_all(&folder)?;
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("sipp").join(scenario);
        std::fs::copy(&source, folder.join(scenario)).with_context(|| format!("no {}", source.display()))?;
        let samples = usize::try_from(audio.as_millis())? * SAMPLES_PER_SECOND / 1000;
        std::fs::write(folder.join("audio.alaw"), vec![SILENCE; samples])?;
        let statistics = folder.join("statistics.csv");
        let mut command = namespace.command("sipp");
        command.current_dir(&folder).args(["-sf", scenario, "-nostdin", "-skip_rlimit", "-nd", "-trace_err"]);
        command.args(["-trace_stat", "-fd", "1", "-stf"]).arg(&statistics);
        let ip = local.ip().to_string();
        command.args(["-i", &ip, "-mi", &ip, "-p", &local.port().to_string(), "-t", "u1"]).args(arguments);
        let process = Process::spawn(name, &mut command, scratch)?;
        Ok(Self { process, statistics })
    }

    /// What the statistics say last.
    fn outcome(&self) -> Result<Outcome> {
        let text = std::fs::read_to_string(&self.statistics)
            .with_context(|| format!("sipp wrote no statistics:\n{}", self.process.log_tail()))?;
        let mut lines = text.lines();
        let names: Vec<&str> = lines.next().unwrap_or_default().split(';').collect();
        let values: Vec<&str> = lines.next_back().unwrap_or_default().split(';').collect();
        let value = |name: &str| -> Result<u32> {
            let column = names.iter().position(|column| *column == name);
            let text = column
                .and_then(|column| values.get(column))
                .with_context(|| format!("sipp gave no {name}"))?;
            text.parse().with_context(|| format!("{name} is {text}"))
        };
        Ok(Outcome { succeeded: value("SuccessfulCall(C)")?, failed: value("FailedCall(C)")? })
    }
}

impl Answering {
    /// Treats every call as `scenario` says, with `audio` to play.
    pub fn start(
        namespace: &Namespace,
        scenario: &str,
        local: SocketAddr,
        audio: Duration,
        scratch: &Scratch,
    ) -> Result<Self> {
        let name = format!("answering-{}", local.port());
        let party = Party::start(namespace, &name, scenario, local, audio, &[], scratch)?;
        wait_for_socket(namespace, local, &party.process)?;
        Ok(Self(party))
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.0.process
    }

    /// Takes no more calls, waits until those that it has are over, and tells how they went.
    pub fn finish(&self, limit: Duration) -> Result<Outcome> {
        self.0.process.signal(Signal::SIGUSR1)?;
        self.0.process.wait(limit)?;
        self.0.outcome()
    }
}

impl Calling {
    /// Calls `service` at `remote` as `scenario` says.
    pub fn start(
        namespace: &Namespace,
        scenario: &str,
        local: SocketAddr,
        remote: SocketAddr,
        service: &str,
        batch: Batch,
        scratch: &Scratch,
    ) -> Result<Self> {
        let name = format!("calling-{}", local.port());
        let (calls, rate) = (batch.calls.to_string(), batch.per_second.to_string());
        let (hold, remote) = (batch.hold.as_millis().to_string(), remote.to_string());
        let arguments = ["-s", service, "-m", &calls, "-l", &calls, "-r", &rate, "-d", &hold, &remote];
        Ok(Self(Party::start(namespace, &name, scenario, local, batch.audio, &arguments, scratch)?))
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.0.process
    }

    /// Waits until all calls have ended, and tells how they went.
    pub fn finish(&self, limit: Duration) -> Result<Outcome> {
        self.0.process.wait(limit)?;
        self.0.outcome()
    }
}

/// Waits until `process` has bound its UDP socket.
pub(crate) fn wait_for_socket(namespace: &Namespace, local: SocketAddr, process: &Process) -> Result<()> {
    // Addresses and ports in hexadecimal; the port alone is enough, nobody else binds it in this namespace.
    let port = format!(":{:04X} ", local.port());
    process.wait_until("listening", Duration::from_secs(10), |_| {
        let sockets = namespace.enter(|| std::fs::read_to_string("/proc/thread-self/net/udp"));
        sockets.is_ok_and(|sockets| sockets.is_ok_and(|sockets| sockets.contains(&port)))
    })
}
