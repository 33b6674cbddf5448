//! What has to be undone when this process ends, however it ends.
//!
//! Each thing made outside the process registers how to undo it and keeps the [`Guard`]. Dropping the guard undoes it;
//! SIGINT, SIGTERM and SIGHUP undo everything that is still registered, newest first, and end the process.
//! Only SIGKILL escapes: what it leaves behind carries this process's id in its name and is swept by the next run.

use std::io::Read;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

type Undo = Box<dyn FnOnce() + Send>;

static REGISTERED: Mutex<Vec<(u64, Undo)>> = Mutex::new(Vec::new());
static NEXT_ID: AtomicU64 = AtomicU64::new(0);
static WAKE_FD: AtomicI32 = AtomicI32::new(-1);
static SIGNALS: Once = Once::new();

/// Undoes one thing when dropped.
#[must_use = "dropping the guard undoes the thing at once"]
#[derive(Debug)]
pub struct Guard(u64);

/// Registers how to undo something. `undo` must not register or drop guards itself.
pub fn on_exit(undo: impl FnOnce() + Send + 'static) -> Guard {
    SIGNALS.call_once(watch_signals);
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    registered().push((id, Box::new(undo)));
    Guard(id)
}

impl Drop for Guard {
    fn drop(&mut self) {
        // While a signal undoes everything the lock is held until the process ends, so nobody leaves early.
        let undo = {
            let mut registered = registered();
            registered.iter().position(|(id, _)| *id == self.0).map(|index| registered.remove(index).1)
        };
        if let Some(undo) = undo {
            undo();
        }
    }
}

fn registered() -> MutexGuard<'static, Vec<(u64, Undo)>> {
    REGISTERED.lock().unwrap_or_else(PoisonError::into_inner)
}

extern "C" fn wake(signal: libc::c_int) {
    let byte = signal.to_le_bytes()[0];
    // SAFETY: write(2) is async-signal-safe, the buffer is one byte on this stack, the descriptor is never closed.
    unsafe { libc::write(WAKE_FD.load(Ordering::Relaxed), (&raw const byte).cast(), 1) };
}

fn watch_signals() {
    let Ok((reader, writer)) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC) else { return };
    WAKE_FD.store(OwnedFd::into_raw_fd(writer), Ordering::Relaxed);
    let action = SigAction::new(SigHandler::Handler(wake), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: `wake` does nothing but an async-signal-safe write and touches only atomics.
        let _ = unsafe { sigaction(signal, &action) };
    }
    std::thread::spawn(move || {
        let mut signal = [0u8; 1];
        if std::fs::File::from(reader).read_exact(&mut signal).is_err() {
            return;
        }
        let mut registered = registered();
        while let Some((_, undo)) = registered.pop() {
            undo();
        }
        std::process::exit(128 + i32::from(signal[0]));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn dropping_the_guard_undoes_once_also_on_panic() {
        let undone = Arc::new(AtomicU64::new(0));
        let count = undone.clone();
        let result = std::panic::catch_unwind(move || {
            let _guard = on_exit(move || {
                count.fetch_add(1, Ordering::Relaxed);
            });
            panic!("on purpose");
        });
        assert!(result.is_err());
        assert_eq!(undone.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn guards_are_independent() {
        let (a, b) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (set_a, set_b) = (a.clone(), b.clone());
        let guard_a = on_exit(move || set_a.store(true, Ordering::Relaxed));
        let guard_b = on_exit(move || set_b.store(true, Ordering::Relaxed));
        drop(guard_a);
        assert!(a.load(Ordering::Relaxed) && !b.load(Ordering::Relaxed));
        drop(guard_b);
        assert!(b.load(Ordering::Relaxed));
    }
}
