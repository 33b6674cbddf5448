//! What a call holds for each of its m-lines: ports of ours on both sides, and who may claim them.

use std::time::Instant;

use crate::call::Side;
use crate::call::media::CallMedia;
use crate::media::latch::Latch;
use crate::media::ports::{PortPair, PortPool};
use crate::policy::admission::{Refusal, Saying};
use crate::rng::Rng;
use crate::sdp::anchor::Survey;

/// Ports of ours for one m-line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) caller: End,
    pub(super) callee: End,
}

/// One side of it.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) ports: PortPair,
    pub(super) latch: Latch,
}

impl Line {
    pub(super) const fn of(&self, side: Side) -> &End {
        match side {
            Side::Caller => &self.caller,
            Side::Callee => &self.callee,
        }
    }

    pub(super) const fn of_mut(&mut self, side: Side) -> &mut End {
        match side {
            Side::Caller => &mut self.caller,
            Side::Callee => &mut self.callee,
        }
    }
}

impl CallMedia {
    /// Ports for the carried streams that have none. All of them or none.
    pub(super) fn reserve(
        &mut self,
        survey: &Survey,
        pools: &mut [PortPool],
        rng: &mut impl Rng,
        now: Instant,
    ) -> Result<(), Saying> {
        self.lines.resize(survey.streams.len().max(self.lines.len()), None);
        let wanting: Vec<usize> = (0..survey.streams.len())
            .filter(|mline| survey.relayed(*mline).is_some() && self.line(*mline).is_none())
            .collect();
        let mut drawn: Vec<Line> = Vec::with_capacity(wanting.len());
        for _ in &wanting {
            let Some(line) = self.draw(pools, rng, now) else {
                drawn.iter().for_each(|line| self.give_back(line, pools, now));
                return Err(Refusal::PortsExhausted.saying());
            };
            drawn.push(line);
        }
        for (mline, line) in wanting.into_iter().zip(drawn) {
            if let Some(slot) = self.lines.get_mut(mline) {
                *slot = Some(line);
            }
        }
        Ok(())
    }

    fn draw(&self, pools: &mut [PortPool], rng: &mut impl Rng, now: Instant) -> Option<Line> {
        let end = |ports| End { ports, latch: Latch::default() };
        let caller = pools.get_mut(usize::from(self.caller.realm.0))?.allocate(rng, now)?;
        match pools.get_mut(usize::from(self.callee.realm.0))?.allocate(rng, now) {
            Some(callee) => Some(Line { caller: end(caller), callee: end(callee) }),
            None => {
                if let Some(pool) = pools.get_mut(usize::from(self.caller.realm.0)) {
                    pool.release(caller, now);
                }
                None
            }
        }
    }

    /// Gives back the ports of streams that no agreement carries.
    pub(super) fn give_back_unused(&mut self, pools: &mut [PortPool], now: Instant) {
        for mline in 0..self.lines.len() {
            let carried = [&self.caller, &self.callee]
                .into_iter()
                .all(|side| side.agreed.as_ref().is_some_and(|survey| survey.relayed(mline).is_some()));
            if !carried && let Some(line) = self.lines.get_mut(mline).and_then(Option::take) {
                self.give_back(&line, pools, now);
            }
        }
    }

    /// Gives back every port.
    pub(super) fn give_back_all(&mut self, pools: &mut [PortPool], now: Instant) {
        for line in std::mem::take(&mut self.lines).into_iter().flatten() {
            self.give_back(&line, pools, now);
        }
    }

    fn give_back(&self, line: &Line, pools: &mut [PortPool], now: Instant) {
        for side in Side::BOTH {
            if let Some(pool) = pools.get_mut(usize::from(self.side(side).realm.0)) {
                pool.release(line.of(side).ports, now);
            }
        }
    }

    /// Our RTP ports on a side, for the streams that are `carried`.
    pub(super) fn local_ports(&self, side: Side, carried: impl Fn(usize) -> bool) -> Vec<Option<u16>> {
        let lines = self.lines.iter().enumerate();
        lines
            .map(|(mline, line)| {
                line.as_ref().filter(|_| carried(mline)).map(|line| line.of(side).ports.rtp())
            })
            .collect()
    }

    pub(super) fn line(&self, mline: usize) -> Option<&Line> {
        self.lines.get(mline)?.as_ref()
    }
}
