//! What operators' programs read: the JSON of the admin socket, of `sbcctl --json` and of call records. Field names
//! and meanings are a contract; `schema` rises when one of them changes.

mod calls;
mod guard;
mod record;
mod trace;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use sbc_core::command::EngineStatus;
use serde::{Deserialize, Serialize};

use super::ShellStatus;

pub use calls::{Call, Calls, Heard, Leg, MediaSide, Packets, Stream};
pub use guard::{Changed, Denied, DenyList, Prefixes};
pub use record::{Record, RecordStream};
pub use trace::{Trace, TracedEnds, TracedLine};

/// Version of this contract.
pub const SCHEMA: u32 = 1;

/// A request that could not be answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Why.
    pub error: String,
}

/// What does not change while the daemon runs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Name of the instance.
    pub instance: String,
    /// When the daemon started.
    pub started: Instant,
    /// Its SIP sockets.
    pub listeners: Vec<Listener>,
    /// The addresses of its media.
    pub media_addresses: Vec<MediaAddress>,
}

/// A SIP socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listener {
    /// Realm that it serves.
    pub realm: String,
    /// `udp`, `tcp` or `tls`.
    pub transport: String,
    /// Address and port bound.
    pub bind: SocketAddr,
    /// Address and port that peers are told.
    pub advertised: SocketAddr,
}

/// An address of ours on which media is received.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MediaAddress {
    /// Realm that it serves.
    pub realm: String,
    /// The address.
    pub address: IpAddr,
    /// First port.
    pub first_port: u16,
    /// Last port.
    pub last_port: u16,
    /// The interface that it is on, if the host has it.
    pub interface: Option<String>,
    /// What forwards media there: `kernel` (XDP in the interface's driver) or `relay`.
    pub path: String,
    /// Why the relay serves it, where it does.
    pub relay_reason: Option<String>,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Version of the daemon.
    pub version: String,
    /// Name of the instance.
    pub instance: String,
    /// Since the daemon started.
    pub uptime_seconds: u64,
    /// `serving`, or `draining`: no new calls.
    pub state: String,
    /// Calls up now, in any state.
    pub calls: usize,
    /// Calls of a daemon before: their signalling was lost with it, their media goes on.
    pub media_only_calls: usize,
    /// Calls that may be up at once.
    pub max_calls: usize,
    /// Calls begun since start.
    pub calls_offered: u64,
    /// Of these, answered.
    pub calls_answered: u64,
    /// Of these, ended without an answer.
    pub calls_failed: u64,
    /// SIP transactions alive.
    pub transactions: usize,
    /// Timers armed.
    pub timers: usize,
    /// Media ports in use, over all realms.
    pub ports_in_use: usize,
    /// TCP and TLS connections up or being opened.
    pub connections: usize,
    /// Records of ended calls that could not be written.
    pub records_lost: u64,
    /// Changes that the store could not keep: a restart would not know of them.
    pub store_lost: u64,
    /// SIP sockets.
    pub listeners: Vec<Listener>,
    /// Addresses of media, each with what forwards it.
    pub media_addresses: Vec<MediaAddress>,
    /// What the engine counted, by name.
    pub engine_counters: BTreeMap<String, u64>,
    /// What the transports counted, by name.
    pub transport_counters: BTreeMap<String, u64>,
    /// What became of media packets, by name of the outcome.
    pub dataplane_counters: BTreeMap<String, u64>,
    /// Streams that went to the relay since the start, by the reason why the kernel does not carry them.
    #[serde(default)]
    pub relay_streams: BTreeMap<String, u64>,
}

impl Status {
    /// From what loop and engine say.
    #[must_use]
    pub fn new(facts: &Facts, engine: &EngineStatus, shell: &ShellStatus) -> Self {
        let named = |counters: &[(&'static str, u64)]| {
            counters.iter().map(|&(name, value)| (name.to_owned(), value)).collect()
        };
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: facts.instance.clone(),
            uptime_seconds: facts.started.elapsed().as_secs(),
            state: if engine.draining { "draining" } else { "serving" }.to_owned(),
            calls: engine.calls,
            media_only_calls: engine.media_only,
            max_calls: engine.max_calls,
            calls_offered: engine.calls_offered,
            calls_answered: engine.calls_answered,
            calls_failed: engine.calls_failed,
            transactions: engine.transactions,
            timers: engine.timers,
            ports_in_use: engine.ports_in_use,
            connections: shell.connections,
            records_lost: shell.records_lost,
            store_lost: shell.store_lost,
            listeners: facts.listeners.clone(),
            media_addresses: facts.media_addresses.clone(),
            engine_counters: named(&engine.counters),
            transport_counters: named(&shell.transport),
            dataplane_counters: named(&shell.dataplane),
            relay_streams: named(&shell.relay_streams),
        }
    }
}

/// `POST /v1/reconcile`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reconciled {
    /// Version of this schema.
    pub schema: u32,
    /// What was not as it should be.
    pub differences: Vec<Difference>,
}

/// Something that was not as it should be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Difference {
    /// `slot`, `address`, `next hop`, `device` or `link`.
    pub object: String,
    /// Which.
    pub subject: String,
    /// How it was.
    pub found: String,
    /// Whether it is as it should be now.
    pub mended: bool,
}

impl Reconciled {
    pub(super) fn new(differences: Vec<Difference>) -> Self {
        Self { schema: SCHEMA, differences }
    }
}
