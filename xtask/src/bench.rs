//! `cargo xtask bench`: builds a bench in release mode and passes its result through.

use anyhow::Result;

use crate::run::cargo;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[arg(value_enum)]
    bench: Bench,
    /// The last line of standard output is one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Bench {
    /// Parse, read and rewrite one INVITE, beside two other parsers
    Parse,
    /// Forward RTP frames in the kernel, beside a bare redirect
    Dataplane,
}

/// The command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let name = match arguments.bench {
        Bench::Parse => "parse",
        Bench::Dataplane => "dataplane",
    };
    let mut command = cargo(&["run", "--quiet", "--release", "--package", "sbc-bench", "--bin", name, "--"]);
    if arguments.json {
        command.arg("--json");
    }
    crate::run::run(&mut command)
}
