//! Leaving: next hop, interface, VLAN tags and MAC addresses.
//!
//! Everything that may fail comes before the first byte is changed, so that a packet that cannot leave passes as it
//! came and the relay behind it can send it.

use aya_ebpf::programs::XdpContext;
use sbc_common::next_hop::NextHop;

use crate::ctx::Frame;
use crate::maps::{DEVICES, NEXT_HOPS};
use crate::outcome::{Outcome, PassReason};
use crate::parse::{ETHERNET_BYTES, ETHERTYPE_SERVICE_VLAN, ETHERTYPE_VLAN, VLAN_BYTES};

/// What a packet needs to leave.
#[derive(Clone, Copy)]
pub struct Room {
    /// Where its UDP header starts now.
    pub udp_offset: usize,
    /// Length of the IP header that it is to have.
    pub ip_header_bytes: usize,
    /// Length of the IP packet that it is to be.
    pub ip_bytes: usize,
}

/// The way out of a packet.
pub struct Egress {
    /// Where its IP header is to start.
    pub ip_offset: usize,
    /// Whether it leaves by the interface that it came in on.
    pub outcome: Outcome,
    hop: &'static NextHop,
}

/// Finds the way out and makes room for its headers. The frame may have moved.
#[inline(always)]
pub fn leave(
    ctx: &XdpContext,
    frame: &Frame,
    room: Room,
    next_hop: u16,
) -> Result<(Egress, Frame), PassReason> {
    let hop = NEXT_HOPS.get(u32::from(next_hop)).ok_or(PassReason::NoNextHop)?;
    if hop.ifindex == 0 {
        return Err(PassReason::NoNextHop);
    }
    if room.ip_bytes > usize::from(hop.mtu) {
        return Err(PassReason::TooBig);
    }
    let outcome = if hop.ifindex == ctx.ingress_ifindex() as u32 {
        Outcome::Transmit
    } else {
        // Flags 0: a device that is not in the map gives XDP_ABORTED, here and not after the frame has changed.
        DEVICES.redirect(hop.ifindex, 0).map_err(|_| PassReason::NoDevice)?;
        Outcome::Redirect
    };
    let ip_offset = match (hop.outer_vlan, hop.vlan) {
        (0, 0) => ETHERNET_BYTES,
        (0, _) => ETHERNET_BYTES + VLAN_BYTES,
        _ => ETHERNET_BYTES + 2 * VLAN_BYTES,
    };
    let by = room.udp_offset as i32 - (ip_offset + room.ip_header_bytes) as i32;
    let frame = if by == 0 { *frame } else { Frame::moved_start(ctx, by).ok_or(PassReason::NoHeadroom)? };
    Ok((Egress { ip_offset, outcome, hop }, frame))
}

impl Egress {
    /// Writes the Ethernet header and the tags; `None` if the frame has no room for them.
    #[inline(always)]
    pub fn write_header(&self, frame: &Frame, ether_type: u16) -> Option<()> {
        let [a, b, c, d, e, f] = self.hop.destination_mac;
        let [g, h, i, j, k, l] = self.hop.source_mac;
        let ethernet = frame.window::<ETHERNET_BYTES>(0)?;
        ethernet.store64::<0>(u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
        ethernet.store32::<8>(u32::from_ne_bytes([i, j, k, l]));
        match (self.hop.outer_vlan, self.hop.vlan) {
            (0, 0) => ethernet.store16::<12>(ether_type.to_be()),
            (0, vlan) => {
                ethernet.store16::<12>(self.first_tag(ETHERTYPE_VLAN).to_be());
                let tag = frame.window::<VLAN_BYTES>(ETHERNET_BYTES)?;
                tag.store16::<0>(vlan.to_be());
                tag.store16::<2>(ether_type.to_be());
            }
            (outer_vlan, vlan) => {
                ethernet.store16::<12>(self.first_tag(ETHERTYPE_SERVICE_VLAN).to_be());
                let tags = frame.window::<{ 2 * VLAN_BYTES }>(ETHERNET_BYTES)?;
                tags.store16::<0>(outer_vlan.to_be());
                tags.store16::<2>(ETHERTYPE_VLAN.to_be());
                tags.store16::<4>(vlan.to_be());
                tags.store16::<6>(ether_type.to_be());
            }
        }
        Some(())
    }

    /// EtherType of the first tag of the frame.
    #[inline(always)]
    fn first_tag(&self, usual: u16) -> u16 {
        if self.hop.tag_type == 0 { usual } else { self.hop.tag_type }
    }
}
