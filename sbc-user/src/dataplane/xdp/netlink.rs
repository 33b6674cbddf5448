//! Routes, neighbours, links and addresses of the network namespace, asked synchronously over rtnetlink.
//!
//! A request and its answer are two system calls that do not wait for the network, so the dataplane may make them
//! from its synchronous methods. Changes arrive on a second, non-blocking socket whose descriptor the event loop
//! polls. Nothing is decided here: what the answers mean for flows is said in `neighbours` and `load`.

// The kernel's lists of messages and attributes grow; of each we read what we need and pass over the rest.
#![allow(clippy::wildcard_enum_match_arm)]

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, XdpAttached,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr as NetlinkAddr};

use super::vlan::{CUSTOMER_TAG, Vlan};

/// How long the kernel may take to answer one request before we call it broken.
const ANSWER_LIMIT_SECONDS: i64 = 2;
/// Receive buffer of the change socket: some 10,000 neighbour events.
const EVENT_BUFFER_BYTES: usize = 4 << 20;
/// Larger than any single datagram the kernel writes.
const READ_BYTES: usize = 64 << 10;

/// Multicast groups (linux/rtnetlink.h).
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_NEIGH: u32 = 3;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV4_ROUTE: u32 = 7;
const RTNLGRP_IPV6_IFADDR: u32 = 9;
const RTNLGRP_IPV6_ROUTE: u32 = 11;
const GROUPS: [u32; 6] = [
    RTNLGRP_LINK,
    RTNLGRP_NEIGH,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_ROUTE,
];

/// The program in the driver is meant (linux/if_link.h).
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// A link-layer address.
pub(crate) type Mac = [u8; 6];

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) ifindex: u32,
    pub(crate) name: String,
    /// `None` where the link has no Ethernet header.
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    /// What it says as a VLAN interface, if it is one.
    pub(crate) vlan: Option<Vlan>,
    /// The XDP program attached to it: id, and whether the driver runs it.
    pub(crate) xdp: Option<XdpOnLink>,
}

/// An XDP program that some process attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct XdpOnLink {
    pub(crate) program_id: u32,
    pub(crate) native: bool,
}

/// Where the routing table sends a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Out of an interface, to a gateway or (on the link) to the destination itself.
    Out { ifindex: u32, neighbour: IpAddr },
    /// To this host.
    Local,
    /// Nowhere.
    None,
}

/// An entry of the neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub(crate) ifindex: u32,
    pub(crate) address: IpAddr,
    /// The link-layer address, if the kernel would send to it now.
    pub(crate) mac: Option<Mac>,
    /// Entered by hand or needing no resolution: not ours to refresh.
    pub(crate) fixed: bool,
    /// The kernel tried and got no answer.
    pub(crate) failed: bool,
}

/// A change of the namespace's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Neighbour(Neighbour),
    /// The entry of a neighbour is gone, and with it that somebody wanted it kept resolved.
    NeighbourGone {
        ifindex: u32,
        address: IpAddr,
    },
    /// Routes or addresses changed: every lookup may answer differently.
    Routes,
    Link(u32),
    /// More changes than the socket could hold: everything may have changed.
    Lost,
}

