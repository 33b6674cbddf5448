use super::*;
use sbc_common::flow::{FlowSlot, Learned};
use sbc_core::id::RealmId;
use sbc_core::media::plan::{MediaPace, PeerMedia};

const CALLER_IP: [u8; 4] = [192, 0, 2, 10];
const CALLEE_IP: [u8; 4] = [198, 51, 100, 10];

fn side(local_rtp_port: u16, peer: Option<(&str, u16)>, source: SourcePolicy) -> StreamSide {
    StreamSide {
        realm: RealmId(0),
        local_ip: "203.0.113.1".parse().unwrap(),
        local_rtp_port,
        peer: peer.map(|(ip, port)| {
            let ip = ip.parse().unwrap();
            PeerMedia { rtp: SocketAddr::new(ip, port), rtcp: SocketAddr::new(ip, port + 1) }
        }),
        source,
        dscp: 46,
        rtcp_mux: false,
        pace: MediaPace::default(),
    }
}

fn learn(ip: &str) -> SourcePolicy {
    SourcePolicy::learn_from(ip.parse().unwrap())
}

fn stream(caller: StreamSide, callee: StreamSide) -> StreamPlan {
    StreamPlan { mline: 0, caller, callee }
}

const HOPS: [Hops; 2] = [
    Hops { rtp: Some(HopId(1)), rtcp: Some(HopId(1)), reaches_peer: true },
    Hops { rtp: Some(HopId(2)), rtcp: Some(HopId(2)), reaches_peer: true },
];

/// Writes a stream's RTP pair.
fn write(
    table: &FlowTable,
    latest: &mut Generation,
    before: Option<&PairState>,
    stream: &StreamPlan,
) -> (PairState, [FlowSlot; 2]) {
    let [rtp, _] = pairs(stream, [0, 1], HOPS);
    let state = PairState::write(table, latest, before, rtp);
    let slots = state.slots().map(|slot| table.read(slot));
    (state, slots)
}

/// A table of two addresses, in which the tests play the kernel as well.
fn table() -> FlowTable {
    FlowTable::detached(2 << 16).unwrap()
}

/// Claims a side's slot as the kernel does: its own learned source and the partner's learned destination.
fn claim(table: &FlowTable, state: &PairState, at: usize, source: Endpoint) {
    let word = Learned::new(source, state.generation().number()).to_word();
    table.store_kernel_word(state.slots()[at], FlowSlot::LEARNED_SOURCE, word);
    table.store_kernel_word(state.slots()[1 - at], FlowSlot::LEARNED_DESTINATION, word);
}

#[test]
fn signalled_peers_are_expected_exactly_and_each_side_sends_to_the_other() {
    let table = table();
    let plan = stream(
        side(20_000, Some(("192.0.2.10", 4000)), SourcePolicy::Signalled),
        side(30_000, Some(("198.51.100.10", 6000)), SourcePolicy::Signalled),
    );
    let mut latest = Generation::FIRST;
    let (_, [caller, callee]) = write(&table, &mut latest, None, &plan);
    assert_eq!(caller.head.state, FlowState::Latched);
    assert_eq!(caller.head.next_hop, 2, "towards the callee");
    assert_eq!(caller.expected, Allowed::exactly(Endpoint::new(CALLER_IP, 4000)));
    assert_eq!(caller.destination, Target::new(Endpoint::new(CALLEE_IP, 6000), 46, 64));
    assert_eq!(caller.partner, SlotIndex::new(1, 30_000).0);
    assert_eq!(callee.head.next_hop, 1);
    assert_eq!(callee.destination.endpoint(), Endpoint::new(CALLER_IP, 4000));
    assert_eq!(callee.partner, SlotIndex::new(0, 20_000).0);
    assert_eq!(caller.head.generation, callee.head.generation);
}

#[test]
fn rtcp_has_its_own_pair_on_the_odd_ports() {
    let plan = stream(
        side(20_000, Some(("192.0.2.10", 4000)), SourcePolicy::Signalled),
        side(30_000, None, learn("198.51.100.10")),
    );
    let [_, rtcp] = pairs(&plan, [0, 1], HOPS);
    assert_eq!(rtcp.kind, MediaKind::Rtcp);
    assert_eq!(rtcp.sides.map(|side| side.slot), [SlotIndex::new(0, 20_001), SlotIndex::new(1, 30_001)]);
    assert_eq!(rtcp.sides[CALLER].accept, Accept::Exactly(Endpoint::new(CALLER_IP, 4001)));
    assert_eq!(rtcp.sides[CALLEE].accept, Accept::Claim(CALLEE_IP));
}

