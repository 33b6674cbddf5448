//! The one set of frames that every contender gets: who sends a flow's packets where, with checksums that are right.
//!
//! The programs in `sbc-ebpf`'s bench object write the headers; here is what differs between two flows.

use std::net::{Ipv4Addr, Ipv6Addr};

use sbc_common::checksum::fold;

use super::FRAME_BYTES;

/// Where every sender sends from.
pub const SOURCE_PORT: u16 = 10_000;
/// Bytes of RTP header and payload, or of a SIP request.
pub const PAYLOAD_BYTES: usize = 172;

const UDP_BYTES: u16 = 8 + PAYLOAD_BYTES as u16;
const IP_BYTES: u16 = 20 + UDP_BYTES;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
const TTL: u8 = 64;
const DONT_FRAGMENT: [u8; 2] = [0x40, 0];

/// A SIP request that asks for nothing, as a flood is made of.
pub const SIP: [u8; PAYLOAD_BYTES] = *b"OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP c;branch=z9hG4bK1\r\n\
From: <sip:c@d>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: 123456\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\n\
Content-Length: 0\r\n\r\n";

/// A frame with that request, its headers still empty.
pub fn sip_frame() -> [u8; FRAME_BYTES] {
    let mut frame = [0; FRAME_BYTES];
    frame[FRAME_BYTES - PAYLOAD_BYTES..].copy_from_slice(&SIP);
    frame
}

/// The party that sends flow number `flow`.
pub fn source(flow: u32) -> Ipv4Addr {
    let [_, _, high, low] = flow.to_be_bytes();
    Ipv4Addr::new(198, 18, high, low)
}

/// The same over IPv6.
pub fn address6(flow: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(flow))
}

/// What a packet of a flow differs in from that of another, as the kernel side reads it.
pub type Lane = [u64; 2];

/// The RTP packets of a flow, from [`source`] to an address and port.
pub fn rtp_lane(flow: u32, address: Ipv4Addr, port: u16) -> Lane {
    // Version 2, payload type 0; sequence number and timestamp are added by the sender; the payload is zeros.
    let mut payload = [0; PAYLOAD_BYTES];
    payload[0] = 0x80;
    payload[8..12].copy_from_slice(&flow.to_ne_bytes());
    lane(flow, address, port, &payload)
}

/// A flow's packets with this payload.
pub fn lane(flow: u32, address: Ipv4Addr, port: u16, payload: &[u8; PAYLOAD_BYTES]) -> Lane {
    let addresses = [source(flow).octets(), address.octets()].concat();
    let ports = [SOURCE_PORT.to_be_bytes(), port.to_be_bytes()].concat();
    let length = UDP_BYTES.to_be_bytes();
    let udp = sum(&addresses) + sum(&[0, UDP]) + sum(&length) + sum(&ports) + sum(&length) + sum(payload);
    let ip = sum(&[0x45, 0]) + sum(&IP_BYTES.to_be_bytes()) + sum(&DONT_FRAGMENT) + sum(&[TTL, UDP]);
    let ip_checksum = !fold(ip + sum(&addresses));
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    [word(&addresses), word(&port.to_be_bytes()) | u64::from(ip_checksum) << 16 | u64::from(fold(udp)) << 32]
}

/// The sum of some bytes as 16-bit words as they lie in memory.
fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks_exact(2).map(|pair| u64::from(u16::from_ne_bytes([pair[0], pair[1]]))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sbc_common::checksum::checksum;

    #[test]
    fn a_lane_has_the_checksums_of_its_packet() {
        let (flow, to, port) = (0x0203, Ipv4Addr::new(10, 0, 0, 1), 20_006);
        let [addresses, rest] = rtp_lane(flow, to, port);
        let [a, b, c, d, e, f, g, h] = addresses.to_le_bytes();
        assert_eq!(([a, b, c, d], [e, f, g, h]), ([198, 18, 2, 3], [10, 0, 0, 1]));
        let [high, low, ip_a, ip_b, udp_a, udp_b, 0, 0] = rest.to_le_bytes() else { panic!("{rest:#x}") };
        assert_eq!([high, low], port.to_be_bytes());

        let mut ip = [0; 20];
        ip[..2].copy_from_slice(&[0x45, 0]);
        ip[2..4].copy_from_slice(&200u16.to_be_bytes());
        ip[6] = 0x40;
        ip[8..12].copy_from_slice(&[64, 17, ip_a, ip_b]);
        ip[12..20].copy_from_slice(&addresses.to_le_bytes());
        assert_eq!(checksum(&[&ip]), 0, "the checksum of a right header is zero");

        let (sequence, timestamp) = (7u16, 7 * 160u32);
        let mut rtp = [0; PAYLOAD_BYTES];
        rtp[0] = 0x80;
        rtp[2..4].copy_from_slice(&sequence.to_be_bytes());
        rtp[4..8].copy_from_slice(&timestamp.to_be_bytes());
        rtp[8..12].copy_from_slice(&flow.to_ne_bytes());
        let ports = [SOURCE_PORT.to_be_bytes(), port.to_be_bytes()].concat();
        let length = 180u16.to_be_bytes();
        let udp_checksum = checksum(&[&ip[12..], &[0, 17], &length, &ports, &length, &rtp]);
        // As the program adds them.
        let more = u64::from(sequence.to_be()) + u64::from(timestamp.to_be());
        let found = !fold(u64::from(u16::from_ne_bytes([udp_a, udp_b])) + more);
        assert_eq!(found.to_ne_bytes(), udp_checksum.to_be_bytes());
    }
}
