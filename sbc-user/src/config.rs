//! The configuration: one TOML file, validated once into types that cannot be wrong any more.
//!
//! `schema` knows the keys, `validate` what they mean together, `diagnostic` how to say what is wrong. Every problem
//! is located and says what is allowed; all of them are reported at once; an unknown key is an error.

mod diagnostic;
mod host;
mod schema;
mod table;
mod validate;
mod values;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sbc_core::config::{EngineConfig, NextHop, Prefix};

pub use diagnostic::{Diagnostic, Report, Severity};
pub use host::{Host, HostAddress, OtherHost, ThisHost};

/// Where an operator expects the file.
pub const DEFAULT_PATH: &str = "/etc/sbc/sbc.toml";
/// Where `sbcd` listens for its operator unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/sbc/sbcd.sock";

/// A validated configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Name of this instance: of its pins, its lock, its lines in the log.
    pub instance: String,
    /// The daemon's own files and behaviour.
    pub daemon: DaemonConfig,
    /// What the transports hold at most.
    pub connections: ConnectionLimits,
    /// What the shell must know of each realm, by `RealmId`.
    pub realms: Vec<RealmShell>,
    /// How the certificates of next hops under TLS are verified.
    pub tls_peers: Vec<(NextHop, TlsPeer)>,
    /// What the engine must know; `epoch` is 0 until the daemon knows how often it has started.
    pub engine: EngineConfig,
}

/// `[daemon]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonConfig {
    /// The operator's Unix socket.
    pub socket: PathBuf,
    /// Where the daemon keeps what must survive it.
    pub state_dir: PathBuf,
    /// Where the records of ended calls go.
    pub record: RecordTo,
    /// How long a stop waits for the calls in progress before it ends them.
    pub stop_grace: Duration,
    /// Whether XDP is attached where the driver allows; else the relay carries all media.
    pub xdp: bool,
}

/// Where the records of ended calls go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordTo {
    /// Into the log, one event each.
    Log,
    /// Into this file, one JSON line each.
    File(PathBuf),
}

/// How many stream connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Over all peers.
    pub total: usize,
    /// From one address.
    pub per_source: usize,
}

/// The shell's part of a realm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RealmShell {
    /// The realm's addresses need not exist yet when the daemon starts.
    pub may_appear_later: bool,
    /// DSCP of signalling that leaves on this realm, 0 to 63 (R-QOS-1).
    pub dscp_signalling: u8,
    /// Certificate chain and key of its TLS listener.
    pub tls: Option<TlsFiles>,
}

/// Files of a TLS identity, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The leaf's private key.
    pub key: PathBuf,
}

/// How the certificate of a peer to which we open TLS is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsPeer {
    /// Against these authorities, for this name; without one, for the peer's address.
    Verified {
        /// PEM file of the authorities.
        authorities: PathBuf,
        /// The name that the certificate must carry.
        name: Option<String>,
    },
    /// Not at all: the configuration says so.
    Unverified,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("{} cannot be read", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It was read and is wrong.
    #[error("{0}")]
    Invalid(Report),
}

impl Config {
    /// Reads and validates a file. The report beside the configuration holds warnings only.
    ///
    /// # Errors
    /// [`LoadError`]: the file cannot be read, or it has at least one error.
    pub fn load(file: &Path, host: &dyn Host) -> Result<(Self, Report), LoadError> {
        let text = host.read(file).and_then(|bytes| {
            String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8 text"))
        });
        match text {
            Ok(text) => Self::parse(file, &text, host).map_err(LoadError::Invalid),
            Err(source) => Err(LoadError::Read { file: file.to_owned(), source }),
        }
    }

    /// Validates a text; `file` names it in reports, and relative paths begin at its directory.
    ///
    /// # Errors
    /// The report of all problems, if one of them is an error.
    pub fn parse(file: &Path, text: &str, host: &dyn Host) -> Result<(Self, Report), Report> {
        let problems = diagnostic::Problems::default();
        let written = schema::File::read(text, &problems);
        let base_dir = file.parent().unwrap_or(Path::new(""));
        let config = validate::validate(&written, base_dir, host, &problems);
        let mut report = Report::new(file, text, problems.into_sorted());
        if report.errors() > 0 {
            // Most warnings of a wrong file follow from its errors.
            report.diagnostics.retain(|diagnostic| diagnostic.severity == Severity::Error);
        }
        match config {
            Some(config) if report.errors() == 0 => Ok((config, report)),
            Some(_) | None => Err(report),
        }
    }
}

/// An address or prefix that an operator gives, with the same rules as in the file.
///
/// # Errors
/// What is wrong with it.
pub fn parse_prefix(text: &str) -> Result<Prefix, String> {
    values::prefix(text).map_err(|refusal| refusal.message)
}

#[cfg(test)]
mod tests;
