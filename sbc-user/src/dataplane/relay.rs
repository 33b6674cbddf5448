//! Media forwarded by the daemon: for interfaces to which XDP does not attach, and for peers on the same host.
//!
//! The kernel steers what arrives for the ports of the plans to a few sockets; where it cannot, each port has a socket
//! of its own. The rules are `Table`'s. A command takes effect between two datagrams, never inside one.

mod bound;
mod inbox;
mod outbox;
mod packet;
mod side;
mod steered;
mod table;
mod worker;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;
use std::{io, iter};

use anyhow::Context as _;
use nix::sys::eventfd::{EfdFlags, EventFd};
use sbc_common::counter::Counter;
use sbc_common::flow::MediaKind;
use sbc_core::id::{CallId, OpId};
use sbc_core::media::command::{MediaCommand, MediaDone, MediaError, MediaResult, SideOf, StreamCounters};
use sbc_core::media::plan::{MediaPlan, Placement, StreamPlan};

use super::carrier::{Carrier, Claim, StandsBy};
use super::{Dataplane, DataplaneEvent, prime, send_once};
use bound::BoundPorts;
use steered::SteeredPorts;
pub(super) use table::Table;

/// Claims and copies of RTCP that are taken at once: whoever polls has calls to serve besides.
const NEWS_AT_ONCE: usize = 512;

/// See the module.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    not_steered: Option<String>,
    /// What is to be polled.
    events: VecDeque<DataplaneEvent>,
}

/// What the caller's thread and the forwarding threads share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// In hand of whoever waits for the state: so nobody takes it twice while another waits. Without it a forwarding
    /// thread, which gives the state back only to take it again, would keep it for as long as a flood lasts.
    turn: Mutex<()>,
    /// Beginning of the times that the table is told.
    epoch: Instant,
    /// Wakes the forwarding threads, which then end. Never read.
    stop: EventFd,
    /// Readable when there is something to poll.
    news: EventFd,
}

#[derive(Debug)]
struct State {
    table: Table,
    ports: Ports,
}

/// How the ports of the plans are held.
#[derive(Debug)]
enum Ports {
    Bound(BoundPorts),
    Steered(SteeredPorts),
}

impl Ports {
    /// Takes all of these ports, or none.
    fn open(&mut self, addresses: &[SocketAddr]) -> Result<(), MediaError> {
        match self {
            Self::Bound(ports) => ports.open(addresses),
            Self::Steered(ports) => ports.open(addresses),
        }
    }

    fn close(&mut self, addresses: &[SocketAddr]) {
        match self {
            Self::Bound(ports) => ports.close(addresses),
            Self::Steered(ports) => ports.close(addresses),
        }
    }

    /// Sets the DSCP of what leaves from these ports, where that belongs to the port and not to each packet.
    fn mark(&self, addresses: &[SocketAddr], dscp: u8) {
        match self {
            Self::Bound(ports) => ports.mark(addresses, dscp),
            Self::Steered(_) => {}
        }
    }
}

impl Shared {
    fn new(ports: Ports) -> anyhow::Result<Arc<Self>> {
        let eventfd =
            || EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).context("eventfd");
        let state = Mutex::new(State { table: Table::new(Placement::Relay), ports });
        Ok(Arc::new(Self {
            state,
            turn: Mutex::new(()),
            epoch: Instant::now(),
            stop: eventfd()?,
            news: eventfd()?,
        }))
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // A panic inside leaves at worst one datagram uncounted.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Relay {
    /// Starts the forwarding threads, in the network namespace of the calling thread: with the kernel's steering if that
    /// can be, else with a socket for each port ([`Relay::not_steered`] says why).
    ///
    /// # Errors
    /// If the system has no descriptor or thread left.
    pub fn start() -> anyhow::Result<Self> {
        match SteeredPorts::start() {
            Ok((ports, threads)) => {
                let mut relay = Self::with(Ports::Steered(ports))?;
                for thread in threads {
                    relay.threads.push(thread.spawn(Arc::clone(&relay.shared)).context("start a thread")?);
                }
                Ok(relay)
            }
            Err(reason) => {
                let mut relay = Self::start_with_bound_ports()?;
                relay.not_steered = Some(format!("{reason:#}"));
                Ok(relay)
            }
        }
    }

    /// Starts it with a socket for each port.
    ///
    /// # Errors
    /// As [`Relay::start`].
    pub fn start_with_bound_ports() -> anyhow::Result<Self> {
        let ports = BoundPorts::new().context("epoll")?;
        let epoll = ports.epoll();
        let mut relay = Self::with(Ports::Bound(ports))?;
        let thread = BoundPorts::spawn(epoll, Arc::clone(&relay.shared)).context("start a thread")?;
        relay.threads.push(thread);
        Ok(relay)
    }

    fn with(ports: Ports) -> anyhow::Result<Self> {
        Ok(Self {
            shared: Shared::new(ports)?,
            threads: Vec::new(),
            not_steered: None,
            events: VecDeque::new(),
        })
    }

    /// Why each port has a socket of its own, if that is so because the kernel's steering was refused.
    #[must_use]
    pub fn not_steered(&self) -> Option<&str> {
        self.not_steered.as_deref()
    }

