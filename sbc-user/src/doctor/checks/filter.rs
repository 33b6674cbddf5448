//! Rules of the packet filter that somebody may rely on and that forwarded media never meets: XDP comes before them.

use std::ops::RangeInclusive;

use super::super::facts::Rule;
use super::{Device, Finding, Patient, Report, Severity};

/// Rules that are named one by one.
const MOST_SHOWN: usize = 20;
/// What a rule does that media would be expected to suffer or be subject to.
const ACTING: [&str; 10] =
    ["drop", "reject", "queue", "limit", "quota", "snat", "dnat", "masquerade", "redirect", "tproxy"];

pub(super) fn check(patient: &Patient<'_>, report: &mut Report) {
    const ID: &str = "nft-bypass";
    const SUBJECT: &str = "nftables";
    match &patient.filter.rules {
        None => report.add(
            Finding::bad(
                ID,
                Severity::Note,
                SUBJECT,
                "there is no `nft` to ask for rules",
                "forwarded media passes by every rule of nftables",
            )
            .mend("apt-get install nftables"),
        ),
        Some(rules) => {
            let met: Vec<&Rule> = rules.iter().filter(|rule| concerns(patient, rule)).collect();
            if met.is_empty() {
                report.add(Finding::ok(ID, SUBJECT, "no rule is about media ports or their interfaces"));
            }
            for rule in met.iter().take(MOST_SHOWN) {
                report.add(bypassed(rule));
            }
            if met.len() > MOST_SHOWN {
                report.add(Finding::bad(
                    ID,
                    Severity::Note,
                    SUBJECT,
                    format!(
                        "{} more rules are about media ports or their interfaces",
                        met.len() - MOST_SHOWN
                    ),
                    "forwarded media passes by them",
                ));
            }
        }
    }
    if !patient.filter.legacy_tables.is_empty() {
        report.add(
            Finding::bad(
                "iptables-legacy",
                Severity::Note,
                "iptables",
                format!(
                    "the old iptables has tables in the kernel: {}",
                    patient.filter.legacy_tables.join(", ")
                ),
                "forwarded media passes by their rules, which are not looked at here",
            )
            .mend("iptables-legacy-save"),
        );
    }
}

/// Whether a rule would be met by media if XDP did not forward it: it names a media port, or one of the interfaces
/// and no port.
fn concerns(patient: &Patient<'_>, rule: &Rule) -> bool {
    let ours = |name: &String| {
        let holders = patient.media.iter().filter_map(|media| media.holder.as_ref());
        patient
            .devices
            .iter()
            .map(Device::name)
            .chain(holders.map(|holder| holder.name.as_str()))
            .any(|our| our == name)
    };
    if !rule.interfaces.is_empty() && !rule.interfaces.iter().any(ours) {
        return false;
    }
    let media = |ports: &RangeInclusive<u16>| {
        patient
            .media
            .iter()
            .any(|media| media.ports.start() <= ports.end() && ports.start() <= media.ports.end())
    };
    if rule.ports.is_empty() { !rule.interfaces.is_empty() } else { rule.ports.iter().any(media) }
}

fn bypassed(rule: &Rule) -> Finding {
    let Rule { table, chain, handle, actions, .. } = rule;
    let does: Vec<&str> = actions.iter().map(String::as_str).collect();
    let does = if does.is_empty() { "no verdict".to_owned() } else { does.join(", ") };
    let acting = actions.iter().any(|action| ACTING.contains(&action.as_str()));
    let severity = if acting { Severity::Warning } else { Severity::Note };
    let why = if acting {
        "forwarded media passes by it: what it drops, limits or rewrites is forwarded all the same. Media that the \
         daemon relays, and signalling, do meet it"
    } else {
        "forwarded media passes by it: it counts and accepts only what the kernel does not forward"
    };
    Finding::bad(
        "nft-bypass",
        severity,
        "nftables",
        format!("rule {handle} in {table} {chain} is about media ({does})"),
        why,
    )
    .mend(format!("nft -a list chain {table} {chain}"))
}
