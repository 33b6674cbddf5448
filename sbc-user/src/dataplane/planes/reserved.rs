//! Keeps our ports from other programs: `net.ipv4.ip_local_reserved_ports`.
//!
//! The kernel gives no reserved port to a program that asks for any port. The list belongs to the network namespace and
//! may have entries of others, which stay. What each instance added is noted in a file beside those of the other instances
//! in the namespace: so none takes away what another still needs, and one that was killed leaves nothing there for ever.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::net::UdpSocket;
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

const LIST: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
/// The notes of all instances, by the cookie of their network namespace. Gone with a boot, as the list is.
const NOTES: &str = "/run/sbc-reserved-ports";

/// Our part of the list.
#[derive(Debug)]
pub(crate) struct ReservedPorts {
    /// Open, because it belongs to the namespace of whoever opened it.
    list: File,
    added: BTreeSet<u16>,
    /// Where the notes of this namespace are.
    notes: PathBuf,
    instance: String,
}

impl ReservedPorts {
    /// Adds `ports` to the list of the calling thread's namespace.
    pub(crate) fn add(ports: &[RangeInclusive<u16>], instance: &str) -> io::Result<Self> {
        let mut list = OpenOptions::new().read(true).write(true).open(LIST)?;
        let notes = Path::new(NOTES).join(namespace()?.to_string());
        let _one_at_a_time = lock(&notes)?;
        let mut present = read(&mut list)?;
        let others = noted_by_others(&notes, instance);
        for port in noted(&notes.join(instance)).difference(&others) {
            present.remove(port);
        }
        // What is there and no instance's note has, somebody else put there.
        let wanted = ports.iter().cloned().flatten();
        let added: BTreeSet<u16> =
            wanted.filter(|port| !present.contains(port) || others.contains(port)).collect();
        fs::write(notes.join(instance), to_text(&added))?;
        write(&mut list, &present.union(&added).copied().collect())?;
        Ok(Self { list, added, notes, instance: instance.to_owned() })
    }

    /// Takes our part off the list again, but for what another instance has there too.
    pub(crate) fn remove(mut self) -> io::Result<()> {
        let _one_at_a_time = lock(&self.notes)?;
        let others = noted_by_others(&self.notes, &self.instance);
        let gone: BTreeSet<u16> = self.added.difference(&others).copied().collect();
        let present = read(&mut self.list)?;
        write(&mut self.list, &present.difference(&gone).copied().collect())?;
        fs::remove_file(self.notes.join(&self.instance))?;
        // The last one tidies up; it stays while others have their notes there.
        let _ = fs::remove_dir(&self.notes);
        Ok(())
    }
}

/// What no other network namespace of this boot is called: an inode's number comes again.
fn namespace() -> io::Result<u64> {
    let socket = UdpSocket::bind("127.0.0.1:0").or_else(|_| UdpSocket::bind("0.0.0.0:0"))?;
    let (mut cookie, mut length) = (0_u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: the socket is open, and the kernel writes at most `length` bytes to `cookie`.
    let asked = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if asked == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// Makes the directory where it is not, and waits until nobody else works in it.
fn lock(notes: &Path) -> io::Result<Flock<File>> {
    loop {
        fs::create_dir_all(notes)?;
        let opened = match File::open(notes) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        let locked = Flock::lock(opened, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
        // Whoever had the lock before may have removed the directory: then this one is nobody's, and nobody's lock.
        let ours = locked.metadata()?.ino();
        if fs::metadata(notes).is_ok_and(|present| present.ino() == ours) {
            return Ok(locked);
        }
    }
}

fn noted(note: &Path) -> BTreeSet<u16> {
    fs::read_to_string(note).map(|text| from_text(&text)).unwrap_or_default()
}

fn noted_by_others(notes: &Path, instance: &str) -> BTreeSet<u16> {
    let Ok(entries) = fs::read_dir(notes) else { return BTreeSet::new() };
    let others = entries.flatten().filter(|entry| entry.file_name() != *instance);
    others.flat_map(|entry| noted(&entry.path())).collect()
}

fn read(list: &mut File) -> io::Result<BTreeSet<u16>> {
    let mut text = String::new();
    list.rewind()?;
    list.read_to_string(&mut text)?;
    Ok(from_text(&text))
}

/// Writes the whole list: the kernel takes one write as one list.
fn write(list: &mut File, ports: &BTreeSet<u16>) -> io::Result<()> {
    list.rewind()?;
    // An empty write would be no write at all; a line feed is an empty list.
    list.write_all(format!("{}\n", to_text(ports)).as_bytes())
}

/// Reads `1,5-7`, as the kernel writes lists of ports and of processors; what is no number is passed over.
pub(crate) fn from_text(text: &str) -> BTreeSet<u16> {
    let mut ports = BTreeSet::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
            ports.extend(first..=last);
        }
    }
    ports
}

/// Writes `1,5-7`.
pub(crate) fn to_text(ports: &BTreeSet<u16>) -> String {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for port in ports.iter().copied() {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(port) => *last = port,
            Some(_) | None => ranges.push((port, port)),
        }
    }
    let shown = ranges.iter().map(
        |(first, last)| {
            if first == last { first.to_string() } else { format!("{first}-{last}") }
        },
    );
    shown.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read_and_written_in_ranges() {
        let ports = from_text("8080,9000-9002,65535\n");
        assert_eq!(ports, [8080, 9000, 9001, 9002, 65_535].into());
        assert_eq!(to_text(&ports), "8080,9000-9002,65535");
        assert_eq!(from_text("\n"), BTreeSet::new());
        assert_eq!(to_text(&BTreeSet::new()), "");
    }
}
