//! What was measured, as a table for people, as one JSON object, and against what is to be reached.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::flood::Flood;
use super::guard::{Guard, SOURCES};
use super::kernel::Feature;
use super::memory::{self, Memory};
use super::rate::Row;
use super::run::Cost;

/// Everything that was measured.
#[derive(Debug, Default)]
pub struct Report {
    /// The contenders.
    pub rates: Vec<Row>,
    /// What a packet costs, by feature and number of flows.
    pub costs: BTreeMap<(Feature, u32), Cost>,
    /// What it costs to refuse a denied source.
    pub guard: Option<Guard>,
    /// Calls under a flood.
    pub flood: Option<Flood>,
    /// What the maps take.
    pub memory: Option<Memory>,
    /// Kernel, CPU, versions.
    pub host: Value,
}

/// Something to be reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// What.
    pub what: &'static str,
    /// What came out; `None` if it could not be measured.
    pub found: Option<f64>,
    /// The least or the most that it may be.
    pub bound: Bound,
}

/// The least or the most that something may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// No less.
    AtLeast(f64),
    /// No more.
    AtMost(f64),
}

impl Target {
    /// Whether it was missed. What could not be measured was not.
    pub fn is_missed(&self) -> bool {
        self.found.is_some_and(|found| match self.bound {
            Bound::AtLeast(least) => found < least,
            Bound::AtMost(most) => found > most,
        })
    }
}

impl Report {
    /// What is to be reached.
    pub fn targets(&self) -> Vec<Target> {
        use Bound::{AtLeast, AtMost};
        let relay_over = |other| Some(self.best("xdp_relay")? / self.best(other)?);
        let growth = |feature| {
            let cost = |flows| Some(self.costs.get(&(feature, flows))?.with_wrapper_ns as f64);
            Some(cost(262_144)? / cost(1000)?)
        };
        let flood = |of: fn(&Flood) -> f64| self.flood.as_ref().map(of);
        let more_lost = |flood: &Flood| (flood.guard.lost_ratio() - flood.bare.lost_ratio()).max(0.0);
        let target = |what, found, bound| Target { what, found, bound };
        vec![
            target("relay over bare redirect", relay_over("bare_redirect"), AtLeast(0.9)),
            target("relay over nftables NAT", relay_over("nft_nat"), AtLeast(4.5)),
            target("relay over rtpengine in userspace", relay_over("rtpengine_userspace"), AtLeast(10.0)),
            target("cost at 256k flows over 1k, plain", growth(Feature::Plain), AtMost(2.5)),
            target("cost at 256k flows over 1k, learned", growth(Feature::Learned), AtMost(2.5)),
            target("guard over bare drop, ns", self.guard.map(|guard| guard.over_bare_ns()), AtMost(60.0)),
            target("failed calls under a flood", flood(|flood| f64::from(flood.guard.failed)), AtMost(0.0)),
            target("RTP lost under it, over that of a bare drop", flood(more_lost), AtMost(0.001)),
        ]
    }

    fn best(&self, name: &str) -> Option<f64> {
        let (_, rates) = self.rates.iter().find(|(found, _)| *found == name)?;
        rates.as_ref().ok().map(|rates| rates.best_mpps)
    }

