//! The judge: what becomes of a message by who sent it, and of a source by what it sent.
//!
//! | evidence | what follows |
//! |---|---|
//! | a source's requests over UDP exceed its limit | denied over UDP: the source may be forged |
//! | its requests inside connections exceed it | denied altogether, its connections closed: the address is its own |
//! | its connection attempts or segments exceed theirs | nothing more than the dataplane did: they may be forged |
//! | all sources together exceed theirs | nothing more (R-SEC-7: no list) |
//!
//! Configured peers and the allow list are never denied, and nothing of them is counted.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::command::{
    Denial, DenyReason, DenyScope, Exceeded, GuardCommand, GuardEvent, GuardPolicy, GuardSetup, Level, Source,
};
use super::deny_list::{Denied, DenyList};
use super::prefix_list::{ListKind, ListRefusal, PrefixList};
use super::window::{Decision, Window};
use crate::config::{EngineConfig, Prefix};
use crate::flow::Transport;
use crate::restart::ListChange;
use crate::time::Now;

/// Sources whose windows are kept. When there are more, those whose time is over go; while none is, a new one is not
/// counted here.
const MAX_SOURCES: usize = 65_536;

/// What becomes of a message or connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is heard.
    Admit,
    /// It is not: the operator's block list.
    Blocked,
    /// It is not: its source is denied.
    Denied,
    /// It is not: at this level nobody is heard who is not known.
    NotAllowed,
    /// It is not: its source's limit is exceeded.
    OverLimit,
}

/// See the module.
#[derive(Debug)]
pub struct Guard {
    policy: GuardPolicy,
    /// Configured peers.
    peers: Vec<Prefix>,
    sockets: Vec<(Transport, SocketAddr)>,
    allow: PrefixList,
    block: PrefixList,
    deny: DenyList,
    windows: BTreeMap<Source, Windows>,
}

/// Apart, because what is forged in the one must not count in the other.
#[derive(Debug, Default)]
struct Windows {
    datagrams: Window,
    streams: Window,
}

impl Guard {
    /// A guard as configured, nobody denied.
    #[must_use]
    pub fn new(config: &EngineConfig) -> Self {
        let policy = config.guard.clone();
        let hosts = config.trunks.iter().filter_map(|trunk| trunk.next_hop).map(|hop| {
            let addr = hop.remote.ip().to_canonical();
            Prefix { addr, len: if addr.is_ipv4() { 32 } else { 128 } }
        });
        let mut peers: Vec<Prefix> =
            config.trunks.iter().flat_map(|trunk| trunk.sources.iter().copied()).chain(hosts).collect();
        peers.sort_by_key(|prefix| (prefix.addr, prefix.len));
        peers.dedup();
        Self {
            peers,
            sockets: config.listeners.iter().map(|listener| (listener.transport, listener.bind)).collect(),
            allow: PrefixList::new(policy.allow.clone(), policy.allow_max),
            block: PrefixList::new(policy.block.clone(), policy.block_max),
            policy,
            deny: DenyList::default(),
            windows: BTreeMap::new(),
        }
    }

    /// What the dataplane begins with.
    #[must_use]
    pub fn setup(&self, now: Now) -> GuardCommand {
        let mut trusted = self.peers.clone();
        trusted.extend(self.allow.prefixes().iter().filter(|prefix| !self.peers.contains(prefix)));
        let (policy, sockets) = (self.policy.clone(), self.sockets.clone());
        let denial = |denied: &Denied| Denial {
            source: denied.source,
            scope: denied.scope,
            reason: denied.reason,
            lasts: denied.until.map(|until| until.duration_since(now.wall).unwrap_or_default()),
        };
        let denied = self.deny.iter().map(denial).collect();
        GuardCommand::Configure(Box::new(GuardSetup { policy, sockets, trusted, denied }))
    }

    /// Takes over what an earlier guard knew and an operator changed. What does not fit the configuration any more is
    /// left out: a list that is full, a denial whose time is over or whose source is trusted now.
    pub fn restore(&mut self, now: Now, denied: &[Denied], lists: &[ListChange]) {
        for change in lists {
            let list = match change.list {
                ListKind::Allow => &mut self.allow,
                ListKind::Block => &mut self.block,
            };
            let changed = if change.listed { list.add(change.prefix) } else { list.remove(change.prefix) };
            match changed {
                Ok(()) | Err(ListRefusal::Present | ListRefusal::Absent) => {}
                Err(refusal @ ListRefusal::Full { .. }) => tracing::warn!(
                    prefix = %change.prefix.addr,
                    bits = change.prefix.len,
                    %refusal,
                    "an entry that an operator made is not kept"
                ),
            }
        }
        for denied in denied {
            let trusted = self.peers.iter().chain(self.allow.prefixes());
            if !trusted.into_iter().any(|prefix| denied.source.overlaps(prefix)) {
                self.deny.restore(now, &self.policy, *denied);
            }
        }
    }

    /// Whether a connection may be, without counting anything.
    #[must_use]
    pub fn admits(&self, address: IpAddr, transport: Transport) -> Verdict {
        let address = address.to_canonical();
        if self.block.contains(address) {
            return Verdict::Blocked;
        }
        if self.deny.find(Source::of(address)).is_some_and(|denied| denied.scope.covers(transport)) {
            return Verdict::Denied;
        }
        if self.policy.level == Level::AllowListOnly && !self.is_trusted(address) {
            return Verdict::NotAllowed;
        }
        Verdict::Admit
    }

