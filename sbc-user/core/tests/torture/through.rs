//! One datagram from a trunk through a fresh engine, with a dataplane that always says yes.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use sbc_core::config::{
    EngineConfig, Listener, MediaRealm, MediaTimeouts, NextHop, Prefix, Realm, Route, Trunk, TrunkMedia,
};
use sbc_core::engine::Engine;
use sbc_core::flow::{Flow, Transport};
use sbc_core::id::{ListenerId, RealmId, TrunkId};
use sbc_core::media::command::{MediaCommand, MediaDone};
use sbc_core::media::plan::Placement;
use sbc_core::rng::SeededRng;
use sbc_core::sip::Message;
use sbc_core::{Input, Now, Output};

use crate::table::Outcome;

const CARRIER: &str = "198.51.100.20:5060";
const PBX: &str = "10.9.0.20:5060";

/// What left the engine, in order.
#[derive(Debug, Default)]
pub(crate) struct Passage {
    /// To the trunk that it came from.
    pub(crate) back: Vec<Message>,
    /// To the trunk on the other side.
    pub(crate) onward: Vec<Message>,
}

impl Passage {
    pub(crate) fn outcome(&self) -> Outcome {
        let status = self.back.iter().filter_map(Message::status).find(|status| *status >= 200);
        match (status, self.onward.is_empty()) {
            (None, false) => Outcome::Taken,
            (Some(status), true) => Outcome::Answered(status),
            (None, true) => Outcome::Dropped,
            (Some(_), false) => panic!("relayed and answered: {self:?}"),
        }
    }
}

fn realm(name: &str, ip: &str) -> Realm {
    let ip: IpAddr = ip.parse().unwrap();
    let ports = 20_000..=20_099;
    let media = MediaRealm {
        bind: ip,
        advertised: ip,
        ports,
        quarantine: Duration::from_secs(30),
        dscp_audio: 46,
        dscp_video: 46,
        rate_factor: 3,
    };
    Realm { name: name.into(), media, hide_topology: true }
}

fn side(id: u16, sbc: &str, peer: &str) -> (Listener, Trunk) {
    let (sbc, remote): (_, std::net::SocketAddr) = (sbc.parse().unwrap(), peer.parse().unwrap());
    let listener = Listener { realm: RealmId(id), transport: Transport::Udp, bind: sbc, advertised: sbc };
    let trunk = Trunk {
        name: format!("trunk {id}"),
        realm: RealmId(id),
        sources: vec![Prefix { addr: remote.ip(), len: 32 }],
        next_hop: Some(NextHop { listener: ListenerId(id), remote }),
        media: TrunkMedia::default(),
    };
    (listener, trunk)
}

/// Sends it as the carrier would.
pub(crate) fn engine(bytes: &[u8]) -> Passage {
    let (outside, carrier) = side(0, "203.0.113.1:5060", CARRIER);
    let (inside, pbx) = side(1, "10.9.0.1:5060", PBX);
    let config = EngineConfig {
        node: 1,
        epoch: 1,
        realms: vec![realm("outside", "203.0.113.1"), realm("inside", "10.9.0.1")],
        listeners: vec![outside, inside],
        trunks: vec![carrier, pbx],
        routes: vec![Route { from: TrunkId(0), to: TrunkId(1) }],
        max_calls: 10,
        media_timeouts: MediaTimeouts::default(),
        guard: Default::default(),
    };
    // Any instant will do: nothing here waits.
    let now = Now { mono: Instant::now(), wall: SystemTime::UNIX_EPOCH };
    let mut engine = Engine::new(config, SeededRng::new(1), now);
    let remote = CARRIER.parse().unwrap();
    let flow = Flow { listener: ListenerId(0), transport: Transport::Udp, remote, conn: None };
    engine.handle_input(now, Input::Datagram { flow, bytes });

    let mut passage = Passage::default();
    while let Some(output) = engine.poll_output() {
        match output {
            Output::Send { flow, bytes, .. } => {
                let message = Message::parse(bytes).expect("the engine writes messages");
                let way =
                    if flow.listener == ListenerId(0) { &mut passage.back } else { &mut passage.onward };
                way.push(message);
            }
            Output::Media { op, command } => {
                let placements = match command {
                    MediaCommand::Install(plan) => vec![Placement::Kernel; plan.streams.len()],
                    MediaCommand::Remove(_) | MediaCommand::Observe(_) | MediaCommand::Prime { .. } => vec![],
                };
                let result = Ok(MediaDone { placements, counters: vec![] });
                engine.handle_input(now, Input::MediaDone { op, result });
            }
            Output::Close { .. }
            | Output::Guard(_)
            | Output::Record(_)
            | Output::Checkpoint(_)
            | Output::Reply { .. } => {}
        }
    }
    passage
}
