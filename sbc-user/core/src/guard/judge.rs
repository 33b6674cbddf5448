//! The judge: what becomes of a message by who sent it, and of a source by what it sent.
//!
//! | evidence | what follows |
//! |---|---|
//! | a source's requests over UDP exceed its limit | denied over UDP: the source may be forged |
//! | its requests inside connections exceed it | denied altogether, its connections closed: the address is its own |
//! | its connection attempts or segments exceed theirs | nothing more than the dataplane did: they may be forged |
//! | all sources together exceed theirs | nothing more (R-SEC-7: no list) |
//! | a message by a known scanner | denied, over UDP or altogether as above; over UDP only so many in a while |
//! | messages that are broken, more than a few | as above |
//!
//! The last two are drawn at every level, and on the allow list as well (R-SEC-6); the first two only at automatic
//! protection, and never on the allow list. A configured peer is never denied on any realm: somebody else may have
//! used its address.
//!
//! A source is trusted on the realm on which it is configured. A call for help is not counted, as long as one source
//! does not place more of them than anybody can need.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::command::{
    DenyReason, DenyScope, Exceeded, GuardCommand, GuardEvent, GuardPolicy, GuardSetup, Level, Limit, Source,
};
use super::deny_list::{Denied, DenyList};
use super::prefix_list::{ListKind, ListRefusal, PrefixList};
use super::window::{Decision, Window};
use crate::config::{EngineConfig, Prefix};
use crate::flow::Transport;
use crate::id::RealmId;
use crate::restart::ListChange;
use crate::time::Now;

/// Sources whose windows are kept. When there are more, those whose time is over go, looked for once in such a time; a
/// new one that finds no place is heard and not counted here. Refusing it would let whoever invents sources shut out
/// everybody else; the dataplane counts it too, and all of them together.
const MAX_SOURCES: usize = 65_536;

/// Calls for help that one source may place in one window beside its other requests.
const MAX_URGENT: u32 = 20;

/// Sources that may be denied for a single datagram each: it may be forged, and each of them pushes another out of a list
/// that is full.
const HEARSAY: Limit = Limit { count: 100, window: Duration::from_secs(10) };

/// Who sent something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The realm on which it arrived.
    pub realm: RealmId,
    /// Its address.
    pub address: IpAddr,
    /// Over what.
    pub transport: Transport,
}

/// What speaks against a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// A message that is no SIP, or broken.
    Malformed,
    /// A message of a known scanner.
    Scanner,
}

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
    peers: Vec<(RealmId, Prefix)>,
    sockets: Vec<(RealmId, Transport, SocketAddr)>,
    /// Realms that have a socket.
    realms: Vec<RealmId>,
    allow: PrefixList,
    block: PrefixList,
    deny: DenyList,
    windows: BTreeMap<Source, Windows>,
    /// From when on it is worth while to look for those whose time is over.
    next_sweep: Option<Instant>,
    hearsay: Window,
}

/// What one source did over datagrams and inside connections: apart, because what is forged in the one must not count
/// in the other.
#[derive(Debug, Default)]
struct Windows {
    datagrams: Counts,
    streams: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    requests: Window,
    urgent: Window,
    malformed: Window,
}

impl Guard {
    /// A guard as configured, nobody denied.
    #[must_use]
    pub fn new(config: &EngineConfig) -> Self {
        let policy = config.guard.clone();
        let hosts = config.trunks.iter().filter_map(|trunk| Some((trunk.realm, trunk.next_hop?))).map(
            |(realm, hop)| {
                let addr = hop.remote.ip().to_canonical();
                (realm, Prefix { addr, len: if addr.is_ipv4() { 32 } else { 128 } })
            },
        );
        let sources =
            config.trunks.iter().flat_map(|trunk| trunk.sources.iter().map(|source| (trunk.realm, *source)));
        let mut peers: Vec<(RealmId, Prefix)> = sources.chain(hosts).collect();
        peers.sort_by_key(|(realm, prefix)| (*realm, prefix.addr, prefix.len));
        peers.dedup();
        let sockets: Vec<_> = config.listeners.iter().map(|it| (it.realm, it.transport, it.bind)).collect();
        let mut realms: Vec<RealmId> = sockets.iter().map(|(realm, ..)| *realm).collect();
        realms.sort();
        realms.dedup();
        Self {
            peers,
            sockets,
            realms,
            allow: PrefixList::new(policy.allow.clone(), policy.allow_max),
            block: PrefixList::new(policy.block.clone(), policy.block_max),
            policy,
            deny: DenyList::default(),
            windows: BTreeMap::new(),
            next_sweep: None,
            hearsay: Window::default(),
        }
    }

