//! Stream connections: one table of them, one task for each.
//!
//! A connection is found by its id or by listener and peer. It has a bounded queue of messages; a peer that does not
//! take them is closed, and every message that was not written is reported. The table is behind a lock that is held
//! for lookups only, never while anything waits.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use sbc_core::flow::{Flow, Transport};
use sbc_core::id::{ConnId, ListenerId, OpId, RealmId};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::gate::Gate;
use super::{Counters, TransportEvent, count, limits, tcp, tls};
use crate::config::ConnectionLimits;

/// What is needed to open a connection from a listener's side.
#[derive(Clone)]
pub(super) struct Opener {
    pub(super) listener: ListenerId,
    pub(super) realm: RealmId,
    pub(super) local: IpAddr,
    /// How what leaves is marked.
    pub(super) dscp: u8,
    pub(super) tls: Option<tls::Endpoint>,
}

impl Opener {
    fn transport(&self) -> Transport {
        if self.tls.is_some() { Transport::Tls } else { Transport::Tcp }
    }
}

/// One message for a peer.
struct Outgoing {
    op: OpId,
    bytes: Bytes,
}

struct Entry {
    flow: Flow,
    /// Counts against its source's limit.
    accepted: bool,
    queue: mpsc::Sender<Outgoing>,
    queued_bytes: Arc<AtomicUsize>,
    /// Ends the connection without waiting for its peer.
    cut: Arc<Notify>,
}

#[derive(Default)]
struct Table {
    last_id: u64,
    entries: HashMap<ConnId, Entry>,
    by_peer: HashMap<(ListenerId, SocketAddr), ConnId>,
    by_source: HashMap<IpAddr, usize>,
}

/// The receiving end of a connection's queue, and what its task needs.
struct Line {
    flow: Flow,
    conn: ConnId,
    queue: mpsc::Receiver<Outgoing>,
    /// Taken from the queue and not yet written whole.
    in_flight: Option<OpId>,
    queued_bytes: Arc<AtomicUsize>,
    cut: Arc<Notify>,
}

/// All stream connections. Cheap to clone: a handle.
#[derive(Clone)]
pub(super) struct Connections {
    table: Arc<Mutex<Table>>,
    events: mpsc::Sender<TransportEvent>,
    limits: ConnectionLimits,
    gate: Gate,
    counters: Arc<Counters>,
    stop: Arc<watch::Sender<bool>>,
}

impl Connections {
    pub(super) fn new(
        events: mpsc::Sender<TransportEvent>,
        limits: ConnectionLimits,
        gate: Gate,
        counters: Arc<Counters>,
    ) -> Self {
        let (stop, _) = watch::channel(false);
        Self { table: Arc::default(), events, limits, gate, counters, stop: Arc::new(stop) }
    }

    /// Who may connect.
    pub(super) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Ends when no connection is to be accepted any more.
    pub(super) fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stop = self.stop.subscribe();
        async move {
            let _ = stop.wait_for(|stop| *stop).await;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table().entries.len()
    }

    /// The table is consistent after every statement, so a panic elsewhere does not spoil it.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection that a peer opened, unless there are too many. A stranger's is closed before it costs anything
    /// or is shown anything: the engine would not answer it either.
    pub(super) fn accept(&self, opener: &Opener, stream: TcpStream, remote: SocketAddr) {
        if !self.gate.admits(opener.realm, remote) {
            count(&self.counters.strangers_refused);
            debug!(%remote, "connection refused: a stranger's");
            return;
        }
        let line = {
            let mut table = self.table();
            let from_source = table.by_source.get(&remote.ip()).copied().unwrap_or(0);
            if table.entries.len() >= self.limits.total || from_source >= self.limits.per_source {
                drop(table);
                count(&self.counters.connections_refused);
                debug!(%remote, "connection refused: too many");
                return;
            }
            table.insert(opener, remote, true)
        };
        count(&self.counters.connections_accepted);
        let (this, opener) = (self.clone(), opener.clone());
        tokio::spawn(async move {
            let accepted = async {
                tcp::tune(&stream)?;
                Ok(match &opener.tls {
                    None => Stream::Tcp(stream),
                    Some(tls) => Stream::Tls(Box::new(tls.accept(stream).await.inspect_err(|_| {
                        count(&this.counters.handshakes_failed);
                    })?)),
                })
            };
            let accepted: io::Result<Stream> = accepted.await;
            this.run(line, accepted).await;
        });
    }

