//! Connections and the messages in their bytes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;

use crate::flow::Flow;
use crate::id::ConnId;
use crate::sip::frame::{Frame, StreamFramer};

/// How many connections may be open at once. Each holds at most one unfinished message of 64 KiB.
pub(super) const MAX_CONNECTIONS: usize = 20_000;

/// Open connections.
#[derive(Debug, Default)]
pub(super) struct Streams(BTreeMap<ConnId, Stream>);

#[derive(Debug)]
struct Stream {
    flow: Flow,
    framer: StreamFramer,
    broken: bool,
}

/// What a connection holds next.
#[derive(Debug)]
pub(super) enum Fed {
    /// A message.
    Message(Bytes),
    /// The peer asks whether we live.
    Ping,
    /// Nothing whole.
    Nothing,
    /// The framing is lost; the connection is to be closed.
    Broken,
}

impl Streams {
    /// A connection is up. `Some`: it must be closed, there are too many.
    pub(super) fn open(&mut self, flow: Flow) -> Option<ConnId> {
        let conn = flow.conn?;
        if self.0.len() >= MAX_CONNECTIONS {
            return Some(conn);
        }
        self.0.insert(conn, Stream { flow, framer: StreamFramer::new(), broken: false });
        None
    }

    /// Bytes of a connection; its flow, or `None` if it is not known.
    pub(super) fn push(&mut self, conn: ConnId, bytes: &[u8]) -> Option<Flow> {
        let stream = self.0.get_mut(&conn)?;
        if stream.framer.push(bytes).is_err() {
            stream.broken = true;
        }
        Some(stream.flow)
    }

    /// The next whole thing of a connection.
    pub(super) fn next(&mut self, conn: ConnId) -> Fed {
        let Some(stream) = self.0.get_mut(&conn) else { return Fed::Nothing };
        if stream.broken {
            self.0.remove(&conn);
            return Fed::Broken;
        }
        loop {
            return match stream.framer.next_frame() {
                Ok(Some(Frame::Message(bytes))) => Fed::Message(bytes),
                Ok(Some(Frame::Ping)) => Fed::Ping,
                Ok(Some(Frame::Pong)) => continue,
                Ok(None) => Fed::Nothing,
                Err(_) => {
                    self.0.remove(&conn);
                    Fed::Broken
                }
            };
        }
    }

    /// The connections whose peers are among some.
    pub(super) fn of_peers(&self, among: impl Fn(IpAddr) -> bool) -> Vec<ConnId> {
        let of_them = |(_, stream): &(&ConnId, &Stream)| among(stream.flow.remote.ip().to_canonical());
        self.0.iter().filter(of_them).map(|(conn, _)| *conn).collect()
    }

    /// A connection is gone; its flow, if it was known.
    pub(super) fn close(&mut self, conn: ConnId) -> Option<Flow> {
        self.0.remove(&conn).map(|stream| stream.flow)
    }
}
