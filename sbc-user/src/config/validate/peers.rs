//! Trunks and routes: who may send calls, and where they go. The tables `[public]` and `[private]` imply a trunk each
//! and a route each way; `[[trunk]]` and `[[route]]` say anything else.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use sbc_core::config::{NextHop, Prefix, Route, Trunk};
use sbc_core::flow::Transport;
use sbc_core::id::{ListenerId, RealmId, TrunkId};

use super::super::diagnostic::Problems;
use super::super::host::Host;
use super::super::schema::{File, PeerSection, Preset, RulesSection};
use super::super::table::At;
use super::super::values::{NextHopText, host_prefix};
use super::super::{Diagnostic, TlsPeer};
use super::{DraftListener, DraftRealm, SIP_PORT, SIPS_PORT, rules};
use crate::transport::tls::certs;

/// Debian's bundle of public authorities.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What the configuration says of peers.
pub(super) struct Peers {
    pub(super) trunks: Vec<Trunk>,
    pub(super) routes: Vec<Route>,
    pub(super) tls: Vec<(NextHop, TlsPeer)>,
}

struct DraftTrunk {
    name: At<String>,
    trunk: Trunk,
    preset: Option<Preset>,
    sources: Vec<At<Prefix>>,
}

struct Context<'a> {
    realms: &'a [DraftRealm<'a>],
    listeners: &'a [DraftListener],
    base_dir: &'a Path,
    host: &'a dyn Host,
    problems: &'a Problems,
}

