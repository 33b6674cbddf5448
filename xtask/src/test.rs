//! `cargo xtask test`: the whole suite, counted.
//!
//! Tests say `SKIP: <name>: <reason>` on standard output when they cannot run and then pass for libtest; here they are
//! counted as what they are. The last line is `N passed, M failed, K skipped`.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::build_ebpf::{self, Objects};
use crate::check::{self, Tally};
use crate::run::{cargo, say, shown, target_dir};
use crate::setup::{self, Tool};

/// Options of the command.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Fail if anything was skipped that root and this kernel allow
    #[arg(long)]
    strict: bool,
    /// Only the kernel program's packet tables, on Debian's 6.1 kernel in a virtual machine (minutes)
    #[arg(long)]
    vm: bool,
}

/// Skips that say nothing about root and kernel: what the package registry does not give.
const TOLERATED: [&str; 1] = ["SKIP: cargo-deny:"];

/// The command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.vm {
        return crate::vm::test();
    }
    let mut tally = Tally::default();
    let tools = setup::NETWORK.iter().chain(&setup::CLIENTS).chain(&setup::OPERATOR).chain(&setup::FILTER);
    let tools: Vec<&Tool> = tools.collect();
    if let Err(error) = setup::require(&tools).and_then(|()| setup::require_components()) {
        // Not fatal: each test that misses something says so and is counted.
        eprintln!("{error:#}");
    }
    let mut objects: Option<Objects> = None;
    tally.step("kernel objects", || {
        objects = Some(build_ebpf::build()?);
        Ok(())
    });
    if sbc_tests::is_root() {
        tally.step("BPF file system", sbc_tests::sbc::mount_bpffs);
    }
    check::all(&mut tally);
    say("tests");
    let with_objects = |command: &mut Command| {
        if let Some(objects) = &objects {
            command.env("SBC_EBPF_OBJECT", &objects.sbc).env("SBC_BENCH_OBJECT", &objects.bench);
        }
    };
    let mut daemon = cargo(&["build", "--package", "sbc-user", "--bins"]);
    with_objects(&mut daemon);
    tally.step("sbcd and sbcctl", || crate::run::run(&mut daemon));
    let mut tests = cargo(&["test", "--workspace", "--no-fail-fast", "--", "--show-output"]);
    with_objects(&mut tests);
    cargo_test(tests.env("SBC_BIN_DIR", target_dir().join("debug")), &mut tally)?;

    for skipped in &tally.skipped {
        eprintln!("{skipped}");
    }
    let untolerated =
        tally.skipped.iter().filter(|line| !TOLERATED.iter().any(|start| line.starts_with(start))).count();
    println!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped.len());
    if tally.failed > 0 {
        bail!("{} failed", tally.failed);
    }
    if arguments.strict && untolerated > 0 {
        bail!("{untolerated} skipped although root and this kernel allow them");
    }
    Ok(())
}

/// Runs `cargo test`, shows what matters, keeps everything in `test.log` and counts.
fn cargo_test(command: &mut Command, tally: &mut Tally) -> Result<()> {
    let path = target_dir().join("test.log");
    let mut log = std::fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run {}", shown(command)))?;
    let stdout = child.stdout.take().context("no standard output")?;
    let mut reader = Reader::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        writeln!(log, "{line}")?;
        if reader.line(&line) {
            eprintln!("{line}");
        }
    }
    let status = child.wait()?;
    if !status.success() && reader.failed == 0 {
        eprintln!("FAILED: {} ended without a result: {status}", shown(command));
        reader.failed += 1;
    }
    eprintln!("everything the tests said is in {}", path.display());
    reader.add_to(tally);
    Ok(())
}

/// Counts in libtest's output.
#[derive(Debug, Default)]
struct Reader {
    passed: u32,
    failed: u32,
    skipped: Vec<String>,
    in_successes: bool,
}

impl Reader {
    /// Takes one line; whether it is worth showing.
    fn line(&mut self, line: &str) -> bool {
        if line == "successes:" {
            self.in_successes = true;
        }
        if line == "failures:" || line.starts_with("test result: ") {
            self.in_successes = false;
        }
        // A skip that comes with `--nocapture` may stand behind libtest's own "test name ... ".
        if let Some(start) = line.find("SKIP: ") {
            self.skipped.push(line[start..].to_owned());
            return true;
        }
        if let Some(counts) = line.strip_prefix("test result: ") {
            let count = |what: &str| {
                let part = counts.split([';', '.']).find(|part| part.ends_with(what));
                part.and_then(|part| part.trim().split(' ').next()?.parse::<u32>().ok()).unwrap_or(0)
            };
            self.passed += count(" passed");
            self.failed += count(" failed");
            return true;
        }
        if let Some((name, reason)) =
            line.strip_prefix("test ").and_then(|line| line.split_once(" ... ignored"))
        {
            self.skipped.push(format!("SKIP: {name}: ignored{reason}"));
            // libtest does not count it as passed.
            self.passed += 1;
            return true;
        }
        !(self.in_successes || line.is_empty() || line.ends_with(" ... ok") || line.starts_with("running "))
    }

    fn add_to(self, tally: &mut Tally) {
        let skipped = u32::try_from(self.skipped.len()).unwrap_or(u32::MAX);
        tally.passed += self.passed.saturating_sub(skipped);
        tally.failed += self.failed;
        tally.skipped.extend(self.skipped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_passed_failed_skipped_and_ignored() {
        let output = "\nrunning 5 tests\ntest a ... ok\ntest b ... FAILED\ntest c ... ok\ntest d ... ignored, slow\n\
                      test e ... ok\n\nsuccesses:\n\n---- c stdout ----\nSKIP: c: needs root\nchatter\n\nsuccesses:\n    a\n    c\n\n\
                      failures:\n\n---- b stdout ----\nassertion failed\n\nfailures:\n    b\n\n\
                      test result: FAILED. 3 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        let mut reader = Reader::default();
        let shown: Vec<&str> = output.lines().filter(|line| reader.line(line)).collect();
        let mut tally = Tally::default();
        reader.add_to(&mut tally);
        assert_eq!((tally.passed, tally.failed), (2, 1));
        assert_eq!(tally.skipped, ["SKIP: d: ignored, slow", "SKIP: c: needs root"]);
        assert!(
            shown.contains(&"assertion failed")
                && !shown.contains(&"chatter")
                && !shown.contains(&"test a ... ok")
        );
    }
}
