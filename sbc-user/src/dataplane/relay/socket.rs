//! The relay's sockets: one per port of ours, opened as one unit, waited for through one epoll set.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use sbc_core::media::command::MediaError;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Never the token of a port: see [`Sockets::open`].
pub(super) const STOP: u64 = 0;

/// Every bound port.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    by_address: HashMap<SocketAddr, Bound>,
    /// The epoll set speaks in tokens; a token is never used again, so a late event of a closed port is nobody's.
    by_token: HashMap<u64, SocketAddr>,
    last_token: u64,
}

#[derive(Debug)]
struct Bound {
    socket: UdpSocket,
    token: u64,
}

impl Sockets {
    /// Binds all of these ports, or none.
    pub(super) fn open(&mut self, epoll: &Epoll, addresses: &[SocketAddr]) -> Result<(), MediaError> {
        for (position, address) in addresses.iter().enumerate() {
            if let Err(error) = self.open_one(epoll, *address) {
                self.close(epoll, &addresses[..position]);
                return Err(media_error(*address, &error));
            }
        }
        Ok(())
    }

    fn open_one(&mut self, epoll: &Epoll, address: SocketAddr) -> io::Result<()> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::DGRAM.nonblocking().cloexec(),
            Some(Protocol::UDP),
        )?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        let token = self.last_token + 1;
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
        self.last_token = token;
        self.by_token.insert(token, address);
        self.by_address.insert(address, Bound { socket: socket.into(), token });
        Ok(())
    }

    /// Closes these ports, if they are open.
    pub(super) fn close(&mut self, epoll: &Epoll, addresses: &[SocketAddr]) {
        for address in addresses {
            if let Some(Bound { socket, token }) = self.by_address.remove(address) {
                // Closing the last descriptor takes it out of the set as well.
                let _ = epoll.delete(&socket);
                self.by_token.remove(&token);
            }
        }
    }

    /// Sets the DSCP of what leaves from these ports. Without it packets still flow, unmarked.
    pub(super) fn mark(&self, addresses: [SocketAddr; 2], dscp: u8) {
        let traffic_class = u32::from(dscp) << 2;
        for (address, bound) in
            addresses.iter().filter_map(|address| Some((address, self.by_address.get(address)?)))
        {
            let socket = SockRef::from(&bound.socket);
            let set = match address {
                SocketAddr::V4(_) => socket.set_tos_v4(traffic_class),
                SocketAddr::V6(_) => socket.set_tclass_v6(traffic_class),
            };
            if let Err(error) = set {
                tracing::debug!(%error, dscp, "the relay cannot mark its packets");
            }
        }
    }

    /// The port that a token stands for.
    pub(super) fn address_of(&self, token: u64) -> Option<SocketAddr> {
        self.by_token.get(&token).copied()
    }

    /// The socket of a port.
    pub(super) fn at(&self, address: SocketAddr) -> Option<&UdpSocket> {
        self.by_address.get(&address).map(|bound| &bound.socket)
    }

    /// Every bound port, in order.
    pub(super) fn bound(&self) -> Vec<SocketAddr> {
        let mut bound: Vec<SocketAddr> = self.by_address.keys().copied().collect();
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
