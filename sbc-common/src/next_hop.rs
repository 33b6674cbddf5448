//! The next-hop table: what a frame needs to leave. Flows hold an index into it, so that a gateway's new MAC is one
//! write and not one per flow.
//!
//! The daemon replaces an entry as a whole. The kernel may read it while it is replaced; the MACs come first and in
//! two aligned words, so that a torn read costs at worst one frame with a wrong MAC.

/// One next hop. Index 0 is never filled: a flow that names it has no next hop.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NextHop {
    /// MAC address of the neighbour.
    pub destination_mac: [u8; 6],
    /// MAC address of our interface.
    pub source_mac: [u8; 6],
    /// VLAN id to send with, host order; 0 sends untagged.
    pub vlan: u16,
    /// Largest IP packet that the egress interface takes, bytes.
    pub mtu: u16,
    /// The egress interface; 0 while the hop is not resolved.
    pub ifindex: u32,
    /// VLAN id of the outer tag to send with before that of `vlan`, host order; 0 for none.
    pub outer_vlan: u16,
    /// EtherType of the first tag, host order; 0 for the usual one: IEEE 802.1ad before another tag, else 802.1Q.
    pub tag_type: u16,
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::{align_of, offset_of, size_of};

    #[test]
    fn layout_is_locked() {
        assert_eq!((size_of::<NextHop>(), align_of::<NextHop>()), (24, 8));
        assert_eq!(
            (
                offset_of!(NextHop, destination_mac),
                offset_of!(NextHop, source_mac),
                offset_of!(NextHop, vlan),
                offset_of!(NextHop, mtu),
                offset_of!(NextHop, ifindex),
                offset_of!(NextHop, outer_vlan),
                offset_of!(NextHop, tag_type)
            ),
            (0, 6, 12, 14, 16, 20, 22)
        );
    }
}
