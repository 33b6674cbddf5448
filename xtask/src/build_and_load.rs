//! `cargo xtask build-and-load`: from sources to a running SBC with a configuration of yours.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::build_ebpf;
use crate::run::{cargo, say, target_dir};
use crate::setup::HostCannot;

/// Options of the command.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Stop after saying what would be done
    #[arg(long)]
    check: bool,
}

/// The command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let binaries = build()?;
    let sbcd = binaries.join("sbcd");
    say(&format!("what {} asks for on this host", arguments.config.display()));
    let mut check = Command::new(&sbcd);
    check.arg("--config").arg(&arguments.config).arg("--check");
    crate::run::run(&mut check)?;
    if arguments.check {
        return Ok(());
    }
    if !sbc_tests::is_root() {
        return Err(HostCannot("loading into the kernel needs root".into()).into());
    }
    sbc_tests::sbc::mount_bpffs()?;
    say("sbcd (Ctrl-C or SIGTERM stops it)");
    // From here on this process is sbcd.
    let error = Command::new(&sbcd).arg("--config").arg(&arguments.config).exec();
    bail!("cannot run {}: {error}", sbcd.display());
}

/// Builds the kernel object and the daemon with it inside; the directory with the binaries.
pub(crate) fn build() -> Result<PathBuf> {
    let objects = build_ebpf::build()?;
    say("sbcd and sbcctl");
    let mut build = cargo(&["build", "--quiet", "--release", "--package", "sbc-user", "--bins"]);
    crate::run::run(build.env("SBC_EBPF_OBJECT", &objects.sbc))?;
    Ok(target_dir().join("release"))
}
