//! Who claimed the ports of calls here, and claims that another carrier heard.

use std::time::Instant;

use sbc_core::id::CallId;

use super::Xdp;
use super::encode::{CALLEE, CALLER, RTCP, RTP};
use crate::dataplane::carrier::{Carrier, Claim};

impl Carrier for Xdp {
    fn claims(&self, call: CallId) -> Vec<Claim> {
        let Some(held) = self.calls.get(&call) else { return Vec::new() };
        let mut claims = Vec::new();
        for (stream, state) in held.plan.streams.iter().zip(&held.streams) {
            for at in [CALLER, CALLEE] {
                for kind in [RTP, RTCP] {
                    if let Some(source) = state.learned(&self.kernel.flows, at, kind) {
                        let (caller_side, rtcp) = (at == CALLER, kind == RTCP);
                        claims.push(Claim { mline: stream.mline, caller_side, rtcp, source });
                    }
                }
            }
        }
        claims
    }

    fn teach(&mut self, now: Instant, call: CallId, claims: &[Claim]) {
        let Some(held) = self.calls.get_mut(&call) else { return };
        let mut taught = false;
        for Claim { mline, caller_side, rtcp, source } in claims {
            let position = held.plan.streams.iter().position(|stream| stream.mline == *mline);
            if let Some(state) = position.and_then(|position| held.streams.get_mut(position)) {
                let at = if *caller_side { CALLER } else { CALLEE };
                let kind = if *rtcp { RTCP } else { RTP };
                taught |= state.teach(&self.kernel.flows, at, kind, *source);
            }
        }
        if taught {
            self.rewrite(call);
            self.follow_claims(now, call);
        }
    }
}
