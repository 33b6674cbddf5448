//! The guard's maps: the engine's lists as the kernel reads them.
//!
//! A map that is full or refuses is told and left as it is: the lists hold in the engine as well.

use std::collections::{HashMap as Map, HashSet};
use std::fmt::Display;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, MapError};
use aya::{Ebpf, Pod};
use nix::time::{ClockId, clock_gettime};
use sbc_common::flow::TICK_NS;
use sbc_common::guard as layout;
use sbc_common::guard::{
    DenyEntry, GuardConfig, MAPPED_PREFIX_BITS, MappedAddress, NO_REALM, REALM_BITS, RealmAddress, SipSocket,
    SourceKey, mapped,
};
use sbc_common::{names, window};
use sbc_core::config::Prefix;
use sbc_core::flow::Transport;
use sbc_core::guard::{
    Denial, DenyReason, DenyScope, Exceeded, GuardCommand, GuardEvent, GuardPolicy, GuardSetup, Level, Limit,
    Source,
};
use sbc_core::id::RealmId;

use super::error::StartError;
use super::load::take;

const TCP: u8 = 6;
const UDP: u8 = 17;

type Prefixes<A> = LpmTrie<MapData, A, u32>;

/// The maps.
pub(crate) struct GuardMaps {
    config: Array<MapData, GuardConfig>,
    sockets: HashMap<MapData, SipSocket, u32>,
    deny: HashMap<MapData, SourceKey, DenyEntry>,
    block: Prefixes<MappedAddress>,
    trusted: Prefixes<RealmAddress>,
}

impl GuardMaps {
    /// The maps of the loaded object.
    pub(crate) fn take(ebpf: &mut Ebpf) -> Result<Self, StartError> {
        Ok(Self {
            config: take(ebpf, names::GUARD)?,
            sockets: take(ebpf, names::SIP_SOCKETS)?,
            deny: take(ebpf, names::DENY)?,
            block: take(ebpf, names::BLOCK)?,
            trusted: take(ebpf, names::TRUSTED)?,
        })
    }

    /// Carries out a command.
    pub(crate) fn apply(&mut self, command: &GuardCommand) {
        match command {
            GuardCommand::Configure(setup) => self.configure(setup),
            GuardCommand::Trust(realm, prefix) => {
                told(names::TRUSTED, self.trusted.insert(&trusted_key(*realm, prefix), 0, 0));
            }
            GuardCommand::Distrust(realm, prefix) => {
                removed(names::TRUSTED, self.trusted.remove(&trusted_key(*realm, prefix)));
            }
            GuardCommand::Block(prefix) => told(names::BLOCK, self.block.insert(&blocked_key(prefix), 0, 0)),
            GuardCommand::Unblock(prefix) => removed(names::BLOCK, self.block.remove(&blocked_key(prefix))),
            GuardCommand::Deny(denial) => self.deny(denial),
            GuardCommand::Undeny(source) => removed(names::DENY, self.deny.remove(&key(*source))),
        }
    }

    /// What an earlier daemon left in the kernel and is not over. Entries of another version's reasons are none of ours.
    pub(crate) fn denied(&self) -> Vec<Denial> {
        let now = monotonic_ns();
        self.deny.iter().flatten().filter_map(|(source, entry)| denial(source, &entry, now)).collect()
    }

    /// Counts on from where an entry that is there already has come.
    fn deny(&mut self, denial: &Denial) {
        let source = key(denial.source);
        let hits = self.deny.get(&source, 0).map_or(0, |entry| entry.hits);
        told(names::DENY, self.deny.insert(source, entry(denial, monotonic_ns(), hits), 0));
    }

    /// Packets dropped because a source is denied.
    pub(crate) fn denied_packets(&self, source: Source) -> u64 {
        self.deny.get(&key(source), 0).map_or(0, |entry| entry.hits)
    }

