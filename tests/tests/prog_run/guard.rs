//! The guard: rows of the packet table, and what takes more than one packet to show.

use aya::maps::lpm_trie::Key;
use etherparse::{PacketBuilder, PacketBuilderStep};
use sbc_common::counter::Counter;
use sbc_common::counter::Counter::*;
use sbc_common::event::Event;
use sbc_common::guard::{
    DenyEntry, DenyReason, Exceeded, GuardConfig, Level, MAPPED_PREFIX_BITS, MappedAddress, NO_REALM,
    REALM_BITS, RealmAddress, SCOPE_ALL, SCOPE_UDP, SipSocket, SourceKey, SourceWindows, TotalWindows,
    mapped,
};
use sbc_common::window::Limit;

use crate::kernel::{Action, Kernel};
use crate::packet::{IP, Packet};
use crate::table::{Row, drops, passes};
use crate::world::{OUTSIDE, OUTSIDE_PEER, OUTSIDE_PORT, VLAN, from_outside};

/// A source that nobody knows.
const STRANGER: [u8; 4] = [203, 0, 113, 66];
const OTHER_STRANGER: [u8; 4] = [203, 0, 113, 67];
const STRANGER_V6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 6, 0, 6, 1, 2, 3, 4, 5, 6, 7, 8];
const OUTSIDE_V6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const SIP: u16 = 5060;
const SIPS: u16 = 5061;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// The realm of the sockets.
const REALM: u32 = 7;

/// What passes in one window here. Its time is long: no test waits for its end.
const DATAGRAMS: u32 = 5;
const CONNECTIONS: u32 = 3;
const SEGMENTS: u32 = 7;
const TOTAL: u32 = 12;
const FRAGMENTS: u32 = 4;

impl Kernel {
    /// Automatic protection with small limits, nobody known, nothing counted.
    pub(crate) fn reset_guard(&mut self) {
        for (address, port, protocol) in [
            (mapped(OUTSIDE), SIP, UDP),
            (mapped(OUTSIDE), SIP, TCP),
            (mapped(OUTSIDE), SIPS, TCP),
            (mapped(OUTSIDE), 0, 0),
            (OUTSIDE_V6, SIP, UDP),
            (OUTSIDE_V6, SIP, TCP),
            (OUTSIDE_V6, 0, 0),
        ] {
            self.sip_sockets.insert(SipSocket::new(address, port, protocol), REALM, 0).unwrap();
        }
        self.set_level(Level::AutoProtection);
        self.totals.set(0, TotalWindows::default(), 0).unwrap();
        for key in self.sources.keys().collect::<Result<Vec<_>, _>>().unwrap() {
            self.sources.remove(&key).unwrap();
        }
        for key in self.deny.keys().collect::<Result<Vec<_>, _>>().unwrap() {
            self.deny.remove(&key).unwrap();
        }
        for key in self.block.keys().collect::<Result<Vec<_>, _>>().unwrap() {
            self.block.remove(&key).unwrap();
        }
        for key in self.trusted.keys().collect::<Result<Vec<_>, _>>().unwrap() {
            self.trusted.remove(&key).unwrap();
        }
    }

    fn set_level(&mut self, level: Level) {
        let limit = |count| Limit { count, ticks: 1 << 24 };
        let config = GuardConfig {
            level: level as u32,
            datagrams: limit(DATAGRAMS),
            connections: limit(CONNECTIONS),
            segments: limit(SEGMENTS),
            total: limit(TOTAL),
            fragments: limit(FRAGMENTS),
            unused: [0; 4],
        };
        self.guard.set(0, config, 0).unwrap();
    }

    fn edit_config(&mut self, edit: impl FnOnce(&mut GuardConfig)) {
        let mut config = self.guard.get(&0, 0).unwrap();
        edit(&mut config);
        self.guard.set(0, config, 0).unwrap();
    }

    fn block(&mut self, address: MappedAddress, bits: u32) {
        self.block.insert(&Key::new(bits, address), 0, 0).unwrap();
    }

