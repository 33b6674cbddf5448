//! The operator's tool: parses its arguments and calls the library.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    sbc_user::cli::run(&sbc_user::cli::Arguments::parse())
}
