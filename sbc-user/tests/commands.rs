//! The programs as an operator runs them: what they print where, and their exit codes.

// Whatever is not as expected ends the test, in helpers as well.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/trunk-udp.toml");

fn sbcctl(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sbcctl")).args(arguments).output().unwrap()
}

fn sbcd(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sbcd")).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The object on the last line of stdout.
fn object(output: &Output) -> Value {
    let object: Value = serde_json::from_str(stdout(output).lines().last().unwrap()).unwrap();
    assert_eq!(object["schema"], 1, "{object}");
    object
}

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, text: &str) -> (Self, String) {
        let path = std::env::temp_dir().join(format!("sbc-commands-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let shown = path.display().to_string();
        (Self(path), shown)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn check_passes_a_right_configuration_and_says_what_it_would_do() {
    let output = sbcctl(&["check", "--elsewhere", EXAMPLE]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for said in ["sip udp", "198.51.100.10:5060", "ports 20000-27999", "udp 10.0.0.20:5060", "private"] {
        assert!(stdout(&output).contains(said), "{said} in\n{}", stdout(&output));
    }
    let json = object(&sbcctl(&["check", "--elsewhere", "--json", EXAMPLE]));
    assert_eq!((&json["valid"], &json["errors"]), (&Value::Bool(true), &Value::from(0)));
}

#[test]
fn check_shows_every_error_where_it_is() {
    let (_scratch, file) = Scratch::new("wrong", "[public]\nbind = \"0.0.0.0\"\nudp = 99999\n");
    let output = sbcctl(&["check", &file]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains(&format!("{file}:2:8")) && said.contains(&format!("{file}:3:7")), "{said}");
    assert!(said.ends_with("2 errors\n"), "{said}");

    let output = sbcctl(&["check", "--json", &file]);
    assert_eq!(output.status.code(), Some(1));
    let json = object(&output);
    assert_eq!((&json["valid"], &json["errors"]), (&Value::Bool(false), &Value::from(2)));
    let first = &json["diagnostics"][0];
    assert_eq!(
        (&first["line"], &first["column"], &first["key"]),
        (&2.into(), &8.into(), &"public.bind".into())
    );
    assert!(first["allowed"].as_str().unwrap().contains("192.0.2.10"));

    let output = sbcd(&["--config", &file, "--check"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&format!("{file}:2:8")), "{}", stderr(&output));
}

#[test]
fn sbcd_says_what_it_would_do_and_does_nothing() {
    let socket = std::env::temp_dir().join(format!("sbc-commands-{}.sock", std::process::id()));
    let text = format!(
        "[public]\nbind = \"127.0.0.1\"\nudp = 5060\npeers = \"127.0.0.1\"\nnext_hop = \"127.0.0.1:6060\"\n\
         [private]\nbind = \"127.0.0.1\"\nudp = 5070\npbx = \"127.0.0.1:6070\"\n[daemon]\nsocket = \"{}\"\n",
        socket.display()
    );
    let (_scratch, file) = Scratch::new("survey", &text);
    let output = sbcd(&["--config", &file, "--check"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("FORWARDED BY"), "{}", stdout(&output));
    assert!(!Path::new(&socket).exists());
}

#[test]
fn a_daemon_that_is_not_there_is_a_failure_and_a_wrong_command_is_usage() {
    for command in ["status", "calls"] {
        let output = sbcctl(&["--socket", "/nonexistent/sbcd.sock", command, "--json"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(object(&output)["error"].as_str().unwrap().contains("is it running?"));
    }
    let missing = sbcctl(&["check", "/nonexistent/sbc.toml"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("/nonexistent/sbc.toml cannot be read"), "{}", stderr(&missing));
    assert_eq!(sbcctl(&["call"]).status.code(), Some(2));
    assert_eq!(sbcctl(&[]).status.code(), Some(2));
    assert_eq!(sbcd(&["--configuration"]).status.code(), Some(2));
}

#[test]
fn firewall_says_what_must_come_through() {
    let matrix = object(&sbcctl(&["firewall", EXAMPLE, "--json"]));
    let rules: Vec<String> = matrix["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| {
            ["realm", "direction", "protocol", "from", "from_ports", "to", "to_ports"]
                .map(|field| rule[field].as_str().unwrap())
                .join(" ")
        })
        .collect();
    for rule in [
        "public in udp 192.0.2.0/24 any 198.51.100.10 5060",
        "public in udp any any 198.51.100.10 20000-27999",
        "public out udp 198.51.100.10 20000-27999 any any",
        "private out udp 10.0.0.5 5060 10.0.0.20 5060",
    ] {
        assert!(rules.iter().any(|said| said == rule), "{rule} in\n{}", rules.join("\n"));
    }
    let shown = stdout(&sbcctl(&["firewall", EXAMPLE]));
    assert!(shown.contains("RTP and RTCP") && shown.contains("SIP over udp"), "{shown}");
    let (_scratch, broken) = Scratch::new("firewall", "nonsense = 1\n");
    assert_eq!(sbcctl(&["firewall", &broken]).status.code(), Some(1));
}
