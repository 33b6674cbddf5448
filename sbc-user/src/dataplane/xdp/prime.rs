//! Opening the way to the peers of flows that the kernel forwards. It only forwards: what is ours is sent by a socket.

use std::net::SocketAddr;

use sbc_core::id::CallId;
use sbc_core::media::command::SideOf;

use super::Xdp;
use super::encode::{self, CALLEE, CALLER, RTCP, RTP};
use crate::dataplane::prime;
use crate::dataplane::send_once::{self, Way};

impl Xdp {
    /// Sends one RTP and one RTCP packet to those of the sides that the call has here.
    pub(super) fn prime(&self, call: CallId, sides: &[SideOf]) {
        for side in sides {
            if let Some(ways) = self.ways_of(call, *side) {
                prime::send(ways, send_once::send);
            }
        }
    }

    /// From where to where RTP and RTCP go to a side at present.
    fn ways_of(&self, call: CallId, SideOf { mline, caller_side }: SideOf) -> Option<[Option<Way>; 2]> {
        let held = self.calls.get(&call)?;
        let state = held.stream(mline)?;
        let stream = held.plan.streams.iter().find(|stream| stream.mline == mline)?;
        let (side, at) = if caller_side { (&stream.caller, CALLER) } else { (&stream.callee, CALLEE) };
        Some([RTP, RTCP].map(|kind| {
            let (port, kind) = if side.rtcp_mux { (0, RTP) } else { (u16::from(kind == RTCP), kind) };
            let learned = state.learned(&self.kernel.flows, at, kind);
            let to = learned.or_else(|| encode::peer(side, kind))?;
            let via = SocketAddr::new(side.local_ip, side.local_rtp_port | port);
            Some(Way { via, to, dscp: side.dscp })
        }))
    }
}
