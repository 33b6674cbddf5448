//! The media of one call: ports of ours for every carried m-line, what each side has described, and the plan that
//! follows from both.
//!
//! An offer reserves what it needs and leaves what is agreed untouched; its answer makes a new agreement, its refusal
//! takes back what it reserved. The plan is always derived from these facts, never edited. Whether and when a plan is
//! in force is the dataplane's answer and the call's business.
//!
//! Source policy: a side whose description is known is held to it, or, by its trunk's rule, learned from the address
//! that its signalling comes from. Before a side has described itself its media is learned from that address, so that
//! early media flows. SRTP is never learned: its packets cannot be checked in passing.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use bytes::Bytes;

use crate::call::Side;
use crate::config::{MediaRealm, MediaSourceRule};
use crate::counter::Counter;
use crate::id::{CallId, RealmId};
use crate::media::plan::{MediaPlan, PeerMedia, SourcePolicy, StreamPlan, StreamSide};
use crate::media::ports::{PortPair, PortPool};
use crate::policy::admission::{Refusal, Saying};
use crate::rng::Rng;
use crate::sdp::Sdp;
use crate::sdp::anchor::{self, Crypto, Stream, Survey, survey};
use crate::sdp::offer_answer::check_answer;
use crate::sdp::origin::LocalOrigin;

/// One side of the call's media.
#[derive(Debug)]
pub struct MediaSide {
    realm: RealmId,
    bind: IpAddr,
    advertised: IpAddr,
    dscp: u8,
    rule: MediaSourceRule,
    /// Where the side's signalling comes from, or goes to as long as none has come.
    signalling: IpAddr,
    origin: LocalOrigin,
    /// What the side described in the last finished exchange.
    agreed: Option<Survey>,
}

impl MediaSide {
    /// A side that has described nothing.
    pub fn new(
        realm: RealmId,
        media: Option<&MediaRealm>,
        rule: MediaSourceRule,
        signalling: IpAddr,
        rng: &mut impl Rng,
    ) -> Self {
        // A realm that the configuration does not have carries nothing: its pool does not exist either.
        let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            realm,
            bind: media.map_or(nowhere, |media| media.bind),
            advertised: media.map_or(nowhere, |media| media.advertised),
            dscp: media.map_or(0, |media| media.dscp),
            rule,
            signalling,
            origin: LocalOrigin::new(rng.next_u64()),
            agreed: None,
        }
    }

    fn side(&self, rtp_port: u16, peer: Option<PeerMedia>, described: bool, crypto: Crypto) -> StreamSide {
        let learn = SourcePolicy::Learn { allowed: self.signalling };
        let source = match (crypto, self.rule) {
            (Crypto::Sdes, _) => SourcePolicy::Signalled,
            (Crypto::Clear, MediaSourceRule::LearnFromSignallingAddress) => learn,
            (Crypto::Clear, MediaSourceRule::Signalled) if described => SourcePolicy::Signalled,
            (Crypto::Clear, MediaSourceRule::Signalled) => learn,
        };
        StreamSide {
            realm: self.realm,
            local_ip: self.bind,
            local_rtp_port: rtp_port,
            peer,
            source,
            dscp: self.dscp,
        }
    }
}

/// Ports of ours for one m-line.
#[derive(Clone, Copy, Debug)]
struct Ports {
    caller: PortPair,
    callee: PortPair,
}

impl Ports {
    const fn of(&self, side: Side) -> PortPair {
        match side {
            Side::Caller => self.caller,
            Side::Callee => self.callee,
        }
    }
}

/// An offer that has not been answered.
#[derive(Debug)]
struct Offer {
    from: Side,
    survey: Survey,
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
    ports: Vec<Option<Ports>>,
    offer: Option<Offer>,
}

impl CallMedia {
    /// Nothing described, nothing reserved.
    #[must_use]
    pub const fn new(call: CallId, caller: MediaSide, callee: MediaSide) -> Self {
        Self { call, caller, callee, ports: Vec::new(), offer: None }
    }

    /// Whether an offer waits for its answer, and from whom it came.
    #[must_use]
    pub fn offer_from(&self) -> Option<Side> {
        self.offer.as_ref().map(|offer| offer.from)
    }

