//! `cargo xtask check`: formatting, clippy, docs, the dependency rule, licences.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::run::{cargo, find, say, target_dir};
use crate::setup::{self, HostCannot};
use crate::{build_ebpf, tidy};

/// Docs are read in the sources: they may link to what is private.
const RUSTDOCFLAGS: &str = "--deny warnings --allow rustdoc::private-intra-doc-links";

/// Kept at one version, so that a check says the same everywhere.
const CARGO_DENY_VERSION: &str = "0.20.2";

/// How a check or a whole suite went.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    /// Why each skipped one was skipped.
    pub(crate) skipped: Vec<String>,
}

impl Tally {
    /// Runs one check and counts it; what went wrong is said at once, the others still run.
    pub(crate) fn step(&mut self, name: &str, step: impl FnOnce() -> Result<()>) {
        say(name);
        match step() {
            Ok(()) => self.passed += 1,
            Err(error) if error.is::<HostCannot>() => self.skip(name, &format!("{error:#}")),
            Err(error) => {
                eprintln!("FAILED: {name}: {error:#}");
                self.failed += 1;
            }
        }
    }

    /// Counts something that cannot run here.
    pub(crate) fn skip(&mut self, name: &str, reason: &str) {
        let line = format!("SKIP: {name}: {reason}");
        eprintln!("{line}");
        self.skipped.push(line);
    }
}

/// The command.
pub(crate) fn run() -> Result<()> {
    setup::require_components()?;
    let mut tally = Tally::default();
    all(&mut tally);
    println!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped.len());
    if tally.failed > 0 {
        bail!("{} checks failed", tally.failed);
    }
    Ok(())
}

/// Every check.
pub(crate) fn all(tally: &mut Tally) {
    tally.step("formatting", || crate::run::run(&mut cargo(&["fmt", "--all", "--check"])));
    tally.step("dependency rule", tidy::run);
    tally.step("clippy", || {
        let lints = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"];
        crate::run::run(&mut cargo(&lints))
    });
    tally.step("clippy for the kernel", build_ebpf::lint);
    tally.step("docs", || {
        let mut docs = cargo(&[
            "doc",
            "--quiet",
            "--workspace",
            "--no-deps",
            "--document-private-items",
            "--exclude",
            "sbc-ebpf",
        ]);
        crate::run::run(docs.env("RUSTDOCFLAGS", RUSTDOCFLAGS))
    });
    match cargo_deny() {
        // Advisories need a database from outside: `cargo deny check advisories`.
        Ok(program) => tally.step("licences and sources", || {
            crate::run::run(
                Command::new(program)
                    .args(["check", "licenses", "bans", "sources"])
                    .current_dir(crate::run::root()),
            )
        }),
        Err(error) => tally.skip("cargo-deny", &format!("cannot be installed: {error:#}")),
    }
}

/// cargo-deny: the host's, or one built once into the target folder.
fn cargo_deny() -> Result<PathBuf> {
    if let Some(program) = find("cargo-deny") {
        return Ok(program);
    }
    let tools = target_dir().join("tools/cargo-deny");
    let program = tools.join("bin/cargo-deny");
    if !program.is_file() {
        say("missing: cargo-deny, which checks licences and sources; building it once (minutes)");
        let scratch = tools.join("build");
        // Unoptimised: it runs for a second, and builds in half the time.
        let mut install = cargo(&["install", "--quiet", "--locked", "--debug", "cargo-deny"]);
        install.args(["--version", CARGO_DENY_VERSION, "--root"]).arg(&tools);
        crate::run::run(install.env("CARGO_TARGET_DIR", &scratch))?;
        std::fs::remove_dir_all(&scratch).ok();
    }
    Ok(program)
}