    /// How often a datagram had this outcome.
    #[must_use]
    pub fn outcome(&self, counter: Counter) -> u64 {
        self.shared.state().table.outcome(counter)
    }

    /// Every outcome that a datagram had here, with how often, in the order of their numbers.
    #[must_use]
    pub fn outcomes(&self) -> Vec<(Counter, u64)> {
        let state = self.shared.state();
        Counter::ALL.iter().map(|counter| (*counter, state.table.outcome(*counter))).collect()
    }

    fn install(&self, plan: MediaPlan) -> MediaResult {
        let mut state = self.shared.state();
        let State { table, ports } = &mut *state;
        let change = table.admit(&plan)?;
        ports.open(&change.opened)?;
        ports.close(&change.closed);
        for plan in plan.streams.iter().flat_map(|stream| [&stream.caller, &stream.callee]) {
            ports.mark(&[MediaKind::Rtp, MediaKind::Rtcp].map(|kind| side::local(plan, kind)), plan.dscp);
        }
        let placements = vec![Placement::Relay; plan.streams.len()];
        table.install(plan);
        Ok(MediaDone { placements, counters: Vec::new() })
    }

    fn remove(&self, call: CallId) -> MediaDone {
        let mut state = self.shared.state();
        let (counters, ports) = state.table.remove(call);
        state.ports.close(&ports);
        MediaDone { placements: Vec::new(), counters }
    }

    fn prime(&self, call: CallId, sides: &[SideOf]) {
        let state = self.shared.state();
        let ways = state.table.ways(call, sides);
        match &state.ports {
            Ports::Bound(ports) => ways.into_iter().for_each(|ways| {
                prime::send(ways, |way, packet| match ports.at(way.via) {
                    Some(socket) => socket.send_to(packet, way.to).map(drop),
                    None => Err(io::ErrorKind::NotConnected.into()),
                });
            }),
            Ports::Steered(_) => {
                drop(state);
                ways.into_iter().for_each(|ways| prime::send(ways, send_once::send));
            }
        }
    }

    /// Addresses and ports of ours whose datagrams arrive here, in order.
    #[must_use]
    pub fn bound(&self) -> Vec<SocketAddr> {
        let mut bound: Vec<SocketAddr> = match &self.shared.state().ports {
            Ports::Bound(ports) => ports.bound().collect(),
            Ports::Steered(ports) => ports.bound().collect(),
        };
        bound.sort_unstable();
        bound
    }
}

fn media_error(address: SocketAddr, error: &io::Error) -> MediaError {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => MediaError::PortInUse(address),
        Some(libc::EADDRNOTAVAIL) => MediaError::NotOurs(address),
        Some(libc::EMFILE | libc::ENFILE) => MediaError::Full("descriptors"),
        Some(_) | None => MediaError::System(format!("bind {address}: {error}")),
    }
}

impl Carrier for Relay {
    fn claims(&self, call: CallId) -> Vec<Claim> {
        self.shared.state().table.claims(call)
    }

    fn teach(&mut self, _now: Instant, call: CallId, claims: &[Claim]) {
        self.shared.state().table.teach(call, claims);
    }
}

impl StandsBy for Relay {
    fn stand_by(&mut self, call: CallId, streams: &[StreamPlan]) {
        let mut state = self.shared.state();
        let State { table, ports } = &mut *state;
        // A descriptor for each port is too much for what hardly ever comes.
        let Ports::Steered(ports) = ports else { return };
        let change = table.stand_by(call, streams);
        ports.close(&change.closed);
        if let Err(error) = ports.open(&change.opened) {
            tracing::debug!(%call, %error, "the relay cannot stand by for streams that the kernel carries");
            ports.close(&table.stand_by(call, &[]).closed);
        }
    }
}

impl Dataplane for Relay {
    fn apply(&mut self, _now: Instant, op: OpId, command: MediaCommand) {
        let result = match command {
            MediaCommand::Install(plan) => self.install(plan),
            MediaCommand::Remove(call) => Ok(self.remove(call)),
            MediaCommand::Observe(call) => {
                Ok(MediaDone { placements: Vec::new(), counters: self.counters(call) })
            }
            MediaCommand::Prime { call, sides } => {
                self.prime(call, &sides);
                Ok(MediaDone::default())
            }
        };
        self.events.push_back(DataplaneEvent::Done { op, result });
    }

    fn poll_event(&mut self) -> Option<DataplaneEvent> {
        self.events.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn handle_timeout(&mut self, _now: Instant) {
        // Not readable any more until there is something new. Nothing to read is no error.
        let _ = self.shared.news.read();
        let mut state = self.shared.state();
        let news = iter::from_fn(|| state.table.poll_event()).take(NEWS_AT_ONCE);
        self.events.extend(news.map(DataplaneEvent::Media));
        if state.table.has_news() {
            // The rest at the next time. Full means that it is readable already.
            let _ = self.shared.news.write(1);
        }
    }

    fn counters(&self, call: CallId) -> Vec<StreamCounters> {
        self.shared.state().table.counters(call)
    }

    fn snapshot(&self) -> Vec<CallId> {
        self.shared.state().table.calls()
    }
}

/// Readable when `handle_timeout` has something to do.
impl AsFd for Relay {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.news.as_fd()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.shared.stop.write(1);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
