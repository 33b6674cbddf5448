//! The program and its maps in the kernel: loaded, compared with what is pinned, attached, replaced, let go.
//!
//! A restart finds the pins of the daemon before: it reuses the maps that still fit and puts the new program into the
//! pinned link, so that no interface is ever without one. Only native XDP counts: where a driver refuses it, the
//! interface is served by the relay and the reason is reported.

use std::collections::HashSet;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use aya::maps::xdp::DevMapHash;
use aya::maps::{Array, Map, MapData, MapInfo, PerCpuArray, RingBuf};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{ProgramError, Xdp as Program, loaded_programs};
use aya::{Ebpf, EbpfLoader};
use sbc_common::addr::{AddressSlot, AddressSlot6};
use sbc_common::config::Config;
use sbc_common::limits;
use sbc_common::names;
use sbc_common::next_hop::NextHop;

use super::error::{StartError, chain};
use super::flows::{Family, Flows, Table};
use super::guard::GuardMaps;
use super::netdev;
use super::netlink::{Link, Netlink, XdpOnLink};
use super::pins::{self, PinDirectory};

/// Why an interface is not served although its driver runs the program.
const NOT_A_TARGET: &str = "it takes no packets that XDP redirects to it; if it is a veth, run \
                            `ethtool -K <interface> gro on` at its other end while that is up, and start again";

/// Everything of ours in the kernel.
pub(crate) struct Kernel {
    ebpf: Ebpf,
    pins: PinDirectory,
    program_id: u32,
    /// The program that is in the links instead, while a trace runs.
    instead: Option<u32>,
    pub(crate) flows: Flows,
    /// Address slots for which `flows` has room.
    pub(crate) room: Room,
    pub(crate) next_hops: Array<MapData, NextHop>,
    pub(crate) addresses: Array<MapData, AddressSlot>,
    pub(crate) addresses6: Array<MapData, AddressSlot6>,
    pub(crate) devices: DevMapHash<MapData>,
    pub(crate) counters: PerCpuArray<MapData, u64>,
    pub(crate) events: RingBuf<MapData>,
    pub(crate) reports: RingBuf<MapData>,
    pub(crate) guard: GuardMaps,
}

/// Numbers of address slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Of IPv4; at least one.
    pub(crate) v4: u32,
    /// Of IPv6; with none the tables have one entry, which nobody uses: a table cannot be empty.
    pub(crate) v6: u32,
}

impl Room {
    /// For as many addresses as there are, or why not.
    fn wanted(v4: usize, v6: usize) -> Result<Self, StartError> {
        let fit = |wanted: usize, most: u32| match u32::try_from(wanted) {
            Ok(slots) if slots <= most => Ok(slots),
            Ok(_) | Err(_) => Err(StartError::TooManyAddresses { wanted, most: most as usize }),
        };
        Ok(Self { v4: fit(v4, limits::ADDRESS_SLOTS)?.max(1), v6: fit(v6, limits::ADDRESS_SLOTS6)? })
    }

    /// Slots in `FLOWS` and `STREAMS`.
    fn slots(self) -> u32 {
        self.v4 * limits::PORTS_PER_ADDRESS
    }

    /// Slots in `FLOWS6` and `STREAMS6`.
    fn slots6(self) -> u32 {
        (self.v6 * limits::PORTS_PER_ADDRESS).max(1)
    }
}

/// What came of attaching to an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Attached {
    /// The driver runs the program.
    Native,
    /// It does not, and why.
    Refused(String),
}

/// What an interface is to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Media arrives on it and leaves by it.
    Media,
    /// Only signalling arrives on it, in front of which the guard stands.
    Guard,
}

impl Role {
    /// Whether an interface can be that.
    fn suits(self, link: &Link) -> bool {
        match self {
            Self::Media => takes_redirected(link),
            Self::Guard => true,
        }
    }
}