    /// The result, for programs.
    pub fn json(&self) -> Value {
        let mut object = Map::new();
        object.insert("schema".into(), 1.into());
        for (name, rates) in &self.rates {
            let (best, lossless) = match rates {
                Ok(rates) => (json!(rounded(rates.best_mpps)), json!(rounded(rates.lossless_mpps))),
                Err(reason) => {
                    object.insert(format!("{name}_missing"), json!(reason));
                    (Value::Null, Value::Null)
                }
            };
            object.insert(format!("{name}_mpps"), best);
            object.insert(format!("{name}_lossless_mpps"), lossless);
        }
        object.insert("ns_per_packet".into(), self.costs_json());
        if let Some(guard) = &self.guard {
            object.insert("guard_drop_ns_over_bare".into(), json!(guard.over_bare_ns()));
            object.insert("guard_drop_ns".into(), json!(guard.drop_ns));
            object.insert("bare_drop_ns".into(), json!(guard.bare_drop_ns));
            object.insert("guard_drop_mpps".into(), json!(rounded(guard.drop_mpps)));
            object.insert("bare_drop_mpps".into(), json!(rounded(guard.bare_drop_mpps)));
            object.insert("guard_rate_ratio".into(), json!(rounded(guard.drop_mpps / guard.bare_drop_mpps)));
        }
        if let Some(Flood { guard, bare }) = &self.flood {
            object.insert("flood_calls".into(), json!(guard.calls));
            object.insert("flood_failed_calls".into(), json!(guard.failed));
            object.insert("flood_failed_calls_bare".into(), json!(bare.failed));
            object.insert("flood_rtp_sent".into(), json!(guard.sent));
            object.insert("flood_rtp_sent_bare".into(), json!(bare.sent));
            object.insert("flood_rtp_lost_ratio".into(), json!(rounded(guard.lost_ratio())));
            object.insert("flood_rtp_lost_ratio_bare".into(), json!(rounded(bare.lost_ratio())));
            object.insert("flood_mpps".into(), json!(rounded(guard.flood_mpps())));
            object.insert("flood_mpps_bare".into(), json!(rounded(bare.flood_mpps())));
        }
        if let Some(memory) = &self.memory {
            let bytes = json!({
                "bytes_per_port": memory::PER_PORT,
                "bytes_per_port_v6": memory::PER_PORT6,
                "bytes_per_address": memory::PER_ADDRESS,
                "bytes_per_address_v6": memory::PER_ADDRESS6,
                "maps": memory.maps,
                "total_bytes": memory.total(),
            });
            object.insert("memory".into(), bytes);
        }
        object.insert("host".into(), self.host.clone());
        let targets = self.targets().into_iter().map(|target| {
            let (bound, value) = match target.bound {
                Bound::AtLeast(value) => ("at_least", value),
                Bound::AtMost(value) => ("at_most", value),
            };
            let mut entry = json!({ "found": target.found.map(rounded), "missed": target.is_missed() });
            entry[bound] = json!(value);
            (target.what.to_owned(), entry)
        });
        object.insert("targets".into(), Value::Object(targets.collect()));
        Value::Object(object)
    }

    fn costs_json(&self) -> Value {
        let mut features: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
        for ((feature, flows), cost) in &self.costs {
            let flows = flows.to_string();
            features.entry(feature.key()).or_default().insert(flows.clone(), cost.with_wrapper_ns.into());
            features.entry("wrapper").or_default().insert(flows, cost.wrapper_ns.into());
        }
        json!(features)
    }

    /// The result, for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let relay = self.best("xdp_relay");
        let _ = writeln!(text, "{:<22} {:>10} {:>14} {:>12}", "", "best Mpps", "lossless Mpps", "relay is");
        for (name, rates) in &self.rates {
            let _ = match rates {
                Ok(rates) => writeln!(
                    text,
                    "{name:<22} {:>10.3} {:>14.3} {:>11.2}x",
                    rates.best_mpps,
                    rates.lossless_mpps,
                    relay.unwrap_or(f64::NAN) / rates.best_mpps
                ),
                Err(reason) => writeln!(text, "{name:<22} not measured: {reason}"),
            };
        }
        let _ = writeln!(text, "\nns per packet, choosing a flow and writing its headers included");
        for ((feature, flows), cost) in &self.costs {
            let (all, wrapper) = (cost.with_wrapper_ns, cost.wrapper_ns);
            let _ = writeln!(text, "{:<14} {flows:>7} flows {all:>6} ({wrapper} of them)", feature.key());
        }
        self.guard_text(&mut text);
        if let Some(memory) = &self.memory {
            let _ = writeln!(
                text,
                "\nmemory: {} bytes per port and {} MiB per address (IPv6: {} and {}); with one address of each family:",
                memory::PER_PORT,
                memory::PER_ADDRESS >> 20,
                memory::PER_PORT6,
                memory::PER_ADDRESS6 >> 20,
            );
            for (name, bytes) in &memory.maps {
                let _ = writeln!(text, "{name:<22} {bytes:>10} bytes");
            }
            let _ = writeln!(text, "{:<22} {:>10} bytes", "together", memory.total());
        }
        let _ = writeln!(text, "\n{}\n", self.host);
        for target in self.targets() {
            let bound = match target.bound {
                Bound::AtLeast(value) => format!("at least {value}"),
                Bound::AtMost(value) => format!("at most {value}"),
            };
            let found = target.found.map_or("not measured".to_owned(), |found| format!("{found:.3}"));
            let missed = if target.is_missed() { "  MISSED" } else { "" };
            let _ = writeln!(text, "{:<40} {found:>12}, {bound}{missed}", target.what);
        }
        text
    }
}

