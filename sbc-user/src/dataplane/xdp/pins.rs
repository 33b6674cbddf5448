//! The instance's directory on the BPF file system: programs, maps and links that outlive the daemon.
//!
//! `/sys/fs/bpf/sbc/<instance>/v<ABI>/` holds a pin per map (its name), per program (its name) and per interface
//! (`link_<interface>`). Whoever holds the directory's lock owns the kernel state under it. aya opens an existing pin
//! without comparing it with what the program was built for; [`PinDirectory::check`] does that before.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use aya::maps::{MapError, MapInfo};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::error::StartError;

/// Where bpffs is mounted on every current distribution, and where we look.
const BPFFS: &str = "/sys/fs/bpf";
/// Where all instances have their directories.
pub(crate) const HOME: &str = "/sys/fs/bpf/sbc";
/// Prefix of a link's pin.
const LINK: &str = "link_";
/// An instance's name becomes a directory and a part of socket and unit names.
const MAX_INSTANCE_CHARS: usize = 32;

/// The directory, locked for as long as the value lives.
pub(crate) struct PinDirectory {
    path: PathBuf,
    _lock: Flock<File>,
}

impl PinDirectory {
    /// Makes the directory and takes its lock.
    pub(crate) fn open(instance: &str, abi: u32) -> Result<Self, StartError> {
        check_instance(instance)?;
        check_bpffs()?;
        let path = directory(instance, abi);
        let home = path.parent().unwrap_or(&path).to_owned();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|error| StartError::pins(&path, error))?;

        let lock = lock(&home, instance)?;
        Ok(Self { path, _lock: lock })
    }

    /// The path itself, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where a map or program of this name is pinned.
    pub(crate) fn pin(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where an interface's link is pinned.
    pub(crate) fn link(&self, interface: &str) -> PathBuf {
        link(&self.path, interface)
    }

    /// The interfaces for which a link is pinned.
    pub(crate) fn linked_interfaces(&self) -> Result<Vec<String>, StartError> {
        linked_interfaces(&self.path).map_err(|error| StartError::pins(&self.path, error))
    }

    /// Whether a map of this name is pinned, and if so that it is what `wanted`, a fresh one, is.
    pub(crate) fn check(&self, name: &str, wanted: &MapInfo) -> Result<bool, StartError> {
        let path = self.pin(name);
        if !path.exists() {
            return Ok(false);
        }
        let found = MapInfo::from_pin(&path).map_err(|error| StartError::map(name, error))?;
        let kind = |info: &MapInfo| info.map_type().map(|kind| format!("{kind:?}"));
        let fields = [
            ("type", kind(&found).map_err(unknown(name))?, kind(wanted).map_err(unknown(name))?),
            ("key size", found.key_size().to_string(), wanted.key_size().to_string()),
            ("value size", found.value_size().to_string(), wanted.value_size().to_string()),
            ("number of entries", found.max_entries().to_string(), wanted.max_entries().to_string()),
            ("flags", format!("{:#x}", found.map_flags()), format!("{:#x}", wanted.map_flags())),
        ];
        match fields.into_iter().find(|(_, found, wanted)| found != wanted) {
            None => Ok(true),
            Some((field, found, wanted)) => {
                Err(StartError::PinnedMapDiffers { map: name.to_owned(), path, field, found, wanted })
            }
        }
    }

    /// The instance's directories of other versions: a daemon before this one that was another program.
    pub(crate) fn other_versions(&self) -> Vec<PathBuf> {
        let home = self.path.parent().map(versions).unwrap_or_default();
        home.into_iter().filter(|path| *path != self.path).collect()
    }

    /// Removes what other versions left. Their programs are detached with their links, unless the links have been taken
    /// over.
    pub(crate) fn remove_other_versions(&self) {
        for path in self.other_versions() {
            tracing::warn!(
                directory = %path.display(),
                "removing the pins of another version: its maps do not fit this one, the calls that it forwarded end"
            );
            if let Err(error) = empty(&path).and_then(|()| fs::remove_dir(&path)) {
                tracing::warn!(directory = %path.display(), %error, "something of another version is left behind");
            }
        }
    }

    /// What undoes the pins that are made from now on, unless it is told to let them be.
    pub(crate) fn undo(&self) -> Undo {
        Undo { path: self.path.clone(), before: Some(names(&self.path)) }
    }

    /// Removes every pin, and with the links' pins the programs from their interfaces, and the directories that are
    /// empty then.
    pub(crate) fn remove(self) -> io::Result<()> {
        let emptied = empty(&self.path);
        remove_directories(&self.path)?;
        emptied
    }
}

/// Dropped, it removes the pins that were not there when it was made.
pub(crate) struct Undo {
    path: PathBuf,
    before: Option<HashSet<OsString>>,
}

impl Undo {
    /// The pins stay.
    pub(crate) fn forget(mut self) {
        self.before = None;
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        let Some(before) = self.before.take() else { return };
        for name in names(&self.path).difference(&before) {
            if let Err(error) = fs::remove_file(self.path.join(name)) {
                tracing::warn!(pin = %self.path.join(name).display(), %error, "cannot remove the pin again");
            }
        }
        if before.is_empty() {
            // Others' directories stay, and that is no error.
            let _ = remove_directories(&self.path);
        }
    }
}

