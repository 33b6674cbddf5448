//! Which of our media addresses the kernel serves, on which interface, and under which number.
//!
//! A number (the address slot) is kept as long as its interface, VLAN and address are configured, over restarts too:
//! it is half of every flow's index.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use aya::maps::MapError;
use sbc_common::addr::{AddressSlot, AddressSlot6};
use sbc_common::flow::{FlowHead, FlowState, Generation, PortKind, SlotIndex, Way};
use sbc_common::names;

use super::error::StartError;
use super::flows::{Family, SlotKey};
use super::load::Kernel;
use super::netlink::Link;

/// The head of a slot whose packets are not ours.
pub(crate) const PASSING: FlowHead = FlowHead {
    state: FlowState::Relay,
    kind: PortKind::Rtp,
    next_hop: 0,
    generation: Generation::FIRST.number(),
    way: Way::V4,
    flags: 0,
};

/// A media address of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaBind {
    /// The address.
    pub address: IpAddr,
    /// Its media ports, inclusive.
    pub ports: RangeInclusive<u16>,
}

/// A media address on the interface that its frames arrive on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) address: IpAddr,
    pub(crate) ports: RangeInclusive<u16>,
    /// The interface with the driver; below a VLAN interface, if the address is on one.
    pub(crate) device: Link,
    pub(crate) vlan: Option<u16>,
}

impl Placed {
    /// Whether the other is the same address in the same place.
    pub(crate) fn is_where(&self, other: &Self) -> bool {
        (self.address, self.device.ifindex, self.vlan) == (other.address, other.device.ifindex, other.vlan)
    }
}

/// Why an address cannot be served that may appear later.
pub(crate) const NOWHERE: &str = "no interface has this address";

/// Finds the interface of each address; in the order of `binds`, with the reason where the kernel cannot serve it.
pub(crate) fn place(
    binds: &[MediaBind],
    links: &[Link],
    addresses: &[(u32, IpAddr)],
) -> Vec<Result<Placed, String>> {
    binds.iter().map(|bind| place_one(bind, links, addresses)).collect()
}

fn place_one(bind: &MediaBind, links: &[Link], addresses: &[(u32, IpAddr)]) -> Result<Placed, String> {
    let address = bind.address;
    if matches!(address, IpAddr::V6(address) if address.is_unicast_link_local()) {
        return Err("a link-local address says nothing of the interface that it is on".to_owned());
    }
    let (device, vlan) = device_of(address, links, addresses)?;
    Ok(Placed { address, ports: bind.ports.clone(), device: device.clone(), vlan })
}

/// The interface whose driver sees the packets to an address of ours, and their VLAN.
pub(crate) fn device_of<'a>(
    address: IpAddr,
    links: &'a [Link],
    addresses: &[(u32, IpAddr)],
) -> Result<(&'a Link, Option<u16>), String> {
    let link = addresses
        .iter()
        .find(|(_, held)| *held == address)
        .and_then(|(ifindex, _)| links.iter().find(|link| link.ifindex == *ifindex))
        .ok_or(NOWHERE)?;
    let (device, vlan) = match link.vlan {
        None => (link, None),
        Some((below, tag)) => {
            let device = links.iter().find(|link| link.ifindex == below);
            (
                device.ok_or_else(|| format!("the interface below {} is in another namespace", link.name))?,
                Some(tag),
            )
        }
    };
    if device.mac.is_none() || device.mac == Some([0; 6]) {
        return Err(format!("{} has no Ethernet header", device.name));
    }
    Ok((device, vlan))
}

/// An address that the kernel serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Served {
    /// Its number.
    pub(crate) slot: u16,
    /// The media ranges that realms have on it.
    pub(crate) ports: Vec<RangeInclusive<u16>>,
}

impl Served {
    /// Whether a port is a realm's.
    pub(crate) fn has(&self, port: u16) -> bool {
        self.ports.iter().any(|range| range.contains(&port))
    }

    /// From the first port of any realm to the last.
    pub(crate) fn span(&self) -> (u16, u16) {
        let first = self.ports.iter().map(|range| *range.start()).min().unwrap_or(0);
        let last = self.ports.iter().map(|range| *range.end()).max().unwrap_or(0);
        (first, last)
    }

    /// The ports between the ranges, which are not ours.
    pub(crate) fn gaps(&self) -> impl Iterator<Item = u16> {
        let (first, last) = self.span();
        (first..=last).filter(|port| !self.has(*port))
    }
}

/// Where frames to one of our addresses arrive: interface, VLAN, address.
type Arrival = (u32, u16, IpAddr);

