//! The media of one call: ports of ours for every carried m-line, what each side has described, and the plan that
//! follows from both.
//!
//! An offer reserves what it needs and leaves what is agreed untouched; its answer makes a new agreement, its refusal
//! takes back what it reserved. The plan is always derived from these facts, never edited. Whether and when a plan is
//! in force is the dataplane's answer and the call's business.
//!
//! Source policy: a side whose description is known is held to it, or, by its trunk's rule, learned from whoever may
//! claim its ports (`learning`). Before a side has described itself its media is learned from the address that its
//! signalling comes from, so that early media flows. SRTP is never learned: its packets cannot be checked in passing.
//!
//! Whether RTP and RTCP share a port is agreed with each side for itself (RFC 5761, RFC 8035). Until the answer they do
//! not: RTCP that a peer sends to the RTP port because it has our offer and not yet our ear is dropped.

mod learning;
mod lines;
mod side;
#[cfg(test)]
mod tests;

use std::time::Instant;

use bytes::Bytes;

use crate::call::Side;
use crate::call::media::lines::Line;
use crate::counter::Counter;
use crate::id::CallId;
use crate::media::command::SideOf;
use crate::media::plan::{MediaPlan, StreamPlan};
use crate::media::ports::PortPool;
use crate::media::quality::StreamQuality;
use crate::media::rtcp;
use crate::policy::admission::{Refusal, Saying};
use crate::rng::Rng;
use crate::sdp::anchor::{self, Crypto, Mux, Relayed, Survey, survey};
use crate::sdp::offer_answer::{Action, Event, check_answer};
use crate::sdp::{Direction, Sdp};

pub use side::MediaSide;

/// An offer that has not been answered.
#[derive(Debug)]
struct Offer {
    survey: Survey,
    /// For each m-line whether we told the side across that RTP and RTCP may share a port.
    rtcp_mux: Vec<bool>,
    /// The last answer that came in a provisional response.
    early: Option<Survey>,
}

/// A description to send on, and the plan that must be in force before it leaves.
#[derive(Debug)]
pub struct Described {
    /// The body for the side across.
    pub body: Bytes,
    /// The plan. Equal to the last one if nothing changes.
    pub plan: MediaPlan,
}

/// The media of one call.
#[derive(Debug)]
pub struct CallMedia {
    call: CallId,
    caller: MediaSide,
    callee: MediaSide,
    /// By m-line. Ports stay with an m-line as long as the call does not agree to do without it.
    lines: Vec<Option<Line>>,
    offer: Option<Offer>,
    /// By m-line, of every stream that ever reported.
    quality: Vec<StreamQuality>,
}

impl CallMedia {
    /// Nothing described, nothing reserved.
    #[must_use]
    pub const fn new(call: CallId, caller: MediaSide, callee: MediaSide) -> Self {
        Self { call, caller, callee, lines: Vec::new(), offer: None, quality: Vec::new() }
    }

    /// Whether an offer waits for its answer, and from whom it came.
    #[must_use]
    pub fn offer_from(&self) -> Option<Side> {
        [Side::Caller, Side::Callee].into_iter().find(|side| self.side(*side).exchange.owes_answer())
    }

