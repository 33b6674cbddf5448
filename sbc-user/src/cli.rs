//! `sbcctl`: one file for each command. Tables for people on stdout; with `--json` the last line of stdout is one
//! object. Exit codes: 0 passed, 1 failed, 2 usage.

mod calls;
pub mod check;
mod doctor;
mod firewall;
mod guard;
mod reconcile;
mod status;
mod trace;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

use crate::admin::dto::{Failure, SCHEMA};
use crate::config::{DEFAULT_PATH, DEFAULT_SOCKET};

/// Ask a running session border controller how it is, or check a configuration and its host before it runs.
#[derive(Debug, Parser)]
#[command(
    name = "sbcctl",
    version,
    after_help = "Examples:
  sbcctl status                    is it serving? how many calls, what was dropped and why
  sbcctl calls                     who talks to whom, and what carries their media
  sbcctl calls --json | jq .       the same for a script
  sbcctl deny list                 who was shut out, why, until when
  sbcctl allow add 203.0.113.0/24  a source that no limit shall hold
  sbcctl trace source 203.0.113.9 --follow   what becomes of its packets
  sbcctl check /etc/sbc/sbc.toml   before a restart: every error with its line
  sbcctl firewall /etc/sbc/sbc.toml  what a firewall in front must let through
  sbcctl doctor                    what on this host breaks or slows XDP, and the command that mends it

Exit codes: 0 passed, 1 failed (also: the daemon cannot be reached), 2 wrong usage."
)]
pub struct Arguments {
    /// Socket of the daemon (`[daemon] socket` in its configuration).
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Print one JSON object instead of a table; it is the last line of stdout and has "schema": 1.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a configuration file, without a running daemon and without changing anything.
    ///
    /// Reports every error with file, line, column, key and what is allowed. Addresses are compared with this host's.
    Check {
        /// The configuration file.
        file: PathBuf,
        /// The configuration is for another host: do not compare its addresses with this one's.
        #[arg(long)]
        elsewhere: bool,
    },
    /// Show what a firewall in front of the host must let through for a configuration.
    ///
    /// Needs no running daemon. Addresses are those that the other side sees: where a static NAT maps ours, the
    /// advertised ones. Answers go back the way that the packets came.
    Firewall {
        /// The configuration file.
        #[arg(default_value = DEFAULT_PATH)]
        file: PathBuf,
    },
    /// Look at this host for what breaks or slows XDP, and say how to mend it; changes nothing.
    ///
    /// Looks at the kernel, at each interface that holds a media address of the configuration, at packet filter rules
    /// that forwarded media passes by, at ports, limits, the clock, and at what other daemons left. Run it as root in
    /// the daemon's network namespace. Exit codes: 0 no fault, 1 at least one, 2 wrong usage, 3 it cannot look.
    Doctor {
        /// The configuration file.
        #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
        config: PathBuf,
        /// Show also what is right.
        #[arg(long)]
        all: bool,
    },
    /// Show how the daemon is: calls, sockets, interfaces, and what it counted.
    ///
    /// "media kernel" means that XDP forwards that interface's RTP; "media relay" that the daemon itself does, with
    /// the reason. Counters that are zero are not shown; --json has all.
    Status,
    /// Show or change who is denied: sources that sent more than the guard lets through, rubbish, or a scan.
    ///
    /// A denial over "udp" leaves TCP and TLS alone: the source of a datagram may be forged. Packets are those that the
    /// kernel dropped.
    Deny {
        #[command(subcommand)]
        action: guard::DenyAction,
    },
    /// Show or change the allow list: sources that no limit holds. Configured peers need not be on it.
    ///
    /// Changes outlive the daemon, over what stands in `[guard] allow` of the configuration.
    Allow {
        #[command(subcommand)]
        action: guard::ListAction,
    },
    /// Show or change the block list: sources from which nothing is taken, not even from a configured peer.
    ///
    /// Changes outlive the daemon, over what stands in `[guard] block` of the configuration.
    Block {
        #[command(subcommand)]
        action: guard::ListAction,
    },
    /// Tell what becomes of chosen packets, one by one: outcome, from, to, and how they left.
    ///
    /// Costs nothing while no trace runs: the kernel gets another program for its time. At most 100 packets in a second
    /// are told of, the others counted. They are in the daemon's log too (target "trace", level DEBUG), with addresses.
    Trace {
        #[command(subcommand)]
        action: trace::TraceAction,
    },
    /// Show the calls that are up: state, both sides, and what carries each media stream.
    ///
    /// Packets are counted where they are forwarded: "->" from the caller to the called side, "<-" back.
    Calls,
    /// Compare what the kernel should hold with what it holds (program, addresses, next hops, flows), and mend it.
    ///
    /// Changes nothing that is right, calls do not notice. Exit codes: 0 everything is right now, 1 something is not.
    Reconcile,
}

/// Runs the command.
#[must_use]
pub fn run(arguments: &Arguments) -> ExitCode {
    let done = match &arguments.command {
        Command::Check { file, elsewhere } => check::run(file, *elsewhere, arguments.json),
        Command::Doctor { config, all } => Ok(doctor::run(config, *all, arguments.json)),
        Command::Firewall { file } => firewall::run(file, arguments.json),
        Command::Status => status::run(&arguments.socket, arguments.json),
        Command::Deny { action } => guard::deny(&arguments.socket, action, arguments.json),
        Command::Allow { action } => guard::allow(&arguments.socket, action, arguments.json),
        Command::Block { action } => guard::block(&arguments.socket, action, arguments.json),
        Command::Trace { action } => trace::run(&arguments.socket, action, arguments.json),
        Command::Calls => calls::run(&arguments.socket, arguments.json),
        Command::Reconcile => reconcile::run(&arguments.socket, arguments.json),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            if arguments.json {
                let _ = print_json(&Failure { schema: SCHEMA, error: format!("{error:#}") });
            }
            let _ = writeln!(io::stderr(), "sbcctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Asks the daemon for a change of a resource.
fn order<T: serde::de::DeserializeOwned>(
    socket: &std::path::Path,
    method: hyper::Method,
    resource: &str,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(crate::admin::client::order(socket, method, resource))
}

/// Asks the daemon for a resource.
fn ask<T: serde::de::DeserializeOwned>(socket: &std::path::Path, resource: &str) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(crate::admin::client::get(socket, resource))
}

/// One object on one line.
fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let line = serde_json::to_string(value)?;
    Ok(writeln!(io::stdout(), "{line}")?)
}

/// A table without lines, as wide as its content or the terminal.
fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(header);
    table
}
