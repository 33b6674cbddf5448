//! One socket per port, bound to it, and one thread for all of them: where the kernel does not steer ports to the few
//! sockets of [`super::steered`]. It costs a descriptor and some kilobytes for each port.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use sbc_core::media::command::MediaError;

use super::worker::{FIRST_TOKEN, Heard, wait};
use super::{Ports, Shared, State, media_error};
use crate::dataplane::send_once::{mark, socket_for};

/// Datagrams taken from one socket before the others have their turn.
const MAX_BURST: usize = 16;
/// Larger than any UDP payload, so that none is cut.
const BUFFER_BYTES: usize = 64 * 1024;

/// Every bound port.
#[derive(Debug)]
pub(super) struct BoundPorts {
    epoll: Arc<Epoll>,
    by_address: HashMap<SocketAddr, Bound>,
    /// The epoll set speaks in tokens; a token is never used again, so a late event of a closed port is nobody's.
    by_token: HashMap<u64, SocketAddr>,
    next_token: u64,
}

#[derive(Debug)]
struct Bound {
    socket: UdpSocket,
    token: u64,
}

impl BoundPorts {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self {
            epoll: Arc::new(epoll),
            by_address: HashMap::new(),
            by_token: HashMap::new(),
            next_token: FIRST_TOKEN,
        })
    }

    /// Starts the thread that forwards. It ends when `shared.stop` is written.
    pub(super) fn spawn(epoll: Arc<Epoll>, shared: Arc<Shared>) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().name("relay".into()).spawn(move || {
            let mut buffer = vec![0; BUFFER_BYTES];
            wait(&epoll, &shared, |token| serve(&shared, token, &mut buffer));
        })
    }

    /// The set in which the sockets are waited for.
    pub(super) fn epoll(&self) -> Arc<Epoll> {
        Arc::clone(&self.epoll)
    }

    /// Binds all of these ports, or none.
    pub(super) fn open(&mut self, addresses: &[SocketAddr]) -> Result<(), MediaError> {
        for (position, address) in addresses.iter().enumerate() {
            if let Err(error) = self.open_one(*address) {
                self.close(&addresses[..position]);
                return Err(media_error(*address, &error));
            }
        }
        Ok(())
    }

    fn open_one(&mut self, address: SocketAddr) -> io::Result<()> {
        let socket = socket_for(address)?;
        socket.bind(&address.into())?;
        let token = self.next_token;
        self.epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
        self.next_token += 1;
        self.by_token.insert(token, address);
        self.by_address.insert(address, Bound { socket: socket.into(), token });
        Ok(())
    }

    /// Closes these ports, if they are open.
    pub(super) fn close(&mut self, addresses: &[SocketAddr]) {
        for address in addresses {
            if let Some(Bound { socket, token }) = self.by_address.remove(address) {
                // Closing the last descriptor takes it out of the set as well.
                let _ = self.epoll.delete(&socket);
                self.by_token.remove(&token);
            }
        }
    }

    /// Sets the DSCP of what leaves from these ports.
    pub(super) fn mark(&self, addresses: &[SocketAddr], dscp: u8) {
        for address in addresses {
            if let Some(bound) = self.by_address.get(address) {
                mark(&bound.socket, *address, dscp);
            }
        }
    }

    /// The socket of a port.
    pub(super) fn at(&self, address: SocketAddr) -> Option<&UdpSocket> {
        self.by_address.get(&address).map(|bound| &bound.socket)
    }

    /// Every bound port.
    pub(super) fn bound(&self) -> impl Iterator<Item = SocketAddr> {
        self.by_address.keys().copied()
    }
}

/// Forwards what waits at one port, up to a burst.
fn serve(shared: &Shared, token: u64, buffer: &mut [u8]) -> Heard {
    // Taken per socket, so that a command waits for one burst at most.
    let mut state = shared.state();
    let State { table, ports: Ports::Bound(ports) } = &mut *state else { return Heard::Nothing };
    let Some((at, socket)) = ports.by_token.get(&token).and_then(|at| Some((*at, ports.at(*at)?))) else {
        return Heard::Nothing;
    };
    let now_ns = shared.now_ns();
    for _ in 0..MAX_BURST {
        // Any error ends the burst; one that lasts is reported again by the next wait.
        let Ok((length, from)) = socket.recv_from(buffer) else { break };
        let datagram = &buffer[..length];
        let from = SocketAddr::new(from.ip(), from.port()); // without flow label and scope
        let Ok(forward) = table.forward(at, from, datagram, now_ns) else { continue };
        let sent = ports.at(forward.way.via).is_some_and(|via| via.send_to(datagram, forward.way.to).is_ok());
        if !sent {
            table.not_sent(&forward, datagram);
        }
    }
    Heard::of(table)
}
