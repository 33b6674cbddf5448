//! The log: to the journal under systemd, else to stderr.
//!
//! `SBC_LOG` filters it (`info` unless set; for example `SBC_LOG=info,sbc_user::transport=debug`). Keys and passwords
//! are never logged; peers' addresses and numbers not above DEBUG.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Starts the log. Once in a process; a second call changes nothing.
pub fn start() {
    let filter = EnvFilter::try_from_env("SBC_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    // systemd sets JOURNAL_STREAM for services whose stderr is the journal.
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    let started = match journal {
        Some(journal) => registry.with(journal).try_init(),
        None => {
            let stderr = tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_ansi(std::io::stderr().is_terminal());
            registry.with(stderr).try_init()
        }
    };
    if started.is_err() {
        tracing::debug!("the log was started already");
    }
}
