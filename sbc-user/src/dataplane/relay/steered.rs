//! A few sockets for all ports: the kernel steers the datagrams of every relayed port to them, and what leaves goes out
//! by raw sockets, which need no port. Descriptors and memory do not grow with the calls.
//!
//! One thread per core, each with its own sockets. A port belongs to one thread, so that what arrives there in order
//! leaves in order. The rules are applied to a batch under the lock that all threads share; the system calls, where the
//! time goes, are outside of it.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, anyhow};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{setsockopt, sockopt};
use sbc_common::limits::RELAY_THREADS;
use sbc_core::media::command::MediaError;

use super::inbox::{BATCH, Inbox};
use super::outbox::{Leaving, RawSockets};
use super::worker::{FIRST_TOKEN, Heard, wait};
use super::{Shared, media_error};
use crate::dataplane::send_once::socket_for;
use crate::dataplane::xdp::Steering;

/// Room for what waits at a thread's socket: some tenths of a second at 100,000 packets per second.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;

const V4: u64 = FIRST_TOKEN;
const V6: u64 = FIRST_TOKEN + 1;

/// Every steered port.
#[derive(Debug)]
pub(super) struct SteeredPorts {
    steering: Steering,
    threads: u32,
    ports: BTreeSet<SocketAddr>,
}

/// One thread's part.
pub(super) struct Thread {
    epoll: Epoll,
    v4: UdpSocket,
    /// `None` where the host has no IPv6.
    v6: Option<UdpSocket>,
    raw: RawSockets,
}

impl SteeredPorts {
    /// Opens everything, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// What this host refuses.
    pub(super) fn start() -> anyhow::Result<(Self, Vec<Thread>)> {
        let cores =
            thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
        let threads = cores.min(RELAY_THREADS);
        let mut steering = Steering::attach().map_err(|error| anyhow!("steering by the kernel: {error}"))?;
        let mut made = Vec::new();
        for index in 0..threads {
            let thread = Thread::open()?;
            let mut set = |socket, index| {
                steering.set_socket(index, socket).map_err(|error| anyhow!("steering to a socket: {error}"))
            };
            set(&thread.v4, 2 * index)?;
            thread.v6.as_ref().map_or(Ok(()), |v6| set(v6, 2 * index + 1))?;
            made.push(thread);
        }
        Ok((Self { steering, threads, ports: BTreeSet::new() }, made))
    }

    /// Takes all of these ports, or none.
    pub(super) fn open(&mut self, addresses: &[SocketAddr]) -> Result<(), MediaError> {
        for (position, address) in addresses.iter().enumerate() {
            if let Err(error) = self.open_one(*address) {
                self.close(&addresses[..position]);
                return Err(error);
            }
        }
        Ok(())
    }

    fn open_one(&mut self, address: SocketAddr) -> Result<(), MediaError> {
        // Steering goes before sockets: what another program has bound would be taken from it, unseen.
        let free = socket_for(address).and_then(|socket| socket.bind(&address.into()));
        free.map_err(|error| media_error(address, &error))?;
        // Both ports of a side, so also what comes after one another there, have one thread.
        let thread = u32::from(address.port() >> 1) % self.threads;
        let socket = 2 * thread + u32::from(address.is_ipv6());
        self.steering.steer(address, socket).map_err(|error| match error.raw_os_error() {
            Some(libc::E2BIG) => MediaError::Full("steered ports"),
            Some(_) | None => MediaError::System(format!("steer {address}: {error}")),
        })?;
        self.ports.insert(address);
        Ok(())
    }

    /// Lets go of these ports, if they are held.
    pub(super) fn close(&mut self, addresses: &[SocketAddr]) {
        for address in addresses {
            if self.ports.remove(address) {
                self.steering.release(*address);
            }
        }
    }

    /// Every port that is steered.
    pub(super) fn bound(&self) -> impl Iterator<Item = SocketAddr> {
        self.ports.iter().copied()
    }
}

impl Thread {
    fn open() -> anyhow::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("epoll")?;
        let v4 = receiver((Ipv4Addr::LOCALHOST, 0).into()).context("a socket to steer to")?;
        epoll.add(&v4, EpollEvent::new(EpollFlags::EPOLLIN, V4)).context("epoll")?;
        let v6 = match receiver((Ipv6Addr::LOCALHOST, 0).into()) {
            Ok(v6) => {
                epoll.add(&v6, EpollEvent::new(EpollFlags::EPOLLIN, V6)).context("epoll")?;
                Some(v6)
            }
            Err(error) => {
                tracing::debug!(%error, "the relay has no IPv6");
                None
            }
        };
        Ok(Self { epoll, v4, v6, raw: RawSockets::open().context("a raw socket")? })
    }

    /// Starts it. It ends when `shared.stop` is written.
    pub(super) fn spawn(self, shared: Arc<Shared>) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().name("relay".into()).spawn(move || {
            let (mut inbox, mut leaving) = (Inbox::new(), Vec::with_capacity(BATCH));
            wait(&self.epoll, &shared, |token| self.serve(&shared, token, &mut inbox, &mut leaving));
        })
    }

    /// Forwards what waits at a socket, up to a batch.
    fn serve(&self, shared: &Shared, token: u64, inbox: &mut Inbox, leaving: &mut Vec<Leaving>) -> Heard {
        let Some(socket) = (if token == V6 { self.v6.as_ref() } else { Some(&self.v4) }) else {
            return Heard::Nothing;
        };
        // An error that lasts is reported again by the next wait.
        let Ok(count) = inbox.receive(socket) else { return Heard::Nothing };
        let now_ns = shared.now_ns();
        leaving.clear();
        let mut state = shared.state();
        for position in 0..count {
            let Some(arrived) = inbox.get(position) else { continue };
            if let Ok(forward) = state.table.forward(arrived.at, arrived.from, arrived.payload, now_ns) {
                leaving.push(Leaving { forward, position });
            }
        }
        let heard = Heard::of(&state.table);
        drop(state);
        self.raw.send(leaving, inbox, |leaving, payload| shared.state().table.not_sent(leaving, payload));
        heard
    }
}

/// A socket that the kernel may steer datagrams to. It must be bound, and where does not matter: nothing is a port of
/// ours there.
fn receiver(at: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket_for(at)?;
    // The loopback interface may be down.
    if at.is_ipv6() { socket.set_freebind_v6(true) } else { socket.set_freebind_v4(true) }?;
    socket.bind(&at.into())?;
    if at.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6OrigDstAddr, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv4OrigDstAddr, &true)?;
    }
    // Beyond the host's limit where we may, up to it where not.
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES).is_err() {
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    }
    Ok(socket.into())
}
