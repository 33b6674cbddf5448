//! Every way a packet can leave the XDP program, and the few other things it counts: one numbered list.
//!
//! A number is at once the index into `COUNTERS`, the metric's label and the code in the admin API. Numbers are never
//! reused: what goes away leaves its number empty.

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// Everything counted, by number.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Counter {
            $($(#[$doc])* $variant = $number,)*
        }

        impl Counter {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The index into `COUNTERS`.
            #[inline(always)]
            pub const fn number(self) -> u32 {
                self as u32
            }

            /// The name for labels: lower case, words joined by underscores.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// From a number; `None` if it is not, or no longer, in the list.
            pub const fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

counters! {
    /// Forwarded out of the interface that it came in from.
    ForwardSame = 0, "forward_same";
    /// Forwarded out of another interface.
    ForwardOther = 1, "forward_other";
    /// A learning slot was claimed. Counted beside the packet's outcome.
    Claimed = 2, "claimed";
    /// The ring buffer was full and an event was lost. Counted beside the packet's outcome.
    EventLost = 3, "event_lost";
    /// Of the packets whose UDP checksum was verified, this one's was wrong. Counted beside the packet's outcome: it
    /// is forwarded as it is, and its receiver drops it.
    BadChecksum = 4, "bad_checksum";
    /// The ring buffer of RTCP was full and a copy was lost. Counted beside the packet's outcome.
    ReportLost = 5, "report_lost";
    /// A limit of the guard was exceeded: once in a window, whatever follows. Counted beside the packet's outcome.
    Exceeded = 8, "exceeded";

    /// Passed: shorter than the headers that it announces, before it was known to be ours.
    PassTruncated = 16, "pass_truncated";
    /// Passed: IPv4 with options, or not version 4 inside an IPv4 frame.
    PassIpOptions = 18, "pass_ip_options";
    /// Passed: a fragment; the stack reassembles.
    PassFragment = 19, "pass_fragment";
    /// Passed: not UDP.
    PassNotUdp = 20, "pass_not_udp";
    /// Passed: the destination is not a media address of ours on this interface and VLAN.
    PassNotOurAddress = 21, "pass_not_our_address";
    /// Passed: our address, but a port outside of its media range (SIP among them).
    PassNotMediaPort = 22, "pass_not_media_port";
    /// Passed: the userspace relay serves this port.
    PassRelay = 23, "pass_relay";
    /// Passed: the flow's next hop is not resolved.
    PassNoNextHop = 24, "pass_no_next_hop";
    /// Passed: the packet is larger than the egress interface takes.
    PassTooBig = 25, "pass_too_big";
    /// Passed: the egress interface is not among the devices that packets may leave from.
    PassNoDevice = 26, "pass_no_device";
    /// Passed: the driver has no room in front of the frame for the egress VLAN tag.
    PassNoHeadroom = 27, "pass_no_headroom";
    /// Passed: neither IPv4 nor IPv6 (ARP, too many tags).
    PassNotIp = 30, "pass_not_ip";
    /// Passed: IPv6 with an extension header other than that of a fragment, or not version 6 inside an IPv6 frame.
    PassExtensionHeader = 31, "pass_extension_header";
    /// Passed: to be sent over IPv6, but without a UDP checksum, and too long to compute one in the kernel.
    PassNoChecksum = 32, "pass_no_checksum";
    /// Passed: to a SIP port of ours, from a source that is not trusted, within its limits or at a level without limits.
    PassSip = 40, "pass_sip";
    /// Passed: to a SIP port of ours, from a configured peer or the allow list; not counted against any limit.
    PassSipTrusted = 41, "pass_sip_trusted";

    /// Dropped: a port of our media range without a flow.
    DropNoFlow = 64, "drop_no_flow";
    /// Dropped: the flow's slot is inconsistent (unknown state, partner on no address of ours).
    DropBadSlot = 65, "drop_bad_slot";
    /// Dropped: the lengths in the IP and UDP headers and of the frame contradict each other.
    DropBadLength = 66, "drop_bad_length";
    /// Dropped: not from the source that the flow accepts.
    DropWrongSource = 67, "drop_wrong_source";
    /// Dropped: another packet claimed the slot at the same moment.
    DropLostClaim = 68, "drop_lost_claim";
    /// Dropped: neither learned nor signalled where to send it.
    DropNoDestination = 69, "drop_no_destination";
    /// Dropped: too short for RTP or RTCP, or for the header that it announces.
    DropShortMedia = 70, "drop_short_media";
    /// Dropped: first byte of STUN, on a flow that has none.
    DropStun = 71, "drop_stun";
    /// Dropped: first byte of DTLS, on a flow that has none.
    DropDtls = 72, "drop_dtls";
    /// Dropped: first byte neither of RTP nor of STUN or DTLS.
    DropNotRtp = 73, "drop_not_rtp";
    /// Dropped: RTCP on an RTP port, or RTP on an RTCP port.
    DropWrongKind = 74, "drop_wrong_kind";
    /// Dropped: the system would not send it (relay only: the kernel's own path never asks).
    DropNotSent = 75, "drop_not_sent";
    /// Dropped: more packets in a second than the flow may have.
    DropOverRate = 76, "drop_over_rate";
    /// Dropped: calls lead to one another through too many ports of ours.
    DropCircle = 77, "drop_circle";
    /// Dropped: IPv6 without a UDP checksum (RFC 8200 section 8.1).
    DropNoChecksum = 78, "drop_no_checksum";

    /// Dropped: to a SIP address of ours, from the operator's block list.
    DropBlocked = 96, "drop_blocked";
    /// Dropped: to a SIP address of ours, from a source that is denied at present.
    DropDenied = 97, "drop_denied";
    /// Dropped: at the level "allow-list only", to a SIP address of ours from neither a configured peer nor the list.
    DropNotAllowed = 98, "drop_not_allowed";
    /// Dropped: a datagram to a SIP port of ours that is certainly neither SIP nor a keep-alive.
    DropNotSip = 99, "drop_not_sip";
    /// Dropped: over the source's limit of datagrams to SIP ports.
    DropSourceDatagrams = 100, "drop_source_datagrams";
    /// Dropped: over the source's limit of TCP connection attempts to SIP ports.
    DropSourceConnections = 101, "drop_source_connections";
    /// Dropped: over the source's limit of TCP segments to SIP ports.
    DropSourceSegments = 102, "drop_source_segments";
    /// Dropped: over what all sources that are not trusted may send to SIP ports together.
    DropTotal = 103, "drop_total";
    /// Dropped: over what all sources that are not trusted may send to SIP addresses in fragments, with IP options or
    /// with extension headers.
    DropFragments = 104, "drop_fragments";
    /// Dropped: the probe of a scanner, told by its first line.
    DropScanner = 105, "drop_scanner";
}

/// Entries of `COUNTERS`: the numbers above, and room to grow without a new layout.
pub const COUNTERS: u32 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_fit() {
        for (position, counter) in Counter::ALL.iter().enumerate() {
            assert!(counter.number() < COUNTERS);
            assert_eq!(Counter::from_number(counter.number()), Some(*counter));
            for other in &Counter::ALL[position + 1..] {
                assert!(counter.number() < other.number());
                assert_ne!(counter.name(), other.name());
            }
        }
        assert_eq!(Counter::from_number(COUNTERS - 1), None);
    }

    #[test]
    fn names_say_what_becomes_of_the_packet() {
        for counter in Counter::ALL {
            let prefix = match counter.number() {
                0..=1 => "forward_",
                2..=15 => continue,
                16..=63 => "pass_",
                64.. => "drop_",
            };
            assert!(counter.name().starts_with(prefix), "{}", counter.name());
        }
    }
}