    /// Trusted sources before limits, so that none of them is counted on the way.
    fn configure(&mut self, setup: &GuardSetup) {
        replace(&mut self.block, names::BLOCK, setup.blocked.iter().map(blocked_key));
        let trusted = setup.trusted.iter().map(|(realm, prefix)| trusted_key(*realm, prefix));
        replace(&mut self.trusted, names::TRUSTED, trusted);
        let wanted: HashSet<SourceKey> = setup.denied.iter().map(|denial| key(denial.source)).collect();
        let held: Vec<SourceKey> = self.deny.keys().flatten().collect();
        for source in held.iter().filter(|source| !wanted.contains(source)) {
            removed(names::DENY, self.deny.remove(source));
        }
        for denial in &setup.denied {
            self.deny(denial);
        }
        told(names::GUARD, self.config.set(0, config(&setup.policy), 0));
        let wanted = sockets(&setup.sockets);
        let held: Vec<SipSocket> = self.sockets.keys().flatten().collect();
        for socket in held.iter().filter(|socket| !wanted.contains_key(socket)) {
            removed(names::SIP_SOCKETS, self.sockets.remove(socket));
        }
        for (socket, realm) in wanted {
            told(names::SIP_SOCKETS, self.sockets.insert(socket, realm, 0));
        }
    }
}

/// What an event of the kernel says.
pub(crate) fn event(limit: layout::Exceeded, key: SourceKey) -> GuardEvent {
    let limit = match limit {
        layout::Exceeded::Datagrams => Exceeded::Datagrams,
        layout::Exceeded::Connections => Exceeded::Connections,
        layout::Exceeded::Segments => Exceeded::Segments,
        layout::Exceeded::Total => Exceeded::Total,
        layout::Exceeded::Fragments => Exceeded::Fragments,
    };
    GuardEvent::Exceeded { limit, source: source(key) }
}

fn config(policy: &GuardPolicy) -> GuardConfig {
    let ticks = |window: Duration| u32::try_from(window.as_nanos() / u128::from(TICK_NS)).unwrap_or(u32::MAX);
    let of = |limit: Limit, count: u32| window::Limit { count, ticks: ticks(limit.window).max(1) };
    let level = match policy.level {
        Level::None => layout::Level::None,
        Level::AutoProtection => layout::Level::AutoProtection,
        Level::AllowListOnly => layout::Level::AllowListOnly,
    };
    GuardConfig {
        level: level as u32,
        datagrams: of(policy.requests, policy.requests.count),
        connections: of(policy.requests, policy.connections),
        segments: of(policy.requests, policy.segments),
        total: of(policy.total, policy.total.count),
        fragments: of(policy.total, policy.fragments),
        unused: [0; 4],
    }
}

/// Sockets, and that their addresses have any, with their realms. An address that two realms share is nobody's by itself.
fn sockets(bound: &[(RealmId, Transport, SocketAddr)]) -> Map<SipSocket, u32> {
    let mut sockets = Map::new();
    for (realm, transport, address) in bound {
        let protocol = match transport {
            Transport::Udp => UDP,
            Transport::Tcp | Transport::Tls => TCP,
        };
        let (ip, realm) = (mapped_address(address.ip()), u32::from(realm.0));
        for socket in [SipSocket::new(ip, address.port(), protocol), SipSocket::any_of(ip)] {
            let its = sockets.entry(socket).or_insert(realm);
            if *its != realm {
                *its = NO_REALM;
            }
        }
    }
    sockets
}

fn mapped_address(address: IpAddr) -> MappedAddress {
    match address {
        IpAddr::V4(address) => mapped(address.octets()),
        IpAddr::V6(address) => address.octets(),
    }
}

fn key(source: Source) -> SourceKey {
    match source.address() {
        IpAddr::V4(address) => SourceKey::v4(address.octets()),
        IpAddr::V6(address) => {
            let [a, b, c, d, e, f, g, h, ..] = address.octets();
            SourceKey::v6([a, b, c, d, e, f, g, h])
        }
    }
}

