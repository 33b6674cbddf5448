//! The media path: which flow a packet belongs to, whether it may use it, and where it goes.

mod v4_to_v4;
mod v6;

use aya_ebpf::programs::XdpContext;
use sbc_common::addr::{AddressSlot, Endpoint};
use sbc_common::counter::Counter;
use sbc_common::event::LatchedRecord;
use sbc_common::flow::{FlowHead, FlowSlot, FlowState, Learned, MediaKind, SlotIndex, Target};
use sbc_common::rtp::{self, MediaError};
use sbc_common::stream::Run;
use sbc_common::{checksum, limits};

use crate::ctx::{Frame, Numbering, Slot};
use crate::maps::{ADDRESSES, CONFIG, FLOWS, STREAMS};
use crate::outcome::{DropReason, Outcome, PassReason};
use crate::parse::{Datagram, IPV4_BYTES, UDP_BYTES};
use crate::{emit, l2, parse};

/// Relays the packet, or says why not.
#[inline(always)]
pub fn relay(ctx: &XdpContext) -> Outcome {
    match try_relay(ctx) {
        Err(Outcome::Pass(PassReason::NotIp)) => {
            Outcome::from_counter(v6::relay(ctx.ctx)).unwrap_or(Outcome::Pass(PassReason::NotIp))
        }
        Ok(outcome) | Err(outcome) => outcome,
    }
}

#[inline(always)]
fn try_relay(ctx: &XdpContext) -> Result<Outcome, Outcome> {
    let frame = Frame::of(ctx);
    let datagram = parse::datagram(&frame)?;
    let index = media_port(ctx, &datagram)?;
    let slot = Slot::at(FLOWS.get_ptr_mut(index.0).ok_or(DropReason::BadSlot)?);
    let head = FlowHead::from_word(slot.word::<{ FlowSlot::HEAD }>()).ok_or(DropReason::BadSlot)?;
    match head.state {
        FlowState::Learning | FlowState::Latched => {}
        FlowState::Idle | FlowState::Muxed => return Err(DropReason::NoFlow.into()),
        FlowState::Relay => return Err(PassReason::Relay.into()),
    }
    check_lengths(&frame, &datagram)?;
    let packet = check_media(&frame, &datagram, head)?;
    admit(&slot, index, head, datagram.source)?;
    verify(&frame, &datagram, &slot);
    let target = target(&slot, head)?;
    let local = local(slot.partner())?;
    let (egress, frame) = l2::leave(ctx, &frame, &datagram, head.next_hop)?;
    v4_to_v4::rewrite(&frame, egress.ip_offset, local, target).ok_or(DropReason::BadLength)?;
    egress.write_header(&frame).ok_or(DropReason::BadLength)?;
    slot.forwarded(u64::from(datagram.udp_bytes) - UDP_BYTES as u64);
    if let Some(packet) = packet
        && let Some(numbering) = STREAMS.get_ptr_mut(index.0)
    {
        Numbering::at(numbering).see(packet);
    }
    Ok(egress.outcome)
}

/// The slot of the packet's destination, if that is a media port of ours.
#[inline(always)]
fn media_port(ctx: &XdpContext, datagram: &Datagram) -> Result<SlotIndex, PassReason> {
    let address = our_address(ctx.ingress_ifindex() as u32, datagram).ok_or(PassReason::NotOurAddress)?;
    if datagram.destination_port < address.port_min || datagram.destination_port > address.port_max {
        return Err(PassReason::NotMediaPort);
    }
    Ok(SlotIndex::new(address.slot, datagram.destination_port))
}

/// The entry of the packet's destination address on the interface and VLAN that it arrived on.
#[inline(always)]
fn our_address(ifindex: u32, datagram: &Datagram) -> Option<&'static AddressSlot> {
    let slots = CONFIG.get(0)?.address_slots;
    for slot in 0..limits::ADDRESS_SLOTS {
        if slot >= slots {
            break;
        }
        let address = ADDRESSES.get(slot)?;
        if u32::from_ne_bytes(address.address) == datagram.destination_address
            && address.ifindex == ifindex
            && address.vlan == datagram.vlan
        {
            return Some(address);
        }
    }
    None
}

/// The announced lengths nest: UDP in IP in the frame. The frame may be padded.
#[inline(always)]
fn check_lengths(frame: &Frame, datagram: &Datagram) -> Result<(), DropReason> {
    let (ip_bytes, udp_bytes) = (usize::from(datagram.ip_bytes), usize::from(datagram.udp_bytes));
    if udp_bytes < UDP_BYTES
        || IPV4_BYTES + udp_bytes > ip_bytes
        || datagram.ip_offset + ip_bytes > frame.length()
    {
        return Err(DropReason::BadLength);
    }
    Ok(())
}

