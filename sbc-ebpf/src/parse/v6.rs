//! IPv6 without extension headers (RFC 8200) and UDP.

use sbc_common::checksum::Delta;
use sbc_common::flow6;

use super::{Link, UDP, UDP_BYTES};
use crate::ctx::Frame;
use crate::outcome::{DropReason, PassReason};

/// Bytes of an IPv6 header.
pub const IPV6_BYTES: usize = 40;

const FRAGMENT: u8 = 44;
/// Headers behind which a datagram may be (RFC 8200 s.4): hop-by-hop options, routing, fragment, authentication,
/// destination options.
pub const EXTENSIONS: [u8; 5] = [0, 43, FRAGMENT, 51, 60];

/// An address and a port as they lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The first eight bytes of the address.
    pub high: u64,
    /// The last eight bytes of the address.
    pub low: u64,
    /// The port.
    pub port: u16,
}

impl End {
    /// From the words of an `Endpoint6`.
    #[inline(always)]
    pub fn from_words([high, low, last]: [u64; 3]) -> Self {
        Self { high, low, port: flow6::port_of(last) }
    }

    /// As the words of an `Endpoint6`.
    #[inline(always)]
    pub fn to_words(self) -> [u64; 3] {
        let [a, b] = self.port.to_ne_bytes();
        [self.high, self.low, u64::from_ne_bytes([a, b, 0, 0, 0, 0, 0, 0])]
    }

    /// The address and a port as a map and a number have them.
    #[inline(always)]
    pub fn new(address: [u8; 16], port: u16) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
        Self {
            high: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            low: u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
            port: port.to_be(),
        }
    }

    /// The two ports of packets from here to there, as they are to lie in memory.
    #[inline(always)]
    pub fn ports_to(self, destination_port: u16) -> u32 {
        let ([a, b], [c, d]) = (self.port.to_ne_bytes(), destination_port.to_ne_bytes());
        u32::from_ne_bytes([a, b, c, d])
    }

    /// What the address adds to a checksum that it comes into.
    #[inline(always)]
    pub fn added_to(self, delta: Delta) -> Delta {
        delta.with64(self.high).with64(self.low)
    }

    /// What the address takes from a checksum that it goes out of.
    #[inline(always)]
    pub fn removed_from(self, delta: Delta) -> Delta {
        delta.without64(self.high).without64(self.low)
    }

    /// The sum of the address, in words of any size.
    #[inline(always)]
    pub fn sum(self) -> u64 {
        let halves = |word: u64| (word >> 32) + (word & 0xffff_ffff);
        halves(self.high) + halves(self.low)
    }
}

/// What the headers say. Lengths are as announced and not yet compared with the frame's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Where the IP header starts.
    pub ip_offset: usize,
    /// Traffic class.
    pub traffic_class: u8,
    /// Source address and port.
    pub source: End,
    /// Destination address and port.
    pub destination: End,
    /// Length of what follows the IP header.
    pub payload_bytes: u16,
    /// Length of the UDP header and payload.
    pub udp_bytes: u16,
    /// The UDP checksum, as it lies in memory.
    pub udp_checksum: u16,
}

/// Reads the headers.
#[inline(always)]
pub fn datagram(frame: &Frame, link: &Link) -> Result<Datagram, PassReason> {
    let ip = frame.window::<IPV6_BYTES>(link.ip_offset).ok_or(PassReason::Truncated)?;
    let first = u16::from_be(ip.load16::<0>());
    if first >> 12 != 6 {
        return Err(PassReason::ExtensionHeader);
    }
    match ip.load8::<6>() {
        UDP => {}
        FRAGMENT => return Err(PassReason::Fragment),
        next if EXTENSIONS.contains(&next) => return Err(PassReason::ExtensionHeader),
        _ => return Err(PassReason::NotUdp),
    }
    let udp = frame.window::<UDP_BYTES>(link.ip_offset + IPV6_BYTES).ok_or(PassReason::Truncated)?;
    Ok(Datagram {
        ip_offset: link.ip_offset,
        traffic_class: (first >> 4) as u8,
        source: End { high: ip.load64::<8>(), low: ip.load64::<16>(), port: udp.load16::<0>() },
        destination: End { high: ip.load64::<24>(), low: ip.load64::<32>(), port: udp.load16::<2>() },
        payload_bytes: u16::from_be(ip.load16::<4>()),
        udp_bytes: u16::from_be(udp.load16::<4>()),
        udp_checksum: udp.load16::<6>(),
    })
}

impl Datagram {
    /// Where the UDP header starts.
    #[inline(always)]
    pub fn udp_offset(&self) -> usize {
        self.ip_offset + IPV6_BYTES
    }

    /// The announced lengths nest: UDP in IP in the frame. The frame may be padded.
    #[inline(always)]
    pub fn check_lengths(&self, frame: &Frame) -> Result<(), DropReason> {
        let (payload_bytes, udp_bytes) = (usize::from(self.payload_bytes), usize::from(self.udp_bytes));
        if udp_bytes < UDP_BYTES
            || udp_bytes > payload_bytes
            || self.udp_offset() + payload_bytes > frame.length()
        {
            return Err(DropReason::BadLength);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::super::{ETHERTYPE_IPV6, link};
    use super::*;
    use std::vec::Vec;

    const SOURCE: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
    const DESTINATION: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

    fn packet(tags: &[u8], next: u8) -> Vec<u8> {
        let mut frame = Vec::from([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
        frame.extend(tags);
        frame.extend([0x86, 0xdd, 0x6b, 0x8c, 0, 0, 0, 8, next, 64]);
        frame.extend(SOURCE);
        frame.extend(DESTINATION);
        frame.extend([0x0f, 0xa0, 0x4e, 0x20, 0, 8, 0x12, 0x34]);
        frame
    }

    fn read(bytes: &mut [u8]) -> Result<Datagram, PassReason> {
        let frame = Frame::over(bytes);
        let link = link(&frame)?;
        assert_eq!(link.ether_type, ETHERTYPE_IPV6);
        datagram(&frame, &link)
    }

    #[test]
    fn headers_are_read_behind_tags() {
        for tags in [&[][..], &[0x81, 0, 0xa1, 0x23], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 9]] {
            let expected = Datagram {
                ip_offset: 14 + tags.len(),
                traffic_class: 0xb8,
                source: End::new(SOURCE, 4000),
                destination: End::new(DESTINATION, 20_000),
                payload_bytes: 8,
                udp_bytes: 8,
                udp_checksum: u16::from_ne_bytes([0x12, 0x34]),
            };
            let mut frame = packet(tags, 17);
            assert_eq!(read(&mut frame), Ok(expected));
            for length in 0..frame.len() {
                assert_eq!(read(&mut frame[..length]), Err(PassReason::Truncated));
            }
        }
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
            assert_eq!(read(&mut packet(&[], next)), Err(reason), "{next}");
        }
        let mut version_4 = packet(&[], 17);
        version_4[14] = 0x45;
        assert_eq!(read(&mut version_4), Err(PassReason::ExtensionHeader));
    }

    #[test]
    fn an_end_survives_its_words() {
        let end = End::new(SOURCE, 4000);
        assert_eq!(End::from_words(end.to_words()), end);
        assert_eq!(end.to_words(), sbc_common::flow6::Endpoint6::new(SOURCE, 4000).to_words());
    }
}
