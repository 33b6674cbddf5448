//! The kernel: its version, and what of it is switched on.

use super::super::facts::System;
use super::{Finding, Report, Severity};

/// The oldest kernel that this program is meant for: the first long-term one with everything that it uses.
const OLDEST: (u32, u32) = (6, 1);
const SUBJECT: &str = "kernel";

pub(super) fn check(system: &System, report: &mut Report) {
    report.add(version(system));
    report.add(match system.jit {
        Some(true) => Finding::ok("jit", SUBJECT, "programs are compiled"),
        Some(false) => Finding::bad(
            "jit",
            Severity::Warning,
            SUBJECT,
            "the compiler of BPF programs is off",
            "the program is interpreted: several times the processor time for each packet",
        )
        .mend("sysctl -w net.core.bpf_jit_enable=1")
        .mend("echo net.core.bpf_jit_enable=1 > /etc/sysctl.d/90-sbc-jit.conf"),
        None => Finding::bad(
            "jit",
            Severity::Note,
            SUBJECT,
            "whether BPF programs are compiled cannot be seen from this network namespace",
            "interpreted programs cost several times the processor time for each packet",
        )
        .mend("nsenter --net=/proc/1/ns/net sysctl net.core.bpf_jit_enable"),
    });
    report.add(if system.btf {
        Finding::ok("btf", SUBJECT, "describes its types")
    } else {
        Finding::bad(
            "btf",
            Severity::Warning,
            SUBJECT,
            "has no BTF (/sys/kernel/btf/vmlinux)",
            "tools that trace the program (bpftrace, xdpdump) do not work; forwarding does",
        )
        .mend("boot a kernel that is built with CONFIG_DEBUG_INFO_BTF=y, as the distributions' are")
    });
    report.add(if system.bpffs {
        Finding::ok("bpffs", SUBJECT, "bpffs is mounted on /sys/fs/bpf")
    } else {
        Finding::bad(
            "bpffs",
            Severity::Fault,
            SUBJECT,
            "no bpffs on /sys/fs/bpf",
            "the daemon pins its maps and programs there, and does not start without",
        )
        .mend("mount -t bpf bpf /sys/fs/bpf")
        .mend("echo 'bpf /sys/fs/bpf bpf mode=0700 0 0' >> /etc/fstab")
    });
    report.add(if system.missing_map_types.is_empty() {
        Finding::ok("map-types", SUBJECT, "has every type of map that is needed")
    } else {
        Finding::bad(
            "map-types",
            Severity::Fault,
            SUBJECT,
            format!("has no {} maps", system.missing_map_types.join(", ")),
            "the program cannot be loaded",
        )
        .mend("boot a kernel of 6.1 or later that is built with CONFIG_BPF_SYSCALL=y")
    });
}

fn version(system: &System) -> Finding {
    let what = format!("Linux {}", system.kernel_release);
    match parse(&system.kernel_release) {
        Some(version) if version >= OLDEST => Finding::ok("kernel-version", SUBJECT, what),
        Some(_) => Finding::bad(
            "kernel-version",
            Severity::Fault,
            SUBJECT,
            what,
            format!("{}.{} is the oldest that is supported", OLDEST.0, OLDEST.1),
        )
        .mend(
            "install a later kernel, for example with: apt-get install -t stable-backports linux-image-amd64",
        ),
        None => Finding::bad(
            "kernel-version",
            Severity::Warning,
            SUBJECT,
            what,
            "no version that can be read; 6.1 is the oldest that is supported",
        ),
    }
}

/// The first two numbers.
fn parse(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|char: char| !char.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
