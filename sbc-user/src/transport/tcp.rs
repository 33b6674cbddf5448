//! TCP sockets: listening, accepting, opening.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tracing::warn;

use super::conn::{Connections, Opener};
use super::limits;
use crate::config::RealmShell;

/// A listening socket.
pub(super) fn listen(bind: SocketAddr, realm: &RealmShell) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(bind), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the connections of its predecessor to be forgotten.
    socket.set_reuse_address(true)?;
    super::prepare(&socket, bind, realm)?;
    socket.listen(limits::BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts until the connections are shut down.
pub(super) fn spawn_accept(listener: TcpListener, opener: Opener, connections: Connections) {
    tokio::spawn(async move {
        let stopped = connections.stopped();
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, remote)) => connections.accept(&opener, stream, remote),
                    Err(error) => {
                        warn!(listener = %opener.listener, %error, "accept");
                        tokio::time::sleep(limits::ACCEPT_PAUSE).await;
                    }
                },
                () = &mut stopped => return,
            }
        }
    });
}

/// Opens a connection from our address of that side.
pub(super) async fn open(local: IpAddr, dscp: u8, remote: SocketAddr) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    super::mark(&SockRef::from(&socket), local, dscp)?;
    socket.bind(SocketAddr::new(local, 0))?;
    match tokio::time::timeout(limits::CONNECT, socket.connect(remote)).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Small messages leave at once, and a dead peer is noticed. How its packets are marked it has from its listener, or
/// from before it was connected.
pub(super) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keep_alive = TcpKeepalive::new()
        .with_time(limits::KEEP_ALIVE)
        .with_interval(limits::KEEP_ALIVE_INTERVAL)
        .with_retries(limits::KEEP_ALIVE_PROBES);
    SockRef::from(stream).set_tcp_keepalive(&keep_alive)
}
