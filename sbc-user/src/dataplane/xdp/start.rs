//! From nothing to a dataplane that serves: interfaces found, program attached, tables filled.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::time::Instant;

use sbc_common::counter::Counter;
use sbc_common::flow::Generation;
use sbc_common::limits;

use super::addresses::{self, MediaBind, Placed};
use super::error::StartError;
use super::load::{self, Attached, Kernel, Role};
use super::neighbours::Neighbours;
use super::netlink::{Link, Netlink};
use super::pins::{self, PinDirectory};
use super::selftest::ChecksumWatch;
use super::trace::Tracer;
use super::{Xdp, stats};

/// What came of a media address at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressReport {
    /// The address and its ports.
    pub bind: MediaBind,
    /// The interface that it is on, if it is on one.
    pub interface: Option<String>,
    /// Why the relay serves it; `None`: the driver of the interface runs the program.
    pub relay_reason: Option<String>,
}

impl Xdp {
    /// As [`open`](Self::open), and takes over nothing of an earlier daemon.
    pub fn start(
        instance: &str,
        object: &[u8],
        binds: &[MediaBind],
        now: Instant,
    ) -> Result<(Option<Self>, Vec<AddressReport>), StartError> {
        let (mut xdp, reports) = Self::open(instance, object, binds, &[], now)?;
        if let Some(xdp) = &mut xdp {
            xdp.withdraw_strangers(now);
        }
        Ok((xdp, reports))
    }

    /// Loads, attaches and fills the tables; in the network namespace of the calling thread. Reports on each of
    /// `binds`, in their order. Attaches too where there is only signalling, to addresses `sip`: there the guard is all that
    /// the program does. `None` if neither can be: nothing is left in the kernel then. Flows of an earlier daemon go on
    /// until they are taken over or withdrawn.
    pub fn open(
        instance: &str,
        object: &[u8],
        binds: &[MediaBind],
        sip: &[IpAddr],
        now: Instant,
    ) -> Result<(Option<Self>, Vec<AddressReport>), StartError> {
        if object.is_empty() {
            return Err(StartError::NoObject);
        }
        let (mut netlink, placed) = find(binds)?;
        let pins = PinDirectory::open(instance, limits::ABI)?;
        let undo = pins.undo();
        // Room for those as well that appear later.
        let distinct: HashSet<_> = binds.iter().map(|bind| bind.address).collect();
        let v4 = distinct.iter().filter(|address| address.is_ipv4()).count();
        let mut kernel = Kernel::load(object, pins, v4, distinct.len() - v4)?;
        let (served, reports) = attach(&mut kernel, &mut netlink, binds, &placed)?;
        let (guarded, sip_is_away) = attach_guard(&mut kernel, &mut netlink, sip, &served)?;
        let media_is_away =
            placed.iter().any(|placed| placed.as_ref().is_err_and(|reason| reason == addresses::NOWHERE));
        if served.is_empty() && guarded.is_empty() && !media_is_away && !sip_is_away {
            undo.forget();
            kernel.pins().remove_other_versions();
            kernel.remove().map_err(asked("the removal of pins"))?;
            return Ok((None, reports));
        }
        let all = placed.iter().flatten().map(|placed| placed.device.ifindex);
        let refused = all.filter(|ifindex| !served.iter().any(|it| it.device.ifindex == *ifindex));
        let attempts = refused.map(|ifindex| (ifindex, 1)).collect();
        let devices: HashSet<u32> = served.iter().map(|placed| placed.device.ifindex).collect();
        let mut interfaces: Vec<String> = served.iter().map(|placed| placed.device.name.clone()).collect();
        interfaces.extend(guarded.iter().map(|device| device.name.clone()));
        interfaces.sort();
        interfaces.dedup();
        kernel.detach_others(&interfaces)?;
        kernel.set_devices(&devices)?;
        let addresses = addresses::write(&mut kernel, &served)?;
        let neighbours =
            Neighbours::new(netlink, devices, limits::NEXT_HOPS as u16).map_err(asked("interfaces"))?;
        let wrong = stats::outcome(&kernel.counters, Counter::BadChecksum).unwrap_or(0);
        let mut xdp = Self {
            kernel,
            neighbours,
            addresses,
            placed: served,
            guarded,
            binds: binds.to_vec(),
            sip: sip.to_vec(),
            attempts,
            interfaces,
            calls: HashMap::new(),
            owners: HashMap::new(),
            relayed: HashMap::new(),
            generation: Generation::FIRST,
            waiting: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            events: VecDeque::new(),
            more_reports: None,
            checksums: ChecksumWatch::new(now, wrong),
            tracer: Tracer::default(),
            doubt: false,
        };
        xdp.keep_hops();
        xdp.kernel.pins().remove_other_versions();
        undo.forget();
        Ok((Some(xdp), reports))
    }

