//! What the transports hold at most, and how long they wait. How many connections there may be is configured
//! (`[limits]`); these are not.

use std::time::Duration;

/// Events that wait for the loop. When it is behind, streams are not read and datagrams wait in the kernel.
pub const EVENTS: usize = 1024;

/// Bytes taken from a stream at once.
pub const READ_BUFFER: usize = 16 * 1024;

/// Messages that wait for a connection's peer to take them.
pub const QUEUED_MESSAGES: usize = 256;

/// Bytes that wait for a connection's peer to take them.
pub const QUEUED_BYTES: usize = 1024 * 1024;

/// Kernel buffer of a UDP socket: a burst of some 4,000 messages.
pub const UDP_BUFFER: usize = 4 * 1024 * 1024;

/// Connections that may wait to be accepted.
pub const BACKLOG: i32 = 1024;

/// To open a TCP connection.
pub const CONNECT: Duration = Duration::from_secs(8);

/// To finish a TLS handshake, either way.
pub const HANDSHAKE: Duration = Duration::from_secs(8);

/// For a peer to take one message. A peer that does not is closed.
pub const WRITE: Duration = Duration::from_secs(10);

/// From accepting a connection to its first bytes.
pub const FIRST_BYTES: Duration = Duration::from_secs(60);

/// Without a byte either way. A call in progress is silent for long, so this is long; a dead peer is found by TCP
/// keep-alive.
pub const IDLE: Duration = Duration::from_secs(2 * 60 * 60);

/// TCP keep-alive: first probe after this, then every [`KEEP_ALIVE_INTERVAL`].
pub const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// See [`KEEP_ALIVE`].
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Probes without an answer before the connection is given up.
pub const KEEP_ALIVE_PROBES: u32 = 4;

/// For all connections to end when the daemon stops.
pub const SHUTDOWN: Duration = Duration::from_secs(3);

/// After the system refused to accept (out of descriptors).
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
