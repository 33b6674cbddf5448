//! What the doctor must know of a host, as values, and the seam behind which it is found out. Nothing here judges.

mod ethtool;
mod nft;
mod this_host;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::SystemTime;

pub use crate::dataplane::xdp::inspect::Pinned;
pub use nft::Rule;
pub use this_host::ThisHost;

/// A host under examination. Tests have one of their own.
pub trait HostFacts {
    /// The kernel and the limits of processes.
    ///
    /// # Errors
    /// It cannot be seen.
    fn system(&self) -> Result<System, Unseen>;

    /// Every interface of the network namespace.
    ///
    /// # Errors
    /// They cannot be seen.
    fn interfaces(&self) -> Result<Vec<Interface>, Unseen>;

    /// What the driver of an interface says.
    fn nic(&self, interface: &Interface) -> Nic;

    /// The rules of the packet filter.
    fn filter(&self) -> Filter;

    /// What instances have on the BPF file system.
    ///
    /// # Errors
    /// It cannot be seen.
    fn pinned(&self) -> Result<Vec<Pinned>, Unseen>;

    /// How many files a process may open at most.
    fn descriptors(&self, process: Option<u32>) -> Option<u64>;
}

/// Something cannot be looked at, so that there is no examination.
#[derive(Debug, thiserror::Error)]
#[error("cannot look at {what}: {why}")]
pub struct Unseen {
    /// What.
    pub what: &'static str,
    /// Why not.
    pub why: String,
}

impl Unseen {
    pub(crate) fn new(what: &'static str, why: impl ToString) -> Self {
        Self { what, why: why.to_string() }
    }
}

/// The kernel and the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// As `uname -r` says.
    pub kernel_release: String,
    /// `net.core.bpf_jit_enable`; `None` where it cannot be seen, as in a network namespace.
    pub jit: Option<bool>,
    /// Whether the kernel describes its types.
    pub btf: bool,
    /// Whether bpffs is mounted where pins go.
    pub bpffs: bool,
    /// Types of map that we need and the kernel has not.
    pub missing_map_types: Vec<&'static str>,
    /// Processors that are online.
    pub cpus: usize,
    /// Ports that programs get which ask for any.
    pub local_ports: RangeInclusive<u16>,
    /// Ports that they do not get.
    pub reserved_ports: BTreeSet<u16>,
    /// The wall clock.
    pub now: SystemTime,
    /// Whether something keeps the clock right; `None` if the kernel does not tell.
    pub clock_synchronised: Option<bool>,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Whether its frames have an Ethernet header.
    pub ethernet: bool,
    /// Whether it is up.
    pub up: bool,
    /// Largest IP packet.
    pub mtu: u32,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Of a VLAN interface: the interface below and the tag.
    pub vlan: Option<(u32, u16)>,
    /// The XDP program on it.
    pub xdp: Option<Attachment>,
}

/// An XDP program on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Its id.
    pub program: u32,
    /// Its name.
    pub name: String,
    /// Whether the driver runs it.
    pub native: bool,
}

/// What a driver says of its interface. `None`: it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nic {
    /// The driver.
    pub driver: Option<String>,
    /// Whether the driver runs XDP programs.
    pub native_xdp: Option<bool>,
    /// Whether it takes packets that XDP redirects to it, as it is now.
    pub takes_redirected: Option<bool>,
    /// Offloads that are on, by their names in `ethtool -k`'s kernel interface.
    pub offloads: Option<BTreeSet<String>>,
    /// Receive queues.
    pub queues: Option<Queues>,
    /// What UDP over IPv4 is spread over the queues by.
    pub udp4_hash: Option<Hash>,
    /// What UDP over IPv6 is spread by.
    pub udp6_hash: Option<Hash>,
}

impl Nic {
    /// Whether an offload is on; not, if the driver does not say.
    pub(crate) fn has(&self, offload: &str) -> bool {
        self.offloads.as_ref().is_some_and(|on| on.contains(offload))
    }
}

/// Numbers of receive queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues {
    /// In use.
    pub now: u32,
    /// The most that there can be.
    pub most: u32,
    /// Whether `ethtool -L` calls them `combined` rather than `rx`.
    pub combined: bool,
}

/// What a packet's queue depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash {
    /// Both addresses.
    pub addresses: bool,
    /// Both ports.
    pub ports: bool,
}

/// The packet filter's rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those of nftables (iptables-nft among them); `None` if there is no `nft` to ask.
    pub rules: Option<Vec<Rule>>,
    /// Tables that the old iptables has in the kernel, where `nft` does not see them.
    pub legacy_tables: Vec<String>,
}

/// A file of the kernel.
pub(crate) fn read(path: &str) -> Result<String, Unseen> {
    std::fs::read_to_string(path).map_err(|error| Unseen::new("the kernel", format!("{path}: {error}")))
}
