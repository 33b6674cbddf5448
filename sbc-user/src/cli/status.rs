//! `sbcctl status`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use super::{ask, print_json, table};
use crate::admin::dto::{MediaAddress, Status};

pub(super) fn run(socket: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let status: Status = ask(socket, "/v1/status")?;
    if json {
        print_json(&status)?;
    } else {
        io::stdout().write_all(render(&status).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn render(status: &Status) -> String {
    let mut out = String::new();
    let Status { instance, version, state, .. } = status;
    // Writing to a String does not fail.
    let _ =
        writeln!(out, "sbcd {version}, instance {instance}: {state}, up {}", duration(status.uptime_seconds));
    let _ = writeln!(
        out,
        "calls {} of {}; since start {} offered, {} answered, {} failed",
        status.calls, status.max_calls, status.calls_offered, status.calls_answered, status.calls_failed
    );
    let _ = writeln!(
        out,
        "{} media ports in use, {} connections, {} transactions, {} timers",
        status.ports_in_use, status.connections, status.transactions, status.timers
    );
    if status.media_only_calls > 0 {
        let _ = writeln!(
            out,
            "{} calls of the daemon before go on with their media alone: their signalling was lost with it",
            status.media_only_calls
        );
    }
    if status.store_lost > 0 {
        let _ = writeln!(out, "WARNING: {} changes could not be kept for a restart", status.store_lost);
    }
    if status.records_lost > 0 {
        let _ = writeln!(out, "WARNING: {} call records could not be written", status.records_lost);
    }

    let mut listeners = table(&["REALM", "SIP", "BOUND", "ADVERTISED"]);
    for listener in &status.listeners {
        let (bind, advertised) = (listener.bind.to_string(), listener.advertised.to_string());
        listeners.add_row([&listener.realm, &listener.transport, &bind, &advertised]);
    }
    let _ = writeln!(out, "\n{}", listeners.trim_fmt());

    let _ = writeln!(out, "\n{}", media_table(&status.media_addresses));

    let mut counters = table(&["COUNTED BY", "WHAT", "HOW OFTEN"]);
    let mut any = false;
    for (by, counted) in [
        ("sip", &status.engine_counters),
        ("transport", &status.transport_counters),
        ("media", &status.dataplane_counters),
        ("streams of the relay", &status.relay_streams),
    ] {
        for (name, value) in nonzero(counted) {
            counters.add_row([by, name, &value.to_string()]);
            any = true;
        }
    }
    if any {
        let _ = writeln!(out, "\n{}", counters.trim_fmt());
    }
    out
}

/// The addresses of media and what forwards it there.
pub(super) fn media_table(addresses: &[MediaAddress]) -> String {
    let mut media = table(&["REALM", "MEDIA", "PORTS", "INTERFACE", "FORWARDED BY", "WHY NOT THE KERNEL"]);
    for address in addresses {
        media.add_row([
            address.realm.as_str(),
            &address.address.to_string(),
            &format!("{}-{}", address.first_port, address.last_port),
            address.interface.as_deref().unwrap_or("-"),
            address.path.as_str(),
            address.relay_reason.as_deref().unwrap_or(""),
        ]);
    }
    media.trim_fmt()
}

fn nonzero(counters: &BTreeMap<String, u64>) -> impl Iterator<Item = (&str, u64)> {
    counters.iter().filter(|(_, value)| **value > 0).map(|(name, value)| (name.as_str(), *value))
}

/// The two largest units of a time span.
pub(super) fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    if days > 0 {
        format!("{days} d {hours} h")
    } else if hours > 0 {
        format!("{hours} h {minutes} min")
    } else if minutes > 0 {
        format!("{minutes} min {} s", seconds % 60)
    } else {
        format!("{seconds} s")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use sbc_core::command::EngineStatus;

    use super::*;
    use crate::admin::ShellStatus;
    use crate::admin::dto::Facts;

    #[test]
    fn the_table_says_why_streams_are_the_relays() {
        let facts = Facts {
            instance: "test".to_owned(),
            started: Instant::now(),
            listeners: Vec::new(),
            media_addresses: Vec::new(),
        };
        let relay_streams = vec![("no_route", 7), ("other_family", 0)];
        let shell = ShellStatus { relay_streams, ..ShellStatus::default() };
        let out = render(&Status::new(&facts, &EngineStatus::default(), &shell));
        let row = out.lines().find(|line| line.contains("no_route")).expect("a row");
        assert!(row.contains("streams of the relay") && row.trim_end().ends_with('7'), "{row}");
        assert!(!out.contains("other_family"), "{out}");
    }

    #[test]
    fn a_time_span_shows_its_two_largest_units() {
        let spans = [59, 61, 3_599, 7_260, 90_000].map(duration);
        assert_eq!(spans, ["59 s", "1 min 1 s", "59 min 59 s", "2 h 1 min", "1 d 1 h"]);
    }
}
