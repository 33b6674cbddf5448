//! What is around the interfaces: ports, descriptors, what other daemons left, the clock.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use super::{Finding, Patient, Report, Severity};
use crate::dataplane::planes::reserved::to_text;
use crate::dataplane::xdp::inspect::ABI;

/// Descriptors besides those of media and connections: maps, listeners, files, the runtime's own.
const OTHER_DESCRIPTORS: u64 = 256;
/// A relayed call with one stream: RTP and RTCP on both sides.
const SOCKETS_OF_A_CALL: u64 = 4;
/// A clock before this (2025-01-01) has never been set.
const NEVER_SET: Duration = Duration::from_secs(1_735_689_600);

pub(super) fn check(patient: &Patient<'_>, report: &mut Report) {
    report.add(reserved_ports(patient));
    report.add(descriptors(patient));
    pins(patient, report);
    report.add(clock(patient));
}

/// Whether another program may be given one of our ports.
fn reserved_ports(patient: &Patient<'_>) -> Finding {
    const ID: &str = "reserved-ports";
    const SUBJECT: &str = "ports";
    let media = patient.media.iter().flat_map(|media| media.ports.clone());
    let listeners = patient.config.engine.listeners.iter().map(|listener| listener.bind.port());
    let system = &patient.system;
    let ours: BTreeSet<u16> =
        media.chain(listeners).filter(|port| system.local_ports.contains(port)).collect();
    let open: BTreeSet<u16> = ours.difference(&system.reserved_ports).copied().collect();
    if open.is_empty() {
        return Finding::ok(ID, SUBJECT, "no other program is given one of our ports");
    }
    let (severity, why) = if patient.running.is_some() {
        (
            Severity::Warning,
            "the kernel may give one to any program that asks for a port; a call that needs it then fails. The \
             daemon reserves its ports when it starts: something took them off the list",
        )
    } else {
        (
            Severity::Note,
            "the daemon reserves them when it starts; until then the kernel may give one to any program",
        )
    };
    let all: BTreeSet<u16> = system.reserved_ports.union(&open).copied().collect();
    let set = format!("net.ipv4.ip_local_reserved_ports={}", to_text(&all));
    Finding::bad(ID, severity, SUBJECT, format!("{} are not reserved", to_text(&open)), why)
        .mend(format!("sysctl -w {set}"))
        .mend(format!("echo {set} > /etc/sysctl.d/90-sbc-ports.conf"))
}

/// Whether the relay can open as many sockets as it may have to.
fn descriptors(patient: &Patient<'_>) -> Finding {
    const ID: &str = "descriptors";
    let subject = patient.running.map_or_else(|| "process limits".to_owned(), |pid| format!("process {pid}"));
    let Some(limit) = patient.descriptors else {
        return Finding::bad(
            ID,
            Severity::Note,
            subject,
            "the limit of open files cannot be seen",
            "where the kernel does not steer ports to it, the relay takes a descriptor for each",
        );
    };
    let ports: u64 = patient.media.iter().map(|media| media.ports.len() as u64).sum();
    let calls = patient.config.engine.max_calls as u64;
    let relayed = calls.saturating_mul(SOCKETS_OF_A_CALL).min(ports);
    let needed = relayed + patient.config.connections.total as u64 + OTHER_DESCRIPTORS;
    let what = if limit == u64::MAX {
        "any number of open files".to_owned()
    } else {
        format!("at most {limit} open files; {needed} if every call is relayed")
    };
    if limit >= needed {
        return Finding::ok(ID, subject, what);
    }
    Finding::bad(
        ID,
        Severity::Warning,
        subject,
        what,
        "where the kernel does not steer ports to it, the relay takes a descriptor for each: calls fail when there are no more",
    )
    .mend(format!("systemctl edit sbcd    # [Service] LimitNOFILE={needed}"))
    .mend(format!(
        "prlimit --nofile={needed}:{needed} --pid $$    # for a daemon started by hand from this shell"
    ))
}

/// What daemons that no longer run left on the BPF file system.
fn pins(patient: &Patient<'_>, report: &mut Report) {
    const ID: &str = "pins";
    let mut clean = true;
    for pinned in &patient.pinned {
        let own = pinned.instance == patient.config.instance;
        if (own && pinned.abi == ABI) || (!own && pinned.running.is_some()) {
            continue;
        }
        clean = false;
        let forwards = if pinned.interfaces.is_empty() {
            "they hold memory".to_owned()
        } else {
            format!("their program still runs on {}", pinned.interfaces.join(", "))
        };
        let (severity, what) = if own {
            (
                Severity::Warning,
                format!("pins of layout {} are left; this version has layout {ABI}", pinned.abi),
            )
        } else {
            (Severity::Note, format!("pins of instance {}, which does not run, are left", pinned.instance))
        };
        report.add(
            Finding::bad(ID, severity, pinned.path.display().to_string(), what, forwards)
                .mend(format!("if nothing needs them: rm -r {}", pinned.path.display())),
        );
    }
    if clean {
        report.add(Finding::ok(ID, "/sys/fs/bpf/sbc", "nothing is left of other daemons"));
    }
}

fn clock(patient: &Patient<'_>) -> Finding {
    const ID: &str = "clock";
    const SUBJECT: &str = "clock";
    if patient.system.now < SystemTime::UNIX_EPOCH + NEVER_SET {
        return Finding::bad(
            ID,
            Severity::Fault,
            SUBJECT,
            "has never been set",
            "no certificate is valid yet: TLS fails; call records carry wrong times",
        )
        .mend("timedatectl set-ntp true");
    }
    match patient.system.clock_synchronised {
        Some(true) => Finding::ok(ID, SUBJECT, "is kept right"),
        Some(false) => Finding::bad(
            ID,
            Severity::Warning,
            SUBJECT,
            "nothing keeps it right",
            "call records and the validity of certificates depend on it",
        )
        .mend("apt-get install chrony")
        .mend("chronyc waitsync 6"),
        None => Finding::bad(
            ID,
            Severity::Note,
            SUBJECT,
            "the kernel does not tell whether something keeps it right",
            "call records and the validity of certificates depend on it",
        ),
    }
}
