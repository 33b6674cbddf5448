//! The driver of an interface: whether it runs our program, what else runs there, and how large its packets may be.

use super::super::facts::Attachment;
use super::{Device, Finding, Patient, Report, Severity};

/// Largest MTU with which a driver takes a program that wants a packet in one piece, from the drivers' sources.
const LARGEST_MTU: [(&str, u32); 7] = [
    ("ena", 3498),
    ("i40e", 3046),
    ("ice", 3046),
    ("ixgbe", 3050),
    ("mlx5_core", 3498),
    ("veth", 3506),
    ("virtio_net", 3506),
];

/// Interfaces that are made of others, and what is better.
const STACKED: [(&str, &str); 5] = [
    (
        "bonding",
        "each packet costs more than on a plain interface, and redirected packets leave by one member",
    ),
    ("bridge", "bridges have no native XDP"),
    ("team", "team interfaces have no native XDP"),
    ("macvlan", "macvlan interfaces have no native XDP"),
    ("ipvlan", "ipvlan interfaces have no native XDP"),
];

pub(super) fn check(patient: &Patient<'_>, device: &Device, report: &mut Report) {
    report.add(kind(device));
    report.add(program(patient, device));
    report.add(target(device));
    report.add(mtu(device));
}

/// Which driver.
fn kind(device: &Device) -> Finding {
    const ID: &str = "driver";
    let driver = device.driver();
    if let Some((_, why)) = STACKED.iter().find(|(name, _)| *name == driver) {
        return Finding::bad(
            ID,
            Severity::Warning,
            device.name(),
            format!("is made of other interfaces ({driver})"),
            *why,
        )
        .mend("put the media address on a physical interface, and let addresses or routes move instead of links");
    }
    match device.nic.native_xdp {
        Some(true) => Finding::ok(ID, device.name(), format!("{driver} runs XDP programs")),
        Some(false) => Finding::bad(
            ID,
            Severity::Warning,
            device.name(),
            format!("driver {driver} does not run XDP programs as it is set up now"),
            "the daemon relays this interface's media itself: a tenth of the packets for the same processor time",
        )
        .mend(match driver {
            "virtio_net" => "give the virtual machine at least two queues for each processor and `ctrl_guest_offloads`",
            _ => "use a network card whose driver has native XDP (ice, i40e, ixgbe, mlx5, ena, virtio_net, ...)",
        }),
        None => Finding::bad(
            ID,
            Severity::Note,
            device.name(),
            format!("driver {driver}; this kernel does not tell whether it runs XDP programs"),
            "kernels tell from 6.3; `sbcctl status` shows what carries the media once the daemon runs",
        ),
    }
}

/// What runs on it now.
fn program(patient: &Patient<'_>, device: &Device) -> Finding {
    const ID: &str = "program";
    let name = device.name();
    let Some(Attachment { program, name: program_name, native }) = &device.interface.xdp else {
        return if patient.running.is_none() {
            Finding::ok(ID, name, "no XDP program; the daemon does not run")
        } else {
            Finding::bad(
                ID,
                Severity::Fault,
                name,
                "the daemon runs and its program is not on this interface",
                "the daemon relays this interface's media itself; `sbcctl status` has the reason",
            )
            .mend("sbcctl status")
        };
    };
    let owner = patient.pinned.iter().find(|pinned| pinned.program == Some(*program));
    let flag = if *native { "xdp" } else { "xdpgeneric" };
    match owner {
        Some(own) if own.instance == patient.config.instance && *native => {
            Finding::ok(ID, name, format!("program {program} of this instance runs in the driver"))
        }
        Some(own) if own.instance == patient.config.instance => Finding::bad(
            ID,
            Severity::Fault,
            name,
            format!("program {program} of this instance runs, but not in the driver"),
            "generic XDP copies every packet",
        )
        .mend(format!("ip link set dev {name} {flag} off"))
        .mend("systemctl restart sbcd"),
        Some(other) => Finding::bad(
            ID,
            Severity::Fault,
            name,
            format!("program {program} of instance {} runs here", other.instance),
            "an interface runs one program: this instance does not start",
        )
        .mend(format!(
            "stop instance {} and remove {}, or use another interface",
            other.instance,
            other.path.display()
        )),
        None => Finding::bad(
            ID,
            Severity::Fault,
            name,
            format!("program {program} ({program_name}) runs here, which is not ours"),
            "an interface runs one program: the daemon does not start",
        )
        .mend(format!("bpftool prog show id {program}"))
        .mend(format!("ip link set dev {name} {flag} off")),
    }
}

/// Whether packets can leave by it.
fn target(device: &Device) -> Finding {
    const ID: &str = "redirect-target";
    let name = device.name();
    match device.nic.takes_redirected {
        Some(true) => Finding::ok(ID, name, "takes packets that XDP redirects to it"),
        // Drivers that make their queues with the program say no until then.
        Some(false) if device.interface.xdp.is_none() && device.driver() != "veth" => Finding::bad(
            ID,
            Severity::Note,
            name,
            "takes no redirected packets as it is now",
            "many drivers do as soon as a program is attached; the daemon looks again then",
        ),
        Some(false) => {
            let finding = Finding::bad(
                ID,
                Severity::Fault,
                name,
                "takes no packets that XDP redirects to it",
                "they vanish without a count",
            );
            if device.driver() == "veth" {
                finding.mend("at the other end of this veth, while that is up: ethtool -K INTERFACE gro on")
            } else {
                finding.mend("use an interface whose driver has ndo_xdp_xmit")
            }
        }
        None => Finding::bad(
            ID,
            Severity::Note,
            name,
            "this kernel does not tell whether it takes redirected packets",
            "where it does not, they vanish without a count; kernels tell from 6.3",
        ),
    }
}

fn mtu(device: &Device) -> Finding {
    const ID: &str = "mtu";
    let (name, mtu) = (device.name(), device.interface.mtu);
    let attached = device.interface.xdp.as_ref().is_some_and(|xdp| xdp.native);
    match LARGEST_MTU.iter().find(|(driver, _)| *driver == device.driver()) {
        Some((driver, most)) if mtu > *most && !attached => Finding::bad(
            ID,
            Severity::Fault,
            name,
            format!("MTU {mtu}; {driver} takes XDP programs up to {most}"),
            "the driver refuses the program, and the daemon relays this interface's media itself",
        )
        .mend(format!("ip link set dev {name} mtu 1500")),
        None if mtu > 3000 && !attached => Finding::bad(
            ID,
            Severity::Warning,
            name,
            format!("MTU {mtu}"),
            "most drivers refuse XDP programs above about 3,000 bytes; media never needs them",
        )
        .mend(format!("ip link set dev {name} mtu 1500")),
        Some(_) | None => Finding::ok(ID, name, format!("MTU {mtu}")),
    }
}