    /// Judges a message and counts it. What the dataplane is to do is appended to `commands`.
    pub fn on_message(
        &mut self,
        now: Now,
        address: IpAddr,
        transport: Transport,
        commands: &mut Vec<GuardCommand>,
    ) -> Verdict {
        let admitted = self.admits(address, transport);
        let address = address.to_canonical();
        if admitted != Verdict::Admit
            || self.policy.level != Level::AutoProtection
            || self.is_trusted(address)
        {
            return admitted;
        }
        let source = Source::of(address);
        match self.count(now.mono, source, transport) {
            Decision::Within => Verdict::Admit,
            Decision::Exceeded => {
                let scope = if transport == Transport::Udp { DenyScope::Udp } else { DenyScope::All };
                self.deny(now, source, scope, DenyReason::Flood, commands);
                Verdict::OverLimit
            }
            Decision::Over => Verdict::OverLimit,
        }
    }

    /// Draws the conclusion from what the dataplane noticed.
    pub fn on_event(&mut self, now: Now, event: GuardEvent, commands: &mut Vec<GuardCommand>) {
        let GuardEvent::Exceeded { limit, source } = event;
        match limit {
            Exceeded::Datagrams => self.deny(now, source, DenyScope::Udp, DenyReason::Flood, commands),
            Exceeded::Connections | Exceeded::Segments | Exceeded::Total | Exceeded::Fragments => {}
        }
    }

    /// Ends the denials whose time is over.
    pub fn on_timeout(&mut self, now: Instant, commands: &mut Vec<GuardCommand>) {
        while let Some(source) = self.deny.expire(now) {
            commands.push(GuardCommand::Undeny(source));
        }
    }

    /// When the next denial ends.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deny.poll_timeout()
    }

    /// Everybody who is denied.
    #[must_use]
    pub fn denied(&self) -> Vec<Denied> {
        self.deny.iter().copied().collect()
    }

    /// Ends a denial, or all. How many there were.
    pub fn undeny(&mut self, source: Option<Source>, commands: &mut Vec<GuardCommand>) -> usize {
        let sources: Vec<Source> = match source {
            Some(source) => vec![source],
            None => self.deny.iter().map(|denied| denied.source).collect(),
        };
        let gone =
            sources.into_iter().filter_map(|source| self.deny.take(source)).map(|denied| denied.source);
        let before = commands.len();
        commands.extend(gone.map(GuardCommand::Undeny));
        commands.len() - before
    }

    /// An operator's list.
    #[must_use]
    pub fn list(&self, kind: ListKind) -> &[Prefix] {
        match kind {
            ListKind::Allow => self.allow.prefixes(),
            ListKind::Block => self.block.prefixes(),
        }
    }

    /// Adds to an operator's list.
    ///
    /// # Errors
    /// The list is full or has it.
    pub fn add(&mut self, kind: ListKind, prefix: Prefix) -> Result<GuardCommand, ListRefusal> {
        match kind {
            ListKind::Allow => self.allow.add(prefix).map(|()| GuardCommand::Trust(prefix)),
            ListKind::Block => self.block.add(prefix).map(|()| GuardCommand::Block(prefix)),
        }
    }

    /// Removes from an operator's list. A configured peer stays trusted.
    ///
    /// # Errors
    /// The list does not have it.
    pub fn remove(&mut self, kind: ListKind, prefix: Prefix) -> Result<Option<GuardCommand>, ListRefusal> {
        match kind {
            ListKind::Allow => {
                self.allow.remove(prefix)?;
                Ok((!self.peers.contains(&prefix)).then_some(GuardCommand::Distrust(prefix)))
            }
            ListKind::Block => {
                self.block.remove(prefix)?;
                Ok(Some(GuardCommand::Unblock(prefix)))
            }
        }
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.allow.contains(address) || self.peers.iter().any(|prefix| prefix.contains(address))
    }

    fn count(&mut self, now: Instant, source: Source, transport: Transport) -> Decision {
        let limit = self.policy.requests;
        if self.windows.len() >= MAX_SOURCES && !self.windows.contains_key(&source) {
            self.windows.retain(|_, windows| {
                !windows.datagrams.is_over(now, limit) || !windows.streams.is_over(now, limit)
            });
            if self.windows.len() >= MAX_SOURCES {
                return Decision::Within;
            }
        }
        let windows = self.windows.entry(source).or_default();
        match transport {
            Transport::Udp => windows.datagrams.arrive(now, limit),
            Transport::Tcp | Transport::Tls => windows.streams.arrive(now, limit),
        }
    }

    fn deny(
        &mut self,
        now: Now,
        source: Source,
        scope: DenyScope,
        reason: DenyReason,
        commands: &mut Vec<GuardCommand>,
    ) {
        let trusted = self.peers.iter().chain(self.allow.prefixes());
        if self.policy.level != Level::AutoProtection || trusted.into_iter().any(|it| source.overlaps(it)) {
            return;
        }
        let gone = self.deny.deny(now, &self.policy, source, scope, reason);
        commands.extend(gone.into_iter().map(GuardCommand::Undeny));
        let scope = self.deny.find(source).map_or(scope, |denied| denied.scope);
        commands.push(GuardCommand::Deny { source, scope, reason, lasts: self.policy.retention });
    }
}

#[cfg(test)]
mod tests;
