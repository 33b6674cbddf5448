//! When one side of a stream may be claimed, and where its packets go until it is (R-RTP-4, RFC 7362).
//!
//! ```text
//! Offered ── agreed ──> Until ── its time ──> Closed
//!    ^                    ^ heard               │ silent
//!    │ described anew     └────── Silent <──────┘
//! ```
//!
//! Open from the first plan, so that early media flows; after the answer for a while only, so that whoever comes later
//! finds the place taken or closed. Only two things open it again: signalling that names another place, and silence of
//! the side for longer than anybody is silent who is there; whoever may not send at present is not silent. What was learned before silence stays the place where
//! packets go until the side is heard again. Knows no packets and no clock: it is told.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::config::Learning;
use crate::media::plan::{LearnWindow, PeerMedia};

/// See the module. One for each side of each stream.
#[derive(Clone, Debug, Default)]
pub struct Latch {
    opening: u32,
    window: Window,
    /// Where the side said that it receives, when it last said so.
    said: Option<PeerMedia>,
    /// Who claimed its ports in this opening.
    rtp: Option<SocketAddr>,
    rtcp: Option<SocketAddr>,
    /// Where packets go instead of `said` since silence opened it.
    known: Option<PeerMedia>,
    shared: bool,
    /// Whether what it sends is expected, by what was agreed last.
    sends: bool,
    packets: u64,
    /// When it was last heard, or could not be.
    heard: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Window {
    /// Open: what the side described is not agreed yet.
    #[default]
    Offered,
    /// Open for a while.
    Until(Instant),
    /// Open because nothing was heard, until something is.
    Silent,
    Closed,
}

impl Latch {
    /// The side describes where it receives; `None`: nowhere at present. Another place than before is another opening,
    /// the first one is not: early media may have claimed it.
    pub fn describe(&mut self, peer: Option<PeerMedia>) {
        if peer.is_none() || self.said == peer {
            return;
        }
        if std::mem::replace(&mut self.said, peer).is_some() {
            self.open(Window::Offered);
            self.known = None;
        }
    }

    /// What both sides described is agreed. `sends`: whether this side may send by it; `shared`: whether its RTP and RTCP
    /// share a port, which makes another port another party's to claim.
    pub fn agree(&mut self, now: Instant, sends: bool, shared: bool, times: Learning) {
        if std::mem::replace(&mut self.shared, shared) != shared && self.window != Window::Offered {
            self.open(Window::Offered);
        }
        if self.window == Window::Offered {
            self.window = Window::Until(now + times.window);
            self.heard = Some(now);
        }
        // Whoever resumes after an hour on hold has not been silent for an hour.
        if !std::mem::replace(&mut self.sends, sends) && self.heard.is_some() {
            self.heard = Some(now);
        }
    }

    /// What the side has sent so far, of any kind, as a look at the counters shows it. Whether silence has opened it.
    pub fn look(&mut self, now: Instant, packets: u64, times: Learning) -> bool {
        let Some(heard) = self.heard else { return false };
        if packets != self.packets {
            (self.packets, self.heard) = (packets, Some(now));
            if self.window == Window::Silent {
                self.window = Window::Until(now + times.window);
            }
            return false;
        }
        if !self.sends {
            self.heard = Some(now);
            return false;
        }
        let silent = times.relatch.is_some_and(|limit| now.saturating_duration_since(heard) >= limit);
        let reopen = silent && matches!(self.window, Window::Until(_) | Window::Closed);
        if reopen {
            let at_present = self.peer(self.said);
            let learned = at_present.map(|peer| PeerMedia {
                rtp: self.rtp.unwrap_or(peer.rtp),
                rtcp: self.rtcp.unwrap_or(peer.rtcp),
            });
            self.open(Window::Silent);
            self.known = learned;
        }
        reopen
    }

    /// Somebody claimed one of its ports.
    pub fn learned(&mut self, source: SocketAddr, rtcp: bool) {
        if rtcp {
            self.rtcp = Some(source);
        } else {
            self.rtp = Some(source);
        }
    }

    /// Closes it if its time is over.
    pub fn close_due(&mut self, now: Instant) {
        if self.closes().is_some_and(|at| at <= now) {
            self.window = Window::Closed;
        }
    }

    /// When its time is over.
    #[must_use]
    pub const fn closes(&self) -> Option<Instant> {
        match self.window {
            Window::Until(at) => Some(at),
            Window::Offered | Window::Silent | Window::Closed => None,
        }
    }

    /// For the plan: whether anybody may claim at present.
    #[must_use]
    pub fn window(&self) -> LearnWindow {
        LearnWindow { opening: self.opening, open: self.window != Window::Closed }
    }

    /// For the plan: where packets go to a side that described `said`, until somebody claims.
    #[must_use]
    pub fn peer(&self, said: Option<PeerMedia>) -> Option<PeerMedia> {
        let said = said?;
        Some(self.known.unwrap_or(said))
    }

    /// Where the side last said that it receives.
    #[must_use]
    pub const fn said(&self) -> Option<PeerMedia> {
        self.said
    }

    fn open(&mut self, window: Window) {
        self.opening = self.opening.wrapping_add(1);
        self.window = window;
        (self.rtp, self.rtcp) = (None, None);
    }
}

/// Looks that a silence of this length needs, so that it is noticed in time.
#[must_use]
pub fn interval(times: Learning) -> Option<Duration> {
    times.relatch.map(|limit| limit / 3)
}