fn source(key: SourceKey) -> Source {
    let [a, b, c, d, e, f, g, h] = key.address;
    Source::of(if key.family == 4 {
        IpAddr::from([a, b, c, d])
    } else {
        IpAddr::from([a, b, c, d, e, f, g, h, 0, 0, 0, 0, 0, 0, 0, 0])
    })
}

fn blocked_key(prefix: &Prefix) -> Key<MappedAddress> {
    let before = if prefix.addr.is_ipv4() { MAPPED_PREFIX_BITS } else { 0 };
    Key::new(before + u32::from(prefix.len), mapped_address(prefix.addr))
}

fn trusted_key(realm: RealmId, prefix: &Prefix) -> Key<RealmAddress> {
    let key = blocked_key(prefix);
    Key::new(REALM_BITS + key.prefix_len(), RealmAddress::new(u32::from(realm.0), key.data()))
}

fn entry(denial: &Denial, now_ns: u64, hits: u64) -> DenyEntry {
    let since = denial.since.duration_since(UNIX_EPOCH).unwrap_or_default();
    DenyEntry {
        until_ns: denial.lasts.map_or(0, |lasts| now_ns.saturating_add(nanoseconds(lasts))),
        since_unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        hits,
        reason: reason_number(denial.reason),
        scope: scope_number(denial.scope),
    }
}

fn denial(key: SourceKey, entry: &DenyEntry, now_ns: u64) -> Option<Denial> {
    let lasts = match entry.until_ns {
        0 => None,
        until_ns => Some(Duration::from_nanos(until_ns.checked_sub(now_ns).filter(|left| *left > 0)?)),
    };
    let reason = match layout::DenyReason::from_number(entry.reason)? {
        layout::DenyReason::Flood => DenyReason::Flood,
        layout::DenyReason::Malformed => DenyReason::Malformed,
        layout::DenyReason::Scanner => DenyReason::Scanner,
        layout::DenyReason::BruteForce => return None,
    };
    let scope = if entry.scope == layout::SCOPE_UDP { DenyScope::Udp } else { DenyScope::All };
    let since: SystemTime = UNIX_EPOCH.checked_add(Duration::from_millis(entry.since_unix_ms))?;
    Some(Denial { source: source(key), scope, reason, since, lasts })
}

const fn reason_number(reason: DenyReason) -> u32 {
    match reason {
        DenyReason::Flood => layout::DenyReason::Flood as u32,
        DenyReason::Malformed => layout::DenyReason::Malformed as u32,
        DenyReason::Scanner => layout::DenyReason::Scanner as u32,
    }
}

const fn scope_number(scope: DenyScope) -> u32 {
    match scope {
        DenyScope::All => layout::SCOPE_ALL,
        DenyScope::Udp => layout::SCOPE_UDP,
    }
}

/// The clock that the kernel compares with.
pub(crate) fn monotonic_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| nanoseconds(now.into()))
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Makes a list hold exactly these, adding before removing.
fn replace<A: Pod + Eq + Hash>(trie: &mut Prefixes<A>, name: &str, keys: impl Iterator<Item = Key<A>>) {
    let wanted: HashSet<(u32, A)> = keys.map(|key| (key.prefix_len(), key.data())).collect();
    let held: Vec<Key<A>> = trie.keys().flatten().collect();
    for (bits, address) in &wanted {
        told(name, trie.insert(&Key::new(*bits, *address), 0, 0));
    }
    for key in held {
        if !wanted.contains(&(key.prefix_len(), key.data())) {
            removed(name, trie.remove(&key));
        }
    }
}

fn told(name: &str, result: Result<(), impl Display>) {
    if let Err(error) = result {
        tracing::warn!(map = name, %error, "the kernel does not take an entry of the guard");
    }
}

