//! One side of a call's media: what its realm and trunk say, what it has described, and what follows for a stream's plan.

use std::net::{IpAddr, Ipv4Addr};

use crate::call::media::lines::End;
use crate::config::{MediaRealm, MediaSourceRule, Prefix, RtcpMux, TrunkMedia};
use crate::id::RealmId;
use crate::media::plan::{MediaPace, PeerMedia, SourcePolicy, StreamSide};
use crate::rng::Rng;
use crate::sdp::anchor::{Crypto, Mux, Relayed, Survey};
use crate::sdp::formats::Formats;
use crate::sdp::origin::LocalOrigin;
use crate::sdp::{MediaKind, offer_answer};

/// One side of the call's media.
#[derive(Debug)]
pub struct MediaSide {
    pub(super) realm: RealmId,
    pub(super) bind: IpAddr,
    pub(super) advertised: IpAddr,
    dscp_audio: u8,
    dscp_video: u8,
    rate_factor: u32,
    pub(super) rules: TrunkMedia,
    /// Where the side's signalling comes from, or goes to as long as none has come.
    signalling: IpAddr,
    pub(super) origin: LocalOrigin,
    /// Whose turn it is between this side and us.
    pub(super) exchange: offer_answer::State,
    /// What the side described in the last finished exchange.
    pub(super) agreed: Option<Survey>,
}

impl MediaSide {
    /// A side that has described nothing.
    pub fn new(
        realm: RealmId,
        media: Option<&MediaRealm>,
        rules: TrunkMedia,
        signalling: IpAddr,
        rng: &mut impl Rng,
    ) -> Self {
        // A realm that the configuration does not have carries nothing: its pool does not exist either.
        let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            realm,
            bind: media.map_or(nowhere, |media| media.bind),
            advertised: media.map_or(nowhere, |media| media.advertised),
            dscp_audio: media.map_or(0, |media| media.dscp_audio),
            dscp_video: media.map_or(0, |media| media.dscp_video),
            rate_factor: media.map_or(0, |media| media.rate_factor),
            rules,
            signalling: signalling.to_canonical(),
            origin: LocalOrigin::new(rng.next_u64()),
            exchange: offer_answer::State::default(),
            agreed: None,
        }
    }

    /// A stream's plan on this side. `own` and `across`: what the two sides described, as far as it is known.
    pub(super) fn plan(
        &self,
        end: &End,
        own: Option<&Relayed>,
        across: Option<&Relayed>,
        kind: MediaKind,
    ) -> StreamSide {
        let secure = [own, across].into_iter().flatten().any(|it| it.crypto == Crypto::Sdes);
        let source = self.source(end, own.is_some(), secure);
        let rtcp_mux = own.is_some_and(|own| own.mux != Mux::Separate) && across.is_some();
        let said = own.and_then(|own| own.peer);
        let peer = if self.learns() && !secure { end.latch.peer(said) } else { said };
        let peer = peer.map(|peer| if rtcp_mux { PeerMedia { rtcp: peer.rtp, ..peer } } else { peer });
        StreamSide {
            realm: self.realm,
            local_ip: self.bind,
            local_rtp_port: end.ports.rtp(),
            peer,
            rtcp_mux,
            source,
            pace: across.map(|across| self.pace(own, across)).unwrap_or_default(),
            dscp: match kind {
                MediaKind::Audio => self.dscp_audio,
                MediaKind::Video => self.dscp_video,
            },
        }
    }

    fn source(&self, end: &End, described: bool, secure: bool) -> SourcePolicy {
        if secure {
            return SourcePolicy::Signalled;
        }
        match self.may_claim(end) {
            Some(allowed) => SourcePolicy::Learn { allowed, window: end.latch.window() },
            None if described => SourcePolicy::Signalled,
            // Early media of a side that has not said where it is.
            None if self.is_of_family(self.signalling) => SourcePolicy::learn_from(self.signalling),
            None => SourcePolicy::Signalled,
        }
    }

    /// Who may claim its ports. `None`: it is held to what it signals.
    pub(super) fn may_claim(&self, end: &End) -> Option<Prefix> {
        let may = match self.rules.source {
            MediaSourceRule::Signalled => None,
            MediaSourceRule::Address => Some(Prefix::host(self.signalling)),
            MediaSourceRule::Subnet => Some(Prefix::subnet_of(self.signalling)),
            MediaSourceRule::SdpSubnet => {
                let said = end.latch.said().map(|said| said.rtp.ip());
                Some(Prefix::subnet_of(said.unwrap_or(self.signalling)))
            }
            MediaSourceRule::Any => Some(Prefix::any_like(self.bind)),
        };
        may.filter(|prefix| self.is_of_family(prefix.addr))
    }

    /// Whether it can be a source of media here: signalling may be of the other family.
    const fn is_of_family(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.bind.is_ipv4()
    }

    /// Whether sources are learned here.
    pub(super) fn learns(&self) -> bool {
        self.rules.source != MediaSourceRule::Signalled
    }

    /// Whether RTP and RTCP may come to one port here.
    pub(super) fn may_mux(&self) -> bool {
        self.rules.rtcp_mux != RtcpMux::Off
    }

    /// Whether our offers say so: by configuration, or because the peer wanted it before (RFC 8035).
    pub(super) fn offers_mux(&self, mline: usize) -> bool {
        let agreed = || self.agreed.as_ref().and_then(|survey| survey.relayed(mline));
        match self.rules.rtcp_mux {
            RtcpMux::Off => false,
            RtcpMux::Accept => agreed().is_some_and(|relayed| relayed.mux != Mux::Separate),
            RtcpMux::Offer => true,
        }
    }

    /// What this side may send: what the other side's formats ask for, or its own if those are more.
    fn pace(&self, own: Option<&Relayed>, across: &Relayed) -> MediaPace {
        let own = own.map(|own| own.formats).unwrap_or_default();
        let most = across.formats.packets_per_second.max(own.packets_per_second);
        MediaPace {
            packets_per_second: most.saturating_mul(self.rate_factor),
            clock_rate_hz: clock_rate(own, across.formats),
        }
    }
}

/// The answer's formats are the ones agreed, and an answer has no clock that its offer has not.
pub(super) const fn clock_rate(own: Formats, across: Formats) -> u32 {
    match (own.clock_rate_hz, across.clock_rate_hz) {
        (0, rate) | (rate, 0) => rate,
        (own, across) if own == across => own,
        (_, _) => 0,
    }
}
