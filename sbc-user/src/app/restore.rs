//! What a daemon before left, made to fit the configuration of this one.
//!
//! A plan stays a plan if its addresses and ports still are media addresses and ports of a realm. Ports of plans that
//! are not taken over rest, as those of calls that ended shortly before.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::SystemTime;

use sbc_core::config::EngineConfig;
use sbc_core::guard::{Denial, Denied};
use sbc_core::id::{CallId, RealmId};
use sbc_core::restart::{RestingPorts, Restored, RestoredCall};

use crate::dataplane::MediaCheckpoint;
use crate::store::{Change, Contents, Gone};

/// The plans that fit the configuration, with the realms as they are numbered now.
pub(super) fn fitting(config: &EngineConfig, contents: &Contents) -> Vec<MediaCheckpoint> {
    let fit = |media: &MediaCheckpoint| {
        let mut media = media.clone();
        for stream in &mut media.plan.streams {
            for side in [&mut stream.caller, &mut stream.callee] {
                side.realm = realm(config, SocketAddr::new(side.local_ip, side.local_rtp_port))?;
            }
        }
        Some(media)
    };
    contents.media.iter().filter_map(fit).collect()
}

/// What the engine is told, and what the store may forget, when the dataplane carries on `adopted`.
pub(super) fn restored(
    config: &EngineConfig,
    contents: Contents,
    adopted: &[&MediaCheckpoint],
    now: SystemTime,
) -> (Restored, Vec<Change>) {
    let last_call = contents.media.iter().map(|media| media.plan.call).max();
    let mut checkpoints: HashMap<CallId, _> =
        contents.calls.into_iter().map(|call| (call.call, call)).collect();
    let calls = adopted
        .iter()
        .map(|media| RestoredCall {
            checkpoint: checkpoints.remove(&media.plan.call),
            plan: media.plan.clone(),
            placements: media.placements.clone(),
        })
        .collect();
    let lost = contents
        .media
        .iter()
        .filter(|media| !adopted.iter().any(|adopted| adopted.plan.call == media.plan.call));
    let lost: Vec<Gone> =
        lost.map(|media| Gone { call: media.plan.call, ports: media.ports(), since: now }).collect();
    let resting = contents.gone.iter().chain(&lost).flat_map(|gone| {
        let rested = now.duration_since(gone.since).unwrap_or_default();
        gone.ports.iter().filter_map(move |port| {
            let realm = realm(config, *port)?;
            let lasts = config.realms.get(usize::from(realm.0))?.media.quarantine.checked_sub(rested)?;
            Some(RestingPorts { realm, rtp: port.port(), lasts })
        })
    });
    let restored = Restored {
        calls,
        last_call: last_call.unwrap_or(CallId(0)),
        resting: resting.collect(),
        denied: contents.denied,
        lists: contents.lists,
    };
    // What is known of a call without a plan is of no use any more.
    let orphans = checkpoints.into_keys().filter(|call| !lost.iter().any(|gone| gone.call == *call));
    let orphans: Vec<Gone> = orphans.map(|call| Gone { call, ports: Vec::new(), since: now }).collect();
    (restored, lost.into_iter().chain(orphans).map(Change::Gone).collect())
}

/// Adds to the denials that the store has those that only the kernel has: made just before a crash, or the store's file
/// was lost.
pub(super) fn take_over_denials(denied: &mut Vec<Denied>, kernel: &[Denial], now: SystemTime) {
    for Denial { source, scope, reason, since, lasts } in kernel.iter().copied() {
        if !denied.iter().any(|known| known.source == source) {
            let until = lasts.and_then(|lasts| now.checked_add(lasts));
            denied.push(Denied { source, reason, scope, since, until });
        }
    }
}

/// The realm whose media port this is.
fn realm(config: &EngineConfig, port: SocketAddr) -> Option<RealmId> {
    let has = |realm: &sbc_core::config::Realm| {
        realm.media.bind == port.ip() && realm.media.ports.contains(&port.port())
    };
    let index = config.realms.iter().position(has)?;
    u16::try_from(index).ok().map(RealmId)
}
