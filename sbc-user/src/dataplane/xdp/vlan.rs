//! VLAN interfaces: the device below them all, and the tags that frames carry there (IEEE 802.1Q, 802.1ad).
//!
//! The program reads and writes up to two tags. The inner of two is always written as 802.1Q; the first may be either.

use super::netlink::Link;

/// EtherType of a tag (IEEE 802.1Q).
pub(crate) const CUSTOMER_TAG: u16 = 0x8100;

/// What a link says of itself if it is a VLAN interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vlan {
    /// The interface that it is on.
    pub(crate) below: u32,
    /// The VLAN's id.
    pub(crate) id: u16,
    /// EtherType of the tag.
    pub(crate) tag_type: u16,
}

/// The tags of frames, as the program's tables have them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tags {
    /// The id of the outer of two tags; 0 if there are not two.
    pub(crate) outer: u16,
    /// The id of the inner tag, or of the only one; 0 for no tag.
    pub(crate) inner: u16,
    /// EtherType of the first tag in the frame; 0 for no tag.
    pub(crate) tag_type: u16,
}

/// The device whose driver sees the frames of a link, which is itself or is below it, and the tags they have there.
pub(crate) fn device_below<'a>(
    link: &'a Link,
    find: impl Fn(u32) -> Option<&'a Link>,
) -> Result<(&'a Link, Tags), String> {
    let under = |upper: &Link, ifindex| {
        find(ifindex).ok_or_else(|| format!("the interface below {} is in another namespace", upper.name))
    };
    let Some(vlan) = link.vlan else { return Ok((link, Tags::default())) };
    let below = under(link, vlan.below)?;
    let Some(outer) = below.vlan else {
        return Ok((below, Tags { outer: 0, inner: vlan.id, tag_type: vlan.tag_type }));
    };
    let device = under(below, outer.below)?;
    if device.vlan.is_some() {
        return Err(format!("the frames of {} have more than two VLAN tags", link.name));
    }
    if vlan.tag_type != CUSTOMER_TAG {
        return Err(format!("the inner VLAN tag of {} is not of IEEE 802.1Q", link.name));
    }
    Ok((device, Tags { outer: outer.id, inner: vlan.id, tag_type: outer.tag_type }))
}
