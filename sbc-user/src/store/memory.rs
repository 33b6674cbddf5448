//! A store without a disk: for tests, and for a daemon whose state directory is of no use.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use sbc_core::id::CallId;

use super::{Change, Contents, Gone, Store};

/// See the module. Clones share what they keep.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Contents>>);

impl Store for Memory {
    fn put(&mut self, _now: SystemTime, changes: Vec<Change>) -> anyhow::Result<()> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            match change {
                Change::Media(media) => {
                    kept.media.retain(|other| other.plan.call != media.plan.call);
                    kept.media.push(*media);
                }
                Change::Call(call) => {
                    kept.calls.retain(|other| other.call != call.call);
                    kept.calls.push(*call);
                }
                Change::Gone(gone) => {
                    kept.media.retain(|other| other.plan.call != gone.call);
                    kept.calls.retain(|other| other.call != gone.call);
                    kept.gone.push(gone);
                }
                Change::Denied(denied) => {
                    kept.denied.retain(|other| other.source != denied.source);
                    kept.denied.push(denied);
                }
                Change::Undenied(source) => kept.denied.retain(|other| other.source != source),
                Change::Listed(change) => {
                    kept.lists.retain(|other| (other.list, other.prefix) != (change.list, change.prefix));
                    kept.lists.push(change);
                }
            }
        }
        Ok(())
    }

    fn load(&self) -> anyhow::Result<Contents> {
        let mut contents = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        contents.media.sort_by_key(|media| media.plan.call);
        contents.calls.sort_by_key(|call| call.call);
        contents.denied.sort_by_key(|denied| denied.since);
        let gone: BTreeMap<(SystemTime, CallId), Gone> =
            contents.gone.drain(..).map(|gone| ((gone.since, gone.call), gone)).collect();
        contents.gone = gone.into_values().collect();
        Ok(contents)
    }
}
