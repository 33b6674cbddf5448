//! The IPv6 addresses and the two calls that these tables play in, beside the world of IPv4.
//!
//! ```text
//!   OUTSIDE_PEER6 ──▶ [OUTSIDE6]:20000 ═╗ ╔═ [INSIDE6]:20002 ◀── INSIDE_PEER6     RTP; RTCP on the next ports
//!   OUTSIDE_PEER6 ──▶ [OUTSIDE6]:20010 ═╣ ╠═  INSIDE:20012   ◀── INSIDE_PEER      between the families
//!                                       ╚═╝
//! ```

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use sbc_common::addr::{AddressSlot6, Endpoint};
use sbc_common::flow::{Allowed, FlowHead, FlowSlot, FlowState, PortKind, SlotIndex, Target, Way};
use sbc_common::flow6::{Allowed6, Endpoint6, FlowSlot6, Target6};
use sbc_common::next_hop::NextHop;
use sbc_common::stream::StreamSlot;

use super::packet::Datagram;
use crate::kernel::{INGRESS, Kernel, OTHER};
use crate::world::*;

pub(crate) const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
pub(crate) const INSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);
pub(crate) const OUTSIDE_PEER6: (Ipv6Addr, u16) =
    (Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0x1234, 0, 0, 5), 4000);
pub(crate) const INSIDE_PEER6: (Ipv6Addr, u16) = (Ipv6Addr::new(0x2001, 0xdb8, 0x200, 0, 0, 0, 0, 9), 5000);

pub(crate) const RTP6: SlotIndex = SlotIndex::new(0, OUTSIDE_PORT);
pub(crate) const RTCP6: SlotIndex = SlotIndex::new(0, OUTSIDE_PORT + 1);
pub(crate) const BACK6: SlotIndex = SlotIndex::new(1, INSIDE_PORT);
pub(crate) const RTCP_BACK6: SlotIndex = SlotIndex::new(1, INSIDE_PORT + 1);
pub(crate) const VLAN_RTP6: SlotIndex = SlotIndex::new(2, OUTSIDE_PORT);
pub(crate) const OUTER_VLAN_RTP6: SlotIndex = SlotIndex::new(3, OUTSIDE_PORT);

pub(crate) const MIXED_OUTSIDE_PORT: u16 = 20_010;
pub(crate) const MIXED_INSIDE_PORT: u16 = 20_012;
/// Of the call between the families, its way in over IPv6, in `FLOWS6`.
pub(crate) const MIXED6: SlotIndex = SlotIndex::new(0, MIXED_OUTSIDE_PORT);
/// And over IPv4, in `FLOWS`.
pub(crate) const MIXED4: SlotIndex = SlotIndex::new(1, MIXED_INSIDE_PORT);

/// A next hop that takes more than an Ethernet frame.
pub(crate) const LARGE: u16 = 9;

