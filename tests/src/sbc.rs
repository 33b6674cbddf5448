//! The SBC between two networks: three namespaces in a row, `sbcd` in the middle, and what it says of its calls.
//!
//! ```text
//!   outside 198.51.100.2 ──── 198.51.100.1 sbc 10.0.0.1 ──── 10.0.0.2 pbx
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::certs::{self, Certificates};
use crate::cleanup::{self, Guard};
use crate::netns::{self, End, Namespace, connect};
use crate::process::{Process, Scratch};
use crate::sipp;

/// Where kernel objects are pinned.
const BPFFS: &str = "/sys/fs/bpf";

/// The party outside.
pub const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));
/// The SBC, seen from outside.
pub const SBC_OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
/// The SBC, seen from the PBX.
pub const SBC_INSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
/// The PBX.
pub const PBX: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
/// SIP over UDP everywhere.
pub const SIP: u16 = 5060;
/// SIP over TLS outside.
pub const SIPS: u16 = 5063;

/// The three namespaces. Interfaces: `outside0` — `public0`, `private0` — `pbx0`.
#[derive(Debug)]
pub struct Networks {
    /// Where the callers are.
    pub outside: Namespace,
    /// Where `sbcd` runs.
    pub sbc: Namespace,
    /// Where the calls go.
    pub pbx: Namespace,
}

impl Networks {
    /// Makes them.
    pub fn create() -> Result<Self> {
        let networks = Self {
            outside: Namespace::create("outside")?,
            sbc: Namespace::create("sbc")?,
            pbx: Namespace::create("pbx")?,
        };
        let end = |namespace, interface, addresses| End { namespace, interface, addresses };
        connect(
            end(&networks.outside, "outside0", &["198.51.100.2/24"]),
            end(&networks.sbc, "public0", &["198.51.100.1/24"]),
        )?;
        connect(
            end(&networks.sbc, "private0", &["10.0.0.1/24"]),
            end(&networks.pbx, "pbx0", &["10.0.0.2/24"]),
        )?;
        Ok(networks)
    }
}

/// A running `sbcd`. Dropped, it is stopped, and its pins are removed.
#[derive(Debug)]
pub struct Sbcd {
    process: Process,
    starts: u32,
    /// Certificates that it shows on the TLS port.
    certificates: Option<Certificates>,
    /// Names its pins.
    pub instance: String,
    socket: PathBuf,
    records: PathBuf,
    binaries: PathBuf,
    _pins: Guard,
}

impl Sbcd {
    /// Starts the `sbcd` in `binaries` with an outside that speaks UDP and TLS and a PBX that speaks UDP.
    pub fn start(networks: &Networks, binaries: &Path, scratch: &Scratch) -> Result<Self> {
        let certificates = certs::generate(SBC_OUTSIDE, scratch)?;
        let sides = format!(
            "[public]\n\
             bind = \"{SBC_OUTSIDE}\"\n\
             udp = {SIP}\n\
             tls = {SIPS}\n\
             certificate = \"{certificate}\"\n\
             key = \"{key}\"\n\
             peers = [\"{OUTSIDE}/32\"]\n\
             next_hop = \"udp:{OUTSIDE}:{SIP}\"\n\
             \n\
             [private]\n\
             bind = \"{SBC_INSIDE}\"\n\
             udp = {SIP}\n\
             pbx = \"udp:{PBX}:{SIP}\"\n",
            certificate = certificates.certificate.display(),
            key = certificates.key.display(),
        );
        let mut sbcd = Self::start_with(networks, binaries, &sides, scratch)?;
        sbcd.certificates = Some(certificates);
        Ok(sbcd)
    }

    /// Starts it with a configuration of both sides; where it keeps its files is added.
    pub fn start_with(networks: &Networks, binaries: &Path, sides: &str, scratch: &Scratch) -> Result<Self> {
        Self::start_as(networks.sbc.name(), SBC_INSIDE, networks, binaries, sides, scratch)
    }

    /// The same for one of several instances, which listens on this address among others.
    pub fn start_as(
        instance: &str,
        listens: IpAddr,
        networks: &Networks,
        binaries: &Path,
        sides: &str,
        scratch: &Scratch,
    ) -> Result<Self> {
        mount_bpffs()?;
        let instance = instance.to_owned();
        let (socket, records) = (scratch.path().join("sbcd.sock"), scratch.path().join("calls.jsonl"));
        let configuration = format!(
            "instance = \"{instance}\"\n\
             \n\
             {sides}\n\
             [daemon]\n\
             socket = \"{socket}\"\n\
             state_dir = \"{state}\"\n\
             record = \"{records}\"\n",
            socket = socket.display(),
            state = scratch.path().display(),
            records = records.display(),
        );
        let file = scratch.write("sbc.toml", configuration)?;
        let pins = Path::new(BPFFS).join("sbc").join(&instance);
        let guard = cleanup::on_exit(move || {
            let _ = std::fs::remove_dir_all(&pins);
        });
        let mut command = networks.sbc.command(binaries.join("sbcd"));
        let process = Process::spawn("sbcd", command.arg("--config").arg(&file), scratch)?;
        sipp::wait_for_socket(&networks.sbc, SocketAddr::new(listens, SIP), &process)?;
        process.wait_until("answering on its admin socket", Duration::from_secs(10), |_| socket.exists())?;
        let binaries = binaries.to_path_buf();
        Ok(Self { process, starts: 1, certificates: None, instance, socket, records, binaries, _pins: guard })
    }

