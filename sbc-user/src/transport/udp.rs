//! SIP over UDP: one socket for each listener.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use sbc_core::flow::{Flow, Transport};
use sbc_core::id::ListenerId;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tracing::debug;

use super::{Counters, TransportEvent, count, limits};
use crate::config::RealmShell;

/// The largest UDP payload.
const MAX_DATAGRAM: usize = 65_535;

/// A bound socket.
pub(super) fn bind(bind: SocketAddr, realm: &RealmShell) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(bind), Type::DGRAM, Some(Protocol::UDP))?;
    // Beyond the system's limit the kernel gives what it may; either is enough to start.
    socket.set_recv_buffer_size(limits::UDP_BUFFER)?;
    socket.set_send_buffer_size(limits::UDP_BUFFER)?;
    super::prepare(&socket, bind, realm)?;
    UdpSocket::from_std(socket.into())
}

/// A socket that receives; its receiving task ends with it.
pub(super) struct UdpListener {
    socket: Arc<UdpSocket>,
    counters: Arc<Counters>,
    receiver: tokio::task::AbortHandle,
}

impl Drop for UdpListener {
    fn drop(&mut self) {
        self.receiver.abort();
    }
}

impl UdpListener {
    /// Begins to receive.
    pub(super) fn receive(
        listener: ListenerId,
        socket: UdpSocket,
        events: &mpsc::Sender<TransportEvent>,
        counters: &Arc<Counters>,
    ) -> Self {
        let socket = Arc::new(socket);
        let receiver =
            tokio::spawn(receive(listener, socket.clone(), events.clone(), counters.clone())).abort_handle();
        Self { socket, counters: counters.clone(), receiver }
    }

    /// Hands a datagram to the kernel. False if it says that the datagram will never arrive.
    pub(super) fn send(&self, remote: SocketAddr, bytes: &[u8]) -> bool {
        // Not tokio's `try_send_to`: it refuses until the reactor has once seen the socket writable.
        match SockRef::from(&*self.socket).send_to(bytes, &remote.into()) {
            Ok(_) => {
                count(&self.counters.datagrams_sent);
                true
            }
            Err(error) if is_congestion(&error) => {
                // Lost like any datagram; the transaction sends it again.
                count(&self.counters.datagrams_not_sent);
                true
            }
            Err(error) => {
                count(&self.counters.datagrams_not_sent);
                debug!(%remote, %error, "datagram not sent");
                false
            }
        }
    }
}

/// Whether there was no room for a datagram just now: in the socket, or in the queue of the interface.
fn is_congestion(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
}

async fn receive(
    listener: ListenerId,
    socket: Arc<UdpSocket>,
    events: mpsc::Sender<TransportEvent>,
    counters: Arc<Counters>,
) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let (length, remote) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // An ICMP error that an earlier datagram provoked; the socket itself is well.
                debug!(%listener, %error, "receive");
                continue;
            }
        };
        count(&counters.datagrams_received);
        let flow = Flow { listener, transport: Transport::Udp, remote, conn: None };
        let bytes = Bytes::copy_from_slice(&buffer[..length]);
        if events.send(TransportEvent::Datagram { flow, bytes }).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_is_loss_and_not_failure() {
        for (code, congestion) in [
            (libc::EAGAIN, true),
            (libc::ENOBUFS, true),
            (libc::ENETUNREACH, false),
            (libc::EHOSTUNREACH, false),
            (libc::EMSGSIZE, false),
        ] {
            assert_eq!(is_congestion(&io::Error::from_raw_os_error(code)), congestion, "{code}");
        }
    }
}
