//! The packet table: one row per way that a packet can go, and a check that no numbered outcome is missing.

use sbc_common::addr::Endpoint;
use sbc_common::config::Config;
use sbc_common::counter::Counter::{self, *};
use sbc_common::flow::{Allowed, FlowState, Learned, SlotIndex, Target};
use sbc_common::next_hop::NextHop;
use sbc_common::stream::{StreamSlot, missing};

use crate::kernel::{Action, Kernel, Ran};
use crate::packet::{IP, Packet, UDP, UdpChecksum, fix_ip_checksum};
use crate::world::*;
use crate::{guard, v6};

pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// What is different from the call as signalled.
    pub(crate) given: fn(&mut Kernel),
    pub(crate) frame: Vec<u8>,
    pub(crate) action: Action,
    /// The frame after it; `None`: as it came.
    pub(crate) becomes: Option<Vec<u8>>,
    pub(crate) counted: &'static [Counter],
}

fn as_signalled(_: &mut Kernel) {}

fn forwards(name: &'static str, given: fn(&mut Kernel), packet: Packet, becomes: Packet) -> Row {
    Row {
        name,
        given,
        frame: packet.bytes(),
        action: Action::Redirect,
        becomes: Some(becomes.bytes()),
        counted: &[ForwardOther],
    }
}

pub(crate) fn passes(
    name: &'static str,
    given: fn(&mut Kernel),
    frame: Vec<u8>,
    counted: &'static [Counter],
) -> Row {
    Row { name, given, frame, action: Action::Pass, becomes: None, counted }
}

pub(crate) fn drops(
    name: &'static str,
    given: fn(&mut Kernel),
    frame: Vec<u8>,
    counted: &'static [Counter],
) -> Row {
    Row { name, given, frame, action: Action::Drop, becomes: None, counted }
}

/// A packet from outside with other payload.
fn outside_payload(payload: &[u8]) -> Vec<u8> {
    Packet { payload: payload.to_vec(), ..from_outside() }.bytes()
}

/// IPv4 with four bytes of options.
fn with_options() -> Vec<u8> {
    let mut frame = from_outside().bytes();
    frame.splice(UDP..UDP, [1, 1, 1, 0]);
    frame[IP] = 0x46;
    let length = u16::from_be_bytes([frame[IP + 2], frame[IP + 3]]) + 4;
    frame[IP + 2..IP + 4].copy_from_slice(&length.to_be_bytes());
    fix_ip_checksum(&mut frame[IP..]);
    frame
}

fn three_tags() -> Vec<u8> {
    let mut frame = Packet { vlan: Some(VLAN), outer_vlan: Some(OUTER_VLAN), ..from_outside() }.bytes();
    frame.splice(12..12, [0x88, 0xa8, 0, 7]);
    frame
}

