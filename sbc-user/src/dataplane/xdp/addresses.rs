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
use super::vlan::{Tags, device_below};

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
    /// The interface with the driver; below all VLAN interfaces, if the address is on one.
    pub(crate) device: Link,
    /// The tags of its frames there.
    pub(crate) tags: Tags,
}

impl Placed {
    /// Where its frames arrive.
    fn arrival(&self) -> Arrival {
        (self.device.ifindex, self.tags.outer, self.tags.inner, self.address)
    }

    /// Whether the other is the same address in the same place.
    pub(crate) fn is_where(&self, other: &Self) -> bool {
        (self.address, self.device.ifindex, self.tags) == (other.address, other.device.ifindex, other.tags)
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
    let (device, tags) = device_of(address, links, addresses)?;
    Ok(Placed { address, ports: bind.ports.clone(), device: device.clone(), tags })
}

/// The interface whose driver sees the packets to an address of ours, and their VLAN tags.
pub(crate) fn device_of<'a>(
    address: IpAddr,
    links: &'a [Link],
    addresses: &[(u32, IpAddr)],
) -> Result<(&'a Link, Tags), String> {
    let link = addresses
        .iter()
        .find(|(_, held)| *held == address)
        .and_then(|(ifindex, _)| links.iter().find(|link| link.ifindex == *ifindex))
        .ok_or(NOWHERE)?;
    let (device, tags) = device_below(link, |below| links.iter().find(|link| link.ifindex == below))?;
    if device.mac.is_none() || device.mac == Some([0; 6]) {
        return Err(format!("{} has no Ethernet header", device.name));
    }
    Ok((device, tags))
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

/// Where frames to one of our addresses arrive: interface, outer VLAN, VLAN, address.
type Arrival = (u32, u16, u16, IpAddr);

/// Writes the tables of addresses so that they hold `served` and nothing else.
///
/// A table has one range per address. Where realms share an address, it is the range from the first port to the last,
/// and the ports between their ranges are told to pass.
pub(crate) fn write(kernel: &mut Kernel, placed: &[Placed]) -> Result<HashMap<IpAddr, Served>, StartError> {
    let mut addresses = HashMap::new();
    for family in [Family::V4, Family::V6] {
        let mut wanted: BTreeMap<Arrival, Served> = BTreeMap::new();
        for placed in placed.iter().filter(|placed| Family::of(placed.address) == family) {
            wanted.entry(placed.arrival()).or_default().ports.push(placed.ports.clone());
        }
        write_table(kernel, family, &mut wanted)?;
        addresses.extend(wanted.into_iter().map(|((.., address), served)| (address, served)));
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
            if entry(kernel, family, free[at])?.is_some_and(|(.., address)| address == arrival.3) {
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
    let (ifindex, outer_vlan, vlan, address): (_, _, _, IpAddr) = match family {
        Family::V4 => {
            let held = kernel.addresses.get(&slot, 0).map_err(failed(family))?;
            (held.ifindex, held.outer_vlan, held.vlan, held.address.into())
        }
        Family::V6 => {
            let held = kernel.addresses6.get(&slot, 0).map_err(failed(family))?;
            (held.ifindex, held.outer_vlan, held.vlan, held.address.into())
        }
    };
    Ok((ifindex != 0).then_some((ifindex, outer_vlan, vlan, address)))
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
                here.then(|| (placed.arrival(), served))
            });
            let used = wanted.as_ref().map(|(arrival, served)| (arrival, *served));
            if is_entry(kernel, family, slot, used) {
                continue;
            }
            let address = wanted.as_ref().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |(arrival, _)| arrival.3);
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
    let Some(((ifindex, outer_vlan, vlan, IpAddr::V4(address)), served)) = used else {
        return AddressSlot::default();
    };
    let ((port_min, port_max), ifindex, vlan, outer_vlan) = (served.span(), *ifindex, *vlan, *outer_vlan);
    let rest = AddressSlot::default();
    AddressSlot {
        address: address.octets(),
        port_min,
        port_max,
        ifindex,
        vlan,
        outer_vlan,
        slot: served.slot,
        ..rest
    }
}

