//! Packets that arrive over IPv4: the slots of `FLOWS`.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use sbc_common::addr::{AddressSlot, Endpoint};
use sbc_common::event::LatchedRecord;
use sbc_common::flow::{Allowed, FlowHead, FlowSlot, FlowState, Learned, PortKind, SlotIndex, Target, Way};
use sbc_common::limits;

use super::payload::{self, Media, Payload};
use super::stream::Cold;
use super::{report, v4_to_v4, v4_to_v6};
use crate::ctx::{Frame, Slot};
use crate::maps::{ADDRESSES, CONFIG, FLOWS, STREAMS};
use crate::outcome::{DropReason, Outcome, PassReason};
use crate::parse::{ETHERTYPE_IPV4, IPV4_BYTES, Link, UDP_BYTES, v4::Datagram, v4::datagram};
use crate::{emit, l2};

/// Ports of ours that a packet may go through, one after the other, before it leaves.
const LOCAL_HOPS: usize = 4;

/// Relays the packet, or says why not.
#[inline(always)]
pub(super) fn relay(ctx: &XdpContext, frame: &Frame, link: &Link) -> Result<Outcome, Outcome> {
    let datagram = datagram(frame, link)?;
    let index = media_port(ctx, link, &datagram)?;
    let cold = cold_at(index)?;
    let (slot, head) = slot_at(index)?;
    check_state(head.state)?;
    datagram.check_lengths(frame)?;
    let payload = Payload::behind(datagram.udp_offset(), datagram.udp_bytes);
    let mut passage = pass(frame, payload, Arrival { index, slot, head, cold }, datagram.source)?;
    let addresses = (datagram.source & Endpoint::ADDRESS_MASK) + u64::from(datagram.destination_address);
    let packets = passage.slot.word::<{ FlowSlot::PACKETS }>();
    super::verify(ctx, datagram.udp_offset(), datagram.udp_bytes, addresses, packets);
    if passage.head.way == Way::Local {
        let (index, media) = (passage.index, passage.media);
        passage.forwarded(ctx, payload);
        passage = Passage::at(last_local(ctx.ctx, index.0, payload.to_word()), media)?;
    }
    let (outcome, payload_offset) = match passage.head.way {
        Way::V4 => to_v4(ctx, frame, &datagram, &passage)?,
        Way::V6 => to_v6(ctx, &passage)?,
        Way::Local => return Err(DropReason::BadSlot.into()),
    };
    passage.forwarded(ctx, Payload { offset: payload_offset, ..payload });
    Ok(outcome)
}

/// A packet that was accepted, and the slot by which it leaves.
struct Passage {
    index: SlotIndex,
    slot: Slot,
    head: FlowHead,
    cold: Cold,
    media: Media,
}

/// A slot and its head.
#[inline(always)]
fn slot_at(index: SlotIndex) -> Result<(Slot, FlowHead), DropReason> {
    let slot = Slot::at(FLOWS.get_ptr_mut(index.0).ok_or(DropReason::BadSlot)?);
    let head = FlowHead::from_word(slot.word::<{ FlowSlot::HEAD }>()).ok_or(DropReason::BadSlot)?;
    Ok((slot, head))
}

/// The cold slot of a slot.
#[inline(always)]
fn cold_at(index: SlotIndex) -> Result<Cold, DropReason> {
    Ok(Cold::at(STREAMS.get_ptr_mut(index.0).ok_or(DropReason::BadSlot)?))
}

/// The flow that arrives on a port is there, and the kernel's.
#[inline(always)]
pub(super) fn check_state(state: FlowState) -> Result<(), Outcome> {
    match state {
        FlowState::Learning | FlowState::Latched => Ok(()),
        FlowState::Idle | FlowState::Muxed => Err(DropReason::NoFlow.into()),
        FlowState::Relay => Err(PassReason::Relay.into()),
    }
}

/// The flow of the port that a packet came to.
struct Arrival {
    index: SlotIndex,
    slot: Slot,
    head: FlowHead,
    cold: Cold,
}

/// The packet is what the port is for, from the source that the flow accepts, and not too many.
#[inline(always)]
fn pass(frame: &Frame, payload: Payload, arrival: Arrival, source: u64) -> Result<Passage, DropReason> {
    let media = payload::check(frame, payload, arrival.head.kind)?;
    admit(&arrival.slot, arrival.index, arrival.head, source)?;
    let passage = way_out(arrival, media)?;
    passage.cold.admit()?;
    Ok(passage)
}

/// The slot by which a packet leaves: its own, but for RTCP that came to a port for both the next one.
#[inline(always)]
fn way_out(arrival: Arrival, media: Media) -> Result<Passage, DropReason> {
    let Arrival { index, slot, head, cold } = arrival;
    if head.kind != PortKind::Muxed || matches!(media, Media::Rtp(_)) {
        return Ok(Passage { index, slot, head, cold, media });
    }
    let index = SlotIndex(index.0 | 1);
    let cold = cold_at(index)?;
    let (slot, out) = slot_at(index)?;
    // The daemon publishes the two one after the other.
    if out.state != FlowState::Muxed || out.generation != head.generation {
        return Err(DropReason::NoFlow);
    }
    Ok(Passage { index, slot, head: out, cold, media })
}

