//! `sbcctl deny`, `sbcctl allow`, `sbcctl block`.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use hyper::Method;

use super::{ask, order, print_json, table};
use crate::admin::dto::{Changed, DenyList, Prefixes};

/// Exit code of wrong usage.
const USAGE: u8 = 2;

/// What to do with the deny list.
#[derive(Debug, Subcommand)]
pub(super) enum DenyAction {
    /// Show who is denied: source, reason, since when, until when, packets dropped.
    List,
    /// Take from sources again, at once.
    Remove {
        /// IPv4 addresses, and IPv6 addresses or /64s.
        #[arg(required = true)]
        sources: Vec<String>,
    },
    /// Take from everybody again who is denied.
    Clear {
        /// Do it: it cannot be undone.
        #[arg(long)]
        yes: bool,
    },
}

/// What to do with a list of prefixes.
#[derive(Debug, Subcommand)]
pub(super) enum ListAction {
    /// Show the list.
    List,
    /// Put an address or prefix on it.
    Add {
        /// For example 203.0.113.9 or 203.0.113.0/24.
        prefix: String,
        /// Do it, where it cuts somebody off (block list).
        #[arg(long)]
        yes: bool,
    },
    /// Take an address or prefix off it, exactly as it was put on.
    Remove {
        /// For example 203.0.113.9 or 203.0.113.0/24.
        prefix: String,
    },
}

pub(super) fn deny(socket: &Path, action: &DenyAction, json: bool) -> anyhow::Result<ExitCode> {
    match action {
        DenyAction::List => {
            let list: DenyList = ask(socket, "/v1/deny")?;
            if json {
                print_json(&list)?;
            } else {
                io::stdout().write_all(render_denied(&list).as_bytes())?;
            }
            Ok(ExitCode::SUCCESS)
        }
        DenyAction::Remove { sources } => {
            let resources: Vec<String> = sources.iter().map(|source| format!("/v1/deny/{source}")).collect();
            change_all(socket, &Method::DELETE, &resources, json)
        }
        DenyAction::Clear { yes: true } => change(socket, Method::DELETE, "/v1/deny", json),
        DenyAction::Clear { yes: false } => unconfirmed("everybody who is denied would be heard again"),
    }
}

pub(super) fn allow(socket: &Path, action: &ListAction, json: bool) -> anyhow::Result<ExitCode> {
    list(socket, "/v1/allow", action, json)
}

pub(super) fn block(socket: &Path, action: &ListAction, json: bool) -> anyhow::Result<ExitCode> {
    match action {
        ListAction::Add { prefix, yes: false } => unconfirmed(&format!(
            "nothing would be taken from {prefix} any more, its connections would be closed"
        )),
        ListAction::List | ListAction::Add { yes: true, .. } | ListAction::Remove { .. } => {
            list(socket, "/v1/block", action, json)
        }
    }
}

fn list(socket: &Path, resource: &str, action: &ListAction, json: bool) -> anyhow::Result<ExitCode> {
    match action {
        ListAction::List => {
            let list: Prefixes = ask(socket, resource)?;
            if json {
                print_json(&list)?;
            } else {
                io::stdout().write_all(render_prefixes(&list).as_bytes())?;
            }
            Ok(ExitCode::SUCCESS)
        }
        ListAction::Add { prefix, .. } => change(socket, Method::PUT, &format!("{resource}/{prefix}"), json),
        ListAction::Remove { prefix } => {
            change(socket, Method::DELETE, &format!("{resource}/{prefix}"), json)
        }
    }
}

fn change(socket: &Path, method: Method, resource: &str, json: bool) -> anyhow::Result<ExitCode> {
    change_all(socket, &method, &[resource.to_owned()], json)
}

/// One after the other; the first that is refused is where it ends.
fn change_all(socket: &Path, method: &Method, resources: &[String], json: bool) -> anyhow::Result<ExitCode> {
    let mut changed = Changed::default();
    for resource in resources {
        let one: Changed = order(socket, method.clone(), resource)?;
        changed = Changed { changed: changed.changed + one.changed, ..one };
    }
    if json {
        print_json(&changed)?;
    } else {
        let entries = if changed.changed == 1 { "entry" } else { "entries" };
        writeln!(io::stdout(), "done: {} {entries}", changed.changed)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn unconfirmed(what: &str) -> anyhow::Result<ExitCode> {
    writeln!(io::stderr(), "sbcctl: {what}; nothing is done without --yes")?;
    Ok(ExitCode::from(USAGE))
}

fn render_denied(list: &DenyList) -> String {
    if list.denied.is_empty() {
        return "nobody is denied\n".to_owned();
    }
    let mut rows = table(&["SOURCE", "REASON", "OVER", "SINCE", "UNTIL", "PACKETS"]);
    for denied in &list.denied {
        rows.add_row([
            denied.source.clone(),
            denied.reason.clone(),
            denied.scope.clone(),
            denied.since.clone(),
            denied.until.clone().unwrap_or_else(|| "removed".to_owned()),
            denied.packets.to_string(),
        ]);
    }
    format!("{}\n", rows.trim_fmt())
}

fn render_prefixes(list: &Prefixes) -> String {
    if list.prefixes.is_empty() {
        return "the list is empty\n".to_owned();
    }
    list.prefixes.iter().fold(String::new(), |mut text, prefix| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{prefix}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::dto::Denied;

    #[test]
    fn a_denied_source_shows_why_and_until_when() {
        let denied = |source: &str, until: Option<&str>| Denied {
            source: source.to_owned(),
            reason: "flood".to_owned(),
            scope: "udp".to_owned(),
            since: "2023-11-14T22:13:20.000Z".to_owned(),
            until: until.map(ToOwned::to_owned),
            packets: 77,
        };
        let denied =
            vec![denied("203.0.113.5", Some("2023-11-14T23:13:20.000Z")), denied("2001:db8::/64", None)];
        let text = render_denied(&DenyList { schema: 1, denied });
        let expected = [
            " SOURCE         REASON  OVER  SINCE                     UNTIL                     PACKETS",
            " 203.0.113.5    flood   udp   2023-11-14T22:13:20.000Z  2023-11-14T23:13:20.000Z  77",
            " 2001:db8::/64  flood   udp   2023-11-14T22:13:20.000Z  removed                   77",
        ];
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(lines, expected, "\n{text}");
        assert_eq!(render_denied(&DenyList { schema: 1, denied: Vec::new() }), "nobody is denied\n");
        let prefixes = vec!["192.0.2.0/24".to_owned(), "203.0.113.9".to_owned()];
        assert_eq!(render_prefixes(&Prefixes { schema: 1, prefixes }), "192.0.2.0/24\n203.0.113.9\n");
    }
}
