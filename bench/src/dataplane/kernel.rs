//! Loading an object and filling its maps with flows as `sbc-ebpf`'s bench programs send them.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use aya::maps::xdp::DevMapHash;
use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};
use sbc_common::addr::{AddressSlot, AddressSlot6, Endpoint};
use sbc_common::config::Config;
use sbc_common::flow::{Allowed, FlowHead, FlowSlot, FlowState, Learned, PortKind, SlotIndex, Target, Way};
use sbc_common::flow6::{Allowed6, Endpoint6, FlowSlot6, Target6};
use sbc_common::guard::{DenyEntry, DenyReason, SCOPE_UDP, SipSocket, SourceKey, mapped};
use sbc_common::next_hop::NextHop;
use sbc_common::stream::StreamSlot;
use sbc_common::{limits, names};

use super::frames::{self, Lane};

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

/// What the program does with a packet of a flow beside forwarding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// What it does for every flow: the source is the signalled one, and the sequence numbers are followed.
    Plain,
    /// Jitter is computed and the rate is limited.
    Stats,
    /// That, and both ends are learned ones.
    Learned,
    /// As plain, over IPv6.
    V6,
    /// As plain, from IPv4 to IPv6: with a header that is 20 bytes longer.
    V4ToV6,
}

impl Feature {
    /// All.
    pub const ALL: [Self; 5] = [Self::Plain, Self::Stats, Self::Learned, Self::V6, Self::V4ToV6];

    /// The key in the result.
    pub fn key(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Stats => "stats",
            Self::Learned => "learned",
            Self::V6 => "v6",
            Self::V4ToV6 => "v4_to_v6",
        }
    }
}

/// Where flows come from and go to.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// Interface that they arrive on.
    pub ingress: u32,
    /// Key in `DEVICES` of the interface that they leave by.
    pub egress: u32,
    /// The interface behind that key.
    pub device: u32,
}

const NEXT_HOP: u16 = 1;
const GENERATION: u16 = 1;

/// An object in the kernel.
pub struct Loaded {
    ebpf: Ebpf,
}

impl Loaded {
    /// Loads maps for a number of slots; programs are loaded when they are asked for.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn new(object: &[u8], slots: u32, globals: &[(&'static str, u32)]) -> Result<Self> {
        let slots = slots.div_ceil(limits::PORTS_PER_ADDRESS) * limits::PORTS_PER_ADDRESS;
        let mut loader = EbpfLoader::new();
        for name in [names::FLOWS, names::STREAMS, names::FLOWS6, names::STREAMS6] {
            loader.map_max_entries(name, slots);
        }
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

    /// Installs flows, flow number `n` in the slot `slot(n)`, all on one path.
    ///
    /// # Errors
    /// If a map refuses.
    pub fn install(
        &mut self,
        flows: u32,
        slot: impl Fn(u32) -> u32,
        feature: Feature,
        path: Path,
    ) -> Result<()> {
        self.add_device(path.egress, path.device)?;
        let address_slots =
            (0..flows).map(|flow| SlotIndex(slot(flow)).address_slot()).max().unwrap_or(0) + 1;
        let mut config: Array<&mut MapData, Config> = Array::try_from(self.map(names::CONFIG)?)?;
        config.set(0, Config::new(u32::from(address_slots), u32::from(address_slots)), 0)?;
        let hop = NextHop {
            destination_mac: [2, 0, 0, 0, 0, 3],
            source_mac: [2, 0, 0, 0, 0, 4],
            vlan: 0,
            mtu: 1500,
            ifindex: path.egress,
            outer_vlan: 0,
            tag_type: 0,
        };
        Array::<&mut MapData, NextHop>::try_from(self.map(names::NEXT_HOPS)?)?.set(
            u32::from(NEXT_HOP),
            hop,
            0,
        )?;
        for slot in 0..address_slots {
            let entry = AddressSlot {
                address: [10, 0, slot as u8, 1],
                port_min: 0,
                port_max: u16::MAX,
                ifindex: path.ingress,
                vlan: 0,
                slot,
                ..AddressSlot::default()
            };
            Array::<&mut MapData, AddressSlot>::try_from(self.map(names::ADDRESSES)?)?.set(
                u32::from(slot),
                entry,
                0,
            )?;
            let entry = AddressSlot6 {
                address: [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, slot as u8, 0, 1],
                port_min: 0,
                port_max: u16::MAX,
                ifindex: path.ingress,
                vlan: 0,
                slot,
                ..AddressSlot6::default()
            };
            Array::<&mut MapData, AddressSlot6>::try_from(self.map(names::ADDRESSES6)?)?.set(
                u32::from(slot),
                entry,
                0,
            )?;
        }
        if feature == Feature::V6 {
            return self.install_flows6(flows, slot);
        }
        let mut table: Array<&mut MapData, [u64; FlowSlot::WORDS]> =
            Array::try_from(self.map(names::FLOWS)?)?;
        for flow in 0..flows {
            let [_, _, high, low] = flow.to_be_bytes();
            let source = Endpoint::new(frames::source(flow).octets(), frames::SOURCE_PORT);
            let destination = Endpoint::new([198, 19, high, low], 20_000);
            let mut installed = FlowSlot {
                head: FlowHead {
                    state: FlowState::Latched,
                    kind: PortKind::Rtp,
                    next_hop: NEXT_HOP,
                    generation: GENERATION,
                    way: if feature == Feature::V4ToV6 { Way::V6 } else { Way::V4 },
                    flags: 0,
                },
                expected: Allowed::exactly(source),
                destination: Target::new(destination, 46, 64),
                partner: SlotIndex(slot(flow ^ 1)).0,
                ..FlowSlot::default()
            };
            if feature == Feature::Learned {
                installed.head.state = FlowState::Learning;
                installed.learned_source = Learned::new(source, GENERATION);
                installed.learned_destination = Learned::new(destination, GENERATION);
            }
            table.set(slot(flow), installed.to_words(), 0)?;
        }
        match feature {
            Feature::Plain | Feature::V6 => Ok(()),
            Feature::Stats | Feature::Learned => {
                // Telephony, and more packets allowed than any flow here sends.
                let stream = StreamSlot { clock_rate_hz: 8000, limit: u16::MAX, ..StreamSlot::default() };
                self.install_streams(flows, slot, |_| stream)
            }
            Feature::V4ToV6 => self.install_streams(flows, slot, |flow| StreamSlot {
                destination6: frames::address6(flow ^ 1).octets(),
                ..StreamSlot::default()
            }),
        }
    }

