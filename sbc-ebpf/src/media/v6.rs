//! Packets that arrive over IPv6: the slots of `FLOWS6`. Functions of their own, which the kernel calls: IPv4 pays nothing
//! for them, and the verifier follows them apart.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use sbc_common::addr::{AddressSlot6, Endpoint};
use sbc_common::event::LatchedRecord6;
use sbc_common::flow::{FlowHead, FlowSlot, FlowState, Learned, PortKind, SlotIndex, Way};
use sbc_common::flow6::{Claim, ClaimPhase, Endpoint6, FlowSlot6, may_claim};
use sbc_common::limits;

use super::mark::Mark;
use super::payload::{self, Media, Payload};
use super::stream::Cold;
use super::{report, v4, v6_to_v4, v6_to_v6};
use crate::ctx::{Frame, Slot, Slot6};
use crate::maps::{ADDRESSES6, CONFIG, FLOWS, FLOWS6, STREAMS6};
use crate::outcome::{DropReason, Outcome, PassReason};
use crate::parse::v6::{Datagram, End, IPV6_BYTES, datagram};
use crate::parse::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_BYTES, Link, UDP_BYTES};
use crate::{emit, l2};

/// Relays the packet, or says why not: the number of the outcome.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(no_mangle))]
pub(super) extern "C" fn relay6(ctx: *mut xdp_md) -> u32 {
    match try_relay(&XdpContext::new(ctx)) {
        Ok(outcome) | Err(outcome) => outcome.counter(),
    }
}

#[inline(always)]
fn try_relay(ctx: &XdpContext) -> Result<Outcome, Outcome> {
    let frame = Frame::of(ctx);
    let link = parse::link(&frame)?;
    if link.ether_type != ETHERTYPE_IPV6 {
        return Err(PassReason::NotIp.into());
    }
    let datagram = datagram(&frame, &link)?;
    let index = media_port(ctx, &link, &datagram)?;
    let (slot, head) = slot_at(index)?;
    v4::check_state(head.state)?;
    datagram.check_lengths(&frame)?;
    if datagram.udp_checksum == 0 {
        return Err(DropReason::NoChecksum.into());
    }
    let payload = Payload::behind(datagram.udp_offset(), datagram.udp_bytes);
    let passage = pass(&frame, payload, index, slot, head, datagram.source)?;
    let addresses = datagram.source.sum() + datagram.destination.sum();
    let packets = passage.slot.word::<{ FlowSlot6::PACKETS }>();
    super::verify(ctx, datagram.udp_offset(), datagram.udp_bytes, addresses, packets);
    let (outcome, payload_offset) = match passage.head.way {
        Way::V6 => to_v6(ctx, &frame, &datagram, &passage)?,
        Way::V4 => to_v4(ctx, &frame, &datagram, &passage)?,
        Way::Local => return Err(DropReason::BadSlot.into()),
    };
    passage.forwarded(ctx, Payload { offset: payload_offset, ..payload });
    Ok(outcome)
}

/// A packet that was accepted, and the slot by which it leaves.
struct Passage {
    index: SlotIndex,
    slot: Slot6,
    head: FlowHead,
    cold: Cold,
    media: Media,
}

/// A slot and its head.
#[inline(always)]
fn slot_at(index: SlotIndex) -> Result<(Slot6, FlowHead), DropReason> {
    let slot = Slot6::at(FLOWS6.get_ptr_mut(index.0).ok_or(DropReason::BadSlot)?);
    let head = FlowHead::from_word(slot.word::<{ FlowSlot6::HEAD }>()).ok_or(DropReason::BadSlot)?;
    Ok((slot, head))
}

/// The packet is what the port is for, from the source that the flow accepts, and not too many.
#[inline(always)]
fn pass(
    frame: &Frame,
    payload: Payload,
    index: SlotIndex,
    slot: Slot6,
    head: FlowHead,
    source: End,
) -> Result<Passage, DropReason> {
    let media = payload::check(frame, payload, head.kind)?;
    admit(&slot, index, head, source)?;
    let (index, slot, head) = way_out(index, slot, head, &media)?;
    let cold = Cold::at(STREAMS6.get_ptr_mut(index.0).ok_or(DropReason::BadSlot)?);
    cold.admit()?;
    Ok(Passage { index, slot, head, cold, media })
}

/// The slot by which a packet leaves: its own, but for RTCP that came to a port for both the next one.
#[inline(always)]
fn way_out(
    index: SlotIndex,
    slot: Slot6,
    head: FlowHead,
    media: &Media,
) -> Result<(SlotIndex, Slot6, FlowHead), DropReason> {
    if head.kind != PortKind::Muxed || matches!(media, Media::Rtp(_)) {
        return Ok((index, slot, head));
    }
    let next = SlotIndex(index.0 | 1);
    let (slot, out) = slot_at(next)?;
    // The daemon publishes the two one after the other.
    if out.state != FlowState::Muxed || out.generation != head.generation {
        return Err(DropReason::NoFlow);
    }
    Ok((next, slot, out))
}

