//! On what it was measured: kernel, CPU, versions.

use std::process::Command;

use serde_json::{Value, json};

/// Programs beside ours, and how each tells its version.
const PROGRAMS: [(&str, &str); 5] = [
    ("nft", "--version"),
    ("rtpengine", "--version"),
    ("sipp", "-v"),
    ("ip", "-V"),
    ("ethtool", "--version"),
];

/// Kernel, CPU and versions, as far as the host tells.
pub fn describe() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let versions =
        PROGRAMS.map(|(program, argument)| (program.to_owned(), version(program, argument).into()));
    json!({
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "cpu": cpu(&read("/proc/cpuinfo")),
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "sbc": env!("CARGO_PKG_VERSION"),
        "versions": Value::Object(versions.into_iter().collect()),
    })
}

/// The first model in `/proc/cpuinfo`, with family and model number: a virtual CPU's name says little.
fn cpu(cpuinfo: &str) -> String {
    let value = |name: &str| {
        let found = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        let mut found = found.filter(|(key, _)| key.trim() == name);
        found.next().map_or("?", |(_, value)| value.trim())
    };
    format!("{} (family {}, model {})", value("model name"), value("cpu family"), value("model"))
}

/// The first line with a digit in what a program says of itself.
fn version(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    said.lines().map(str::trim).find(|line| line.contains(|c: char| c.is_ascii_digit())).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_the_first_one() {
        let cpuinfo =
            "processor\t: 0\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n\nmodel name\t: other\n";
        assert_eq!(cpu(cpuinfo), "AMD EPYC (family 26, model 2)");
        assert_eq!(cpu(""), "? (family ?, model ?)");
    }

    #[test]
    fn a_program_that_is_not_there_has_no_version() {
        assert_eq!(version("no-such-program-here", "--version"), None);
    }
}
