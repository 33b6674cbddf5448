//! The store in a file: one redb database in the state directory.
//!
//! A file that cannot be read, of another version or spoilt, is moved aside and a new one is begun: the daemon serves,
//! and what the file held is missing. What belongs to the running kernel (plans, their calls, ports that rest) counts only
//! until the host boots: then its flows are gone as well.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition,
};
use sbc_core::guard::ListKind;
use sbc_core::restart::ListChange;

use super::dto::{self, FORMAT, Form};
use super::{Change, Contents, Store};

const FILE: &str = "store.redb";
/// Where a file goes that cannot be read. One is kept.
const ASIDE: &str = "store.redb.unreadable";

const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
const MEDIA: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("media");
const CALLS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("calls");
/// By when it ended, and which call it was.
const GONE: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("gone");
const DENIED: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("denied");
const LISTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("lists");

/// No port rests for longer: the most that can be configured.
const LONGEST_REST: Duration = Duration::from_secs(3600);

/// See the module.
#[derive(Debug)]
pub struct Embedded {
    database: Database,
}

impl Embedded {
    /// Opens the file in `state_dir`, which is made if it is not there. `boot` names the present run of the kernel.
    ///
    /// # Errors
    /// The directory or file is of no use, and that is not the fault of what is in it.
    pub fn open(state_dir: &Path, boot: &str) -> anyhow::Result<Self> {
        fs::create_dir_all(state_dir).with_context(|| format!("state directory {}", state_dir.display()))?;
        let path = state_dir.join(FILE);
        match open(&path, boot) {
            Ok(store) => Ok(store),
            Err(Failed::System(error)) => Err(error).with_context(|| format!("store {}", path.display())),
            Err(Failed::Unreadable(why)) => {
                let aside = state_dir.join(ASIDE);
                tracing::error!(
                    file = %path.display(),
                    moved_to = %aside.display(),
                    "the store cannot be read, a new one is begun; calls, denials and lists of before are missing: {why:#}"
                );
                fs::rename(&path, &aside).with_context(|| format!("move {} aside", path.display()))?;
                match open(&path, boot) {
                    Ok(store) => Ok(store),
                    Err(Failed::System(error) | Failed::Unreadable(error)) => {
                        Err(error).with_context(|| format!("store {}", path.display()))
                    }
                }
            }
        }
    }

    /// Where the file is.
    #[must_use]
    pub fn path(state_dir: &Path) -> PathBuf {
        state_dir.join(FILE)
    }
}

enum Failed {
    /// The file is not what this version writes.
    Unreadable(anyhow::Error),
    /// Anything else.
    System(anyhow::Error),
}

fn open(path: &Path, boot: &str) -> Result<Embedded, Failed> {
    // A file that somebody else wrote over may be damaged in ways that redb takes for its own mistake.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let database = Database::create(path).map_err(failed)?;
        begin(&database, boot)?;
        let store = Embedded { database };
        store.load().map_err(Failed::Unreadable)?;
        Ok(store)
    }));
    opened.unwrap_or_else(|_| Err(Failed::Unreadable(anyhow::anyhow!("it is damaged"))))
}

fn failed(error: DatabaseError) -> Failed {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    let form = matches!(
        error,
        DatabaseError::UpgradeRequired(_)
            | DatabaseError::RepairAborted
            | DatabaseError::Storage(StorageError::Corrupted(_))
    );
    let content = matches!(&error, DatabaseError::Storage(StorageError::Io(error))
        if matches!(error.kind(), InvalidData | UnexpectedEof));
    if form || content { Failed::Unreadable(error.into()) } else { Failed::System(error.into()) }
}

