//! One row per way that a packet can go that arrives or leaves over IPv6.

use sbc_common::counter::Counter::{self, *};
use sbc_common::flow::{FlowHead, FlowState, SlotIndex};
use sbc_common::flow6::{Allowed6, Claim, ClaimPhase, FlowSlot6};

use super::packet::{Datagram, read};
use super::world::*;
use crate::kernel::{Action, Kernel, Ran};
use crate::packet::UdpChecksum;
use crate::table::{Row, drops, passes};
use crate::world::*;

fn as_signalled(_: &mut Kernel) {}

fn forwards(name: &'static str, given: fn(&mut Kernel), came: Datagram, leaves: Datagram) -> Row {
    let same = leaves.destination_mac == mac(BACK, 1);
    Row {
        name,
        given,
        frame: came.bytes(),
        action: if same { Action::Transmit } else { Action::Redirect },
        becomes: Some(leaves.bytes()),
        counted: if same { &[ForwardSame] } else { &[ForwardOther] },
    }
}

/// By another next hop than the call's.
fn hop6<const HOP: u16>(kernel: &mut Kernel) {
    for index in [RTP6, MIXED6, VLAN_RTP6, OUTER_VLAN_RTP6] {
        kernel.edit6(index, |slot| slot.head.next_hop = HOP);
    }
    kernel.edit_head(MIXED4, |head| head.next_hop = HOP);
}

/// The call on the tagged addresses, and not on the untagged one.
fn on_vlans(kernel: &mut Kernel) {
    let slot = kernel.slot6(RTP6);
    kernel.set_slot6(VLAN_RTP6, &slot);
    kernel.set_slot6(OUTER_VLAN_RTP6, &slot);
    kernel.edit6(RTP6, |slot| slot.head.state = FlowState::Idle);
}

fn on_vlans_to_a_tagged_hop(kernel: &mut Kernel) {
    on_vlans(kernel);
    hop6::<ACROSS_TAGGED_TWICE>(kernel);
}

fn same_family() -> Vec<Row> {
    let marked = Datagram { service: 0b1011_1001, label: 0xbeef, ..from_outside6() };
    let tagged = |tags: &[u16]| Datagram { tags: tags.to_vec(), ..from_outside6() };
    let short = Datagram { payload: vec![0x80; 12], padding: 6, ..from_outside6() };
    let odd = Datagram { payload: vec![0x80; 33], ..from_outside6() };
    let rtcp = Datagram::rtcp(at(OUTSIDE_PEER6.0, OUTSIDE_PEER6.1 + 1), at(OUTSIDE6, OUTSIDE_PORT + 1));
    let rtcp_leaves =
        becomes(rtcp.clone(), ACROSS, at(INSIDE6, INSIDE_PORT + 1), at(INSIDE_PEER6.0, INSIDE_PEER6.1 + 1));
    let to = |came: &Datagram, hop| to_inside6(came.clone(), hop);
    let back =
        becomes(from_inside6(), BACK, at(OUTSIDE6, OUTSIDE_PORT), at(OUTSIDE_PEER6.0, OUTSIDE_PEER6.1));
    vec![
        forwards("IPv6 to another interface", as_signalled, from_outside6(), to(&from_outside6(), ACROSS)),
        forwards("IPv6 back out of the same interface", as_signalled, from_inside6(), back),
        forwards("RTCP over IPv6", as_signalled, rtcp, rtcp_leaves),
        forwards("new DSCP, ECN and flow label kept", as_signalled, marked.clone(), to(&marked, ACROSS)),
        forwards("padding behind the IPv6 packet", as_signalled, short.clone(), to(&short, ACROSS)),
        forwards("odd length over IPv6", as_signalled, odd.clone(), to(&odd, ACROSS)),
        forwards("a tag is taken off IPv6", on_vlans, tagged(&[VLAN]), to(&from_outside6(), ACROSS)),
        forwards(
            "two tags are taken off IPv6",
            on_vlans,
            tagged(&[OUTER_VLAN, VLAN]),
            to(&from_outside6(), ACROSS),
        ),
        forwards(
            "a tag is put on IPv6",
            hop6::<ACROSS_TAGGED>,
            from_outside6(),
            to(&from_outside6(), ACROSS_TAGGED),
        ),
        forwards(
            "two tags for one",
            on_vlans_to_a_tagged_hop,
            tagged(&[VLAN]),
            to(&from_outside6(), ACROSS_TAGGED_TWICE),
        ),
    ]
}

