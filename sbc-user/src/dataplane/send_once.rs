//! One datagram from a port of ours, by a socket that is opened for it: for what is too rare to keep a socket, or too
//! large for a raw one.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// From where to where a datagram of ours goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// The port of ours that it leaves from.
    pub(super) via: SocketAddr,
    /// Where to.
    pub(super) to: SocketAddr,
    /// Marked how.
    pub(super) dscp: u8,
}

/// A datagram socket for this address, not bound, that waits for nothing.
pub(super) fn socket_for(address: SocketAddr) -> io::Result<Socket> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Sets the DSCP of what leaves. Where that fails packets still flow, unmarked.
pub(super) fn mark(socket: &UdpSocket, at: SocketAddr, dscp: u8) {
    let traffic_class = u32::from(dscp) << 2;
    let socket = SockRef::from(socket);
    let set = match at {
        SocketAddr::V4(_) => socket.set_tos_v4(traffic_class),
        SocketAddr::V6(_) => socket.set_tclass_v6(traffic_class),
    };
    if let Err(error) = set {
        tracing::debug!(%error, dscp, "cannot mark packets");
    }
}

/// Sends from a port that no other socket is bound to. The kernel finds the way, and fragments where that is narrow.
///
/// # Errors
/// The system's.
pub(super) fn send(Way { via, to, dscp }: Way, payload: &[u8]) -> io::Result<()> {
    let socket = socket_for(via)?;
    // Two threads may do it at once.
    socket.set_reuse_address(true)?;
    socket.bind(&via.into())?;
    let socket = UdpSocket::from(socket);
    mark(&socket, via, dscp);
    socket.send_to(payload, to).map(drop)
}