impl Passage {
    /// Counts the packet, and takes note of what it said.
    #[inline(always)]
    fn forwarded(self, ctx: &XdpContext, payload: Payload) {
        self.slot.forwarded(payload.bytes as u64);
        match self.media {
            Media::Rtp(heard) => self.cold.note(self.head.generation, heard),
            Media::Rtcp => report::copy(ctx, report::V6, self.index, self.head.generation, payload),
        }
    }
}

/// Sends the packet on over IPv6. Where its payload starts then.
#[inline(always)]
fn to_v6(
    ctx: &XdpContext,
    frame: &Frame,
    datagram: &Datagram,
    passage: &Passage,
) -> Result<(Outcome, usize), Outcome> {
    let (signalled, mark) = signalled(&passage.slot);
    let peer = match followed(passage) {
        Some(partner) => learned(partner, passage.head.generation).unwrap_or(signalled),
        None => signalled,
    };
    if peer.port == 0 {
        return Err(DropReason::NoDestination.into());
    }
    let local = local(passage.slot.partner())?;
    let room = l2::Room {
        udp_offset: datagram.udp_offset(),
        ip_header_bytes: IPV6_BYTES,
        ip_bytes: IPV6_BYTES + usize::from(datagram.payload_bytes),
    };
    let (egress, frame) = l2::leave(ctx, frame, room, passage.head.next_hop)?;
    v6_to_v6::rewrite(&frame, egress.ip_offset, datagram, local, peer, mark).ok_or(DropReason::BadLength)?;
    egress.write_header(&frame, ETHERTYPE_IPV6).ok_or(DropReason::BadLength)?;
    Ok((egress.outcome, egress.ip_offset + IPV6_BYTES + UDP_BYTES))
}

/// Sends the packet on over IPv4. The address of the destination is IPv4-mapped.
#[inline(always)]
fn to_v4(
    ctx: &XdpContext,
    frame: &Frame,
    datagram: &Datagram,
    passage: &Passage,
) -> Result<(Outcome, usize), Outcome> {
    let (signalled, mark) = signalled(&passage.slot);
    let ([_, _, _, _, a, b, c, d], [e, f]) = (signalled.low.to_ne_bytes(), signalled.port.to_ne_bytes());
    let signalled = Endpoint { address: [a, b, c, d], port: [e, f], unused: [0; 2] };
    let peer = match followed(passage) {
        Some(partner) => learned_v4(partner, passage.head.generation).unwrap_or(signalled),
        None => signalled,
    };
    if peer.port == [0; 2] {
        return Err(DropReason::NoDestination.into());
    }
    let local = v4::local(passage.slot.partner())?;
    let room = l2::Room {
        udp_offset: datagram.udp_offset(),
        ip_header_bytes: IPV4_BYTES,
        ip_bytes: IPV4_BYTES + usize::from(datagram.payload_bytes),
    };
    let (egress, frame) = l2::leave(ctx, frame, room, passage.head.next_hop)?;
    v6_to_v4::rewrite(&frame, egress.ip_offset, datagram, local, peer, mark).ok_or(DropReason::BadLength)?;
    egress.write_header(&frame, ETHERTYPE_IPV4).ok_or(DropReason::BadLength)?;
    Ok((egress.outcome, egress.ip_offset + IPV4_BYTES + UDP_BYTES))
}

/// Where signalling said that the flow's packets go, and how they are marked.
#[inline(always)]
fn signalled(slot: &Slot6) -> (End, Mark) {
    let last = slot.word::<{ FlowSlot6::DESTINATION + 2 }>();
    let words =
        [slot.word::<{ FlowSlot6::DESTINATION }>(), slot.word::<{ FlowSlot6::DESTINATION + 1 }>(), last];
    let [_, _, dscp, ttl, ..] = last.to_ne_bytes();
    (End::from_words(words), Mark { dscp, ttl })
}

/// The partner whose learned source is the destination.
#[inline(always)]
fn followed(passage: &Passage) -> Option<u32> {
    (passage.head.flags & FlowHead::FOLLOWS_PARTNER != 0).then(|| passage.slot.partner())
}

/// What a slot of `FLOWS6` learned in a generation.
#[inline(always)]
pub(super) fn learned(index: u32, generation: u16) -> Option<End> {
    let slot = Slot6::at(FLOWS6.get_ptr_mut(index)?);
    match Claim::phase_in(slot.word::<{ FlowSlot6::CLAIM }>(), generation) {
        ClaimPhase::Claimed => Some(source_of(&slot)),
        ClaimPhase::Open | ClaimPhase::Claiming => None,
    }
}

