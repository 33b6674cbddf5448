//! What becomes of a packet, and its number.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX};
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

/// Reasons, each under the number of the counter that it names.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $counter:ident,)* }) => {
        $(#[$doc])*
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the counter that each names says it")]
        pub enum $name {
            $($variant = Counter::$counter.number(),)*
        }

        impl $name {
            /// From its number; `None` if it is no reason of this kind.
            #[inline(always)]
            fn from_number(number: u32) -> Option<Self> {
                match number {
                    $(number if number == Self::$variant as u32 => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

reasons! {
    /// Why a packet goes up.
    PassReason {
        Truncated = PassTruncated,
        NotIp = PassNotIp,
        IpOptions = PassIpOptions,
        ExtensionHeader = PassExtensionHeader,
        Fragment = PassFragment,
        NotUdp = PassNotUdp,
        NotOurAddress = PassNotOurAddress,
        NotMediaPort = PassNotMediaPort,
        Relay = PassRelay,
        NoNextHop = PassNoNextHop,
        TooBig = PassTooBig,
        NoDevice = PassNoDevice,
        NoHeadroom = PassNoHeadroom,
        NoChecksum = PassNoChecksum,
        Sip = PassSip,
        SipTrusted = PassSipTrusted,
    }
}

impl PassReason {
    /// Whether the packet is for no media port of ours, and so may be signalling.
    #[inline(always)]
    pub fn is_not_media(self) -> bool {
        use PassReason::{ExtensionHeader, Fragment, IpOptions, NotIp, NotMediaPort, NotOurAddress, NotUdp};
        matches!(self, NotIp | IpOptions | ExtensionHeader | Fragment | NotUdp | NotOurAddress | NotMediaPort)
    }
}

reasons! {
    /// Why a packet goes nowhere.
    DropReason {
        NoFlow = DropNoFlow,
        BadSlot = DropBadSlot,
        BadLength = DropBadLength,
        WrongSource = DropWrongSource,
        LostClaim = DropLostClaim,
        NoDestination = DropNoDestination,
        ShortMedia = DropShortMedia,
        Stun = DropStun,
        Dtls = DropDtls,
        NotRtp = DropNotRtp,
        WrongKind = DropWrongKind,
        OverRate = DropOverRate,
        Circle = DropCircle,
        NoChecksum = DropNoChecksum,
        Blocked = DropBlocked,
        Denied = DropDenied,
        NotAllowed = DropNotAllowed,
        NotSip = DropNotSip,
        SourceDatagrams = DropSourceDatagrams,
        SourceConnections = DropSourceConnections,
        SourceSegments = DropSourceSegments,
        Total = DropTotal,
        Fragments = DropFragments,
        Scanner = DropScanner,
    }
}

impl Outcome {
    /// From its number: what a function returns that is not part of its caller. `None` if it is no outcome's.
    #[inline(always)]
    pub fn from_counter(number: u32) -> Option<Self> {
        match number {
            number if number == Counter::ForwardSame.number() => Some(Self::Transmit),
            number if number == Counter::ForwardOther.number() => Some(Self::Redirect),
            number => PassReason::from_number(number)
                .map(Self::Pass)
                .or_else(|| DropReason::from_number(number).map(Self::Drop)),
        }
    }

    /// What the driver is told.
    #[inline(always)]
    pub fn action(self) -> u32 {
        match self {
            Self::Transmit => XDP_TX,
            Self::Redirect => XDP_REDIRECT,
            Self::Pass(_) => XDP_PASS,
            Self::Drop(_) => XDP_DROP,
        }
    }

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
            assert_eq!(Outcome::from_counter(counter.number()), Some(outcome));
        }
        assert_eq!(Outcome::from_counter(Counter::Claimed.number()), None);
    }
}
