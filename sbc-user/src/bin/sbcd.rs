//! The daemon: parses its arguments and calls the library.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sbc_user::config::{Config, DEFAULT_PATH, LoadError, ThisHost};
use sbc_user::{app, cli, observe};

/// The session border controller: SIP over UDP, TCP and TLS, media forwarded by XDP.
///
/// Runs in the foreground until it is told to stop. SIGTERM or SIGINT: no new calls, and the calls in progress have
/// `stop_grace_seconds` to end; a second signal ends them at once; a third leaves them behind. SIGHUP: the file of
/// call records is opened anew.
#[derive(Debug, Parser)]
#[command(
    name = "sbcd",
    version,
    after_help = "While it runs, ask it: sbcctl status, sbcctl calls.
The log goes to the journal under systemd, else to stderr; SBC_LOG filters it (for example SBC_LOG=debug).

Exit codes: 0 stopped as told, 1 failed (wrong configuration, or it could not start), 2 wrong usage."
)]
struct Arguments {
    /// The configuration file. Commented examples come with the sources, in sbc-user/config.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Check the configuration, say what would be done, and stop.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "sbcd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match Config::load(&arguments.config, &ThisHost) {
        Ok((config, report)) => {
            cli::check::print_report(&report)?;
            if arguments.check {
                cli::check::print_summary(&config, &app::survey(&config)?)?;
                return Ok(ExitCode::SUCCESS);
            }
            observe::log::start();
            app::run(&config)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(LoadError::Invalid(report)) => {
            cli::check::print_report(&report)?;
            Ok(ExitCode::FAILURE)
        }
        Err(error @ LoadError::Read { .. }) => Err(error.into()),
    }
}
