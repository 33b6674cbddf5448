//! Whose media is learned, and when: what the call knows goes into the latches, what they say into the plan.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::call::Side;
use crate::call::media::CallMedia;
use crate::media::command::{SideOf, StreamCounters};
use crate::media::latch;
use crate::sdp::Direction;
use crate::sdp::anchor::{Crypto, Mux, Survey};

impl CallMedia {
    /// The latches hear where the sides receive.
    pub(super) fn describe_latches(&mut self) {
        for (mline, side) in self.ends() {
            let peer = self.described(side, mline).and_then(|relayed| relayed.peer);
            if let Some(Some(line)) = self.lines.get_mut(mline) {
                line.of_mut(side).latch.describe(peer);
            }
        }
    }

    /// They hear that it is agreed.
    pub(super) fn agree_latches(&mut self, now: Instant) {
        for (mline, side) in self.ends() {
            let (sends, times) = (self.sends(side, mline), self.side(side).rules.learning);
            let shared = self.described(side, mline).is_some_and(|own| own.mux != Mux::Separate);
            if let Some(Some(line)) = self.lines.get_mut(mline) {
                line.of_mut(side).latch.agree(now, sends, shared, times);
            }
        }
    }

    /// They hear what the sides have sent so far. How many sides may be learned anew.
    pub fn look(&mut self, now: Instant, counters: &[StreamCounters]) -> usize {
        let mut reopened = 0;
        for (mline, side) in self.ends() {
            let Some(stream) = counters.iter().find(|it| usize::from(it.mline) == mline) else { continue };
            let packets = match side {
                Side::Caller => stream.from_caller.packets(),
                Side::Callee => stream.from_callee.packets(),
            };
            let times = self.side(side).rules.learning;
            let learned = self.is_learned(side, mline);
            if let Some(Some(line)) = self.lines.get_mut(mline)
                && line.of_mut(side).latch.look(now, packets, times)
                && learned
            {
                reopened += 1;
            }
        }
        reopened
    }

    /// Somebody claimed a port of a side. What came from nobody who may is of an opening that is over.
    pub fn learned(&mut self, of: SideOf, source: SocketAddr, rtcp: bool) {
        let side = if of.caller_side { Side::Caller } else { Side::Callee };
        let mline = usize::from(of.mline);
        let may = self.line(mline).and_then(|line| self.side(side).may_claim(line.of(side)));
        if let Some(Some(line)) = self.lines.get_mut(mline)
            && may.is_some_and(|may| may.contains(source.ip()))
        {
            line.of_mut(side).latch.learned(source, rtcp);
        }
    }

    /// Closes every window whose time is over.
    pub fn close_windows(&mut self, now: Instant) {
        for line in self.lines.iter_mut().flatten() {
            for side in Side::BOTH {
                line.of_mut(side).latch.close_due(now);
            }
        }
    }

    /// When the next window is to be closed.
    #[must_use]
    pub fn next_closing(&self) -> Option<Instant> {
        let learned = self.ends().into_iter().filter(|(mline, side)| self.is_learned(*side, *mline));
        learned.filter_map(|(mline, side)| self.line(mline)?.of(side).latch.closes()).min()
    }

    /// How often the counters must be looked at, so that silence is noticed that opens a window.
    #[must_use]
    pub fn learning_interval(&self) -> Option<Duration> {
        let learned = self.ends().into_iter().filter(|(mline, side)| self.is_learned(*side, *mline));
        learned.filter_map(|(_, side)| latch::interval(self.side(side).rules.learning)).min()
    }

    /// How long the flows to the peers may be without a packet, where they are open only if we send (R-TMS-2).
    #[must_use]
    pub fn prime_interval(&self) -> Option<Duration> {
        let sides = self.ends().into_iter().map(|(_, side)| side);
        sides.filter_map(|side| self.side(side).rules.prime).min()
    }

    /// Whom to send something, so that packets can come in, of these streams: those that carry nothing.
    #[must_use]
    pub fn to_prime(&self, idle: impl Fn(u8) -> bool) -> Vec<SideOf> {
        let known = self.ends().into_iter().filter(|(mline, side)| {
            let peer = self.described(*side, *mline).and_then(|relayed| relayed.peer);
            self.side(*side).rules.prime.is_some() && peer.is_some()
        });
        let sides = known.filter_map(|(mline, side)| {
            Some(SideOf { mline: u8::try_from(mline).ok()?, caller_side: side == Side::Caller })
        });
        sides.filter(|side| idle(side.mline)).collect()
    }

    fn is_learned(&self, side: Side, mline: usize) -> bool {
        let described = Side::BOTH.map(|side| self.described(side, mline));
        self.side(side).learns()
            && !described.into_iter().flatten().any(|relayed| relayed.crypto == Crypto::Sdes)
    }

    /// Whether what a side sends would be counted: it may send, and the other side has a place for it.
    fn sends(&self, side: Side, mline: usize) -> bool {
        let agreed = |side: Side| self.side(side).agreed.as_ref().and_then(|it: &Survey| it.relayed(mline));
        let (Some(own), Some(across)) = (agreed(side), agreed(side.other())) else { return false };
        matches!(own.direction, Direction::SendRecv | Direction::SendOnly)
            && matches!(across.direction, Direction::SendRecv | Direction::RecvOnly)
            && across.peer.is_some()
    }

    /// Every side of every stream that has ports.
    pub(super) fn ends(&self) -> Vec<(usize, Side)> {
        let lines = self.lines.iter().enumerate().filter(|(_, line)| line.is_some());
        lines.flat_map(|(mline, _)| Side::BOTH.map(|side| (mline, side))).collect()
    }
}