/// The two sockets. They stay in the network namespace of the thread that opened them.
pub(crate) struct Netlink {
    requests: Socket,
    changes: Socket,
    sequence: u32,
    buffer: Vec<u8>,
    pending: VecDeque<Change>,
}

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        let mut requests = Socket::new(NETLINK_ROUTE)?;
        requests.bind_auto()?;
        requests.connect(&NetlinkAddr::new(0, 0))?;
        setsockopt(&requests, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_LIMIT_SECONDS))?;

        let mut changes = Socket::new(NETLINK_ROUTE)?;
        changes.bind_auto()?;
        for group in GROUPS {
            changes.add_membership(group)?;
        }
        // Privileged variant first: the ordinary one is capped by net.core.rmem_max.
        if setsockopt(&changes, sockopt::RcvBufForce, &EVENT_BUFFER_BYTES).is_err() {
            setsockopt(&changes, sockopt::RcvBuf, &EVENT_BUFFER_BYTES)?;
        }
        changes.set_non_blocking(true)?;
        Ok(Self {
            requests,
            changes,
            sequence: 0,
            buffer: Vec::with_capacity(READ_BYTES),
            pending: VecDeque::new(),
        })
    }

    /// Readable when `next_change` has something to tell.
    pub(crate) fn changes_fd(&self) -> RawFd {
        self.changes.as_raw_fd()
    }

    pub(crate) fn links(&mut self) -> io::Result<Vec<Link>> {
        let answers = self.request(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        Ok(answers
            .into_iter()
            .filter_map(
                |answer| if let RouteNetlinkMessage::NewLink(link) = answer { Some(link) } else { None },
            )
            .map(read_link)
            .collect())
    }

    /// The addresses of this host, each with the interface that holds it.
    pub(crate) fn addresses(&mut self) -> io::Result<Vec<(u32, IpAddr)>> {
        let answers = self.request(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP)?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| {
                if let RouteNetlinkMessage::NewAddress(address) = answer { Some(address) } else { None }
            })
            .filter_map(|message| {
                let local = message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Local(ip) => Some(*ip),
                    _ => None,
                });
                // IPv6 and broadcast links have no IFA_LOCAL; there IFA_ADDRESS is ours.
                let ip = local.or_else(|| {
                    message.attributes.iter().find_map(|attribute| match attribute {
                        AddressAttribute::Address(ip) => Some(*ip),
                        _ => None,
                    })
                });
                ip.map(|ip| (message.header.index, ip))
            })
            .collect())
    }

    /// The routing decision for a datagram from `source` (an address of ours) to `destination`.
    pub(crate) fn route(&mut self, source: IpAddr, destination: IpAddr) -> io::Result<Route> {
        let mut message = RouteMessage::default();
        let bits = if destination.is_ipv4() { 32 } else { 128 };
        message.header.address_family = family(destination);
        message.header.destination_prefix_length = bits;
        message.header.source_prefix_length = bits;
        message.attributes.push(RouteAttribute::Destination(route_address(destination)));
        message.attributes.push(RouteAttribute::Source(route_address(source)));
        let answers = match self.request(RouteNetlinkMessage::GetRoute(message), 0) {
            Ok(answers) => answers,
            // These are the table's answers (no route, prohibited, blackhole), not failures of the request.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)
                ) =>
            {
                return Ok(Route::None);
            }
            Err(error) => return Err(error),
        };
        for answer in answers {
            if let RouteNetlinkMessage::NewRoute(route) = answer {
                return Ok(read_route(&route, destination));
            }
        }
        Ok(Route::None)
    }

    /// The neighbour table's entry, if there is one.
    pub(crate) fn neighbour(&mut self, ifindex: u32, address: IpAddr) -> io::Result<Option<Neighbour>> {
        let message = neighbour_message(ifindex, address);
        match self.request(RouteNetlinkMessage::GetNeighbour(message), 0) {
            Ok(answers) => Ok(answers.into_iter().find_map(|answer| match answer {
                RouteNetlinkMessage::NewNeighbour(message) => read_neighbour(&message),
                _ => None,
            })),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the kernel resolve the neighbour now, as if it had a datagram for it.
    pub(crate) fn resolve(&mut self, ifindex: u32, address: IpAddr) -> io::Result<()> {
        let mut message = neighbour_message(ifindex, address);
        message.header.flags = NeighbourFlags::Use;
        self.request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE).map(drop)
    }

    /// Makes the kernel resolve the neighbour and keep it resolved (Linux 5.16), since traffic that XDP forwards
    /// never refreshes it.
    pub(crate) fn keep_resolved(&mut self, ifindex: u32, address: IpAddr) -> io::Result<()> {
        let mut message = neighbour_message(ifindex, address);
        message.header.flags = NeighbourFlags::ExtLearned;
        message.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
        self.request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE).map(drop)
    }

    /// Takes the XDP program in the driver off an interface.
    pub(crate) fn detach_xdp(&mut self, ifindex: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        let nothing = vec![LinkXdp::Fd(-1), LinkXdp::Flags(XDP_FLAGS_DRV_MODE)];
        message.attributes.push(LinkAttribute::Xdp(nothing));
        self.request(RouteNetlinkMessage::SetLink(message), 0).map(drop)
    }

    /// The next change, if one has arrived.
    pub(crate) fn next_change(&mut self) -> io::Result<Option<Change>> {
        loop {
            if let Some(change) = self.pending.pop_front() {
                return Ok(Some(change));
            }
            self.buffer.clear();
            match self.changes.recv(&mut self.buffer, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Some(Change::Lost)),
                Err(error) => return Err(error),
            }
            for message in messages(&self.buffer) {
                if let NetlinkPayload::InnerMessage(message) = message.payload
                    && let Some(change) = read_change(&message)
                {
                    self.pending.push_back(change);
                }
            }
        }
    }

    /// Sends one request and gathers the answers up to its acknowledgement or the end of the dump.
    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(message);
        message.header.flags =
            NLM_F_REQUEST | flags | if flags & NLM_F_DUMP == NLM_F_DUMP { 0 } else { NLM_F_ACK };
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.requests.send(&bytes, 0)?;

        let mut answers = Vec::new();
        loop {
            self.buffer.clear();
            match self.requests.recv(&mut self.buffer, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            for message in messages(&self.buffer) {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(answers),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    NetlinkPayload::Overrun(_) => return Err(io::Error::from_raw_os_error(libc::ENOBUFS)),
                    _ => {}
                }
            }
        }
    }
}

