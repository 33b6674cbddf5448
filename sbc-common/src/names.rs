//! Names of the maps and programs, as in the object and in the kernel.

/// Flow slots: mmapable array of [`crate::flow::FlowSlot`], indexed by [`crate::flow::SlotIndex`].
pub const FLOWS: &str = "FLOWS";
/// RTP numbering: mmapable array of [`crate::sequence::SequenceSlot`], indexed like [`FLOWS`].
pub const SEQUENCES: &str = "SEQUENCES";
/// Next hops: array of [`crate::next_hop::NextHop`].
pub const NEXT_HOPS: &str = "NEXT_HOPS";
/// Our media addresses: array of [`crate::addr::AddressSlot`], indexed by address slot.
pub const ADDRESSES: &str = "ADDRESSES";
/// Egress interfaces: device hash, from interface index to interface index.
pub const DEVICES: &str = "DEVICES";
/// Outcomes: per-CPU array of `u64`, indexed by [`crate::counter::Counter`] number.
pub const COUNTERS: &str = "COUNTERS";
/// Events: ring buffer of [`crate::event`] records.
pub const EVENTS: &str = "EVENTS";
/// The layout's number and the switches: array of one [`crate::config::Config`].
pub const CONFIG: &str = "CONFIG";

/// Every map of the object.
pub const MAPS: [&str; 8] = [FLOWS, SEQUENCES, NEXT_HOPS, ADDRESSES, DEVICES, COUNTERS, EVENTS, CONFIG];

/// The XDP program.
pub const PROGRAM: &str = "sbc";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::NAME_BYTES;

    #[test]
    fn names_fit_the_kernel() {
        for name in MAPS.into_iter().chain([PROGRAM]) {
            assert!(name.len() <= NAME_BYTES, "{name}");
        }
    }
}
