//! Addresses and endpoints as they lie in the maps, and the table of our own media addresses.
//!
//! An endpoint is one aligned 64-bit word: it is read and written in one access, so no CPU ever sees half of it.

/// An IPv4 address and a UDP port. Port 0 means "any" where an endpoint is a permission, "none" where it is a target.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address, network order.
    pub address: [u8; 4],
    /// The port, network order.
    pub port: [u8; 2],
    /// Always zero.
    pub unused: [u8; 2],
}

impl Endpoint {
    /// No address, no port.
    pub const NONE: Self = Self { address: [0; 4], port: [0; 2], unused: [0; 2] };
    /// The bits of the word that hold address and port.
    pub const MASK: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
    /// The bits of the word that hold the address.
    pub const ADDRESS_MASK: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    /// The bits of the word that hold the port.
    pub const PORT_MASK: u64 = Self::MASK & !Self::ADDRESS_MASK;

    /// From an address in network order and a port number.
    #[inline(always)]
    pub const fn new(address: [u8; 4], port: u16) -> Self {
        Self { address, port: port.to_be_bytes(), unused: [0; 2] }
    }

    /// The port as a number.
    #[inline(always)]
    pub const fn port(self) -> u16 {
        u16::from_be_bytes(self.port)
    }

    /// As the word in the map.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        let ([a, b, c, d], [e, f]) = (self.address, self.port);
        u64::from_ne_bytes([a, b, c, d, e, f, 0, 0])
    }

    /// From a word; whatever is beside address and port is ignored.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        let [a, b, c, d, e, f, _, _] = word.to_ne_bytes();
        Self { address: [a, b, c, d], port: [e, f], unused: [0; 2] }
    }
}

/// One of our media addresses. Its index in the table is the address slot, the upper half of a flow's index.
///
/// The same address may exist on several interfaces and VLANs. The program looks through the table in order: for the
/// few entries that there are this costs a tenth of a hash lookup.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AddressSlot {
    /// The address, network order.
    pub address: [u8; 4],
    /// First port of the media range, host order.
    pub port_min: u16,
    /// Last port of the media range, host order. Only ports of the range are ours; the others pass.
    pub port_max: u16,
    /// The interface that the address is on; 0 if the entry is not used.
    pub ifindex: u32,
    /// The VLAN id that the address is on; 0 for none.
    pub vlan: u16,
    /// The outer VLAN id (IEEE 802.1ad) that `vlan` is in; 0 for none.
    pub outer_vlan: u16,
    /// The entry's own index. The program takes it from here: an index that it counted itself would make the
    /// verifier follow the rest of the program once for every entry.
    pub slot: u16,
    /// Always zero.
    pub unused: [u8; 2],
}

/// One of our IPv6 media addresses, as [`AddressSlot`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AddressSlot6 {
    /// The address, network order.
    pub address: [u8; 16],
    /// First port of the media range, host order.
    pub port_min: u16,
    /// Last port of the media range, host order.
    pub port_max: u16,
    /// The interface that the address is on; 0 if the entry is not used.
    pub ifindex: u32,
    /// The VLAN id that the address is on; 0 for none.
    pub vlan: u16,
    /// The outer VLAN id that `vlan` is in; 0 for none.
    pub outer_vlan: u16,
    /// The entry's own index.
    pub slot: u16,
    /// Always zero.
    pub unused: [u8; 2],
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::{align_of, offset_of, size_of};

    #[test]
    fn layout_is_locked() {
        assert_eq!((size_of::<Endpoint>(), align_of::<Endpoint>()), (8, 8));
        assert_eq!((offset_of!(Endpoint, address), offset_of!(Endpoint, port)), (0, 4));
        assert_eq!((size_of::<AddressSlot>(), align_of::<AddressSlot>()), (20, 4));
        assert_eq!(
            (
                offset_of!(AddressSlot, address),
                offset_of!(AddressSlot, port_min),
                offset_of!(AddressSlot, port_max),
                offset_of!(AddressSlot, ifindex),
                offset_of!(AddressSlot, vlan),
                offset_of!(AddressSlot, outer_vlan),
                offset_of!(AddressSlot, slot)
            ),
            (0, 4, 6, 8, 12, 14, 16)
        );
    }

    #[test]
    fn layout_of_ipv6_is_locked() {
        assert_eq!((size_of::<AddressSlot6>(), align_of::<AddressSlot6>()), (32, 4));
        assert_eq!(
            (
                offset_of!(AddressSlot6, port_min),
                offset_of!(AddressSlot6, ifindex),
                offset_of!(AddressSlot6, vlan),
                offset_of!(AddressSlot6, outer_vlan),
                offset_of!(AddressSlot6, slot)
            ),
            (16, 20, 24, 26, 28)
        );
    }

    #[test]
    fn endpoint_survives_the_word() {
        let endpoint = Endpoint::new([192, 0, 2, 7], 20_001);
        assert_eq!(Endpoint::from_word(endpoint.to_word()), endpoint);
        assert_eq!(endpoint.to_word().to_ne_bytes(), [192, 0, 2, 7, 0x4e, 0x21, 0, 0]);
        assert_eq!(endpoint.to_word() & !Endpoint::MASK, 0);
        assert_eq!(endpoint.port(), 20_001);
    }
}