    /// Flows that arrive and leave over IPv6.
    fn install_flows6(&mut self, flows: u32, slot: impl Fn(u32) -> u32) -> Result<()> {
        let mut table: Array<&mut MapData, [u64; FlowSlot6::WORDS]> =
            Array::try_from(self.map(names::FLOWS6)?)?;
        for flow in 0..flows {
            let peer = |flow, port| Endpoint6::new(frames::address6(flow).octets(), port);
            let installed = FlowSlot6 {
                head: FlowHead {
                    state: FlowState::Latched,
                    kind: PortKind::Rtp,
                    next_hop: NEXT_HOP,
                    generation: GENERATION,
                    way: Way::V6,
                    flags: 0,
                },
                expected: Allowed6::exactly(peer(flow, frames::SOURCE_PORT)),
                destination: Target6::new(peer(flow ^ 1, 20_000), 46, 64),
                partner: SlotIndex(slot(flow ^ 1)).0,
                ..FlowSlot6::default()
            };
            table.set(slot(flow), installed.to_words(), 0)?;
        }
        Ok(())
    }

    /// What the daemon knows of streams.
    fn install_streams(
        &mut self,
        flows: u32,
        slot: impl Fn(u32) -> u32,
        stream: impl Fn(u32) -> StreamSlot,
    ) -> Result<()> {
        let mut table: Array<&mut MapData, [u64; StreamSlot::WORDS]> =
            Array::try_from(self.map(names::STREAMS)?)?;
        for flow in 0..flows {
            table.set(slot(flow), stream(flow).to_words(), 0)?;
        }
        Ok(())
    }

    /// Has a SIP socket over UDP in a realm, and denies the sources of as many flows what they send there.
    ///
    /// # Errors
    /// If a map refuses.
    pub fn deny(&mut self, flows: u32, to: (Ipv4Addr, u16)) -> Result<()> {
        const REALM: u32 = 1;
        let address = mapped(to.0.octets());
        let mut sockets: HashMap<&mut MapData, SipSocket, u32> =
            HashMap::try_from(self.map(names::SIP_SOCKETS)?)?;
        for socket in [SipSocket::new(address, to.1, frames::UDP), SipSocket::any_of(address)] {
            sockets.insert(socket, REALM, 0)?;
        }
        // As long as the program runs, but not for ever: the time is to be compared.
        let entry = DenyEntry {
            until_ns: u64::MAX,
            reason: DenyReason::Flood as u32,
            scope: SCOPE_UDP,
            ..DenyEntry::default()
        };
        let mut denied: HashMap<&mut MapData, SourceKey, DenyEntry> =
            HashMap::try_from(self.map(names::DENY)?)?;
        for flow in 0..flows {
            denied.insert(SourceKey::v4(frames::source(flow).octets()), entry, 0)?;
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

    /// Tells the programs that send live frames whose and where to.
    ///
    /// # Errors
    /// If the map refuses.
    pub fn set_lanes(&mut self, lanes: &[Lane]) -> Result<()> {
        let mut table: Array<&mut MapData, Lane> = Array::try_from(self.map("LANES")?)?;
        for (flow, lane) in (0..).zip(lanes) {
            table.set(flow, lane, 0)?;
        }
        Ok(())
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
