//! From the frame to what the guard judges: who sent what kind of packet to which of our SIP sockets.
//!
//! Ethernet, up to two VLAN tags, IPv4 and IPv6, UDP and TCP. Ports behind IP options or extension headers, and of
//! fragments, are not read: such packets are rare, and what they carry is judged by address alone.

use super::key::{self, AddressWords};
use crate::ctx::Frame;
use crate::parse::v6::EXTENSIONS;
use crate::parse::{ETHERNET_BYTES, ETHERTYPE_IPV4, ETHERTYPE_VLAN, IPV4_BYTES, UDP, UDP_BYTES, VLAN_BYTES};

const ETHERTYPE_IPV6: u16 = 0x86dd;
/// IEEE 802.1ad.
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;
const IPV6_BYTES: usize = 40;
const TCP_BYTES: usize = 20;

/// IP protocol number of TCP.
pub const TCP: u8 = 6;

const FRAGMENT_MASK: u16 = 0x3fff;
const TCP_SYN: u8 = 0x02;
const TCP_ACK: u8 = 0x10;

/// A packet that may be for a SIP socket of ours.
pub struct Arrival {
    /// Its source.
    pub source: AddressWords,
    /// As it is counted.
    pub key: key::Source,
    /// Its source port, network order; 0 where ports are not read.
    pub source_port: [u8; 2],
    /// Where to.
    pub destination: AddressWords,
    /// The port there, as the source port.
    pub port: [u8; 2],
    /// IP protocol number; 0 where ports are not read.
    pub protocol: u8,
    /// Of what kind.
    pub kind: Kind,
}

/// What a packet is to the guard.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A UDP datagram.
    Datagram {
        /// Where its payload starts.
        payload_offset: usize,
        /// Its length as announced, with the header's.
        udp_bytes: usize,
    },
    /// An attempt to open a TCP connection.
    Connection,
    /// Another TCP segment.
    Segment,
    /// Its ports are not read.
    Unread,
}

/// Reads the headers. `None`: not for a SIP socket, whatever sockets there are.
#[inline(always)]
pub fn read(frame: &Frame) -> Option<Arrival> {
    let mut offset = ETHERNET_BYTES;
    let mut ethertype = u16::from_be(frame.window::<ETHERNET_BYTES>(0)?.load16::<12>());
    for _ in 0..2 {
        if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_SERVICE_VLAN {
            break;
        }
        ethertype = u16::from_be(frame.window::<VLAN_BYTES>(offset)?.load16::<2>());
        offset += VLAN_BYTES;
    }
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, offset),
        ETHERTYPE_IPV6 => ipv6(frame, offset),
        _ => None,
    }
}

#[inline(always)]
fn ipv4(frame: &Frame, offset: usize) -> Option<Arrival> {
    let ip = frame.window::<IPV4_BYTES>(offset)?;
    let (first, protocol) = (ip.load8::<0>(), ip.load8::<9>());
    if first >> 4 != 4 || (protocol != UDP && protocol != TCP) {
        return None;
    }
    let source = ip.load32::<12>();
    let from = Source { address: mapped(source), key: key::source_v4(source) };
    let to = mapped(ip.load32::<16>());
    if first != 0x45 || u16::from_be(ip.load16::<6>()) & FRAGMENT_MASK != 0 {
        return Some(from.unread(to));
    }
    transport(frame, offset + IPV4_BYTES, protocol, from, to)
}

#[inline(always)]
fn ipv6(frame: &Frame, offset: usize) -> Option<Arrival> {
    let ip = frame.window::<IPV6_BYTES>(offset)?;
    let source = [ip.load32::<8>(), ip.load32::<12>(), ip.load32::<16>(), ip.load32::<20>()];
    let from = Source { address: source, key: key::source_v6(source) };
    let to = [ip.load32::<24>(), ip.load32::<28>(), ip.load32::<32>(), ip.load32::<36>()];
    let next = ip.load8::<6>();
    if EXTENSIONS.contains(&next) {
        return Some(from.unread(to));
    }
    transport(frame, offset + IPV6_BYTES, next, from, to)
}

#[inline(always)]
fn transport(frame: &Frame, offset: usize, protocol: u8, from: Source, to: AddressWords) -> Option<Arrival> {
    let (ports, kind) = match protocol {
        UDP => {
            let udp = frame.window::<UDP_BYTES>(offset)?;
            let payload_offset = offset + UDP_BYTES;
            let udp_bytes = usize::from(u16::from_be(udp.load16::<4>()));
            (udp.load32::<0>(), Kind::Datagram { payload_offset, udp_bytes })
        }
        TCP => {
            let tcp = frame.window::<TCP_BYTES>(offset)?;
            let opens = tcp.load8::<13>() & (TCP_SYN | TCP_ACK) == TCP_SYN;
            (tcp.load32::<0>(), if opens { Kind::Connection } else { Kind::Segment })
        }
        _ => return None,
    };
    let [a, b, c, d] = ports.to_ne_bytes();
    let (source, key) = (from.address, from.key);
    Some(Arrival { source, key, source_port: [a, b], destination: to, port: [c, d], protocol, kind })
}

struct Source {
    address: AddressWords,
    key: key::Source,
}

impl Source {
    #[inline(always)]
    fn unread(self, destination: AddressWords) -> Arrival {
        let (source, key) = (self.address, self.key);
        let (source_port, port, protocol) = ([0; 2], [0; 2], 0);
        Arrival { source, key, source_port, destination, port, protocol, kind: Kind::Unread }
    }
}

#[inline(always)]
fn mapped(address: u32) -> AddressWords {
    [0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff]), address]
}
