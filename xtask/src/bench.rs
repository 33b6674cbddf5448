//! `cargo xtask bench`: builds a bench in release mode and passes its result through.

use anyhow::{Result, bail};

use crate::build_ebpf;
use crate::run::{cargo, target_dir};
use crate::setup::{self, HostCannot, Tool};

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
    /// Forward RTP frames in the kernel, beside a bare redirect, nftables and rtpengine
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
    if matches!(arguments.bench, Bench::Dataplane) {
        if !sbc_tests::is_root() {
            bail!(HostCannot("namespaces and kernel programs need root".into()));
        }
        setup::require(
            &setup::NETWORK.iter().chain(&setup::FILTER).chain(&setup::CLIENTS[..1]).collect::<Vec<&Tool>>(),
        )?;
        if let Err(error) = setup::require(&setup::CONTENDERS.iter().collect::<Vec<&Tool>>()) {
            // Not fatal: the result says that it was not measured.
            eprintln!("{error:#}");
        }
        let objects = build_ebpf::build()?;
        let mut daemon = cargo(&["build", "--quiet", "--release", "--package", "sbc-user", "--bins"]);
        crate::run::run(daemon.env("SBC_EBPF_OBJECT", &objects.sbc))?;
        command.env("SBC_EBPF_OBJECT", objects.sbc).env("SBC_BENCH_OBJECT", objects.bench);
        command.env("SBC_BIN_DIR", target_dir().join("release"));
    }
    crate::run::run(&mut command)
}