impl Kernel {
    /// Loads the object with room for so many addresses, onto the maps pinned in `pins` where there are any.
    pub(crate) fn load(object: &[u8], pins: PinDirectory, v4: usize, v6: usize) -> Result<Self, StartError> {
        let wanted = Room::wanted(v4, v6)?;
        let room = Room {
            v4: reuse(&pins, [names::FLOWS, names::STREAMS], wanted.v4, limits::ADDRESS_SLOTS)?,
            v6: reuse(&pins, [names::FLOWS6, names::STREAMS6], wanted.v6, limits::ADDRESS_SLOTS6)?,
        };
        // What this version would make, made once without a pin: the only description of it that cannot be wrong.
        let fresh = load_maps(object, room, None)?;
        for name in names::MAPS {
            let wanted = map_data(&fresh, name)?.info().map_err(|error| StartError::map(name, error))?;
            pins.check(name, &wanted)?;
        }
        drop(fresh);

        let mut ebpf = load_maps(object, room, Some(&pins))?;
        let program = program(&mut ebpf)?;
        program.load()?;
        let program_id = program.info()?.id();
        remove(&pins, names::PROGRAM)?;
        let pin = pins.pin(names::PROGRAM);
        program.pin(&pin).map_err(|error| StartError::pins(&pin, std::io::Error::other(chain(&error))))?;

        let mapped = |name| map_data(&ebpf, name).map(|map| map.fd().as_fd());
        let failed = |source| StartError::Network { what: "the table of flows", source };
        let (flows, streams) = (mapped(names::FLOWS)?, mapped(names::STREAMS)?);
        let v4 = Table::map(Family::V4, flows, streams, room.slots()).map_err(failed)?;
        let (flows6, streams6) = (mapped(names::FLOWS6)?, mapped(names::STREAMS6)?);
        let v6 = Table::map(Family::V6, flows6, streams6, room.slots6()).map_err(failed)?;
        let mut config = take::<Array<MapData, Config>>(&mut ebpf, names::CONFIG)?;
        config
            .set(0, Config::new(room.v4, room.v6), 0)
            .map_err(|error| StartError::map(names::CONFIG, error))?;
        Ok(Self {
            next_hops: take(&mut ebpf, names::NEXT_HOPS)?,
            addresses: take(&mut ebpf, names::ADDRESSES)?,
            addresses6: take(&mut ebpf, names::ADDRESSES6)?,
            devices: take(&mut ebpf, names::DEVICES)?,
            counters: take(&mut ebpf, names::COUNTERS)?,
            events: take(&mut ebpf, names::EVENTS)?,
            reports: take(&mut ebpf, names::REPORTS)?,
            guard: GuardMaps::take(&mut ebpf)?,
            ebpf,
            pins,
            program_id,
            instead: None,
            flows: Flows::new(v4, v6),
            room,
        })
    }

    /// Where the pins are.
    pub(crate) fn pins(&self) -> &PinDirectory {
        &self.pins
    }

    /// Puts the program on an interface: into its pinned link if there is one, else anew.
    pub(crate) fn attach(
        &mut self,
        netlink: &mut Netlink,
        link: &Link,
        role: Role,
    ) -> Result<Attached, StartError> {
        let pin = self.pins.link(&link.name);
        if pin.exists() {
            match self.replace(&pin) {
                Ok(_) if self.runs_on(netlink, link)? => {
                    if role.suits(link) {
                        return Ok(Attached::Native);
                    }
                    // Gone a moment after its pin: not to be taken for somebody else's program until then.
                    fs::remove_file(&pin).map_err(|error| StartError::pins(&pin, error))?;
                    return Ok(Attached::Refused(NOT_A_TARGET.to_owned()));
                }
                // The interface that it was made for is gone; one with the same name took its place.
                Ok(_) => {
                    tracing::debug!(interface = link.name, "the pinned link belongs to another interface")
                }
                Err(error) => tracing::debug!(interface = link.name, error, "the pinned link is of no use"),
            }
            fs::remove_file(&pin).map_err(|error| StartError::pins(&pin, error))?;
        }
        if let Some(attached) = self.take_over(netlink, link, role)? {
            return Ok(attached);
        }
        if let Some(program) = present(netlink, link)?.and_then(|link| link.xdp) {
            return Err(foreign(link, program));
        }
        let program = program(&mut self.ebpf)?;
        let id = match program.attach_to_if_index(link.ifindex, XdpMode::Driver) {
            Ok(id) => id,
            Err(error) => return Ok(Attached::Refused(refusal(&error))),
        };
        let Ok(attached) = FdLink::try_from(program.take_link(id)?) else {
            // aya attached it over netlink after the kernel refused a link; such an attachment cannot be pinned.
            if let Err(error) = netlink.detach_xdp(link.ifindex) {
                tracing::warn!(interface = link.name, %error, "cannot detach the program again");
            }
            return Ok(Attached::Refused("the driver takes XDP programs, but not through a link".to_owned()));
        };
        attached.pin(&pin).map_err(|error| StartError::pins(&pin, std::io::Error::other(chain(&error))))?;
        let reason = if !self.runs_on(netlink, link)? {
            "the kernel attached the program, but not in the driver"
        } else if !role.suits(link) {
            NOT_A_TARGET
        } else {
            return Ok(Attached::Native);
        };
        fs::remove_file(&pin).map_err(|error| StartError::pins(&pin, error))?;
        Ok(Attached::Refused(reason.to_owned()))
    }

