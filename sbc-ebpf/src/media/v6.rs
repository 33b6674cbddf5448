//! The media path of IPv6, as [`super`]'s of IPv4. Functions of their own, which the kernel calls: IPv4 pays nothing for
//! them, and the verifier follows them apart.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use sbc_common::addr::AddressSlot6;
use sbc_common::flow::{FlowHead, FlowState, SlotIndex};
use sbc_common::flow6::FlowSlot6;
use sbc_common::limits;

use crate::ctx::{Frame, Slot6};
use crate::maps::{ADDRESSES6, CONFIG, FLOWS6};
use crate::outcome::{DropReason, Outcome, PassReason};
use crate::parse6::{self, Datagram6};

/// Relays the packet, or says why not: the number of an outcome.
#[inline(never)]
pub(super) fn relay(ctx: *mut xdp_md) -> u32 {
    match try_relay(&XdpContext::new(ctx)) {
        Ok(outcome) | Err(outcome) => outcome.counter(),
    }
}

#[inline(always)]
fn try_relay(ctx: &XdpContext) -> Result<Outcome, Outcome> {
    let frame = Frame::of(ctx);
    let datagram = parse6::datagram(&frame)?;
    let index = media_port(ctx, &datagram)?;
    let slot = Slot6::at(FLOWS6.get_ptr_mut(index.0).ok_or(DropReason::BadSlot)?);
    let head = FlowHead::from_word(slot.word::<{ FlowSlot6::HEAD }>()).ok_or(DropReason::BadSlot)?;
    match head.state {
        FlowState::Idle | FlowState::Muxed => Err(DropReason::NoFlow.into()),
        FlowState::Learning | FlowState::Latched | FlowState::Relay => Err(PassReason::Relay.into()),
    }
}

/// The slot of the packet's destination, if that is a media port of ours.
#[inline(always)]
fn media_port(ctx: &XdpContext, datagram: &Datagram6) -> Result<SlotIndex, PassReason> {
    let address = our_address(ctx.ingress_ifindex() as u32, datagram).ok_or(PassReason::NotOurAddress)?;
    if datagram.destination_port < address.port_min || datagram.destination_port > address.port_max {
        return Err(PassReason::NotMediaPort);
    }
    Ok(SlotIndex::new(address.slot, datagram.destination_port))
}

/// The entry of the packet's destination address on the interface and VLANs that it arrived on.
#[inline(always)]
fn our_address(ifindex: u32, datagram: &Datagram6) -> Option<&'static AddressSlot6> {
    let slots = CONFIG.get(0)?.address_slots6;
    for slot in 0..limits::ADDRESS_SLOTS6 {
        if slot >= slots {
            break;
        }
        let address = ADDRESSES6.get(slot)?;
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address.address;
        if u64::from_ne_bytes([i, j, k, l, m, n, o, p]) == datagram.destination.low
            && u64::from_ne_bytes([a, b, c, d, e, f, g, h]) == datagram.destination.high
            && address.ifindex == ifindex
            && address.vlan == datagram.vlan
            && address.outer_vlan == datagram.outer_vlan
        {
            return Some(address);
        }
    }
    None
}
