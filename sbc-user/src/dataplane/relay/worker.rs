//! The relay's thread: waits for every socket, forwards what may pass.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags, EpollTimeout};
use sbc_common::counter::Counter;

use super::socket::STOP;
use super::{Shared, State};

/// Sockets that one wait reports.
const MAX_READY: usize = 256;
/// Datagrams taken from one socket before the others have their turn.
const MAX_BURST: usize = 16;
/// Larger than any UDP payload, so that none is cut.
const BUFFER_BYTES: usize = 64 * 1024;

/// Starts the thread. It ends when `stop` is written.
pub(super) fn spawn(shared: Arc<Shared>) -> anyhow::Result<JoinHandle<()>> {
    shared.epoll.add(&shared.stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
    Ok(thread::Builder::new().name("relay".into()).spawn(move || run(&shared))?)
}

fn run(shared: &Shared) {
    let mut ready = [EpollEvent::empty(); MAX_READY];
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = match shared.epoll.wait(&mut ready, EpollTimeout::NONE) {
            Ok(count) => count,
            Err(Errno::EINTR) => continue,
            Err(error) => {
                tracing::error!(%error, "the relay cannot wait for its sockets and stops forwarding");
                return;
            }
        };
        for token in ready[..count].iter().map(EpollEvent::data) {
            if token == STOP {
                return;
            }
            // Taken per socket, so that a command waits for one burst at most.
            let mut state = shared.state();
            if let Some(address) = state.sockets.address_of(token)
                && drain(&mut state, address, &mut buffer)
            {
                // Full means that it is readable already.
                let _ = shared.news.write(1);
            }
        }
    }
}

/// Forwards what waits at one port, up to a burst. Whether somebody claimed it.
fn drain(state: &mut State, at: SocketAddr, buffer: &mut [u8]) -> bool {
    let State { table, sockets } = state;
    let Some(socket) = sockets.at(at) else { return false };
    let claims = table.outcome(Counter::Claimed);
    for _ in 0..MAX_BURST {
        // Any error ends the burst; one that lasts is reported again by the next wait.
        let Ok((length, from)) = socket.recv_from(buffer) else { break };
        let datagram = &buffer[..length];
        let from = SocketAddr::new(from.ip(), from.port()); // without flow label and scope
        let Ok(forward) = table.forward(at, from, datagram) else { continue };
        let sent = sockets.at(forward.via).is_some_and(|via| via.send_to(datagram, forward.to).is_ok());
        if sent {
            table.forwarded(&forward, datagram);
        } else {
            table.count(Counter::DropNotSent);
        }
    }
    table.outcome(Counter::Claimed) != claims
}