fn forwarding() -> Vec<Row> {
    let marked = Packet { tos: 0b1011_1001, ..from_outside() };
    let none = Packet { udp_checksum: UdpChecksum::None, ..from_outside() };
    let wrong = Packet { udp_checksum: UdpChecksum::Wrong, ..from_outside() };
    let wrong_becomes = {
        // A checksum that was wrong by some difference leaves wrong by the same difference.
        let (right_in, right_out) = (from_outside().bytes(), to_inside(from_outside()).bytes());
        let sum = |frame: &[u8]| u16::from_be_bytes([frame[UDP + 6], frame[UDP + 7]]);
        let (mut out, wrong_in) = (right_out.clone(), sum(&wrong.bytes()));
        let difference = i32::from(wrong_in) - i32::from(sum(&right_in));
        let wrong_out = (i32::from(sum(&right_out)) + difference).rem_euclid(0xffff) as u16;
        out[UDP + 6..UDP + 8].copy_from_slice(&wrong_out.to_be_bytes());
        out
    };
    let tagged = |packet: Packet| Packet { vlan: Some(VLAN), ..packet };
    let twice = |packet: Packet| Packet { vlan: Some(VLAN), outer_vlan: Some(OUTER_VLAN | 0x6000), ..packet };
    let on_outer_vlan: fn(&mut Kernel) = |kernel| {
        let slot = kernel.slot(OUTSIDE_RTP);
        kernel.set_slot(OUTER_VLAN_RTP, &slot);
        kernel.edit_head(OUTSIDE_RTP, |head| head.state = FlowState::Idle);
    };
    let on_vlan: fn(&mut Kernel) = |kernel| {
        let slot = kernel.slot(OUTSIDE_RTP);
        kernel.set_slot(VLAN_RTP, &slot);
        kernel.edit_head(OUTSIDE_RTP, |head| head.state = FlowState::Idle);
    };
    vec![
        forwards("RTP to another interface", as_signalled, from_outside(), to_inside(from_outside())),
        Row {
            action: Action::Transmit,
            counted: &[ForwardSame],
            ..forwards(
                "RTP back out of the same interface",
                as_signalled,
                from_inside(),
                forwarded(from_inside(), BACK, (OUTSIDE, OUTSIDE_PORT), OUTSIDE_PEER),
            )
        },
        forwards(
            "RTCP on the next port",
            as_signalled,
            rtcp_from_outside(),
            forwarded(
                rtcp_from_outside(),
                ACROSS,
                (INSIDE, INSIDE_PORT + 1),
                (INSIDE_PEER.0, INSIDE_PEER.1 + 1),
            ),
        ),
        forwards("new DSCP, ECN kept", as_signalled, marked.clone(), to_inside(marked)),
        forwards("no UDP checksum stays none", as_signalled, none.clone(), to_inside(none)),
        Row {
            becomes: Some(wrong_becomes),
            counted: &[ForwardOther, BadChecksum],
            ..forwards("a wrong UDP checksum stays wrong", as_signalled, wrong.clone(), wrong.clone())
        },
        forwards(
            "padding behind the IP packet",
            as_signalled,
            Packet { payload: vec![0x80; 12], padding: 6, ..from_outside() },
            to_inside(Packet { payload: vec![0x80; 12], padding: 6, ..from_outside() }),
        ),
        forwards(
            "odd payload length",
            as_signalled,
            Packet { payload: vec![0x80; 33], ..from_outside() },
            to_inside(Packet { payload: vec![0x80; 33], ..from_outside() }),
        ),
        forwards("a VLAN tag is taken off", on_vlan, tagged(from_outside()), to_inside(from_outside())),
        forwards(
            "a VLAN tag is put on",
            |kernel| kernel.edit_head(OUTSIDE_RTP, |head| head.next_hop = ACROSS_TAGGED),
            from_outside(),
            forwarded(from_outside(), ACROSS_TAGGED, (INSIDE, INSIDE_PORT), INSIDE_PEER),
        ),
        forwards(
            "a VLAN tag is replaced, its priority bits too",
            |kernel| {
                let mut slot = kernel.slot(OUTSIDE_RTP);
                slot.head.next_hop = ACROSS_TAGGED;
                kernel.set_slot(VLAN_RTP, &slot);
            },
            Packet { vlan: Some(VLAN | 0xa000), ..from_outside() },
            forwarded(from_outside(), ACROSS_TAGGED, (INSIDE, INSIDE_PORT), INSIDE_PEER),
        ),
        forwards(
            "two VLAN tags are taken off",
            on_outer_vlan,
            twice(from_outside()),
            to_inside(from_outside()),
        ),
        forwards(
            "two VLAN tags are put on",
            |kernel| kernel.edit_head(OUTSIDE_RTP, |head| head.next_hop = ACROSS_TAGGED_TWICE),
            from_outside(),
            forwarded(from_outside(), ACROSS_TAGGED_TWICE, (INSIDE, INSIDE_PORT), INSIDE_PEER),
        ),
        forwards(
            "two VLAN tags are replaced by two",
            |kernel| {
                let mut slot = kernel.slot(OUTSIDE_RTP);
                slot.head.next_hop = ACROSS_TAGGED_TWICE;
                kernel.set_slot(OUTER_VLAN_RTP, &slot);
            },
            twice(from_outside()),
            forwarded(from_outside(), ACROSS_TAGGED_TWICE, (INSIDE, INSIDE_PORT), INSIDE_PEER),
        ),
        forwards(
            "two VLAN tags are replaced by one",
            |kernel| {
                let mut slot = kernel.slot(OUTSIDE_RTP);
                slot.head.next_hop = ACROSS_TAGGED;
                kernel.set_slot(OUTER_VLAN_RTP, &slot);
            },
            twice(from_outside()),
            forwarded(from_outside(), ACROSS_TAGGED, (INSIDE, INSIDE_PORT), INSIDE_PEER),
        ),
        forwards(
            "as many packets as the flow may have",
            |kernel| kernel.edit_stream(OUTSIDE_RTP, |stream| stream.limit = 1),
            from_outside(),
            to_inside(from_outside()),
        ),
        forwards(
            "the learned source before the expected one",
            |kernel| {
                kernel.edit(OUTSIDE_RTP, |slot| {
                    slot.expected = Allowed::exactly(Endpoint::new([203, 0, 113, 99], 1));
                    slot.learned_source =
                        Learned::new(Endpoint::new(OUTSIDE_PEER.0, OUTSIDE_PEER.1), GENERATION);
                });
            },
            from_outside(),
            to_inside(from_outside()),
        ),
        forwards(
            "the learned destination before the signalled one",
            |kernel| {
                kernel.edit(OUTSIDE_RTP, |slot| {
                    slot.learned_destination = Learned::new(Endpoint::new([10, 9, 8, 7], 6543), GENERATION);
                });
            },
            from_outside(),
            forwarded(from_outside(), ACROSS, (INSIDE, INSIDE_PORT), ([10, 9, 8, 7], 6543)),
        ),
        forwards(
            "what another generation learned is void",
            |kernel| {
                kernel.edit(OUTSIDE_RTP, |slot| {
                    let old = Learned::new(Endpoint::new([10, 9, 8, 7], 6543), GENERATION - 1);
                    (slot.learned_source, slot.learned_destination) = (old, old);
                });
            },
            from_outside(),
            to_inside(from_outside()),
        ),
    ]
}

