//! Packets that open the way to a peer to which only flows of ours are open: a NAT or firewall in front of it lets its
//! media in once something of ours has gone out to where its media comes from (RFC 6263).
//!
//! Of that RFC's ways this is an RTP packet without payload, of a payload type that nobody negotiates (section 4.6): 20 is
//! unassigned among the static ones (RFC 3551 section 6), so no description can have given it a meaning. A receiver drops
//! it, and it works with peers that know nothing of it; an empty datagram (4.1) some firewalls do not count, comfort noise
//! (4.2) would have to be negotiated and would be heard, STUN (4.4) wants an answer. It has a source (SSRC) of its own, so
//! that it is no part of the stream that it opens the way for. Beside it goes a receiver report without a block, by the
//! port that RTCP goes by: the smallest RTCP packet there is (RFC 3550 section 6.4.2).

use std::net::{IpAddr, SocketAddr};

use super::send_once::Way;

const PAYLOAD_TYPE: u8 = 20;
const RECEIVER_REPORT: u8 = 201;

/// Sends both packets, each by its way, if there is one. What cannot be sent does not open a way: the next may.
pub(super) fn send([rtp, rtcp]: [Option<Way>; 2], mut send: impl FnMut(Way, &[u8]) -> std::io::Result<()>) {
    let mut try_to = |way: Option<Way>, packet: fn(SocketAddr) -> Vec<u8>| {
        if let Some(way) = way
            && let Err(error) = send(way, &packet(way.via))
        {
            tracing::debug!(%error, "cannot open the way to a peer");
        }
    };
    try_to(rtp, rtp_packet);
    try_to(rtcp, rtcp_packet);
}

fn rtp_packet(via: SocketAddr) -> Vec<u8> {
    let mut packet = vec![0x80, PAYLOAD_TYPE, 0, 0, 0, 0, 0, 0];
    packet.extend(source(via));
    packet
}

fn rtcp_packet(via: SocketAddr) -> Vec<u8> {
    let mut packet = vec![0x80, RECEIVER_REPORT, 0, 1];
    packet.extend(source(via));
    packet
}

/// A synchronisation source: the same for RTP and RTCP of a side and for every time. That it is one of a peer's is as
/// unlikely as with any other.
fn source(via: SocketAddr) -> [u8; 4] {
    let address = match via.ip() {
        IpAddr::V4(ip) => ip.to_bits(),
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            (bits ^ bits >> 32 ^ bits >> 64 ^ bits >> 96) as u32 // all four words
        }
    };
    let mixed = (address ^ u32::from(via.port() & !1)).wrapping_mul(0x9e37_79b1);
    mixed.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use sbc_common::flow::MediaKind;
    use sbc_common::rtp;

    use super::*;

    #[test]
    fn each_way_gets_the_smallest_packet_of_its_kind() {
        let way =
            |port| Way { via: ([192, 0, 2, 1], port).into(), to: ([192, 0, 2, 2], port).into(), dscp: 46 };
        let mut sent = Vec::new();
        let mut send_to = |ways| {
            send(ways, |way, packet| {
                sent.push((way.via.port(), packet.to_vec()));
                Ok(())
            });
        };
        send_to([Some(way(20_000)), Some(way(20_001))]);
        send_to([None, None]);
        let [(20_000, rtp), (20_001, rtcp)] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!((rtp.len(), rtp::check(MediaKind::Rtp, rtp)), (12, Ok(())));
        assert_eq!((rtcp.len(), rtp::check(MediaKind::Rtcp, rtcp)), (8, Ok(())));
        assert_eq!(rtp[8..], rtcp[4..], "of one source");
    }
}
