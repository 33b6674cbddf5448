//! Who may open a connection: the guard's lists as the engine told them last.
//!
//! A stream costs something before its first message is judged, TLS most of all. So only those are let in whom the
//! engine could answer or the operator allows, on the realm on which they are known, and nobody who is blocked or
//! denied. What a message inside a connection leads to is the engine's affair.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use sbc_core::config::Prefix;
use sbc_core::guard::{Denial, DenyScope, GuardCommand, Source};
use sbc_core::id::RealmId;

/// Cheap to clone: a handle.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate(Arc<RwLock<Lists>>);

#[derive(Debug, Default)]
struct Lists {
    trusted: Vec<(RealmId, Prefix)>,
    blocked: Vec<Prefix>,
    denied: HashSet<Source>,
}

impl Gate {
    /// Takes over what the engine tells the guard.
    pub(super) fn tell(&self, command: &GuardCommand) {
        // Each change is one statement, so a panic elsewhere leaves the lists whole.
        let mut lists = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match command {
            GuardCommand::Configure(setup) => {
                *lists = Lists {
                    trusted: setup.trusted.clone(),
                    blocked: setup.blocked.clone(),
                    denied: setup.denied.iter().filter_map(closed_to).collect(),
                };
            }
            GuardCommand::Trust(realm, prefix) => lists.trusted.push((*realm, *prefix)),
            GuardCommand::Distrust(realm, prefix) => {
                lists.trusted.retain(|entry| *entry != (*realm, *prefix));
            }
            GuardCommand::Block(prefix) => lists.blocked.push(*prefix),
            GuardCommand::Unblock(prefix) => lists.blocked.retain(|entry| entry != prefix),
            GuardCommand::Deny(denial) => lists.denied.extend(closed_to(denial)),
            GuardCommand::Undeny(source) => {
                lists.denied.remove(source);
            }
        }
    }

    /// Whether a connection from there may be, to a listener of this realm.
    pub(super) fn admits(&self, realm: RealmId, remote: SocketAddr) -> bool {
        let lists = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let address = remote.ip().to_canonical();
        lists.trusted.iter().any(|(its, prefix)| *its == realm && prefix.contains(address))
            && !lists.blocked.iter().any(|prefix| prefix.contains(address))
            && !lists.denied.contains(&Source::of(address))
    }
}

/// Who must not connect because of a denial.
fn closed_to(denial: &Denial) -> Option<Source> {
    (denial.scope == DenyScope::All).then_some(denial.source)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use sbc_core::guard::{DenyReason, GuardPolicy, GuardSetup};

    use super::*;

    fn prefix(text: &str, len: u8) -> Prefix {
        Prefix { addr: text.parse().unwrap(), len }
    }

    #[test]
    fn the_gate_follows_what_the_guard_is_told() {
        let (ours, other) = (RealmId(0), RealmId(1));
        let gate = Gate::default();
        let from = |realm, text: &str| gate.admits(realm, SocketAddr::new(text.parse().unwrap(), 40_000));
        assert!(!from(ours, "192.0.2.7"), "nobody is known yet");
        gate.tell(&GuardCommand::Configure(Box::new(GuardSetup {
            policy: GuardPolicy::default(),
            sockets: Vec::new(),
            trusted: vec![(ours, prefix("192.0.2.0", 24))],
            blocked: vec![prefix("192.0.2.9", 32)],
            denied: Vec::new(),
        })));
        assert!(from(ours, "192.0.2.7") && from(ours, "::ffff:192.0.2.7"));
        assert!(!from(other, "192.0.2.7"), "known on another realm only");
        assert!(!from(ours, "192.0.2.9"), "blocked");
        gate.tell(&GuardCommand::Unblock(prefix("192.0.2.9", 32)));
        assert!(from(ours, "192.0.2.9"));
        gate.tell(&GuardCommand::Block(prefix("192.0.2.0", 28)));
        assert!(!from(ours, "192.0.2.9") && from(ours, "192.0.2.77"));

        assert!(!from(ours, "203.0.113.5"));
        gate.tell(&GuardCommand::Trust(ours, prefix("203.0.113.0", 24)));
        assert!(from(ours, "203.0.113.5"));
        let denial = |scope| {
            let (source, since) = (Source::of("203.0.113.5".parse().unwrap()), SystemTime::UNIX_EPOCH);
            Denial { source, scope, reason: DenyReason::Malformed, since, lasts: None }
        };
        gate.tell(&GuardCommand::Deny(denial(DenyScope::Udp)));
        assert!(from(ours, "203.0.113.5"), "what can be forged closes no connection");
        gate.tell(&GuardCommand::Deny(denial(DenyScope::All)));
        assert!(!from(ours, "203.0.113.5") && from(ours, "203.0.113.6"));
        gate.tell(&GuardCommand::Undeny(denial(DenyScope::All).source));
        assert!(from(ours, "203.0.113.5"));
        gate.tell(&GuardCommand::Distrust(ours, prefix("203.0.113.0", 24)));
        assert!(!from(ours, "203.0.113.5"));
    }
}