/// Makes the tables, or sees to it that they are this version's and this boot's.
fn begin(database: &Database, boot: &str) -> Result<(), Failed> {
    let format = FORMAT.to_string();
    let found = (|| -> anyhow::Result<Option<String>> {
        let transaction = database.begin_write()?;
        let mut meta = transaction.open_table(META)?;
        let known = |key: &str| -> anyhow::Result<Option<String>> {
            Ok(meta.get(key)?.map(|value| value.value().to_owned()))
        };
        let (found, last_boot) = (known("format")?, known("boot")?);
        if found.as_ref().is_some_and(|found| *found != format) {
            return Ok(found);
        }
        meta.insert("format", format.as_str())?;
        meta.insert("boot", boot)?;
        drop(meta);
        if last_boot.is_some_and(|last| last != boot) {
            transaction.delete_table(MEDIA)?;
            transaction.delete_table(CALLS)?;
            transaction.delete_table(GONE)?;
        }
        transaction.open_table(MEDIA)?;
        transaction.open_table(CALLS)?;
        transaction.open_table(GONE)?;
        transaction.open_table(DENIED)?;
        transaction.open_table(LISTS)?;
        transaction.commit()?;
        Ok(None)
    })();
    match found {
        Ok(None) => Ok(()),
        Ok(Some(found)) => {
            Err(Failed::Unreadable(anyhow::anyhow!("its format is {found}, this version's is {format}")))
        }
        Err(error) => Err(Failed::Unreadable(error)),
    }
}

impl Store for Embedded {
    fn put(&mut self, now: SystemTime, changes: Vec<Change>) -> anyhow::Result<()> {
        let transaction = self.database.begin_write()?;
        {
            let mut media = transaction.open_table(MEDIA)?;
            let mut calls = transaction.open_table(CALLS)?;
            let mut gone = transaction.open_table(GONE)?;
            let mut denied = transaction.open_table(DENIED)?;
            let mut lists = transaction.open_table(LISTS)?;
            for change in changes {
                match change {
                    Change::Media(it) => {
                        media.insert(it.plan.call.0, dto::write::<dto::Media>(&it)?.as_slice())?;
                    }
                    Change::Call(it) => {
                        calls.insert(it.call.0, dto::write::<dto::Call>(&it)?.as_slice())?;
                    }
                    Change::Gone(it) => {
                        media.remove(it.call.0)?;
                        calls.remove(it.call.0)?;
                        if !it.ports.is_empty() {
                            let key = (dto::to_ms(it.since), it.call.0);
                            gone.insert(key, dto::write::<dto::Ended>(&it)?.as_slice())?;
                        }
                    }
                    Change::Denied(it) => {
                        let key = it.source.address().to_string();
                        denied.insert(key.as_str(), dto::write::<dto::Denied>(&it)?.as_slice())?;
                    }
                    Change::Undenied(source) => {
                        denied.remove(source.address().to_string().as_str())?;
                    }
                    Change::Listed(it) => {
                        let key = list_key(&it);
                        lists.insert(key.as_str(), dto::write::<dto::Listed>(&it)?.as_slice())?;
                    }
                }
            }
            let rested = dto::to_ms(now.checked_sub(LONGEST_REST).unwrap_or(SystemTime::UNIX_EPOCH));
            gone.retain_in(..(rested, 0), |_, _| false)?;
        }
        transaction.commit()?;
        Ok(())
    }

    fn load(&self) -> anyhow::Result<Contents> {
        let transaction = self.database.begin_read()?;
        let mut contents = Contents {
            media: all::<u64, dto::Media>(&transaction, MEDIA)?,
            calls: all::<u64, dto::Call>(&transaction, CALLS)?,
            gone: all::<(u64, u64), dto::Ended>(&transaction, GONE)?,
            denied: all::<&str, dto::Denied>(&transaction, DENIED)?,
            lists: all::<&str, dto::Listed>(&transaction, LISTS)?,
        };
        contents.denied.sort_by_key(|denied| denied.since);
        Ok(contents)
    }
}

fn list_key(change: &ListChange) -> String {
    let list = match change.list {
        ListKind::Allow => "allow",
        ListKind::Block => "block",
    };
    format!("{list} {}/{}", change.prefix.addr, change.prefix.len)
}

/// Everything in a table. One entry that makes no sense does not cost the others.
fn all<K: redb::Key + 'static, F: Form>(
    transaction: &redb::ReadTransaction,
    table: TableDefinition<'_, K, &'static [u8]>,
) -> anyhow::Result<Vec<F::Value>> {
    let mut values = Vec::new();
    for entry in transaction.open_table(table)?.iter()? {
        let (_, value) = entry?;
        match dto::read::<F>(value.value()) {
            Ok(value) => values.push(value),
            Err(error) => {
                tracing::error!(%table, "an entry of the store makes no sense and is left out: {error:#}")
            }
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests;