    fn trust(&mut self, address: MappedAddress, bits: u32) {
        self.trust_on(REALM, address, bits);
    }

    fn trust_on(&mut self, realm: u32, address: MappedAddress, bits: u32) {
        let key = Key::new(REALM_BITS + bits, RealmAddress::new(realm, address));
        self.trusted.insert(&key, 0, 0).unwrap();
    }

    fn deny(&mut self, source: SourceKey, scope: u32, until_ns: u64) {
        let entry =
            DenyEntry { until_ns, since_unix_ms: 0, hits: 0, reason: DenyReason::Flood as u32, scope };
        self.deny.insert(source, entry, 0).unwrap();
    }
}

fn to_sip(source: [u8; 4], payload: &[u8]) -> Packet {
    Packet { payload: payload.to_vec(), ..Packet::rtp((source, 5060), (OUTSIDE, SIP)) }
}

fn options(source: [u8; 4]) -> Vec<u8> {
    to_sip(source, b"OPTIONS sip:a@192.0.2.1 SIP/2.0\r\n\r\n").bytes()
}

fn ethernet() -> PacketBuilderStep<etherparse::Ethernet2Header> {
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 0xbb], [2, 0, 0, 0, 0, 0xaa])
}

fn tcp(source: [u8; 4], port: u16, opens: bool) -> Vec<u8> {
    let tcp = ethernet().ipv4(source, OUTSIDE, 64).tcp(40_000, port, 1, 1000);
    let tcp = if opens { tcp.syn() } else { tcp.ack(1).psh() };
    let mut frame = Vec::new();
    tcp.write(&mut frame, if opens { b"" } else { b"INVITE sip:a@b SIP/2.0\r\n" }).unwrap();
    frame
}

fn udp_v6(source: [u8; 16], payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    ethernet().ipv6(source, OUTSIDE_V6, 64).udp(5060, SIP).write(&mut frame, payload).unwrap();
    frame
}

/// A datagram over IPv6 that is no SIP, and whose UDP header announces another length than it has.
fn shortened_v6(udp_bytes: u16) -> Vec<u8> {
    let mut frame = udp_v6(STRANGER_V6, b"\x80\x00\x12\x34RTP here");
    frame[IP + 44..IP + 46].copy_from_slice(&udp_bytes.to_be_bytes());
    frame
}

/// IPv6 whose next header is not UDP's.
fn extended_v6(next: u8) -> Vec<u8> {
    let mut frame = udp_v6(STRANGER_V6, b"OPTIONS sip:a@b SIP/2.0\r\n\r\n");
    frame[IP + 6] = next;
    frame
}

fn fragment(source: [u8; 4]) -> Vec<u8> {
    to_sip(source, b"OPTIONS sip:a@192.0.2.1 SIP/2.0\r\n\r\n").with(&[(IP + 6, &[0, 9])])
}

fn with_options() -> Vec<u8> {
    to_sip(STRANGER, b"OPTIONS sip:a@192.0.2.1 SIP/2.0\r\n\r\n").with(&[(IP, &[0x46])])
}

fn nothing(_: &mut Kernel) {}