    /// Queues a message on the flow's connection, opening one if there is none. False if it cannot be delivered.
    pub(super) fn send(&self, opener: &Opener, op: OpId, flow: Flow, bytes: Bytes) -> bool {
        let mut table = self.table();
        let existing = flow
            .conn
            .filter(|conn| table.entries.contains_key(conn))
            .or_else(|| table.by_peer.get(&(flow.listener, flow.remote)).copied());
        if let Some(entry) = existing.and_then(|conn| table.entries.get(&conn)) {
            return self.queue(entry, op, bytes);
        }
        if *self.stop.borrow() || opener.tls.as_ref().is_some_and(|tls| !tls.knows(flow.remote)) {
            return false;
        }
        if table.entries.len() >= self.limits.total {
            count(&self.counters.connections_refused);
            return false;
        }
        let line = table.insert(opener, flow.remote, false);
        let queued = table.entries.get(&line.conn).is_some_and(|entry| self.queue(entry, op, bytes));
        drop(table);
        let (this, opener) = (self.clone(), opener.clone());
        tokio::spawn(async move {
            let remote = line.flow.remote;
            let opened = async {
                let stream = tcp::open(opener.local, opener.dscp, remote).await?;
                tcp::tune(&stream)?;
                Ok(match &opener.tls {
                    None => Stream::Tcp(stream),
                    Some(tls) => {
                        Stream::Tls(Box::new(tls.connect(stream, remote).await.inspect_err(|_| {
                            count(&this.counters.handshakes_failed);
                        })?))
                    }
                })
            };
            let opened: io::Result<Stream> = opened.await;
            count(match &opened {
                Ok(_) => &this.counters.connections_opened,
                Err(_) => &this.counters.connections_failed,
            });
            this.run(line, opened).await;
        });
        queued
    }

    fn queue(&self, entry: &Entry, op: OpId, bytes: Bytes) -> bool {
        let length = bytes.len();
        let queued = entry.queued_bytes.fetch_add(length, Ordering::Relaxed) + length;
        if queued <= limits::QUEUED_BYTES && entry.queue.try_send(Outgoing { op, bytes }).is_ok() {
            count(&self.counters.stream_messages_sent);
            return true;
        }
        entry.queued_bytes.fetch_sub(length, Ordering::Relaxed);
        count(&self.counters.slow_peer_closed);
        debug!(remote = %entry.flow.remote, "peer does not take what is sent to it; closed");
        entry.cut.notify_one();
        false
    }

    /// Ends a connection after what is queued has been written.
    pub(super) fn close(&self, conn: ConnId) {
        // Without its sender the queue ends, and with it the task.
        self.table().remove(conn);
    }