/// A datagram whose payload makes the UDP checksum of what it becomes all ones, which is how a zero is sent.
fn sums_to_zero(came: Datagram, becomes: fn(Datagram, u16) -> Datagram, hop: u16) -> Datagram {
    (0..=u16::MAX)
        .map(|filling| {
            let mut came = came.clone();
            came.payload[20..22].copy_from_slice(&filling.to_be_bytes());
            came
        })
        .find(|came| {
            let leaves = becomes(came.clone(), hop);
            let at = leaves.udp() + 6;
            leaves.bytes()[at..at + 2] == [0xff; 2]
        })
        .unwrap()
}

fn between_families() -> Vec<Row> {
    let marked6 = Datagram { service: 0b1011_1010, ..mixed_from_outside() };
    let marked4 = Datagram { service: 0b0110_1001, ..mixed_from_inside() };
    let unsummed = Datagram { udp_checksum: UdpChecksum::None, ..mixed_from_inside() };
    let unsummed_odd = Datagram { payload: vec![0x80; 171], ..unsummed.clone() };
    let summed = |came: &Datagram| Datagram {
        udp_checksum: UdpChecksum::Right,
        ..mixed_to_outside(came.clone(), BACK)
    };
    let zero6 = sums_to_zero(mixed_from_outside(), mixed_to_inside, ACROSS);
    let zero4 = sums_to_zero(mixed_from_inside(), mixed_to_outside, BACK);
    let zero_same = sums_to_zero(from_outside6(), to_inside6, ACROSS);
    // 199 bytes is what the small hop takes: a datagram of IPv6 fits as one of IPv4 that is 20 bytes shorter.
    let shrinks = Datagram { payload: vec![0x80; 171], ..mixed_from_outside() };
    let grows = Datagram { payload: vec![0x80; 151], ..mixed_from_inside() };
    let short = Datagram { payload: vec![0x80; 12], padding: 6, ..mixed_from_inside() };
    let out = |came: &Datagram, hop| mixed_to_outside(came.clone(), hop);
    let inn = |came: &Datagram, hop| mixed_to_inside(came.clone(), hop);
    vec![
        forwards("IPv6 to IPv4", as_signalled, marked6.clone(), inn(&marked6, ACROSS)),
        forwards("IPv4 to IPv6", as_signalled, marked4.clone(), out(&marked4, BACK)),
        forwards(
            "IPv4 to IPv6 and two tags",
            hop6::<ACROSS_TAGGED_TWICE>,
            mixed_from_inside(),
            out(&mixed_from_inside(), ACROSS_TAGGED_TWICE),
        ),
        forwards(
            "IPv6 to IPv4 and two tags",
            hop6::<ACROSS_TAGGED_TWICE>,
            mixed_from_outside(),
            inn(&mixed_from_outside(), ACROSS_TAGGED_TWICE),
        ),
        forwards("IPv4 without a checksum to IPv6", as_signalled, unsummed.clone(), summed(&unsummed)),
        forwards(
            "IPv4 of odd length without a checksum to IPv6",
            as_signalled,
            unsummed_odd.clone(),
            summed(&unsummed_odd),
        ),
        forwards("a sum of zero from IPv6 to IPv4", as_signalled, zero6.clone(), inn(&zero6, ACROSS)),
        forwards("a sum of zero from IPv4 to IPv6", as_signalled, zero4.clone(), out(&zero4, BACK)),
        forwards("a sum of zero over IPv6", as_signalled, zero_same.clone(), to_inside6(zero_same, ACROSS)),
        forwards("as IPv4 it fits", hop6::<SMALL>, shrinks.clone(), inn(&shrinks, SMALL)),
        forwards("as IPv6 it just fits", hop6::<SMALL>, grows.clone(), out(&grows, SMALL)),
        forwards("padding behind what grows", as_signalled, short.clone(), out(&short, BACK)),
    ]
}

