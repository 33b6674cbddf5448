//! What carries the daemon's media: the kernel where it can, the relay where it cannot.
//!
//! The choice is made for each stream, and an answer to `Install` tells it. The kernel carries a stream if both of its
//! addresses are on interfaces whose drivers run the program, and if both peers are other hosts whose next hops answer, or
//! ports of calls that the kernel carries. Everything else is the relay's: what arrives for it on such an interface passes
//! the program.

mod choice;
mod held;
pub(crate) mod reserved;

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, Write};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::PathBuf;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use sbc_core::guard::{Denial, GuardCommand, Source};
use sbc_core::id::{CallId, OpId};
use sbc_core::media::command::{MediaCommand, StreamCounters};

use super::relay::Relay;
use super::xdp::{self, AddressReport, MediaBind, StartError, Xdp};
use super::{Dataplane, DataplaneEvent, Difference, Figures, MediaCheckpoint};
use crate::trace::{TraceOrder, TraceView};
use choice::Choice;
use reserved::ReservedPorts;

/// What the daemon's configuration says of its dataplane.
#[derive(Clone, Debug)]
pub struct PlanesConfig {
    /// Names the pins and the lock: one daemon per name.
    pub instance: String,
    /// Directory for files that need not survive a boot; made if it is not there.
    pub run_dir: PathBuf,
    /// Whether the kernel carries anything at all; without it everything is the relay's.
    pub kernel: bool,
    /// Media addresses of all realms.
    pub media: Vec<MediaBind>,
    /// Addresses with SIP sockets, in front of which the guard stands.
    pub sip: Vec<IpAddr>,
    /// Ports of ours besides the media ranges that no other program shall be given (SIP listeners).
    pub reserved_ports: Vec<RangeInclusive<u16>>,
}

/// What came of the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartReport {
    /// Each media address, in the order of the configuration.
    pub addresses: Vec<AddressReport>,
    /// Why no interface at all is served by the kernel, if that is so for a reason of its own.
    pub no_kernel: Option<String>,
    /// Why each port that the relay serves needs a descriptor of its own, if that is so.
    pub not_steered: Option<String>,
}