fn passing() -> Vec<Row> {
    let hop = |next_hop: u16| -> fn(&mut Kernel) {
        match next_hop {
            0 => |kernel| kernel.edit_head(OUTSIDE_RTP, |head| head.next_hop = 0),
            UNRESOLVED => |kernel| kernel.edit_head(OUTSIDE_RTP, |head| head.next_hop = UNRESOLVED),
            SMALL => |kernel| kernel.edit_head(OUTSIDE_RTP, |head| head.next_hop = SMALL),
            NO_DEVICE => |kernel| kernel.edit_head(OUTSIDE_RTP, |head| head.next_hop = NO_DEVICE),
            _ => |kernel| kernel.edit_head(OUTSIDE_RTP, |head| head.next_hop = 0xffff),
        }
    };
    let to_port = |port| Packet::rtp(OUTSIDE_PEER, (OUTSIDE, port)).bytes();
    vec![
        passes("ARP", as_signalled, from_outside().with(&[(12, &[0x08, 0x06])]), &[PassNotIp]),
        passes(
            "IPv4 inside an IPv6 frame",
            as_signalled,
            from_outside().with(&[(12, &[0x86, 0xdd])]),
            &[PassExtensionHeader],
        ),
        passes("three VLAN tags", as_signalled, three_tags(), &[PassNotIp]),
        passes("cut after Ethernet", as_signalled, from_outside().bytes()[..IP].to_vec(), &[PassTruncated]),
        passes("IP options", as_signalled, with_options(), &[PassIpOptions]),
        passes("not version 4", as_signalled, from_outside().with(&[(IP, &[0x65])]), &[PassIpOptions]),
        passes("first fragment", as_signalled, from_outside().with(&[(IP + 6, &[0x20, 0])]), &[PassFragment]),
        passes("later fragment", as_signalled, from_outside().with(&[(IP + 6, &[0, 9])]), &[PassFragment]),
        passes("TCP", as_signalled, from_outside().with(&[(IP + 9, &[6])]), &[PassNotUdp]),
        passes(
            "another address",
            as_signalled,
            Packet::rtp(OUTSIDE_PEER, ([192, 0, 2, 2], OUTSIDE_PORT)).bytes(),
            &[PassNotOurAddress],
        ),
        passes(
            "our address on a VLAN that it is not on",
            as_signalled,
            Packet { vlan: Some(VLAN + 1), ..from_outside() }.bytes(),
            &[PassNotOurAddress],
        ),
        passes(
            "our address on an outer VLAN that it is not on",
            as_signalled,
            Packet { vlan: Some(VLAN), outer_vlan: Some(OUTER_VLAN + 1), ..from_outside() }.bytes(),
            &[PassNotOurAddress],
        ),
        passes("a port of no use", as_signalled, to_port(5070), &[PassNotMediaPort]),
        passes("the port below the range", as_signalled, to_port(PORTS.0 - 1), &[PassNotMediaPort]),
        passes("the port above the range", as_signalled, to_port(PORTS.1 + 1), &[PassNotMediaPort]),
        passes(
            "STUN for the relay",
            |kernel| kernel.edit_head(OUTSIDE_RTP, |head| head.state = FlowState::Relay),
            outside_payload(&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42]),
            &[PassRelay],
        ),
        passes("no next hop", hop(0), from_outside().bytes(), &[PassNoNextHop]),
        passes("next hop outside of the table", hop(0xffff), from_outside().bytes(), &[PassNoNextHop]),
        passes("next hop not resolved", hop(UNRESOLVED), from_outside().bytes(), &[PassNoNextHop]),
        passes("larger than the egress takes", hop(SMALL), from_outside().bytes(), &[PassTooBig]),
        passes("egress is no device of ours", hop(NO_DEVICE), from_outside().bytes(), &[PassNoDevice]),
    ]
}

