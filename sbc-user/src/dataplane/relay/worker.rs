//! What a forwarding thread does: it waits for sockets, has each served, and says when there is something to poll.

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags, EpollTimeout};

use super::{Shared, Table};

/// Sockets that one wait reports.
const MAX_READY: usize = 256;
/// The token of `Shared::stop`.
const STOP: u64 = 0;
/// Those of sockets begin here.
pub(super) const FIRST_TOKEN: u64 = STOP + 1;

/// What serving a socket brought for whoever polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Nothing,
    Something,
}

impl Heard {
    pub(super) fn of(table: &Table) -> Self {
        if table.has_news() { Self::Something } else { Self::Nothing }
    }
}

/// Has sockets of the set served while they are readable, until `shared.stop` is written.
pub(super) fn wait(epoll: &Epoll, shared: &Shared, mut serve: impl FnMut(u64) -> Heard) {
    if let Err(error) = epoll.add(&shared.stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP)) {
        tracing::error!(%error, "a thread of the relay could not be told to end, and does not begin");
        return;
    }
    let mut ready = [EpollEvent::empty(); MAX_READY];
    loop {
        let count = match epoll.wait(&mut ready, EpollTimeout::NONE) {
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
            if serve(token) == Heard::Something {
                // Full means that it is readable already.
                let _ = shared.news.write(1);
            }
        }
    }
}