/// Writes the tables of addresses so that they hold `served` and nothing else.
///
/// A table has one range per address. Where realms share an address, it is the range from the first port to the last,
/// and the ports between their ranges are told to pass.
pub(crate) fn write(kernel: &mut Kernel, placed: &[Placed]) -> Result<HashMap<IpAddr, Served>, StartError> {
    let mut addresses = HashMap::new();
    for family in [Family::V4, Family::V6] {
        let mut wanted: BTreeMap<Arrival, Served> = BTreeMap::new();
        for placed in placed.iter().filter(|placed| Family::of(placed.address) == family) {
            let arrival = (placed.device.ifindex, placed.vlan.unwrap_or(0), placed.address);
            wanted.entry(arrival).or_default().ports.push(placed.ports.clone());
        }
        write_table(kernel, family, &mut wanted)?;
        addresses.extend(wanted.into_iter().map(|((_, _, address), served)| (address, served)));
    }
    Ok(addresses)
}

fn write_table(
    kernel: &mut Kernel,
    family: Family,
    wanted: &mut BTreeMap<Arrival, Served>,
) -> Result<(), StartError> {
    let room = match family {
        Family::V4 => kernel.room.v4,
        Family::V6 => kernel.room.v6,
    };
    let mut free = Vec::new();
    let mut slots: HashMap<Arrival, u32> = HashMap::new();
    for slot in 0..room {
        match entry(kernel, family, slot)?.filter(|held| wanted.contains_key(held)) {
            Some(held) if !slots.contains_key(&held) => drop(slots.insert(held, slot)),
            Some(_) | None => free.push(slot),
        }
    }
    // An address that is in another place now keeps its number, and with it its flows.
    for arrival in wanted.keys().filter(|arrival| !slots.contains_key(arrival)).copied().collect::<Vec<_>>() {
        for at in 0..free.len() {
            if entry(kernel, family, free[at])?.is_some_and(|(_, _, address)| address == arrival.2) {
                slots.insert(arrival, free.swap_remove(at));
                break;
            }
        }
    }
    free.sort_unstable();
    // What is no longer ours goes first, so that no packet finds a slot that is being given to another address.
    for slot in &free {
        set_entry(kernel, family, *slot, None)?;
    }
    let mut free = free.into_iter();
    let count = wanted.len();
    for (arrival, served) in wanted {
        let full = || StartError::TooManyAddresses { wanted: count, most: room as usize };
        let slot = slots.get(arrival).copied().or_else(|| free.next()).ok_or_else(full)?;
        // Fits: there are at most 64 slots.
        served.slot = slot as u16;
        for port in served.gaps() {
            kernel.flows.publish(SlotKey { family, index: SlotIndex::new(served.slot, port) }, PASSING);
        }
        set_entry(kernel, family, slot, Some((arrival, served)))?;
    }
    Ok(())
}

/// What an entry of a table of addresses is for, if it is used.
fn entry(kernel: &Kernel, family: Family, slot: u32) -> Result<Option<Arrival>, StartError> {
    let (ifindex, vlan, address): (_, _, IpAddr) = match family {
        Family::V4 => {
            let held = kernel.addresses.get(&slot, 0).map_err(failed(family))?;
            (held.ifindex, held.vlan, held.address.into())
        }
        Family::V6 => {
            let held = kernel.addresses6.get(&slot, 0).map_err(failed(family))?;
            (held.ifindex, held.vlan, held.address.into())
        }
    };
    Ok((ifindex != 0).then_some((ifindex, vlan, address)))
}

/// Writes the entries once more that are not as they were written, and says which.
pub(crate) fn reconcile(
    kernel: &mut Kernel,
    placed: &[Placed],
    addresses: &HashMap<IpAddr, Served>,
) -> Vec<Result<IpAddr, StartError>> {
    let mut mended = Vec::new();
    for (family, room) in [(Family::V4, kernel.room.v4), (Family::V6, kernel.room.v6)] {
        for slot in 0..room {
            let wanted = placed.iter().find_map(|placed| {
                let served = addresses.get(&placed.address)?;
                let here = Family::of(placed.address) == family && u32::from(served.slot) == slot;
                here.then_some(((placed.device.ifindex, placed.vlan.unwrap_or(0), placed.address), served))
            });
            let used = wanted.as_ref().map(|(arrival, served)| (arrival, *served));
            if is_entry(kernel, family, slot, used) {
                continue;
            }
            let address = wanted.as_ref().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |(arrival, _)| arrival.2);
            mended.push(set_entry(kernel, family, slot, used).map(|()| address));
        }
    }
    mended
}