fn entry_v6(used: Option<(&Arrival, &Served)>) -> AddressSlot6 {
    let Some(((ifindex, outer_vlan, vlan, IpAddr::V6(address)), served)) = used else {
        return AddressSlot6::default();
    };
    let ((port_min, port_max), ifindex, vlan, outer_vlan) = (served.span(), *ifindex, *vlan, *outer_vlan);
    let rest = AddressSlot6::default();
    AddressSlot6 {
        address: address.octets(),
        port_min,
        port_max,
        ifindex,
        vlan,
        outer_vlan,
        slot: served.slot,
        ..rest
    }
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
    use super::super::vlan::{CUSTOMER_TAG, Vlan};
    use super::*;

    fn link(ifindex: u32, name: &str, vlan: Option<(u32, u16)>) -> Link {
        Link {
            ifindex,
            name: name.to_owned(),
            mac: Some([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            up: true,
            vlan: vlan.map(|(below, id)| Vlan { below, id, tag_type: CUSTOMER_TAG }),
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
        let of = |at: usize| placed[at].as_ref().map(|placed| (placed.device.ifindex, placed.tags.inner));
        assert_eq!(of(0), Ok((2, 0)));
        assert_eq!(of(1), Ok((2, 7)));
        assert!(of(2).unwrap_err().contains("another namespace"));
        assert!(of(3).unwrap_err().contains("no Ethernet header"));
        assert_eq!(of(4), Ok((2, 0)));
        assert!(of(5).unwrap_err().contains("no interface"));
        assert_eq!(of(6), Ok((2, 0)));
        assert_eq!(of(7), Ok((2, 0)));
        assert!(of(8).unwrap_err().contains("link-local"));
    }

    #[test]
    fn a_vlan_on_a_vlan_is_served_on_the_lowest_device_with_both_tags() {
        const SERVICE_TAG: u16 = 0x88a8;
        let of_type = |tag_type, link: Link| {
            let vlan = link.vlan.map(|vlan| Vlan { tag_type, ..vlan });
            Link { vlan, ..link }
        };
        let links = [
            link(2, "eth0", None),
            of_type(SERVICE_TAG, link(3, "eth0.7", Some((2, 7)))),
            link(4, "eth0.7.9", Some((3, 9))),
            link(5, "eth0.8", Some((2, 8))),
            link(6, "eth0.8.9", Some((5, 9))),
            link(7, "eth0.8.9.1", Some((6, 1))),
            of_type(SERVICE_TAG, link(8, "eth0.8.2", Some((5, 2)))),
            link(9, "far.3.4", Some((10, 4))),
            link(10, "far.3", Some((99, 3))),
        ];
        let addresses: Vec<(u32, IpAddr)> = (2..=10).map(|at| (at, [192, 0, 2, at as u8].into())).collect();
        let binds: Vec<_> = (2..=10).map(|at| bind(&format!("192.0.2.{at}"), 20_000..=20_999)).collect();
        let placed = place(&binds, &links, &addresses);
        let of = |at: usize| {
            let placed = placed[at - 2].as_ref()?;
            let Tags { outer, inner, tag_type } = placed.tags;
            Ok::<_, &String>((placed.device.ifindex, outer, inner, tag_type))
        };
        assert_eq!(of(2), Ok((2, 0, 0, 0)));
        assert_eq!(of(3), Ok((2, 0, 7, SERVICE_TAG)));
        assert_eq!(of(4), Ok((2, 7, 9, SERVICE_TAG)));
        assert_eq!(of(5), Ok((2, 0, 8, CUSTOMER_TAG)));
        assert_eq!(of(6), Ok((2, 8, 9, CUSTOMER_TAG)));
        assert!(of(7).unwrap_err().contains("more than two"));
        assert!(of(8).unwrap_err().contains("inner VLAN tag"));
        assert!(of(9).unwrap_err().contains("below far.3 is in another namespace"));
        assert!(of(10).unwrap_err().contains("below far.3 is in another namespace"));

        // The same inner tag within two outer ones is two places, and each entry says which.
        let arrivals = [4, 6].map(|at| placed[at - 2].as_ref().unwrap().arrival());
        assert_eq!(arrivals.map(|(device, outer, inner, _)| (device, outer, inner)), [(2, 7, 9), (2, 8, 9)]);
        let served = Served { slot: 3, ports: vec![20_000..=20_999] };
        let entry = entry_v4(Some((&arrivals[1], &served)));
        assert_eq!((entry.ifindex, entry.outer_vlan, entry.vlan, entry.slot), (2, 8, 9, 3));
        let (device, outer, inner, _) = arrivals[0];
        let arrival = (device, outer, inner, "2001:db8::1".parse().unwrap());
        let entry = entry_v6(Some((&arrival, &served)));
        assert_eq!((entry.ifindex, entry.outer_vlan, entry.vlan, entry.slot), (2, 7, 9, 3));
    }

    #[test]
    fn ports_between_the_ranges_of_one_address_are_not_ours() {
        let served = Served { slot: 0, ports: vec![20_010..=20_019, 20_000..=20_003] };
        assert_eq!(served.span(), (20_000, 20_019));
        assert_eq!(served.gaps().collect::<Vec<_>>(), (20_004..=20_009).collect::<Vec<_>>());
        assert!(served.has(20_003) && !served.has(20_004) && served.has(20_010));
    }
}
