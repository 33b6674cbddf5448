//! What becomes of a packet, and its number.

use sbc_common::counter::Counter;

/// What becomes of a packet.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Leaves by the interface that it came in on.
    Transmit,
    /// Leaves by another interface.
    Redirect,
    /// Goes up to the host's stack, untouched.
    Pass(PassReason),
    /// Goes nowhere.
    Drop(DropReason),
}

/// Why a packet goes up.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the counter that each names says it")]
pub enum PassReason {
    Truncated = Counter::PassTruncated.number(),
    NotIpv4 = Counter::PassNotIpv4.number(),
    IpOptions = Counter::PassIpOptions.number(),
    Fragment = Counter::PassFragment.number(),
    NotUdp = Counter::PassNotUdp.number(),
    NotOurAddress = Counter::PassNotOurAddress.number(),
    NotMediaPort = Counter::PassNotMediaPort.number(),
    Relay = Counter::PassRelay.number(),
    NoNextHop = Counter::PassNoNextHop.number(),
    TooBig = Counter::PassTooBig.number(),
    NoDevice = Counter::PassNoDevice.number(),
    NoHeadroom = Counter::PassNoHeadroom.number(),
    Sip = Counter::PassSip.number(),
    SipTrusted = Counter::PassSipTrusted.number(),
}

impl PassReason {
    /// Whether the packet is for no media port of ours, and so may be signalling.
    #[inline(always)]
    pub fn is_not_media(self) -> bool {
        use PassReason::{Fragment, IpOptions, NotIpv4, NotMediaPort, NotOurAddress, NotUdp};
        matches!(self, NotIpv4 | IpOptions | Fragment | NotUdp | NotOurAddress | NotMediaPort)
    }
}

/// Why a packet goes nowhere.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the counter that each names says it")]
pub enum DropReason {
    NoFlow = Counter::DropNoFlow.number(),
    BadSlot = Counter::DropBadSlot.number(),
    BadLength = Counter::DropBadLength.number(),
    WrongSource = Counter::DropWrongSource.number(),
    LostClaim = Counter::DropLostClaim.number(),
    NoDestination = Counter::DropNoDestination.number(),
    ShortMedia = Counter::DropShortMedia.number(),
    Stun = Counter::DropStun.number(),
    Dtls = Counter::DropDtls.number(),
    NotRtp = Counter::DropNotRtp.number(),
    WrongKind = Counter::DropWrongKind.number(),
    Blocked = Counter::DropBlocked.number(),
    Denied = Counter::DropDenied.number(),
    NotAllowed = Counter::DropNotAllowed.number(),
    NotSip = Counter::DropNotSip.number(),
    SourceDatagrams = Counter::DropSourceDatagrams.number(),
    SourceConnections = Counter::DropSourceConnections.number(),
    SourceSegments = Counter::DropSourceSegments.number(),
    Total = Counter::DropTotal.number(),
    Fragments = Counter::DropFragments.number(),
}

impl Outcome {
    /// Its number in `COUNTERS`.
    #[inline(always)]
    pub fn counter(self) -> u32 {
        match self {
            Self::Transmit => Counter::ForwardSame.number(),
            Self::Redirect => Counter::ForwardOther.number(),
            Self::Pass(reason) => reason as u32,
            Self::Drop(reason) => reason as u32,
        }
    }
}

impl From<PassReason> for Outcome {
    #[inline(always)]
    fn from(reason: PassReason) -> Self {
        Self::Pass(reason)
    }
}

impl From<DropReason> for Outcome {
    #[inline(always)]
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_counted_under_its_own_name() {
        for (outcome, counter) in [
            (Outcome::Transmit, Counter::ForwardSame),
            (Outcome::Redirect, Counter::ForwardOther),
            (PassReason::Fragment.into(), Counter::PassFragment),
            (DropReason::WrongSource.into(), Counter::DropWrongSource),
        ] {
            assert_eq!(outcome.counter(), counter.number());
        }
    }
}