fn dropping() -> Vec<Row> {
    let bad_state: fn(&mut Kernel) = |kernel| {
        let mut words = kernel.slot(OUTSIDE_RTP).to_words();
        words[0] |= 0xff;
        kernel.flows.set(OUTSIDE_RTP.0, words, 0).unwrap();
    };
    let length = |ip: u16, udp: u16| {
        from_outside().with(&[(IP + 2, &ip.to_be_bytes()), (UDP + 4, &udp.to_be_bytes())])
    };
    let from = |peer| Packet::rtp(peer, (OUTSIDE, OUTSIDE_PORT)).bytes();
    let free = Packet::rtp(OUTSIDE_PEER, (OUTSIDE, PORTS.1)).bytes();
    vec![
        drops("a port without a flow", as_signalled, free, &[DropNoFlow]),
        drops(
            "a withdrawn flow",
            |kernel| kernel.edit_head(OUTSIDE_RTP, |head| head.state = FlowState::Idle),
            from_outside().bytes(),
            &[DropNoFlow],
        ),
        drops("a state that nobody knows", bad_state, from_outside().bytes(), &[DropBadSlot]),
        drops(
            "a partner on no address of ours",
            |kernel| kernel.edit(OUTSIDE_RTP, |slot| slot.partner = SlotIndex::new(9, 20_002).0),
            from_outside().bytes(),
            &[DropBadSlot],
        ),
        drops(
            "a partner outside of the table",
            |kernel| kernel.edit(OUTSIDE_RTP, |slot| slot.partner = u32::MAX),
            from_outside().bytes(),
            &[DropBadSlot],
        ),
        drops("IP longer than the frame", as_signalled, length(201, 180), &[DropBadLength]),
        drops("UDP longer than IP", as_signalled, length(200, 181), &[DropBadLength]),
        drops("UDP shorter than its header", as_signalled, length(200, 7), &[DropBadLength]),
        drops("another port", as_signalled, from((OUTSIDE_PEER.0, 4001)), &[DropWrongSource]),
        drops("another address", as_signalled, from(([203, 0, 113, 6], 4000)), &[DropWrongSource]),
        drops(
            "the expected source when another was learned",
            |kernel| {
                kernel.edit(OUTSIDE_RTP, |slot| {
                    let other = Endpoint::new(OUTSIDE_PEER.0, 4001);
                    slot.learned_source = Learned::new(other, GENERATION);
                });
            },
            from_outside().bytes(),
            &[DropWrongSource],
        ),
        drops(
            "an address that may not claim",
            Kernel::let_outside_learn,
            from(([203, 0, 113, 6], 4000)),
            &[DropWrongSource],
        ),
        drops(
            "a port that may not claim",
            |kernel| {
                kernel.let_outside_learn();
                kernel.edit(OUTSIDE_RTP, |slot| slot.expected.port = 4000u16.to_be_bytes());
            },
            from((OUTSIDE_PEER.0, 4001)),
            &[DropWrongSource],
        ),
        drops(
            "nothing expected yet",
            |kernel| kernel.edit(OUTSIDE_RTP, |slot| slot.expected = Allowed::NOBODY),
            from_outside().bytes(),
            &[DropWrongSource],
        ),
        drops(
            "no destination yet",
            |kernel| {
                kernel.edit(OUTSIDE_RTP, |slot| slot.destination = Target::new(Endpoint::NONE, DSCP, TTL))
            },
            from_outside().bytes(),
            &[DropNoDestination],
        ),
        drops(
            "more packets than the flow may have",
            |kernel| {
                kernel.edit_stream(OUTSIDE_RTP, |stream| stream.limit = 2);
                for _ in 0..2 {
                    assert_eq!(kernel.run(&from_outside().bytes()).action, Action::Redirect);
                }
                kernel.edit(OUTSIDE_RTP, |slot| slot.packets = 0);
            },
            from_outside().bytes(),
            &[DropOverRate],
        ),
        drops("an empty datagram", as_signalled, outside_payload(&[]), &[DropShortMedia]),
        drops("shorter than RTP", as_signalled, outside_payload(&[0x80; 11]), &[DropShortMedia]),
        drops(
            "shorter than its list of sources",
            as_signalled,
            outside_payload(&[0x81; 15]),
            &[DropShortMedia],
        ),
        drops("STUN", as_signalled, outside_payload(&[0; 20]), &[DropStun]),
        drops("DTLS", as_signalled, outside_payload(&[22; 20]), &[DropDtls]),
        drops("ZRTP", as_signalled, outside_payload(&[16; 20]), &[DropNotRtp]),
        drops(
            "RTCP on an RTP port",
            as_signalled,
            outside_payload(&rtcp_from_outside().payload),
            &[DropWrongKind],
        ),
        drops(
            "RTP on an RTCP port",
            as_signalled,
            Packet { payload: from_outside().payload, ..rtcp_from_outside() }.bytes(),
            &[DropWrongKind],
        ),
        drops(
            "RTCP cut inside its report",
            as_signalled,
            Packet { payload: vec![0x80, 200, 0, 6, 0, 0, 0, 1], ..rtcp_from_outside() }.bytes(),
            &[DropShortMedia],
        ),
    ]
}

