//! Whose each port of ours is, whatever carries it.
//!
//! A carrier knows the ports that it has itself. Only together they see that a port which the kernel forwards for one
//! call would be bound by the relay for another, which then would never hear a packet.

use std::collections::HashMap;
use std::net::SocketAddr;

use sbc_core::id::CallId;
use sbc_core::media::plan::StreamPlan;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct HeldPorts(HashMap<SocketAddr, CallId>);

impl HeldPorts {
    /// Takes the ports of a call's streams, besides those that it has, or none of them.
    ///
    /// # Errors
    /// A port that another call has, or that two of the streams share.
    pub(super) fn take<'a>(
        &mut self,
        call: CallId,
        streams: impl Iterator<Item = &'a StreamPlan>,
    ) -> Result<(), SocketAddr> {
        let mut wanted = Vec::new();
        for port in streams.flat_map(ports) {
            if wanted.contains(&port) || self.0.get(&port).is_some_and(|holder| *holder != call) {
                return Err(port);
            }
            wanted.push(port);
        }
        self.0.extend(wanted.into_iter().map(|port| (port, call)));
        Ok(())
    }

    /// Gives back the ports of the streams that went, but for those of the streams that stay.
    pub(super) fn give_back<'a>(
        &mut self,
        went: impl Iterator<Item = &'a StreamPlan>,
        stay: impl Iterator<Item = &'a StreamPlan>,
    ) {
        let stay: Vec<SocketAddr> = stay.flat_map(ports).collect();
        for port in went.flat_map(ports).filter(|port| !stay.contains(port)) {
            self.0.remove(&port);
        }
    }
}

/// The ports of ours that a stream uses.
fn ports(stream: &StreamPlan) -> impl Iterator<Item = SocketAddr> {
    [&stream.caller, &stream.callee].into_iter().flat_map(|side| {
        [side.local_rtp_port, side.local_rtp_port | 1].map(|port| SocketAddr::new(side.local_ip, port))
    })
}