/// The source that claimed a slot, if one has.
#[inline(always)]
fn source_of(slot: &Slot6) -> End {
    End::from_words([
        slot.word::<{ FlowSlot6::LEARNED_SOURCE }>(),
        slot.word::<{ FlowSlot6::LEARNED_SOURCE + 1 }>(),
        slot.word::<{ FlowSlot6::LEARNED_SOURCE + 2 }>(),
    ])
}

/// What a slot of `FLOWS` learned in a generation.
#[inline(always)]
fn learned_v4(index: u32, generation: u16) -> Option<Endpoint> {
    let slot = Slot::at(FLOWS.get_ptr_mut(index)?);
    Learned::from_word(slot.word::<{ FlowSlot::LEARNED_SOURCE }>()).endpoint(generation)
}

/// The slot of the packet's destination, if that is a media port of ours.
#[inline(always)]
fn media_port(ctx: &XdpContext, link: &Link, datagram: &Datagram) -> Result<SlotIndex, PassReason> {
    let address = our_address(ctx.ingress_ifindex() as u32, link, datagram.destination)
        .ok_or(PassReason::NotOurAddress)?;
    let port = u16::from_be(datagram.destination.port);
    if port < address.port_min || port > address.port_max {
        return Err(PassReason::NotMediaPort);
    }
    Ok(SlotIndex::new(address.slot, port))
}

/// The entry of a destination address on the interface and VLAN that the packet arrived on.
#[inline(always)]
fn our_address(ifindex: u32, link: &Link, destination: End) -> Option<&'static AddressSlot6> {
    let slots = CONFIG.get(0)?.address_slots6;
    for slot in 0..limits::ADDRESS_SLOTS6 {
        if slot >= slots {
            break;
        }
        let address = ADDRESSES6.get(slot)?;
        let ours = End::new(address.address, 0);
        if ours.low == destination.low
            && ours.high == destination.high
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
fn admit(slot: &Slot6, index: SlotIndex, head: FlowHead, source: End) -> Result<(), DropReason> {
    let observed = slot.word::<{ FlowSlot6::CLAIM }>();
    let only = |accepted: End| if accepted == source { Ok(()) } else { Err(DropReason::WrongSource) };
    match Claim::phase_in(observed, head.generation) {
        ClaimPhase::Claimed => return only(source_of(slot)),
        ClaimPhase::Claiming => return Err(DropReason::LostClaim),
        ClaimPhase::Open => {}
    }
    let expected = [
        slot.word::<{ FlowSlot6::EXPECTED }>(),
        slot.word::<{ FlowSlot6::EXPECTED + 1 }>(),
        slot.word::<{ FlowSlot6::EXPECTED + 2 }>(),
    ];
    if head.state == FlowState::Latched {
        // No port is nobody, and from port 0 nobody sends.
        return if source.port == 0 { Err(DropReason::WrongSource) } else { only(End::from_words(expected)) };
    }
    if !may_claim(expected, source.to_words()) {
        return Err(DropReason::WrongSource);
    }
    claim(slot, index, head, observed, source)
}

/// Makes a source the learned one. Nothing is told to the partner, which looks for itself.
#[inline(always)]
fn claim(
    slot: &Slot6,
    index: SlotIndex,
    head: FlowHead,
    observed: u64,
    source: End,
) -> Result<(), DropReason> {
    let word = |phase| Claim::new(head.generation, phase).to_word();
    if !slot.claim(observed, word(ClaimPhase::Claiming)) {
        return Err(DropReason::LostClaim);
    }
    let words = source.to_words();
    slot.set_word::<{ FlowSlot6::LEARNED_SOURCE }>(words[0]);
    slot.set_word::<{ FlowSlot6::LEARNED_SOURCE + 1 }>(words[1]);
    slot.set_word::<{ FlowSlot6::LEARNED_SOURCE + 2 }>(words[2]);
    // By exchange, because that is a barrier too: whoever sees the claim sees the source.
    slot.claim(word(ClaimPhase::Claiming), word(ClaimPhase::Claimed));
    emit::latched6(LatchedRecord6::new(index, Endpoint6::from_words(words), head.generation));
    Ok(())
}

/// The address and port of ours that a flow's packets leave from: those of the partner's slot.
#[inline(always)]
pub(super) fn local(partner: u32) -> Result<End, DropReason> {
    let partner = SlotIndex(partner);
    let address = ADDRESSES6.get(u32::from(partner.address_slot())).ok_or(DropReason::BadSlot)?;
    if address.ifindex == 0 {
        return Err(DropReason::BadSlot);
    }
    Ok(End::new(address.address, partner.port()))
}
