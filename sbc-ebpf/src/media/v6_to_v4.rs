//! IPv6 in, IPv4 out: a new IPv4 header, and the UDP checksum updated for the other pseudo-header and ports (RFC 1624).
//!
//! The packet is not to be fragmented and says so, wherefore its identification means nothing and is 0 (RFC 6864).

use sbc_common::addr::Endpoint;
use sbc_common::checksum::{Delta, fold};

use super::mark::Mark;
use crate::ctx::Frame;
use crate::parse::v6::Datagram;
use crate::parse::{self, IPV4_BYTES, UDP_BYTES};

const UDP: usize = IPV4_BYTES;

/// Writes the headers at an offset that the UDP header is an IPv4 header's length behind; `None` if the frame does not
/// have them.
#[inline(always)]
pub(super) fn rewrite(
    frame: &Frame,
    ip_offset: usize,
    datagram: &Datagram,
    local: Endpoint,
    peer: Endpoint,
    mark: Mark,
) -> Option<()> {
    let headers = frame.window::<{ IPV4_BYTES + UDP_BYTES }>(ip_offset)?;
    let service = u16::from_ne_bytes([0x45, mark.service(datagram.traffic_class)]);
    // Fits: the packet was longer before.
    let length = (IPV4_BYTES as u16).wrapping_add(datagram.payload_bytes).to_be();
    let dont_fragment = u32::from_ne_bytes([0, 0, 0x40, 0]);
    let life = u16::from_ne_bytes([mark.ttl, parse::UDP]);
    let (source, destination) = (u32::from_ne_bytes(local.address), u32::from_ne_bytes(peer.address));
    let words = u64::from(service) + u64::from(length) + u64::from(dont_fragment) + u64::from(life);
    headers.store16::<0>(service);
    headers.store16::<2>(length);
    headers.store32::<4>(dont_fragment);
    headers.store16::<8>(life);
    headers.store16::<10>(!fold(words + u64::from(source) + u64::from(destination)));
    headers.store32::<12>(source);
    headers.store32::<16>(destination);

    let removed = datagram.destination.removed_from(datagram.source.removed_from(Delta::ZERO));
    let ports = datagram.source.ports_to(datagram.destination.port);
    let ([a, b], [c, d]) = (local.port, peer.port);
    let new_ports = u32::from_ne_bytes([a, b, c, d]);
    headers.store32::<{ UDP }>(new_ports);
    let udp = removed.with32(source).with32(destination).replace32(ports, new_ports);
    headers.store16::<{ UDP + 6 }>(udp.apply_to_some(datagram.udp_checksum));
    Some(())
}