/// The messages of one datagram. One that the library cannot read is left out: it is of a kind that we did not ask
/// for, or has a shape that is newer than the library.
fn messages(mut bytes: &[u8]) -> Vec<NetlinkMessage<RouteNetlinkMessage>> {
    let mut messages = Vec::new();
    while let Some(length) = bytes.first_chunk::<4>().map(|length| u32::from_ne_bytes(*length) as usize) {
        if length < 16 || length > bytes.len() {
            break;
        }
        if let Ok(message) = NetlinkMessage::deserialize(&bytes[..length]) {
            messages.push(message);
        }
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    messages
}

fn neighbour_message(ifindex: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = ifindex;
    // The kernel refuses a lookup that names a type; the default names one.
    message.header.kind = RouteType::Unspec;
    let destination = match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    };
    message.attributes.push(NeighbourAttribute::Destination(destination));
    message
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

fn read_change(message: &RouteNetlinkMessage) -> Option<Change> {
    match message {
        RouteNetlinkMessage::NewNeighbour(message) => read_neighbour(message).map(Change::Neighbour),
        RouteNetlinkMessage::DelNeighbour(message) => read_neighbour(message)
            .map(|gone| Change::NeighbourGone { ifindex: gone.ifindex, address: gone.address }),
        RouteNetlinkMessage::NewRoute(_)
        | RouteNetlinkMessage::DelRoute(_)
        | RouteNetlinkMessage::NewAddress(_)
        | RouteNetlinkMessage::DelAddress(_) => Some(Change::Routes),
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
            Some(Change::Link(link.header.index))
        }
        _ => None,
    }
}

fn read_neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(IpAddr::V4(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => address = Some(IpAddr::V6(*ip)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = Mac::try_from(bytes.as_slice()).ok(),
            _ => {}
        }
    }
    let state = message.header.state;
    let usable = matches!(
        state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
            | NeighbourState::Noarp
    );
    Some(Neighbour {
        ifindex: message.header.ifindex,
        address: address?,
        mac: mac.filter(|_| usable),
        fixed: matches!(state, NeighbourState::Permanent | NeighbourState::Noarp),
        failed: state == NeighbourState::Failed,
    })
}

