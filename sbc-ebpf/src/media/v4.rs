//! Packets that arrive over IPv4: the slots of `FLOWS`.

use aya_ebpf::programs::XdpContext;
use sbc_common::addr::{AddressSlot, Endpoint};
use sbc_common::event::LatchedRecord;
use sbc_common::flow::{Allowed, FlowHead, FlowSlot, FlowState, Learned, SlotIndex, Target, Way};
use sbc_common::limits;

use super::payload::{self, Media, Payload};
use super::stream::Cold;
use super::v4_to_v4;
use crate::ctx::{Frame, Slot};
use crate::maps::{ADDRESSES, CONFIG, FLOWS, STREAMS};
use crate::outcome::{DropReason, Outcome, PassReason};
use crate::parse::{ETHERTYPE_IPV4, IPV4_BYTES, Link, v4::Datagram, v4::datagram};
use crate::{emit, l2};

/// Relays the packet, or says why not.
#[inline(always)]
pub(super) fn relay(ctx: &XdpContext, frame: &Frame, link: &Link) -> Result<Outcome, Outcome> {
    let datagram = datagram(frame, link)?;
    let index = media_port(ctx, link, &datagram)?;
    let (slot, head) = enter(index)?;
    datagram.check_lengths(frame)?;
    let payload = Payload::behind(datagram.udp_offset(), datagram.udp_bytes);
    let passage = pass(frame, payload, index, slot, head, datagram.source)?;
    let addresses = (datagram.source & Endpoint::ADDRESS_MASK) + u64::from(datagram.destination_address);
    let packets = passage.slot.word::<{ FlowSlot::PACKETS }>();
    super::verify(frame, datagram.udp_offset(), datagram.udp_bytes, addresses, packets);
    let outcome = match passage.head.way {
        Way::V4 => to_v4(ctx, frame, &datagram, &passage)?,
        Way::V6 | Way::Local => return Err(DropReason::BadSlot.into()),
    };
    passage.forwarded(payload);
    Ok(outcome)
}

/// A packet that was accepted, and the slot by which it leaves.
struct Passage {
    slot: Slot,
    head: FlowHead,
    cold: Cold,
    media: Media,
}

/// The slot of a port, if packets of its flow go through the kernel.
#[inline(always)]
fn enter(index: SlotIndex) -> Result<(Slot, FlowHead), Outcome> {
    let slot = Slot::at(FLOWS.get_ptr_mut(index.0).ok_or(DropReason::BadSlot)?);
    let head = FlowHead::from_word(slot.word::<{ FlowSlot::HEAD }>()).ok_or(DropReason::BadSlot)?;
    match head.state {
        FlowState::Learning | FlowState::Latched => Ok((slot, head)),
        FlowState::Idle | FlowState::Muxed => Err(DropReason::NoFlow.into()),
        FlowState::Relay => Err(PassReason::Relay.into()),
    }
}

/// The packet is what the port is for, from the source that the flow accepts, and not too many.
#[inline(always)]
fn pass(
    frame: &Frame,
    payload: Payload,
    index: SlotIndex,
    slot: Slot,
    head: FlowHead,
    source: u64,
) -> Result<Passage, DropReason> {
    let mut cold = Cold::at(STREAMS.get_ptr_mut(index.0).ok_or(DropReason::BadSlot)?);
    let media = payload::check(frame, payload, head.kind)?;
    admit(&slot, index, head, source)?;
    cold.admit()?;
    Ok(Passage { slot, head, cold, media })
}

impl Passage {
    /// Counts the packet, and takes note of what it said.
    #[inline(always)]
    fn forwarded(self, payload: Payload) {
        self.slot.forwarded(payload.bytes as u64);
        self.cold.note(self.head.generation, &self.media);
    }
}

/// Sends the packet on over IPv4.
#[inline(always)]
fn to_v4(
    ctx: &XdpContext,
    frame: &Frame,
    datagram: &Datagram,
    passage: &Passage,
) -> Result<Outcome, Outcome> {
    let target = target(&passage.slot, passage.head)?;
    let local = local(passage.slot.partner())?;
    let room = l2::Room {
        udp_offset: datagram.udp_offset(),
        ip_header_bytes: IPV4_BYTES,
        ip_bytes: usize::from(datagram.ip_bytes),
    };
    let (egress, frame) = l2::leave(ctx, frame, room, passage.head.next_hop)?;
    v4_to_v4::rewrite(&frame, egress.ip_offset, local, target).ok_or(DropReason::BadLength)?;
    egress.write_header(&frame, ETHERTYPE_IPV4).ok_or(DropReason::BadLength)?;
    Ok(egress.outcome)
}

