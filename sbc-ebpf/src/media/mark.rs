//! How a packet that leaves is marked.

/// DSCP and hop limit of a flow.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    /// 0 to 63.
    pub(super) dscp: u8,
    /// Hop limit or TTL: we originate the packet.
    pub(super) ttl: u8,
}

const ECN_MASK: u8 = 0x03;

impl Mark {
    /// Type of service, or traffic class; its ECN bits (RFC 3168) are those of the one that came.
    #[inline(always)]
    pub(super) const fn service(self, old: u8) -> u8 {
        self.dscp << 2 | old & ECN_MASK
    }
}
