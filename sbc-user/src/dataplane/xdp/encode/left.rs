//! A stream as a daemon before left it in the kernel, and as this one leaves it.

use sbc_common::flow::{FlowState, Generation};

use super::{CALLEE, CALLER, RTCP, RTP, Side, StreamState};
use crate::dataplane::KernelPair;
use crate::dataplane::xdp::flows::{Counted, Flows};

impl StreamState {
    /// What the next daemon must know: of RTP, of RTCP.
    pub(crate) fn checkpoint(&self) -> [KernelPair; 2] {
        [RTP, RTCP].map(|kind| KernelPair {
            generation: self.generation.number().into(),
            kept: self.kept.map(|kept| kept[kind]),
            base: self.base.map(|base| words(base[kind])),
        })
    }

    /// The stream as it was left, if the slots still are as that says.
    pub(crate) fn left(flows: &Flows, sides: [Side; 2], left: &[KernelPair; 2]) -> Option<Self> {
        let [rtp, rtcp] = left;
        if rtp.generation != rtcp.generation {
            return None;
        }
        let generation = Generation::new(u16::try_from(rtp.generation).ok()?)?;
        let kept = [CALLER, CALLEE].map(|at| [rtp.kept[at], rtcp.kept[at]]);
        let base = [CALLER, CALLEE].map(|at| [counted(&rtp.base[at]), counted(&rtcp.base[at])]);
        let state = Self { sides, generation, kept, base };
        let live = |at: usize, kind: usize| {
            let slot = sides[at].ports[kind].slot;
            let head = flows.head(slot);
            let is = |state: FlowState| state == FlowState::Idle || state == FlowState::Relay;
            head.generation == generation.number()
                && is(head.state) == is(state.head(at, kind).state)
                && flows.partner(slot) == state.body(at, kind).partner
        };
        let all = [CALLER, CALLEE].into_iter().all(|at| live(at, RTP) && live(at, RTCP));
        all.then_some(state)
    }
}

/// In this order for ever: more come at the end, and are zero where they are missing. Jitter is no count.
fn words(counted: Counted) -> Vec<u64> {
    vec![
        counted.packets,
        counted.bytes,
        counted.expected.into(),
        counted.out_of_order.into(),
        counted.over_rate.into(),
        counted.payload_type_changes.into(),
        counted.source_changes.into(),
    ]
}

fn counted(words: &[u64]) -> Counted {
    let word = |at: usize| words.get(at).copied().unwrap_or(0);
    Counted {
        packets: word(0),
        bytes: word(1),
        expected: word(2) as u32,
        out_of_order: word(3) as u32,
        over_rate: word(4) as u32,
        payload_type_changes: word(5) as u16,
        source_changes: word(6) as u16,
        jitter: 0,
    }
}
