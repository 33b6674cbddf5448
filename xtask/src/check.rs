//! `cargo xtask check`: formatting, clippy, docs, the dependency rule, licences.

use std::process::Command;

use anyhow::{Result, bail};

use crate::run::{cargo, find, say};
use crate::setup::{self, HostCannot};
use crate::{build_ebpf, tidy};

/// Docs are read in the sources: they may link to what is private.
const RUSTDOCFLAGS: &str = "--deny warnings --allow rustdoc::private-intra-doc-links";

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
    if find("cargo-deny").is_some() {
        // Advisories need the network: `cargo deny check advisories`.
        tally.step("licences and sources", || {
            crate::run::run(
                Command::new("cargo-deny")
                    .args(["check", "licenses", "bans", "sources"])
                    .current_dir(crate::run::root()),
            )
        });
    } else {
        tally.skip("cargo-deny", "not installed (cargo install --locked cargo-deny)");
    }
}
