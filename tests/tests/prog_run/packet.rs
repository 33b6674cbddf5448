//! Frames for the packet tables, and the oracle: every checksum here is computed whole by etherparse, which shares no
//! code with the program under test.

use etherparse::{IpNumber, Ipv4Header, NetSlice, SlicedPacket, TransportSlice, UdpHeader};

/// Where the Ethernet header of an untagged frame ends.
pub(crate) const IP: usize = 14;
/// Where the UDP header of an untagged frame starts.
pub(crate) const UDP: usize = IP + 20;

/// How the UDP checksum of a frame is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UdpChecksum {
    Right,
    /// Zero: the sender computed none.
    None,
    Wrong,
}

/// A UDP datagram in an Ethernet frame.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) destination_mac: [u8; 6],
    pub(crate) source_mac: [u8; 6],
    pub(crate) vlan: Option<u16>,
    /// The outer of two tags (IEEE 802.1ad).
    pub(crate) outer_vlan: Option<u16>,
    pub(crate) source: ([u8; 4], u16),
    pub(crate) destination: ([u8; 4], u16),
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    pub(crate) identification: u16,
    pub(crate) payload: Vec<u8>,
    pub(crate) udp_checksum: UdpChecksum,
    /// Bytes after the IP packet.
    pub(crate) padding: usize,
}

impl Packet {
    /// 20 ms of G.711 in RTP.
    pub(crate) fn rtp(source: ([u8; 4], u16), destination: ([u8; 4], u16)) -> Self {
        let mut payload = vec![0x80, 0, 0x12, 0x34, 0, 0, 0, 160, 0xde, 0xad, 0xbe, 0xef];
        payload.extend((0..160u8).map(|n| n ^ 0xd5));
        Self {
            destination_mac: [2, 0, 0, 0, 0, 0xaa],
            source_mac: [2, 0, 0, 0, 0, 0xbb],
            vlan: None,
            outer_vlan: None,
            source,
            destination,
            tos: 0,
            ttl: 57,
            identification: 0x4711,
            payload,
            udp_checksum: UdpChecksum::Right,
            padding: 0,
        }
    }

    /// A receiver report without blocks.
    pub(crate) fn rtcp(source: ([u8; 4], u16), destination: ([u8; 4], u16)) -> Self {
        Self { payload: vec![0x80, 201, 0, 1, 0xde, 0xad, 0xbe, 0xef], ..Self::rtp(source, destination) }
    }

    /// The frame.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let [dscp, ecn] = [self.tos >> 2, self.tos & 3];
        let mut ip = Ipv4Header::new(
            u16::try_from(8 + self.payload.len()).unwrap(),
            self.ttl,
            IpNumber::UDP,
            self.source.0,
            self.destination.0,
        )
        .unwrap();
        (ip.dscp, ip.ecn) = (dscp.try_into().unwrap(), ecn.try_into().unwrap());
        ip.identification = self.identification;
        ip.dont_fragment = true;
        ip.header_checksum = ip.calc_header_checksum();
        let mut udp =
            UdpHeader::with_ipv4_checksum(self.source.1, self.destination.1, &ip, &self.payload).unwrap();
        match self.udp_checksum {
            UdpChecksum::Right => {}
            UdpChecksum::None => udp.checksum = 0,
            UdpChecksum::Wrong => udp.checksum = if udp.checksum == 0x0101 { 0x0202 } else { 0x0101 },
        }
        let mut frame = [self.destination_mac, self.source_mac].concat();
        if let Some(vlan) = self.outer_vlan {
            frame.extend([0x88, 0xa8]);
            frame.extend(vlan.to_be_bytes());
        }
        if let Some(vlan) = self.vlan {
            frame.extend([0x81, 0]);
            frame.extend(vlan.to_be_bytes());
        }
        frame.extend([0x08, 0]);
        frame.extend_from_slice(&ip.to_bytes());
        frame.extend_from_slice(&udp.to_bytes());
        frame.extend_from_slice(&self.payload);
        frame.resize(frame.len() + self.padding, 0);
        frame
    }

    /// The frame with some bytes set afterwards and the IP header's checksum made right again.
    pub(crate) fn with(&self, changes: &[(usize, &[u8])]) -> Vec<u8> {
        let mut frame = self.bytes();
        for (at, bytes) in changes {
            frame[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        fix_ip_checksum(&mut frame[IP..]);
        frame
    }
}

/// Computes the checksum of the IPv4 header at the start, options included, if its length allows.
pub(crate) fn fix_ip_checksum(packet: &mut [u8]) {
    if let Ok((mut header, _)) = Ipv4Header::from_slice(packet) {
        header.header_checksum = header.calc_header_checksum();
        packet[10..12].copy_from_slice(&header.header_checksum.to_be_bytes());
    }
}

/// What can be wrong with a frame that should hold UDP in IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Lengths or header fields contradict each other, or it is something else.
    Structure,
    IpChecksum,
    UdpChecksum,
}

/// What is wrong with a frame, the outermost first.
pub(crate) fn fault(frame: &[u8]) -> Option<Fault> {
    let Ok(sliced) = SlicedPacket::from_ethernet(frame) else { return Some(Fault::Structure) };
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) = (sliced.net, sliced.transport) else {
        return Some(Fault::Structure);
    };
    let header = ip.header().to_header();
    if header.header_checksum != header.calc_header_checksum() {
        return Some(Fault::IpChecksum);
    }
    let right = udp.to_header().calc_checksum_ipv4(&header, udp.payload()).unwrap();
    if udp.checksum() != 0 && udp.checksum() != right {
        return Some(Fault::UdpChecksum);
    }
    None
}