    /// Whether an exchange has been finished.
    #[must_use]
    pub const fn is_agreed(&self) -> bool {
        self.caller.agreed.is_some()
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
        let survey = survey(sdp).map_err(say)?;
        survey.require_family(self.side(from).bind).map_err(say)?;
        self.reserve(&survey, pools, rng, now)?;
        let ports = self.local_ports(from.other(), |mline| is_carried(&survey, mline));
        self.offer = Some(Offer { from, survey, early: None });
        let across = self.side_mut(from.other());
        let body = across.origin.describe(sdp, across.advertised, &ports).to_bytes();
        Ok(Described { body, plan: self.plan() })
    }

    /// Takes an answer that may still change (in a provisional response).
    ///
    /// # Errors
    /// How to refuse it; it then counts as not given.
    pub fn early_answer(&mut self, sdp: &Sdp) -> Result<Described, Saying> {
        let (from, answer) = self.read_answer(sdp)?;
        let body = self.describe_answer(from, sdp, &answer);
        if let Some(offer) = &mut self.offer {
            offer.early = Some(answer);
        }
        Ok(Described { body, plan: self.plan() })
    }

    /// Takes the answer: what both described is agreed, ports of streams that were not accepted are given back.
    ///
    /// # Errors
    /// How to refuse it; the offer is still open then.
    pub fn answer(&mut self, sdp: &Sdp, pools: &mut [PortPool], now: Instant) -> Result<Described, Saying> {
        let (from, answer) = self.read_answer(sdp)?;
        let body = self.describe_answer(from, sdp, &answer);
        if let Some(offer) = self.offer.take() {
            let (caller, callee) = match offer.from {
                Side::Caller => (offer.survey, answer),
                Side::Callee => (answer, offer.survey),
            };
            self.caller.agreed = Some(caller);
            self.callee.agreed = Some(callee);
        }
        self.give_back_unused(pools, now);
        Ok(Described { body, plan: self.plan() })
    }

    /// The offer was refused: what it reserved is given back. The plan that is in force again.
    pub fn refuse_offer(&mut self, pools: &mut [PortPool], now: Instant) -> MediaPlan {
        self.offer = None;
        self.give_back_unused(pools, now);
        self.plan()
    }

    /// Gives back every port. Correct to call twice.
    pub fn release(&mut self, pools: &mut [PortPool], now: Instant) {
        self.offer = None;
        for ports in std::mem::take(&mut self.ports).into_iter().flatten() {
            self.give_back(ports, pools, now);
        }
    }

    /// The description last sent to `side`, to be repeated.
    #[must_use]
    pub fn last_body(&self, side: Side) -> Option<Bytes> {
        self.side(side).origin.last_body()
    }

    /// What follows from everything described so far.
    #[must_use]
    pub fn plan(&self) -> MediaPlan {
        let streams = (0u8..).zip(&self.ports).filter_map(|(mline, ports)| {
            let ports = ports.as_ref()?;
            let caller = self.described(Side::Caller, usize::from(mline));
            let callee = self.described(Side::Callee, usize::from(mline));
            let crypto = match (caller, callee) {
                (Some((_, Crypto::Sdes)), _) | (_, Some((_, Crypto::Sdes))) => Crypto::Sdes,
                (Some((_, Crypto::Clear)) | None, Some((_, Crypto::Clear)) | None) => Crypto::Clear,
            };
            let side = |side: &MediaSide, pair: PortPair, described: Option<(Option<PeerMedia>, Crypto)>| {
                side.side(pair.rtp(), described.and_then(|(peer, _)| peer), described.is_some(), crypto)
            };
            Some(StreamPlan {
                mline,
                caller: side(&self.caller, ports.caller, caller),
                callee: side(&self.callee, ports.callee, callee),
            })
        });
        MediaPlan { call: self.call, streams: streams.collect() }
    }

    /// How `side` describes a stream now: as agreed, else as in the open offer and its early answer. An open offer does
    /// not move a stream that is agreed: the peer receives at the old place until the answer.
    fn described(&self, side: Side, mline: usize) -> Option<(Option<PeerMedia>, Crypto)> {
        let agreed = self.side(side).agreed.as_ref().and_then(|survey| relayed(survey, mline));
        agreed.or_else(|| {
            let offer = self.offer.as_ref()?;
            let survey = if offer.from == side { Some(&offer.survey) } else { offer.early.as_ref() };
            relayed(survey?, mline)
        })
    }

