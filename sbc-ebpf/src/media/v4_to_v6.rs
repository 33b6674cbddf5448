//! IPv4 in, IPv6 out: a new IPv6 header, which is longer, and the UDP checksum updated for the other pseudo-header and
//! ports (RFC 1624). A function of its own, as all of IPv6 is.
//!
//! IPv6 has no datagrams without a UDP checksum (RFC 8200 section 8.1). Where a sender computed none, the one that it
//! should have sent is computed over the whole datagram, and updated like any other.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use sbc_common::addr::Endpoint;
use sbc_common::checksum::{Delta, fold};
use sbc_common::flow::{FlowHead, FlowSlot, Target};
use sbc_common::stream::StreamSlot;

use super::mark::Mark;
use super::v6;
use crate::ctx::{Frame, Slot, Stream};
use crate::l2;
use crate::maps::{FLOWS, STREAMS};
use crate::outcome::{DropReason, Outcome, PassReason};
use crate::parse::v4::{self, Datagram};
use crate::parse::v6::{End, IPV6_BYTES};
use crate::parse::{self, ETHERTYPE_IPV6, IPV4_BYTES, UDP_BYTES};

const UDP: usize = IPV6_BYTES;

/// Sends a packet that was accepted on over IPv6, by a slot of `FLOWS` whose head was read. The number of the outcome, and
/// in the upper half where the payload starts then.
#[inline(never)]
#[cfg_attr(target_arch = "bpf", unsafe(no_mangle))]
pub(super) extern "C" fn leave4_to_6(ctx: *mut xdp_md, index: u32, head: u64) -> u64 {
    match try_leave(&XdpContext::new(ctx), index, head) {
        Ok((outcome, payload_offset)) => u64::from(outcome.counter()) | (payload_offset as u64) << 32,
        Err(outcome) => u64::from(outcome.counter()),
    }
}

#[inline(always)]
fn try_leave(ctx: &XdpContext, index: u32, head: u64) -> Result<(Outcome, usize), Outcome> {
    let frame = Frame::of(ctx);
    // As the caller did: what it read does not fit into the arguments.
    let datagram = v4::datagram(&frame, &parse::link(&frame)?)?;
    let head = FlowHead::from_word(head).ok_or(DropReason::BadSlot)?;
    let slot = Slot::at(FLOWS.get_ptr_mut(index).ok_or(DropReason::BadSlot)?);
    let stream = Stream::at(STREAMS.get_ptr_mut(index).ok_or(DropReason::BadSlot)?);
    let signalled = Target::from_word(slot.word::<{ FlowSlot::DESTINATION }>());
    let mark = Mark { dscp: signalled.dscp, ttl: signalled.ttl };
    let followed = if head.flags & FlowHead::FOLLOWS_PARTNER == 0 {
        None
    } else {
        v6::learned(slot.partner(), head.generation)
    };
    let peer = match followed {
        Some(learned) => learned,
        None if signalled.port == [0; 2] => return Err(DropReason::NoDestination.into()),
        None => End {
            high: stream.word::<{ StreamSlot::DESTINATION6 }>(),
            low: stream.word::<{ StreamSlot::DESTINATION6 + 1 }>(),
            port: u16::from_ne_bytes(signalled.port),
        },
    };
    let local = v6::local(slot.partner())?;
    let payload_bytes = datagram.ip_bytes - IPV4_BYTES as u16;
    let room = l2::Room {
        udp_offset: datagram.udp_offset(),
        ip_header_bytes: IPV6_BYTES,
        ip_bytes: IPV6_BYTES + usize::from(payload_bytes),
    };
    let ip = frame.window::<IPV4_BYTES>(datagram.ip_offset).ok_or(DropReason::BadLength)?;
    let old = Old {
        service: ip.load8::<1>(),
        source: ip.load32::<12>(),
        destination: datagram.destination_address,
        udp_checksum: checksum(&frame, &datagram)?,
    };
    let (egress, frame) = l2::leave(ctx, &frame, room, head.next_hop)?;
    rewrite(&frame, egress.ip_offset, &datagram, old, local, peer, mark).ok_or(DropReason::BadLength)?;
    egress.write_header(&frame, ETHERTYPE_IPV6).ok_or(DropReason::BadLength)?;
    Ok((egress.outcome, egress.ip_offset + IPV6_BYTES + UDP_BYTES))
}

/// What the IPv4 header said that is not in the datagram.
#[derive(Clone, Copy)]
struct Old {
    service: u8,
    source: u32,
    destination: u32,
    udp_checksum: u16,
}

/// The UDP checksum that was sent, or should have been. `None` was, and the datagram is too long: the relay's.
#[inline(always)]
fn checksum(frame: &Frame, datagram: &Datagram) -> Result<u16, Outcome> {
    let udp = frame.window::<UDP_BYTES>(datagram.udp_offset()).ok_or(DropReason::BadLength)?;
    let sent = udp.load16::<6>();
    if sent != 0 {
        return Ok(sent);
    }
    let sum =
        frame.sum(datagram.udp_offset(), usize::from(datagram.udp_bytes)).ok_or(PassReason::NoChecksum)?;
    let pseudo_header = (datagram.source & Endpoint::ADDRESS_MASK)
        + u64::from(datagram.destination_address)
        + u64::from(u16::from(parse::UDP).to_be())
        + u64::from(datagram.udp_bytes.to_be());
    Ok(!fold(u64::from(fold(sum)) + pseudo_header))
}

/// Writes the headers at an offset that the UDP header is an IPv6 header's length behind; `None` if the frame does not
/// have them.
#[inline(always)]
fn rewrite(
    frame: &Frame,
    ip_offset: usize,
    datagram: &Datagram,
    old: Old,
    local: End,
    peer: End,
    mark: Mark,
) -> Option<()> {
    let headers = frame.window::<{ IPV6_BYTES + UDP_BYTES }>(ip_offset)?;
    let service = u32::from(mark.service(old.service));
    headers.store32::<0>((6 << 28 | service << 20).to_be());
    headers.store16::<4>((datagram.ip_bytes - IPV4_BYTES as u16).to_be());
    headers.store8::<6>(parse::UDP);
    headers.store8::<7>(mark.ttl);
    headers.store64::<8>(local.high);
    headers.store64::<16>(local.low);
    headers.store64::<24>(peer.high);
    headers.store64::<32>(peer.low);

    let ports = headers.load32::<{ UDP }>();
    let new_ports = local.ports_to(peer.port);
    headers.store32::<{ UDP }>(new_ports);
    let removed = Delta::ZERO.without32(old.source).without32(old.destination);
    let udp = peer.added_to(local.added_to(removed)).replace32(ports, new_ports);
    headers.store16::<{ UDP + 6 }>(udp.apply_to_some(old.udp_checksum));
    Some(())
}
