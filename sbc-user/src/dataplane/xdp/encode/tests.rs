use super::*;
use sbc_common::addr::Endpoint;
use sbc_common::flow::{Allowed, FlowSlot, Learned, Target};
use sbc_common::flow6::{Claim, ClaimPhase, FlowSlot6};
use sbc_common::stream::StreamSlot;
use sbc_core::id::RealmId;
use sbc_core::media::plan::PeerMedia;

fn side(local_rtp_port: u16, peer: Option<&str>, source: SourcePolicy) -> StreamSide {
    StreamSide {
        realm: RealmId(0),
        local_ip: "203.0.113.1".parse().unwrap(),
        local_rtp_port,
        peer: peer.map(|rtp| {
            let rtp: SocketAddr = rtp.parse().unwrap();
            PeerMedia { rtp, rtcp: SocketAddr::new(rtp.ip(), rtp.port() + 1) }
        }),
        source,
        dscp: 46,
        rtcp_mux: false,
        pace: MediaPace::default(),
    }
}

fn side6(local_rtp_port: u16, peer: Option<&str>, source: SourcePolicy) -> StreamSide {
    StreamSide { local_ip: "2001:db8::1".parse().unwrap(), ..side(local_rtp_port, peer, source) }
}

fn learn(ip: &str) -> SourcePolicy {
    SourcePolicy::learn_from(ip.parse().unwrap())
}

fn window(prefix: &str, len: u8, opening: u32, open: bool) -> SourcePolicy {
    let allowed = Prefix { addr: prefix.parse().unwrap(), len };
    SourcePolicy::Learn { allowed, window: LearnWindow { opening, open } }
}