/// The slot of the packet's destination, if that is a media port of ours.
#[inline(always)]
fn media_port(ctx: &XdpContext, link: &Link, datagram: &Datagram) -> Result<SlotIndex, PassReason> {
    let address = our_address(ctx.ingress_ifindex() as u32, link, datagram.destination_address)
        .ok_or(PassReason::NotOurAddress)?;
    if datagram.destination_port < address.port_min || datagram.destination_port > address.port_max {
        return Err(PassReason::NotMediaPort);
    }
    Ok(SlotIndex::new(address.slot, datagram.destination_port))
}

/// The entry of a destination address on the interface and VLAN that the packet arrived on.
#[inline(always)]
fn our_address(ifindex: u32, link: &Link, destination: u32) -> Option<&'static AddressSlot> {
    let slots = CONFIG.get(0)?.address_slots;
    for slot in 0..limits::ADDRESS_SLOTS {
        if slot >= slots {
            break;
        }
        let address = ADDRESSES.get(slot)?;
        if u32::from_ne_bytes(address.address) == destination
            && address.ifindex == ifindex
            && address.vlan == link.vlan
            && address.outer_vlan == link.outer_vlan
        {
            return Some(address);
        }
    }
    None
}

/// The packet comes from the source that the flow accepts; the first one of a learning flow becomes that source.
#[inline(always)]
fn admit(slot: &Slot, index: SlotIndex, head: FlowHead, source: u64) -> Result<(), DropReason> {
    let learned = slot.word::<{ FlowSlot::LEARNED_SOURCE }>();
    if let Some(endpoint) = Learned::from_word(learned).endpoint(head.generation) {
        return if endpoint.to_word() == source { Ok(()) } else { Err(DropReason::WrongSource) };
    }
    let expected = slot.word::<{ FlowSlot::EXPECTED }>();
    if head.state == FlowState::Latched {
        return if expected & Endpoint::MASK == source { Ok(()) } else { Err(DropReason::WrongSource) };
    }
    if !Allowed::from_word(expected).may_claim(Endpoint::from_word(source)) {
        return Err(DropReason::WrongSource);
    }
    claim(slot, index, head, learned, Endpoint::from_word(source))
}

/// Makes a source the learned one, here and as the partner's destination.
#[inline(always)]
fn claim(
    slot: &Slot,
    index: SlotIndex,
    head: FlowHead,
    observed: u64,
    source: Endpoint,
) -> Result<(), DropReason> {
    let word = Learned::new(source, head.generation).to_word();
    if !slot.claim(observed, word) {
        return Err(DropReason::LostClaim);
    }
    if let Some(partner) = FLOWS.get_ptr_mut(slot.partner()) {
        Slot::at(partner).set_word::<{ FlowSlot::LEARNED_DESTINATION }>(word);
    }
    emit::latched(LatchedRecord::new(index, source, head.generation));
    Ok(())
}

/// Where the flow's packets go: to what the partner learned, else where signalling said.
#[inline(always)]
fn target(slot: &Slot, head: FlowHead) -> Result<Target, DropReason> {
    let signalled = Target::from_word(slot.word::<{ FlowSlot::DESTINATION }>());
    let learned = Learned::from_word(slot.word::<{ FlowSlot::LEARNED_DESTINATION }>());
    match learned.endpoint(head.generation) {
        Some(endpoint) => Ok(Target::new(endpoint, signalled.dscp, signalled.ttl)),
        None if signalled.port == [0; 2] => Err(DropReason::NoDestination),
        None => Ok(signalled),
    }
}

/// The address and port of ours that a flow's packets leave from: those of the partner's slot.
#[inline(always)]
pub(super) fn local(partner: u32) -> Result<Endpoint, DropReason> {
    let partner = SlotIndex(partner);
    let address = ADDRESSES.get(u32::from(partner.address_slot())).ok_or(DropReason::BadSlot)?;
    if address.ifindex == 0 {
        return Err(DropReason::BadSlot);
    }
    Ok(Endpoint::new(address.address, partner.port()))
}