impl Report {
    fn guard_text(&self, text: &mut String) {
        if let Some(guard) = &self.guard {
            let _ = writeln!(
                text,
                "\na frame of one of {SOURCES} denied sources: {} ns, in a bare drop {} ns; over a link {:.3} Mpps of {:.3}",
                guard.drop_ns, guard.bare_drop_ns, guard.drop_mpps, guard.bare_drop_mpps
            );
        }
        if let Some(Flood { guard, bare }) = &self.flood {
            let _ = writeln!(text, "\ncalls while {SOURCES} forged sources flood:");
            for (name, outcome) in [("our guard", guard), ("bare drop", bare)] {
                let _ = writeln!(
                    text,
                    "{name:<22} {} of {} calls failed, {} of {} RTP packets lost, flood {:.3} Mpps",
                    outcome.failed,
                    outcome.calls,
                    outcome.sent.saturating_sub(outcome.received),
                    outcome.sent,
                    outcome.flood_mpps()
                );
            }
        }
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::super::rate::Rates;
    use super::*;

    fn report() -> Report {
        let rates = |best_mpps, lossless_mpps| Ok(Rates { best_mpps, lossless_mpps });
        let cost = |with_wrapper_ns| Cost { with_wrapper_ns, wrapper_ns: 50 };
        Report {
            rates: vec![
                ("bare_redirect", rates(4.0, 4.0)),
                ("xdp_relay", rates(3.7, 3.6)),
                ("nft_nat", rates(1.0, 0.9)),
                ("rtpengine_userspace", Err("not installed".into())),
            ],
            costs: [((Feature::Plain, 1000), cost(80)), ((Feature::Plain, 262_144), cost(240))].into(),
            guard: Some(Guard { drop_ns: 90, bare_drop_ns: 40, drop_mpps: 4.0, bare_drop_mpps: 5.0 }),
            ..Report::default()
        }
    }

    #[test]
    fn keys_are_as_promised_and_what_is_missing_is_null() {
        let json = report().json();
        assert_eq!(json["xdp_relay_mpps"], 3.7);
        assert_eq!(json["xdp_relay_lossless_mpps"], 3.6);
        assert_eq!(json["rtpengine_userspace_mpps"], Value::Null);
        assert_eq!(json["rtpengine_userspace_missing"], "not installed");
        assert_eq!(json["ns_per_packet"]["plain"]["262144"], 240);
        assert_eq!(json["ns_per_packet"]["wrapper"]["1000"], 50);
        assert_eq!(
            (&json["guard_drop_ns_over_bare"], &json["guard_rate_ratio"]),
            (&50.0.into(), &0.8.into())
        );
    }

    #[test]
    fn a_target_is_missed_only_by_what_was_measured() {
        let report = report();
        let missed: Vec<_> = report.targets().into_iter().filter(Target::is_missed).collect();
        let missed: Vec<_> = missed.iter().map(|target| target.what).collect();
        assert_eq!(missed, ["relay over nftables NAT", "cost at 256k flows over 1k, plain"]);
        assert!(report.text().contains("MISSED") && report.text().contains("not measured: not installed"));
    }
}