    /// Accepts and opens no more.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    pub(super) async fn shutdown(&self) {
        self.stop();
        let all: Vec<ConnId> = self.table().entries.keys().copied().collect();
        for conn in all {
            self.close(conn);
        }
        // Each task holds a receiver of `stop` until it has ended.
        let _ = timeout(limits::SHUTDOWN, self.stop.closed()).await;
    }

    /// The life of a connection, from the moment it is up (or failed) to its end.
    async fn run(&self, mut line: Line, stream: io::Result<Stream>) {
        let _alive = self.stop.subscribe();
        let opened = stream.is_ok();
        let result = match stream {
            Err(error) => Err(error),
            Ok(stream) => {
                let _ = self.events.send(TransportEvent::Opened { flow: line.flow }).await;
                match stream {
                    Stream::Tcp(stream) => {
                        let (reader, writer) = stream.into_split();
                        self.carry(&mut line, reader, writer).await
                    }
                    Stream::Tls(stream) => {
                        let (reader, writer) = tokio::io::split(*stream);
                        self.carry(&mut line, reader, writer).await
                    }
                }
            }
        };
        if let Err(error) = result {
            debug!(conn = %line.conn, remote = %line.flow.remote, %error, "connection ended");
        }
        // First out of the table, then the queue: nothing can be queued between.
        self.table().remove(line.conn);
        line.queue.close();
        if let Some(op) = line.in_flight {
            let _ = self.events.send(TransportEvent::SendFailed { op }).await;
        }
        while let Some(message) = line.queue.recv().await {
            let _ = self.events.send(TransportEvent::SendFailed { op: message.op }).await;
        }
        if opened {
            let _ = self.events.send(TransportEvent::Closed { conn: line.conn }).await;
        }
    }

    /// Reads and writes until one of them ends.
    async fn carry(
        &self,
        line: &mut Line,
        reader: impl AsyncRead + Unpin,
        mut writer: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        let (conn, cut) = (line.conn, line.cut.clone());
        // Seconds since `begin` of the last byte either way.
        let begin = Instant::now();
        let last_active = AtomicUsize::new(0);
        let active = || {
            let seconds = usize::try_from(begin.elapsed().as_secs()).unwrap_or(usize::MAX);
            last_active.store(seconds, Ordering::Relaxed);
        };
        let result = tokio::select! {
            result = self.read(conn, reader, &active) => result,
            result = self.write(line, &mut writer, &active) => result,
            () = cut.notified() => return Err(io::Error::new(io::ErrorKind::TimedOut, "slow peer")),
            () = self.idle(begin, &last_active) => Err(io::Error::new(io::ErrorKind::TimedOut, "idle")),
        };
        // The peer learns that this was deliberate (close_notify); if it does not listen, so be it.
        let _ = timeout(limits::SHUTDOWN, writer.shutdown()).await;
        result
    }

    async fn read(
        &self,
        conn: ConnId,
        mut reader: impl AsyncRead + Unpin,
        active: &impl Fn(),
    ) -> io::Result<()> {
        let mut buffer = BytesMut::new();
        let mut first = true;
        loop {
            buffer.reserve(limits::READ_BUFFER);
            let read = reader.read_buf(&mut buffer);
            let length = if first && self.waits_for_first_bytes(conn) {
                match timeout(limits::FIRST_BYTES, read).await {
                    Ok(read) => read?,
                    Err(_) => {
                        count(&self.counters.idle_closed);
                        return Err(io::Error::new(io::ErrorKind::TimedOut, "no first bytes"));
                    }
                }
            } else {
                read.await?
            };
            if length == 0 {
                return Ok(());
            }
            first = false;
            active();
            let bytes = buffer.split().freeze();
            if self.events.send(TransportEvent::Bytes { conn, bytes }).await.is_err() {
                return Ok(());
            }
        }
    }

    fn waits_for_first_bytes(&self, conn: ConnId) -> bool {
        self.table().entries.get(&conn).is_some_and(|entry| entry.accepted)
    }

    async fn write(
        &self,
        line: &mut Line,
        writer: &mut (impl AsyncWrite + Unpin),
        active: &impl Fn(),
    ) -> io::Result<()> {
        while let Some(message) = line.queue.recv().await {
            line.in_flight = Some(message.op);
            let write = async {
                writer.write_all(&message.bytes).await?;
                writer.flush().await
            };
            match timeout(limits::WRITE, write).await {
                Ok(written) => written?,
                Err(_) => {
                    count(&self.counters.slow_peer_closed);
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "slow peer"));
                }
            }
            line.in_flight = None;
            line.queued_bytes.fetch_sub(message.bytes.len(), Ordering::Relaxed);
            active();
        }
        Ok(())
    }

    /// Ends when nothing has moved for too long.
    async fn idle(&self, begin: Instant, last_active: &AtomicUsize) {
        loop {
            let active = begin + std::time::Duration::from_secs(last_active.load(Ordering::Relaxed) as u64);
            let end = active + limits::IDLE;
            if Instant::now() >= end {
                count(&self.counters.idle_closed);
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

/// A stream that is up.
enum Stream {
    Tcp(TcpStream),
    Tls(Box<tokio_rustls::TlsStream<TcpStream>>),
}

impl Table {
    fn insert(&mut self, opener: &Opener, remote: SocketAddr, accepted: bool) -> Line {
        self.last_id += 1;
        let conn = ConnId(self.last_id);
        let flow =
            Flow { listener: opener.listener, transport: opener.transport(), remote, conn: Some(conn) };
        let (sender, receiver) = mpsc::channel(limits::QUEUED_MESSAGES);
        let queued_bytes = Arc::<AtomicUsize>::default();
        let cut = Arc::<Notify>::default();
        if accepted {
            *self.by_source.entry(remote.ip()).or_default() += 1;
        }
        self.by_peer.insert((opener.listener, remote), conn);
        self.entries.insert(
            conn,
            Entry { flow, accepted, queue: sender, queued_bytes: queued_bytes.clone(), cut: cut.clone() },
        );
        Line { flow, conn, queue: receiver, in_flight: None, queued_bytes, cut }
    }

    /// Correct to repeat.
    fn remove(&mut self, conn: ConnId) {
        let Some(entry) = self.entries.remove(&conn) else { return };
        let Flow { listener, remote, .. } = entry.flow;
        if self.by_peer.get(&(listener, remote)) == Some(&conn) {
            self.by_peer.remove(&(listener, remote));
        }
        if entry.accepted
            && let Some(count) = self.by_source.get_mut(&remote.ip())
        {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&remote.ip());
            }
        }
    }
}
