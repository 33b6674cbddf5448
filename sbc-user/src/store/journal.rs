//! From the event loop to the store without waiting.
//!
//! What is not written yet waits in a table by what it is about, so that a later change takes the place of an earlier
//! one and a slow disk makes the table no larger than what there is to remember. A thread takes all of it and writes it in
//! one transaction; what comes meanwhile is the next one's. Over [`MAX_WAITING`] changes the new ones are counted as lost:
//! after a restart a call that was not kept is released, and one that ended is found to be without flows.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use anyhow::Context as _;
use sbc_core::config::Prefix;
use sbc_core::guard::{ListKind, Source};
use sbc_core::id::CallId;

use super::{Change, Store};

/// Changes that may wait. More are waiting only if the disk has stood still for minutes.
const MAX_WAITING: usize = 100_000;

/// See the module. Dropped, it writes what waits.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    changes: HashMap<Key, Change>,
    ending: bool,
    lost: u64,
}

/// What a change is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// The plan of a call, or that it is gone.
    Media(CallId),
    Call(CallId),
    Denied(Source),
    Listed(bool, std::net::IpAddr, u8),
}

impl Key {
    fn of(change: &Change) -> Self {
        match change {
            Change::Media(media) => Self::Media(media.plan.call),
            Change::Gone(gone) => Self::Media(gone.call),
            Change::Call(call) => Self::Call(call.call),
            Change::Denied(denied) => Self::Denied(denied.source),
            Change::Undenied(source) => Self::Denied(*source),
            Change::Listed(change) => {
                let Prefix { addr, len } = change.prefix;
                Self::Listed(change.list == ListKind::Allow, addr, len)
            }
        }
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // A panic inside leaves the table whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal {
    /// Starts the writing thread.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(store: impl Store + 'static) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || write(&theirs, store))
            .context("start the store's thread")?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Has a change written soon.
    pub fn note(&self, change: Change) {
        let mut waiting = self.shared.waiting();
        if let Change::Gone(gone) = &change {
            waiting.changes.remove(&Key::Call(gone.call));
        }
        let key = Key::of(&change);
        if waiting.changes.len() >= MAX_WAITING && !waiting.changes.contains_key(&key) {
            waiting.lost += 1;
            return;
        }
        waiting.changes.insert(key, change);
        drop(waiting);
        self.shared.changed.notify_one();
    }

    /// Changes that could not be kept.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.waiting().lost
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.waiting().ending = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write(shared: &Shared, mut store: impl Store) {
    let mut failing = false;
    loop {
        let mut waiting = shared
            .changed
            .wait_while(shared.waiting(), |waiting| waiting.changes.is_empty() && !waiting.ending)
            .unwrap_or_else(PoisonError::into_inner);
        let ending = waiting.ending;
        let changes: Vec<Change> = std::mem::take(&mut waiting.changes).into_values().collect();
        drop(waiting);
        if !changes.is_empty() {
            let count = changes.len() as u64;
            // redb takes a file that somebody wrote over for its own mistake.
            let put = catch_unwind(AssertUnwindSafe(|| store.put(SystemTime::now(), changes)));
            match put.unwrap_or_else(|_| Err(anyhow::anyhow!("the file is damaged"))) {
                Ok(()) if failing => {
                    tracing::warn!("the store takes changes again");
                    failing = false;
                }
                Ok(()) => {}
                Err(error) => {
                    shared.waiting().lost += count;
                    // Once: a full disk fails every time.
                    if !failing {
                        tracing::error!("the store takes no changes: {error:#}");
                    }
                    failing = true;
                }
            }
        }
        if ending {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::super::memory::Memory;
    use super::super::{Contents, Gone};
    use super::*;

    /// Writes when it is told to.
    struct Slow {
        memory: Memory,
        begun: mpsc::Sender<usize>,
        go_on: mpsc::Receiver<()>,
    }

    impl Store for Slow {
        fn put(&mut self, now: SystemTime, changes: Vec<Change>) -> anyhow::Result<()> {
            self.begun.send(changes.len())?;
            self.go_on.recv()?;
            self.memory.put(now, changes)
        }

        fn load(&self) -> anyhow::Result<Contents> {
            self.memory.load()
        }
    }

    fn gone(call: u64) -> Change {
        Change::Gone(Gone { call: CallId(call), ports: Vec::new(), since: SystemTime::UNIX_EPOCH })
    }

    #[test]
    fn what_comes_during_a_write_is_written_together_and_the_latest_counts() {
        let (begun, has_begun) = mpsc::channel();
        let (let_go, go_on) = mpsc::channel();
        let memory = Memory::default();
        let journal = Journal::start(Slow { memory: memory.clone(), begun, go_on }).unwrap();
        journal.note(gone(1));
        assert_eq!(has_begun.recv().unwrap(), 1);
        let source = Source::of([192, 0, 2, 1].into());
        for call in [2, 3, 2] {
            journal.note(gone(call));
            journal.note(Change::Undenied(source));
        }
        let_go.send(()).unwrap();
        assert_eq!(has_begun.recv().unwrap(), 3);
        let_go.send(()).unwrap();
        drop(journal);
        assert_eq!(memory.load().unwrap().gone.len(), 3);
    }

    #[test]
    fn a_store_that_stands_still_costs_changes_and_no_memory() {
        let (begun, has_begun) = mpsc::channel();
        let (let_go, go_on) = mpsc::channel();
        let journal = Journal::start(Slow { memory: Memory::default(), begun, go_on }).unwrap();
        journal.note(gone(0));
        assert_eq!(has_begun.recv().unwrap(), 1);
        for call in 0..MAX_WAITING as u64 + 7 {
            journal.note(gone(call));
        }
        assert_eq!(journal.lost(), 7);
        drop(let_go);
        drop(journal);
    }
}
