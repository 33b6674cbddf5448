//! A pair as a daemon before left it in the kernel, and as this one leaves it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use sbc_common::addr::Endpoint;
use sbc_common::flow::{FlowState, Generation};

use super::{CALLEE, CALLER, Pair, PairState};
use crate::dataplane::KernelPair;
use crate::dataplane::xdp::flows::{Counted, FlowTable};

impl PairState {
    /// What the next daemon must know.
    pub(crate) fn checkpoint(&self) -> KernelPair {
        KernelPair {
            generation: self.generation.number().into(),
            kept: self.kept.map(|kept| {
                kept.map(|source| SocketAddr::new(Ipv4Addr::from(source.address).into(), source.port()))
            }),
            base: self.base.map(words),
        }
    }

    /// The pair as it was left, if the slots still are as that says.
    pub(crate) fn left(table: &FlowTable, pair: Pair, left: &KernelPair) -> Option<Self> {
        let generation = Generation::new(u16::try_from(left.generation).ok()?)?;
        let mut kept = [None; 2];
        for at in [CALLER, CALLEE] {
            kept[at] = left.kept[at].map(endpoint).transpose().ok()?;
        }
        let base = [CALLER, CALLEE].map(|at| counted(&left.base[at]));
        let state = Self { pair, generation, kept, base };
        let live = |at: usize| {
            let slot = table.read(pair.sides[at].slot);
            let is = |state: FlowState| state == FlowState::Idle || state == FlowState::Relay;
            slot.head.generation == generation.number()
                && is(slot.head.state) == is(state.head(at).state)
                && slot.partner == pair.sides[1 - at].slot.0
        };
        (live(CALLER) && live(CALLEE)).then_some(state)
    }
}

fn endpoint(source: SocketAddr) -> Result<Endpoint, ()> {
    match source.ip() {
        IpAddr::V4(address) => Ok(Endpoint::new(address.octets(), source.port())),
        IpAddr::V6(_) => Err(()),
    }
}

/// In this order for ever: more come at the end, and are zero where they are missing.
fn words(counted: Counted) -> Vec<u64> {
    let Counted { packets, bytes, expected } = counted;
    vec![packets, bytes, expected.into()]
}

fn counted(words: &[u64]) -> Counted {
    let word = |at: usize| words.get(at).copied().unwrap_or(0);
    Counted { packets: word(0), bytes: word(1), expected: word(2) as u32 }
}
