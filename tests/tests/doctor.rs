//! `sbcctl doctor` on real interfaces: what it says of a host that runs the daemon, and that it notices what is broken
//! there and that what it recommends mends it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test file")]

use sbc_tests::process::Scratch;
use sbc_tests::sbc::{Networks, Sbcd, binaries};
use sbc_tests::{is_root, skip};
use serde_json::Value;

/// What it says in the SBC's namespace, and its exit code.
fn doctor(networks: &Networks, scratch: &Scratch) -> (Vec<Value>, i32) {
    let mut sbcctl = networks.sbc.command(binaries().unwrap().join("sbcctl"));
    sbcctl.args(["doctor", "--json", "--config"]).arg(scratch.path().join("sbc.toml"));
    let output = sbcctl.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let Some(last) = said.lines().next_back() else {
        panic!("{}", String::from_utf8_lossy(&output.stderr));
    };
    let said: Value = serde_json::from_str(last).unwrap();
    assert_eq!(said["schema"], 1, "{said}");
    (said["findings"].as_array().unwrap().clone(), output.status.code().unwrap())
}

/// The severity of the one finding of a check on a subject.
fn severity<'a>(findings: &'a [Value], id: &str, subject: &str) -> &'a str {
    let found: Vec<_> =
        findings.iter().filter(|finding| finding["id"] == id && finding["subject"] == subject).collect();
    assert_eq!(found.len(), 1, "{id} {subject}: {findings:#?}");
    found[0]["severity"].as_str().unwrap()
}

#[test]
fn it_notices_what_is_broken_and_what_it_recommends_mends_it() {
    let test = "it_notices_what_is_broken_and_what_it_recommends_mends_it";
    if !is_root() {
        return skip(test, "needs root");
    }
    if let Err(error) = binaries() {
        return skip(test, &format!("{error:#}"));
    }
    if std::process::Command::new("nft").arg("--version").output().is_err() {
        return skip(test, "needs nft (package nftables)");
    }
    let scratch = Scratch::create("doctor").unwrap();
    let networks = Networks::create().unwrap();
    let sbcd = Sbcd::start(&networks, &binaries().unwrap(), &scratch).unwrap();

    let (findings, code) = doctor(&networks, &scratch);
    assert_eq!(code, 0, "{findings:#?}");
    for interface in ["public0", "private0"] {
        for id in ["driver", "program", "redirect-target", "mtu", "lro"] {
            assert_eq!(severity(&findings, id, interface), "ok", "{id}");
        }
        assert_eq!(severity(&findings, "veth-checksums", interface), "note");
    }
    assert_eq!(severity(&findings, "nft-bypass", "nftables"), "ok");
    assert_eq!(severity(&findings, "checksums", "public0, private0"), "ok");
    assert_eq!(severity(&findings, "reserved-ports", "ports"), "ok");

    networks.pbx.run("ethtool", &["-K", "pbx0", "gro", "off"]).unwrap();
    let (findings, code) = doctor(&networks, &scratch);
    assert_eq!((severity(&findings, "redirect-target", "private0"), code), ("fault", 1));
    assert_eq!(severity(&findings, "redirect-target", "public0"), "ok");
    networks.pbx.run("ethtool", &["-K", "pbx0", "gro", "on"]).unwrap();

    networks.sbc.run("nft", &["add", "table", "inet", "edge"]).unwrap();
    let chain = "{ type filter hook input priority 0 ; }";
    networks.sbc.run("nft", &["add", "chain", "inet", "edge", "in", chain]).unwrap();
    let rule =
        ["add", "rule", "inet", "edge", "in", "udp", "dport", "20000-60000", "limit", "rate", "50/second"];
    networks.sbc.run("nft", &[&rule[..], &["accept"]].concat()).unwrap();
    networks.sbc.run("ip", &["addr", "del", "10.0.0.1/24", "dev", "private0"]).unwrap();
    let (findings, code) = doctor(&networks, &scratch);
    assert_eq!(severity(&findings, "nft-bypass", "nftables"), "warning");
    assert_eq!((severity(&findings, "address", "10.0.0.1"), code), ("fault", 1));
    networks.sbc.run("nft", &["delete", "table", "inet", "edge"]).unwrap();
    networks.sbc.run("ip", &["addr", "add", "10.0.0.1/24", "dev", "private0"]).unwrap();

    assert!(sbcd.stop().unwrap().success());
    // Without a daemon: an MTU with which the driver would refuse its program.
    networks.sbc.run("ip", &["link", "set", "dev", "public0", "mtu", "9000"]).unwrap();
    networks.outside.run("ip", &["link", "set", "dev", "outside0", "mtu", "9000"]).unwrap();
    let (findings, code) = doctor(&networks, &scratch);
    assert_eq!((severity(&findings, "mtu", "public0"), code), ("fault", 1));
    assert_eq!(severity(&findings, "mtu", "private0"), "ok");
    assert_eq!(severity(&findings, "program", "public0"), "ok");
    networks.sbc.run("ip", &["link", "set", "dev", "public0", "mtu", "1500"]).unwrap();
    assert_eq!(doctor(&networks, &scratch).1, 0);
}

#[test]
fn without_a_configuration_it_cannot_look() {
    let Ok(binaries) = binaries() else {
        return skip("without_a_configuration_it_cannot_look", "SBC_BIN_DIR names no directory with sbcctl");
    };
    let mut sbcctl = std::process::Command::new(binaries.join("sbcctl"));
    let output = sbcctl.args(["doctor", "--json", "--config", "/nonexistent/sbc.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(said["error"].as_str().unwrap().contains("/nonexistent/sbc.toml"), "{said}");
}
