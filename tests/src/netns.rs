//! Network namespaces joined by veth pairs, where a test's traffic lives.
//!
//! A namespace is entered by `setns` on the network namespace alone: `ip netns exec` would mount a fresh /sys and hide
//! the pins under /sys/fs/bpf. XDP on veth needs two things of its surroundings, and [`connect`] sees to both: senders
//! finish their checksums themselves (`tx off`), and an interface that redirected packets shall reach runs NAPI
//! (`gro on`).

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::CloneFlags;

use crate::cleanup::{self, Guard};

/// Where iproute2 keeps named namespaces.
const NETNS_DIR: &str = "/run/netns";
/// Names of ours are `sbc-<pid>-<number>-<label>`.
const PREFIX: &str = "sbc-";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A network namespace of this process; removed when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
    _guard: Guard,
}

/// One end of a veth pair.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// The namespace it is in.
    pub namespace: &'a Namespace,
    /// The interface's name there.
    pub interface: &'a str,
    /// Its addresses, each with a prefix length.
    pub addresses: &'a [&'a str],
}

impl Namespace {
    /// Makes an empty namespace (loopback up) with a name that no other process uses.
    pub fn create(label: &str) -> Result<Self> {
        sweep();
        let name = format!("{PREFIX}{}-{}-{label}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let doomed = name.clone();
        let guard = cleanup::on_exit(move || {
            let _ = Command::new("ip").args(["netns", "del", &doomed]).stderr(Stdio::null()).status();
        });
        let path = format!("{NETNS_DIR}/{name}");
        let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        let namespace = Self { name, file, _guard: guard };
        namespace.run("ip", &["link", "set", "lo", "up"])?;
        // Link-local addresses are usable at once too: without one, nobody is asked for a neighbour's Ethernet address.
        for scope in ["all", "default"] {
            namespace.sysctl(&format!("ipv6/conf/{scope}/accept_dad"), "0")?;
        }
        Ok(namespace)
    }

    /// Its name, as `ip netns list` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside: it is killed when the *thread* that spawned it ends, so spawn it from a thread
    /// that outlives it (never from within [`Self::enter`]).
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let fd = self.file.as_raw_fd();
        // SAFETY: between fork and exec only two system calls run, both async-signal-safe; the child inherits the
        // descriptor because the parent keeps it open and exec has not happened yet.
        unsafe {
            command.pre_exec(move || {
                if libc::setns(fd, libc::CLONE_NEWNET) != 0
                    || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0
                {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        command
    }

    /// Runs a command inside to its end and hands back its standard output; a failure carries what it said.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        run(self.command(program).args(args)).with_context(|| format!("in namespace {}", self.name))
    }

    /// Runs `f` on a thread of its own inside. Sockets that it opens stay in this namespace wherever they are used.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                nix::sched::setns(&self.file, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("cannot enter namespace {}", self.name))?;
                Ok(f())
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Sets a network sysctl, named with slashes and without the leading `net/`: `ipv4/conf/all/rp_filter`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{key}");
        self.enter(|| std::fs::write(&path, value))?.with_context(|| format!("cannot write {path}"))
    }

    /// An interface's index inside.
    pub fn interface_index(&self, interface: &str) -> Result<u32> {
        self.enter(|| nix::net::if_::if_nametoindex(interface))?
            .with_context(|| format!("no interface {interface} in {}", self.name))
    }

    /// An interface's hardware address.
    pub fn mac(&self, interface: &str) -> Result<[u8; 6]> {
        let shown = self.run("ip", &["-o", "link", "show", "dev", interface])?;
        let text = shown
            .split_whitespace()
            .skip_while(|word| *word != "link/ether")
            .nth(1)
            .with_context(|| format!("{interface} has no Ethernet address"))?;
        let bytes =
            text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<Vec<_>, _>>()?;
        <[u8; 6]>::try_from(bytes).map_err(|_| anyhow::anyhow!("{text} is no Ethernet address"))
    }

    /// Adds an entry that needs no ARP: packets to `address` go to `mac` at once.
    pub fn add_neighbour(&self, interface: &str, address: &str, mac: [u8; 6]) -> Result<()> {
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        self.run("ip", &["neigh", "replace", address, "lladdr", &mac, "dev", interface, "nud", "permanent"])?;
        Ok(())
    }
}

/// Joins two namespaces by a veth pair, both ends up, addressed and fit for XDP.
pub fn connect(a: End<'_>, b: End<'_>) -> Result<()> {
    run(Command::new("ip").args(["link", "add", "name", a.interface, "netns", a.namespace.name()]).args([
        "type",
        "veth",
        "peer",
        "name",
        b.interface,
        "netns",
        b.namespace.name(),
    ]))?;
    for end in [a, b] {
        for address in end.addresses {
            let add = ["addr", "add", *address, "dev", end.interface];
            // IPv6 addresses are usable at once, without duplicate address detection.
            let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
            end.namespace.run("ip", &[&add, nodad].concat())?;
        }
        end.namespace.run("ip", &["link", "set", end.interface, "up"])?;
        // Only of an interface that is up already does the other end learn that it takes redirected packets.
        end.namespace.run("ethtool", &["-K", end.interface, "tx", "off", "gro", "on"])?;
    }
    for end in [a, b].into_iter().filter(|end| end.addresses.iter().any(|address| address.contains(':'))) {
        await_link_local(end)?;
    }
    Ok(())
}

/// Waits until an end has the address that it asks for neighbours from: the kernel gives it one some time after the link
/// is up.
fn await_link_local(end: End<'_>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let shown =
            end.namespace.run("ip", &["-6", "-o", "addr", "show", "dev", end.interface, "scope", "link"])?;
        if shown.contains("fe80") && !shown.contains("tentative") {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{} has no link-local address: {shown}", end.interface);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a command to its end; standard output, or an error with what it printed.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
    if !output.status.success() {
        let args: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
        bail!(
            "{} {}: {}: {}",
            command.get_program().to_string_lossy(),
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Removes what killed runs left: namespaces named after processes that are no more.
fn sweep() {
    let Ok(entries) = std::fs::read_dir(NETNS_DIR) else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if maker.is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = Command::new("ip").args(["netns", "del", &name]).stderr(Stdio::null()).status();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn two_namespaces_talk_over_veth_and_vanish() {
        if !crate::is_root() {
            return crate::skip("two_namespaces_talk_over_veth_and_vanish", "needs root");
        }
        let (left, right) = (Namespace::create("left").unwrap(), Namespace::create("right").unwrap());
        connect(
            End { namespace: &left, interface: "veth0", addresses: &["192.0.2.1/24", "2001:db8::1/64"] },
            End { namespace: &right, interface: "veth0", addresses: &["192.0.2.2/24", "2001:db8::2/64"] },
        )
        .unwrap();
        assert_ne!(left.mac("veth0").unwrap(), right.mac("veth0").unwrap());
        for (from, to) in [("192.0.2.1:0", "192.0.2.2:4000"), ("[2001:db8::1]:0", "[2001:db8::2]:4000")] {
            let receiver = right.enter(|| UdpSocket::bind(to)).unwrap().unwrap();
            let sender = left.enter(|| UdpSocket::bind(from)).unwrap().unwrap();
            receiver.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
            sender.send_to(b"over there", to).unwrap();
            let mut buffer = [0; 32];
            let length = receiver.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"over there");
        }
        let path = format!("{NETNS_DIR}/{}", left.name());
        assert!(std::path::Path::new(&path).exists());
        drop(left);
        assert!(!std::path::Path::new(&path).exists());
    }

    #[test]
    fn a_command_runs_inside() {
        if !crate::is_root() {
            return crate::skip("a_command_runs_inside", "needs root");
        }
        let namespace = Namespace::create("cmd").unwrap();
        assert!(namespace.run("ip", &["-o", "link"]).unwrap().lines().count() < 4);
        assert!(namespace.run("ip", &["link", "show", "dev", "nope"]).is_err());
        assert!(namespace.interface_index("lo").unwrap() == 1);
    }
}
