//! Interfaces and addresses that come and go while the daemon runs.
//!
//! A media address that appears (a VIP that moves here, an interface that is made anew) is served from then on; one that
//! goes keeps its number and its flows, which go on when it is back. What no driver takes is the relay's, as at a start.
//! Where a SIP address appears, the guard stands from then on.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use super::Xdp;
use super::addresses::{self, Placed};
use super::load::{Attached, Role};
use super::netlink::Link;

/// An interface that does not take the program is tried again as often when something changes: its other half may come
/// up later, but attaching disturbs it.
const MAX_ATTEMPTS: u32 = 3;

impl Xdp {
    /// Looks where our addresses are now, and serves those that are somewhere else than before.
    pub(super) fn follow_addresses(&mut self) {
        let netlink = self.neighbours.netlink();
        let (links, held) = match (netlink.links(), netlink.addresses()) {
            (Ok(links), Ok(held)) => (links, held),
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(%error, "cannot ask where our addresses are");
                return;
            }
        };
        self.follow_media(&links, &held);
        self.follow_guard(&links, &held);
    }

    fn follow_media(&mut self, links: &[Link], held: &[(u32, IpAddr)]) {
        let found: Vec<Placed> = addresses::place(&self.binds, links, held).into_iter().flatten().collect();
        let moved = |placed: &&Placed| !self.placed.iter().any(|before| before.is_where(placed));
        let devices: BTreeMap<u32, Link> =
            found.iter().filter(moved).map(|placed| (placed.device.ifindex, placed.device.clone())).collect();
        if devices.is_empty() {
            return;
        }
        let served: HashSet<u32> = devices
            .into_values()
            .filter(|device| self.serves(device, Role::Media))
            .map(|it| it.ifindex)
            .collect();
        let found: Vec<Placed> = found
            .into_iter()
            .filter(|placed| {
                served.contains(&placed.device.ifindex) || self.placed.iter().any(|it| it.is_where(placed))
            })
            .collect();
        let arrived: HashSet<IpAddr> = found.iter().map(|placed| placed.address).collect();
        // What is nowhere at present keeps its place.
        let mut placed: Vec<Placed> =
            self.placed.iter().filter(|before| !arrived.contains(&before.address)).cloned().collect();
        placed.extend(found);
        if placed == self.placed {
            return;
        }
        match addresses::write(&mut self.kernel, &placed) {
            Ok(addresses) => {
                (self.addresses, self.placed) = (addresses, placed);
                self.doubt |= self.allow_devices().is_err();
            }
            Err(error) => tracing::error!(%error, "cannot serve an address that appeared"),
        }
    }

    /// Guards the interfaces of SIP addresses that have no media of ours, as far as they are there.
    fn follow_guard(&mut self, links: &[Link], held: &[(u32, IpAddr)]) {
        self.guarded.retain(|before| links.iter().any(|link| link.ifindex == before.ifindex));
        for address in self.sip.clone() {
            let Ok((device, _)) = addresses::device_of(address, links, held) else { continue };
            let has_media = self.placed.iter().any(|placed| placed.device.ifindex == device.ifindex);
            let stands = self.guarded.iter().any(|before| before.ifindex == device.ifindex);
            if !has_media && !stands && self.serves(device, Role::Guard) {
                self.guarded.push(device.clone());
            }
        }
    }

    /// Whether our program runs on an interface; attaches it if it does not.
    fn serves(&mut self, device: &Link, role: Role) -> bool {
        if let Ok(true) = self.kernel.runs_on(self.neighbours.netlink(), device) {
            return true;
        }
        let attempts = self.attempts.entry(device.ifindex).or_insert(0);
        *attempts += 1;
        if *attempts > MAX_ATTEMPTS {
            return false;
        }
        let (interface, attempt) = (&device.name, *attempts);
        let (native, refused) = match role {
            Role::Media => ("media is forwarded by the kernel", "media is forwarded by the relay"),
            Role::Guard => ("the kernel guards SIP here", "the engine alone guards SIP on this interface"),
        };
        match self.kernel.attach(self.neighbours.netlink(), device, role) {
            Ok(Attached::Native) => {
                tracing::info!(interface, "{native}");
                self.attempts.remove(&device.ifindex);
                if !self.interfaces.contains(interface) {
                    self.interfaces.push(interface.clone());
                }
                true
            }
            Ok(Attached::Refused(reason)) => {
                tracing::warn!(interface, reason, attempt, "{refused}");
                false
            }
            Err(error) => {
                tracing::error!(interface, %error, attempt, "cannot attach; {refused}");
                false
            }
        }
    }

    /// Lets packets leave by the interfaces that are there.
    fn allow_devices(&mut self) -> Result<(), super::StartError> {
        let devices = self.devices();
        self.neighbours.serve(devices.clone());
        self.kernel.set_devices(&devices)
    }

    /// The names of the interfaces on which our program runs, as far as they are there.
    pub(super) fn present_interfaces(&self) -> Vec<String> {
        let all = self.placed.iter().map(|placed| &placed.device).chain(&self.guarded);
        let present = all.filter(|device| self.neighbours.has_link(device.ifindex));
        let names: BTreeSet<String> = present.map(|device| device.name.clone()).collect();
        names.into_iter().collect()
    }

    /// The interfaces that we serve, as far as they are there.
    pub(super) fn devices(&self) -> HashSet<u32> {
        let all = self.placed.iter().map(|placed| placed.device.ifindex);
        all.filter(|ifindex| self.neighbours.has_link(*ifindex)).collect()
    }
}
