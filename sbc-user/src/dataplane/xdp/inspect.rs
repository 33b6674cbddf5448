//! The kernel side seen from outside: what is pinned, what runs on which interface. Takes no lock and changes nothing,
//! so it may be asked while a daemon runs.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use aya::maps::{Map, MapData, MapType, PerCpuArray};
use aya::programs::ProgramInfo;
use aya::sys::is_map_supported;
use sbc_common::counter::Counter;
use sbc_common::{limits, names};

use super::netlink::{Link, Netlink};
use super::{load, netdev, pins, stats};

/// What an instance left, or keeps, on the BPF file system: one version of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pinned {
    /// The instance.
    pub instance: String,
    /// The number of its layout.
    pub abi: u32,
    /// The directory.
    pub path: PathBuf,
    /// The process that holds the instance's lock.
    pub running: Option<u32>,
    /// Id of the pinned program.
    pub program: Option<u32>,
    /// Interfaces with a pinned link.
    pub interfaces: Vec<String>,
    /// Verified packets whose UDP checksum was wrong, since the maps exist.
    pub bad_checksums: Option<u64>,
}

/// The layout of this version.
pub(crate) const ABI: u32 = limits::ABI;

/// Every interface of the calling thread's network namespace, each with its addresses.
pub(crate) fn interfaces() -> io::Result<Vec<(Link, Vec<IpAddr>)>> {
    let mut netlink = Netlink::open()?;
    let links = netlink.links()?;
    let held = netlink.addresses()?;
    let of = |ifindex| held.iter().filter(|(on, _)| *on == ifindex).map(|(_, address)| *address).collect();
    Ok(links.into_iter().map(|link| (link.clone(), of(link.ifindex))).collect())
}

/// What the driver says of XDP.
pub(crate) fn driver_features(ifindex: u32) -> io::Result<Option<netdev::XdpFeatures>> {
    netdev::features(ifindex)
}

/// A program's name.
pub(crate) fn program_name(id: u32) -> String {
    load::program_name(id)
}

/// Whether there is a bpffs where pins go.
pub(crate) fn has_bpffs() -> bool {
    pins::check_bpffs().is_ok()
}

/// The types of map that we need and this kernel has not.
pub(crate) fn missing_map_types() -> io::Result<Vec<&'static str>> {
    let needed = [
        (MapType::Array, "array"),
        (MapType::PerCpuArray, "per-CPU array"),
        (MapType::RingBuf, "ring buffer"),
        (MapType::DevMapHash, "device hash"),
        (MapType::Hash, "hash"),
        (MapType::LruHash, "LRU hash"),
        (MapType::LpmTrie, "prefix trie"),
    ];
    let mut missing = Vec::new();
    for (kind, name) in needed {
        if !is_map_supported(kind).map_err(io::Error::other)? {
            missing.push(name);
        }
    }
    Ok(missing)
}

/// Every version of every instance that has pins.
pub(crate) fn pinned() -> io::Result<Vec<Pinned>> {
    let locks = std::fs::read_to_string("/proc/locks")?;
    let mut found = Vec::new();
    for (instance, home) in directories(Path::new(pins::HOME))? {
        let running = holder(&locks, &home)?;
        for (version, path) in directories(&home)? {
            let Some(abi) = version.strip_prefix('v').and_then(|abi| abi.parse().ok()) else { continue };
            let program = ProgramInfo::from_pin(path.join(names::PROGRAM)).ok().map(|info| info.id());
            found.push(Pinned {
                instance: instance.clone(),
                abi,
                running,
                program,
                interfaces: pins::linked_interfaces(&path)?,
                // The list of outcomes only grows, but another layout's maps are not ours to read.
                bad_checksums: if abi == ABI { bad_checksums(&path) } else { None },
                path,
            });
        }
    }
    found.sort_by(|a, b| (&a.instance, a.abi).cmp(&(&b.instance, b.abi)));
    Ok(found)
}

fn bad_checksums(directory: &Path) -> Option<u64> {
    let data = MapData::from_pin(directory.join(names::COUNTERS)).ok()?;
    let counters = PerCpuArray::<_, u64>::try_from(Map::PerCpuArray(data)).ok()?;
    stats::outcome(&counters, Counter::BadChecksum)
}

/// The directories in a directory; none if it is not there.
fn directories(parent: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let entries = match std::fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let (Ok(name), true) = (entry.file_name().into_string(), entry.file_type()?.is_dir()) {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

/// Who holds the lock of a directory. The kernel's list is read: trying the lock could refuse a daemon that starts.
fn holder(locks: &str, directory: &Path) -> io::Result<Option<u32>> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = match std::fs::metadata(directory) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let (major, minor) = (libc::major(metadata.dev()), libc::minor(metadata.dev()));
    let file = format!("{major:02x}:{minor:02x}:{}", metadata.ino());
    Ok(locks.lines().find_map(|line| lock_holder(line, &file)))
}

/// `1: FLOCK  ADVISORY  WRITE 1178 fe:00:11101909 0 EOF`
fn lock_holder(line: &str, file: &str) -> Option<u32> {
    let mut words = line.split_whitespace().skip(1);
    let kind = words.next()?;
    let mut words = words.skip(2);
    let (pid, on) = (words.next()?, words.next()?);
    if kind == "FLOCK" && on == file { pid.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{Flock, FlockArg};

    #[test]
    fn the_holder_of_a_lock_is_found() {
        let directory = std::env::temp_dir();
        let path = directory.join(format!("sbc-inspect-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let read = || std::fs::read_to_string("/proc/locks").unwrap();
        assert_eq!(holder(&read(), &path).unwrap(), None);
        let open = std::fs::File::open(&path).unwrap();
        let lock = Flock::lock(open, FlockArg::LockExclusiveNonblock).unwrap();
        assert_eq!(holder(&read(), &path).unwrap(), Some(std::process::id()));
        drop(lock);
        std::fs::remove_dir(&path).unwrap();
        assert_eq!(holder(&read(), &path).unwrap(), None);
    }

    #[test]
    fn a_waiting_lock_or_another_kind_is_no_holder() {
        assert_eq!(lock_holder("3: FLOCK  ADVISORY  WRITE 11 fe:00:7 0 EOF", "fe:00:7"), Some(11));
        assert_eq!(lock_holder("3: POSIX  ADVISORY  WRITE 11 fe:00:7 0 EOF", "fe:00:7"), None);
        assert_eq!(lock_holder("3: -> FLOCK  ADVISORY  WRITE 11 fe:00:7 0 EOF", "fe:00:7"), None);
        assert_eq!(lock_holder("", "fe:00:7"), None);
    }
}
