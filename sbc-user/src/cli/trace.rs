//! `sbcctl trace`.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use hyper::Method;

use super::{ask, order, print_json};
use crate::admin::dto::{Trace, TracedLine};

/// How often a follower asks.
const PERIOD: Duration = Duration::from_millis(300);

/// What to do with the trace.
#[derive(Debug, Subcommand)]
pub(super) enum TraceAction {
    /// Trace packets from an address.
    Source {
        /// For example 203.0.113.9 or 2001:db8::9.
        address: String,
        #[command(flatten)]
        how: How,
    },
    /// Trace packets of a flow: from or to this address and port, as they arrive or as they leave.
    Flow {
        /// Ours or the peer's, for example 192.0.2.1:20000 or `[2001:db8::1]:20000`.
        address: String,
        #[command(flatten)]
        how: How,
    },
    /// Show what is traced, and the last packets.
    Show,
    /// End the trace now.
    Off,
}

/// How long, and whether to stay.
#[derive(Debug, Args)]
pub(super) struct How {
    /// How long the trace lasts, 3600 at most.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Print packets as they come, until the trace is over.
    #[arg(long)]
    follow: bool,
}

pub(super) fn run(socket: &Path, action: &TraceAction, json: bool) -> anyhow::Result<ExitCode> {
    let (trace, follow): (Trace, bool) = match action {
        TraceAction::Source { address, how } => (begin(socket, "source", address, how)?, how.follow),
        TraceAction::Flow { address, how } => (begin(socket, "flow", address, how)?, how.follow),
        TraceAction::Show => (ask(socket, "/v1/trace")?, false),
        TraceAction::Off => (order(socket, Method::DELETE, "/v1/trace")?, false),
    };
    if !json {
        writeln!(io::stdout(), "{}", head(&trace))?;
    }
    let last = follow_lines(socket, trace, follow, json)?;
    if json {
        print_json(&last)?;
    } else if last.suppressed > 0 {
        writeln!(io::stdout(), "{} packets were not told of: there were too many", last.suppressed)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn begin(socket: &Path, what: &str, address: &str, how: &How) -> anyhow::Result<Trace> {
    // Brackets of an IPv6 address do not stand in a path.
    let address = address.replace('[', "%5B").replace(']', "%5D");
    order(socket, Method::PUT, &format!("/v1/trace/{what}/{address}/{}", how.seconds))
}

/// Prints the lines, and those that follow; the last state, with all lines if they were not printed.
fn follow_lines(socket: &Path, mut trace: Trace, follow: bool, json: bool) -> anyhow::Result<Trace> {
    let mut kept = Vec::new();
    let mut last = 0;
    loop {
        for line in std::mem::take(&mut trace.packets) {
            last = line.number;
            if json {
                kept.push(line);
            } else {
                writeln!(io::stdout(), "{}", render(&line))?;
            }
        }
        if !follow || trace.target.is_none() {
            trace.packets = kept;
            return Ok(trace);
        }
        std::thread::sleep(PERIOD);
        let after = last.max(trace.last);
        trace = ask(socket, &format!("/v1/trace/after/{after}"))?;
    }
}

fn head(trace: &Trace) -> String {
    match (&trace.target, &trace.until) {
        (Some(target), Some(until)) => format!("tracing {target} until {until}"),
        _ => "nothing is traced".to_owned(),
    }
}

fn render(line: &TracedLine) -> String {
    let TracedLine { heard, outcome, interface, from, to, frame_bytes, left, .. } = line;
    let left = left.as_ref().map_or_else(String::new, |left| {
        format!(" => {} > {} {} bytes", left.from, left.to, left.frame_bytes)
    });
    format!("{heard} {outcome} if {interface} {from} > {to} {frame_bytes} bytes{left}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::dto::TracedEnds;

    #[test]
    fn a_packet_is_one_line() {
        let mut line = TracedLine {
            number: 7,
            heard: "2023-11-14T22:13:20.000Z".to_owned(),
            outcome: "forward_other".to_owned(),
            interface: 3,
            from: "203.0.113.5:4000".to_owned(),
            to: "192.0.2.1:20000".to_owned(),
            frame_bytes: 214,
            left: Some(TracedEnds {
                from: "198.51.100.1:20002".to_owned(),
                to: "198.51.100.9:5000".to_owned(),
                frame_bytes: 214,
            }),
        };
        assert_eq!(
            render(&line),
            "2023-11-14T22:13:20.000Z forward_other if 3 203.0.113.5:4000 > 192.0.2.1:20000 214 bytes \
             => 198.51.100.1:20002 > 198.51.100.9:5000 214 bytes"
        );
        (line.left, line.outcome) = (None, "drop_no_flow".to_owned());
        assert!(render(&line).ends_with("drop_no_flow if 3 203.0.113.5:4000 > 192.0.2.1:20000 214 bytes"));
        assert_eq!(head(&Trace::default()), "nothing is traced");
    }
}
