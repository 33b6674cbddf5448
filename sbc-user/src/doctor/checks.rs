//! The checks, in the order in which an operator mends: kernel first, then each interface, then what is around.

mod driver;
mod filter;
mod host;
mod kernel;
mod offload;
mod place;
mod spread;

use super::report::{Finding, Report, Severity};
use super::{Device, Patient};

/// Looks at everything.
pub(super) fn all(patient: &Patient<'_>) -> Report {
    let mut report = Report::default();
    kernel::check(&patient.system, &mut report);
    place::check(patient, &mut report);
    if patient.config.daemon.xdp {
        for device in &patient.devices {
            driver::check(patient, device, &mut report);
            offload::check(device, &mut report);
            spread::check(patient.system.cpus, device, &mut report);
        }
        offload::check_counted(patient, &mut report);
        filter::check(patient, &mut report);
    } else {
        report.add(Finding::bad(
            "xdp",
            Severity::Note,
            "configuration",
            "XDP is switched off: the daemon relays all media itself",
            "interfaces were not looked at",
        ));
    }
    host::check(patient, &mut report);
    report
}
