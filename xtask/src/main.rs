//! The project's own commands: `cargo xtask <command>`.
//!
//! What each command prints as its result goes to standard output (with `--json` the last line is one object),
//! progress to standard error. Exit status: 0 passed, 1 failed, 2 wrong usage, 3 this host cannot.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

mod bench;
mod build_and_load;
mod build_ebpf;
mod check;
mod demo;
mod run;
mod setup;
mod test;
mod tidy;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Builds, tests, demonstrates and loads the session border controller"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Real calls through a real sbcd, SIP over TLS in, media through the kernel
    Demo(demo::Arguments),
    /// Build, load into the kernel, and run with a configuration of yours
    BuildAndLoad(build_and_load::Arguments),
    /// Install what the other commands need (Debian, as root), or say what is missing
    Setup,
    /// Formatting, clippy, docs and the dependency rule
    Check,
    /// The whole suite; ends with "N passed, M failed, K skipped"
    Test(test::Arguments),
    /// Build the kernel objects and print where they are
    BuildEbpf,
    /// Measure, as ratios in one run
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::BuildAndLoad(arguments) => build_and_load::run(&arguments),
        Command::Setup => setup::everything(),
        Command::Check => check::run(),
        Command::Test(arguments) => test::run(&arguments),
        Command::BuildEbpf => build_ebpf::build().map(|objects| {
            for object in [&objects.sbc, &objects.bench, &objects.steer, &objects.trace] {
                println!("{}", object.display());
            }
        }),
        Command::Bench(arguments) => bench::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if error.is::<setup::HostCannot>() { 3 } else { 1 })
        }
    }
}