/// The instance is ours for as long as this lives.
#[derive(Debug)]
pub struct InstanceLock(#[expect(dead_code, reason = "held, not used")] Flock<fs::File>);

/// See the module.
pub struct Planes {
    choice: Choice<Xdp, Relay>,
    report: StartReport,
    reserved: Option<ReservedPorts>,
    /// Nothing of the instance was in the kernel before this one.
    first: bool,
    _lock: InstanceLock,
}

impl Planes {
    /// Takes the instance's lock, loads and attaches the kernel's part and starts the relay, in the network namespace
    /// of the calling thread.
    ///
    /// # Errors
    /// What an operator has to mend: see [`StartError`]. A driver that does not take the program is no error; the
    /// report tells it.
    pub fn start(config: &PlanesConfig, now: Instant) -> Result<(Self, StartReport), StartError> {
        let (planes, report, _) = Self::take_over(config, Self::lock(config)?, &[], now)?;
        Ok((planes, report))
    }

    /// Takes the instance's lock: whoever has it may look at what the instance has stored.
    ///
    /// # Errors
    /// Another daemon has it.
    pub fn lock(config: &PlanesConfig) -> Result<InstanceLock, StartError> {
        lock(config).map(InstanceLock)
    }

    /// As [`start`](Self::start); besides, takes over those plans of an earlier daemon that can be carried on as they are,
    /// and says which. What the kernel forwards of them goes on without a gap; everything else that it forwarded ends.
    ///
    /// # Errors
    /// As `start`.
    pub fn take_over(
        config: &PlanesConfig,
        lock: InstanceLock,
        left: &[MediaCheckpoint],
        now: Instant,
    ) -> Result<(Self, StartReport, Vec<CallId>), StartError> {
        let relay = Relay::start().map_err(|error| StartError::Relay(format!("{error:#}")))?;
        let not_steered = relay.not_steered().map(str::to_owned);
        let first = !xdp::has_pins(&config.instance);
        let (kernel, report) = if config.kernel && xdp::is_embedded() {
            let (kernel, addresses) =
                Xdp::open(&config.instance, xdp::OBJECT, &config.media, &config.sip, now)?;
            (kernel, StartReport { addresses, no_kernel: None, not_steered })
        } else {
            let reason = no_kernel(config).unwrap_or_default();
            if !first {
                // Left attached, it would keep from the relay every packet of a port that it does not know.
                tracing::warn!(
                    reason,
                    "removing what an earlier daemon has in the kernel: the calls there end"
                );
                xdp::remove_pins(&config.instance)?;
            }
            let mut addresses = Xdp::locate(&config.media)?;
            for address in &mut addresses {
                address.relay_reason.get_or_insert_with(|| reason.clone());
            }
            (None, StartReport { addresses, no_kernel: Some(reason), not_steered })
        };
        let media = config.media.iter().map(|bind| bind.ports.clone());
        let ports: Vec<_> = media.chain(config.reserved_ports.iter().cloned()).collect();
        let reserved = ReservedPorts::add(&ports, &config.instance)
            .inspect_err(|error| tracing::warn!(%error, "cannot keep our ports from other programs"))
            .ok();
        let mut choice = Choice::new(kernel, relay);
        let adopted: Vec<CallId> =
            left.iter().filter(|media| choice.adopt(now, media)).map(|media| media.plan.call).collect();
        let withdrawn = choice.kernel.as_mut().map_or(0, |kernel| kernel.withdraw_strangers(now));
        if !left.is_empty() || withdrawn > 0 {
            tracing::info!(
                taken_over = adopted.len(),
                lost = left.len() - adopted.len(),
                slots_withdrawn = withdrawn,
                "calls of an earlier daemon"
            );
        }
        for difference in choice.reconcile() {
            tracing::warn!(%difference, "the kernel did not hold what it should");
        }
        Ok((Self { choice, report: report.clone(), reserved, first, _lock: lock }, report, adopted))
    }

    /// What `start` would find, as far as that can be told without changing anything.
    ///
    /// # Errors
    /// What `start` would refuse, as far as it shows.
    pub fn survey(config: &PlanesConfig) -> Result<StartReport, StartError> {
        xdp::check_instance(&config.instance)?;
        let no_kernel = no_kernel(config);
        let addresses = if no_kernel.is_some() {
            Xdp::locate(&config.media)?
        } else {
            Xdp::survey(&config.instance, &config.media)?
        };
        Ok(StartReport { addresses, no_kernel, not_steered: None })
    }

    /// What came of the start.
    #[must_use]
    pub fn report(&self) -> &StartReport {
        &self.report
    }

    /// Addresses and ports of ours whose datagrams the relay takes.
    #[must_use]
    pub fn relayed_ports(&self) -> Vec<SocketAddr> {
        self.choice.relay.bound()
    }

    /// Descriptors that become readable when `handle_timeout` has work.
    #[must_use]
    pub fn poll_fds(&self) -> Vec<RawFd> {
        let mut fds = self.choice.kernel.as_ref().map(Xdp::poll_fds).unwrap_or_default();
        fds.push(self.choice.relay.as_fd().as_raw_fd());
        fds
    }

    /// How often packets had which outcome, in the kernel and in the relay together, and why streams are the relay's.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let mut outcomes = self.choice.relay.outcomes();
        for (counter, count) in self.choice.kernel.as_ref().map(Xdp::outcomes).unwrap_or_default() {
            outcomes.iter_mut().filter(|(it, _)| *it == counter).for_each(|(_, sum)| *sum += count);
        }
        Figures {
            outcomes: outcomes.into_iter().map(|(counter, count)| (counter.name(), count)).collect(),
            relay_streams: self.choice.relay_streams(),
        }
    }

    /// Where the kernel's objects are pinned, if it serves any interface.
    #[must_use]
    pub fn pin_directory(&self) -> Option<PathBuf> {
        self.choice.kernel.as_ref().map(|kernel| kernel.pin_directory().to_owned())
    }

    /// Lets go of everything: flows, attachments, pins, reserved ports. Nothing else ends calls: what is dropped
    /// instead, as when a later step of the start fails, leaves, but for a first start without a call.
    ///
    /// # Errors
    /// If something stays behind. All the rest is gone even so.
    pub fn stop(mut self) -> std::io::Result<()> {
        self.let_go()
    }

    /// Ends as a daemon that is killed would: the kernel goes on forwarding, and the next daemon takes over.
    pub fn leave(mut self) {
        drop(self.choice.kernel.take());
        drop(self.reserved.take());
    }

    fn let_go(&mut self) -> std::io::Result<()> {
        let kernel = self.choice.kernel.take().map_or(Ok(()), Xdp::stop);
        let reserved = self.reserved.take().map_or(Ok(()), ReservedPorts::remove);
        kernel.and(reserved)
    }
}

