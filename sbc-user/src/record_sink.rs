//! Where the records of ended calls go: one JSON line each, to a file or to the log.
//!
//! A disk that hangs must not hang calls: a thread writes, a bounded queue lies between, and what finds it full is
//! counted as lost. The file is opened anew on request, so that it can be rotated.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use anyhow::Context as _;
use sbc_core::record::CallRecord;
use tracing::{error, info};

use crate::admin::dto::Record;
use crate::config::RecordTo;

/// Records that wait for the disk.
const WAITING: usize = 16_384;

enum Work {
    Line(String),
    Reopen,
}

/// See the module. Dropping it writes what waits.
#[derive(Debug)]
pub struct RecordSink {
    writer: Option<(SyncSender<Work>, JoinHandle<()>)>,
    lost: Arc<AtomicU64>,
}

impl RecordSink {
    /// Opens the file, if there is to be one.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(to: &RecordTo) -> anyhow::Result<Self> {
        let lost = Arc::<AtomicU64>::default();
        let RecordTo::File(path) = to else { return Ok(Self { writer: None, lost }) };
        let file = open(path).with_context(|| format!("call records {}", path.display()))?;
        let (sender, receiver) = sync_channel(WAITING);
        let (path, count) = (path.clone(), lost.clone());
        let thread = std::thread::Builder::new()
            .name("records".to_owned())
            .spawn(move || write(&path, file, &receiver, &count))
            .context("the thread that writes call records")?;
        Ok(Self { writer: Some((sender, thread)), lost })
    }

    /// Keeps a record.
    pub fn record(&self, record: &CallRecord) {
        let line = match serde_json::to_string(&Record::new(record)) {
            Ok(line) => line,
            Err(error) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
                error!(call = %record.call, %error, "call record");
                return;
            }
        };
        match &self.writer {
            None => info!(target: "sbc::record", record = line, "call ended"),
            Some((sender, _)) => {
                if sender.try_send(Work::Line(line)).is_err() {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                    error!(call = %record.call, "call record lost: the disk is behind");
                }
            }
        }
    }

    /// Opens the file anew, after what was recorded before has been written.
    pub fn reopen(&self) {
        if let Some((sender, _)) = &self.writer
            && sender.try_send(Work::Reopen).is_err()
        {
            error!("call records: the disk is behind, the file is not opened anew");
        }
    }

    /// Records that could not be kept.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for RecordSink {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.writer.take() {
            drop(sender);
            if thread.join().is_err() {
                error!("call records: the writer failed");
            }
        }
    }
}

/// Readable by the daemon's user and group: it holds who called whom.
fn open(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    File::options().append(true).create(true).mode(0o640).open(path)
}

fn write(path: &Path, mut file: File, work: &Receiver<Work>, lost: &AtomicU64) {
    while let Ok(next) = work.recv() {
        match next {
            Work::Line(mut line) => {
                line.push('\n');
                if let Err(error) = file.write_all(line.as_bytes()) {
                    lost.fetch_add(1, Ordering::Relaxed);
                    error!(%error, file = %path.display(), "call record lost");
                }
            }
            Work::Reopen => match open(path) {
                Ok(opened) => file = opened,
                Err(error) => error!(%error, file = %path.display(), "call records go to the old file"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use sbc_core::command::LegView;
    use sbc_core::flow::Transport;
    use sbc_core::id::CallId;
    use sbc_core::media::command::StreamCounters;
    use sbc_core::record::EndedBy;

    use super::*;

    fn ended(call: u64) -> CallRecord {
        let began = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        CallRecord {
            call: CallId(call),
            began,
            ringing: None,
            answered: Some(began + Duration::from_secs(2)),
            ended: began + Duration::from_millis(12_345),
            ended_by: EndedBy::Callee,
            status: 200,
            cause: "Normal \"call\" clearing\nat once".to_owned(),
            caller: LegView {
                realm: "public".to_owned(),
                trunk: "carrier".to_owned(),
                transport: Transport::Tls,
                remote: "192.0.2.7:5061".parse().unwrap(),
                sip_call_id: "a@b".to_owned(),
                from: "sip:100@example".to_owned(),
                to: "sip:200@example".to_owned(),
            },
            callee: None,
            media: vec![StreamCounters::default()],
            quality: Vec::new(),
        }
    }

    #[test]
    fn each_ended_call_is_one_line_and_the_file_can_be_rotated() {
        let directory = std::env::temp_dir().join(format!("sbc-records-{}", std::process::id()));
        let path = directory.join("calls.jsonl");
        let sink = RecordSink::open(&RecordTo::File(path.clone())).unwrap();
        sink.record(&ended(1));
        sink.record(&ended(2));
        // Ends the first file: rotation happens between records.
        drop(sink);
        let sink = RecordSink::open(&RecordTo::File(path.clone())).unwrap();
        let rotated = directory.join("calls.jsonl.1");
        std::fs::rename(&path, &rotated).unwrap();
        sink.reopen();
        sink.record(&ended(3));
        assert_eq!(sink.lost(), 0);
        drop(sink);
        let lines = |path: &Path| {
            let text = std::fs::read_to_string(path).unwrap();
            text.lines().map(|line| serde_json::from_str::<Record>(line).unwrap()).collect::<Vec<_>>()
        };
        let (old, new) = (lines(&rotated), lines(&path));
        assert_eq!(old.iter().map(|record| record.call).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(new.iter().map(|record| record.call).collect::<Vec<_>>(), [3]);
        assert_eq!((new[0].duration_ms, new[0].ended_by.as_str(), new[0].status), (10_345, "callee", 200));
        assert_eq!(new[0].began, "2023-11-14T22:13:20.000Z");
        std::fs::remove_dir_all(directory).unwrap();
    }
}
