//! The program that hands datagrams to the relay's few sockets, and its maps.
//!
//! Nothing of it is pinned: it is attached to the network namespace for as long as the descriptor of its link is open.
//! Without the daemon nobody relays, and its ports are then nobody's, as they should be.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use aya::EbpfLoader;
use aya::maps::{HashMap, Map, MapData, MapError, SockMap};
use aya::programs::SkLookup;
use aya::programs::sk_lookup::SkLookupLink;
use sbc_common::names;
use sbc_common::steer::SteeredPort;

use super::error::chain;
use super::object::STEER_OBJECT;

/// The network namespace of the calling thread.
const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// The attached program. Detached when it is dropped.
pub(crate) struct Steering {
    ports: HashMap<MapData, SteeredPort, u32>,
    sockets: SockMap<MapData>,
    _link: SkLookupLink,
}

impl fmt::Debug for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steering").finish_non_exhaustive()
    }
}

impl Steering {
    /// Loads the program and attaches it to the network namespace of the calling thread.
    ///
    /// # Errors
    /// Why this host or this build cannot, in words.
    pub(crate) fn attach() -> Result<Self, String> {
        if STEER_OBJECT.is_empty() {
            return Err("this build has no steering program".to_owned());
        }
        let missing = || "the steering program's object comes from another version".to_owned();
        let mut ebpf = EbpfLoader::new().load(STEER_OBJECT).map_err(|error| chain(&error))?;
        let program = ebpf.program_mut(names::STEER).ok_or_else(missing)?;
        let program: &mut SkLookup = program.try_into().map_err(|_| missing())?;
        program.load().map_err(|error| chain(&error))?;
        let namespace = File::open(NAMESPACE).map_err(|error| format!("{NAMESPACE}: {error}"))?;
        let link = program.attach(namespace).map_err(|error| chain(&error))?;
        let link = program.take_link(link).map_err(|error| chain(&error))?;
        let mut take = |name| ebpf.take_map(name).ok_or_else(missing);
        let (ports, sockets) = (take(names::STEERED)?, take(names::RELAY_SOCKETS)?);
        Ok(Self { ports: typed(ports)?, sockets: typed(sockets)?, _link: link })
    }

    /// Puts a socket where ports can be steered to: bound, and of one family.
    pub(crate) fn set_socket(&mut self, index: u32, socket: &impl AsRawFd) -> Result<(), String> {
        self.sockets.set(index, socket, 0).map_err(|error| chain(&error))
    }

    /// Steers a port's datagrams to a socket.
    ///
    /// # Errors
    /// The system's; `E2BIG` where there is no room.
    pub(crate) fn steer(&mut self, port: SocketAddr, socket: u32) -> io::Result<()> {
        self.ports.insert(key(port), socket, 0).map_err(system)
    }

    /// Leaves a port's datagrams to whoever else has it.
    pub(crate) fn release(&mut self, port: SocketAddr) {
        // Not there: as wanted.
        let _ = self.ports.remove(&key(port));
    }
}

fn key(port: SocketAddr) -> SteeredPort {
    match port {
        SocketAddr::V4(v4) => SteeredPort::v4(v4.ip().octets(), v4.port()),
        SocketAddr::V6(v6) => SteeredPort::v6(v6.ip().octets(), v6.port()),
    }
}

fn typed<T: TryFrom<Map, Error = MapError>>(map: Map) -> Result<T, String> {
    T::try_from(map).map_err(|error| chain(&error))
}

fn system(error: MapError) -> io::Error {
    if let MapError::SyscallError(error) = error { error.io_error } else { io::Error::other(error) }
}
