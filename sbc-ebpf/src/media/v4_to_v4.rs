//! IPv4 in, IPv4 out: new addresses, ports, DSCP and TTL, and the checksums that follow from them (RFC 1624).

use sbc_common::addr::Endpoint;
use sbc_common::checksum::Delta;
use sbc_common::flow::Target;

use crate::ctx::{Frame, Window};
use crate::parse::{IPV4_BYTES, UDP_BYTES};

const HEADERS: usize = IPV4_BYTES + UDP_BYTES;
const UDP: usize = IPV4_BYTES;
const ECN_MASK: u8 = 0x03;

/// Rewrites the headers at an offset; `None` if the frame does not have them.
#[inline(always)]
pub(super) fn rewrite(frame: &Frame, ip_offset: usize, local: Endpoint, target: Target) -> Option<()> {
    let headers = frame.window::<HEADERS>(ip_offset)?;
    let addresses = replace_addresses(&headers, local, target);

    let service = headers.load16::<0>();
    let [version, old_tos] = service.to_ne_bytes();
    let new_service = u16::from_ne_bytes([version, target.dscp << 2 | old_tos & ECN_MASK]);
    headers.store16::<0>(new_service);
    let life = headers.load16::<8>();
    let [_, protocol] = life.to_ne_bytes();
    let new_life = u16::from_ne_bytes([target.ttl, protocol]);
    headers.store16::<8>(new_life);
    let ip = addresses.replace16(service, new_service).replace16(life, new_life);
    headers.store16::<10>(ip.apply(headers.load16::<10>()));

    let ports = headers.load32::<{ UDP }>();
    let ([a, b], [c, d]) = (local.port, target.port);
    let new_ports = u32::from_ne_bytes([a, b, c, d]);
    headers.store32::<{ UDP }>(new_ports);
    let udp = addresses.replace32(ports, new_ports);
    headers.store16::<{ UDP + 6 }>(udp.apply_udp(headers.load16::<{ UDP + 6 }>()));
    Some(())
}

/// Source and destination address; what changed counts in both checksums.
#[inline(always)]
fn replace_addresses(headers: &Window<HEADERS>, local: Endpoint, target: Target) -> Delta {
    let (source, destination) = (headers.load32::<12>(), headers.load32::<16>());
    let (new_source, new_destination) =
        (u32::from_ne_bytes(local.address), u32::from_ne_bytes(target.address));
    headers.store32::<12>(new_source);
    headers.store32::<16>(new_destination);
    Delta::ZERO.replace32(source, new_source).replace32(destination, new_destination)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sbc_common::checksum::checksum;

    /// Writes the right checksums into a packet of headers and payload.
    fn seal(packet: &mut [u8]) {
        packet[10..12].fill(0);
        let ip = checksum(&[&packet[..20]]);
        packet[10..12].copy_from_slice(&ip.to_be_bytes());
        packet[26..28].fill(0);
        let length = ((packet.len() - 20) as u16).to_be_bytes();
        let udp = checksum(&[&packet[12..20], &[0, 17], &length, &packet[20..]]);
        packet[26..28].copy_from_slice(&if udp == 0 { 0xffff } else { udp }.to_be_bytes());
    }

    proptest! {
        #[test]
        fn a_right_packet_stays_right(
            mut packet in proptest::collection::vec(any::<u8>(), 28..80),
            local: ([u8; 4], u16), remote: ([u8; 4], u16), dscp in 0..64u8, ttl: u8,
        ) {
            packet[0] = 0x45;
            packet[9] = 17;
            seal(&mut packet);
            let mut rewritten = packet.clone();
            let local = Endpoint::new(local.0, local.1);
            let target = Target::new(Endpoint::new(remote.0, remote.1), dscp, ttl);
            prop_assert_eq!(rewrite(&Frame::over(&mut rewritten), 0, local, target), Some(()));

            packet[1] = dscp << 2 | packet[1] & 3;
            packet[8] = ttl;
            packet[12..16].copy_from_slice(&local.address);
            packet[16..20].copy_from_slice(&target.address);
            packet[20..22].copy_from_slice(&local.port);
            packet[22..24].copy_from_slice(&target.port);
            seal(&mut packet);
            prop_assert_eq!(rewritten, packet);
        }
    }
}