fn stream(caller: StreamSide, callee: StreamSide) -> StreamPlan {
    StreamPlan { mline: 0, caller, callee }
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn v4(text: &str) -> Endpoint {
    let SocketAddr::V4(address) = at(text) else { panic!("{text}") };
    Endpoint::new(address.ip().octets(), address.port())
}

/// Tables in which the tests play the kernel as well, and what was written there last.
struct World {
    flows: Flows,
    latest: Generation,
    state: Option<StreamState>,
}

impl World {
    fn new() -> Self {
        Self { flows: Flows::detached(), latest: Generation::FIRST, state: None }
    }

    /// Writes a stream. The caller's hop is 1, the callee's 2.
    fn write(&mut self, stream: &StreamPlan) -> &StreamState {
        let hop = |hop| Toward::Hop { hop: Some(HopId(hop)), reaches_peer: true };
        self.write_toward(stream, [[hop(1); 2], [hop(2); 2]])
    }

    fn write_toward(&mut self, stream: &StreamPlan, toward: [[Toward; 2]; 2]) -> &StreamState {
        let sides = sides(stream, [0, 1], toward);
        let state = StreamState::write(&self.flows, &mut self.latest, self.state.as_ref(), sides);
        self.state.insert(state)
    }

    fn state(&self) -> &StreamState {
        self.state.as_ref().unwrap()
    }

    fn tag(&self) -> u16 {
        self.state().generation().number()
    }

    fn key(&self, at: usize, kind: usize) -> SlotKey {
        self.state().slots(at)[kind]
    }

    fn slot(&self, at: usize, kind: usize) -> FlowSlot {
        let key = self.key(at, kind);
        assert_eq!(key.family, Family::V4);
        self.flows.table(Family::V4).slot(key.index)
    }

    fn stream_word(&self, at: usize, kind: usize, word: usize) -> u64 {
        let key = self.key(at, kind);
        self.flows.table(key.family).stream_word(key.index, word)
    }

    fn store(&self, at: usize, kind: usize, word: usize, value: u64) {
        let key = self.key(at, kind);
        self.flows.table(key.family).store_kernel_word(key.index, word, value);
    }

    /// Claims a slot of `FLOWS` as the kernel does: its learned source, and the learned destination of the other side's.
    fn claim(&self, at: usize, kind: usize, source: &str) {
        let word = Learned::new(v4(source), self.tag()).to_word();
        self.store(at, kind, FlowSlot::LEARNED_SOURCE, word);
        self.store(1 - at, kind, FlowSlot::LEARNED_DESTINATION, word);
    }

    /// Where the kernel sends what arrives on a port.
    fn destination(&self, at: usize, kind: usize) -> Endpoint {
        let slot = self.slot(at, kind);
        slot.learned_destination.endpoint(slot.head.generation).unwrap_or(slot.destination.endpoint())
    }
}

#[test]
fn signalled_peers_are_expected_exactly_and_each_side_sends_to_the_other() {
    let mut world = World::new();
    let mut plan = stream(
        side(20_000, Some("192.0.2.10:4000"), SourcePolicy::Signalled),
        side(30_000, Some("198.51.100.10:6000"), SourcePolicy::Signalled),
    );
    plan.caller.pace = MediaPace { packets_per_second: 100, clock_rate_hz: 8000 };
    world.write(&plan);
    let (caller, callee) = (world.slot(CALLER, RTP), world.slot(CALLEE, RTP));
    assert_eq!((caller.head.state, caller.head.kind), (FlowState::Latched, PortKind::Rtp));
    assert_eq!((caller.head.way, caller.head.flags), (Way::V4, 0));
    assert_eq!(caller.head.next_hop, 2, "towards the callee");
    assert_eq!(caller.expected, Allowed::exactly(v4("192.0.2.10:4000")));
    assert_eq!(caller.destination, Target::new(v4("198.51.100.10:6000"), 46, 64));
    assert_eq!(caller.partner, SlotIndex::new(1, 30_000).0);
    assert_eq!((callee.head.next_hop, callee.partner), (1, SlotIndex::new(0, 20_000).0));
    assert_eq!(callee.destination.endpoint(), v4("192.0.2.10:4000"));
    let rtcp = world.slot(CALLER, RTCP);
    assert_eq!((rtcp.head.state, rtcp.head.kind), (FlowState::Latched, PortKind::Rtcp));
    assert_eq!(rtcp.expected, Allowed::exactly(v4("192.0.2.10:4001")));
    assert_eq!(
        (rtcp.destination.endpoint(), rtcp.partner),
        (v4("198.51.100.10:6001"), SlotIndex::new(1, 30_001).0)
    );
    assert!([caller, callee, rtcp].iter().all(|slot| slot.head.generation == world.tag()));

    let limit = |at, kind| {
        let [a, b, c, d, e, f, ..] = world.stream_word(at, kind, StreamSlot::LIMIT).to_ne_bytes();
        (u32::from_ne_bytes([a, b, c, d]), u16::from_ne_bytes([e, f]))
    };
    assert_eq!(limit(CALLER, RTP), (8000, 108), "a window is 1.07 s");
    assert_eq!(limit(CALLEE, RTP), (0, 0), "nothing is known");
    assert_eq!(limit(CALLER, RTCP), (0, limits::RTCP_PER_WINDOW));
}

#[test]
fn a_rate_becomes_what_a_window_lets_through() {
    assert_eq!([0, 1, 50, 1000, u32::MAX].map(window_limit), [0, 2, 54, 1074, u16::MAX]);
}

#[test]
fn a_side_that_is_not_known_yet_accepts_nothing_and_is_sent_nothing() {
    let mut world = World::new();
    world.write(&stream(
        side(20_000, Some("192.0.2.10:4000"), SourcePolicy::Signalled),
        side(30_000, None, SourcePolicy::Signalled),
    ));
    let (caller, callee) = (world.slot(CALLER, RTP), world.slot(CALLEE, RTP));
    assert_eq!((caller.head.state, callee.head.state), (FlowState::Latched, FlowState::Idle));
    assert_eq!(caller.destination.port, [0, 0]);
}

#[test]
fn addresses_that_receive_nothing_are_no_peers() {
    for address in ["0.0.0.0:4000", "192.0.2.10:0", "239.1.1.1:4000", "[2001:db8::1]:4000"] {
        assert_eq!(peer(&side(20_000, Some(address), SourcePolicy::Signalled), RTP), None, "{address}");
    }
    for address in ["[::]:4000", "[fe80::1]:4000", "[ff02::1]:4000", "192.0.2.10:4000"] {
        assert_eq!(peer(&side6(20_000, Some(address), SourcePolicy::Signalled), RTP), None, "{address}");
    }
    let usable = side6(20_000, Some("[2001:db8::1]:4000"), SourcePolicy::Signalled);
    assert_eq!(peer(&usable, RTCP), Some(at("[2001:db8::1]:4001")));
}

#[test]
fn the_answer_leaves_what_the_other_side_learned() {
    let mut world = World::new();
    let offer = stream(
        side(20_000, Some("10.0.0.1:4000"), learn("192.0.2.10")),
        side(30_000, None, SourcePolicy::Signalled),
    );
    world.write(&offer);
    let tag = world.tag();
    world.claim(CALLER, RTP, "192.0.2.10:50000");
    let mut answer = offer.clone();
    answer.caller.peer = Some(PeerMedia { rtp: at("10.0.0.1:4444"), rtcp: at("10.0.0.1:4445") });
    answer.callee = side(30_000, Some("198.51.100.10:6000"), SourcePolicy::Signalled);
    world.write(&answer);
    assert_eq!(world.tag(), tag);
    assert_eq!(world.slot(CALLER, RTP).source(), Some(v4("192.0.2.10:50000")));
    assert_eq!(world.destination(CALLEE, RTP), v4("192.0.2.10:50000"));
    assert_eq!(world.destination(CALLER, RTP), v4("198.51.100.10:6000"));
    assert_eq!(world.state().learned(&world.flows, CALLER, RTP), Some(at("192.0.2.10:50000")));
}

#[test]
fn a_side_that_is_opened_anew_is_learned_anew_and_the_other_keeps_its_source() {
    let mut world = World::new();
    let plan = stream(
        side(20_000, Some("192.0.2.10:4000"), learn("192.0.2.10")),
        side(30_000, Some("198.51.100.10:6000"), learn("198.51.100.10")),
    );
    world.write(&plan);
    let tag = world.tag();
    world.claim(CALLER, RTP, "192.0.2.10:50000");
    world.claim(CALLEE, RTP, "198.51.100.10:60000");

    let mut moved = plan.clone();
    moved.callee = side(30_000, Some("198.51.100.11:7000"), window("198.51.100.11", 32, 1, true));
    world.write(&moved);
    assert_ne!(world.tag(), tag);
    let (caller, callee) = (world.slot(CALLER, RTP), world.slot(CALLEE, RTP));
    assert_eq!(caller.head.state, FlowState::Latched);
    assert_eq!(caller.expected, Allowed::exactly(v4("192.0.2.10:50000")));
    assert_eq!(world.destination(CALLEE, RTP), v4("192.0.2.10:50000"));
    assert_eq!((callee.head.state, callee.source()), (FlowState::Learning, None));
    assert_eq!(callee.expected, Allowed::any_port([198, 51, 100, 11], 32));
    assert_eq!(world.destination(CALLER, RTP), v4("198.51.100.11:7000"));
    assert_eq!(world.slot(CALLER, RTCP).head.state, FlowState::Learning, "RTCP was still to be claimed");

    // Written once more without a change: nothing moves.
    let again = world.tag();
    world.write(&moved);
    assert_eq!(world.tag(), again);
    assert_eq!((world.slot(CALLER, RTP), world.slot(CALLEE, RTP)), (caller, callee));
}

#[test]
fn a_closed_window_keeps_who_claimed_and_else_lets_the_signalled_peer_in() {
    let mut world = World::new();
    let with = |open| {
        stream(
            side(20_000, Some("192.0.2.10:4000"), window("192.0.2.0", 24, 7, open)),
            side(30_000, Some("198.51.100.10:6000"), SourcePolicy::Signalled),
        )
    };
    world.write(&with(true));
    let slot = world.slot(CALLER, RTP);
    assert_eq!(
        (slot.head.state, slot.expected),
        (FlowState::Learning, Allowed::any_port([192, 0, 2, 0], 24))
    );
    let tag = world.tag();
    world.claim(CALLER, RTP, "192.0.2.77:50000");
    world.write(&with(false));
    assert_eq!(world.tag(), tag);
    let (rtp, rtcp) = (world.slot(CALLER, RTP), world.slot(CALLER, RTCP));
    assert_eq!((rtp.head.state, rtcp.head.state), (FlowState::Latched, FlowState::Latched));
    assert_eq!(rtp.source(), Some(v4("192.0.2.77:50000")));
    assert_eq!(rtcp.expected, Allowed::exactly(v4("192.0.2.10:4001")), "nobody claimed");
    assert_eq!(world.destination(CALLEE, RTP), v4("192.0.2.77:50000"));
    assert_eq!(world.destination(CALLEE, RTCP), v4("192.0.2.10:4001"));

    let mut silent = with(false);
    silent.caller.peer = None;
    let mut world = World::new();
    world.write(&silent);
    assert_eq!(world.slot(CALLER, RTP).expected, Allowed::NOBODY);
}

#[test]
fn another_opening_voids_what_was_learned_there_and_nowhere_else() {
    let mut world = World::new();
    let with = |opening| {
        stream(
            side(20_000, Some("192.0.2.10:4000"), window("192.0.2.0", 24, opening, true)),
            side(30_000, Some("198.51.100.10:6000"), window("0.0.0.0", 0, 1, false)),
        )
    };
    let mut first = with(1);
    first.callee.source = window("0.0.0.0", 0, 1, true);
    world.write(&first);
    world.claim(CALLER, RTP, "192.0.2.77:50000");
    world.claim(CALLEE, RTP, "198.18.0.1:60000");
    let tag = world.tag();
    world.write(&with(2));
    assert_ne!(world.tag(), tag);
    let (caller, callee) = (world.slot(CALLER, RTP), world.slot(CALLEE, RTP));
    assert_eq!((caller.head.state, caller.source()), (FlowState::Learning, None));
    assert_eq!(world.destination(CALLEE, RTP), v4("192.0.2.10:4000"), "until the next claim");
    assert_eq!(world.state().learned(&world.flows, CALLER, RTP), None);
    assert_eq!(
        (callee.head.state, callee.expected),
        (FlowState::Latched, Allowed::exactly(v4("198.18.0.1:60000")))
    );
    assert_eq!(world.destination(CALLER, RTP), v4("198.18.0.1:60000"));
}

#[test]
fn a_new_port_of_ours_is_a_new_generation_and_counts_from_there() {
    let mut world = World::new();
    let plan = stream(
        side(20_000, Some("192.0.2.10:4000"), learn("192.0.2.10")),
        side(30_000, Some("198.51.100.10:6000"), SourcePolicy::Signalled),
    );
    for port in [20_000, 20_002] {
        world.flows.table(Family::V4).store_kernel_word(SlotIndex::new(0, port), FlowSlot::PACKETS, 1000);
    }
    world.write(&plan);
    world.store(CALLER, RTP, FlowSlot::PACKETS, 1007);
    world.store(CALLEE, RTP, FlowSlot::PACKETS, 5);
    let key = world.key(CALLEE, RTP);
    world.flows.table(Family::V4).store_stream_word(key.index, StreamSlot::EXPECTED, u64::from(8u32.to_le()));
    let counted = |world: &World| {
        [CALLER, CALLEE].map(|at| {
            let [rtp, _] = world.state().counted(&world.flows, at);
            (rtp.packets, rtp.lost())
        })
    };
    assert_eq!(counted(&world), [(7, None), (5, Some(3))]);

    let tag = world.tag();
    let mut moved = plan.clone();
    moved.caller.local_rtp_port = 20_002;
    world.write(&moved);
    assert_ne!(world.tag(), tag);
    assert_eq!(counted(&world), [(0, None), (5, Some(3))]);
}

/// The caller's side shares a port, the callee's does not: four ways through.
#[test]
fn a_shared_port_and_two_ports_meet() {
    let mut world = World::new();
    let mut plan = stream(
        side(20_000, Some("192.0.2.10:4000"), learn("192.0.2.10")),
        side(30_000, Some("198.51.100.10:6000"), SourcePolicy::Signalled),
    );
    plan.caller.rtcp_mux = true;
    world.write(&plan);
    let [rtp, way_out] = [RTP, RTCP].map(|kind| world.slot(CALLER, kind));
    assert_eq!((rtp.head.state, rtp.head.kind), (FlowState::Learning, PortKind::Muxed));
    assert_eq!((way_out.head.state, way_out.head.kind), (FlowState::Muxed, PortKind::Rtcp));
    assert_eq!(
        (rtp.destination.endpoint(), rtp.partner),
        (v4("198.51.100.10:6000"), SlotIndex::new(1, 30_000).0)
    );
    assert_eq!(
        (way_out.destination.endpoint(), way_out.partner),
        (v4("198.51.100.10:6001"), SlotIndex::new(1, 30_001).0)
    );
    assert_eq!(way_out.expected, Allowed::NOBODY);
    assert_eq!(way_out.head.next_hop, 2);
    for kind in [RTP, RTCP] {
        let callee = world.slot(CALLEE, kind);
        assert_eq!(callee.head.state, FlowState::Latched);
        assert_eq!(
            (callee.destination.endpoint(), callee.partner),
            (v4("192.0.2.10:4000"), SlotIndex::new(0, 20_000).0)
        );
    }

    // What the shared port learned is kept for both ways towards it.
    let word = Learned::new(v4("192.0.2.10:50000"), world.tag()).to_word();
    world.store(CALLER, RTP, FlowSlot::LEARNED_SOURCE, word);
    plan.callee.source = learn("198.51.100.10");
    world.write(&plan);
    plan.callee.source = window("198.51.100.10", 32, 1, true);
    world.write(&plan);
    for kind in [RTP, RTCP] {
        assert_eq!(world.slot(CALLEE, kind).destination.endpoint(), v4("192.0.2.10:50000"));
    }
}

#[test]
fn two_shared_ports_meet() {
    let mut world = World::new();
    let mut plan = stream(
        side(20_000, Some("192.0.2.10:4000"), SourcePolicy::Signalled),
        side(30_000, Some("198.51.100.10:6000"), SourcePolicy::Signalled),
    );
    (plan.caller.rtcp_mux, plan.callee.rtcp_mux) = (true, true);
    world.write(&plan);
    for kind in [RTP, RTCP] {
        let slot = world.slot(CALLER, kind);
        assert_eq!(
            (slot.destination.endpoint(), slot.partner),
            (v4("198.51.100.10:6000"), SlotIndex::new(1, 30_000).0)
        );
    }
}

#[test]
fn a_peer_that_is_a_port_of_ours_is_met_without_a_way_out() {
    let mut world = World::new();
    let plan = stream(
        side(20_000, Some("192.0.2.10:4000"), SourcePolicy::Signalled),
        side(30_000, Some("203.0.113.9:20100"), learn("203.0.113.77")),
    );
    let hop = Toward::Hop { hop: Some(HopId(1)), reaches_peer: true };
    world.write_toward(&plan, [[hop; 2], [Toward::Local(5); 2]]);
    let (caller, callee) = (world.slot(CALLER, RTP), world.slot(CALLEE, RTP));
    assert_eq!((caller.head.way, caller.head.next_hop), (Way::Local, 5));
    assert_eq!(caller.destination.endpoint(), v4("203.0.113.9:20100"));
    assert_eq!((callee.head.way, callee.head.next_hop), (Way::V4, 1));
    assert_eq!(
        (callee.head.state, callee.expected),
        (FlowState::Latched, Allowed::exactly(v4("203.0.113.9:20100")))
    );
}

#[test]
fn ipv4_and_ipv6_meet_and_what_one_learned_is_read_by_the_other() {
    let mut world = World::new();
    let mut plan = stream(
        side(20_000, Some("192.0.2.10:4000"), learn("192.0.2.10")),
        side6(30_000, Some("[2001:db8::9]:6000"), window("2001:db8::", 64, 1, true)),
    );
    world.write(&plan);
    let caller = world.slot(CALLER, RTP);
    assert_eq!((caller.head.way, caller.head.flags), (Way::V6, FlowHead::FOLLOWS_PARTNER));
    assert_eq!(caller.destination, Target::new(Endpoint::new([0; 4], 6000), 46, 64));
    assert_eq!(caller.partner, SlotIndex::new(1, 30_000).0);
    let address =
        [0, 1].map(|word| world.stream_word(CALLER, RTP, StreamSlot::DESTINATION6 + word).to_ne_bytes());
    assert_eq!(address.as_flattened()[..4], [0x20, 1, 0xd, 0xb8]);
    assert_eq!(address.as_flattened()[15], 9);
    let key = world.key(CALLEE, RTP);
    assert_eq!((key.family, key.index), (Family::V6, SlotIndex::new(1, 30_000)));
    let head = world.flows.head(key);
    assert_eq!((head.state, head.way, head.flags), (FlowState::Learning, Way::V4, FlowHead::FOLLOWS_PARTNER));
    assert_eq!(head.generation, caller.head.generation);

    // The IPv6 side is claimed; the IPv4 side changes, and it is kept.
    for (at, bytes) in
        [[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 7], [0x13, 0x88, 0, 0, 0, 0, 0, 0]]
            .into_iter()
            .enumerate()
    {
        world.store(CALLEE, RTP, FlowSlot6::LEARNED_SOURCE + at, u64::from_ne_bytes(bytes));
    }
    let claim = Claim::new(world.tag(), ClaimPhase::Claimed).to_word();
    world.store(CALLEE, RTP, FlowSlot6::CLAIM, claim);
    assert_eq!(world.state().learned(&world.flows, CALLEE, RTP), Some(at("[2001:db8::7]:5000")));
    plan.caller = side(20_000, Some("192.0.2.11:4000"), window("192.0.2.11", 32, 1, true));
    world.write(&plan);
    assert_eq!(world.state().learned(&world.flows, CALLEE, RTP), Some(at("[2001:db8::7]:5000")));
    let (head, caller) = (world.flows.head(key), world.slot(CALLER, RTP));
    assert_eq!((head.state, head.flags), (FlowState::Latched, FlowHead::FOLLOWS_PARTNER));
    assert_eq!((caller.head.flags, caller.destination.endpoint()), (0, Endpoint::new([0; 4], 5000)));
    assert_eq!(world.slot(CALLER, RTCP).head.flags, FlowHead::FOLLOWS_PARTNER, "nobody claimed for RTCP");
}

#[test]
fn a_side_that_nobody_may_claim_is_not_followed() {
    let mut world = World::new();
    world.write(&stream(
        side6(20_000, Some("[2001:db8::9]:4000"), SourcePolicy::Signalled),
        side6(30_000, Some("[2001:db8::a]:6000"), window("::", 0, 1, false)),
    ));
    let flags = [CALLER, CALLEE].map(|at| world.flows.head(world.key(at, RTP)).flags);
    assert_eq!(flags, [FlowHead::FOLLOWS_PARTNER, 0], "a closed window may have been claimed before");
}
