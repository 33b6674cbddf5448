//! SIP over sockets: UDP, TCP and TLS. Moves bytes; what they mean, and where a message ends, is the engine's.
//!
//! One bounded channel carries everything that happens to the event loop. Sending never waits: a datagram is handed
//! to the kernel, a stream message to its connection's bounded queue; what cannot be delivered comes back as
//! [`TransportEvent::SendFailed`]. Connections are reused by listener and peer, whoever opened them (RFC 5923).

mod conn;
mod gate;
pub mod limits;
mod tcp;
pub mod tls;
mod udp;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use bytes::Bytes;
use sbc_core::config::Listener;
use sbc_core::flow::{Flow, Transport};
use sbc_core::guard::{Guard, GuardCommand};
use sbc_core::id::{ConnId, ListenerId, OpId};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;

use crate::clock::now;
use crate::config::{Config, RealmShell};
use conn::{Connections, Opener};
use gate::Gate;
use udp::UdpListener;

/// Something that happened on a socket.
#[derive(Debug)]
pub enum TransportEvent {
    /// A datagram arrived.
    Datagram {
        /// Where from.
        flow: Flow,
        /// Its payload.
        bytes: Bytes,
    },
    /// A connection is up, whoever opened it.
    Opened {
        /// The connection.
        flow: Flow,
    },
    /// Bytes of a connection, in order.
    Bytes {
        /// The connection.
        conn: ConnId,
        /// The bytes.
        bytes: Bytes,
    },
    /// A connection that was up has ended.
    Closed {
        /// The connection.
        conn: ConnId,
    },
    /// A message could not be delivered.
    SendFailed {
        /// The operation it was sent for.
        op: OpId,
    },
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What the transports have counted since start.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        impl Counters {
            /// Names and values.
            #[must_use]
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Ordering::Relaxed)),)*]
            }
        }
    };
}

counters! {
    /// Datagrams received.
    datagrams_received,
    /// Datagrams sent.
    datagrams_sent,
    /// Datagrams that the kernel had no room for.
    datagrams_not_sent,
    /// Connections accepted.
    connections_accepted,
    /// Connections opened.
    connections_opened,
    /// Connections that we failed to open.
    connections_failed,
    /// Connections closed at once because there were too many, over all or from one source.
    connections_refused,
    /// Connections closed at once because their source is no peer's, nor on the allow list, or blocked, or denied.
    strangers_refused,
    /// TLS handshakes that failed or took too long.
    handshakes_failed,
    /// Connections closed because nothing was sent on them for too long.
    idle_closed,
    /// Connections closed because their peer did not take what we sent.
    slow_peer_closed,
    /// Stream messages handed to a connection.
    stream_messages_sent,
}

/// Adds one.
fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// One listener's socket.
enum Socket {
    Udp(UdpListener),
    Stream(Opener),
}

/// A socket that does not receive yet.
enum Bound {
    Udp(ListenerId, UdpSocket),
    Stream(TcpListener, Opener),
}

impl Bound {
    fn new(config: &Config, id: ListenerId, listener: &Listener) -> anyhow::Result<Self> {
        let realm = usize::from(listener.realm.0);
        let shell = config.realms.get(realm).context("its realm is not configured")?;
        let tls = match listener.transport {
            Transport::Udp => return Ok(Self::Udp(id, udp::bind(listener.bind, shell)?)),
            Transport::Tcp => None,
            Transport::Tls => {
                let files = shell.tls.as_ref().context("no certificate is configured")?;
                Some(tls::Endpoint::load(id, files, &config.tls_peers)?)
            }
        };
        let socket = tcp::listen(listener.bind, shell)?;
        let (realm, dscp) = (listener.realm, shell.dscp_signalling);
        Ok(Self::Stream(socket, Opener { listener: id, realm, local: listener.bind.ip(), dscp, tls }))
    }
}

/// All SIP sockets of the daemon.
pub struct Transports {
    sockets: Vec<Socket>,
    connections: Connections,
    counters: Arc<Counters>,
    /// Failures noticed while sending: the loop itself takes them, so they cannot go through its channel.
    failed: VecDeque<OpId>,
}

impl Transports {
    /// Binds every listener of the configuration and begins to receive.
    ///
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// A socket cannot be bound, or a certificate cannot be used: the error names the listener.
    pub fn bind(config: &Config) -> anyhow::Result<(Self, mpsc::Receiver<TransportEvent>)> {
        // First every socket, then the first task: a start that fails leaves nothing behind.
        let bound: Vec<Bound> = config
            .engine
            .listeners
            .iter()
            .zip(0u16..)
            .map(|(listener, index)| {
                Bound::new(config, ListenerId(index), listener)
                    .with_context(|| format!("listener {} {}", listener.transport, listener.bind))
            })
            .collect::<anyhow::Result<_>>()?;
        let (events, receiver) = mpsc::channel(limits::EVENTS);
        let counters = Arc::new(Counters::default());
        let gate = Gate::default();
        gate.tell(&Guard::new(&config.engine).setup(now()));
        let connections = Connections::new(events.clone(), config.connections, gate, counters.clone());
        let receive = |bound| match bound {
            Bound::Udp(id, socket) => Socket::Udp(UdpListener::receive(id, socket, &events, &counters)),
            Bound::Stream(socket, opener) => {
                tcp::spawn_accept(socket, opener.clone(), connections.clone());
                Socket::Stream(opener)
            }
        };
        let sockets = bound.into_iter().map(receive).collect();
        Ok((Self { sockets, connections, counters, failed: VecDeque::new() }, receiver))
    }

    /// Sends one message, now or as soon as its connection takes it.
    pub fn send(&mut self, op: OpId, flow: Flow, bytes: Bytes) {
        let sent = match self.sockets.get(usize::from(flow.listener.0)) {
            Some(Socket::Udp(socket)) => socket.send(flow.remote, &bytes),
            Some(Socket::Stream(opener)) => self.connections.send(opener, op, flow, bytes),
            None => false,
        };
        if !sent {
            self.failed.push_back(op);
        }
    }

    /// The next failure that [`Self::send`] noticed at once.
    pub fn take_failed(&mut self) -> Option<OpId> {
        self.failed.pop_front()
    }

    /// Closes a connection after what is queued on it has been sent.
    pub fn close(&self, conn: ConnId) {
        self.connections.close(conn);
    }

    /// Lets in, from now on, whom the guard's lists let in.
    pub fn guard(&self, command: &GuardCommand) {
        self.connections.gate().tell(command);
    }

    /// Closes every connection after what is queued on it has been sent, and waits for that, but not for long.
    pub async fn shutdown(&self) {
        self.connections.shutdown().await;
    }

    /// Connections up or being opened.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

impl Drop for Transports {
    fn drop(&mut self) {
        self.connections.stop();
    }
}

/// Applies what every SIP socket of ours has in common.
fn prepare(socket: &socket2::Socket, bind: SocketAddr, realm: &RealmShell) -> std::io::Result<()> {
    socket.set_nonblocking(true)?;
    if bind.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    mark(socket, bind.ip(), realm.dscp_signalling)?;
    if realm.may_appear_later {
        if bind.is_ipv4() { socket.set_freebind_v4(true)? } else { socket.set_freebind_v6(true)? }
    }
    socket.bind(&bind.into())
}

/// Marks what leaves by a socket (RFC 2474).
fn mark(socket: &socket2::Socket, local: IpAddr, dscp: u8) -> std::io::Result<()> {
    let class = u32::from(dscp) << 2;
    if local.is_ipv4() { socket.set_tos_v4(class) } else { socket.set_tclass_v6(class) }
}

#[cfg(test)]
mod tests;