pub(super) fn validate(
    file: &File,
    realms: &[DraftRealm<'_>],
    listeners: &[DraftListener],
    base_dir: &Path,
    host: &dyn Host,
    problems: &Problems,
) -> Peers {
    let context = Context { realms, listeners, base_dir, host, problems };
    let mut tls = Vec::new();
    let mut trunks: Vec<DraftTrunk> = Vec::new();
    for (draft, index) in realms.iter().zip(0u16..) {
        let peer = &draft.section.peer;
        if peer.sources.is_some() || peer.next_hop.is_some() {
            trunks.push(context.trunk(
                draft.name.clone(),
                RealmId(index),
                draft.section.preset,
                &RulesSection::default(),
                peer,
                &mut tls,
            ));
        }
    }
    for section in &file.trunks {
        let (Some(name), Some(realm)) = (&section.name, &section.realm) else { continue };
        let Some(index) = realms.iter().position(|draft| draft.name.value == realm.value) else {
            // A realm that is there but incomplete was complained about already.
            if realms.len() == file.realms.len() {
                let names: Vec<&str> = realms.iter().map(|draft| draft.name.value.as_str()).collect();
                let error = realm.error(format!("there is no realm \"{}\"", realm.value));
                problems.add(error.allowed(names.join(", ")));
            }
            continue;
        };
        if section.peer.sources.is_none() && section.peer.next_hop.is_none() {
            let error = section.here.error("the trunk has neither `sources` nor `next_hop`");
            problems.add(error.allowed("at least one of them"));
        }
        let realm = RealmId(u16::try_from(index).unwrap_or(u16::MAX));
        trunks.push(context.trunk(name.clone(), realm, None, &section.rules, &section.peer, &mut tls));
    }
    check_trunks(&trunks, problems);
    if trunks.is_empty() && file.trunks.is_empty() && realms.len() == file.realms.len() {
        let warning = Diagnostic::warning(0..0, "", "no peer is configured: every request will be dropped");
        problems.add(warning.allowed("`peers` in [public] and `pbx` in [private], or [[trunk]]"));
    }
    let routes = routes(file, &trunks, problems);
    Peers { trunks: trunks.into_iter().map(|draft| draft.trunk).collect(), routes, tls }
}

impl Context<'_> {
    fn trunk(
        &self,
        name: At<String>,
        realm: RealmId,
        preset: Option<Preset>,
        own: &RulesSection,
        peer: &PeerSection,
        tls: &mut Vec<(NextHop, TlsPeer)>,
    ) -> DraftTrunk {
        let next_hop = peer.next_hop.as_ref().and_then(|at| self.next_hop(at, realm));
        let mut sources = peer.sources.clone().unwrap_or_default();
        if let Some(at) = &peer.next_hop
            && !sources.iter().any(|source| source.value.contains(at.value.address))
        {
            let value = host_prefix(at.value.address);
            sources.push(At { value, span: at.span.clone(), key: at.key.clone() });
        }
        self.tls_peer(realm, peer, next_hop, tls);
        DraftTrunk {
            trunk: Trunk {
                name: name.value.clone(),
                realm,
                sources: sources.iter().map(|at| at.value).collect(),
                next_hop,
                media: self
                    .realms
                    .get(usize::from(realm.0))
                    .map(|realm| rules::validate(own, realm, self.problems))
                    .unwrap_or_default(),
            },
            name,
            preset,
            sources,
        }
    }

    /// The listener that sends to a next hop: of the transport that it names, else the realm's first of UDP, TCP, TLS.
    fn next_hop(&self, at: &At<NextHopText>, realm: RealmId) -> Option<NextHop> {
        let mut of_realm =
            self.listeners.iter().zip(0u16..).filter(|(draft, _)| draft.listener.realm == realm);
        let wanted = at.value.transport;
        let Some((draft, index)) =
            of_realm.find(|(draft, _)| wanted.is_none_or(|wanted| draft.listener.transport == wanted))
        else {
            let spoken: Vec<String> = self
                .listeners
                .iter()
                .filter(|draft| draft.listener.realm == realm)
                .map(|draft| draft.listener.transport.to_string())
                .collect();
            if let Some(wanted) = wanted {
                let error = at.error(format!("the realm has no {wanted} listener to send from"));
                let own = &self.realms.get(usize::from(realm.0))?.section.here.key;
                let needs = if wanted == Transport::Tls { ", with `certificate` and `key`" } else { "" };
                self.problems.add(
                    error.allowed(format!("{}; or `{wanted} = port` in {own}{needs}", spoken.join(", "))),
                );
            }
            return None;
        };
        let transport = draft.listener.transport;
        let default_port = if transport == Transport::Tls { SIPS_PORT } else { SIP_PORT };
        let remote = SocketAddr::new(at.value.address, at.value.port.unwrap_or(default_port));
        if remote.is_ipv4() != draft.listener.bind.is_ipv4() {
            let error =
                at.error(format!("{} cannot be reached from {}", remote.ip(), draft.listener.bind.ip()));
            self.problems.add(error.allowed("an address of the same family as the realm's `bind`"));
            return None;
        }
        if let Some(own) = self.listeners.iter().find(|own| own.listener.bind == remote) {
            let error = at.error(format!("{remote} is a listener of this SBC: calls would come back to it"));
            self.problems.add(error.allowed("the peer's address").related(own.span.clone(), "this listener"));
            return None;
        }
        Some(NextHop { listener: ListenerId(index), remote })
    }

    fn tls_peer(
        &self,
        realm: RealmId,
        peer: &PeerSection,
        next_hop: Option<NextHop>,
        tls: &mut Vec<(NextHop, TlsPeer)>,
    ) {
        let next_hop = next_hop.filter(|hop| {
            let listener = self.listeners.get(usize::from(hop.listener.0));
            listener.is_some_and(|draft| draft.listener.transport == Transport::Tls)
        });
        let Some(next_hop) = next_hop else {
            // With an invalid next hop its transport is unknown, so nothing can be said of these keys.
            if peer.next_hop.is_none() || !self.any_tls(realm) {
                let useless = [
                    peer.tls_name.as_ref().map(|at| at.error("has no meaning without a TLS next hop")),
                    peer.tls_verify.as_ref().map(|at| at.error("has no meaning without a TLS next hop")),
                ];
                for error in useless.into_iter().flatten() {
                    self.problems.add(error.allowed("only beside a next hop that is reached by TLS"));
                }
            }
            return;
        };
        if let Some(verify) = peer.tls_verify.as_ref().filter(|at| !at.value) {
            let warning = verify.warning("whoever answers at the next hop's address is taken for the peer");
            self.problems
                .add(warning.allowed("true, with `tls_ca` in the realm if the authority is private"));
            tls.push((next_hop, TlsPeer::Unverified));
            return;
        }
        let Some(realm) = self.realms.get(usize::from(realm.0)) else { return };
        let (authorities, place) = match (&realm.section.tls_ca, &peer.next_hop) {
            (Some(at), _) => {
                (self.base_dir.join(&at.value), At { value: (), span: at.span.clone(), key: at.key.clone() })
            }
            (None, Some(at)) => (
                PathBuf::from(SYSTEM_AUTHORITIES),
                At { value: (), span: at.span.clone(), key: at.key.clone() },
            ),
            (None, None) => return,
        };
        let read = self.host.read(&authorities).map_err(|error| error.to_string());
        if let Err(error) =
            read.and_then(|bytes| certs::authorities(&bytes).map_err(|error| error.to_string()))
        {
            let error = place.error(format!(
                "the peer's certificate cannot be verified: {}: {error}",
                authorities.display()
            ));
            self.problems.add(error.allowed(format!(
                "`tls_ca` in {}, a PEM file of the authorities that sign the peer's certificate",
                realm.section.here.key
            )));
        }
        let name = peer.tls_name.as_ref().map(|at| at.value.clone());
        tls.push((next_hop, TlsPeer::Verified { authorities, name }));
    }

    fn any_tls(&self, realm: RealmId) -> bool {
        self.listeners
            .iter()
            .any(|draft| draft.listener.realm == realm && draft.listener.transport == Transport::Tls)
    }
}