/// The payload is what the port is for. Of RTP, its place in its sender's numbering.
#[inline(always)]
fn check_media(frame: &Frame, datagram: &Datagram, head: FlowHead) -> Result<Option<Run>, DropReason> {
    let payload_bytes = usize::from(datagram.udp_bytes) - UDP_BYTES;
    if payload_bytes < rtp::RTCP_HEADER_BYTES {
        return Err(DropReason::ShortMedia);
    }
    let payload_offset = datagram.ip_offset + IPV4_BYTES + UDP_BYTES;
    let start = frame
        .window::<{ rtp::RTCP_HEADER_BYTES }>(payload_offset)
        .ok_or(DropReason::BadLength)?
        .load64::<0>();
    let [_, second_byte, ..] = start.to_ne_bytes();
    let kind = rtp::carried(head.kind, second_byte);
    match rtp::check_head(kind, start.to_ne_bytes(), payload_bytes) {
        Ok(()) => {}
        Err(MediaError::Short) => return Err(DropReason::ShortMedia),
        Err(MediaError::Stun) => return Err(DropReason::Stun),
        Err(MediaError::Dtls) => return Err(DropReason::Dtls),
        Err(MediaError::NotRtp) => return Err(DropReason::NotRtp),
        Err(MediaError::WrongKind) => return Err(DropReason::WrongKind),
    }
    match kind {
        MediaKind::Rtcp => Ok(None),
        MediaKind::Rtp => {
            let rtp =
                frame.window::<{ rtp::RTP_HEADER_BYTES }>(payload_offset).ok_or(DropReason::BadLength)?;
            let [_, _, high, low, ..] = start.to_ne_bytes();
            Ok(Some(Run {
                source: rtp.load32::<8>().to_ne_bytes(),
                highest: u16::from_be_bytes([high, low]),
                tag: head.generation,
            }))
        }
    }
}

/// The packet comes from the source that the flow accepts; the first one of a learning flow becomes that source.
#[inline(always)]
fn admit(slot: &Slot, index: SlotIndex, head: FlowHead, source: u64) -> Result<(), DropReason> {
    let learned = slot.word::<{ FlowSlot::LEARNED_SOURCE }>();
    if let Some(endpoint) = Learned::from_word(learned).endpoint(head.generation) {
        return if endpoint.to_word() == source { Ok(()) } else { Err(DropReason::WrongSource) };
    }
    let expected = slot.word::<{ FlowSlot::EXPECTED }>() & Endpoint::MASK;
    if head.state == FlowState::Latched {
        return if expected == source { Ok(()) } else { Err(DropReason::WrongSource) };
    }
    let any_port = expected & Endpoint::PORT_MASK == 0;
    let compared = if any_port { Endpoint::ADDRESS_MASK } else { Endpoint::MASK };
    if (expected ^ source) & compared != 0 {
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

/// Verifies the UDP checksum of a sample of the flow's packets.
///
/// An incremental update keeps a wrong checksum wrong, and nobody else here would notice that a sender's are.
#[inline(always)]
fn verify(frame: &Frame, datagram: &Datagram, slot: &Slot) {
    let one_in = CONFIG.get(0).map_or(0, |config| config.verify_one_in);
    if one_in == 0 || slot.word::<{ FlowSlot::PACKETS }>() & (u64::from(one_in) - 1) != 0 {
        return;
    }
    let udp_offset = datagram.ip_offset + IPV4_BYTES;
    let Some(header) = frame.window::<UDP_BYTES>(udp_offset) else { return };
    let Some(sum) = frame.sum(udp_offset, usize::from(datagram.udp_bytes)) else { return };
    let pseudo_header = (datagram.source & Endpoint::ADDRESS_MASK)
        + u64::from(datagram.destination_address)
        + u64::from(u16::from(parse::UDP).to_be())
        + u64::from(datagram.udp_bytes.to_be());
    if header.load16::<6>() != 0 && checksum::fold(sum + pseudo_header) != 0xffff {
        emit::count(Counter::BadChecksum.number());
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

/// The address and port of ours that the flow's packets leave from: those of the partner's slot.
#[inline(always)]
fn local(partner: u32) -> Result<Endpoint, DropReason> {
    let partner = SlotIndex(partner);
    let address = ADDRESSES.get(u32::from(partner.address_slot())).ok_or(DropReason::BadSlot)?;
    if address.ifindex == 0 {
        return Err(DropReason::BadSlot);
    }
    Ok(Endpoint::new(address.address, partner.port()))
}