impl Drop for Planes {
    fn drop(&mut self) {
        // A daemon that fails must not take the calls with it: what the kernel forwards goes on.
        let made_alone = self.first && self.choice.snapshot().is_empty() && !std::thread::panicking();
        if made_alone && let Err(error) = self.let_go() {
            tracing::warn!(%error, "something of the dataplane is left behind");
        }
    }
}

impl Dataplane for Planes {
    fn apply(&mut self, now: Instant, op: OpId, command: MediaCommand) {
        self.choice.apply(now, op, command);
    }

    fn poll_event(&mut self) -> Option<DataplaneEvent> {
        self.choice.poll_event()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.choice.poll_timeout()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.choice.handle_timeout(now);
    }

    fn counters(&self, call: CallId) -> Vec<StreamCounters> {
        self.choice.counters(call)
    }

    fn guard(&mut self, command: &GuardCommand) {
        self.choice.guard(command);
    }

    fn trace(&mut self, now: Instant, order: TraceOrder) -> Result<TraceView, String> {
        self.choice.trace(now, order)
    }

    fn denied(&self) -> Vec<Denial> {
        self.choice.denied()
    }

    fn denied_packets(&self, source: Source) -> u64 {
        self.choice.denied_packets(source)
    }

    fn checkpoint(&self, call: CallId) -> Option<MediaCheckpoint> {
        self.choice.checkpoint(call)
    }

    fn reconcile(&mut self) -> Vec<Difference> {
        self.choice.reconcile()
    }

    fn snapshot(&self) -> Vec<CallId> {
        self.choice.snapshot()
    }
}

/// Why the kernel carries nothing on any interface, if that is so.
fn no_kernel(config: &PlanesConfig) -> Option<String> {
    if !config.kernel {
        Some("the configuration says so".to_owned())
    } else if !xdp::is_embedded() {
        Some(StartError::NoObject.to_string())
    } else {
        None
    }
}

/// Takes the instance's lock, and says in the file who has it.
fn lock(config: &PlanesConfig) -> Result<Flock<fs::File>, StartError> {
    xdp::check_instance(&config.instance)?;
    let path = config.run_dir.join(format!("{}.lock", config.instance));
    let failed = |source| StartError::File { path: path.clone(), source };
    fs::create_dir_all(&config.run_dir).map_err(failed)?;
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    let mut file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(mut file, errno)| {
        if errno != Errno::EWOULDBLOCK {
            return failed(errno.into());
        }
        let mut holder = String::new();
        let by =
            file.read_to_string(&mut holder).is_ok().then(|| holder.trim().parse::<u32>().ok()).flatten();
        let by = by.map(|pid| format!("process {pid}"));
        StartError::InstanceRunning { instance: config.instance.clone(), by }
    })?;
    let written =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(failed)?;
    Ok(file)
}
