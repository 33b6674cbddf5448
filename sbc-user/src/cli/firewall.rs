//! `sbcctl firewall FILE`: what a packet filter in front of the host must let through for a configuration (R-PORT-3).

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::ExitCode;

use sbc_core::config::{EngineConfig, Listener, Trunk};
use sbc_core::flow::Transport;
use sbc_core::id::RealmId;
use serde::Serialize;

use super::{check, print_json, table};
use crate::admin::dto::SCHEMA;
use crate::config::{Config, LoadError, OtherHost};

/// The object of `--json`.
#[derive(Debug, Serialize)]
struct Matrix {
    schema: u32,
    rules: Vec<Rule>,
}

/// One kind of traffic to let through. The answers to it belong to it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Rule {
    /// The realm, as in the configuration.
    realm: String,
    /// `in` or `out`, seen from the border controller.
    direction: &'static str,
    /// `udp` or `tcp`.
    protocol: &'static str,
    /// Addresses or prefixes; `any` for all.
    from: String,
    /// Port or range; `any` for all.
    from_ports: String,
    to: String,
    to_ports: String,
    /// What it is.
    why: String,
}

/// Prints the matrix of a configuration, which may be another host's.
///
/// # Errors
/// The file cannot be read, or nothing can be printed.
pub(super) fn run(file: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let config = match Config::load(file, &OtherHost) {
        Ok((config, _)) => config,
        Err(LoadError::Invalid(report)) => {
            check::print_report(&report)?;
            anyhow::bail!("the configuration has errors");
        }
        Err(error @ LoadError::Read { .. }) => return Err(error.into()),
    };
    let rules = rules(&config.engine);
    if json {
        print_json(&Matrix { schema: SCHEMA, rules })?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = table(&["REALM", "DIRECTION", "PROTOCOL", "FROM", "FROM PORTS", "TO", "TO PORTS", "WHAT"]);
    for rule in &rules {
        let fields = [&rule.from, &rule.from_ports, &rule.to, &rule.to_ports, &rule.why];
        rows.add_row(
            [rule.realm.as_str(), rule.direction, rule.protocol]
                .into_iter()
                .chain(fields.map(String::as_str)),
        );
    }
    writeln!(io::stdout(), "{}", rows.trim_fmt())?;
    Ok(ExitCode::SUCCESS)
}

/// Addresses are those that the other side sees: behind a static NAT the advertised ones.
fn rules(config: &EngineConfig) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (index, realm) in (0u16..).zip(&config.realms) {
        let id = RealmId(index);
        let trunks: Vec<&Trunk> = config.trunks.iter().filter(|trunk| trunk.realm == id).collect();
        for listener in config.listeners.iter().filter(|listener| listener.realm == id) {
            rules.push(Rule {
                realm: realm.name.clone(),
                direction: "in",
                protocol: protocol(listener.transport),
                from: sources(&trunks),
                from_ports: "any".to_owned(),
                to: listener.advertised.ip().to_string(),
                to_ports: listener.advertised.port().to_string(),
                why: format!("SIP over {}", listener.transport),
            });
        }
        for (trunk, listener, remote) in next_hops(config, &trunks) {
            // Over UDP we send from the listener's port; a connection has a port of the system's choice.
            let from_ports = match listener.transport {
                Transport::Udp => listener.advertised.port().to_string(),
                Transport::Tcp | Transport::Tls => "any".to_owned(),
            };
            rules.push(Rule {
                realm: realm.name.clone(),
                direction: "out",
                protocol: protocol(listener.transport),
                from: listener.advertised.ip().to_string(),
                from_ports,
                to: remote.ip().to_string(),
                to_ports: remote.port().to_string(),
                why: format!("SIP over {} to {}", listener.transport, trunk.name),
            });
        }
        // Media comes from where a peer's SDP says, which need not be where its signalling comes from.
        let (ours, ports) = (realm.media.advertised.to_string(), span(&realm.media.ports));
        for (direction, from, from_ports, to, to_ports) in [
            ("in", "any", "any", ours.as_str(), ports.as_str()),
            ("out", ours.as_str(), ports.as_str(), "any", "any"),
        ] {
            rules.push(Rule {
                realm: realm.name.clone(),
                direction,
                protocol: "udp",
                from: from.to_owned(),
                from_ports: from_ports.to_owned(),
                to: to.to_owned(),
                to_ports: to_ports.to_owned(),
                why: "RTP and RTCP".to_owned(),
            });
        }
    }
    rules
}

fn next_hops<'a>(
    config: &'a EngineConfig,
    trunks: &[&'a Trunk],
) -> Vec<(&'a Trunk, &'a Listener, SocketAddr)> {
    let hops = trunks.iter().filter_map(|trunk| {
        let hop = trunk.next_hop?;
        Some((*trunk, config.listeners.get(usize::from(hop.listener.0))?, hop.remote))
    });
    hops.collect()
}

const fn protocol(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "udp",
        Transport::Tcp | Transport::Tls => "tcp",
    }
}

/// Who may send requests on a realm.
fn sources(trunks: &[&Trunk]) -> String {
    let mut sources: Vec<String> = trunks
        .iter()
        .flat_map(|trunk| &trunk.sources)
        .map(|source| format!("{}/{}", source.addr, source.len))
        .collect();
    sources.sort();
    sources.dedup();
    if sources.is_empty() { "nobody".to_owned() } else { sources.join(", ") }
}

fn span(ports: &RangeInclusive<u16>) -> String {
    format!("{}-{}", ports.start(), ports.end())
}