fn names(directory: &Path) -> HashSet<OsString> {
    fs::read_dir(directory)
        .map(|entries| entries.flatten().map(|entry| entry.file_name()).collect())
        .unwrap_or_default()
}

/// Removes every file in a directory, as far as that goes.
fn empty(directory: &Path) -> io::Result<()> {
    let mut first_error = None;
    for entry in fs::read_dir(directory)?.flatten() {
        if let Err(error) = fs::remove_file(entry.path()) {
            first_error.get_or_insert(error);
        }
    }
    first_error.map_or(Ok(()), Err)
}

/// Removes an empty directory, and the instance's home and the project's unless another version or instance is in them.
fn remove_directories(path: &Path) -> io::Result<()> {
    fs::remove_dir(path)?;
    for parent in path.ancestors().skip(1).take(2) {
        if fs::remove_dir(parent).is_err() {
            break;
        }
    }
    Ok(())
}

/// The directories of an instance's versions.
fn versions(home: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(home) else { return Vec::new() };
    let named = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.strip_prefix('v')).is_some_and(|number| number.parse::<u32>().is_ok())
    };
    entries.flatten().map(|entry| entry.path()).filter(named).collect()
}

/// Whoever has the lock of an instance's home owns what is pinned there.
fn lock(home: &Path, instance: &str) -> Result<Flock<File>, StartError> {
    let directory = File::open(home).map_err(|error| StartError::pins(home, error))?;
    Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        if errno == Errno::EWOULDBLOCK {
            StartError::InstanceRunning { instance: instance.to_owned(), by: None }
        } else {
            StartError::pins(home, errno.into())
        }
    })
}

/// Whether any version of an instance has anything pinned.
pub(crate) fn has_pins(instance: &str) -> bool {
    versions(&Path::new(HOME).join(instance)).iter().any(|version| !names(version).is_empty())
}

/// Removes whatever any version of an instance has pinned; its programs go with their links.
pub(crate) fn remove_pins(instance: &str) -> Result<(), StartError> {
    let home = Path::new(HOME).join(instance);
    let _lock = lock(&home, instance)?;
    for path in versions(&home) {
        let removed = empty(&path).and_then(|()| remove_directories(&path));
        removed.map_err(|error| StartError::pins(&path, error))?;
    }
    Ok(())
}

/// Whether any version of an instance has the link of an interface.
pub(crate) fn has_link(instance: &str, interface: &str) -> bool {
    versions(&Path::new(HOME).join(instance)).iter().any(|version| link(version, interface).exists())
}

/// Whether there is a bpffs to pin to.
pub(crate) fn check_bpffs() -> Result<(), StartError> {
    let mounted = statfs(BPFFS).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC);
    if mounted { Ok(()) } else { Err(StartError::NoBpffs { path: BPFFS }) }
}

/// The interfaces for which a link is pinned in a directory.
pub(crate) fn linked_interfaces(directory: &Path) -> io::Result<Vec<String>> {
    Ok(fs::read_dir(directory)?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| name.strip_prefix(LINK).map(|interface| interface.replace(':', ".")))
        .collect())
}

/// The directory of an instance and version.
pub(crate) fn directory(instance: &str, abi: u32) -> PathBuf {
    Path::new(HOME).join(instance).join(format!("v{abi}"))
}

/// The pin of an interface's link. bpffs keeps dots for itself, and an interface's name never has a colon.
pub(crate) fn link(directory: &Path, interface: &str) -> PathBuf {
    directory.join(format!("{LINK}{}", interface.replace('.', ":")))
}

fn unknown(name: &str) -> impl Fn(MapError) -> StartError + '_ {
    move |error| StartError::map(name, error)
}

/// An instance's name may hold what a directory, a socket and a unit can all carry.
pub(crate) fn check_instance(instance: &str) -> Result<(), StartError> {
    let fits = (1..=MAX_INSTANCE_CHARS).contains(&instance.len())
        && instance.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if fits {
        Ok(())
    } else {
        Err(StartError::InstanceName { name: instance.to_owned(), most: MAX_INSTANCE_CHARS })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_fails_leaves_the_pins_that_were_there() {
        let home = std::env::temp_dir().join(format!("sbc-undo-{}", std::process::id()));
        let path = home.join("main").join("v7");
        fs::create_dir_all(&path).unwrap();
        let undo = || Undo { path: path.clone(), before: Some(names(&path)) };
        let started = undo();
        fs::write(path.join("FLOWS"), "").unwrap();
        started.forget();
        let failed = undo();
        fs::write(path.join("link_eth0"), "").unwrap();
        drop(failed);
        assert_eq!(names(&path), HashSet::from([OsString::from("FLOWS")]));
        fs::remove_file(path.join("FLOWS")).unwrap();
        let first = undo();
        fs::write(path.join("FLOWS"), "").unwrap();
        drop(first);
        assert!(!path.exists(), "nothing was there before, and nothing is");
        let _ = fs::remove_dir_all(&home);
    }

    #[test]
    fn an_instance_name_is_one_plain_word() {
        for name in ["main", "a", "edge-2", "A_b"] {
            assert!(check_instance(name).is_ok(), "{name}");
        }
        for name in ["", ".", "..", "a/b", "a.b", "ä", "a b", &"x".repeat(33)] {
            assert!(check_instance(name).is_err(), "{name}");
        }
    }
}