pub(crate) fn at(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

pub(crate) fn endpoint6((address, port): (Ipv6Addr, u16)) -> Endpoint6 {
    Endpoint6::new(address.octets(), port)
}

fn head(kind: PortKind, next_hop: u16, way: Way) -> FlowHead {
    FlowHead { state: FlowState::Latched, kind, next_hop, generation: GENERATION, way, flags: 0 }
}

impl Kernel {
    /// The world of IPv4, that of IPv6, and the calls; `None` if this host cannot, which it has said then.
    pub(crate) fn with_calls6(test: &str) -> Option<Self> {
        let mut kernel = Self::with_call(test)?;
        kernel.install_calls6();
        Some(kernel)
    }

    /// The addresses and calls of this module: strict source on all sides, and nothing heard yet.
    pub(crate) fn install_calls6(&mut self) {
        let addresses =
            [(OUTSIDE6, 0, 0), (INSIDE6, 0, 0), (OUTSIDE6, VLAN, 0), (OUTSIDE6, VLAN, OUTER_VLAN)];
        for (slot, (address, vlan, outer_vlan)) in (0..).zip(addresses) {
            let entry = AddressSlot6 {
                address: address.octets(),
                port_min: PORTS.0,
                port_max: PORTS.1,
                ifindex: INGRESS,
                vlan,
                outer_vlan,
                slot,
                ..AddressSlot6::default()
            };
            self.addresses6.set(u32::from(slot), entry, 0).unwrap();
        }
        let hop = NextHop { mtu: 3000, ifindex: OTHER, ..NextHop::default() };
        self.next_hops.set(u32::from(LARGE), hop, 0).unwrap();
        for (index, slot) in calls6() {
            self.set_slot6(index, &slot);
            self.streams6.set(index.0, [0; StreamSlot::WORDS], 0).unwrap();
        }
        self.set_slot(MIXED4, &mixed4());
        let stream = StreamSlot { destination6: OUTSIDE_PEER6.0.octets(), ..StreamSlot::default() };
        self.set_stream(MIXED4, &stream);
        // What the partner's index means in the other family's table.
        self.set_slot(SlotIndex(MIXED6.0), &FlowSlot::default());
        self.set_slot6(SlotIndex(MIXED4.0), &FlowSlot6::default());
    }

    /// Changes a slot of IPv6.
    pub(crate) fn edit6(&mut self, index: SlotIndex, edit: impl FnOnce(&mut FlowSlot6)) {
        let mut slot = self.slot6(index);
        edit(&mut slot);
        self.set_slot6(index, &slot);
    }

    /// Lets the address of the outside peer claim a slot, from any port, and lets its partner follow.
    pub(crate) fn let_learn6(&mut self, index: SlotIndex) {
        self.edit6(index, |slot| {
            slot.head.state = FlowState::Learning;
            slot.expected = Allowed6::any_port(OUTSIDE_PEER6.0.octets(), 128);
        });
        if index == MIXED6 {
            self.edit_head(MIXED4, |head| head.flags = FlowHead::FOLLOWS_PARTNER);
        } else {
            self.edit6(BACK6, |slot| slot.head.flags = FlowHead::FOLLOWS_PARTNER);
        }
    }
}

/// The slots of `FLOWS6`.
pub(crate) fn calls6() -> [(SlotIndex, FlowSlot6); 5] {
    let slot = |head, from: (Ipv6Addr, u16), to: Endpoint6, offset: u16, partner: SlotIndex| FlowSlot6 {
        head,
        expected: Allowed6::exactly(endpoint6((from.0, from.1 + offset))),
        destination: Target6::new(to, DSCP, TTL),
        partner: partner.0,
        ..FlowSlot6::default()
    };
    let to = |peer: (Ipv6Addr, u16), offset| endpoint6((peer.0, peer.1 + offset));
    let mapped =
        Endpoint6::new(std::net::Ipv4Addr::from(INSIDE_PEER.0).to_ipv6_mapped().octets(), INSIDE_PEER.1);
    let (rtp, rtcp) = (PortKind::Rtp, PortKind::Rtcp);
    [
        (RTP6, slot(head(rtp, ACROSS, Way::V6), OUTSIDE_PEER6, to(INSIDE_PEER6, 0), 0, BACK6)),
        (BACK6, slot(head(rtp, BACK, Way::V6), INSIDE_PEER6, to(OUTSIDE_PEER6, 0), 0, RTP6)),
        (RTCP6, slot(head(rtcp, ACROSS, Way::V6), OUTSIDE_PEER6, to(INSIDE_PEER6, 1), 1, RTCP_BACK6)),
        (RTCP_BACK6, slot(head(rtcp, BACK, Way::V6), INSIDE_PEER6, to(OUTSIDE_PEER6, 1), 1, RTCP6)),
        (MIXED6, slot(head(rtp, ACROSS, Way::V4), OUTSIDE_PEER6, mapped, 0, MIXED4)),
    ]
}

/// The slot of `FLOWS` of the call between the families.
pub(crate) fn mixed4() -> FlowSlot {
    let port = Endpoint::new([0; 4], OUTSIDE_PEER6.1);
    FlowSlot {
        head: head(PortKind::Rtp, BACK, Way::V6),
        expected: Allowed::exactly(Endpoint::new(INSIDE_PEER.0, INSIDE_PEER.1)),
        destination: Target::new(port, DSCP, TTL),
        partner: MIXED6.0,
        ..FlowSlot::default()
    }
}

/// RTP from the outside peer.
pub(crate) fn from_outside6() -> Datagram {
    Datagram::rtp(at(OUTSIDE_PEER6.0, OUTSIDE_PEER6.1), at(OUTSIDE6, OUTSIDE_PORT))
}

/// RTP from the inside peer.
pub(crate) fn from_inside6() -> Datagram {
    Datagram::rtp(at(INSIDE_PEER6.0, INSIDE_PEER6.1), at(INSIDE6, INSIDE_PORT))
}

/// RTP from the outside peer for the call between the families.
pub(crate) fn mixed_from_outside() -> Datagram {
    Datagram { destination: at(OUTSIDE6, MIXED_OUTSIDE_PORT), ..from_outside6() }
}

/// RTP from its inside peer.
pub(crate) fn mixed_from_inside() -> Datagram {
    Datagram::rtp(at(INSIDE_PEER.0, INSIDE_PEER.1), at(INSIDE, MIXED_INSIDE_PORT))
}

/// What a datagram becomes on its way through a next hop, between two endpoints.
pub(crate) fn becomes(came: Datagram, hop: u16, source: SocketAddr, destination: SocketAddr) -> Datagram {
    let same_family = came.source.is_ipv4() == source.is_ipv4();
    Datagram {
        destination_mac: mac(hop, 1),
        source_mac: mac(hop, 2),
        tags: match hop {
            ACROSS_TAGGED => vec![EGRESS_VLAN],
            ACROSS_TAGGED_TWICE => vec![EGRESS_OUTER_VLAN, EGRESS_VLAN],
            _ => Vec::new(),
        },
        source,
        destination,
        service: DSCP << 2 | came.service & 3,
        ttl: TTL,
        label: if same_family { came.label } else { 0 },
        ..came
    }
}

/// What RTP from the outside peer becomes.
pub(crate) fn to_inside6(came: Datagram, hop: u16) -> Datagram {
    becomes(came, hop, at(INSIDE6, INSIDE_PORT), at(INSIDE_PEER6.0, INSIDE_PEER6.1))
}

/// What it becomes between the families.
pub(crate) fn mixed_to_inside(came: Datagram, hop: u16) -> Datagram {
    becomes(came, hop, at(INSIDE, MIXED_INSIDE_PORT), at(INSIDE_PEER.0, INSIDE_PEER.1))
}

/// What RTP from the inside peer becomes between the families.
pub(crate) fn mixed_to_outside(came: Datagram, hop: u16) -> Datagram {
    becomes(came, hop, at(OUTSIDE6, MIXED_OUTSIDE_PORT), at(OUTSIDE_PEER6.0, OUTSIDE_PEER6.1))
}
