//! The addresses, next hops and the one call that the packet tables play in.
//!
//! ```text
//!   OUTSIDE_PEER ──▶ OUTSIDE:20000 ═╗ ╔═ INSIDE:20002 ◀── INSIDE_PEER        RTP; RTCP on the next ports
//!                                   ╚═╝
//! ```

use sbc_common::addr::{AddressSlot, Endpoint};
use sbc_common::flow::{Allowed, FlowHead, FlowSlot, FlowState, PortKind, SlotIndex, Target, Way};
use sbc_common::next_hop::NextHop;
use sbc_common::stream::StreamSlot;

use crate::kernel::{INGRESS, Kernel, OTHER, Variant};
use crate::packet::Packet;

pub(crate) type Peer = ([u8; 4], u16);

pub(crate) const OUTSIDE: [u8; 4] = [192, 0, 2, 1];
pub(crate) const INSIDE: [u8; 4] = [198, 51, 100, 1];
pub(crate) const OUTSIDE_PEER: Peer = ([203, 0, 113, 5], 4000);
pub(crate) const INSIDE_PEER: Peer = ([198, 51, 100, 9], 5000);
pub(crate) const INSIDE_PEER_RTCP: Peer = (INSIDE_PEER.0, INSIDE_PEER.1 + 1);

pub(crate) const OUTSIDE_PORT: u16 = 20_000;
pub(crate) const INSIDE_PORT: u16 = 20_002;
pub(crate) const PORTS: (u16, u16) = (20_000, 20_999);
pub(crate) const GENERATION: u16 = 0x0307;

/// The VLAN on which the outside address exists once more.
pub(crate) const VLAN: u16 = 100;
/// The outer VLAN in whose [`VLAN`] it exists a third time.
pub(crate) const OUTER_VLAN: u16 = 300;
pub(crate) const ADDRESS_SLOTS: u32 = 4;

pub(crate) const OUTSIDE_RTP: SlotIndex = SlotIndex::new(0, OUTSIDE_PORT);
pub(crate) const OUTSIDE_RTCP: SlotIndex = SlotIndex::new(0, OUTSIDE_PORT + 1);
pub(crate) const INSIDE_RTP: SlotIndex = SlotIndex::new(1, INSIDE_PORT);
pub(crate) const INSIDE_RTCP: SlotIndex = SlotIndex::new(1, INSIDE_PORT + 1);
pub(crate) const VLAN_RTP: SlotIndex = SlotIndex::new(2, OUTSIDE_PORT);
pub(crate) const OUTER_VLAN_RTP: SlotIndex = SlotIndex::new(3, OUTSIDE_PORT);

/// Next hops by index.
pub(crate) const BACK: u16 = 1;
pub(crate) const ACROSS: u16 = 2;
pub(crate) const UNRESOLVED: u16 = 3;
pub(crate) const ACROSS_TAGGED: u16 = 4;
pub(crate) const SMALL: u16 = 5;
pub(crate) const NO_DEVICE: u16 = 6;
pub(crate) const ACROSS_TAGGED_TWICE: u16 = 7;
/// Tag of frames that leave by [`ACROSS_TAGGED`], and inner tag of those by [`ACROSS_TAGGED_TWICE`].
pub(crate) const EGRESS_VLAN: u16 = 200;
/// Outer tag of frames that leave by [`ACROSS_TAGGED_TWICE`].
pub(crate) const EGRESS_OUTER_VLAN: u16 = 400;

pub(crate) const DSCP: u8 = 46;
pub(crate) const TTL: u8 = 64;

pub(crate) fn mac(hop: u16, last: u8) -> [u8; 6] {
    [2, 0, 0, 1, hop as u8, last]
}

impl Kernel {
    /// The program, its addresses and next hops, and the call; `None` if this host cannot, which it has said then.
    pub(crate) fn with_call(test: &str) -> Option<Self> {
        Self::with_call_in(test, Variant::Ordinary)
    }

    /// As [`Self::with_call`], in one of the two programs.
    pub(crate) fn with_call_in(test: &str, variant: Variant) -> Option<Self> {
        let mut kernel = Self::load(test, variant, ADDRESS_SLOTS)?;
        let addresses = [(OUTSIDE, 0, 0), (INSIDE, 0, 0), (OUTSIDE, VLAN, 0), (OUTSIDE, VLAN, OUTER_VLAN)];
        for (slot, (address, vlan, outer_vlan)) in (0..).zip(addresses) {
            let (port_min, port_max) = PORTS;
            let entry = AddressSlot {
                address,
                port_min,
                port_max,
                ifindex: INGRESS,
                vlan,
                outer_vlan,
                slot,
                ..AddressSlot::default()
            };
            kernel.addresses.set(u32::from(slot), entry, 0).unwrap();
        }
        for (index, ifindex, vlan, outer_vlan, mtu) in [
            (BACK, INGRESS, 0, 0, 1500),
            (ACROSS, OTHER, 0, 0, 1500),
            (UNRESOLVED, 0, 0, 0, 0),
            (ACROSS_TAGGED, OTHER, EGRESS_VLAN, 0, 1500),
            (SMALL, OTHER, 0, 0, 199),
            (NO_DEVICE, OTHER + 1, 0, 0, 1500),
            (ACROSS_TAGGED_TWICE, OTHER, EGRESS_VLAN, EGRESS_OUTER_VLAN, 1500),
        ] {
            let (destination_mac, source_mac) = (mac(index, 1), mac(index, 2));
            let hop =
                NextHop { destination_mac, source_mac, vlan, mtu, ifindex, outer_vlan, ..NextHop::default() };
            kernel.next_hops.set(u32::from(index), hop, 0).unwrap();
        }
        kernel.install_call();
        Some(kernel)
    }

