//! Waiting for a set of descriptors that is fixed from the start.

use std::future::poll_fn;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::task::Poll;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The descriptors of the dataplane. They are its own; here are duplicates, so that neither outlives the other's.
#[derive(Debug, Default)]
pub struct Readiness(Vec<AsyncFd<OwnedFd>>);

impl Readiness {
    /// Waits for any of these to become readable. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// A descriptor cannot be duplicated or waited for.
    pub fn new<'fd>(fds: impl IntoIterator<Item = BorrowedFd<'fd>>) -> io::Result<Self> {
        let watch = |fd: BorrowedFd<'_>| {
            let fd = fd.try_clone_to_owned()?;
            // SAFETY: the descriptor is open and owned by the `AsyncFd` from here to its end.
            Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
        };
        fds.into_iter().map(watch).collect::<io::Result<_>>().map(Self)
    }

    /// One of them has become readable since the last time.
    pub(super) async fn readable(&self) {
        poll_fn(|context| {
            let mut any = false;
            for fd in &self.0 {
                if let Poll::Ready(Ok(mut guard)) = fd.poll_read_ready(context) {
                    // The dataplane reads all there is; what comes later is a new edge.
                    guard.clear_ready();
                    any = true;
                    // Registers for that edge.
                    let _ = fd.poll_read_ready(context);
                }
            }
            if any { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