fn table() -> Vec<Row> {
    forwarding().into_iter().chain(passing()).chain(dropping()).chain(guard::rows()).collect()
}

/// The kernel refuses a program at a million. Another kernel may count twice as many for the same program, and a change that
/// doubles the number should be one that somebody wanted.
#[test]
fn the_verifier_is_far_from_its_limit() {
    let Some(kernel) = Kernel::with_call("the_verifier_is_far_from_its_limit") else { return };
    let Some(count) = kernel.verified_instructions() else { return };
    println!("{count} instructions verified");
    assert!(count < 400_000, "{count} instructions verified");
}

#[test]
fn every_packet_goes_as_the_table_says() {
    if let Some(kernel) = Kernel::with_call("every_packet_goes_as_the_table_says") {
        goes_as_the_table_says(kernel);
    }
}

/// The rows through a program.
pub(crate) fn goes_as_the_table_says(mut kernel: Kernel) {
    for row in table() {
        kernel.install_call();
        for index in [VLAN_RTP, OUTER_VLAN_RTP] {
            kernel.set_slot(index, &Default::default());
        }
        kernel.reset_guard();
        (row.given)(&mut kernel);
        let ran = kernel.run(&row.frame);
        let expected = Ran {
            action: row.action,
            frame: row.becomes.clone().unwrap_or_else(|| row.frame.clone()),
            counted: row.counted.to_vec(),
        };
        assert_eq!(ran, expected, "{}", row.name);
        let packets: u64 = [OUTSIDE_RTP, OUTSIDE_RTCP, INSIDE_RTP, VLAN_RTP, OUTER_VLAN_RTP]
            .map(|index| kernel.flows.get(&index.0, 0).unwrap()[6])
            .iter()
            .sum();
        assert_eq!(packets, u64::from(row.becomes.is_some()), "{}: packets in the slots", row.name);
    }
}

