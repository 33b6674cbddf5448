//! IPv6 in, IPv6 out: new addresses, ports, DSCP and hop limit, and the UDP checksum that follows from them (RFC 1624).
//! The flow label stays, as the identification of IPv4 does.

use sbc_common::checksum::Delta;

use super::mark::Mark;
use crate::ctx::Frame;
use crate::parse::UDP_BYTES;
use crate::parse::v6::{Datagram, End, IPV6_BYTES};

const UDP: usize = IPV6_BYTES;

/// Rewrites the headers at an offset; `None` if the frame does not have them.
#[inline(always)]
pub(super) fn rewrite(
    frame: &Frame,
    ip_offset: usize,
    datagram: &Datagram,
    local: End,
    peer: End,
    mark: Mark,
) -> Option<()> {
    let headers = frame.window::<{ IPV6_BYTES + UDP_BYTES }>(ip_offset)?;
    let label = u16::from_be(headers.load16::<0>()) & 0x000f;
    let service = u16::from(mark.service(datagram.traffic_class));
    headers.store16::<0>((6 << 12 | service << 4 | label).to_be());
    headers.store8::<7>(mark.ttl);
    headers.store64::<8>(local.high);
    headers.store64::<16>(local.low);
    headers.store64::<24>(peer.high);
    headers.store64::<32>(peer.low);

    let removed = datagram.destination.removed_from(datagram.source.removed_from(Delta::ZERO));
    let (ports, new_ports) = (datagram.source.ports_to(datagram.destination.port), local.ports_to(peer.port));
    headers.store32::<{ UDP }>(new_ports);
    let udp = peer.added_to(local.added_to(removed)).replace32(ports, new_ports);
    headers.store16::<{ UDP + 6 }>(udp.apply_to_some(datagram.udp_checksum));
    Some(())
}
