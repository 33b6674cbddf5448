//! The headers of a datagram that leaves by a raw socket: RFC 768 over RFC 791 or RFC 8200.
//!
//! The kernel fills in an IPv4 header's identification and checksum, which stay zero here. A packet
//! may be fragmented on its way (no DF): a raw socket hears of no path MTU.

use std::net::SocketAddr;

use sbc_common::checksum::checksum;

const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const UDP_BYTES: usize = 8;
const UDP: u8 = 17;
/// As the kernel's own packets, and the XDP program's.
const HOPS: u8 = 64;

/// The headers of one datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Headers {
    bytes: [u8; IPV6_BYTES + UDP_BYTES],
    length: usize,
}

impl Headers {
    /// Of a datagram from `via` to `to`; `None` if they are of two families or it is too long for one packet.
    pub(super) fn new(via: SocketAddr, to: SocketAddr, dscp: u8, payload: &[u8]) -> Option<Self> {
        let udp_length = u16::try_from(UDP_BYTES + payload.len()).ok()?;
        let mut bytes = [0; IPV6_BYTES + UDP_BYTES];
        let mut udp = [0; UDP_BYTES];
        udp[..2].copy_from_slice(&via.port().to_be_bytes());
        udp[2..4].copy_from_slice(&to.port().to_be_bytes());
        udp[4..6].copy_from_slice(&udp_length.to_be_bytes());
        let [length_high, length_low] = udp_length.to_be_bytes();
        let (ip_length, sum) = match (via, to) {
            (SocketAddr::V4(via), SocketAddr::V4(to)) => {
                let length = u16::try_from(IPV4_BYTES).ok()?.checked_add(udp_length)?;
                bytes[..12].copy_from_slice(&[0x45, dscp << 2, 0, 0, 0, 0, 0, 0, HOPS, UDP, 0, 0]);
                bytes[2..4].copy_from_slice(&length.to_be_bytes());
                bytes[12..16].copy_from_slice(&via.ip().octets());
                bytes[16..20].copy_from_slice(&to.ip().octets());
                let pseudo = [0, UDP, length_high, length_low];
                (IPV4_BYTES, checksum(&[&bytes[12..20], &pseudo, &udp, payload]))
            }
            (SocketAddr::V6(via), SocketAddr::V6(to)) => {
                bytes[..2].copy_from_slice(&[0x60 | dscp >> 2, dscp << 6]);
                bytes[4..8].copy_from_slice(&[length_high, length_low, UDP, HOPS]);
                bytes[8..24].copy_from_slice(&via.ip().octets());
                bytes[24..40].copy_from_slice(&to.ip().octets());
                let pseudo = [0, UDP, length_high, length_low];
                (IPV6_BYTES, checksum(&[&bytes[8..40], &pseudo, &udp, payload]))
            }
            (SocketAddr::V4(_), SocketAddr::V6(_)) | (SocketAddr::V6(_), SocketAddr::V4(_)) => return None,
        };
        // A sum of zero is sent as all ones: zero is no sum (RFC 768), and unlawful with IPv6.
        let sum = if sum == 0 { 0xffff } else { sum };
        udp[6..].copy_from_slice(&sum.to_be_bytes());
        bytes[ip_length..ip_length + UDP_BYTES].copy_from_slice(&udp);
        Some(Self { bytes, length: ip_length + UDP_BYTES })
    }

    /// Whether it is an IPv4 packet's.
    pub(super) const fn is_ipv4(&self) -> bool {
        self.length == IPV4_BYTES + UDP_BYTES
    }

    /// As they go before the payload.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(via: &str, to: &str, dscp: u8, payload: &[u8]) -> Option<Vec<u8>> {
        let headers = Headers::new(via.parse().unwrap(), to.parse().unwrap(), dscp, payload)?;
        Some(headers.as_bytes().to_vec())
    }

    #[test]
    fn ipv4_byte_by_byte() {
        let bytes = headers("192.0.2.1:20000", "198.51.100.2:30000", 46, b"abc").unwrap();
        let ip = [0x45, 184, 0, 31, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2];
        assert_eq!(bytes[..20], ip);
        assert_eq!(bytes[20..26], [0x4e, 0x20, 0x75, 0x30, 0, 11]);
        let pseudo = [192, 0, 2, 1, 198, 51, 100, 2, 0, 17, 0, 11];
        assert_eq!(checksum(&[&pseudo, &bytes[20..], b"abc"]), 0, "a right checksum sums up to nothing");
    }

    #[test]
    fn ipv6_byte_by_byte() {
        let bytes = headers("[2001:db8::1]:20000", "[2001:db8::2]:30000", 46, b"abcd").unwrap();
        assert_eq!(bytes[..8], [0x6b, 0x80, 0, 0, 0, 12, 17, 64]);
        assert_eq!(bytes[8..12], [0x20, 1, 0x0d, 0xb8]);
        assert_eq!((bytes[23], bytes[39], bytes.len()), (1, 2, 48));
        let pseudo = [0, 0, 0, 12, 0, 0, 0, 17];
        assert_eq!(checksum(&[&bytes[8..40], &pseudo, &bytes[40..], b"abcd"]), 0);
    }

    #[test]
    fn a_sum_of_zero_is_sent_as_all_ones() {
        let sum = |payload: [u8; 2]| {
            let bytes = headers("192.0.2.1:20000", "192.0.2.2:30000", 0, &payload).unwrap();
            u16::from_be_bytes([bytes[26], bytes[27]])
        };
        // What the sum is without a payload is what a payload must be to make it zero.
        assert_eq!(sum(sum([0, 0]).to_be_bytes()), 0xffff);
    }

    #[test]
    fn what_fits_no_packet_has_no_headers() {
        assert!(headers("192.0.2.1:1", "192.0.2.2:1", 0, &[0; 65_507]).is_some());
        assert!(headers("192.0.2.1:1", "192.0.2.2:1", 0, &[0; 65_508]).is_none());
        assert!(headers("[::1]:1", "[::2]:1", 0, &[0; 65_528]).is_none());
        assert!(headers("192.0.2.1:1", "[::2]:1", 0, &[0]).is_none());
    }
}
