//! How packets are spread over queues, and so over processors.

use super::super::facts::Hash;
use super::{Device, Finding, Report, Severity};

pub(super) fn check(cpus: usize, device: &Device, report: &mut Report) {
    report.add(queues(cpus, device));
    for (wanted, flow, hash) in
        [(device.ipv4, "udp4", device.nic.udp4_hash), (device.ipv6, "udp6", device.nic.udp6_hash)]
    {
        // With one queue there is nothing to spread over.
        if wanted && device.nic.queues.is_none_or(|queues| queues.now > 1) {
            report.add(udp_hash(device, flow, hash));
        }
    }
}

fn queues(cpus: usize, device: &Device) -> Finding {
    const ID: &str = "queues";
    let name = device.name();
    let Some(queues) = device.nic.queues else {
        return Finding::bad(
            ID,
            Severity::Note,
            name,
            format!("driver {} does not tell its queues", device.driver()),
            "each queue is served by one processor",
        );
    };
    let wanted = u32::try_from(cpus).unwrap_or(u32::MAX).min(queues.most).max(1);
    let kind = if queues.combined { "combined" } else { "rx" };
    if device.driver() == "ena" && queues.now > queues.most / 2 && device.interface.xdp.is_none() {
        return Finding::bad(
            ID,
            Severity::Fault,
            name,
            format!("{} of {} queues are in use", queues.now, queues.most),
            "ena needs as many spare queues to send from XDP, and refuses the program without",
        )
        .mend(format!("ethtool -L {name} {kind} {}", (queues.most / 2).max(1)));
    }
    // ena sends from XDP by a second set of queues.
    let wanted = if device.driver() == "ena" { wanted.min((queues.most / 2).max(1)) } else { wanted };
    if device.driver() == "virtio_net" && (queues.most as usize) < cpus * 2 {
        return Finding::bad(
            ID,
            Severity::Warning,
            name,
            format!("at most {} queues for {cpus} processors", queues.most),
            "virtio_net wants a queue of its own for each processor to send from XDP: with fewer than twice as many \
             queues as processors, they wait for each other",
        )
        .mend(format!("give the virtual machine {} queues (libvirt: <driver queues='{}'/>)", cpus * 2, cpus * 2));
    }
    if queues.now < wanted {
        Finding::bad(
            ID,
            Severity::Warning,
            name,
            format!("{} receive queues for {cpus} processors; there may be {}", queues.now, queues.most),
            "each queue is served by one processor: the others forward nothing",
        )
        .mend(format!("ethtool -L {name} {kind} {wanted}"))
    } else {
        Finding::ok(ID, name, format!("{} receive queues for {cpus} processors", queues.now))
    }
}

fn udp_hash(device: &Device, flow: &str, hash: Option<Hash>) -> Finding {
    const ID: &str = "udp-hash";
    let name = device.name();
    match hash {
        Some(Hash { addresses: true, ports: true }) => {
            Finding::ok(ID, name, format!("{flow} is spread by addresses and ports"))
        }
        Some(_) => Finding::bad(
            ID,
            Severity::Warning,
            name,
            format!("{flow} is not spread by ports"),
            "all media between two addresses, as of a trunk, lands on one queue and so on one processor",
        )
        .mend(format!("ethtool -N {name} rx-flow-hash {flow} sdfn")),
        None => Finding::bad(
            ID,
            Severity::Note,
            name,
            format!("driver {} does not tell how it spreads {flow}", device.driver()),
            "if it is by addresses only, all media of a trunk lands on one processor",
        )
        .mend(format!("ethtool -n {name} rx-flow-hash {flow}")),
    }
}