impl Passage {
    /// The last of a chain of passages, as [`last_local`] tells it.
    #[inline(always)]
    fn at(last: u64, media: Media) -> Result<Self, Outcome> {
        if let Some(outcome) = Outcome::from_counter((last >> 32) as u32)
            && last >> 32 != 0
        {
            return Err(outcome);
        }
        let index = SlotIndex(last as u32);
        let (slot, head) = slot_at(index)?;
        let cold = cold_at(index)?;
        Ok(Self { index, slot, head, cold, media })
    }

    /// Counts the packet, and takes note of what it said.
    #[inline(always)]
    fn forwarded(self, ctx: &XdpContext, payload: Payload) {
        self.slot.forwarded(payload.bytes as u64);
        match self.media {
            Media::Rtp(heard) => self.cold.note(self.head.generation, heard),
            Media::Rtcp => report::copy(ctx, report::V4, self.index, self.head.generation, payload),
        }
    }
}

/// The slot by which a packet leaves after it has gone from port to port of ours: its index, or the number of the outcome
/// in the upper half. A function of its own, which few packets need and all would pay for.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(no_mangle))]
extern "C" fn last_local(ctx: *mut xdp_md, first: u32, payload: u64) -> u64 {
    match try_last_local(&XdpContext::new(ctx), SlotIndex(first), Payload::from_word(payload)) {
        Ok(index) => u64::from(index.0),
        Err(outcome) => u64::from(outcome.counter()) << 32,
    }
}

#[inline(always)]
fn try_last_local(ctx: &XdpContext, first: SlotIndex, payload: Payload) -> Result<SlotIndex, Outcome> {
    let frame = Frame::of(ctx);
    let (mut slot, mut head) = slot_at(first)?;
    for _ in 0..LOCAL_HOPS {
        let source = local(slot.partner())?.to_word();
        let port = Target::from_word(slot.word::<{ FlowSlot::DESTINATION }>()).endpoint().port();
        let index = SlotIndex::new(head.next_hop, port);
        let (next, next_head) = slot_at(index)?;
        // To the relay neither: the host would not find in the packet what the relay waits for.
        if !matches!(next_head.state, FlowState::Learning | FlowState::Latched) {
            return Err(DropReason::NoFlow.into());
        }
        let arrival = Arrival { index, slot: next, head: next_head, cold: cold_at(index)? };
        let passage = pass(&frame, payload, arrival, source)?;
        if passage.head.way != Way::Local {
            return Ok(passage.index);
        }
        (slot, head) = (passage.slot, passage.head);
        passage.forwarded(ctx, payload);
    }
    Err(DropReason::Circle.into())
}

/// Sends the packet on over IPv4. Where its payload starts then.
#[inline(always)]
fn to_v4(
    ctx: &XdpContext,
    frame: &Frame,
    datagram: &Datagram,
    passage: &Passage,
) -> Result<(Outcome, usize), Outcome> {
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
    Ok((egress.outcome, egress.ip_offset + IPV4_BYTES + UDP_BYTES))
}

/// Sends the packet on over IPv6. Where its payload starts then.
#[inline(always)]
fn to_v6(ctx: &XdpContext, passage: &Passage) -> Result<(Outcome, usize), Outcome> {
    let result = v4_to_v6::leave4_to_6(ctx.ctx, passage.index.0, passage.head.to_word());
    match Outcome::from_counter(result as u32).ok_or(DropReason::BadSlot)? {
        left @ (Outcome::Transmit | Outcome::Redirect) => Ok((left, (result >> 32) as usize)),
        stayed @ (Outcome::Pass(_) | Outcome::Drop(_)) => Err(stayed),
    }
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
    // Nobody sends from port 0: it is how the slot of a side that nobody may send to is written.
    if source & Endpoint::PORT_MASK == 0 {
        return Err(DropReason::WrongSource);
    }
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

/// Makes a source the learned one, here and as the destination of those slots of the other side that send to this port.
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
    let (rtp, rtcp) = (slot.partner() & !1, slot.partner() | 1);
    match (head.way, head.kind, index.0 & 1) {
        // The other side is in `FLOWS6` and reads what was learned here.
        (Way::V6, _, _) => {}
        (_, PortKind::Muxed, _) => {
            tell(rtp, word);
            tell(rtcp, word);
        }
        (_, _, 0) => tell(rtp, word),
        (_, _, _) => tell(rtcp, word),
    }
    emit::latched(LatchedRecord::new(index, source, head.generation));
    Ok(())
}

/// Tells a slot where its packets go from now on.
#[inline(always)]
fn tell(index: u32, learned: u64) {
    if let Some(slot) = FLOWS.get_ptr_mut(index) {
        Slot::at(slot).set_word::<{ FlowSlot::LEARNED_DESTINATION }>(learned);
    }
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
