//! The rules of nftables, as `nft --json list ruleset` writes them, reduced to what matters to media: which interfaces
//! and UDP ports a rule names, and what it does.

use std::collections::BTreeSet;
use std::io;
use std::ops::RangeInclusive;
use std::process::{Command, Stdio};

use serde_json::Value;

/// A rule of a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Family and name of its table: `inet filter`.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// Its number in the table.
    pub handle: u64,
    /// Interfaces that it names; none: it holds for all.
    pub interfaces: Vec<String>,
    /// UDP ports that it names.
    pub ports: Vec<RangeInclusive<u16>>,
    /// What it does with a packet: `drop`, `snat`, `counter`.
    pub actions: BTreeSet<String>,
}

/// What a rule can do that somebody relies on.
const ACTIONS: [&str; 15] = [
    "accept",
    "drop",
    "reject",
    "queue",
    "counter",
    "limit",
    "quota",
    "log",
    "snat",
    "dnat",
    "masquerade",
    "redirect",
    "tproxy",
    "notrack",
    "flow",
];

/// Asks `nft`; `None` if there is none.
pub(super) fn rules() -> Option<Vec<Rule>> {
    let said = Command::new("nft").args(["--json", "list", "ruleset"]).stdin(Stdio::null()).output();
    match said {
        Ok(output) if output.status.success() => Some(read(&serde_json::from_slice(&output.stdout).ok()?)),
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(kind = ?io::Error::kind(&error), "no nft");
            None
        }
    }
}

fn read(ruleset: &Value) -> Vec<Rule> {
    let objects = ruleset["nftables"].as_array().map_or(&[][..], Vec::as_slice);
    objects.iter().filter_map(|object| object.get("rule")).filter_map(rule).collect()
}

fn rule(rule: &Value) -> Option<Rule> {
    let text = |key: &str| rule[key].as_str().unwrap_or_default();
    let mut read = Rule {
        table: format!("{} {}", text("family"), text("table")),
        chain: text("chain").to_owned(),
        handle: rule["handle"].as_u64()?,
        ..Rule::default()
    };
    for expression in rule["expr"].as_array()? {
        let (kind, value) = expression.as_object()?.iter().next()?;
        if kind == "match" {
            let left = &value["left"];
            if let Some("iifname" | "oifname" | "iif" | "oif") = left["meta"]["key"].as_str() {
                each(&value["right"], &mut |item| {
                    read.interfaces.extend(item.as_str().map(str::to_owned));
                });
            }
            let protocol = left["payload"]["protocol"].as_str();
            let field = left["payload"]["field"].as_str();
            if let (Some("udp" | "th"), Some("dport" | "sport")) = (protocol, field) {
                each(&value["right"], &mut |item| read.ports.extend(ports(item)));
            }
        } else if ACTIONS.contains(&kind.as_str()) {
            read.actions.insert(kind.clone());
        }
    }
    Some(read)
}

/// The elements of a set, or the one value.
fn each(value: &Value, f: &mut impl FnMut(&Value)) {
    match value["set"].as_array().or_else(|| value.as_array()) {
        Some(items) => items.iter().for_each(f),
        None => f(value),
    }
}

/// `5060` or `{"range": [20000, 29999]}`.
fn ports(value: &Value) -> Option<RangeInclusive<u16>> {
    let port = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok());
    match value["range"].as_array().map(Vec::as_slice) {
        Some([first, last]) => Some(port(first)?..=port(last)?),
        Some(_) => None,
        None => port(value).map(|port| port..=port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_rule_says_where_and_what() {
        let payload = json!({"payload": {"protocol": "udp", "field": "dport"}});
        let ruleset = json!({"nftables": [
            {"metainfo": {"json_schema_version": 1}},
            {"table": {"family": "inet", "name": "filter", "handle": 1}},
            {"rule": {"family": "inet", "table": "filter", "chain": "input", "handle": 4, "expr": [
                {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth0"}},
                {"match": {"op": "==", "left": payload, "right": {"range": [20000, 29999]}}},
                {"counter": {"packets": 0, "bytes": 0}},
                {"drop": null}
            ]}},
            {"rule": {"family": "ip", "table": "nat", "chain": "pre", "handle": 9, "expr": [
                {"match": {"op": "==", "left": payload, "right": {"set": [5060, {"range": [7000, 7001]}]}}},
                {"dnat": {"addr": "10.0.0.9"}}
            ]}},
            {"rule": {"family": "ip", "table": "nat", "chain": "pre", "handle": 10}}
        ]});
        let rules = read(&ruleset);
        let first = Rule {
            table: "inet filter".to_owned(),
            chain: "input".to_owned(),
            handle: 4,
            interfaces: vec!["eth0".to_owned()],
            ports: vec![20_000..=29_999],
            actions: ["counter".to_owned(), "drop".to_owned()].into(),
        };
        assert_eq!(rules.len(), 2);
        assert_eq!(rules[0], first);
        assert_eq!(rules[1].ports, [5060..=5060, 7000..=7001]);
        assert_eq!(rules[1].actions, ["dnat".to_owned()].into());
    }
}
