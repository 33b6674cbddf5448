//! `sbcctl doctor`: looks at a host for what breaks XDP in the field, and says how to mend it.
//!
//! Facts are found out behind [`HostFacts`] and judged in `checks`, which see values only and change nothing. Which
//! interfaces matter is the configuration's to say: those that hold a media address.

mod checks;
mod facts;
mod report;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::ops::RangeInclusive;

pub use facts::{
    Attachment, Filter, Hash, HostFacts, Interface, Nic, Pinned, Queues, Rule, System, ThisHost, Unseen,
};
pub use report::{Finding, Report, Severity};

use crate::config::Config;

/// Looks at a host that is to run, or runs, with `config`.
///
/// # Errors
/// What must be seen cannot be.
pub fn examine(config: &Config, host: &dyn HostFacts) -> Result<Report, Unseen> {
    let system = host.system()?;
    let interfaces = host.interfaces()?;
    let pinned = if system.bpffs { host.pinned()? } else { Vec::new() };
    let media = media(config, &interfaces);
    let devices = devices(&media, host);
    let running = pinned.iter().find(|pinned| pinned.instance == config.instance).and_then(|own| own.running);
    let patient = Patient {
        descriptors: host.descriptors(running),
        filter: host.filter(),
        running,
        config,
        system,
        pinned,
        media,
        devices,
    };
    Ok(checks::all(&patient))
}

/// Everything that the checks look at.
struct Patient<'a> {
    config: &'a Config,
    system: System,
    pinned: Vec<Pinned>,
    media: Vec<Media>,
    devices: Vec<Device>,
    filter: Filter,
    descriptors: Option<u64>,
    /// The daemon of this instance.
    running: Option<u32>,
}

/// A media address of the configuration.
struct Media {
    address: IpAddr,
    ports: RangeInclusive<u16>,
    may_appear_later: bool,
    /// The interface that holds it.
    holder: Option<Interface>,
    /// The interface that its frames arrive on: the holder, or the one below all VLAN interfaces.
    device: Option<Interface>,
    /// The tags of its frames there, outer first.
    vlans: Vec<u16>,
}

/// An interface on which media arrives: that of a media address, or the one below all VLAN interfaces.
struct Device {
    interface: Interface,
    nic: Nic,
    /// Tags of the VLANs on it that hold media addresses.
    vlans: Vec<u16>,
    ipv4: bool,
    ipv6: bool,
}

impl Device {
    fn name(&self) -> &str {
        &self.interface.name
    }

    fn driver(&self) -> &str {
        self.nic.driver.as_deref().unwrap_or("unknown")
    }
}

fn media(config: &Config, interfaces: &[Interface]) -> Vec<Media> {
    let realms = config.engine.realms.iter().zip(&config.realms);
    realms
        .map(|(realm, shell)| {
            let holder =
                interfaces.iter().find(|interface| interface.addresses.contains(&realm.media.bind)).cloned();
            let (device, vlans) = device_of(holder.as_ref(), interfaces);
            Media {
                address: realm.media.bind,
                ports: realm.media.ports.clone(),
                may_appear_later: shell.may_appear_later,
                holder,
                device,
                vlans,
            }
        })
        .collect()
}

/// The interface below all VLAN interfaces, if it is in this namespace, and their tags, outer first.
fn device_of(holder: Option<&Interface>, interfaces: &[Interface]) -> (Option<Interface>, Vec<u16>) {
    let mut tags = Vec::new();
    let mut device = holder;
    while let Some((below, tag)) = device.and_then(|device| device.vlan) {
        tags.insert(0, tag);
        // An interface that names itself, or is below itself, would never end.
        device = interfaces.iter().find(|it| it.ifindex == below && tags.len() <= interfaces.len());
    }
    (device.cloned(), tags)
}

fn devices(media: &[Media], host: &dyn HostFacts) -> Vec<Device> {
    let mut devices: Vec<Device> = Vec::new();
    for media in media {
        let Some(interface) = &media.device else { continue };
        let at = devices.iter().position(|device| device.interface.ifindex == interface.ifindex);
        let at = at.unwrap_or_else(|| {
            let nic = host.nic(interface);
            devices.push(Device {
                interface: interface.clone(),
                nic,
                vlans: Vec::new(),
                ipv4: false,
                ipv6: false,
            });
            devices.len() - 1
        });
        let device = &mut devices[at];
        let seen: Vec<u16> = media.vlans.iter().copied().filter(|tag| !device.vlans.contains(tag)).collect();
        device.vlans.extend(seen);
        device.ipv4 |= media.address.is_ipv4();
        device.ipv6 |= media.address.is_ipv6();
    }
    devices
}