/// Whether an entry holds what `set_entry` would write.
fn is_entry(kernel: &Kernel, family: Family, slot: u32, used: Option<(&Arrival, &Served)>) -> bool {
    match family {
        Family::V4 => kernel.addresses.get(&slot, 0).is_ok_and(|held| held == entry_v4(used)),
        Family::V6 => kernel.addresses6.get(&slot, 0).is_ok_and(|held| held == entry_v6(used)),
    }
}

fn set_entry(
    kernel: &mut Kernel,
    family: Family,
    slot: u32,
    used: Option<(&Arrival, &Served)>,
) -> Result<(), StartError> {
    let written = match family {
        Family::V4 => kernel.addresses.set(slot, entry_v4(used), 0),
        Family::V6 => kernel.addresses6.set(slot, entry_v6(used), 0),
    };
    written.map_err(failed(family))
}

fn entry_v4(used: Option<(&Arrival, &Served)>) -> AddressSlot {
    let Some(((ifindex, vlan, IpAddr::V4(address)), served)) = used else { return AddressSlot::default() };
    let ((port_min, port_max), ifindex, vlan) = (served.span(), *ifindex, *vlan);
    let rest = AddressSlot::default();
    AddressSlot { address: address.octets(), port_min, port_max, ifindex, vlan, slot: served.slot, ..rest }
}

fn entry_v6(used: Option<(&Arrival, &Served)>) -> AddressSlot6 {
    let Some(((ifindex, vlan, IpAddr::V6(address)), served)) = used else { return AddressSlot6::default() };
    let ((port_min, port_max), ifindex, vlan) = (served.span(), *ifindex, *vlan);
    let rest = AddressSlot6::default();
    AddressSlot6 { address: address.octets(), port_min, port_max, ifindex, vlan, slot: served.slot, ..rest }
}

fn failed(family: Family) -> impl Fn(MapError) -> StartError {
    move |error| {
        let table = match family {
            Family::V4 => names::ADDRESSES,
            Family::V6 => names::ADDRESSES6,
        };
        StartError::map(table, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(ifindex: u32, name: &str, vlan: Option<(u32, u16)>) -> Link {
        Link {
            ifindex,
            name: name.to_owned(),
            mac: Some([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            up: true,
            vlan,
            xdp: None,
        }
    }

    fn bind(address: &str, ports: RangeInclusive<u16>) -> MediaBind {
        MediaBind { address: address.parse().unwrap(), ports }
    }

    #[test]
    fn an_address_is_served_on_the_device_that_receives_its_frames() {
        let lo = Link { mac: Some([0; 6]), ..link(1, "lo", None) };
        let links =
            [lo, link(2, "eth0", None), link(3, "eth0.7", Some((2, 7))), link(4, "far.9", Some((99, 9)))];
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let addresses = [
            (1, ip("127.0.0.1")),
            (2, ip("192.0.2.1")),
            (3, ip("198.51.100.1")),
            (4, ip("203.0.113.1")),
            (2, ip("2001:db8::1")),
            (2, ip("fe80::1")),
        ];
        let binds = [
            bind("192.0.2.1", 20_000..=20_999),
            bind("198.51.100.1", 20_000..=20_999),
            bind("203.0.113.1", 20_000..=20_999),
            bind("127.0.0.1", 20_000..=20_999),
            bind("2001:db8::1", 20_000..=20_999),
            bind("192.0.2.9", 20_000..=20_999),
            bind("192.0.2.1", 20_000..=20_999),
            bind("192.0.2.1", 30_000..=30_999),
            bind("fe80::1", 20_000..=20_999),
        ];
        let placed = place(&binds, &links, &addresses);
        let of = |at: usize| placed[at].as_ref().map(|placed| (placed.device.ifindex, placed.vlan));
        assert_eq!(of(0), Ok((2, None)));
        assert_eq!(of(1), Ok((2, Some(7))));
        assert!(of(2).unwrap_err().contains("another namespace"));
        assert!(of(3).unwrap_err().contains("no Ethernet header"));
        assert_eq!(of(4), Ok((2, None)));
        assert!(of(5).unwrap_err().contains("no interface"));
        assert_eq!(of(6), Ok((2, None)));
        assert_eq!(of(7), Ok((2, None)));
        assert!(of(8).unwrap_err().contains("link-local"));
    }

    #[test]
    fn ports_between_the_ranges_of_one_address_are_not_ours() {
        let served = Served { slot: 0, ports: vec![20_010..=20_019, 20_000..=20_003] };
        assert_eq!(served.span(), (20_000, 20_019));
        assert_eq!(served.gaps().collect::<Vec<_>>(), (20_004..=20_009).collect::<Vec<_>>());
        assert!(served.has(20_003) && !served.has(20_004) && served.has(20_010));
    }
}
