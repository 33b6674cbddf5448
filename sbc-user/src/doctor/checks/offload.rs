//! What the network card does to packets before XDP sees them, or leaves undone because it thinks that another will.

use super::{Device, Finding, Patient, Report, Severity};

// Names of the kernel's features, as ETHTOOL_GFEATURES has them.
const LRO: &str = "rx-lro";
const GRO_HW: &str = "rx-gro-hw";
const RX_VLAN: &str = "rx-vlan-hw-parse";

pub(super) fn check(device: &Device, report: &mut Report) {
    let name = device.name();
    if device.nic.offloads.is_none() {
        report.add(Finding::bad(
            "offloads",
            Severity::Note,
            name,
            "the driver does not tell its offloads",
            "LRO and VLAN offload must be off",
        ));
        return;
    }
    report.add(if device.nic.has(LRO) {
        Finding::bad(
            "lro",
            Severity::Fault,
            name,
            "LRO is on",
            "the card merges packets: the driver refuses the program, or the program sees packets that nobody sent",
        )
        .mend(format!("ethtool -K {name} lro off"))
    } else {
        Finding::ok("lro", name, "LRO is off")
    });
    report.add(if device.nic.has(GRO_HW) {
        Finding::bad(
            "gro-hw",
            Severity::Warning,
            name,
            "GRO in hardware is on",
            "some drivers refuse the program as long as the card merges packets",
        )
        .mend(format!("ethtool -K {name} rx-gro-hw off"))
    } else {
        Finding::ok("gro-hw", name, "GRO in hardware is off")
    });
    if !device.vlans.is_empty() {
        report.add(vlan(device));
    }
    if device.driver() == "veth" {
        report.add(
            Finding::bad(
                "veth-checksums",
                Severity::Note,
                name,
                "is a veth; whether its other end finishes checksums cannot be seen from here",
                "XDP forwards an unfinished checksum, and the receiver drops the packet without a word",
            )
            .mend("at the other end of this veth: ethtool -K INTERFACE tx off"),
        );
    }
}

/// Whether the program sees the tags of the VLANs.
fn vlan(device: &Device) -> Finding {
    const ID: &str = "rxvlan";
    let name = device.name();
    let tags: Vec<String> = device.vlans.iter().map(u16::to_string).collect();
    let tags = tags.join(", ");
    if device.driver() == "veth" {
        // The tag lies beside the packet if the sender left it there; the receiver's switch changes nothing.
        return Finding::bad(
            ID,
            Severity::Note,
            name,
            format!("VLAN {tags} is on a veth; whether its other end writes tags cannot be seen from here"),
            "XDP sees tags in the packet only; media whose tag it does not see goes to the host instead",
        )
        .mend("at the other end of this veth: ethtool -K INTERFACE txvlan off");
    }
    if device.nic.has(RX_VLAN) {
        Finding::bad(
            ID,
            Severity::Fault,
            name,
            format!("the card takes the tag of VLAN {tags} off"),
            "XDP sees tags in the packet only: no packet of these VLANs is forwarded by the kernel",
        )
        .mend(format!("ethtool -K {name} rxvlan off"))
    } else {
        Finding::ok(ID, name, format!("the tags of VLAN {tags} stay in the packets"))
    }
}

/// What the program itself has counted of unfinished checksums.
pub(super) fn check_counted(patient: &Patient<'_>, report: &mut Report) {
    const ID: &str = "checksums";
    let mut own = patient.pinned.iter().filter(|pinned| pinned.instance == patient.config.instance);
    let Some(counted) = own.find_map(|own| own.bad_checksums) else { return };
    let names: Vec<&str> = patient.devices.iter().map(Device::name).collect();
    let names = names.join(", ");
    report.add(if counted == 0 {
        Finding::ok(ID, names, "no verified packet had a wrong UDP checksum")
    } else {
        Finding::bad(
            ID,
            Severity::Warning,
            names,
            format!("{counted} of the verified media packets had a wrong UDP checksum, since the maps exist"),
            "their receivers drop them. Usually the sender is a container or virtual machine on this host, or the \
             other end of a veth, and leaves checksums to a card that there is not",
        )
        .mend("at the sender: ethtool -K INTERFACE tx off")
    });
}