    fn read_answer(&self, sdp: &Sdp) -> Result<(Side, Survey), Saying> {
        let bad = || Refusal::BadAnswer.saying();
        let offer = self.offer.as_ref().ok_or_else(bad)?;
        let from = offer.from.other();
        let answer = survey(sdp).map_err(|_| bad())?;
        answer.require_family(self.side(from).bind).map_err(|_| bad())?;
        let sent = self.side(from).origin.last().ok_or_else(bad)?;
        check_answer(sent, sdp).map_err(|_| bad())?;
        Ok((from, answer))
    }

    fn describe_answer(&mut self, from: Side, sdp: &Sdp, answer: &Survey) -> Bytes {
        let ports = self.local_ports(from.other(), |mline| {
            let offered = self.offer.as_ref().is_some_and(|offer| is_carried(&offer.survey, mline));
            offered && is_carried(answer, mline)
        });
        let across = self.side_mut(from.other());
        across.origin.describe(sdp, across.advertised, &ports).to_bytes()
    }

    fn reserve(
        &mut self,
        survey: &Survey,
        pools: &mut [PortPool],
        rng: &mut impl Rng,
        now: Instant,
    ) -> Result<(), Saying> {
        let before = self.ports.clone();
        self.ports.resize(survey.streams.len().max(self.ports.len()), None);
        for mline in (0..survey.streams.len()).filter(|mline| is_carried(survey, *mline)) {
            if self.ports.get(mline).is_some_and(Option::is_some) {
                continue;
            }
            let Some(ports) = self.draw(pools, rng, now) else {
                let after = std::mem::replace(&mut self.ports, before);
                for (mline, ports) in after.into_iter().enumerate() {
                    let kept = self.ports.get(mline).is_some_and(Option::is_some);
                    if let Some(ports) = ports.filter(|_| !kept) {
                        self.give_back(ports, pools, now);
                    }
                }
                return Err(Refusal::PortsExhausted.saying());
            };
            if let Some(slot) = self.ports.get_mut(mline) {
                *slot = Some(ports);
            }
        }
        Ok(())
    }

    fn draw(&self, pools: &mut [PortPool], rng: &mut impl Rng, now: Instant) -> Option<Ports> {
        let caller = pools.get_mut(usize::from(self.caller.realm.0))?.allocate(rng, now)?;
        match pools.get_mut(usize::from(self.callee.realm.0))?.allocate(rng, now) {
            Some(callee) => Some(Ports { caller, callee }),
            None => {
                if let Some(pool) = pools.get_mut(usize::from(self.caller.realm.0)) {
                    pool.release(caller, now);
                }
                None
            }
        }
    }

    /// Gives back the ports of streams that no agreement carries.
    fn give_back_unused(&mut self, pools: &mut [PortPool], now: Instant) {
        for mline in 0..self.ports.len() {
            let carried = [&self.caller, &self.callee]
                .into_iter()
                .all(|side| side.agreed.as_ref().is_some_and(|survey| is_carried(survey, mline)));
            if !carried && let Some(ports) = self.ports.get_mut(mline).and_then(Option::take) {
                self.give_back(ports, pools, now);
            }
        }
    }

    fn give_back(&self, ports: Ports, pools: &mut [PortPool], now: Instant) {
        for (side, pair) in [(&self.caller, ports.caller), (&self.callee, ports.callee)] {
            if let Some(pool) = pools.get_mut(usize::from(side.realm.0)) {
                pool.release(pair, now);
            }
        }
    }

    fn local_ports(&self, side: Side, carried: impl Fn(usize) -> bool) -> Vec<Option<u16>> {
        let ports = self.ports.iter().enumerate();
        ports
            .map(|(mline, ports)| ports.as_ref().filter(|_| carried(mline)).map(|ports| ports.of(side).rtp()))
            .collect()
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

fn relayed(survey: &Survey, mline: usize) -> Option<(Option<PeerMedia>, Crypto)> {
    match survey.streams.get(mline)? {
        Stream::Relay { peer, crypto, .. } => Some((*peer, *crypto)),
        Stream::Disabled | Stream::Reject => None,
    }
}

fn is_carried(survey: &Survey, mline: usize) -> bool {
    relayed(survey, mline).is_some()
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
