//! `cargo xtask bench dataplane`: what the kernel side costs and what it is compared with. The last line of stdout is
//! the result; it passes if nothing that is to be reached was missed.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use anyhow::Result;
use sbc_bench::dataplane::kernel::Feature;
use sbc_bench::dataplane::report::{Report, Target};
use sbc_bench::dataplane::{flood, guard, host, memory, rate, run};

const FLOWS: [u32; 3] = [1000, 65_536, 262_144];

fn main() -> ExitCode {
    if !sbc_tests::is_root() {
        eprintln!("error: needs root, for namespaces and kernel programs");
        return ExitCode::from(3);
    }
    match measure() {
        Ok(report) => {
            eprint!("{}", report.text());
            println!("{}", report.json());
            let missed = report.targets().iter().any(Target::is_missed);
            if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<Report> {
    eprintln!("==> rates of {} flows, every contender in turns", rate::FLOWS);
    let mut report = Report { rates: rate::measure()?, ..Report::default() };
    for flows in FLOWS {
        eprintln!("==> cost of a packet at {flows} flows");
        for feature in Feature::ALL {
            report.costs.insert((feature, flows), run::cost(flows, feature)?);
        }
    }
    eprintln!("==> the guard beside a bare drop");
    report.guard = Some(guard::measure()?);
    eprintln!("==> calls under a flood");
    report.flood = Some(flood::measure()?);
    (report.memory, report.host) = (Some(memory::measure()?), host::describe());
    Ok(report)
}