    /// What `sbcctl <command> --json` says.
    pub fn ask(&self, command: &str) -> Result<Value> {
        let mut sbcctl = Command::new(self.binaries.join("sbcctl"));
        let said =
            netns::run(sbcctl.arg("--socket").arg(&self.socket).args(command.split(' ')).arg("--json"))?;
        let last = said.lines().next_back().context("sbcctl said nothing")?;
        serde_json::from_str(last).with_context(|| format!("sbcctl said no JSON: {last}"))
    }

    /// The authority that signed the certificate of its TLS port.
    pub fn authority(&self) -> Option<&Path> {
        self.certificates.as_ref().map(|certificates| certificates.authority.as_path())
    }

    /// Ends it without a word, as a crash would; what it has in the kernel stays.
    pub fn kill(&self) -> Result<ExitStatus> {
        self.process.stop(Signal::SIGKILL, Duration::from_secs(5))
    }

    /// Lets it end and leave its calls to the next one.
    pub fn leave(&self) -> Result<ExitStatus> {
        self.process.stop(Signal::SIGQUIT, Duration::from_secs(20))
    }

    /// Starts it again, as it was started first, by the program in `binaries`.
    pub fn start_again(&mut self, networks: &Networks, binaries: &Path, scratch: &Scratch) -> Result<()> {
        self.starts += 1;
        // A daemon that was killed leaves its socket behind.
        let _ = std::fs::remove_file(&self.socket);
        let mut command = networks.sbc.command(binaries.join("sbcd"));
        let file = scratch.path().join("sbc.toml");
        let name = format!("sbcd-{}", self.starts);
        self.process = Process::spawn(&name, command.arg("--config").arg(&file), scratch)?;
        let limit = Duration::from_secs(20);
        self.process.wait_until("answering on its admin socket", limit, |_| self.ask("status").is_ok())
    }

    /// Stops it as an operator would.
    pub fn stop(&self) -> Result<ExitStatus> {
        self.process.stop(Signal::SIGTERM, Duration::from_secs(20))
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// One JSON object for each call that has ended.
    pub fn records(&self) -> Result<Vec<Value>> {
        let text = match std::fs::read_to_string(&self.records) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", self.records.display()));
            }
        };
        text.lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("no JSON in the records: {line}")))
            .collect()
    }

    /// Waits until `count` calls have ended.
    pub fn wait_for_records(&self, count: usize, limit: Duration) -> Result<Vec<Value>> {
        self.process.wait_until("done with its calls", limit, |_| {
            self.records().is_ok_and(|records| records.len() >= count)
        })?;
        self.records()
    }

    /// Where its maps, programs and links are pinned.
    pub fn pins(&self) -> PathBuf {
        Path::new(BPFFS).join("sbc").join(&self.instance)
    }
}

/// RTP packets that something carried, by direction, summed over records of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// From the calling side.
    pub from_caller: u64,
    /// From the called side.
    pub from_callee: u64,
}

impl Carried {
    /// Sums `counter` (`rtp_kernel` or `rtp_relay`) over the streams of `calls`.
    pub fn sum(calls: &[Value], counter: &str) -> Result<Self> {
        let mut sum = Self::default();
        for stream in calls.iter().flat_map(|call| call["media"].as_array().into_iter().flatten()) {
            let packets = |side: &str| {
                stream[side][counter].as_u64().with_context(|| format!("no {side}.{counter} in {stream}"))
            };
            sum.from_caller += packets("from_caller")?;
            sum.from_callee += packets("from_callee")?;
        }
        Ok(sum)
    }

    /// Both directions.
    pub fn both(self) -> u64 {
        self.from_caller + self.from_callee
    }
}

/// Mounts the BPF file system where it is not.
pub fn mount_bpffs() -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    if mounts.lines().any(|line| line.split(' ').nth(1) == Some(BPFFS)) {
        return Ok(());
    }
    netns::run(Command::new("mount").args(["-t", "bpf", "bpf", BPFFS]))
        .context("cannot mount the BPF file system")?;
    Ok(())
}

/// Where `sbcd` and `sbcctl` are: named by `SBC_BIN_DIR`, as `cargo xtask test` does.
pub fn binaries() -> Result<PathBuf> {
    let Some(dir) = std::env::var_os("SBC_BIN_DIR").map(PathBuf::from) else {
        bail!("SBC_BIN_DIR names no directory with sbcd (run by `cargo xtask test`)");
    };
    if !dir.join("sbcd").is_file() {
        bail!("no sbcd in {}", dir.display());
    }
    Ok(dir)
}