    /// Lets packets leave by these interfaces and no others.
    pub(crate) fn set_devices(&mut self, devices: &HashSet<u32>) -> Result<(), StartError> {
        let failed = |error| StartError::map(names::DEVICES, error);
        let old: Vec<u32> = self.devices.keys().collect::<Result<_, _>>().map_err(failed)?;
        for gone in old.into_iter().filter(|device| !devices.contains(device)) {
            self.devices.remove(gone).map_err(failed)?;
        }
        for device in devices {
            self.devices
                .insert(*device, *device, None, 0)
                .map_err(|error| StartError::map(names::DEVICES, error))?;
        }
        Ok(())
    }

    /// Takes the program off interfaces that are no longer ours.
    pub(crate) fn detach_others(&self, interfaces: &[String]) -> Result<(), StartError> {
        for interface in self.pins.linked_interfaces()? {
            if !interfaces.contains(&interface) {
                tracing::info!(interface, "detaching from an interface that is no longer configured");
                let pin = self.pins.link(&interface);
                fs::remove_file(&pin).map_err(|error| StartError::pins(&pin, error))?;
            }
        }
        Ok(())
    }

    /// Withdraws every flow, detaches, and removes every pin.
    pub(crate) fn remove(self) -> std::io::Result<()> {
        self.flows.withdraw_all();
        self.pins.remove()
    }

    /// Puts the program into the link that another version of this instance has on the interface, and pins that here: the
    /// interface is at no time without a program, and ours of before is not taken for somebody else's.
    fn take_over(
        &mut self,
        netlink: &mut Netlink,
        link: &Link,
        role: Role,
    ) -> Result<Option<Attached>, StartError> {
        for version in self.pins.other_versions() {
            let old = pins::link(&version, &link.name);
            if !old.exists() {
                continue;
            }
            let attached = match self.replace(&old) {
                Ok(taken) if self.runs_on(netlink, link)? => {
                    if role.suits(link) {
                        let pin = self.pins.link(&link.name);
                        taken
                            .pin(&pin)
                            .map_err(|error| StartError::pins(&pin, std::io::Error::other(chain(&error))))?;
                        tracing::info!(interface = link.name, from = %version.display(), "took over the link of another version");
                        Some(Attached::Native)
                    } else {
                        Some(Attached::Refused(NOT_A_TARGET.to_owned()))
                    }
                }
                Ok(_) => None,
                Err(error) => {
                    tracing::debug!(interface = link.name, error, "the link of another version is of no use");
                    None
                }
            };
            // With its last holder a link goes, and the program with it.
            fs::remove_file(&old).map_err(|error| StartError::pins(&old, error))?;
            if attached.is_some() {
                return Ok(attached);
            }
        }
        Ok(None)
    }

    /// Another object, onto the maps of this one.
    pub(crate) fn load_beside(&self, object: &[u8]) -> Result<Ebpf, StartError> {
        load_maps(object, self.room, Some(&self.pins))
    }

    /// Puts another program into the interface's pinned link.
    pub(crate) fn put(&mut self, program: &mut Program, interface: &str) -> Result<(), String> {
        put(program, &self.pins.link(interface))?;
        self.instead = program.info().ok().map(|info| info.id());
        Ok(())
    }

    /// Puts the ordinary program into the interface's pinned link again.
    pub(crate) fn put_ordinary(&mut self, interface: &str) -> Result<(), String> {
        self.instead = None;
        let pin = self.pins.link(interface);
        self.replace(&pin).map(drop)
    }

    /// Puts the program into a pinned link.
    fn replace(&mut self, pin: &Path) -> Result<FdLink, String> {
        put(program(&mut self.ebpf).map_err(|error| error.to_string())?, pin)
    }

    /// Whether the driver of the interface runs our program.
    pub(crate) fn runs_on(&self, netlink: &mut Netlink, link: &Link) -> Result<bool, StartError> {
        let xdp = present(netlink, link)?.and_then(|link| link.xdp);
        let ours = |id| id == self.program_id || self.instead == Some(id);
        Ok(xdp.is_some_and(|xdp| xdp.native && ours(xdp.program_id)))
    }
}

