//! From the frame to a UDP datagram in IPv6 (RFC 8200): Ethernet, up to two VLAN tags, no extension headers. Whatever
//! does not fit is not judged here: it passes.

use crate::ctx::Frame;
use crate::outcome::PassReason;
use crate::parse::{ETHERNET_BYTES, ETHERTYPE_VLAN, UDP, UDP_BYTES, VLAN_BYTES};

/// Bytes of an IPv6 header.
pub const IPV6_BYTES: usize = 40;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// EtherType of an outer VLAN tag (IEEE 802.1ad).
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;

const VLAN_ID_MASK: u16 = 0x0fff;
const FRAGMENT: u8 = 44;
/// Hop-by-hop options, routing, authentication, destination options.
const EXTENSIONS: [u8; 4] = [0, 43, 51, 60];

/// An address as it lies in memory, in two words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address6 {
    /// The first eight bytes.
    pub high: u64,
    /// The last eight bytes.
    pub low: u64,
}

/// What the headers say. Lengths are as announced and not yet compared with the frame's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram6 {
    /// Where the IP header starts.
    pub ip_offset: usize,
    /// The VLAN id; 0 without a tag or with a priority tag.
    pub vlan: u16,
    /// The VLAN id of the outer of two tags; 0 if there are not two.
    pub outer_vlan: u16,
    /// Source address.
    pub source: Address6,
    /// Source port, as it lies in memory.
    pub source_port: u16,
    /// Destination address.
    pub destination: Address6,
    /// Destination port.
    pub destination_port: u16,
    /// Length of what follows the IP header.
    pub ip_payload_bytes: u16,
    /// Length of the UDP header and payload.
    pub udp_bytes: u16,
    /// The UDP checksum, as it lies in memory.
    pub udp_checksum: u16,
}

/// Reads the headers.
#[inline(always)]
pub fn datagram(frame: &Frame) -> Result<Datagram6, PassReason> {
    let mut ip_offset = ETHERNET_BYTES;
    let ethernet = frame.window::<ETHERNET_BYTES>(0).ok_or(PassReason::Truncated)?;
    let mut ethertype = u16::from_be(ethernet.load16::<12>());
    let (mut vlan, mut outer_vlan) = (0, 0);
    for _ in 0..2 {
        if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_SERVICE_VLAN {
            break;
        }
        let tag = frame.window::<VLAN_BYTES>(ip_offset).ok_or(PassReason::Truncated)?;
        (outer_vlan, vlan) = (vlan, u16::from_be(tag.load16::<0>()) & VLAN_ID_MASK);
        ethertype = u16::from_be(tag.load16::<2>());
        ip_offset += VLAN_BYTES;
    }
    if ethertype != ETHERTYPE_IPV6 {
        return Err(PassReason::NotIp);
    }
    let ip = frame.window::<IPV6_BYTES>(ip_offset).ok_or(PassReason::Truncated)?;
    if ip.load8::<0>() >> 4 != 6 {
        return Err(PassReason::ExtensionHeader);
    }
    match ip.load8::<6>() {
        UDP => {}
        FRAGMENT => return Err(PassReason::Fragment),
        next if EXTENSIONS.contains(&next) => return Err(PassReason::ExtensionHeader),
        _ => return Err(PassReason::NotUdp),
    }
    let udp = frame.window::<UDP_BYTES>(ip_offset + IPV6_BYTES).ok_or(PassReason::Truncated)?;
    Ok(Datagram6 {
        ip_offset,
        vlan,
        outer_vlan,
        source: Address6 { high: ip.load64::<8>(), low: ip.load64::<16>() },
        source_port: udp.load16::<0>(),
        destination: Address6 { high: ip.load64::<24>(), low: ip.load64::<32>() },
        destination_port: u16::from_be(udp.load16::<2>()),
        ip_payload_bytes: u16::from_be(ip.load16::<4>()),
        udp_bytes: u16::from_be(udp.load16::<4>()),
        udp_checksum: udp.load16::<6>(),
    })
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::vec::Vec;

    const SOURCE: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
    const DESTINATION: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

    fn packet(tags: &[u8], next: u8) -> Vec<u8> {
        let mut frame = Vec::from([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
        frame.extend(tags);
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, next, 64]);
        frame.extend(SOURCE);
        frame.extend(DESTINATION);
        frame.extend([0x0f, 0xa0, 0x4e, 0x20, 0, 8, 0x12, 0x34]);
        frame
    }

    fn address(bytes: [u8; 16]) -> Address6 {
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
        Address6 { high: word(0), low: word(8) }
    }

    #[test]
    fn headers_are_read_behind_up_to_two_tags() {
        for (tags, vlan, outer_vlan) in [
            (&[][..], 0, 0),
            (&[0x81, 0, 0xa1, 0x23], 0x123, 0),
            (&[0x88, 0xa8, 0, 7, 0x81, 0, 0, 9], 9, 7),
            (&[0x81, 0, 0, 7, 0x81, 0, 0, 9], 9, 7),
        ] {
            let expected = Datagram6 {
                ip_offset: 14 + tags.len(),
                vlan,
                outer_vlan,
                source: address(SOURCE),
                source_port: u16::from_ne_bytes([0x0f, 0xa0]),
                destination: address(DESTINATION),
                destination_port: 20_000,
                ip_payload_bytes: 8,
                udp_bytes: 8,
                udp_checksum: u16::from_ne_bytes([0x12, 0x34]),
            };
            let mut frame = packet(tags, 17);
            assert_eq!(datagram(&Frame::over(&mut frame)), Ok(expected));
            for length in 0..frame.len() {
                assert_eq!(datagram(&Frame::over(&mut frame[..length])), Err(PassReason::Truncated));
            }
        }
        let mut three = packet(&[0x81, 0, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3], 17);
        assert_eq!(datagram(&Frame::over(&mut three)), Err(PassReason::NotIp));
    }

    #[test]
    fn what_is_not_plain_udp_is_told_apart() {
        for (next, reason) in [
            (0, PassReason::ExtensionHeader),
            (43, PassReason::ExtensionHeader),
            (60, PassReason::ExtensionHeader),
            (44, PassReason::Fragment),
            (6, PassReason::NotUdp),
            (58, PassReason::NotUdp),
        ] {
            assert_eq!(datagram(&Frame::over(&mut packet(&[], next))), Err(reason), "{next}");
        }
        let mut version_4 = packet(&[], 17);
        version_4[14] = 0x45;
        assert_eq!(datagram(&Frame::over(&mut version_4)), Err(PassReason::ExtensionHeader));
    }
}