fn passing() -> Vec<Row> {
    let came = from_outside6();
    let (ip, udp) = (came.ip(), came.udp());
    let next_header = |next: u8| came.with(&[(ip + 6, &[next])]);
    let elsewhere = Datagram { destination: at(INSIDE_PEER6.0, OUTSIDE_PORT), ..came.clone() };
    let on_vlan = Datagram { tags: vec![VLAN + 1], ..came.clone() };
    let grows = Datagram { payload: vec![0x80; 152], ..mixed_from_inside() };
    let unsummed = |bytes| Datagram {
        payload: vec![0x80; bytes],
        udp_checksum: UdpChecksum::None,
        ..mixed_from_inside()
    };
    vec![
        passes("hop-by-hop options", as_signalled, next_header(0), &[PassExtensionHeader]),
        passes("a routing header", as_signalled, next_header(43), &[PassExtensionHeader]),
        passes("destination options", as_signalled, next_header(60), &[PassExtensionHeader]),
        passes("a fragment of IPv6", as_signalled, next_header(44), &[PassFragment]),
        passes("ICMPv6", as_signalled, next_header(58), &[PassNotUdp]),
        passes(
            "version 5 in an IPv6 frame",
            as_signalled,
            came.with(&[(ip, &[0x50])]),
            &[PassExtensionHeader],
        ),
        passes("another IPv6 address", as_signalled, elsewhere.bytes(), &[PassNotOurAddress]),
        passes("our IPv6 address on another VLAN", as_signalled, on_vlan.bytes(), &[PassNotOurAddress]),
        passes(
            "no media port over IPv6",
            as_signalled,
            came.with(&[(udp + 2, &5060u16.to_be_bytes())]),
            &[PassNotMediaPort],
        ),
        passes(
            "a relayed port over IPv6",
            |kernel| kernel.edit6(RTP6, |slot| slot.head.state = FlowState::Relay),
            came.bytes(),
            &[PassRelay],
        ),
        passes("no next hop over IPv6", hop6::<UNRESOLVED>, came.bytes(), &[PassNoNextHop]),
        passes("too big over IPv6", hop6::<SMALL>, came.bytes(), &[PassTooBig]),
        passes("too big only as IPv6", hop6::<SMALL>, grows.bytes(), &[PassTooBig]),
        passes("no device over IPv6", hop6::<NO_DEVICE>, came.bytes(), &[PassNoDevice]),
        passes("no next hop to IPv6", hop6::<UNRESOLVED>, mixed_from_inside().bytes(), &[PassNoNextHop]),
        passes("no device to IPv6", hop6::<NO_DEVICE>, mixed_from_inside().bytes(), &[PassNoDevice]),
        passes(
            "no device from IPv6 to IPv4",
            hop6::<NO_DEVICE>,
            mixed_from_outside().bytes(),
            &[PassNoDevice],
        ),
        passes("too long to be summed", hop6::<LARGE>, unsummed(2000).bytes(), &[PassNoChecksum]),
        passes("an EtherType of nobody", as_signalled, came.with(&[(12, &[0x88, 0xcc])]), &[PassNotIp]),
    ]
}