pub(crate) fn rows() -> Vec<Row> {
    let beside = |row: Row, counted| Row { counted, ..row };
    let blocked: fn(&mut Kernel) = |kernel| kernel.block(mapped(STRANGER), MAPPED_PREFIX_BITS + 24);
    let trusted: fn(&mut Kernel) = |kernel| kernel.trust(mapped(STRANGER), MAPPED_PREFIX_BITS + 32);
    let denied: fn(&mut Kernel) = |kernel| kernel.deny(SourceKey::v4(STRANGER), SCOPE_ALL, 0);
    let denied_udp: fn(&mut Kernel) = |kernel| kernel.deny(SourceKey::v4(STRANGER), SCOPE_UDP, u64::MAX);
    let allow_list_only: fn(&mut Kernel) = |kernel| kernel.set_level(Level::AllowListOnly);
    let mut padded = options(STRANGER);
    padded.resize(padded.len() + 10, 0);
    let tagged = Packet { vlan: Some(VLAN), ..to_sip(STRANGER, b"OPTIONS sip:a@b SIP/2.0\r\n\r\n") }.bytes();
    vec![
        passes("a request of a stranger", nothing, options(STRANGER), &[PassSip]),
        passes("a request on a VLAN", nothing, tagged, &[PassSip]),
        passes("a padded request", nothing, padded, &[PassSip]),
        passes("a keep-alive", nothing, to_sip(STRANGER, b"\r\n\r\n").bytes(), &[PassSip]),
        passes("an empty datagram to a SIP port", nothing, to_sip(STRANGER, b"").bytes(), &[PassSip]),
        passes("a request over IPv6", nothing, udp_v6(STRANGER_V6, b"ACK sip:a@b SIP/2.0"), &[PassSip]),
        passes("a connection attempt", nothing, tcp(STRANGER, SIPS, true), &[PassSip]),
        passes("a segment", nothing, tcp(STRANGER, SIP, false), &[PassSip]),
        passes("a port that is no SIP port", nothing, tcp(STRANGER, 22, true), &[PassNotUdp]),
        passes(
            "UDP to a port that is SIP over TCP only",
            nothing,
            Packet::rtp((STRANGER, 1), (OUTSIDE, SIPS)).bytes(),
            &[PassNotMediaPort],
        ),
        passes("a trusted source's request", trusted, options(STRANGER), &[PassSipTrusted]),
        passes("a trusted source's fragment", trusted, fragment(STRANGER), &[PassSipTrusted]),
        passes("a fragment to a SIP address", nothing, fragment(STRANGER), &[PassFragment]),
        passes("IP options to a SIP address", nothing, with_options(), &[PassIpOptions]),
        passes("IPv6 with an extension header", nothing, extended_v6(0), &[PassExtensionHeader]),
        passes("ICMPv6 to a SIP address", nothing, extended_v6(58), &[PassNotUdp]),
        passes("TCP of a source denied for UDP", denied_udp, tcp(STRANGER, SIP, true), &[PassSip]),
        passes(
            "a denial that is over",
            |kernel| kernel.deny(SourceKey::v4(STRANGER), SCOPE_ALL, 1),
            options(STRANGER),
            &[PassSip],
        ),
        passes("another source than the denied one", denied, options(OTHER_STRANGER), &[PassSip]),
        passes(
            "ssh of a blocked source",
            |kernel| kernel.block(mapped(STRANGER), MAPPED_PREFIX_BITS + 24),
            tcp(STRANGER, 22, true),
            &[PassNotUdp],
        ),
        passes(
            "a trusted source at the level of the allow list",
            |kernel| {
                kernel.set_level(Level::AllowListOnly);
                kernel.trust(mapped([203, 0, 113, 0]), MAPPED_PREFIX_BITS + 24);
            },
            options(STRANGER),
            &[PassSipTrusted],
        ),
        drops("a blocked source", blocked, options(STRANGER), &[DropBlocked]),
        drops(
            "blocked goes before trusted",
            |kernel| {
                kernel.block(mapped([203, 0, 0, 0]), MAPPED_PREFIX_BITS + 8);
                kernel.trust(mapped(STRANGER), MAPPED_PREFIX_BITS + 32);
            },
            options(STRANGER),
            &[DropBlocked],
        ),
        drops(
            "a blocked prefix of IPv6",
            |kernel| kernel.block([0x20, 1, 0x0d, 0xb8, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 48),
            udp_v6(STRANGER_V6, b"OPTIONS sip:a@b SIP/2.0\r\n\r\n"),
            &[DropBlocked],
        ),
        drops("a denied source", denied, options(STRANGER), &[DropDenied]),
        drops("TCP of a denied source", denied, tcp(STRANGER, SIP, false), &[DropDenied]),
        drops("UDP of a source denied for UDP", denied_udp, options(STRANGER), &[DropDenied]),
        drops(
            "another address of a denied /64",
            |kernel| kernel.deny(SourceKey::v6([0x20, 1, 0x0d, 0xb8, 0, 6, 0, 6]), SCOPE_ALL, u64::MAX),
            udp_v6([0x20, 1, 0x0d, 0xb8, 0, 6, 0, 6, 0, 0, 0, 0, 0, 0, 0, 9], b"OPTIONS sip:a@b SIP/2.0"),
            &[DropDenied],
        ),
        drops(
            "denied goes before trusted",
            |kernel| {
                kernel.deny(SourceKey::v4(STRANGER), SCOPE_ALL, 0);
                kernel.trust(mapped(STRANGER), MAPPED_PREFIX_BITS + 32);
            },
            options(STRANGER),
            &[DropDenied],
        ),
        drops("no SIP at all", nothing, to_sip(STRANGER, b"\x80\x00\x12\x34RTP here").bytes(), &[DropNotSip]),
        drops("no SIP of a trusted source", trusted, to_sip(STRANGER, b"{\"id\": 1}").bytes(), &[DropNotSip]),
        drops(
            "no SIP at the level none",
            |kernel| kernel.set_level(Level::None),
            to_sip(STRANGER, b"\"GET\" /index").bytes(),
            &[DropNotSip],
        ),
        drops("IPv6 that announces no length", nothing, shortened_v6(0), &[DropNotSip]),
        drops("IPv6 shorter than its header", trusted, shortened_v6(7), &[DropNotSip]),
        drops(
            "a blocked source behind an authentication header",
            |kernel| kernel.block(STRANGER_V6, 128),
            extended_v6(51),
            &[DropBlocked],
        ),
        drops(
            "a datagram cut before its first line",
            nothing,
            {
                let mut frame = options(STRANGER);
                frame.truncate(IP + 28 + 7);
                frame
            },
            &[DropNotSip],
        ),
        drops(
            "a peer of another realm",
            |kernel| {
                kernel.set_level(Level::AllowListOnly);
                kernel.trust_on(REALM + 1, mapped(STRANGER), MAPPED_PREFIX_BITS + 32);
            },
            options(STRANGER),
            &[DropNotAllowed],
        ),
        drops(
            "a fragment to an address that two realms share",
            |kernel| {
                kernel.set_level(Level::AllowListOnly);
                kernel.trust(mapped(STRANGER), MAPPED_PREFIX_BITS + 32);
                kernel.sip_sockets.insert(SipSocket::any_of(mapped(OUTSIDE)), NO_REALM, 0).unwrap();
            },
            fragment(STRANGER),
            &[DropNotAllowed],
        ),
        drops(
            "the probe of a scanner",
            nothing,
            to_sip(STRANGER, b"OPTIONS sip:nm SIP/2.0\r\nVia: SIP/2.0/UDP nm").bytes(),
            &[DropScanner],
        ),
        drops(
            "the probe of a scanner in the name of a peer",
            trusted,
            to_sip(STRANGER, b"OPTIONS sip:nm SIP/2.0\r\nVia: SIP/2.0/UDP nm").bytes(),
            &[DropScanner],
        ),
        drops("a stranger beside an allow list", allow_list_only, options(STRANGER), &[DropNotAllowed]),
        drops("his segment", allow_list_only, tcp(STRANGER, SIP, false), &[DropNotAllowed]),
        drops("his fragment", allow_list_only, fragment(STRANGER), &[DropNotAllowed]),
        beside(
            drops(
                "over the source's datagrams",
                |kernel| kernel.edit_config(|config| config.datagrams.count = 0),
                options(STRANGER),
                &[],
            ),
            &[Exceeded, DropSourceDatagrams],
        ),
        beside(
            drops(
                "over the source's connections",
                |kernel| kernel.edit_config(|config| config.connections.count = 0),
                tcp(STRANGER, SIPS, true),
                &[],
            ),
            &[Exceeded, DropSourceConnections],
        ),
        beside(
            drops(
                "over the source's segments",
                |kernel| kernel.edit_config(|config| config.segments.count = 0),
                tcp(STRANGER, SIPS, false),
                &[],
            ),
            &[Exceeded, DropSourceSegments],
        ),
        beside(
            drops(
                "over what all may send together",
                |kernel| kernel.edit_config(|config| config.total.count = 0),
                options(STRANGER),
                &[],
            ),
            &[Exceeded, DropTotal],
        ),
        beside(
            drops(
                "over what all may send in fragments",
                |kernel| kernel.edit_config(|config| config.fragments.count = 0),
                fragment(STRANGER),
                &[],
            ),
            &[Exceeded, DropFragments],
        ),
    ]
}

/// How many of so many like this one pass.
fn passing(kernel: &Kernel, frame: &[u8], sent: u32) -> u32 {
    (0..sent).filter(|_| kernel.run(frame).action == Action::Pass).count() as u32
}

fn exceeded(limit: Exceeded, source: SourceKey) -> Event {
    Event::Exceeded { limit, source }
}

/// C-7: the threshold passes, one more does not, others are not affected, and each window is told once.
#[test]
fn a_source_is_held_to_its_limit_and_told_once() {
    let Some(mut kernel) = Kernel::with_call("a_source_is_held_to_its_limit_and_told_once") else { return };
    kernel.reset_guard();
    assert_eq!(passing(&kernel, &options(STRANGER), DATAGRAMS), DATAGRAMS);
    assert_eq!(kernel.events(), []);
    assert_eq!(passing(&kernel, &options(STRANGER), 500), 0);
    assert_eq!(kernel.events(), [exceeded(Exceeded::Datagrams, SourceKey::v4(STRANGER))]);
    assert_eq!(passing(&kernel, &options(OTHER_STRANGER), 1), 1, "another source is not affected");
    // Each kind of packet has its own budget.
    assert_eq!(passing(&kernel, &tcp(STRANGER, SIP, true), 50), CONNECTIONS);
    assert_eq!(passing(&kernel, &tcp(STRANGER, SIP, false), 50), SEGMENTS);
    let source = SourceKey::v4(STRANGER);
    let told = [exceeded(Exceeded::Connections, source), exceeded(Exceeded::Segments, source)];
    assert_eq!(kernel.events(), told);
}

/// C-7: the limit drops for the rest of the window and no longer.
#[test]
fn a_window_that_is_over_lets_the_source_in_again() {
    let Some(mut kernel) = Kernel::with_call("a_window_that_is_over_lets_the_source_in_again") else {
        return;
    };
    kernel.reset_guard();
    passing(&kernel, &options(STRANGER), DATAGRAMS + 2);
    let source = SourceKey::v4(STRANGER);
    let mut windows: SourceWindows = kernel.sources.get(&source, 0).unwrap();
    assert_eq!(windows.datagrams.arrivals, DATAGRAMS + 1);
    // As if it had begun one window's time ago.
    windows.datagrams.began = windows.datagrams.began.wrapping_sub(1 << 24);
    kernel.sources.insert(source, windows, 0).unwrap();
    kernel.totals.set(0, TotalWindows::default(), 0).unwrap();
    assert_eq!(passing(&kernel, &options(STRANGER), 50), DATAGRAMS);
    assert_eq!(kernel.events().len(), 2);
}

/// C-8: many sources below their own limits are held to what all may send together; a trusted one is not.
#[test]
fn many_small_sources_are_held_to_the_limit_of_all() {
    let Some(mut kernel) = Kernel::with_call("many_small_sources_are_held_to_the_limit_of_all") else {
        return;
    };
    kernel.reset_guard();
    let trusted = [198, 51, 100, 200];
    kernel.trust(mapped(trusted), MAPPED_PREFIX_BITS + 32);
    let sources = (0..200).map(|last| [203, 0, 113, last]);
    let passed: u32 = sources.map(|source| passing(&kernel, &options(source), 1)).sum();
    assert_eq!(passed, TOTAL);
    assert_eq!(kernel.events(), [exceeded(Exceeded::Total, SourceKey::v4([203, 0, 113, TOTAL as u8]))]);
    assert_eq!(passing(&kernel, &options(trusted), 100), 100);
    assert_eq!(kernel.sources.keys().count() as u32, TOTAL + 1, "sources that came too late are not kept");
}

/// C-9: who is on the allow list is not counted; what is no SIP is dropped even so.
#[test]
fn the_allow_list_bypasses_the_limits_and_not_the_look_at_the_message() {
    let name = "the_allow_list_bypasses_the_limits_and_not_the_look_at_the_message";
    let Some(mut kernel) = Kernel::with_call(name) else { return };
    kernel.reset_guard();
    kernel.trust(mapped(STRANGER), MAPPED_PREFIX_BITS + 32);
    assert_eq!(passing(&kernel, &options(STRANGER), 1000), 1000);
    assert_eq!(passing(&kernel, &to_sip(STRANGER, b"<?xml version").bytes(), 10), 0);
    assert_eq!(kernel.sources.keys().count(), 0);
    assert_eq!(kernel.events(), []);
}

/// C-10: nothing is counted at the level none; nobody but the trusted is served at the level of the allow list.
#[test]
fn the_levels_do_what_they_say() {
    let Some(mut kernel) = Kernel::with_call("the_levels_do_what_they_say") else { return };
    for (level, expected) in
        [(Level::None, 1000), (Level::AutoProtection, DATAGRAMS), (Level::AllowListOnly, 0)]
    {
        kernel.reset_guard();
        kernel.set_level(level);
        assert_eq!(passing(&kernel, &options(STRANGER), 1000), expected, "{level:?}");
        kernel.deny(SourceKey::v4(OTHER_STRANGER), SCOPE_ALL, 0);
        assert_eq!(passing(&kernel, &options(OTHER_STRANGER), 3), 0, "{level:?}: denied even so");
    }
}

/// The expiry is the kernel's own: no daemon takes part.
#[test]
fn a_denial_ends_by_the_clock_and_counts_what_it_stopped() {
    let Some(mut kernel) = Kernel::with_call("a_denial_ends_by_the_clock_and_counts_what_it_stopped") else {
        return;
    };
    kernel.reset_guard();
    let source = SourceKey::v4(STRANGER);
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    let now_ns = u64::try_from(now.tv_sec()).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec()).unwrap();
    for (until_ns, passed) in [(0, 0), (now_ns + 3_600_000_000_000, 0), (now_ns, 3), (1, 3)] {
        kernel.deny(source, SCOPE_ALL, until_ns);
        // The kernel's coarse clock may be one timer interrupt behind.
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(passing(&kernel, &options(STRANGER), 3), passed, "until {until_ns}, now {now_ns}");
        assert_eq!(kernel.deny.get(&source, 0).unwrap().hits, u64::from(3 - passed));
        kernel.sources.remove(&source).ok();
    }
}

