//! Whether each media address is on an interface that XDP can serve.

use super::{Finding, Patient, Report, Severity};

const ID: &str = "address";

pub(super) fn check(patient: &Patient<'_>, report: &mut Report) {
    for media in &patient.media {
        let subject = media.address.to_string();
        let bits = if media.address.is_ipv4() { 32 } else { 128 };
        let finding = match &media.holder {
            None if media.may_appear_later => Finding::bad(
                ID,
                Severity::Note,
                subject,
                "no interface has this media address",
                "it may appear later, says the configuration; until then this realm has no media",
            )
            .mend(format!("ip addr add {}/{bits} dev INTERFACE", media.address)),
            None => Finding::bad(
                ID,
                Severity::Fault,
                subject,
                "no interface has this media address",
                "no port can be opened on it, and no packet for it arrives",
            )
            .mend(format!("ip addr add {}/{bits} dev INTERFACE", media.address))
            .mend("or change `bind` of the realm, or of its media, in the configuration"),
            Some(holder) if !holder.up => Finding::bad(
                ID,
                Severity::Fault,
                subject,
                format!("is on {}, which is down", holder.name),
                "nothing arrives",
            )
            .mend(format!("ip link set dev {} up", holder.name)),
            Some(holder) if !holder.ethernet && holder.vlan.is_none() => Finding::bad(
                ID,
                Severity::Note,
                subject,
                format!("is on {}, whose frames have no Ethernet header", holder.name),
                "XDP does not serve it: the daemon relays this address's media itself",
            )
            .mend("for the kernel's speed, put the media address on an Ethernet interface"),
            Some(holder) if media.device.is_none() => Finding::bad(
                ID,
                Severity::Warning,
                subject,
                format!("is on {}; the interface below it is in another network namespace", holder.name),
                "XDP attaches to the one below: the daemon relays this address's media itself",
            )
            .mend("run the daemon in the namespace of the interface below"),
            Some(holder) => match media.vlans.as_slice() {
                [] => Finding::ok(ID, subject, format!("on {}", holder.name)),
                [tag] => Finding::ok(ID, subject, format!("on {}, VLAN {tag}", holder.name)),
                [outer, tag] => {
                    Finding::ok(ID, subject, format!("on {}, VLAN {tag} in {outer}", holder.name))
                }
                more => Finding::bad(
                    ID,
                    Severity::Note,
                    subject,
                    format!("is on {}, whose frames have {} VLAN tags", holder.name, more.len()),
                    "XDP reads two at most: the daemon relays this address's media itself",
                )
                .mend("for the kernel's speed, put the media address on a VLAN of two tags at most"),
            },
        };
        report.add(finding);
    }
}
