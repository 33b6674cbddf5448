//! What the daemon tells the program as a whole.

/// The one entry of `CONFIG`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// [`crate::limits::ABI`] of whoever made the maps.
    pub abi: u32,
    /// Verify the UDP checksum of one packet in so many of each flow, its first among them; a power of two, 0 for
    /// none. A wrong one is counted: usually the sender is a virtual interface that left it to hardware that is not
    /// there.
    pub verify_one_in: u32,
    /// Entries of `ADDRESSES` to look through; unused ones among them have no interface.
    pub address_slots: u32,
    /// The same of `ADDRESSES6`.
    pub address_slots6: u32,
}

impl Config {
    /// This layout, and a check that costs nothing to speak of.
    pub const fn new(address_slots: u32, address_slots6: u32) -> Self {
        Self { abi: crate::limits::ABI, verify_one_in: 1024, address_slots, address_slots6 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::{offset_of, size_of};

    #[test]
    fn layout_is_locked() {
        assert_eq!(size_of::<Config>(), 16);
        assert_eq!(
            (
                offset_of!(Config, abi),
                offset_of!(Config, verify_one_in),
                offset_of!(Config, address_slots),
                offset_of!(Config, address_slots6)
            ),
            (0, 4, 8, 12)
        );
        assert!(Config::new(1, 0).verify_one_in.is_power_of_two());
    }
}
