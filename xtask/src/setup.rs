//! What the host must have: named before it is installed. Debian as root installs; elsewhere the commands are printed.

use std::fmt;
use std::process::Command;

use anyhow::Result;

use crate::run::{find, run, say};

/// This host cannot do what was asked, and the text says what would help.
#[derive(Debug)]
pub(crate) struct HostCannot(pub(crate) String);

impl fmt::Display for HostCannot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for HostCannot {}

/// A program, the Debian package it comes from, and what it is for.
pub(crate) struct Tool {
    program: &'static str,
    package: &'static str,
    purpose: &'static str,
}

const fn tool(program: &'static str, package: &'static str, purpose: &'static str) -> Tool {
    Tool { program, package, purpose }
}

/// What namespaces and captures need.
pub(crate) const NETWORK: [Tool; 3] = [
    tool("ip", "iproute2", "network namespaces"),
    tool("ethtool", "ethtool", "checksum offload off on veth"),
    tool("tcpdump", "tcpdump", "captures"),
];

/// The SIP clients that call through the SBC.
pub(crate) const CLIENTS: [Tool; 2] =
    [tool("sipp", "sip-tester", "SIP calls in batches"), tool("baresip", "baresip-core", "SIP over TLS")];

/// What an operator looks at the kernel with.
pub(crate) const OPERATOR: [Tool; 1] = [tool("bpftool", "bpftool", "maps and programs in the kernel")];

/// What `sbcctl doctor` is shown in its test.
pub(crate) const FILTER: [Tool; 1] = [tool("nft", "nftables", "a packet filter that XDP bypasses")];

/// What the dataplane is compared with.
pub(crate) const CONTENDERS: [Tool; 1] = [tool(
    "rtpengine",
    "rtpengine-daemon",
    "a userspace relay to compare with; the package starts a service of its own, which is not needed",
)];

/// Everything that any command needs.
pub(crate) fn everything() -> Result<()> {
    let tools: Vec<&Tool> = NETWORK.iter().chain(&CLIENTS).chain(&OPERATOR).chain(&FILTER).collect();
    require(&tools)?;
    require_components()?;
    say("nothing is missing");
    Ok(())
}

/// Installs what is missing of `tools`, or fails with what to type.
pub(crate) fn require(tools: &[&Tool]) -> Result<()> {
    let missing: Vec<&&Tool> = tools.iter().filter(|tool| find(tool.program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for tool in &missing {
        say(&format!("missing: {} ({}; Debian package {})", tool.program, tool.purpose, tool.package));
    }
    install(&missing.iter().map(|tool| tool.package).collect::<Vec<_>>())
}

/// Installs Debian packages as root; elsewhere fails with the command to type.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let typed = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    if find("apt-get").is_none() || !sbc_tests::is_root() {
        return Err(HostCannot(format!("install what is missing first, on Debian as root: {typed}")).into());
    }
    say(&typed);
    let mut update = Command::new("apt-get");
    run(update.args(["-qq", "update"]).env("DEBIAN_FRONTEND", "noninteractive"))?;
    let mut install = Command::new("apt-get");
    install.args(["-qq", "-y", "install", "--no-install-recommends"]).args(packages);
    run(install.env("DEBIAN_FRONTEND", "noninteractive").stdout(std::io::stderr()))
}

/// rustfmt and clippy: a minimal toolchain lacks them.
pub(crate) fn require_components() -> Result<()> {
    for (component, program) in [("rustfmt", "cargo-fmt"), ("clippy", "cargo-clippy")] {
        let works =
            Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
        if works {
            continue;
        }
        say(&format!("missing: {component} (component of the Rust toolchain)"));
        if find("rustup").is_none() {
            return Err(
                HostCannot(format!("add the component {component} to the Rust toolchain first")).into()
            );
        }
        run(Command::new("rustup").args(["component", "add", component]))?;
    }
    Ok(())
}