#[test]
fn a_side_that_is_not_known_yet_accepts_nothing_and_is_sent_nothing() {
    let table = table();
    let plan = stream(
        side(20_000, Some(("192.0.2.10", 4000)), SourcePolicy::Signalled),
        side(30_000, None, SourcePolicy::Signalled),
    );
    let (_, [caller, callee]) = write(&table, &mut Generation::FIRST.clone(), None, &plan);
    assert_eq!((caller.head.state, callee.head.state), (FlowState::Latched, FlowState::Idle));
    assert_eq!(caller.destination.port, [0, 0]);
}

#[test]
fn addresses_that_receive_nothing_are_no_peers() {
    for (ip, port) in [("0.0.0.0", 4000), ("192.0.2.10", 0), ("239.1.1.1", 4000), ("2001:db8::1", 4000)] {
        assert_eq!(endpoint(SocketAddr::new(ip.parse().unwrap(), port)), None, "{ip} {port}");
    }
}

#[test]
fn the_answer_leaves_what_the_other_side_learned() {
    let table = table();
    let offer = stream(
        side(20_000, Some(("10.0.0.1", 4000)), learn("192.0.2.10")),
        side(30_000, None, SourcePolicy::Signalled),
    );
    let mut latest = Generation::FIRST;
    let (state, _) = write(&table, &mut latest, None, &offer);
    let source = Endpoint::new(CALLER_IP, 50_000);
    claim(&table, &state, CALLER, source);

    let mut answer = offer.clone();
    answer.callee = side(30_000, Some(("198.51.100.10", 6000)), SourcePolicy::Signalled);
    let (after, [caller, callee]) = write(&table, &mut latest, Some(&state), &answer);
    assert_eq!(after.generation(), state.generation());
    assert_eq!(caller.source(), Some(source));
    assert_eq!(callee.learned_destination.endpoint(after.generation().number()), Some(source));
    assert_eq!(caller.destination.endpoint(), Endpoint::new(CALLEE_IP, 6000));
}

#[test]
fn a_side_that_changes_is_learned_anew_and_the_other_keeps_its_source() {
    let table = table();
    let plan = stream(
        side(20_000, Some(("192.0.2.10", 4000)), learn("192.0.2.10")),
        side(30_000, Some(("198.51.100.10", 6000)), learn("198.51.100.10")),
    );
    let mut latest = Generation::FIRST;
    let (state, _) = write(&table, &mut latest, None, &plan);
    let (caller_source, callee_source) = (Endpoint::new(CALLER_IP, 50_000), Endpoint::new(CALLEE_IP, 60_000));
    claim(&table, &state, CALLER, caller_source);
    claim(&table, &state, CALLEE, callee_source);

    let mut moved = plan.clone();
    moved.callee = side(30_000, Some(("198.51.100.11", 7000)), learn("198.51.100.11"));
    let (after, [caller, callee]) = write(&table, &mut latest, Some(&state), &moved);
    assert_ne!(after.generation().number(), state.generation().number());
    assert_eq!((caller.head.state, caller.expected), (FlowState::Latched, Allowed::exactly(caller_source)));
    assert_eq!(callee.destination.endpoint(), caller_source);
    assert_eq!((callee.head.state, callee.source()), (FlowState::Learning, None));
    assert_eq!(callee.expected, Allowed::any_port([198, 51, 100, 11], 32));
    assert_eq!(caller.learned_destination.endpoint(after.generation().number()), None);
    assert_eq!(caller.destination.endpoint(), Endpoint::new([198, 51, 100, 11], 7000));

    // Written once more without a change: nothing moves.
    let (again, slots) = write(&table, &mut latest, Some(&after), &moved);
    assert_eq!(again.generation(), after.generation());
    assert_eq!(slots, [caller, callee]);
}

#[test]
fn a_new_port_of_ours_is_a_new_generation_and_counts_from_there() {
    let table = table();
    let plan = stream(
        side(20_000, Some(("192.0.2.10", 4000)), learn("192.0.2.10")),
        side(30_000, Some(("198.51.100.10", 6000)), SourcePolicy::Signalled),
    );
    let mut latest = Generation::FIRST;
    for port in [20_000, 20_002] {
        table.store_kernel_word(SlotIndex::new(0, port), FlowSlot::PACKETS, 1000);
    }
    let (state, _) = write(&table, &mut latest, None, &plan);
    table.store_kernel_word(SlotIndex::new(0, 20_000), FlowSlot::PACKETS, 1007);
    table.store_kernel_word(SlotIndex::new(1, 30_000), FlowSlot::PACKETS, 5);
    table.store_expected(SlotIndex::new(1, 30_000), 8);
    let counted = |state: &PairState| state.counted(&table).map(|counted| (counted.packets, counted.lost()));
    assert_eq!(counted(&state), [(7, None), (5, Some(3))]);

    let mut moved = plan.clone();
    moved.caller.local_rtp_port = 20_002;
    let (after, _) = write(&table, &mut latest, Some(&state), &moved);
    assert_ne!(after.generation(), state.generation());
    assert_eq!(counted(&after), [(0, None), (5, Some(3))]);
}