    /// What the dataplane begins with.
    #[must_use]
    pub fn setup(&self, now: Now) -> GuardCommand {
        let allowed = self.allow.prefixes().iter().flat_map(|prefix| self.on_each_realm(*prefix));
        let trusted = self.peers.iter().copied().chain(allowed.filter(|entry| !self.peers.contains(entry)));
        GuardCommand::Configure(Box::new(GuardSetup {
            policy: self.policy.clone(),
            sockets: self.sockets.clone(),
            trusted: trusted.collect(),
            blocked: self.block.prefixes().to_vec(),
            denied: self.deny.iter().map(|denied| denied.denial(now)).collect(),
        }))
    }

    /// Takes over what an earlier guard knew and an operator changed. What does not fit the configuration any more is
    /// left out: a list that is full, a denial whose time is over, whose source has become a peer, or that is not drawn
    /// any more.
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
            if !self.spares(denied.source, denied.reason) {
                self.deny.restore(now, &self.policy, *denied);
            }
        }
    }

    /// Whether a connection may be, without counting anything.
    #[must_use]
    pub fn admits(&self, sender: Sender) -> Verdict {
        let address = sender.address.to_canonical();
        if self.block.contains(address) {
            return Verdict::Blocked;
        }
        let denied = self.deny.find(Source::of(address));
        if denied.is_some_and(|denied| denied.scope.covers(sender.transport)) {
            return Verdict::Denied;
        }
        if self.policy.level == Level::AllowListOnly && !self.is_trusted(sender.realm, address) {
            return Verdict::NotAllowed;
        }
        Verdict::Admit
    }

    /// Judges a message and counts it. `urgent`: it calls for help. What the dataplane is to do is appended to
    /// `commands`.
    pub fn on_message(
        &mut self,
        now: Now,
        sender: Sender,
        urgent: bool,
        commands: &mut Vec<GuardCommand>,
    ) -> Verdict {
        let admitted = self.admits(sender);
        let address = sender.address.to_canonical();
        if admitted != Verdict::Admit
            || self.policy.level != Level::AutoProtection
            || self.is_trusted(sender.realm, address)
        {
            return admitted;
        }
        let limit = self.policy.requests;
        let Some(counts) = self.counts(now.mono, sender) else { return Verdict::Admit };
        let help = Limit { count: MAX_URGENT, ..limit };
        if urgent && counts.urgent.arrive(now.mono, help) == Decision::Within {
            return Verdict::Admit;
        }
        match counts.requests.arrive(now.mono, limit) {
            Decision::Within => Verdict::Admit,
            Decision::Exceeded => {
                self.deny(now, Source::of(address), proven(sender), DenyReason::Flood, commands);
                Verdict::OverLimit
            }
            Decision::Over => Verdict::OverLimit,
        }
    }

    /// Draws the conclusion from what a message was.
    pub fn on_evidence(
        &mut self,
        now: Now,
        sender: Sender,
        evidence: Evidence,
        commands: &mut Vec<GuardCommand>,
    ) {
        let source = Source::of(sender.address);
        match evidence {
            Evidence::Scanner => {
                let scope = proven(sender);
                if scope == DenyScope::All || self.hearsay.arrive(now.mono, HEARSAY) == Decision::Within {
                    self.deny(now, source, scope, DenyReason::Scanner, commands);
                }
            }
            Evidence::Malformed => {
                let limit = Limit { count: self.policy.malformed, ..self.policy.requests };
                let Some(counts) = self.counts(now.mono, sender) else { return };
                if counts.malformed.arrive(now.mono, limit) == Decision::Exceeded {
                    self.deny(now, source, proven(sender), DenyReason::Malformed, commands);
                }
            }
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

    /// Adds to an operator's list. Whom it excuses is not denied any more.
    ///
    /// # Errors
    /// The list is full or has it.
    pub fn add(&mut self, kind: ListKind, prefix: Prefix) -> Result<Vec<GuardCommand>, ListRefusal> {
        match kind {
            ListKind::Allow => {
                self.allow.add(prefix)?;
                let trusted = self.on_each_realm(prefix);
                let mut commands: Vec<_> =
                    trusted.map(|(realm, prefix)| GuardCommand::Trust(realm, prefix)).collect();
                let now_on_it = self.deny.iter().filter(|denied| denied.source.overlaps(&prefix));
                let excused = now_on_it.filter(|denied| self.spares(denied.source, denied.reason));
                for source in excused.map(|denied| denied.source).collect::<Vec<_>>() {
                    self.undeny(Some(source), &mut commands);
                }
                Ok(commands)
            }
            ListKind::Block => {
                self.block.add(prefix)?;
                Ok(vec![GuardCommand::Block(prefix)])
            }
        }
    }

    /// Removes from an operator's list. A configured peer stays trusted.
    ///
    /// # Errors
    /// The list does not have it.
    pub fn remove(&mut self, kind: ListKind, prefix: Prefix) -> Result<Vec<GuardCommand>, ListRefusal> {
        match kind {
            ListKind::Allow => {
                self.allow.remove(prefix)?;
                let gone = self.on_each_realm(prefix).filter(|entry| !self.peers.contains(entry));
                Ok(gone.map(|(realm, prefix)| GuardCommand::Distrust(realm, prefix)).collect())
            }
            ListKind::Block => {
                self.block.remove(prefix)?;
                Ok(vec![GuardCommand::Unblock(prefix)])
            }
        }
    }

    fn is_trusted(&self, realm: RealmId, address: IpAddr) -> bool {
        self.allow.contains(address)
            || self.peers.iter().any(|(its, prefix)| *its == realm && prefix.contains(address))
    }

    fn on_each_realm(&self, prefix: Prefix) -> impl Iterator<Item = (RealmId, Prefix)> {
        self.realms.iter().map(move |realm| (*realm, prefix))
    }

    /// What a sender did so far; `None` if there are too many to keep count of one more.
    fn counts(&mut self, now: Instant, sender: Sender) -> Option<&mut Counts> {
        let (source, limit) = (Source::of(sender.address), self.policy.requests);
        if self.windows.len() >= MAX_SOURCES && !self.windows.contains_key(&source) {
            if self.next_sweep.is_none_or(|at| now >= at) {
                self.windows.retain(|_, windows| {
                    !windows.datagrams.is_over(now, limit) || !windows.streams.is_over(now, limit)
                });
                self.next_sweep = now.checked_add(limit.window);
            }
            if self.windows.len() >= MAX_SOURCES {
                return None;
            }
        }
        let windows = self.windows.entry(source).or_default();
        Some(match sender.transport {
            Transport::Udp => &mut windows.datagrams,
            Transport::Tcp | Transport::Tls => &mut windows.streams,
        })
    }

    /// Whether a source is not denied for this reason.
    fn spares(&self, source: Source, reason: DenyReason) -> bool {
        let on = |prefix: &Prefix| source.overlaps(prefix);
        let excused = match reason {
            DenyReason::Flood => {
                self.policy.level != Level::AutoProtection || self.allow.prefixes().iter().any(on)
            }
            DenyReason::Malformed | DenyReason::Scanner => false,
        };
        excused || self.peers.iter().any(|(_, prefix)| on(prefix))
    }

    fn deny(
        &mut self,
        now: Now,
        source: Source,
        scope: DenyScope,
        reason: DenyReason,
        commands: &mut Vec<GuardCommand>,
    ) {
        if self.spares(source, reason) {
            return;
        }
        let gone = self.deny.deny(now, &self.policy, source, scope, reason);
        commands.extend(gone.into_iter().map(GuardCommand::Undeny));
        commands.extend(self.deny.find(source).map(|denied| GuardCommand::Deny(denied.denial(now))));
    }
}

impl Counts {
    fn is_over(&self, now: Instant, limit: Limit) -> bool {
        [&self.requests, &self.urgent, &self.malformed].into_iter().all(|window| window.is_over(now, limit))
    }
}

/// What a sender has proven of its address.
const fn proven(sender: Sender) -> DenyScope {
    match sender.transport {
        Transport::Udp => DenyScope::Udp,
        Transport::Tcp | Transport::Tls => DenyScope::All,
    }
}

#[cfg(test)]
mod tests;
