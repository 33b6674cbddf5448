//! Names of the maps and programs, as in the object and in the kernel.

/// Flow slots: mmapable array of [`crate::flow::FlowSlot`], indexed by [`crate::flow::SlotIndex`].
pub const FLOWS: &str = "FLOWS";
/// What the packets say: mmapable array of [`crate::stream::StreamSlot`], indexed like [`FLOWS`].
pub const STREAMS: &str = "STREAMS";
/// Flow slots of IPv6: mmapable array of [`crate::flow6::FlowSlot6`], indexed by [`crate::flow::SlotIndex`].
pub const FLOWS6: &str = "FLOWS6";
/// What the packets of IPv6 say: as [`STREAMS`], indexed like [`FLOWS6`].
pub const STREAMS6: &str = "STREAMS6";
/// Next hops: array of [`crate::next_hop::NextHop`].
pub const NEXT_HOPS: &str = "NEXT_HOPS";
/// Our media addresses: array of [`crate::addr::AddressSlot`], indexed by address slot.
pub const ADDRESSES: &str = "ADDRESSES";
/// Our IPv6 media addresses: array of [`crate::addr::AddressSlot6`], indexed by address slot.
pub const ADDRESSES6: &str = "ADDRESSES6";
/// Egress interfaces: device hash, from interface index to interface index.
pub const DEVICES: &str = "DEVICES";
/// Outcomes: per-CPU array of `u64`, indexed by [`crate::counter::Counter`] number.
pub const COUNTERS: &str = "COUNTERS";
/// Events: ring buffer of [`crate::event`] records.
pub const EVENTS: &str = "EVENTS";
/// Copies of RTCP: ring buffer of [`crate::event::ReportRecord`].
pub const REPORTS: &str = "REPORTS";
/// The program's own reading of the clock: per-CPU array of one. Nobody else's business, and pinned because all maps are.
pub const CLOCK: &str = "CLOCK";
/// The layout's number and the switches: array of one [`crate::config::Config`].
pub const CONFIG: &str = "CONFIG";
/// The guard's level and limits: array of one [`crate::guard::GuardConfig`].
pub const GUARD: &str = "GUARD";
/// What all sources together did: array of one [`crate::guard::TotalWindows`].
pub const TOTALS: &str = "TOTALS";
/// SIP sockets of ours: hash from [`crate::guard::SipSocket`] to the number of their realm.
pub const SIP_SOCKETS: &str = "SIP_SOCKETS";
/// What each source did: LRU hash from [`crate::guard::SourceKey`] to [`crate::guard::SourceWindows`].
pub const SOURCES: &str = "SOURCES";
/// Who is denied until when: hash from [`crate::guard::SourceKey`] to [`crate::guard::DenyEntry`].
pub const DENY: &str = "DENY";
/// The operator's block list: trie of prefixes of [`crate::guard::MappedAddress`].
pub const BLOCK: &str = "BLOCK";
/// Configured peers and the allow list: trie of prefixes of [`crate::guard::RealmAddress`].
pub const TRUSTED: &str = "TRUSTED";

/// Every map of the object.
pub const MAPS: [&str; 20] = [
    FLOWS,
    STREAMS,
    FLOWS6,
    STREAMS6,
    NEXT_HOPS,
    ADDRESSES,
    ADDRESSES6,
    DEVICES,
    COUNTERS,
    EVENTS,
    REPORTS,
    CLOCK,
    CONFIG,
    GUARD,
    TOTALS,
    SIP_SOCKETS,
    SOURCES,
    DENY,
    BLOCK,
    TRUSTED,
];

/// The XDP program.
pub const PROGRAM: &str = "sbc";

/// Ports of ours that the relay serves: hash from [`crate::steer::SteeredPort`] to an index of [`RELAY_SOCKETS`]. In an
/// object of its own with the program [`STEER`]: neither is pinned, because nobody relays without the daemon.
pub const STEERED: &str = "STEERED";
/// The relay's sockets: socket map.
pub const RELAY_SOCKETS: &str = "RELAY_SOCKETS";
/// The program that finds the relay's socket for a datagram.
pub const STEER: &str = "steer";
/// The program that takes its place while a trace runs, in an object of its own.
pub const TRACING_PROGRAM: &str = "sbc_trace";
/// Where it goes on, to tell of a packet.
pub const TELLING_PROGRAM: &str = "sbc_tell";
/// The way from the one to the other: array of one program.
pub const TRACE_NEXT: &str = "TRACE_NEXT";
/// What is traced, in the object of that program: array of one [`crate::trace::TraceFilter`].
pub const TRACE: &str = "TRACE";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::NAME_BYTES;

    #[test]
    fn names_fit_the_kernel() {
        let others =
            [PROGRAM, STEERED, RELAY_SOCKETS, STEER, TRACING_PROGRAM, TELLING_PROGRAM, TRACE, TRACE_NEXT];
        for name in MAPS.into_iter().chain(others) {
            assert!(name.len() <= NAME_BYTES, "{name}");
        }
    }
}
