//! Datagrams of both families for the packet tables, and the oracle: every checksum here is computed whole by etherparse,
//! which shares no code with the program under test.

use std::net::{IpAddr, SocketAddr};

use etherparse::{IpNumber, Ipv4Header, Ipv6Header, NetSlice, SlicedPacket, TransportSlice, UdpHeader};

use crate::packet::UdpChecksum;

/// A UDP datagram in an Ethernet frame.
#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    pub(crate) destination_mac: [u8; 6],
    pub(crate) source_mac: [u8; 6],
    /// The tags, the outer one first.
    pub(crate) tags: Vec<u16>,
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    /// Type of service, or traffic class.
    pub(crate) service: u8,
    /// TTL, or hop limit.
    pub(crate) ttl: u8,
    /// Identification of IPv4, or flow label of IPv6.
    pub(crate) label: u16,
    pub(crate) payload: Vec<u8>,
    pub(crate) udp_checksum: UdpChecksum,
    /// Bytes after the IP packet.
    pub(crate) padding: usize,
}

impl Datagram {
    /// 20 ms of G.711 in RTP.
    pub(crate) fn rtp(source: SocketAddr, destination: SocketAddr) -> Self {
        let mut payload = vec![0x80, 0, 0x12, 0x34, 0, 0, 0, 160, 0xde, 0xad, 0xbe, 0xef];
        payload.extend((0..160u8).map(|n| n ^ 0xd5));
        Self {
            destination_mac: [2, 0, 0, 0, 0, 0xaa],
            source_mac: [2, 0, 0, 0, 0, 0xbb],
            tags: Vec::new(),
            source,
            destination,
            service: 0,
            ttl: 57,
            label: 0x4711,
            payload,
            udp_checksum: UdpChecksum::Right,
            padding: 0,
        }
    }

    /// A receiver report without blocks.
    pub(crate) fn rtcp(source: SocketAddr, destination: SocketAddr) -> Self {
        Self { payload: vec![0x80, 201, 0, 1, 0xde, 0xad, 0xbe, 0xef], ..Self::rtp(source, destination) }
    }

    /// Where the IP header starts.
    pub(crate) fn ip(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    /// Where the UDP header starts.
    pub(crate) fn udp(&self) -> usize {
        self.ip() + if self.source.is_ipv6() { 40 } else { 20 }
    }

    /// The frame.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let udp_bytes = u16::try_from(8 + self.payload.len()).unwrap();
        let (ports, payload) = ((self.source.port(), self.destination.port()), &self.payload);
        let (ether_type, ip, mut udp) = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let (source, destination) = (source.octets(), destination.octets());
                let mut ip =
                    Ipv4Header::new(udp_bytes, self.ttl, IpNumber::UDP, source, destination).unwrap();
                ip.dscp = (self.service >> 2).try_into().unwrap();
                ip.ecn = (self.service & 3).try_into().unwrap();
                ip.identification = self.label;
                ip.dont_fragment = true;
                ip.header_checksum = ip.calc_header_checksum();
                let udp = UdpHeader::with_ipv4_checksum(ports.0, ports.1, &ip, payload).unwrap();
                ([0x08, 0x00], ip.to_bytes().to_vec(), udp)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let ip = Ipv6Header {
                    traffic_class: self.service,
                    flow_label: u32::from(self.label).try_into().unwrap(),
                    payload_length: udp_bytes,
                    next_header: IpNumber::UDP,
                    hop_limit: self.ttl,
                    source: source.octets(),
                    destination: destination.octets(),
                };
                let udp = UdpHeader::with_ipv6_checksum(ports.0, ports.1, &ip, payload).unwrap();
                ([0x86, 0xdd], ip.to_bytes().to_vec(), udp)
            }
            mixed => panic!("{mixed:?}"),
        };
        match self.udp_checksum {
            UdpChecksum::Right => {}
            UdpChecksum::None => udp.checksum = 0,
            UdpChecksum::Wrong => udp.checksum = if udp.checksum == 0x0101 { 0x0202 } else { 0x0101 },
        }
        let mut frame = [self.destination_mac, self.source_mac].concat();
        for (at, tag) in self.tags.iter().enumerate() {
            frame.extend(if at + 1 < self.tags.len() { [0x88, 0xa8] } else { [0x81, 0x00] });
            frame.extend(tag.to_be_bytes());
        }
        frame.extend(ether_type);
        frame.extend(ip);
        frame.extend(udp.to_bytes());
        frame.extend_from_slice(payload);
        frame.resize(frame.len() + self.padding, 0);
        frame
    }

    /// The frame with some bytes set afterwards.
    pub(crate) fn with(&self, changes: &[(usize, &[u8])]) -> Vec<u8> {
        let mut frame = self.bytes();
        for (at, bytes) in changes {
            frame[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        frame
    }
}

/// What the headers of a well-formed frame say, and how far its UDP checksum is from the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) service: u8,
    pub(crate) ttl: u8,
    pub(crate) payload: Vec<u8>,
    /// What is to be added to the right checksum, in ones' complement; `None`: there is no checksum.
    pub(crate) wrong_by: Option<u16>,
}

/// Reads a frame; `None` if lengths or header fields contradict each other, an IPv4 header's checksum is wrong, or it is
/// something else than UDP without options, extension headers and fragments.
pub(crate) fn read(frame: &[u8]) -> Option<Read> {
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(TransportSlice::Udp(udp)) = sliced.transport else { return None };
    let (source, destination, service, ttl, right) = match sliced.net? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            let plain = header.header_checksum == header.calc_header_checksum()
                && header.options.is_empty()
                && !header.more_fragments;
            let right = udp.to_header().calc_checksum_ipv4(&header, udp.payload()).unwrap();
            let service = header.dscp.value() << 2 | header.ecn.value();
            plain.then(|| {
                (header.source.into(), header.destination.into(), service, header.time_to_live, right)
            })?
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            let right = udp.to_header().calc_checksum_ipv6(&header, udp.payload()).unwrap();
            let (source, destination) = (IpAddr::from(header.source), IpAddr::from(header.destination));
            (source, destination, header.traffic_class, header.hop_limit, right)
        }
        _ => return None,
    };
    let difference = (u32::from(udp.checksum()) + 0xffff - u32::from(right)) % 0xffff;
    Some(Read {
        source: SocketAddr::new(source, udp.source_port()),
        destination: SocketAddr::new(destination, udp.destination_port()),
        service,
        ttl,
        payload: udp.payload().to_vec(),
        wrong_by: (udp.checksum() != 0).then_some(difference as u16),
    })
}
