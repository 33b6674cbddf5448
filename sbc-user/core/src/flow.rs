//! Where signalling bytes came from and where they go: the engine's view of sockets and connections.

use std::fmt;
use std::net::SocketAddr;

use crate::id::{ConnId, ListenerId};

/// Transport of a listener or connection of ours. (The `Via` transport on the wire is an open set; see `sip`.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A byte stream in the clear.
    Tcp,
    /// A byte stream under TLS.
    Tls,
}

impl Transport {
    /// The token in `Via` and in a `transport` parameter's upper-case form (RFC 3261 s.20.42).
    #[must_use]
    pub const fn via_token(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        }
    }

    /// Whether delivery is reliable, so that transactions need not retransmit (RFC 3261 s.17).
    #[must_use]
    pub const fn is_reliable(self) -> bool {
        !matches!(self, Self::Udp)
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        })
    }
}

/// One signalling path between a listener of ours and a peer.
///
/// On input it says where bytes came from. On output it says where they go: with `conn` the shell uses that
/// connection while it lives and else opens one to `remote`; without, it reuses any connection it has from this
/// listener to `remote`, else opens one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// The listener of ours (gives realm, transport and local address).
    pub listener: ListenerId,
    /// Its transport.
    pub transport: Transport,
    /// The peer.
    pub remote: SocketAddr,
    /// The stream connection, if there is one.
    pub conn: Option<ConnId>,
}
