//! IPv4 without options (RFC 791) and UDP (RFC 768).

use super::{IPV4_BYTES, Link, UDP, UDP_BYTES};
use crate::ctx::Frame;
use crate::outcome::{DropReason, PassReason};

const VERSION_4_IHL_5: u8 = 0x45;
/// More fragments, and the fragment offset; not the reserved bit and not "don't fragment".
const FRAGMENT_MASK: u16 = 0x3fff;

/// What the headers say. Lengths are as announced and not yet compared with the frame's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Where the IP header starts.
    pub ip_offset: usize,
    /// Source address and port, as the word of an `Endpoint`.
    pub source: u64,
    /// Destination address, as it lies in memory.
    pub destination_address: u32,
    /// Destination port.
    pub destination_port: u16,
    /// Length of the IP packet.
    pub ip_bytes: u16,
    /// Length of the UDP header and payload.
    pub udp_bytes: u16,
}

/// Reads the headers.
#[inline(always)]
pub fn datagram(frame: &Frame, link: &Link) -> Result<Datagram, PassReason> {
    let ip = frame.window::<IPV4_BYTES>(link.ip_offset).ok_or(PassReason::Truncated)?;
    if ip.load8::<0>() != VERSION_4_IHL_5 {
        return Err(PassReason::IpOptions);
    }
    if u16::from_be(ip.load16::<6>()) & FRAGMENT_MASK != 0 {
        return Err(PassReason::Fragment);
    }
    if ip.load8::<9>() != UDP {
        return Err(PassReason::NotUdp);
    }
    let udp = frame.window::<UDP_BYTES>(link.ip_offset + IPV4_BYTES).ok_or(PassReason::Truncated)?;
    let ([a, b, c, d], [e, f]) = (ip.load32::<12>().to_ne_bytes(), udp.load16::<0>().to_ne_bytes());
    Ok(Datagram {
        ip_offset: link.ip_offset,
        source: u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]),
        destination_address: ip.load32::<16>(),
        destination_port: u16::from_be(udp.load16::<2>()),
        ip_bytes: u16::from_be(ip.load16::<2>()),
        udp_bytes: u16::from_be(udp.load16::<4>()),
    })
}

impl Datagram {
    /// Where the UDP header starts.
    #[inline(always)]
    pub fn udp_offset(&self) -> usize {
        self.ip_offset + IPV4_BYTES
    }

    /// The announced lengths nest: UDP in IP in the frame. The frame may be padded.
    #[inline(always)]
    pub fn check_lengths(&self, frame: &Frame) -> Result<(), DropReason> {
        let (ip_bytes, udp_bytes) = (usize::from(self.ip_bytes), usize::from(self.udp_bytes));
        if udp_bytes < UDP_BYTES
            || IPV4_BYTES + udp_bytes > ip_bytes
            || self.ip_offset + ip_bytes > frame.length()
        {
            return Err(DropReason::BadLength);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::link;
    use super::*;
    use proptest::prelude::*;

    const UNTAGGED: [u8; 42] = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00, // Ethernet
        0x45, 0, 0, 28, 0, 1, 0x40, 0, 64, 17, 0, 0, 203, 0, 113, 5, 192, 0, 2, 1, // IPv4
        0x0f, 0xa0, 0x4e, 0x20, 0, 8, 0, 0, // UDP
    ];

    fn read(bytes: &mut [u8]) -> Result<Datagram, PassReason> {
        let frame = Frame::over(bytes);
        datagram(&frame, &link(&frame)?)
    }

    fn expected(ip_offset: usize) -> Datagram {
        Datagram {
            ip_offset,
            source: u64::from_ne_bytes([203, 0, 113, 5, 0x0f, 0xa0, 0, 0]),
            destination_address: u32::from_ne_bytes([192, 0, 2, 1]),
            destination_port: 20_000,
            ip_bytes: 28,
            udp_bytes: 8,
        }
    }

    #[test]
    fn headers_are_read_with_and_without_a_tag() {
        assert_eq!(read(&mut UNTAGGED.clone()), Ok(expected(14)));
        let mut tagged = [0; 46];
        tagged[..12].copy_from_slice(&UNTAGGED[..12]);
        tagged[12..16].copy_from_slice(&[0x81, 0, 0xa1, 0x23]);
        tagged[16..].copy_from_slice(&UNTAGGED[12..]);
        assert_eq!(read(&mut tagged), Ok(expected(18)));
    }

    #[test]
    fn dont_fragment_is_not_a_fragment() {
        for (bits, result) in
            [(0x40, Ok(expected(14))), (0x20, Err(PassReason::Fragment)), (0x01, Err(PassReason::Fragment))]
        {
            let mut frame = UNTAGGED;
            frame[20] = bits;
            assert_eq!(read(&mut frame), result, "{bits:#x}");
        }
    }

    proptest! {
        #[test]
        fn a_cut_frame_is_truncated(length in 0..42usize) {
            let mut frame = UNTAGGED;
            prop_assert_eq!(read(&mut frame[..length]), Err(PassReason::Truncated));
        }
    }
}
