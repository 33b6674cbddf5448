//! Child processes: their output goes to a log file, they are ended by id and never outlive this process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cleanup::{self, Guard};

/// How long a process may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// A directory of this process; removed when dropped, unless `SBC_KEEP` is set in the environment.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _guard: Guard,
}

impl Scratch {
    /// Makes an empty one.
    pub fn create(label: &str) -> Result<Self> {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sbc-{}-{number}-{label}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let doomed = path.clone();
        let guard = cleanup::on_exit(move || {
            if std::env::var_os("SBC_KEEP").is_none() {
                let _ = std::fs::remove_dir_all(&doomed);
            }
        });
        Ok(Self { path, _guard: guard })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file and hands back its path.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path.join(name);
        std::fs::write(&path, contents).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

/// A running (or ended) child. Dropped, it gets SIGTERM and, if that does not help, SIGKILL.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Arc<Mutex<Child>>,
    log: PathBuf,
    _guard: Guard,
}

impl Process {
    /// Starts `command`; both its outputs go to `<name>.log` in `scratch`.
    pub fn spawn(name: &str, command: &mut Command, scratch: &Scratch) -> Result<Self> {
        let log = scratch.path().join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
        let child = Arc::new(Mutex::new(child));
        let doomed = child.clone();
        let guard = cleanup::on_exit(move || {
            let _ = end(&mut lock(&doomed), Signal::SIGTERM, GRACE);
        });
        Ok(Self { name: name.to_owned(), child, log, _guard: guard })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        lock(&self.child).id()
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines of [`Self::log`], for an error message.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    /// Its exit status if it has ended.
    pub fn ended(&self) -> Result<Option<ExitStatus>> {
        Ok(lock(&self.child).try_wait()?)
    }

    /// Waits until `condition` holds; an error if the process ends or `limit` passes first.
    pub fn wait_until(&self, what: &str, limit: Duration, condition: impl Fn(&Self) -> bool) -> Result<()> {
        let began = Instant::now();
        while !condition(self) {
            if let Some(status) = self.ended()? {
                bail!("{} ended ({status}) before {what}:\n{}", self.name, self.log_tail());
            }
            if began.elapsed() > limit {
                bail!("{}: not {what} within {limit:?}:\n{}", self.name, self.log_tail());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Waits until it ends by itself.
    pub fn wait(&self, limit: Duration) -> Result<ExitStatus> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if began.elapsed() > limit {
                bail!("{} still runs after {limit:?}:\n{}", self.name, self.log_tail());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        send(&mut lock(&self.child), signal)
    }

    /// Ends it: `signal`, then SIGKILL if it does not obey within `limit`.
    pub fn stop(&self, signal: Signal, limit: Duration) -> Result<ExitStatus> {
        end(&mut lock(&self.child), signal, limit)
    }
}

fn lock(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

fn send(child: &mut Child, signal: Signal) -> Result<()> {
    // Not reaped yet, so the id still is this child's.
    if child.try_wait()?.is_none() {
        kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
    }
    Ok(())
}

fn end(child: &mut Child, signal: Signal, limit: Duration) -> Result<ExitStatus> {
    send(child, signal)?;
    let began = Instant::now();
    while began.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(POLL);
    }
    child.kill()?;
    Ok(child.wait()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_output_and_ends() {
        let scratch = Scratch::create("process").unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo ready; exec sleep 60"]);
        let process = Process::spawn("sleeper", &mut command, &scratch).unwrap();
        process.wait_until("ready", Duration::from_secs(10), |p| p.log().contains("ready")).unwrap();
        assert!(process.ended().unwrap().is_none());
        let status = process.stop(Signal::SIGTERM, Duration::from_secs(10)).unwrap();
        assert!(!status.success());
    }

    #[test]
    fn a_process_that_ends_early_is_an_error_with_its_words() {
        let scratch = Scratch::create("process").unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such thing >&2; exit 3"]);
        let process = Process::spawn("failing", &mut command, &scratch).unwrap();
        let error = process.wait_until("ready", Duration::from_secs(10), |_| false).unwrap_err();
        assert!(error.to_string().contains("no such thing"), "{error}");
    }

    #[test]
    fn dropping_ends_it_and_removes_the_directory() {
        let scratch = Scratch::create("process").unwrap();
        let path = scratch.path().to_path_buf();
        let process = Process::spawn("sleeper", Command::new("sleep").arg("60"), &scratch).unwrap();
        let pid = process.pid();
        drop(process);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        drop(scratch);
        assert!(!path.exists() || std::env::var_os("SBC_KEEP").is_some());
    }
}