fn read_route(route: &RouteMessage, destination: IpAddr) -> Route {
    let mut out = None;
    let mut gateway = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(ifindex) => out = Some(*ifindex),
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => gateway = Some(IpAddr::V4(*ip)),
            RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => gateway = Some(IpAddr::V6(*ip)),
            // A gateway of the other family (RFC 8950): its neighbour is not in the IPv4 table.
            RouteAttribute::Via(_) => return Route::None,
            _ => {}
        }
    }
    match (route.header.kind, out) {
        (RouteType::Local, _) => Route::Local,
        (RouteType::Unicast, Some(ifindex)) => {
            Route::Out { ifindex, neighbour: gateway.unwrap_or(destination) }
        }
        _ => Route::None,
    }
}

fn read_link(message: LinkMessage) -> Link {
    let mut link = Link {
        ifindex: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        vlan: None,
        xdp: None,
    };
    let mut below = None;
    let mut id = None;
    let mut tag_type = CUSTOMER_TAG;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(bytes) if message.header.link_layer_type == LinkLayerType::Ether => {
                link.mac = Mac::try_from(bytes.as_slice()).ok();
            }
            LinkAttribute::Link(ifindex) => below = Some(ifindex),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Data(InfoData::Vlan(data)) = info {
                        for item in data {
                            match item {
                                InfoVlan::Id(tag) => id = Some(tag),
                                InfoVlan::Protocol(protocol) => tag_type = protocol.into(),
                                _ => {}
                            }
                        }
                    }
                }
            }
            LinkAttribute::Xdp(items) => link.xdp = read_xdp(&items),
            _ => {}
        }
    }
    link.vlan = below.zip(id).map(|(below, id)| Vlan { below, id, tag_type });
    link
}

fn read_xdp(items: &[LinkXdp]) -> Option<XdpOnLink> {
    let mut program_id = None;
    let mut driver_id = None;
    let mut native = false;
    for item in items {
        match item {
            LinkXdp::Attached(XdpAttached::Driver) => native = true,
            LinkXdp::ProgId(id) if *id != 0 => program_id = Some(*id),
            LinkXdp::DrvProgId(id) if *id != 0 => driver_id = Some(*id),
            LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) if *id != 0 => {
                program_id = program_id.or(Some(*id));
            }
            _ => {}
        }
    }
    driver_id.or(program_id).map(|program_id| XdpOnLink { program_id, native: native || driver_id.is_some() })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_loopback_is_a_link_of_every_namespace() {
        let mut netlink = Netlink::open().unwrap();
        let links = netlink.links().unwrap();
        let lo = links.iter().find(|link| link.name == "lo").expect("every namespace has lo");
        assert_eq!(lo.ifindex, 1);
        assert_eq!(lo.xdp, None);
        assert_eq!(lo.vlan, None);
    }

    #[test]
    fn an_address_of_this_host_is_local_and_a_missing_neighbour_is_none() {
        let mut netlink = Netlink::open().unwrap();
        let lo_is_up = netlink.addresses().unwrap().contains(&(1, IpAddr::V4(Ipv4Addr::LOCALHOST)));
        if lo_is_up {
            let route = netlink.route(IpAddr::V4(Ipv4Addr::LOCALHOST), [127, 0, 0, 9].into()).unwrap();
            assert_eq!(route, Route::Local);
        }
        assert_eq!(netlink.neighbour(1, [192, 0, 2, 77].into()).unwrap(), None);
        assert_eq!(netlink.next_change().unwrap(), None);
    }

    #[test]
    fn bytes_that_are_no_messages_end_the_reading() {
        assert!(messages(&[]).is_empty());
        assert!(messages(&[1, 0, 0]).is_empty());
        assert!(messages(&[0; 64]).is_empty());
        assert!(messages(&u32::MAX.to_ne_bytes()).is_empty());
    }
}
