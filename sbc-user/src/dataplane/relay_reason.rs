//! Why the relay carries a stream and not the kernel: named, so that it can be counted.

use sbc_core::media::command::MediaError;

/// See the module. The numbers are places in [`RelayReasons`] and go nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RelayReason {
    /// No interface runs the program.
    NoKernel,
    /// An address or port of ours is on no interface that runs the program.
    AddressNotServed,
    /// The peer's address is of another family than ours of that side.
    OtherFamily,
    /// The peer is this host, and its port is of no call that the kernel carries.
    PeerOnThisHost,
    /// The way to the peer leaves by an interface that does not run the program.
    EgressNotServed,
    /// No route to the peer, or its next hop does not answer.
    NoRoute,
    /// The table of next hops is full.
    NextHopsFull,
    /// The way to an IPv6 peer does not take what arrives over IPv4.
    MtuTooSmall,
    /// The kernel's tables did not take it.
    Refused,
    /// The relay carried it for the daemon before.
    RelayedBefore,
}

impl RelayReason {
    const ALL: [Self; 10] = [
        Self::NoKernel,
        Self::AddressNotServed,
        Self::OtherFamily,
        Self::PeerOnThisHost,
        Self::EgressNotServed,
        Self::NoRoute,
        Self::NextHopsFull,
        Self::MtuTooSmall,
        Self::Refused,
        Self::RelayedBefore,
    ];

    /// The name that it is counted under.
    const fn name(self) -> &'static str {
        match self {
            Self::NoKernel => "no_kernel",
            Self::AddressNotServed => "address_not_served",
            Self::OtherFamily => "other_family",
            Self::PeerOnThisHost => "peer_on_this_host",
            Self::EgressNotServed => "egress_not_served",
            Self::NoRoute => "no_route",
            Self::NextHopsFull => "next_hops_full",
            Self::MtuTooSmall => "mtu_too_small",
            Self::Refused => "refused",
            Self::RelayedBefore => "relayed_before",
        }
    }

    /// With what is to be said of it.
    pub(crate) const fn because(self, error: MediaError) -> Objection {
        Objection { reason: self, error }
    }
}

/// Of a plan that the kernel refused when it had been asked.
impl From<&MediaError> for RelayReason {
    fn from(error: &MediaError) -> Self {
        match error {
            MediaError::NoRoute(_) => Self::NoRoute,
            MediaError::NotOurs(_) => Self::AddressNotServed,
            MediaError::Full(_) => Self::NextHopsFull,
            MediaError::PortInUse(_) | MediaError::System(_) => Self::Refused,
        }
    }
}

/// What the kernel has against a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Objection {
    pub(crate) reason: RelayReason,
    /// The same in full.
    pub(crate) error: MediaError,
}

/// How many streams went to the relay, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RelayReasons([u64; RelayReason::ALL.len()]);

impl RelayReasons {
    pub(crate) fn count(&mut self, reason: RelayReason) {
        self.0[reason as usize] += 1; // as many places as reasons: tested
    }

    /// Every reason's name and count.
    pub(crate) fn list(&self) -> Vec<(&'static str, u64)> {
        RelayReason::ALL.into_iter().map(RelayReason::name).zip(self.0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_counted_under_its_own_name() {
        let mut reasons = RelayReasons::default();
        for (at, reason) in RelayReason::ALL.into_iter().enumerate() {
            for _ in 0..=at {
                reasons.count(reason);
            }
        }
        let list = reasons.list();
        for (at, (name, count)) in list.iter().enumerate() {
            assert_eq!((*name, *count), (RelayReason::ALL[at].name(), at as u64 + 1));
            assert_eq!(list.iter().filter(|(other, _)| other == name).count(), 1);
        }
    }
}
