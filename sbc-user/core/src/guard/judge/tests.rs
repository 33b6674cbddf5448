use std::time::{Duration, SystemTime};

use super::*;
use crate::config::{Listener, MediaTimeouts, NextHop, Trunk, TrunkMedia};
use crate::guard::{Denial, Limit};
use crate::id::ListenerId;

const THRESHOLD: u32 = 10;
/// The realm of the trunk, and another one.
const OURS: RealmId = RealmId(0);
const OTHER: RealmId = RealmId(1);

fn prefix(text: &str) -> Prefix {
    let (addr, len) = text.split_once('/').unwrap();
    Prefix { addr: addr.parse().unwrap(), len: len.parse().unwrap() }
}

fn guard_with(change: impl FnOnce(&mut GuardPolicy)) -> Guard {
    let limit = Limit { count: THRESHOLD, window: Duration::from_secs(2) };
    let mut policy = GuardPolicy { requests: limit, ..GuardPolicy::default() };
    change(&mut policy);
    let listener = |realm, text: &str| {
        let bind = text.parse().unwrap();
        Listener { realm, transport: Transport::Udp, bind, advertised: bind }
    };
    let trunk = Trunk {
        name: "carrier".into(),
        realm: OURS,
        sources: vec![prefix("192.0.2.0/24"), prefix("2001:db8:1:1::7/128")],
        next_hop: Some(NextHop { listener: ListenerId(0), remote: "198.51.100.7:5060".parse().unwrap() }),
        media: TrunkMedia::default(),
    };
    Guard::new(&EngineConfig {
        node: 0,
        epoch: 0,
        realms: Vec::new(),
        listeners: vec![listener(OURS, "192.0.2.1:5060"), listener(OTHER, "10.0.0.1:5060")],
        trunks: vec![trunk],
        routes: Vec::new(),
        max_calls: 1,
        media_timeouts: MediaTimeouts::default(),
        guard: policy,
    })
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[allow(clippy::disallowed_methods)] // Any instant will do as the origin; one cannot be made otherwise.
fn at(seconds: u64) -> Now {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let passed = Duration::from_secs(seconds);
    Now { mono: *START.get_or_init(Instant::now) + passed, wall: SystemTime::UNIX_EPOCH + passed }
}

fn sender(realm: RealmId, from: &str, transport: Transport) -> Sender {
    Sender { realm, address: address(from), transport }
}

/// How many of so many messages are heard, and what the dataplane is told.
fn send(guard: &mut Guard, now: Now, from: &str, over: Transport, sent: u32) -> (u32, Vec<GuardCommand>) {
    send_on(OURS, false, guard, now, from, over, sent)
}

fn send_on(
    realm: RealmId,
    urgent: bool,
    guard: &mut Guard,
    now: Now,
    from: &str,
    over: Transport,
    sent: u32,
) -> (u32, Vec<GuardCommand>) {
    let (sender, mut commands) = (sender(realm, from, over), Vec::new());
    let heard =
        (0..sent).filter(|_| guard.on_message(now, sender, urgent, &mut commands) == Verdict::Admit).count();
    (u32::try_from(heard).unwrap(), commands)
}

fn denial(now: Now, source: &str, scope: DenyScope, reason: DenyReason) -> GuardCommand {
    let (source, lasts) = (Source::of(address(source)), Some(Duration::from_secs(3600)));
    GuardCommand::Deny(Denial { source, scope, reason, since: now.wall, lasts })
}

/// C-7: the threshold passes, one more is listed and unanswered, other sources are not affected.
#[test]
fn one_request_too_many_denies_its_source() {
    for (over, scope) in
        [(Transport::Udp, DenyScope::Udp), (Transport::Tcp, DenyScope::All), (Transport::Tls, DenyScope::All)]
    {
        let mut guard = guard_with(|_| ());
        assert_eq!(send(&mut guard, at(0), "203.0.113.5", over, THRESHOLD), (THRESHOLD, vec![]));
        let denied = (0, vec![denial(at(1), "203.0.113.5", scope, DenyReason::Flood)]);
        assert_eq!(send(&mut guard, at(1), "203.0.113.5", over, 50), denied);
        assert_eq!(guard.denied().len(), 1);
        assert_eq!(send(&mut guard, at(1), "203.0.113.6", over, 1).0, 1);
        // Its window is over, its denial not.
        assert_eq!(send(&mut guard, at(3599), "203.0.113.5", over, 1).0, 0);
        let mut commands = Vec::new();
        guard.on_timeout(at(3601).mono, &mut commands);
        assert_eq!(commands, [GuardCommand::Undeny(Source::of(address("203.0.113.5")))]);
        assert_eq!(send(&mut guard, at(3601), "203.0.113.5", over, 1).0, 1);
    }
}

/// What can be forged does not count against a connection, and does not deny one.
#[test]
fn datagrams_prove_nothing_about_connections() {
    let mut guard = guard_with(|_| ());
    send(&mut guard, at(0), "203.0.113.5", Transport::Udp, 100);
    assert_eq!(send(&mut guard, at(0), "203.0.113.5", Transport::Tls, 5), (5, vec![]));
    assert_eq!(guard.admits(sender(OURS, "203.0.113.5", Transport::Udp)), Verdict::Denied);
}

/// A forged source must not be able to ban a carrier.
#[test]
fn a_configured_peer_is_never_denied() {
    let mut guard = guard_with(|policy| policy.allow = vec![prefix("203.0.113.0/24")]);
    for peer in ["192.0.2.9", "198.51.100.7", "2001:db8:1:1::7", "203.0.113.200"] {
        assert_eq!(send(&mut guard, at(0), peer, Transport::Tls, 1000), (1000, vec![]));
        let mut commands = Vec::new();
        let source = Source::of(address(peer));
        guard.on_event(at(0), GuardEvent::Exceeded { limit: Exceeded::Datagrams, source }, &mut commands);
        assert_eq!(commands, []);
    }
    // A neighbour in its /64 is counted, but a denial of the /64 would hit the peer.
    assert_eq!(send(&mut guard, at(0), "2001:db8:1:1::8", Transport::Tls, 50), (THRESHOLD, vec![]));
}

#[test]
fn what_the_kernel_noticed_denies_only_where_it_proves_something() {
    let source = Source::of(address("203.0.113.5"));
    for (limit, expected) in [
        (Exceeded::Datagrams, vec![denial(at(0), "203.0.113.5", DenyScope::Udp, DenyReason::Flood)]),
        (Exceeded::Connections, vec![]),
        (Exceeded::Segments, vec![]),
        (Exceeded::Total, vec![]),
        (Exceeded::Fragments, vec![]),
    ] {
        let (mut guard, mut commands) = (guard_with(|_| ()), Vec::new());
        guard.on_event(at(0), GuardEvent::Exceeded { limit, source }, &mut commands);
        assert_eq!(commands, expected, "{limit:?}");
    }
}

/// C-10: what each level does; a new installation has automatic protection.
#[test]
fn the_levels_do_what_they_say() {
    assert_eq!(GuardPolicy::default().level, Level::AutoProtection);
    for (level, stranger, peer) in
        [(Level::None, 100, 100), (Level::AutoProtection, THRESHOLD, 100), (Level::AllowListOnly, 0, 100)]
    {
        let mut guard = guard_with(|policy| policy.level = level);
        assert_eq!(send(&mut guard, at(0), "203.0.113.5", Transport::Tcp, 100).0, stranger, "{level:?}");
        assert_eq!(send(&mut guard, at(0), "192.0.2.9", Transport::Tcp, 100).0, peer, "{level:?}");
        assert_eq!(guard.denied().len(), usize::from(level == Level::AutoProtection));
    }
}

#[test]
fn the_block_list_goes_before_everything() {
    let mut guard = guard_with(|policy| policy.block = vec![prefix("192.0.2.8/32")]);
    assert_eq!(guard.admits(sender(OURS, "192.0.2.8", Transport::Udp)), Verdict::Blocked);
    assert_eq!(guard.admits(sender(OURS, "::ffff:192.0.2.8", Transport::Tls)), Verdict::Blocked);
    assert_eq!(guard.admits(sender(OURS, "192.0.2.9", Transport::Udp)), Verdict::Admit);
    let removed = guard.remove(ListKind::Block, prefix("192.0.2.8/32"));
    assert_eq!(removed, Ok(vec![GuardCommand::Unblock(prefix("192.0.2.8/32"))]));
    assert_eq!(guard.admits(sender(OURS, "192.0.2.8", Transport::Udp)), Verdict::Admit);
}

/// C-7: delete one, repeat it, clear all.
#[test]
fn a_denial_is_removed_once() {
    let mut guard = guard_with(|_| ());
    for source in ["203.0.113.1", "203.0.113.2", "2001:db8:9::1"] {
        send(&mut guard, at(0), source, Transport::Udp, 20);
    }
    let (one, mut commands) = (Some(Source::of(address("203.0.113.1"))), Vec::new());
    assert_eq!((guard.undeny(one, &mut commands), guard.undeny(one, &mut commands)), (1, 0));
    assert_eq!(guard.undeny(None, &mut commands), 2);
    assert_eq!((commands.len(), guard.denied().len()), (3, 0));
}

#[test]
fn a_peer_that_leaves_the_allow_list_stays_trusted_on_its_realm() {
    let (peers, others) = (prefix("192.0.2.0/24"), prefix("203.0.113.0/24"));
    let mut guard = guard_with(|policy| policy.allow = vec![peers, others]);
    let setup = |guard: &Guard| {
        let GuardCommand::Configure(setup) = guard.setup(at(0)) else { panic!("no set-up") };
        setup.trusted
    };
    assert_eq!(setup(&guard).len(), 3 + 3, "the peers on their realm, the list on both: {:?}", setup(&guard));
    assert_eq!(guard.remove(ListKind::Allow, peers), Ok(vec![GuardCommand::Distrust(OTHER, peers)]));
    let removed = guard.remove(ListKind::Allow, others);
    let expected = [OURS, OTHER].map(|realm| GuardCommand::Distrust(realm, others)).to_vec();
    assert_eq!(removed, Ok(expected));
    assert_eq!(setup(&guard).len(), 3);
    let added = guard.add(ListKind::Allow, others).unwrap();
    assert_eq!(added, [OURS, OTHER].map(|realm| GuardCommand::Trust(realm, others)));
}

/// An address of one network proves nothing on another: there it is held to the limits, and still never denied.
#[test]
fn a_peer_is_trusted_on_its_own_realm_only() {
    let mut guard = guard_with(|_| ());
    let forged = send_on(OTHER, false, &mut guard, at(0), "192.0.2.9", Transport::Udp, 1000);
    assert_eq!(forged, (THRESHOLD, vec![]));
    assert_eq!(send(&mut guard, at(0), "192.0.2.9", Transport::Udp, 1000), (1000, vec![]));
    let mut guard = guard_with(|policy| policy.level = Level::AllowListOnly);
    assert_eq!(guard.admits(sender(OTHER, "192.0.2.9", Transport::Tls)), Verdict::NotAllowed);
    assert_eq!(guard.admits(sender(OURS, "192.0.2.9", Transport::Tls)), Verdict::Admit);
    // What an operator allows he allows everywhere.
    guard.add(ListKind::Allow, prefix("192.0.2.9/32")).unwrap();
    assert_eq!(guard.admits(sender(OTHER, "192.0.2.9", Transport::Tls)), Verdict::Admit);
}

/// As after a restart: whoever is on the allow list is not denied for a flood, and is for what he may not send either.
#[test]
fn whom_an_operator_allows_is_not_denied_any_more() {
    let mut guard = guard_with(|_| ());
    for flooded in ["203.0.113.5", "203.0.113.6", "198.51.100.9"] {
        send(&mut guard, at(0), flooded, Transport::Tls, THRESHOLD + 1);
    }
    let scanner = sender(OURS, "203.0.113.8", Transport::Tls);
    guard.on_evidence(at(0), scanner, Evidence::Scanner, &mut Vec::new());
    let listed = prefix("203.0.113.0/28");
    let mut expected = [OURS, OTHER].map(|realm| GuardCommand::Trust(realm, listed)).to_vec();
    let excused = ["203.0.113.5", "203.0.113.6"].map(|source| Source::of(address(source)));
    expected.extend(excused.map(GuardCommand::Undeny));
    assert_eq!(guard.add(ListKind::Allow, listed), Ok(expected));
    assert_eq!(guard.admits(sender(OURS, "203.0.113.5", Transport::Tls)), Verdict::Admit);
    assert_eq!(guard.admits(scanner), Verdict::Denied);
    assert_eq!(guard.admits(sender(OURS, "198.51.100.9", Transport::Tls)), Verdict::Denied);
}

#[test]
fn who_became_a_peer_is_not_denied_any_more() {
    let mut guard = guard_with(|policy| policy.allow = vec![prefix("203.0.113.7/32")]);
    let denial = |source: &str, reason| {
        let (source, since) = (Source::of(address(source)), at(0).wall);
        Denied { source, scope: DenyScope::All, reason, since, until: None }
    };
    guard.restore(
        at(1),
        &[
            denial("203.0.113.5", DenyReason::Flood),
            denial("203.0.113.7", DenyReason::Flood),
            denial("203.0.113.7", DenyReason::Malformed),
            denial("192.0.2.9", DenyReason::Scanner),
        ],
        &[],
    );
    let denied: Vec<_> = guard.denied().iter().map(|denied| (denied.source, denied.reason)).collect();
    let expected = [("203.0.113.5", DenyReason::Flood), ("203.0.113.7", DenyReason::Malformed)];
    assert_eq!(denied, expected.map(|(source, reason)| (Source::of(address(source)), reason)));
    let GuardCommand::Configure(setup) = guard.setup(at(1)) else { panic!("no set-up") };
    assert_eq!(setup.denied.len(), 2);
}

/// Whom the dataplane is told to deny for so many pieces of evidence.
fn accuse(guard: &mut Guard, from: &str, over: Transport, what: Evidence, times: u32) -> Vec<GuardCommand> {
    let mut commands = Vec::new();
    for _ in 0..times {
        guard.on_evidence(at(0), sender(OURS, from, over), what, &mut commands);
    }
    commands
}

/// C-9, C-11: the check for malicious messages spares nobody but the configured peers, at no level.
#[test]
fn a_scanner_is_denied_at_once_and_who_sends_rubbish_after_a_few() {
    for level in [Level::None, Level::AutoProtection, Level::AllowListOnly] {
        for (over, scope) in [(Transport::Udp, DenyScope::Udp), (Transport::Tls, DenyScope::All)] {
            let mut guard = guard_with(|policy| {
                (policy.level, policy.allow) = (level, vec![prefix("203.0.113.7/32")]);
            });
            let few = guard.policy.malformed;
            for listed in ["203.0.113.5", "203.0.113.7"] {
                assert_eq!(accuse(&mut guard, listed, over, Evidence::Malformed, few), []);
                let denied = denial(at(0), listed, scope, DenyReason::Malformed);
                assert_eq!(accuse(&mut guard, listed, over, Evidence::Malformed, few), [denied], "{level:?}");
            }
            let denied = denial(at(0), "203.0.113.6", scope, DenyReason::Scanner);
            assert_eq!(accuse(&mut guard, "203.0.113.6", over, Evidence::Scanner, 1), [denied]);
            assert_eq!(guard.admits(sender(OURS, "203.0.113.6", over)), Verdict::Denied);
            for what in [Evidence::Malformed, Evidence::Scanner] {
                assert_eq!(accuse(&mut guard, "192.0.2.9", over, what, 1000), []);
            }
        }
    }
}

/// One forged datagram each would fill the list as fast as they come.
#[test]
fn single_datagrams_deny_only_so_many_in_a_while() {
    let mut guard = guard_with(|_| ());
    let scan = |guard: &mut Guard, now, over| {
        let mut commands = Vec::new();
        for last in 0..1000 {
            let address = IpAddr::from(std::net::Ipv4Addr::from_bits(0xcb00_7100 + last));
            let sender = Sender { realm: OURS, address, transport: over };
            guard.on_evidence(now, sender, Evidence::Scanner, &mut commands);
        }
        commands.len()
    };
    assert_eq!([0, 9].map(|seconds| scan(&mut guard, at(seconds), Transport::Udp)), [100, 0]);
    assert_eq!(guard.denied().len(), 100);
    // A connection proves who sent it.
    assert_eq!(scan(&mut guard, at(9), Transport::Tcp), 1000);
    assert_eq!(scan(&mut guard, at(10), Transport::Udp), 100);
}

/// A table full of sources costs one look through it in a window, not one for each message of who finds no place.
#[test]
fn who_finds_no_place_is_heard_and_costs_nothing() {
    let mut guard = guard_with(|_| ());
    for each in 0..u32::try_from(MAX_SOURCES).unwrap() {
        let address = IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 + each));
        let sender = Sender { realm: OURS, address, transport: Transport::Udp };
        assert_eq!(guard.on_message(at(0), sender, false, &mut Vec::new()), Verdict::Admit);
    }
    let mut late = |seconds| {
        let heard = send(&mut guard, at(seconds), "203.0.113.5", Transport::Udp, THRESHOLD + 1).0;
        (heard, guard.windows.len())
    };
    // The look at 1 finds nobody whose time is over, and the next one is after as long as a window lasts.
    assert_eq!([1, 2].map(&mut late), [(THRESHOLD + 1, MAX_SOURCES); 2]);
    assert_eq!(late(3), (THRESHOLD, 1));
}

/// Who calls for help is not counted, but not without an end either.
#[test]
fn calls_for_help_do_not_count() {
    let mut guard = guard_with(|_| ());
    let help =
        |guard: &mut Guard, sent| send_on(OURS, true, guard, at(0), "203.0.113.5", Transport::Udp, sent);
    assert_eq!(help(&mut guard, MAX_URGENT), (MAX_URGENT, vec![]));
    assert_eq!(send(&mut guard, at(0), "203.0.113.5", Transport::Udp, THRESHOLD), (THRESHOLD, vec![]));
    let denied = denial(at(0), "203.0.113.5", DenyScope::Udp, DenyReason::Flood);
    assert_eq!(help(&mut guard, 100), (0, vec![denied]));
}
