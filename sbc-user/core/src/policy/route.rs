//! Which trunk a source is, and where its calls go.
//!
//! Decides by the source address and the realm of the listener alone: nothing that a peer writes into a message can
//! make it another trunk.

use std::net::IpAddr;

use crate::config::{EngineConfig, NextHop};
use crate::id::{RealmId, TrunkId};

/// The trunk that `source` is when it appears on `realm`: the one whose next hop it is, else the one with the longest
/// matching prefix; the first of several.
#[must_use]
pub fn trunk_of_source(config: &EngineConfig, realm: RealmId, source: IpAddr) -> Option<TrunkId> {
    let mut best: Option<(u8, TrunkId)> = None;
    for (index, trunk) in (0u16..).zip(&config.trunks).filter(|(_, trunk)| trunk.realm == realm) {
        let prefixes = trunk.sources.iter().filter(|prefix| prefix.contains(source)).map(|prefix| prefix.len);
        // Where we send its requests, its responses come from.
        let next_hop = trunk.next_hop.filter(|next_hop| next_hop.remote.ip() == source).map(|_| u8::MAX);
        for len in prefixes.chain(next_hop) {
            if best.is_none_or(|(best, _)| len > best) {
                best = Some((len, TrunkId(index)));
            }
        }
    }
    best.map(|(_, trunk)| trunk)
}

/// Where a call from `from` goes: the first route whose trunk can be called.
#[must_use]
pub fn route(config: &EngineConfig, from: TrunkId) -> Option<(TrunkId, NextHop)> {
    config
        .routes
        .iter()
        .filter(|route| route.from == from)
        .find_map(|route| Some((route.to, config.trunks.get(usize::from(route.to.0))?.next_hop?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{MediaTimeouts, Prefix, Route, Trunk, TrunkMedia};
    use crate::id::ListenerId;

    fn trunk(realm: u16, source: &str, len: u8, callable: bool) -> Trunk {
        Trunk {
            name: source.into(),
            realm: RealmId(realm),
            sources: vec![Prefix { addr: source.parse().unwrap(), len }],
            next_hop: callable.then(|| NextHop {
                listener: ListenerId(0),
                remote: format!("{source}:5060").parse().unwrap(),
            }),
            media: TrunkMedia::default(),
        }
    }

    fn config() -> EngineConfig {
        EngineConfig {
            node: 0,
            epoch: 0,
            realms: vec![],
            listeners: vec![],
            trunks: vec![
                trunk(0, "192.0.2.0", 24, false),
                trunk(0, "192.0.2.7", 32, true),
                trunk(1, "192.0.2.7", 32, true),
            ],
            routes: vec![
                Route { from: TrunkId(1), to: TrunkId(0) },
                Route { from: TrunkId(1), to: TrunkId(2) },
                Route { from: TrunkId(2), to: TrunkId(0) },
            ],
            max_calls: 1,
            media_timeouts: MediaTimeouts::default(),
            guard: Default::default(),
        }
    }

    #[test]
    fn the_longest_prefix_in_the_realm_is_the_trunk() {
        let config = config();
        let of = |realm, source: &str| trunk_of_source(&config, RealmId(realm), source.parse().unwrap());
        assert_eq!(of(0, "192.0.2.7"), Some(TrunkId(1)));
        assert_eq!(of(0, "192.0.2.8"), Some(TrunkId(0)));
        assert_eq!(of(1, "192.0.2.7"), Some(TrunkId(2)));
        assert_eq!(of(1, "192.0.2.8"), None);
        assert_eq!(of(0, "198.51.100.1"), None);
    }

    #[test]
    fn a_route_to_a_trunk_that_only_calls_in_is_passed_over() {
        let config = config();
        assert_eq!(route(&config, TrunkId(1)).map(|(to, _)| to), Some(TrunkId(2)));
        assert_eq!(route(&config, TrunkId(2)), None);
        assert_eq!(route(&config, TrunkId(0)), None);
    }
}