/// Names are unique; within a realm a source belongs to one trunk.
fn check_trunks(trunks: &[DraftTrunk], problems: &Problems) {
    for (index, draft) in trunks.iter().enumerate() {
        for first in &trunks[..index] {
            if first.name.value == draft.name.value {
                let error = draft.name.error(format!("there are two trunks named \"{}\"", draft.name.value));
                problems
                    .add(error.allowed("a name of its own").related(first.name.span.clone(), "the first"));
            }
            if first.trunk.realm != draft.trunk.realm {
                continue;
            }
            let overlap = draft.sources.iter().find_map(|source| {
                let other = first.sources.iter().find(|other| overlap(other.value, source.value))?;
                Some((source, other))
            });
            if let Some((source, other)) = overlap {
                let error = source.error(format!(
                    "trunks {} and {} both claim {}",
                    first.name.value,
                    draft.name.value,
                    narrower(source.value, other.value)
                ));
                problems.add(
                    error
                        .allowed("sources that belong to one trunk of the realm only")
                        .related(other.span.clone(), "claimed here first"),
                );
            }
        }
    }
}

fn overlap(a: Prefix, b: Prefix) -> bool {
    if a.len <= b.len { a.contains(b.addr) } else { b.contains(a.addr) }
}

fn narrower(a: Prefix, b: Prefix) -> IpAddr {
    if a.len >= b.len { a.addr } else { b.addr }
}

/// Explicit routes first, then the preset's, unless its trunk has an explicit one.
fn routes(file: &File, trunks: &[DraftTrunk], problems: &Problems) -> Vec<Route> {
    let id = |index: usize| TrunkId(u16::try_from(index).unwrap_or(u16::MAX));
    let mut routes: Vec<Route> = Vec::new();
    let mut spans: Vec<At<()>> = Vec::new();
    for section in &file.routes {
        let resolve = |at: &Option<At<String>>| {
            let at = at.as_ref()?;
            let index = trunks.iter().position(|draft| draft.name.value == at.value);
            if index.is_none() {
                let names: Vec<&str> = trunks.iter().map(|draft| draft.name.value.as_str()).collect();
                let error = at.error(format!("there is no trunk \"{}\"", at.value));
                problems.add(error.allowed(names.join(", ")));
            }
            index
        };
        let (from, to) = (resolve(&section.from), resolve(&section.to));
        let (Some(from), Some(to)) = (from, to) else { continue };
        if let (Some(at), None) = (&section.to, trunks[to].trunk.next_hop) {
            let error = at.error(format!("trunk {} has no next hop: no call can be sent to it", at.value));
            problems
                .add(error.allowed("a trunk with a next hop").related(trunks[to].name.span.clone(), "it"));
        }
        if let Some(first) = routes.iter().position(|route| route.from == id(from)) {
            let error =
                section.here.error(format!("calls from {} already have a route", trunks[from].name.value));
            problems.add(
                error.allowed("one route from each trunk").related(spans[first].span.clone(), "the first"),
            );
        }
        routes.push(Route { from: id(from), to: id(to) });
        spans.push(section.here.clone());
    }
    let preset = |wanted| trunks.iter().position(|draft| draft.preset == Some(wanted));
    if let (Some(public), Some(private)) = (preset(Preset::Public), preset(Preset::Private)) {
        for (from, to) in [(public, private), (private, public)] {
            let routed = routes.iter().any(|route| route.from == id(from));
            if !routed && trunks[to].trunk.next_hop.is_some() {
                routes.push(Route { from: id(from), to: id(to) });
            }
        }
    }
    for (index, draft) in trunks.iter().enumerate() {
        if !routes.iter().any(|route| route.from == id(index)) {
            let warning = draft.name.warning(format!("calls from {} have no route", draft.name.value));
            problems.add(warning.allowed(match draft.preset {
                Some(Preset::Private) => "`next_hop` in [public], or a [[route]]",
                Some(Preset::Public) => "`pbx` in [private], or a [[route]]",
                None => "a [[route]]; without one its calls are refused",
            }));
        }
    }
    routes
}

#[cfg(test)]
mod tests {
    use super::super::super::values;
    use super::*;

    #[test]
    fn prefixes_overlap_when_one_holds_the_other() {
        let prefix = |text| values::prefix(text).ok().unwrap();
        assert!(overlap(prefix("192.0.2.0/24"), prefix("192.0.2.7")));
        assert!(overlap(prefix("192.0.2.7"), prefix("192.0.2.0/24")));
        assert!(!overlap(prefix("192.0.2.0/25"), prefix("192.0.2.128/25")));
        assert!(!overlap(prefix("192.0.2.0/24"), prefix("2001:db8::/32")));
    }
}
