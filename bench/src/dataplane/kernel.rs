//! Loading an object and filling its maps with flows as `sbc-ebpf`'s bench programs send them.

use std::path::PathBuf;

use anyhow::{Context, Result};
use aya::maps::xdp::DevMapHash;
use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};
use sbc_common::addr::{AddressSlot, Endpoint};
use sbc_common::config::Config;
use sbc_common::flow::{Allowed, FlowHead, FlowSlot, FlowState, PortKind, SlotIndex, Target, Way};
use sbc_common::next_hop::NextHop;
use sbc_common::{limits, names};

/// The object whose path is in an environment variable; `cargo xtask` sets them.
///
/// # Errors
/// If the variable is not set or the file cannot be read.
pub fn object(variable: &str) -> Result<Vec<u8>> {
    let path = std::env::var_os(variable).with_context(|| {
        format!("{variable} names no kernel object; run this as: cargo xtask bench dataplane")
    })?;
    let path = PathBuf::from(path);
    std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// An object in the kernel.
pub struct Loaded {
    ebpf: Ebpf,
}

impl Loaded {
    /// Loads maps for a number of flows; programs are loaded when they are asked for.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn new(object: &[u8], flows: u32, globals: &[(&'static str, u32)]) -> Result<Self> {
        let slots = flows.div_ceil(limits::PORTS_PER_ADDRESS) * limits::PORTS_PER_ADDRESS;
        let mut loader = EbpfLoader::new();
        loader.map_max_entries(names::FLOWS, slots).map_max_entries(names::STREAMS, slots);
        for (name, value) in globals {
            loader.override_global(name, value, true);
        }
        Ok(Self { ebpf: loader.load(object)? })
    }

    /// A program, loaded.
    ///
    /// # Errors
    /// If there is none of that name or the verifier refuses it.
    pub fn program(&mut self, name: &str) -> Result<&mut Xdp> {
        let program: &mut Xdp =
            self.ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?;
        if program.fd().is_err() {
            program.load()?;
        }
        Ok(program)
    }

    /// Installs flows 0 to `flows`, all arriving on one interface and leaving by another. The egress is the key
    /// `egress` of the devices, with `device` behind it.
    ///
    /// # Errors
    /// If a map refuses.
    pub fn install(&mut self, flows: u32, ingress: u32, egress: u32, device: u32) -> Result<()> {
        const NEXT_HOP: u16 = 1;
        self.add_device(egress, device)?;
        let mut config: Array<&mut MapData, Config> = Array::try_from(self.map(names::CONFIG)?)?;
        config.set(0, Config::new(flows.div_ceil(limits::PORTS_PER_ADDRESS), 0), 0)?;
        let hop = NextHop {
            destination_mac: [2, 0, 0, 0, 0, 3],
            source_mac: [2, 0, 0, 0, 0, 4],
            vlan: 0,
            mtu: 1500,
            ifindex: egress,
            outer_vlan: 0,
            unused: [0; 2],
        };
        Array::<&mut MapData, NextHop>::try_from(self.map(names::NEXT_HOPS)?)?.set(
            u32::from(NEXT_HOP),
            hop,
            0,
        )?;
        for slot in 0..flows.div_ceil(limits::PORTS_PER_ADDRESS) {
            let address = [10, 0, slot as u8, 1];
            let entry = AddressSlot {
                address,
                port_min: 0,
                port_max: u16::MAX,
                ifindex: ingress,
                vlan: 0,
                slot: slot as u16,
                ..AddressSlot::default()
            };
            Array::<&mut MapData, AddressSlot>::try_from(self.map(names::ADDRESSES)?)?.set(slot, entry, 0)?;
        }
        let mut table: Array<&mut MapData, [u64; FlowSlot::WORDS]> =
            Array::try_from(self.map(names::FLOWS)?)?;
        for flow in 0..flows {
            let [_, _, high, low] = flow.to_be_bytes();
            let slot = FlowSlot {
                head: FlowHead {
                    state: FlowState::Latched,
                    kind: PortKind::Rtp,
                    next_hop: NEXT_HOP,
                    generation: 1,
                    way: Way::V4,
                    flags: 0,
                },
                expected: Allowed::exactly(Endpoint::new([198, 18, high, low], 10_000)),
                destination: Target::new(Endpoint::new([198, 19, high, low], 20_000), 46, 64),
                partner: SlotIndex(flow ^ 1).0,
                ..FlowSlot::default()
            };
            table.set(flow, slot.to_words(), 0)?;
        }
        Ok(())
    }

    /// Lets packets leave by a device.
    ///
    /// # Errors
    /// If the map refuses.
    pub fn add_device(&mut self, egress: u32, device: u32) -> Result<()> {
        Ok(DevMapHash::try_from(self.map(names::DEVICES)?)?.insert(egress, device, None, 0)?)
    }

    /// An entry of `COUNTERS`, over all CPUs.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn counted(&mut self, number: u32) -> Result<u64> {
        let counters: PerCpuArray<&mut MapData, u64> = PerCpuArray::try_from(self.map(names::COUNTERS)?)?;
        Ok(counters.get(&number, 0)?.iter().sum())
    }

    fn map(&mut self, name: &str) -> Result<&mut aya::maps::Map> {
        self.ebpf.map_mut(name).with_context(|| format!("no map {name}"))
    }
}