fn dropping() -> Vec<Row> {
    let came = from_outside6();
    let (ip, udp) = (came.ip(), came.udp());
    let payload = |payload: &[u8]| Datagram { payload: payload.to_vec(), ..from_outside6() }.bytes();
    let from = |address, port| Datagram { source: at(address, port), ..from_outside6() }.bytes();
    let nobody: fn(&mut Kernel) = |kernel| kernel.edit6(RTP6, |slot| slot.expected = Allowed6::NOBODY);
    let unsummed = Datagram { udp_checksum: UdpChecksum::None, ..from_outside6() };
    let neighbour = std::net::Ipv6Addr::from_bits(OUTSIDE_PEER6.0.to_bits() ^ 1);
    vec![
        drops(
            "an IPv6 port without a flow",
            as_signalled,
            Datagram { destination: at(OUTSIDE6, PORTS.1), ..came.clone() }.bytes(),
            &[DropNoFlow],
        ),
        drops(
            "the way out of RTCP, over IPv6",
            |kernel| kernel.edit6(RTP6, |slot| slot.head.state = FlowState::Muxed),
            came.bytes(),
            &[DropNoFlow],
        ),
        drops(
            "a state of IPv6 that nobody knows",
            |kernel| {
                let mut words = kernel.slot6(RTP6).to_words();
                words[0] |= 0x77;
                kernel.flows6.set(RTP6.0, words, 0).unwrap();
            },
            came.bytes(),
            &[DropBadSlot],
        ),
        drops(
            "an IPv6 partner on no address of ours",
            |kernel| kernel.edit6(RTP6, |slot| slot.partner = SlotIndex::new(9, 1).0),
            came.bytes(),
            &[DropBadSlot],
        ),
        drops(
            "an IPv4 partner on no address of ours",
            |kernel| kernel.edit6(MIXED6, |slot| slot.partner = SlotIndex::new(9, 1).0),
            mixed_from_outside().bytes(),
            &[DropBadSlot],
        ),
        drops(
            "an IPv6 partner of IPv4 on no address of ours",
            |kernel| kernel.edit(MIXED4, |slot| slot.partner = SlotIndex::new(9, 1).0),
            mixed_from_inside().bytes(),
            &[DropBadSlot],
        ),
        drops("UDP longer than IPv6", as_signalled, came.with(&[(udp + 4, &[1, 0])]), &[DropBadLength]),
        drops(
            "UDP shorter than its header",
            as_signalled,
            came.with(&[(udp + 4, &[0, 7])]),
            &[DropBadLength],
        ),
        drops("IPv6 longer than its frame", as_signalled, came.with(&[(ip + 4, &[1, 0])]), &[DropBadLength]),
        drops("IPv6 without a UDP checksum", as_signalled, unsummed.bytes(), &[DropNoChecksum]),
        drops("another IPv6 source", as_signalled, from(neighbour, OUTSIDE_PEER6.1), &[DropWrongSource]),
        drops("another port of it", as_signalled, from(OUTSIDE_PEER6.0, 4002), &[DropWrongSource]),
        drops("nobody is expected", nobody, came.bytes(), &[DropWrongSource]),
        drops("nobody, from nowhere", nobody, from(std::net::Ipv6Addr::UNSPECIFIED, 0), &[DropWrongSource]),
        drops(
            "another claims at this moment",
            |kernel| {
                kernel.let_learn6(RTP6);
                kernel.edit6(RTP6, |slot| slot.claim = Claim::new(GENERATION, ClaimPhase::Claiming));
            },
            came.bytes(),
            &[DropLostClaim],
        ),
        drops(
            "not known yet where to send IPv6",
            |kernel| {
                kernel.edit6(RTP6, |slot| {
                    slot.destination.port = [0; 2];
                    slot.head.flags = FlowHead::FOLLOWS_PARTNER;
                });
            },
            came.bytes(),
            &[DropNoDestination],
        ),
        drops(
            "not known yet where to send IPv6 as IPv4",
            |kernel| kernel.edit6(MIXED6, |slot| slot.destination.port = [0; 2]),
            mixed_from_outside().bytes(),
            &[DropNoDestination],
        ),
        drops(
            "not known yet where to send IPv4 as IPv6",
            |kernel| kernel.edit(MIXED4, |slot| slot.destination.port = [0; 2]),
            mixed_from_inside().bytes(),
            &[DropNoDestination],
        ),
        drops(
            "more than the flow may have, over IPv6",
            |kernel| {
                let stream = sbc_common::stream::StreamSlot { limit: 1, ..Default::default() };
                kernel.streams6.set(RTP6.0, stream.to_words(), 0).unwrap();
                kernel.run(&from_outside6().bytes());
                kernel.edit6(RTP6, |slot| slot.packets = 0);
            },
            came.bytes(),
            &[DropOverRate],
        ),
        drops("an empty datagram over IPv6", as_signalled, payload(&[]), &[DropShortMedia]),
        drops("shorter than RTP over IPv6", as_signalled, payload(&[0x80; 11]), &[DropShortMedia]),
        drops("STUN over IPv6", as_signalled, payload(&[0; 20]), &[DropStun]),
        drops("DTLS over IPv6", as_signalled, payload(&[22; 20]), &[DropDtls]),
        drops("neither over IPv6", as_signalled, payload(&[0x40; 20]), &[DropNotRtp]),
        drops(
            "RTCP on an RTP port over IPv6",
            as_signalled,
            payload(&[0x80, 201, 0, 1, 0, 0, 0, 1]),
            &[DropWrongKind],
        ),
    ]
}