/// Puts a program into a pinned link. What is returned is of use to pin it elsewhere; the pin keeps it.
fn put(program: &mut Program, pin: &Path) -> Result<FdLink, String> {
    let pinned = PinnedLink::from_pin(pin).map_err(|error| chain(&error))?;
    let old = XdpLink::try_from(FdLink::from(pinned)).map_err(|error| chain(&error))?;
    let id = program.attach_to_link(old).map_err(|error| chain(&error))?;
    let link = program.take_link(id).map_err(|error| chain(&error))?;
    FdLink::try_from(link).map_err(|error| chain(&error))
}

/// Whether packets can be redirected to an interface. A kernel that does not tell is taken at its best.
fn takes_redirected(link: &Link) -> bool {
    let answer = netdev::features(link.ifindex);
    answer
        .inspect_err(|error| tracing::warn!(interface = link.name, %error, "cannot ask for XDP features"))
        .ok()
        .flatten()
        .is_none_or(|features| features.takes_redirected)
}

/// The link as it is now.
fn present(netlink: &mut Netlink, link: &Link) -> Result<Option<Link>, StartError> {
    let links = netlink.links().map_err(|source| StartError::Network { what: "interfaces", source })?;
    Ok(links.into_iter().find(|now| now.ifindex == link.ifindex))
}

fn load_maps(object: &[u8], room: Room, pins: Option<&PinDirectory>) -> Result<Ebpf, StartError> {
    let mut loader = EbpfLoader::new();
    for (name, slots) in [
        (names::FLOWS, room.slots()),
        (names::STREAMS, room.slots()),
        (names::FLOWS6, room.slots6()),
        (names::STREAMS6, room.slots6()),
    ] {
        loader.map_max_entries(name, slots);
    }
    if let Some(pins) = pins {
        for name in names::MAPS {
            loader.map_pin_path(name, pins.pin(name));
        }
    }
    loader.load(object).map_err(|error| StartError::Object(Box::new(error)))
}

/// For how many addresses the tables of a family are to have room: that of the pinned ones if they are large enough,
/// else what is wanted, and the pins are gone.
fn reuse(pins: &PinDirectory, tables: [&str; 2], wanted: u32, most: u32) -> Result<u32, StartError> {
    let Ok(info) = MapInfo::from_pin(pins.pin(tables[0])) else { return Ok(wanted) };
    let pinned = info.max_entries() / limits::PORTS_PER_ADDRESS;
    if (wanted..=most).contains(&pinned) {
        return Ok(pinned);
    }
    tracing::info!(table = tables[0], pinned, wanted, "replacing the table of flows by a larger one");
    for name in tables {
        remove(pins, name)?;
    }
    Ok(wanted)
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Program, StartError> {
    let program = ebpf.program_mut(names::PROGRAM).ok_or(StartError::OtherObject(names::PROGRAM))?;
    <&mut Program>::try_from(program).map_err(StartError::from)
}

fn map_data<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a MapData, StartError> {
    match ebpf.map(name) {
        Some(
            Map::Array(data)
            | Map::HashMap(data)
            | Map::LruHashMap(data)
            | Map::LpmTrie(data)
            | Map::PerCpuArray(data)
            | Map::DevMapHash(data)
            | Map::RingBuf(data),
        ) => Ok(data),
        _ => Err(StartError::OtherObject(name)),
    }
}

pub(crate) fn take<T: TryFrom<Map, Error = aya::maps::MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<T, StartError> {
    let map = ebpf.take_map(name).ok_or(StartError::OtherObject(name))?;
    T::try_from(map).map_err(|error| StartError::map(name, error))
}

fn remove(pins: &PinDirectory, name: &str) -> Result<(), StartError> {
    let pin = pins.pin(name);
    match fs::remove_file(&pin) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StartError::pins(&pin, error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The refusal of an interface that runs a program which is not ours.
pub(crate) fn foreign(link: &Link, program: XdpOnLink) -> StartError {
    let (interface, id) = (link.name.clone(), program.program_id);
    StartError::ForeignProgram { interface, id, name: program_name(id) }
}

pub(crate) fn program_name(id: u32) -> String {
    loaded_programs()
        .flatten()
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned))
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "no name".to_owned())
}

/// Why a driver does not take the program, with what usually mends it.
fn refusal(error: &ProgramError) -> String {
    let text = chain(error);
    if text.contains("EOPNOTSUPP") || text.contains("not supported") {
        return format!("the driver has no native XDP ({text})");
    }
    format!("{text}; usual reasons are an MTU above what the driver takes with XDP, LRO, or too few queues")
}