    /// The call as signalled: strict source on both sides, and nothing heard yet.
    pub(crate) fn install_call(&mut self) {
        for (index, slot) in call() {
            self.set_slot(index, &slot);
            self.set_stream(index, &StreamSlot::default());
        }
    }

    /// Changes what is known of a stream.
    pub(crate) fn edit_stream(&mut self, index: SlotIndex, edit: impl FnOnce(&mut StreamSlot)) {
        let mut stream = self.stream(index);
        edit(&mut stream);
        self.set_stream(index, &stream);
    }

    /// Changes a slot.
    pub(crate) fn edit(&mut self, index: SlotIndex, edit: impl FnOnce(&mut FlowSlot)) {
        let mut slot = self.slot(index);
        edit(&mut slot);
        self.set_slot(index, &slot);
    }

    /// Changes the head of a slot.
    pub(crate) fn edit_head(&mut self, index: SlotIndex, edit: impl FnOnce(&mut FlowHead)) {
        self.edit(index, |slot| edit(&mut slot.head));
    }

    /// Lets the outside peer and ours have one port for RTP and RTCP.
    pub(crate) fn share_outside_port(&mut self) {
        self.edit_head(OUTSIDE_RTP, |head| head.kind = PortKind::Muxed);
        self.edit(OUTSIDE_RTCP, |slot| {
            slot.head.state = FlowState::Muxed;
            slot.expected = Allowed::NOBODY;
        });
        self.edit(INSIDE_RTCP, |slot| {
            slot.partner = OUTSIDE_RTP.0;
            slot.destination.port = OUTSIDE_PEER.1.to_be_bytes();
        });
    }

    /// Lets the outside learn: the address of its peer may claim, from any port.
    pub(crate) fn let_outside_learn(&mut self) {
        self.edit(OUTSIDE_RTP, |slot| {
            slot.head.state = FlowState::Learning;
            slot.expected = Allowed::any_port(OUTSIDE_PEER.0, 32);
        });
    }
}

/// Both directions of RTP and RTCP.
pub(crate) fn call() -> [(SlotIndex, FlowSlot); 4] {
    let slot = |kind, from: Peer, to: Peer, offset: u16, partner: SlotIndex, next_hop| FlowSlot {
        head: FlowHead {
            state: FlowState::Latched,
            kind,
            next_hop,
            generation: GENERATION,
            way: Way::V4,
            flags: 0,
        },
        expected: Allowed::exactly(Endpoint::new(from.0, from.1 + offset)),
        destination: Target::new(Endpoint::new(to.0, to.1 + offset), DSCP, TTL),
        partner: partner.0,
        ..FlowSlot::default()
    };
    [
        (OUTSIDE_RTP, slot(PortKind::Rtp, OUTSIDE_PEER, INSIDE_PEER, 0, INSIDE_RTP, ACROSS)),
        (INSIDE_RTP, slot(PortKind::Rtp, INSIDE_PEER, OUTSIDE_PEER, 0, OUTSIDE_RTP, BACK)),
        (OUTSIDE_RTCP, slot(PortKind::Rtcp, OUTSIDE_PEER, INSIDE_PEER, 1, INSIDE_RTCP, ACROSS)),
        (INSIDE_RTCP, slot(PortKind::Rtcp, INSIDE_PEER, OUTSIDE_PEER, 1, OUTSIDE_RTCP, BACK)),
    ]
}

/// RTP from the outside peer.
pub(crate) fn from_outside() -> Packet {
    Packet::rtp(OUTSIDE_PEER, (OUTSIDE, OUTSIDE_PORT))
}

/// RTP from the inside peer.
pub(crate) fn from_inside() -> Packet {
    Packet::rtp(INSIDE_PEER, (INSIDE, INSIDE_PORT))
}

/// RTCP from the outside peer.
pub(crate) fn rtcp_from_outside() -> Packet {
    Packet::rtcp((OUTSIDE_PEER.0, OUTSIDE_PEER.1 + 1), (OUTSIDE, OUTSIDE_PORT + 1))
}

/// What a packet becomes on its way through a next hop, between two endpoints.
pub(crate) fn forwarded(packet: Packet, hop: u16, local: Peer, peer: Peer) -> Packet {
    Packet {
        destination_mac: mac(hop, 1),
        source_mac: mac(hop, 2),
        vlan: matches!(hop, ACROSS_TAGGED | ACROSS_TAGGED_TWICE).then_some(EGRESS_VLAN),
        outer_vlan: (hop == ACROSS_TAGGED_TWICE).then_some(EGRESS_OUTER_VLAN),
        source: local,
        destination: peer,
        tos: DSCP << 2 | packet.tos & 3,
        ttl: TTL,
        ..packet
    }
}

/// What RTP from the outside peer becomes.
pub(crate) fn to_inside(packet: Packet) -> Packet {
    forwarded(packet, ACROSS, (INSIDE, INSIDE_PORT), INSIDE_PEER)
}
