//! Leaving: next hop, interface, VLAN tag and MAC addresses.
//!
//! Everything that may fail comes before the first byte is changed, so that a packet that cannot leave passes as it
//! came and the relay behind it can send it.

use aya_ebpf::programs::XdpContext;
use sbc_common::next_hop::NextHop;

use crate::ctx::Frame;
use crate::maps::{DEVICES, NEXT_HOPS};
use crate::outcome::{Outcome, PassReason};
use crate::parse::{Datagram, ETHERNET_BYTES, ETHERTYPE_IPV4, ETHERTYPE_VLAN, VLAN_BYTES};

/// The way out of a packet.
pub struct Egress {
    /// Where its IP header starts now.
    pub ip_offset: usize,
    /// Whether it leaves by the interface that it came in on.
    pub outcome: Outcome,
    hop: &'static NextHop,
}

/// Finds the way out and makes room for its Ethernet header. The frame may have moved.
#[inline(always)]
pub fn leave(
    ctx: &XdpContext,
    frame: &Frame,
    datagram: &Datagram,
    next_hop: u16,
) -> Result<(Egress, Frame), PassReason> {
    let hop = NEXT_HOPS.get(u32::from(next_hop)).ok_or(PassReason::NoNextHop)?;
    if hop.ifindex == 0 {
        return Err(PassReason::NoNextHop);
    }
    if datagram.ip_bytes > hop.mtu {
        return Err(PassReason::TooBig);
    }
    let outcome = if hop.ifindex == ctx.ingress_ifindex() as u32 {
        Outcome::Transmit
    } else {
        // Flags 0: a device that is not in the map gives XDP_ABORTED, here and not after the frame has changed.
        DEVICES.redirect(hop.ifindex, 0).map_err(|_| PassReason::NoDevice)?;
        Outcome::Redirect
    };
    let ip_offset = if hop.vlan == 0 { ETHERNET_BYTES } else { ETHERNET_BYTES + VLAN_BYTES };
    let frame = if ip_offset == datagram.ip_offset {
        *frame
    } else {
        let by = if ip_offset < datagram.ip_offset { VLAN_BYTES as i32 } else { -(VLAN_BYTES as i32) };
        Frame::moved_start(ctx, by).ok_or(PassReason::NoHeadroom)?
    };
    Ok((Egress { ip_offset, outcome, hop }, frame))
}

impl Egress {
    /// Writes the Ethernet header; `None` if the frame has no room for it.
    #[inline(always)]
    pub fn write_header(&self, frame: &Frame) -> Option<()> {
        let [a, b, c, d, e, f] = self.hop.destination_mac;
        let [g, h, i, j, k, l] = self.hop.source_mac;
        let ethernet = frame.window::<ETHERNET_BYTES>(0)?;
        ethernet.store64::<0>(u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
        ethernet.store32::<8>(u32::from_ne_bytes([i, j, k, l]));
        if self.hop.vlan == 0 {
            ethernet.store16::<12>(ETHERTYPE_IPV4.to_be());
        } else {
            ethernet.store16::<12>(ETHERTYPE_VLAN.to_be());
            let tag = frame.window::<VLAN_BYTES>(ETHERNET_BYTES)?;
            tag.store16::<0>(self.hop.vlan.to_be());
            tag.store16::<2>(ETHERTYPE_IPV4.to_be());
        }
        Some(())
    }
}
