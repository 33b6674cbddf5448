//! What the maps cost in memory, as the kernel accounts for it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result, bail};
use aya::EbpfLoader;
use aya::maps::{Map, MapData};
use sbc_common::flow::FlowSlot;
use sbc_common::flow6::FlowSlot6;
use sbc_common::stream::StreamSlot;
use sbc_common::{limits, names};

use super::kernel::object;

/// Bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Of each map, with one IPv4 and one IPv6 media address.
    pub maps: BTreeMap<&'static str, u64>,
}

/// Of the slots of a port of an IPv4 address: flow and stream.
pub const PER_PORT: usize = size_of::<FlowSlot>() + size_of::<StreamSlot>();
/// The same of an IPv6 address.
pub const PER_PORT6: usize = size_of::<FlowSlot6>() + size_of::<StreamSlot>();
/// Of all ports of an IPv4 address.
pub const PER_ADDRESS: usize = PER_PORT * limits::PORTS_PER_ADDRESS as usize;
/// The same of an IPv6 address.
pub const PER_ADDRESS6: usize = PER_PORT6 * limits::PORTS_PER_ADDRESS as usize;

impl Memory {
    /// All maps together.
    pub fn total(&self) -> u64 {
        self.maps.values().sum()
    }
}

/// Makes the maps and reads what they take.
///
/// # Errors
/// If the kernel refuses them, or does not say.
pub fn measure() -> Result<Memory> {
    let ports = limits::PORTS_PER_ADDRESS;
    let mut loader = EbpfLoader::new();
    for name in [names::FLOWS, names::STREAMS, names::FLOWS6, names::STREAMS6] {
        loader.map_max_entries(name, ports);
    }
    let ebpf = loader.load(&object("SBC_EBPF_OBJECT")?)?;
    let mut memory = Memory::default();
    for name in names::MAPS {
        let map = map_data(ebpf.map(name).with_context(|| format!("no map {name}"))?)?;
        let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
        let said = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        memory.maps.insert(name, locked(&said).with_context(|| format!("{path} says no memlock"))?);
    }
    Ok(memory)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "of the many types of maps, these are ours")]
fn map_data(map: &Map) -> Result<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::LpmTrie(data)
        | Map::PerCpuArray(data)
        | Map::DevMapHash(data)
        | Map::RingBuf(data) => Ok(data),
        _ => bail!("a map of a type that ours do not have"),
    }
}

/// What `fdinfo` of a map says that it takes.
fn locked(fdinfo: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_map_takes_is_read() {
        assert_eq!(
            locked("pos:\t0\nmap_type:\t2\nmax_entries:\t1\nmemlock:\t4096\nmap_id:\t7\n"),
            Some(4096)
        );
        assert_eq!(locked("pos:\t0\n"), None);
    }

    #[test]
    fn a_port_is_two_cache_lines_or_three() {
        assert_eq!((PER_PORT, PER_PORT6, PER_ADDRESS), (128, 192, 8 << 20));
    }
}