/// The outcomes that no row can have, each with where it is tested or why it is not.
const ELSEWHERE: [(Counter, &str); 6] = [
    (Claimed, "learning.rs"),
    (EventLost, "learning.rs"),
    (ReportLost, "streams.rs"),
    (DropCircle, "local.rs"),
    (DropNotSent, "the relay's alone"),
    (PassNoHeadroom, "a test run always has 256 bytes in front of the frame"),
];

#[test]
fn every_numbered_outcome_has_a_row() {
    for counter in Counter::ALL {
        let in_table = table().iter().chain(&v6::rows()).any(|row| row.counted.contains(counter));
        let elsewhere = ELSEWHERE.iter().any(|(other, _)| other == counter);
        assert!(in_table != elsewhere, "{}", counter.name());
    }
}

#[test]
fn a_frame_cut_anywhere_is_never_forwarded() {
    let Some(mut kernel) = Kernel::with_call("a_frame_cut_anywhere_is_never_forwarded") else { return };
    let tagged = Packet { vlan: Some(VLAN), ..from_outside() };
    let twice = Packet { outer_vlan: Some(OUTER_VLAN), ..tagged.clone() };
    for packet in [from_outside(), tagged, twice, rtcp_from_outside()] {
        kernel.install_call();
        let slot = kernel.slot(OUTSIDE_RTP);
        for index in [VLAN_RTP, OUTER_VLAN_RTP] {
            kernel.set_slot(index, &slot);
        }
        let frame = packet.bytes();
        let headers = frame.len() - packet.payload.len();
        // The kernel itself refuses less than an Ethernet header.
        for length in IP..frame.len() {
            let ran = kernel.run(&frame[..length]);
            let expected =
                if length < headers { (Action::Pass, PassTruncated) } else { (Action::Drop, DropBadLength) };
            assert_eq!((ran.action, ran.counted[0]), expected, "{length} of {} bytes", frame.len());
            assert_eq!(ran.frame, &frame[..length]);
        }
        assert_eq!(kernel.run(&frame).action, Action::Redirect);
    }
}

/// Where the type of the first tag is in a frame.
const FIRST_TAG: usize = 12;

#[test]
fn the_first_tag_of_a_frame_may_be_of_either_type() {
    let Some(mut kernel) = Kernel::with_call("the_first_tag_of_a_frame_may_be_of_either_type") else {
        return;
    };
    let slot = kernel.slot(OUTSIDE_RTP);
    kernel.set_slot(OUTER_VLAN_RTP, &slot);
    let twice = Packet { vlan: Some(VLAN), outer_vlan: Some(OUTER_VLAN), ..from_outside() };
    for (hop, usual) in [(ACROSS_TAGGED, [0x81, 0]), (ACROSS_TAGGED_TWICE, [0x88, 0xa8])] {
        kernel.edit_head(OUTER_VLAN_RTP, |head| head.next_hop = hop);
        let mut expected = forwarded(from_outside(), hop, (INSIDE, INSIDE_PORT), INSIDE_PEER).bytes();
        assert_eq!(expected[FIRST_TAG..][..2], usual);
        let unnamed = kernel.next_hops.get(&u32::from(hop), 0).unwrap();
        for (tag_type, written) in [(0, usual), (0x8100, [0x81, 0]), (0x88a8, [0x88, 0xa8])] {
            kernel.next_hops.set(u32::from(hop), NextHop { tag_type, ..unnamed }, 0).unwrap();
            expected[FIRST_TAG..][..2].copy_from_slice(&written);
            for arriving in [[0x81, 0], [0x88, 0xa8]] {
                let mut frame = twice.bytes();
                frame[FIRST_TAG..][..2].copy_from_slice(&arriving);
                let ran = kernel.run(&frame);
                assert_eq!(ran.action, Action::Redirect);
                assert_eq!(ran.frame, expected, "hop {hop}, {tag_type:#x}, arrived with {arriving:x?}");
            }
        }
    }
}