/// One that is not there is as good as removed.
fn removed(name: &str, result: Result<(), MapError>) {
    let absent = matches!(&result, Err(MapError::SyscallError(error))
        if error.io_error.kind() == std::io::ErrorKind::NotFound);
    if let Err(error) = result
        && !absent
    {
        tracing::warn!(map = name, %error, "the kernel keeps an entry of the guard");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_in_ticks_of_the_kernel() {
        let config = config(&GuardPolicy::default());
        assert_eq!((config.level, config.datagrams.count, config.connections.count), (1, 500, 100));
        // Ten seconds, to a tick of about a millisecond.
        assert_eq!(u64::from(config.datagrams.ticks) * TICK_NS / 1_000_000, 9_999);
        assert_eq!(u64::from(config.total.ticks) * TICK_NS / 1_000_000, 1_999);
    }

    #[test]
    fn sources_and_prefixes_are_those_of_the_kernel() {
        for text in ["203.0.113.5", "2001:db8:1:2:3:4:5:6"] {
            let source = Source::of(text.parse().unwrap());
            assert_eq!(
                event(layout::Exceeded::Total, key(source)),
                GuardEvent::Exceeded { limit: Exceeded::Total, source }
            );
        }
        let prefix = Prefix { addr: "192.0.2.0".parse().unwrap(), len: 24 };
        let (blocked, trusted) = (blocked_key(&prefix), trusted_key(RealmId(3), &prefix));
        assert_eq!((blocked.prefix_len(), blocked.data()), (120, mapped([192, 0, 2, 0])));
        let data = RealmAddress { realm: [0, 0, 0, 3], address: mapped([192, 0, 2, 0]) };
        assert_eq!((trusted.prefix_len(), trusted.data()), (152, data));
    }

    #[test]
    fn a_socket_tells_its_realm_and_an_address_that_two_share_none() {
        let bound = |realm, transport, text: &str| (RealmId(realm), transport, text.parse().unwrap());
        let sockets = sockets(&[
            bound(0, Transport::Udp, "192.0.2.1:5060"),
            bound(1, Transport::Tls, "192.0.2.1:5061"),
            bound(1, Transport::Tls, "[2001:db8::1]:5061"),
        ]);
        let v4 = mapped([192, 0, 2, 1]);
        let v6 = mapped_address("2001:db8::1".parse().unwrap());
        for (socket, realm) in [
            (SipSocket::new(v4, 5060, UDP), 0),
            (SipSocket::new(v4, 5061, TCP), 1),
            (SipSocket::any_of(v4), NO_REALM),
            (SipSocket::new(v6, 5061, TCP), 1),
            (SipSocket::any_of(v6), 1),
        ] {
            assert_eq!(sockets.get(&socket), Some(&realm), "{socket:?}");
        }
        assert_eq!(sockets.len(), 5);
    }

    /// What a daemon left is what the next one finds.
    #[test]
    fn a_denial_survives_in_the_kernel() {
        let since = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        for (reason, scope, lasts) in [
            (DenyReason::Flood, DenyScope::Udp, Some(Duration::from_secs(30))),
            (DenyReason::Malformed, DenyScope::All, None),
            (DenyReason::Scanner, DenyScope::All, Some(Duration::from_secs(604_800))),
        ] {
            for text in ["203.0.113.5", "2001:db8:1:2::9"] {
                let before =
                    Denial { source: Source::of(text.parse().unwrap()), scope, reason, since, lasts };
                let kept = entry(&before, 5_000_000_000, 77);
                assert_eq!((kept.hits, kept.since_unix_ms), (77, 1_700_000_000_123));
                let ten_seconds = 10_000_000_000;
                let after = denial(key(before.source), &kept, 5_000_000_000 + ten_seconds);
                let left = lasts.map(|lasts| lasts - Duration::from_nanos(ten_seconds));
                assert_eq!(after, Some(Denial { lasts: left, ..before }));
                let over = denial(key(before.source), &kept, 1 << 60);
                assert_eq!(over.is_none(), lasts.is_some());
            }
        }
    }
}