/// Forged segments enter their sources one by one: each counts against the limit of all, and none is entered beyond it.
#[test]
fn segments_of_unknown_sources_cannot_fill_the_table() {
    let Some(mut kernel) = Kernel::with_call("segments_of_unknown_sources_cannot_fill_the_table") else {
        return;
    };
    kernel.reset_guard();
    assert_eq!(passing(&kernel, &tcp(STRANGER, SIPS, false), 1), 1);
    let sources = (0..200).map(|last| [203, 0, 113, last]);
    let passed: u32 = sources.map(|source| passing(&kernel, &tcp(source, SIPS, false), 1)).sum();
    // One of them is the stranger, who is known.
    assert_eq!(passed, TOTAL);
    assert_eq!(kernel.sources.keys().count() as u32, TOTAL + 1);
    assert_eq!(kernel.events().len(), 1);
    assert_eq!(
        passing(&kernel, &tcp(STRANGER, SIPS, false), SEGMENTS - 2),
        SEGMENTS - 2,
        "its connection lives on"
    );
}

/// An attack from ten thousand forged sources: what it can write, send up and be told of is bounded by the limit of
/// all, and everything is counted.
#[test]
fn ten_thousand_forged_sources_cannot_flood_the_events() {
    let Some(mut kernel) = Kernel::with_call("ten_thousand_forged_sources_cannot_flood_the_events") else {
        return;
    };
    kernel.reset_guard();
    kernel.edit_config(|config| config.total.count = 5000);
    let before = kernel.counters();
    // Each goes beyond its own limit, three rounds over.
    for round in 0..3 {
        for number in 0..10_000u16 {
            let [high, low] = number.to_be_bytes();
            for _ in 0..DATAGRAMS {
                kernel.run_times(&options([100, 64 + round, high, low]), 1);
            }
        }
    }
    let after = kernel.counters();
    let rose = |counter: Counter| {
        let position = Counter::ALL.iter().position(|it| *it == counter).unwrap();
        after[position] - before[position]
    };
    assert_eq!(rose(PassSip), 5000);
    assert_eq!(rose(DropTotal), 150_000 - 5000);
    assert_eq!((rose(Exceeded), rose(EventLost)), (1, 0));
    assert_eq!(kernel.events().len(), 1);
    assert_eq!(kernel.sources.keys().count() as u32, 5000 / DATAGRAMS + 1);
    // Sources that are known and go beyond their limits while all are within theirs are told of: once each, and at
    // most as many as the limit of all has of the limit of one.
    kernel.reset_guard();
    kernel.edit_config(|config| config.total.count = 5000);
    for number in 0..10_000u16 {
        let [high, low] = number.to_be_bytes();
        for _ in 0..2 * DATAGRAMS {
            kernel.run_times(&options([100, 64, high, low]), 1);
        }
    }
    let events = kernel.events().len() as u32;
    assert_eq!(events, 5000 / DATAGRAMS + 1, "each source once, and that all are over their limit");
}

