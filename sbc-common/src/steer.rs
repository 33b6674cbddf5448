//! Which datagrams the kernel hands to the relay's few sockets, whatever port they are for.

/// A port of ours whose datagrams the relay takes: key of [`crate::names::STEERED`]. The value is the index of the
/// socket in [`crate::names::RELAY_SOCKETS`].
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SteeredPort {
    /// Our address, network order; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// Our port, network order.
    pub port: [u8; 2],
    /// Zero.
    pub unused: [u8; 2],
}

impl SteeredPort {
    /// A port of an IPv4 address.
    #[inline(always)]
    pub const fn v4([a, b, c, d]: [u8; 4], port: u16) -> Self {
        Self::v6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d], port)
    }

    /// A port of an IPv6 address.
    #[inline(always)]
    pub const fn v6(address: [u8; 16], port: u16) -> Self {
        Self { address, port: port.to_be_bytes(), unused: [0; 2] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::{align_of, offset_of, size_of};

    #[test]
    fn layout_is_locked() {
        assert_eq!((size_of::<SteeredPort>(), align_of::<SteeredPort>()), (20, 4));
        assert_eq!((offset_of!(SteeredPort, address), offset_of!(SteeredPort, port)), (0, 16));
        let v4 = SteeredPort::v4([192, 0, 2, 1], 0x1234);
        assert_eq!(v4.address, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 1]);
        assert_eq!(v4.port, [0x12, 0x34]);
    }
}
