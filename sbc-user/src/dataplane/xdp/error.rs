//! Why the kernel side does not start. Each says what was found, where, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use aya::EbpfError;
use aya::programs::ProgramError;

/// A refusal to start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The kernel object is not part of this build.
    #[error(
        "this build has no kernel object; build with `cargo xtask build-and-load` or `cargo xtask build-ebpf`"
    )]
    NoObject,
    /// The kernel object is not the one of this version.
    #[error(
        "the kernel object in this build has no {0}: it comes from another version; build both together with `cargo xtask build-and-load`"
    )]
    OtherObject(&'static str),
    /// bpffs is not mounted.
    #[error(
        "{path} is not a BPF file system; mount it with `mount -t bpf bpf {path}`, and for every boot with the line `bpf {path} bpf mode=0700 0 0` in /etc/fstab"
    )]
    NoBpffs {
        /// Where it is expected.
        path: &'static str,
    },
    /// The instance's name cannot name a directory.
    #[error("instance name {name:?}: 1 to {most} letters, digits, `-` and `_` are allowed")]
    InstanceName {
        /// The name.
        name: String,
        /// The most characters.
        most: usize,
    },
    /// Another daemon runs with this instance's name.
    #[error("instance {instance:?} is already running{}; stop it, or give this one another instance name", by.as_deref().map_or(String::new(), |by| format!(" ({by})")))]
    InstanceRunning {
        /// The name.
        instance: String,
        /// Who, as far as known.
        by: Option<String>,
    },
    /// A file or directory of ours cannot be used.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A pinned map is not what this version would make.
    #[error(
        "pinned map {map} at {path} does not fit this version: its {field} is {found}, this version wants {wanted}; stop whoever uses it and remove the directory"
    )]
    PinnedMapDiffers {
        /// The map.
        map: String,
        /// Its pin.
        path: PathBuf,
        /// What differs.
        field: &'static str,
        /// As pinned.
        found: String,
        /// As wanted.
        wanted: String,
    },
    /// Another XDP program is attached to an interface of ours.
    #[error(
        "interface {interface} already runs XDP program {id} ({name}), which is not this instance's; look at it with `bpftool net show dev {interface}` and `bpftool prog show id {id}`, detach it with `ip link set dev {interface} xdp off` if nothing needs it"
    )]
    ForeignProgram {
        /// The interface.
        interface: String,
        /// The program's id.
        id: u32,
        /// The program's name.
        name: String,
    },
    /// More media addresses than the tables hold.
    #[error("{wanted} media addresses are configured, the kernel tables hold {most}")]
    TooManyAddresses {
        /// As configured.
        wanted: usize,
        /// The limit.
        most: usize,
    },
    /// A map cannot be used.
    #[error("map {map}: {}", chain(source.as_ref()))]
    Map {
        /// Which.
        map: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The kernel refused the object.
    #[error("the kernel refused the object: {}", chain(.0))]
    Object(#[source] Box<EbpfError>),
    /// The kernel refused the program.
    #[error("the kernel refused the program: {}", chain(.0))]
    Program(#[source] Box<ProgramError>),
    /// The relay does not start.
    #[error("the relay does not start: {0}")]
    Relay(String),
    /// The network's state cannot be asked.
    #[error("cannot ask the kernel for {what}: {source}")]
    Network {
        /// For what.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl StartError {
    pub(crate) fn pins(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }

    pub(crate) fn map(map: &str, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Map { map: map.to_owned(), source: Box::new(source) }
    }
}

impl From<ProgramError> for StartError {
    fn from(error: ProgramError) -> Self {
        Self::Program(Box::new(error))
    }
}

/// An error with its causes: aya's messages name the system call, their sources the reason.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
