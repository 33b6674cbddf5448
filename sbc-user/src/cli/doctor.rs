//! `sbcctl doctor`.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use super::check::print_report;
use super::print_json;
use crate::admin::dto::{Failure, SCHEMA};
use crate::config::{Config, LoadError, OtherHost};
use crate::doctor::{Finding, Report, Severity, ThisHost, examine};

/// What was to be looked at cannot be.
const CANNOT_LOOK: u8 = 3;

/// The object of `--json`.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    schema: u32,
    faults: usize,
    warnings: usize,
    notes: usize,
    findings: &'a [Finding],
}

pub(super) fn run(config: &Path, all: bool, json: bool) -> ExitCode {
    match look(config).and_then(|report| print(&report, all, json).map(|()| report)) {
        Ok(report) if report.count(Severity::Fault) == 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            if json {
                let _ = print_json(&Failure { schema: SCHEMA, error: format!("{error:#}") });
            }
            let _ = writeln!(io::stderr(), "sbcctl: {error:#}");
            ExitCode::from(CANNOT_LOOK)
        }
    }
}

fn look(file: &Path) -> anyhow::Result<Report> {
    // An address that this host has not is a finding here, not a reason to stop.
    match Config::load(file, &OtherHost) {
        Ok((config, _)) => Ok(examine(&config, &ThisHost)?),
        Err(LoadError::Invalid(report)) => {
            print_report(&report)?;
            anyhow::bail!("{} is not a valid configuration", file.display())
        }
        Err(error @ LoadError::Read { .. }) => Err(error.into()),
    }
}

fn print(report: &Report, all: bool, json: bool) -> anyhow::Result<()> {
    if json {
        print_json(&Outcome {
            schema: SCHEMA,
            faults: report.count(Severity::Fault),
            warnings: report.count(Severity::Warning),
            notes: report.count(Severity::Note),
            findings: &report.findings,
        })
    } else {
        Ok(io::stdout().write_all(render(report, all).as_bytes())?)
    }
}

/// Every finding that is not right, the worst first; those that are, if `all`.
fn render(report: &Report, all: bool) -> String {
    let mut out = String::new();
    let mut shown: Vec<&Finding> =
        report.findings.iter().filter(|finding| all || finding.severity > Severity::Ok).collect();
    shown.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    for Finding { id, severity, subject, what, why, mend } in shown {
        // Writing to a String does not fail.
        let _ = writeln!(out, "{severity:<7} {id}: {subject}: {what}");
        if !why.is_empty() {
            let _ = writeln!(out, "        why:  {why}");
        }
        for command in mend {
            let _ = writeln!(out, "        mend: {command}");
        }
    }
    let count = |severity, one: &str| {
        let count = report.count(severity);
        format!("{count} {one}{}", if count == 1 { "" } else { "s" })
    };
    let _ = writeln!(
        out,
        "{}, {}, {}, {} right",
        count(Severity::Fault, "fault"),
        count(Severity::Warning, "warning"),
        count(Severity::Note, "note"),
        report.count(Severity::Ok)
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_comes_first_and_what_is_right_is_counted() {
        let findings = vec![
            Finding::ok("btf", "kernel", "describes its types"),
            Finding::bad("clock", Severity::Warning, "clock", "runs alone", "records need it").mend("set it"),
            Finding::bad("lro", Severity::Fault, "eth0", "LRO is on", "merged")
                .mend("ethtool -K eth0 lro off"),
        ];
        let report = Report { findings };
        let expected = "FAULT   lro: eth0: LRO is on
        why:  merged
        mend: ethtool -K eth0 lro off
warning clock: clock: runs alone
        why:  records need it
        mend: set it
1 fault, 1 warning, 0 notes, 1 right
";
        assert_eq!(render(&report, false), expected);
        assert!(render(&report, true).contains("ok      btf: kernel: describes its types\n"));
    }
}
