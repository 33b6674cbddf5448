//! `sbcctl check FILE`, and what `sbcd --check` says: whether a configuration is right, and what it would do.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use super::status::media_table;
use super::{print_json, table};
use crate::admin::dto::{MediaAddress, SCHEMA};
use crate::config::{Config, Host, LoadError, OtherHost, RecordTo, Report, ThisHost};

/// The object of `--json`.
#[derive(Debug, Serialize)]
struct Outcome {
    schema: u32,
    /// The file.
    file: String,
    /// Whether the daemon would run with it.
    valid: bool,
    errors: usize,
    warnings: usize,
    diagnostics: Vec<Located>,
}

#[derive(Debug, Serialize)]
struct Located {
    /// `error` or `warning`.
    severity: String,
    /// From 1.
    line: usize,
    /// From 1, in characters.
    column: usize,
    /// Dotted path of the key; empty for the file as a whole.
    key: String,
    message: String,
    /// What would be right.
    allowed: Option<String>,
}

/// Checks a file and says what the daemon would do with it.
///
/// # Errors
/// The file cannot be read, or nothing can be printed.
pub(super) fn run(file: &Path, elsewhere: bool, json: bool) -> anyhow::Result<ExitCode> {
    let host: &dyn Host = if elsewhere { &OtherHost } else { &ThisHost };
    let (config, report) = match Config::load(file, host) {
        Ok((config, report)) => (Some(config), report),
        Err(LoadError::Invalid(report)) => (None, report),
        Err(error @ LoadError::Read { .. }) => return Err(error.into()),
    };
    print_report(&report)?;
    if json {
        print_json(&outcome(&report))?;
    } else if let Some(config) = &config {
        io::stdout().write_all(summary(config).as_bytes())?;
    }
    Ok(if config.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Every problem with its line, to stderr.
///
/// # Errors
/// The system's.
pub fn print_report(report: &Report) -> io::Result<()> {
    let mut stderr = io::stderr();
    stderr.write_all(report.render(stderr.is_terminal()).as_bytes())?;
    match report.errors() {
        0 => Ok(()),
        1 => writeln!(stderr, "{}: 1 error", report.file.display()),
        errors => writeln!(stderr, "{}: {errors} errors", report.file.display()),
    }
}

fn outcome(report: &Report) -> Outcome {
    let located = report.diagnostics.iter().map(|diagnostic| {
        let (line, column) = report.position(diagnostic.span.start);
        Located {
            severity: diagnostic.severity.to_string(),
            line,
            column,
            key: diagnostic.key.clone(),
            message: diagnostic.message.clone(),
            allowed: diagnostic.allowed.clone(),
        }
    });
    Outcome {
        schema: SCHEMA,
        file: report.file.display().to_string(),
        valid: report.errors() == 0,
        errors: report.errors(),
        warnings: report.diagnostics.len() - report.errors(),
        diagnostics: located.collect(),
    }
}

/// What the daemon would do, with what would carry its media.
///
/// # Errors
/// Nothing can be printed.
pub fn print_summary(config: &Config, media: &[MediaAddress]) -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(summary(config).as_bytes())?;
    writeln!(stdout, "\n{}", media_table(media))
}

/// What the daemon would do with a configuration, for a person.
fn summary(config: &Config) -> String {
    let engine = &config.engine;
    let realm = |index: u16| engine.realms.get(usize::from(index)).map_or("", |realm| realm.name.as_str());
    let trunk = |index: u16| engine.trunks.get(usize::from(index)).map_or("", |trunk| trunk.name.as_str());

    let mut out = format!("instance {}: up to {} calls\n", config.instance, engine.max_calls);
    let mut addresses = table(&["REALM", "WHAT", "BIND", "ADVERTISED"]);
    for listener in &engine.listeners {
        addresses.add_row([
            realm(listener.realm.0),
            &format!("sip {}", listener.transport),
            &listener.bind.to_string(),
            &listener.advertised.to_string(),
        ]);
    }
    for realm in &engine.realms {
        let ports = format!("{}-{}", realm.media.ports.start(), realm.media.ports.end());
        addresses.add_row([
            realm.name.as_str(),
            "media",
            &format!("{} ports {ports}", realm.media.bind),
            &realm.media.advertised.to_string(),
        ]);
    }
    // Writing to a String does not fail.
    let _ = writeln!(out, "\n{}", addresses.trim_fmt());

    let mut trunks = table(&["TRUNK", "REALM", "FROM", "NEXT HOP", "CALLS GO TO"]);
    for (index, peer) in engine.trunks.iter().enumerate() {
        let sources: Vec<String> =
            peer.sources.iter().map(|source| format!("{}/{}", source.addr, source.len)).collect();
        let next_hop = peer.next_hop.map_or_else(
            || "-".to_owned(),
            |hop| {
                let listener = engine.listeners.get(usize::from(hop.listener.0));
                let transport = listener.map_or(String::new(), |listener| format!("{} ", listener.transport));
                format!("{transport}{}", hop.remote)
            },
        );
        let route = engine.routes.iter().find(|route| usize::from(route.from.0) == index);
        trunks.add_row([
            peer.name.as_str(),
            realm(peer.realm.0),
            &sources.join(", "),
            &next_hop,
            route.map_or("nowhere", |route| trunk(route.to.0)),
        ]);
    }
    let _ = writeln!(out, "\n{}", trunks.trim_fmt());
    let records = match &config.daemon.record {
        RecordTo::Log => "the log".to_owned(),
        RecordTo::File(path) => path.display().to_string(),
    };
    let _ = writeln!(out, "\noperators at {}, call records to {records}", config.daemon.socket.display());
    out
}