    /// What `start` would find, without changing anything: it refuses what `start` would refuse, as far as that
    /// shows from outside.
    pub fn survey(instance: &str, binds: &[MediaBind]) -> Result<Vec<AddressReport>, StartError> {
        pins::check_bpffs()?;
        let (_, placed) = find(binds)?;
        for placed in placed.iter().flatten() {
            let ours = pins::has_link(instance, &placed.device.name);
            if let Some(program) = placed.device.xdp.filter(|_| !ours) {
                return Err(load::foreign(&placed.device, program));
            }
        }
        Ok(locate(binds, &placed))
    }

    /// Where the addresses are, for a relay that serves them all.
    pub fn locate(binds: &[MediaBind]) -> Result<Vec<AddressReport>, StartError> {
        let (_, placed) = find(binds)?;
        Ok(locate(binds, &placed))
    }
}

fn asked(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Network { what, source }
}

/// The interface of each address.
fn find(binds: &[MediaBind]) -> Result<(Netlink, Vec<Result<Placed, String>>), StartError> {
    let mut netlink = Netlink::open().map_err(asked("a netlink socket"))?;
    let links = netlink.links().map_err(asked("interfaces"))?;
    let held = netlink.addresses().map_err(asked("addresses"))?;
    let placed = addresses::place(binds, &links, &held);
    Ok((netlink, placed))
}

fn locate(binds: &[MediaBind], placed: &[Result<Placed, String>]) -> Vec<AddressReport> {
    let pairs = binds.iter().zip(placed);
    pairs
        .map(|(bind, placed)| AddressReport {
            bind: bind.clone(),
            interface: placed.as_ref().ok().map(|placed| placed.device.name.clone()),
            relay_reason: placed.as_ref().err().cloned(),
        })
        .collect()
}

/// Attaches to every interface that has a SIP address of ours and no media that the program serves; tells which, and
/// whether an address is nowhere yet. Where that cannot be, the engine guards alone, which is said in the log.
fn attach_guard(
    kernel: &mut Kernel,
    netlink: &mut Netlink,
    sip: &[IpAddr],
    served: &[Placed],
) -> Result<(Vec<Link>, bool), StartError> {
    let links = netlink.links().map_err(asked("interfaces"))?;
    let held = netlink.addresses().map_err(asked("addresses"))?;
    let mut outcomes: HashMap<u32, Attached> = HashMap::new();
    let (mut guarded, mut is_away) = (Vec::new(), false);
    for address in sip {
        let device = match addresses::device_of(*address, &links, &held) {
            Ok((device, _)) => device,
            Err(reason) => {
                tracing::info!(%address, reason, "the engine alone guards SIP on this address");
                is_away |= reason == addresses::NOWHERE && !address.is_unspecified();
                continue;
            }
        };
        if served.iter().any(|placed| placed.device.ifindex == device.ifindex) {
            continue;
        }
        let Entry::Vacant(entry) = outcomes.entry(device.ifindex) else { continue };
        let attached = match kernel.attach(netlink, device, Role::Guard) {
            Err(StartError::ForeignProgram { id, name, .. }) => {
                Attached::Refused(format!("it runs XDP program {name} (id {id}), which is not ours"))
            }
            other => other?,
        };
        match entry.insert(attached) {
            Attached::Native => guarded.push(device.clone()),
            Attached::Refused(reason) => {
                tracing::info!(
                    interface = device.name,
                    reason,
                    "the engine alone guards SIP on this interface"
                );
            }
        }
    }
    Ok((guarded, is_away))
}

/// Attaches to every interface that has one of the addresses; tells which addresses are served, and of each what came
/// of it.
fn attach(
    kernel: &mut Kernel,
    netlink: &mut Netlink,
    binds: &[MediaBind],
    placed: &[Result<Placed, String>],
) -> Result<(Vec<Placed>, Vec<AddressReport>), StartError> {
    let mut outcomes: HashMap<u32, Attached> = HashMap::new();
    for placed in placed.iter().flatten() {
        if let Entry::Vacant(entry) = outcomes.entry(placed.device.ifindex) {
            entry.insert(kernel.attach(netlink, &placed.device, Role::Media)?);
        }
    }
    let mut served = Vec::new();
    let mut reports = Vec::new();
    for (bind, placed) in binds.iter().zip(placed) {
        let interface = placed.as_ref().ok().map(|placed| placed.device.name.clone());
        let outcome = placed.as_ref().map(|placed| (placed, &outcomes[&placed.device.ifindex]));
        let relay_reason = match outcome {
            Err(reason) => Some(reason.clone()),
            Ok((_, Attached::Refused(reason))) => Some(reason.clone()),
            Ok((placed, Attached::Native)) => {
                served.push(placed.clone());
                None
            }
        };
        reports.push(AddressReport { bind: bind.clone(), interface, relay_reason });
    }
    Ok((served, reports))
}