    /// A description crosses both legs, or an offer ends on both. What follows on the leg of `from`, its sender.
    fn cross(&mut self, from: Side, received: Event, sent: Event) -> &'static [Action] {
        let across = self.side_mut(from.other());
        (across.exchange, _) = across.exchange.on(sent);
        let sender = self.side_mut(from);
        let (next, actions) = sender.exchange.on(received);
        sender.exchange = next;
        actions
    }

    /// Whether an exchange has been finished.
    #[must_use]
    pub const fn is_agreed(&self) -> bool {
        self.caller.agreed.is_some()
    }

    /// Whether no stream is agreed to flow both ways: on hold, or one way from the start.
    #[must_use]
    pub fn is_held(&self) -> bool {
        let two_way = |side: &MediaSide, mline: usize| {
            let stream = side.agreed.as_ref().and_then(|survey| survey.relayed(mline));
            stream.is_some_and(|stream| stream.direction == Direction::SendRecv)
        };
        let mut carried = (0..self.lines.len()).filter(|mline| self.line(*mline).is_some());
        !carried.any(|mline| two_way(&self.caller, mline) && two_way(&self.callee, mline))
    }

    /// Takes an offer of `from`: ports for its new streams, the body for the side across, the plan for early media.
    ///
    /// # Errors
    /// How to refuse it; nothing is reserved then.
    pub fn offer(
        &mut self,
        from: Side,
        sdp: &Sdp,
        pools: &mut [PortPool],
        rng: &mut impl Rng,
        now: Instant,
    ) -> Result<Described, Saying> {
        if self.offer_from().is_some() {
            return Err(Refusal::ChangePending.saying());
        }
        let mut survey = survey(sdp).map_err(say)?;
        survey.require_family(self.side(from).bind).map_err(say)?;
        survey.allow_mux(|_| self.side(from).may_mux()).map_err(say)?;
        self.reserve(&survey, pools, rng, now)?;
        let ports = self.local_ports(from.other(), |mline| survey.relayed(mline).is_some());
        let across = self.side(from.other());
        let rtcp_mux: Vec<bool> = (0..survey.streams.len()).map(|mline| across.offers_mux(mline)).collect();
        let across = self.side_mut(from.other());
        let body = across.origin.describe(sdp, across.advertised, &ports, &rtcp_mux).to_bytes();
        self.cross(from, Event::ReceiveOffer, Event::SendOffer);
        self.offer = Some(Offer { survey, rtcp_mux, early: None });
        self.describe_latches();
        Ok(Described { body, plan: self.plan() })
    }

    /// Takes an answer that may still change (in a provisional response).
    ///
    /// # Errors
    /// How to refuse it; it then counts as not given.
    pub fn early_answer(&mut self, sdp: &Sdp) -> Result<Described, Saying> {
        let (from, answer) = self.read_answer(sdp)?;
        let body = self.describe_answer(from, sdp, &answer);
        let actions = self.cross(from, Event::ReceivePreview, Event::SendPreview);
        if let Some(offer) = self.offer.as_mut().filter(|_| actions.contains(&Action::Preview)) {
            offer.early = Some(answer);
        }
        self.describe_latches();
        Ok(Described { body, plan: self.plan() })
    }

    /// Takes the answer: what both described is agreed, ports of streams that were not accepted are given back.
    ///
    /// # Errors
    /// How to refuse it; the offer is still open then.
    pub fn answer(&mut self, sdp: &Sdp, pools: &mut [PortPool], now: Instant) -> Result<Described, Saying> {
        let (from, answer) = self.read_answer(sdp)?;
        let body = self.describe_answer(from, sdp, &answer);
        let actions = self.cross(from, Event::ReceiveAnswer, Event::SendAnswer);
        if let Some(offer) = self.offer.take().filter(|_| actions.contains(&Action::Agree)) {
            self.side_mut(from).agreed = Some(answer);
            self.side_mut(from.other()).agreed = Some(offer.survey);
        }
        self.give_back_unused(pools, now);
        self.describe_latches();
        self.agree_latches(now);
        Ok(Described { body, plan: self.plan() })
    }

    /// The offer was refused: what it reserved is given back. The plan that is in force again.
    pub fn refuse_offer(&mut self, pools: &mut [PortPool], now: Instant) -> MediaPlan {
        if let Some(from) = self.offer_from() {
            self.cross(from, Event::RefuseOffer, Event::OfferRefused);
        }
        self.offer = None;
        self.give_back_unused(pools, now);
        self.plan()
    }

    /// Gives back every port. Correct to call twice.
    pub fn release(&mut self, pools: &mut [PortPool], now: Instant) {
        self.refuse_offer(pools, now);
        self.give_back_all(pools, now);
    }

    /// The description last sent to `side`, to be repeated.
    #[must_use]
    pub fn last_body(&self, side: Side) -> Option<Bytes> {
        self.side(side).origin.last_body()
    }

    /// A copy of an RTCP packet that a side sent.
    pub fn reported(&mut self, now: Instant, of: SideOf, packet: &[u8]) {
        let mline = usize::from(of.mline);
        let described = Side::BOTH.map(|side| self.described(side, mline));
        let secure = described.into_iter().flatten().any(|relayed| relayed.crypto == Crypto::Sdes);
        let [Some(caller), Some(callee)] = described else { return };
        if secure || self.line(mline).is_none() {
            return;
        }
        let Some(report) = rtcp::read(packet) else { return };
        let clock_rate_hz = side::clock_rate(caller.formats, callee.formats);
        let quality = match self.quality.iter_mut().position(|it| it.mline == of.mline) {
            Some(index) => self.quality.get_mut(index),
            None => {
                self.quality.push(StreamQuality { mline: of.mline, ..StreamQuality::default() });
                self.quality.last_mut()
            }
        };
        if let Some(quality) = quality {
            quality.take(now, of.caller_side, report, clock_rate_hz);
        }
    }

    /// What the two parties have reported so far.
    #[must_use]
    pub fn quality(&self) -> &[StreamQuality] {
        &self.quality
    }

    /// What follows from everything described so far.
    #[must_use]
    pub fn plan(&self) -> MediaPlan {
        let streams = (0u8..).zip(&self.lines).filter_map(|(mline, line)| {
            let line = line.as_ref()?;
            let [caller, callee] = Side::BOTH.map(|side| self.described(side, usize::from(mline)));
            let kind = caller.or(callee)?.kind;
            Some(StreamPlan {
                mline,
                caller: self.caller.plan(&line.caller, caller, callee, kind),
                callee: self.callee.plan(&line.callee, callee, caller, kind),
            })
        });
        MediaPlan { call: self.call, streams: streams.collect() }
    }

    /// How `side` describes a stream now: as agreed, else as in the open offer and its early answer. An open offer does
    /// not move a stream that is agreed: the peer receives at the old place until the answer.
    fn described(&self, side: Side, mline: usize) -> Option<&Relayed> {
        let agreed = self.side(side).agreed.as_ref().and_then(|survey| survey.relayed(mline));
        agreed.or_else(|| {
            let offer = self.offer.as_ref()?;
            let offered = self.side(side).exchange.owes_answer();
            let survey = if offered { Some(&offer.survey) } else { offer.early.as_ref() };
            survey?.relayed(mline)
        })
    }

    fn read_answer(&self, sdp: &Sdp) -> Result<(Side, Survey), Saying> {
        let bad = || Refusal::BadAnswer.saying();
        let from = self.offer_from().ok_or_else(bad)?.other();
        let mut answer = survey(sdp).map_err(|_| bad())?;
        answer.require_family(self.side(from).bind).map_err(|_| bad())?;
        // What was not offered cannot be accepted (RFC 8035).
        let offered = |mline: usize| self.offer.as_ref().and_then(|offer| offer.rtcp_mux.get(mline).copied());
        answer.allow_mux(|mline| offered(mline) == Some(true)).map_err(|_| bad())?;
        let sent = self.side(from).origin.last().ok_or_else(bad)?;
        check_answer(sent, sdp).map_err(|_| bad())?;
        Ok((from, answer))
    }

    fn describe_answer(&mut self, from: Side, sdp: &Sdp, answer: &Survey) -> Bytes {
        let offered = |mline| self.offer.as_ref().and_then(|offer| offer.survey.relayed(mline));
        let ports = self
            .local_ports(from.other(), |mline| offered(mline).is_some() && answer.relayed(mline).is_some());
        let shared = |mline| offered(mline).is_some_and(|offered| offered.mux != Mux::Separate);
        let rtcp_mux: Vec<bool> = (0..answer.streams.len()).map(shared).collect();
        let across = self.side_mut(from.other());
        across.origin.describe(sdp, across.advertised, &ports, &rtcp_mux).to_bytes()
    }

    const fn side(&self, side: Side) -> &MediaSide {
        match side {
            Side::Caller => &self.caller,
            Side::Callee => &self.callee,
        }
    }

    const fn side_mut(&mut self, side: Side) -> &mut MediaSide {
        match side {
            Side::Caller => &mut self.caller,
            Side::Callee => &mut self.callee,
        }
    }
}

/// How the refusal of an offer is told.
fn say(refusal: anchor::Refusal) -> Saying {
    let saying = Saying {
        status: 488,
        phrase: "Not Acceptable Here",
        warning: None,
        retry_after_seconds: None,
        counter: Counter::RefusedSdp,
        cause: "session description not acceptable",
    };
    saying.with_warning(refusal.warn_code(), refusal.to_string())
}