pub(crate) fn rows() -> Vec<Row> {
    same_family().into_iter().chain(between_families()).chain(passing()).chain(dropping()).collect()
}

const SLOTS6: [SlotIndex; 6] = [RTP6, BACK6, RTCP6, MIXED6, VLAN_RTP6, OUTER_VLAN_RTP6];

fn forwarded_packets(kernel: &Kernel) -> u64 {
    let packets = |index: &SlotIndex| kernel.flows6.get(&index.0, 0).unwrap()[FlowSlot6::PACKETS];
    SLOTS6.iter().map(packets).sum::<u64>() + kernel.slot(MIXED4).packets
}

#[test]
fn every_packet_of_ipv6_goes_as_the_table_says() {
    let Some(mut kernel) = Kernel::with_calls6("every_packet_of_ipv6_goes_as_the_table_says") else { return };
    for row in rows() {
        kernel.install_calls6();
        for index in [VLAN_RTP6, OUTER_VLAN_RTP6] {
            kernel.set_slot6(index, &Default::default());
        }
        (row.given)(&mut kernel);
        let ran = kernel.run(&row.frame);
        let frame = row.becomes.clone().unwrap_or_else(|| row.frame.clone());
        let expected = Ran { action: row.action, frame, counted: row.counted.to_vec() };
        assert_eq!(ran, expected, "{}", row.name);
        let packets = u64::from(row.becomes.is_some());
        assert_eq!(forwarded_packets(&kernel), packets, "{}: packets in the slots", row.name);
    }
}

#[test]
fn a_wrong_checksum_stays_as_wrong_as_it_was() {
    let Some(mut kernel) = Kernel::with_calls6("a_wrong_checksum_stays_as_wrong_as_it_was") else { return };
    for came in [from_outside6(), from_inside6(), mixed_from_outside(), mixed_from_inside()] {
        kernel.install_calls6();
        let wrong = Datagram { udp_checksum: UdpChecksum::Wrong, ..came }.bytes();
        let ran = kernel.run(&wrong);
        assert!(ran.counted.contains(&Counter::BadChecksum) && ran.frame != wrong, "{ran:?}");
        let (before, after) = (read(&wrong).unwrap().wrong_by, read(&ran.frame).unwrap().wrong_by);
        assert!(before.is_some_and(|by| by != 0));
        assert_eq!(before, after);
    }
}

#[test]
fn a_frame_of_ipv6_cut_anywhere_is_never_forwarded() {
    let Some(kernel) = Kernel::with_calls6("a_frame_of_ipv6_cut_anywhere_is_never_forwarded") else { return };
    for came in [from_outside6(), mixed_from_outside()] {
        let frame = came.bytes();
        let headers = came.udp() + 8;
        for length in 14..frame.len() {
            let ran = kernel.run(&frame[..length]);
            let expected =
                if length < headers { (Action::Pass, PassTruncated) } else { (Action::Drop, DropBadLength) };
            assert_eq!((ran.action, ran.counted[0]), expected, "{length} of {} bytes", frame.len());
            assert_eq!(ran.frame, &frame[..length]);
        }
        assert_eq!(kernel.run(&frame).action, Action::Redirect);
    }
}

#[test]
fn a_slot_of_ipv6_counts_what_it_forwarded_and_heard() {
    let Some(kernel) = Kernel::with_calls6("a_slot_of_ipv6_counts_what_it_forwarded_and_heard") else {
        return;
    };
    for number in [1u16, 2, 5] {
        for mut came in [from_outside6(), mixed_from_outside()] {
            came.payload[2..4].copy_from_slice(&number.to_be_bytes());
            kernel.run(&came.bytes());
        }
        let mut came = mixed_from_inside();
        came.payload[2..4].copy_from_slice(&number.to_be_bytes());
        kernel.run(&came.bytes());
    }
    for index in [RTP6, MIXED6] {
        let slot = kernel.slot6(index);
        assert_eq!((slot.packets, slot.bytes), (3, 3 * 172));
        assert_ne!(slot.last_seen, 0);
        assert_eq!(kernel.stream6(index).expected, 5);
    }
    assert_eq!((kernel.slot(MIXED4).packets, kernel.stream(MIXED4).expected), (3, 5));
    assert_eq!(kernel.slot6(BACK6).packets, 0);
}