#[test]
fn a_slot_counts_what_it_forwarded() {
    let Some(mut kernel) = Kernel::with_call("a_slot_counts_what_it_forwarded") else { return };
    for _ in 0..3 {
        kernel.run(&from_outside().bytes());
    }
    kernel.run(&Packet { payload: vec![0x80; 20], ..from_outside() }.bytes());
    kernel.run(&outside_payload(&[0; 20]));
    let slot = kernel.slot(OUTSIDE_RTP);
    assert_eq!((slot.packets, slot.bytes), (4, 3 * 172 + 20));
    assert_ne!(slot.last_seen, 0);
    assert_eq!(kernel.slot(INSIDE_RTP).packets, 0);
    kernel.edit_head(OUTSIDE_RTP, |head| head.state = FlowState::Idle);
    kernel.run(&from_outside().bytes());
    assert_eq!(kernel.slot(OUTSIDE_RTP).packets, 4);
}

#[test]
fn a_flow_knows_how_many_packets_there_should_have_been() {
    let Some(mut kernel) = Kernel::with_call("a_flow_knows_how_many_packets_there_should_have_been") else {
        return;
    };
    let expected = |kernel: &Kernel| u64::from(kernel.stream(OUTSIDE_RTP).expected);
    let send = |kernel: &Kernel, number: u16| {
        let mut packet = from_outside();
        packet.payload[2..4].copy_from_slice(&number.to_be_bytes());
        assert_eq!(kernel.run(&packet.bytes()).action, Action::Redirect);
    };
    for (number, count) in [(65_534, 1), (65_535, 2), (1, 4), (0, 4), (5, 8)] {
        send(&kernel, number);
        assert_eq!(expected(&kernel), count, "after number {number}");
    }
    assert_eq!(missing(expected(&kernel), kernel.slot(OUTSIDE_RTP).packets), 3);
    // The next flow of the slot starts anew, wherever it starts.
    kernel.edit_head(OUTSIDE_RTP, |head| head.generation += 1);
    send(&kernel, 100);
    assert_eq!(expected(&kernel), 9);
    kernel.run(&rtcp_from_outside().bytes());
    assert_eq!(kernel.stream(OUTSIDE_RTCP), StreamSlot::default());
}

#[test]
fn checksums_are_verified_as_often_as_configured() {
    let Some(mut kernel) = Kernel::with_call("checksums_are_verified_as_often_as_configured") else { return };
    let wrong = Packet { udp_checksum: UdpChecksum::Wrong, ..from_outside() }.bytes();
    for (verify_one_in, expected) in [(0, 0), (1, 8), (4, 2), (8, 1)] {
        kernel.install_call();
        kernel.config.set(0, Config { verify_one_in, ..Config::new(ADDRESS_SLOTS, 0) }, 0).unwrap();
        let found = (0..8).filter(|_| kernel.run(&wrong).counted.contains(&BadChecksum)).count();
        assert_eq!(found, expected, "one in {verify_one_in}");
    }
}

#[test]
fn bpftool_shows_a_slot_field_by_field() {
    const NAME: &str = "bpftool_shows_a_slot_field_by_field";
    let Some(kernel) = Kernel::with_call(NAME) else { return };
    let id = kernel.flows_id.to_string();
    let index = OUTSIDE_RTP.0.to_ne_bytes().map(|byte| byte.to_string());
    let mut bpftool = std::process::Command::new("bpftool");
    bpftool.args(["-j", "map", "lookup", "id", &id, "key"]).args(index);
    let Ok(output) = bpftool.output() else {
        sbc_tests::skip(NAME, "bpftool is not installed");
        return;
    };
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let slot = &shown["formatted"]["value"];
    assert_eq!(slot["head"]["state"], "Latched", "{shown}");
    assert_eq!(slot["head"]["kind"], "Rtp");
    assert_eq!(slot["head"]["generation"], GENERATION);
    assert_eq!(slot["expected"]["address"], serde_json::json!(OUTSIDE_PEER.0));
    assert_eq!(slot["expected"]["port"], serde_json::json!(OUTSIDE_PEER.1.to_be_bytes()));
    assert_eq!(slot["destination"]["dscp"], DSCP);
    assert_eq!(slot["packets"], 0);
}
