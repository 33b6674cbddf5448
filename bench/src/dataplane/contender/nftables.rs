//! The kernel's NAT by nftables, with a table of connections (conntrack) and without.

use std::fmt::Write as _;

use anyhow::Result;
use sbc_tests::process::Scratch;

use super::{Contender, lanes, port};
use crate::dataplane::frames::{self, Lane};
use crate::dataplane::testbed::{EGRESS, INGRESS, OURS, Testbed};

/// A set of rules.
pub struct Nftables {
    name: &'static str,
    file: std::path::PathBuf,
    lanes: Vec<Lane>,
}

impl Nftables {
    /// Connections are tracked; rules decide about their first packets only.
    ///
    /// # Errors
    /// If the rules cannot be written.
    pub fn nat(flows: u32, scratch: &Scratch) -> Result<Self> {
        let file = scratch.write("nat.nft", nat(flows))?;
        Ok(Self { name: "nft_nat", file, lanes: lanes(flows) })
    }

    /// Rules rewrite every packet.
    ///
    /// # Errors
    /// If the rules cannot be written.
    pub fn stateless(flows: u32, scratch: &Scratch) -> Result<Self> {
        let file = scratch.write("stateless.nft", stateless(flows))?;
        Ok(Self { name: "nft_stateless", file, lanes: lanes(flows) })
    }
}

impl Contender for Nftables {
    fn name(&self) -> &'static str {
        self.name
    }

    fn rewrites(&self) -> bool {
        true
    }

    fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    fn enter(&mut self, testbed: &Testbed) -> Result<()> {
        testbed.sbc.run("nft", &["-f", &self.file.to_string_lossy()])?;
        Ok(())
    }

    fn leave(&mut self, testbed: &Testbed) -> Result<()> {
        testbed.sbc.run("nft", &["delete", "table", "ip", "bench"])?;
        Ok(())
    }
}

/// A map's elements, of every flow.
fn elements(flows: u32, element: impl Fn(u32) -> String) -> String {
    (0..flows).map(element).collect::<Vec<_>>().join(", ")
}

/// Where a flow goes: as our relay's flows do, a party of its own for each.
fn destination(flow: u32) -> String {
    let [_, _, high, low] = frames::source(flow).octets();
    format!("198.19.{high}.{low}")
}

fn nat(flows: u32) -> String {
    let ways = elements(flows, |flow| format!("{} : {} . 20000", port(flow), destination(flow)));
    format!(
        "table ip bench {{\n\
         map ways {{ type inet_service : ipv4_addr . inet_service; elements = {{ {ways} }} }}\n\
         chain pre {{ type nat hook prerouting priority dstnat;\n\
         iifname \"{INGRESS}\" dnat ip to udp dport map @ways\n}}\n\
         chain post {{ type nat hook postrouting priority srcnat; oifname \"{EGRESS}\" snat to {OURS}\n}}\n\
         }}\n"
    )
}

fn stateless(flows: u32) -> String {
    let destinations = elements(flows, |flow| format!("{} : {}", port(flow), destination(flow)));
    let sources = elements(flows, |flow| format!("{} : {}", destination(flow), port(flow ^ 1)));
    let mut rules = String::new();
    let _ = write!(
        rules,
        "table ip bench {{\n\
         map destinations {{ type inet_service : ipv4_addr; elements = {{ {destinations} }} }}\n\
         map sources {{ type ipv4_addr : inet_service; elements = {{ {sources} }} }}\n\
         chain pre {{ type filter hook prerouting priority raw;\n\
         iifname \"{INGRESS}\" udp dport 20000-65535 notrack \
         ip daddr set udp dport map @destinations udp dport set 20000\n}}\n\
         chain post {{ type filter hook postrouting priority srcnat;\n\
         oifname \"{EGRESS}\" ip saddr set {OURS} udp sport set ip daddr map @sources\n}}\n\
         }}\n"
    );
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flow_has_its_way() {
        let (nat, stateless) = (nat(1000), stateless(1000));
        assert!(nat.contains(" 21998 : 198.19.3.231 . 20000 "), "{nat}");
        assert!(stateless.contains("20000 : 198.19.0.0, 20002 : 198.19.0.1, "), "{stateless}");
        assert!(stateless.contains("198.19.0.0 : 20002, 198.19.0.1 : 20000, "), "{stateless}");
    }
}
