//! The guard's maps: the engine's lists as the kernel reads them.
//!
//! A map that is full or refuses is told and left as it is: the lists hold in the engine as well.

use std::collections::HashSet;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, MapError};
use nix::time::{ClockId, clock_gettime};
use sbc_common::flow::TICK_NS;
use sbc_common::guard as layout;
use sbc_common::guard::{
    DenyEntry, GuardConfig, MAPPED_PREFIX_BITS, MappedAddress, SipSocket, SourceKey, mapped,
};
use sbc_common::{names, window};
use sbc_core::config::Prefix;
use sbc_core::flow::Transport;
use sbc_core::guard::{
    Denial, DenyReason, DenyScope, Exceeded, GuardCommand, GuardEvent, GuardPolicy, GuardSetup, Level, Limit,
    Source,
};

use super::error::StartError;
use super::load::take;

const TCP: u8 = 6;
const UDP: u8 = 17;

type Prefixes = LpmTrie<MapData, MappedAddress, u32>;

/// The maps.
pub(crate) struct GuardMaps {
    config: Array<MapData, GuardConfig>,
    sockets: HashMap<MapData, SipSocket, u32>,
    deny: HashMap<MapData, SourceKey, DenyEntry>,
    block: Prefixes,
    trusted: Prefixes,
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
            GuardCommand::Trust(prefix) => add(&mut self.trusted, names::TRUSTED, prefix),
            GuardCommand::Distrust(prefix) => remove(&mut self.trusted, names::TRUSTED, prefix),
            GuardCommand::Block(prefix) => add(&mut self.block, names::BLOCK, prefix),
            GuardCommand::Unblock(prefix) => remove(&mut self.block, names::BLOCK, prefix),
            GuardCommand::Deny { source, scope, reason, lasts } => {
                self.deny(Denial { source: *source, scope: *scope, reason: *reason, lasts: *lasts }, 0);
            }
            GuardCommand::Undeny(source) => removed(names::DENY, self.deny.remove(&key(*source))),
        }
    }

    /// Packets dropped because a source is denied.
    pub(crate) fn denied_packets(&self, source: Source) -> u64 {
        self.deny.get(&key(source), 0).map_or(0, |entry| entry.hits)
    }

    fn deny(&mut self, denial: Denial, hits: u64) {
        let Denial { source, scope, reason, lasts } = denial;
        let until_ns = lasts.map_or(0, |lasts| monotonic_ns().saturating_add(nanoseconds(lasts)));
        let entry = DenyEntry { until_ns, hits, reason: reason_number(reason), scope: scope_number(scope) };
        told(names::DENY, self.deny.insert(key(source), entry, 0));
    }

    /// Trusted sources before limits, so that none of them is counted on the way.
    fn configure(&mut self, setup: &GuardSetup) {
        replace(&mut self.block, names::BLOCK, &setup.policy.block);
        replace(&mut self.trusted, names::TRUSTED, &setup.trusted);
        // Who is still denied never ceases to be, and keeps what was counted.
        let wanted: HashSet<SourceKey> = setup.denied.iter().map(|denial| key(denial.source)).collect();
        let held: Vec<SourceKey> = self.deny.keys().flatten().collect();
        for source in held.iter().filter(|source| !wanted.contains(source)) {
            removed(names::DENY, self.deny.remove(source));
        }
        for denial in &setup.denied {
            self.deny(*denial, self.denied_packets(denial.source));
        }
        told(names::GUARD, self.config.set(0, config(&setup.policy), 0));
        let wanted: HashSet<SipSocket> =
            setup.sockets.iter().flat_map(|(transport, address)| sockets(*transport, *address)).collect();
        let held: Vec<SipSocket> = self.sockets.keys().flatten().collect();
        for socket in held.iter().filter(|socket| !wanted.contains(socket)) {
            removed(names::SIP_SOCKETS, self.sockets.remove(socket));
        }
        for socket in wanted {
            told(names::SIP_SOCKETS, self.sockets.insert(socket, 0, 0));
        }
    }
}

/// What an event of the kernel says.
pub(crate) fn event(limit: layout::Exceeded, source: SourceKey) -> GuardEvent {
    let limit = match limit {
        layout::Exceeded::Datagrams => Exceeded::Datagrams,
        layout::Exceeded::Connections => Exceeded::Connections,
        layout::Exceeded::Segments => Exceeded::Segments,
        layout::Exceeded::Total => Exceeded::Total,
        layout::Exceeded::Fragments => Exceeded::Fragments,
    };
    let [a, b, c, d, e, f, g, h] = source.address;
    let address = if source.family == 4 {
        IpAddr::from([a, b, c, d])
    } else {
        IpAddr::from([a, b, c, d, e, f, g, h, 0, 0, 0, 0, 0, 0, 0, 0])
    };
    GuardEvent::Exceeded { limit, source: Source::of(address) }
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

/// A socket, and that its address has any.
fn sockets(transport: Transport, address: SocketAddr) -> [SipSocket; 2] {
    let protocol = match transport {
        Transport::Udp => UDP,
        Transport::Tcp | Transport::Tls => TCP,
    };
    let ip = mapped_address(address.ip());
    [SipSocket::new(ip, address.port(), protocol), SipSocket::any_of(ip)]
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

fn trie_key(prefix: &Prefix) -> Key<MappedAddress> {
    let before = if prefix.addr.is_ipv4() { MAPPED_PREFIX_BITS } else { 0 };
    Key::new(before + u32::from(prefix.len), mapped_address(prefix.addr))
}

const fn reason_number(reason: DenyReason) -> u32 {
    match reason {
        DenyReason::Flood => layout::DenyReason::Flood as u32,
    }
}

const fn scope_number(scope: DenyScope) -> u32 {
    match scope {
        DenyScope::All => layout::SCOPE_ALL,
        DenyScope::Udp => layout::SCOPE_UDP,
    }
}

/// The clock that the kernel compares with.
fn monotonic_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| nanoseconds(now.into()))
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Makes a list hold exactly these, adding before removing.
fn replace(trie: &mut Prefixes, name: &str, prefixes: &[Prefix]) {
    let wanted: HashSet<(u32, MappedAddress)> =
        prefixes.iter().map(trie_key).map(|key| (key.prefix_len(), key.data())).collect();
    let held: Vec<Key<MappedAddress>> = trie.keys().flatten().collect();
    for (bits, address) in &wanted {
        told(name, trie.insert(&Key::new(*bits, *address), 0, 0));
    }
    for key in held {
        if !wanted.contains(&(key.prefix_len(), key.data())) {
            removed(name, trie.remove(&key));
        }
    }
}

fn add(trie: &mut Prefixes, name: &str, prefix: &Prefix) {
    told(name, trie.insert(&trie_key(prefix), 0, 0));
}

fn remove(trie: &mut Prefixes, name: &str, prefix: &Prefix) {
    removed(name, trie.remove(&trie_key(prefix)));
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
        let key = trie_key(&Prefix { addr: "192.0.2.0".parse().unwrap(), len: 24 });
        assert_eq!((key.prefix_len(), key.data()), (120, mapped([192, 0, 2, 0])));
        let [socket, any] = sockets(Transport::Tls, "[2001:db8::1]:5061".parse().unwrap());
        assert_eq!((socket.port, socket.protocol), ([0x13, 0xc5], TCP));
        assert_eq!((any.address[..4].to_vec(), any.port), (vec![0x20, 1, 0x0d, 0xb8], [0, 0]));
    }
}
