//! The host that we run on: files of /proc and /sys, netlink and ethtool's ioctl.

use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::time::SystemTime;

use nix::sys::resource::{Resource, getrlimit};

use super::ethtool::Ethtool;
use super::{Attachment, Filter, HostFacts, Interface, Nic, Pinned, System, Unseen, nft, read};
use crate::dataplane::planes::reserved::from_text;
use crate::dataplane::xdp::inspect;

/// This host, in the network namespace of the calling thread.
#[derive(Clone, Copy, Debug)]
pub struct ThisHost;

impl HostFacts for ThisHost {
    fn system(&self) -> Result<System, Unseen> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Unseen::new("the kernel", "only root may ask for programs, maps and drivers"));
        }
        let number = |text: &str| text.trim().parse::<u16>().ok();
        let local = read("/proc/sys/net/ipv4/ip_local_port_range")?;
        let local = local
            .split_once(char::is_whitespace)
            .and_then(|(first, last)| Some(number(first)?..=number(last)?));
        Ok(System {
            kernel_release: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            jit: read("/proc/sys/net/core/bpf_jit_enable").ok().map(|on| on.trim() != "0"),
            btf: std::path::Path::new("/sys/kernel/btf/vmlinux").exists(),
            bpffs: inspect::has_bpffs(),
            missing_map_types: inspect::missing_map_types()
                .map_err(|error| Unseen::new("the kernel's types of maps", error))?,
            cpus: from_text(&read("/sys/devices/system/cpu/online")?).len().max(1),
            local_ports: local.ok_or_else(|| Unseen::new("the kernel", "net.ipv4.ip_local_port_range"))?,
            reserved_ports: from_text(&read("/proc/sys/net/ipv4/ip_local_reserved_ports")?),
            now: SystemTime::now(),
            clock_synchronised: clock_synchronised(),
        })
    }

    fn interfaces(&self) -> Result<Vec<Interface>, Unseen> {
        let seen = inspect::interfaces().map_err(|error| Unseen::new("the interfaces", error))?;
        Ok(seen
            .into_iter()
            .map(|(link, addresses)| Interface {
                ifindex: link.ifindex,
                ethernet: link.mac.is_some_and(|mac| mac != [0; 6]),
                name: link.name,
                up: link.up,
                mtu: link.mtu,
                addresses,
                vlan: link.vlan.map(|vlan| (vlan.below, vlan.id)),
                xdp: link.xdp.map(|xdp| Attachment {
                    program: xdp.program_id,
                    name: inspect::program_name(xdp.program_id),
                    native: xdp.native,
                }),
            })
            .collect())
    }

    fn nic(&self, interface: &Interface) -> Nic {
        let features = inspect::driver_features(interface.ifindex).ok().flatten();
        let (native_xdp, takes_redirected) =
            (features.map(|features| features.native), features.map(|features| features.takes_redirected));
        let Ok(ethtool) = Ethtool::open(&interface.name) else {
            return Nic { native_xdp, takes_redirected, ..Nic::default() };
        };
        Nic {
            driver: ethtool.driver().ok(),
            native_xdp,
            takes_redirected,
            offloads: ethtool.offloads().ok(),
            queues: ethtool.queues().ok(),
            udp4_hash: ethtool.udp_hash(false).ok(),
            udp6_hash: ethtool.udp_hash(true).ok(),
        }
    }

    fn filter(&self) -> Filter {
        let tables = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];
        let legacy: BTreeSet<String> = tables
            .iter()
            .filter_map(|path| std::fs::read_to_string(path).ok())
            .flat_map(|names| names.lines().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        Filter { rules: nft::rules(), legacy_tables: legacy.into_iter().collect() }
    }

    fn pinned(&self) -> Result<Vec<Pinned>, Unseen> {
        inspect::pinned().map_err(|error| Unseen::new("the pins", error))
    }

    fn descriptors(&self, process: Option<u32>) -> Option<u64> {
        match process {
            None => getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(_, hard)| hard),
            Some(process) => hard_limit(&std::fs::read_to_string(format!("/proc/{process}/limits")).ok()?),
        }
    }
}

/// The hard limit in a line as `Max open files   1024   524288   files`.
fn hard_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let hard = line.split_whitespace().nth(1)?;
    if hard == "unlimited" { Some(u64::MAX) } else { hard.parse().ok() }
}

/// The kernel's own judgement of its clock.
fn clock_synchronised() -> Option<bool> {
    let mut timex = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: all zeros is a valid `timex`, which asks and sets nothing.
    let state = unsafe { libc::adjtimex(timex.as_mut_ptr()) };
    (state >= 0).then_some(state != libc::TIME_ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_the_kernel_writes_them() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files     \n";
        assert_eq!(hard_limit(limits), Some(524_288));
        assert_eq!(hard_limit("Max open files unlimited unlimited files"), Some(u64::MAX));
        assert_eq!(hard_limit(""), None);
    }

    #[test]
    fn this_host_has_a_loopback() {
        let interfaces = ThisHost.interfaces().unwrap();
        let lo = interfaces.iter().find(|interface| interface.name == "lo").unwrap();
        assert!(!lo.ethernet);
        assert!(ThisHost.descriptors(None) == ThisHost.descriptors(Some(std::process::id())));
    }
}