/// A media port admits its flow's own source, denied or not, and nobody else.
#[test]
fn media_of_a_denied_source_passes_only_in_its_own_call() {
    let Some(mut kernel) = Kernel::with_call("media_of_a_denied_source_passes_only_in_its_own_call") else {
        return;
    };
    kernel.reset_guard();
    for source in [OUTSIDE_PEER.0, STRANGER] {
        kernel.deny(SourceKey::v4(source), SCOPE_ALL, 0);
    }
    assert_eq!(kernel.run(&from_outside().bytes()).counted, [ForwardOther]);
    let forged = Packet { source: (STRANGER, OUTSIDE_PEER.1), ..from_outside() };
    assert_eq!(kernel.run(&forged.bytes()).counted, [DropWrongSource]);
    let elsewhere = Packet::rtp((STRANGER, 4000), (OUTSIDE, OUTSIDE_PORT + 100));
    assert_eq!(kernel.run(&elsewhere.bytes()).counted, [DropNoFlow]);
    let signalling = options(OUTSIDE_PEER.0);
    assert_eq!(kernel.run(&signalling).counted, [DropDenied]);
}

#[test]
fn fragments_to_sip_addresses_have_a_budget() {
    let Some(mut kernel) = Kernel::with_call("fragments_to_sip_addresses_have_a_budget") else { return };
    kernel.reset_guard();
    let sources = (0..100).map(|last| [203, 0, 113, last]);
    let passed: u32 = sources.map(|source| passing(&kernel, &fragment(source), 1)).sum();
    assert_eq!(passed, FRAGMENTS);
    assert_eq!(kernel.events().len(), 1);
    assert_eq!(passing(&kernel, &options(STRANGER), 1), 1, "whole datagrams pass");
}
