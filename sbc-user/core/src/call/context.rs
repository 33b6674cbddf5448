//! What a call may use of the engine while it handles one event, and where its effects go.

use std::net::{IpAddr, SocketAddr};

use crate::call::action::Effect;
use crate::call::hide::Face;
use crate::config::{EngineConfig, Listener, Realm, Trunk};
use crate::flow::Flow;
use crate::id::{ListenerId, OpId, TrunkId};
use crate::identity::Origin;
use crate::media::ports::PortPool;
use crate::time::Now;

/// Borrowed from the engine for one event.
#[derive(Debug)]
pub struct Context<'a, R> {
    /// The time of the event.
    pub now: Now,
    /// The configuration.
    pub config: &'a EngineConfig,
    /// Who makes branches, tags and Call-IDs.
    pub origin: Origin,
    /// Their unpredictable part.
    pub rng: &'a mut R,
    /// Media ports, by realm.
    pub pools: &'a mut [PortPool],
    /// Number of the last operation asked of the dataplane.
    pub ops: &'a mut u64,
    /// What the call asks for, in order.
    pub effects: Vec<Effect>,
}

impl<R> Context<'_, R> {
    /// Names a new operation of the dataplane.
    pub fn next_op(&mut self) -> OpId {
        *self.ops += 1;
        OpId(*self.ops)
    }

    /// A listener of the configuration.
    #[must_use]
    pub fn listener(&self, listener: ListenerId) -> Option<&Listener> {
        self.config.listeners.get(usize::from(listener.0))
    }

    /// The realm that a listener serves.
    #[must_use]
    pub fn realm_of(&self, listener: ListenerId) -> Option<&Realm> {
        self.config.realms.get(usize::from(self.listener(listener)?.realm.0))
    }

    /// A trunk of the configuration.
    #[must_use]
    pub fn trunk(&self, trunk: TrunkId) -> Option<&Trunk> {
        self.config.trunks.get(usize::from(trunk.0))
    }

    /// How a side looks on which we talk by this path with `remote`.
    #[must_use]
    pub fn face(&self, flow: Flow, remote: SocketAddr) -> Face {
        Face {
            // An index that the configuration does not have: nothing of ours can be shown.
            local: self.listener(flow.listener).map_or(remote, |listener| listener.advertised),
            remote,
            hide: self.realm_of(flow.listener).is_none_or(|realm| realm.hide_topology),
        }
    }

    /// Whether an address is one of a trunk's own.
    #[must_use]
    pub fn is_address_of(&self, trunk: TrunkId, ip: IpAddr) -> bool {
        self.trunk(trunk).is_some_and(|trunk| {
            trunk.next_hop.is_some_and(|next_hop| next_hop.remote.ip() == ip)
                || trunk.sources.iter().any(|prefix| prefix.contains(ip))
        })
    }
}
