//! From the frame to a UDP datagram: Ethernet and up to two VLAN tags (IEEE 802.1Q, 802.1ad) here, each IP version in a
//! module of its own. Whatever does not fit is not judged: it passes.

pub mod v4;
pub mod v6;

use crate::ctx::Frame;
use crate::outcome::PassReason;

/// Bytes of an Ethernet header.
pub const ETHERNET_BYTES: usize = 14;
/// Bytes of a VLAN tag.
pub const VLAN_BYTES: usize = 4;
/// Bytes of an IPv4 header without options.
pub const IPV4_BYTES: usize = 20;
/// Bytes of a UDP header.
pub const UDP_BYTES: usize = 8;

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// EtherType of a VLAN tag (IEEE 802.1Q).
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// EtherType of the outer of two VLAN tags (IEEE 802.1ad).
pub const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;

/// IP protocol number of UDP.
pub const UDP: u8 = 17;

const VLAN_ID_MASK: u16 = 0x0fff;

/// What stands before the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// EtherType behind the tags.
    pub ether_type: u16,
    /// Where the IP header starts.
    pub ip_offset: usize,
    /// The VLAN id; 0 without a tag or with a priority tag.
    pub vlan: u16,
    /// The VLAN id of the outer of two tags; 0 if there are not two.
    pub outer_vlan: u16,
}

/// Reads the Ethernet header and the tags. Either kind of tag is taken in either place: not everybody nests them as
/// IEEE 802.1ad says.
#[inline(always)]
pub fn link(frame: &Frame) -> Result<Link, PassReason> {
    let ethernet = frame.window::<ETHERNET_BYTES>(0).ok_or(PassReason::Truncated)?;
    let ether_type = u16::from_be(ethernet.load16::<12>());
    if !is_tag(ether_type) {
        return Ok(Link { ether_type, ip_offset: ETHERNET_BYTES, vlan: 0, outer_vlan: 0 });
    }
    let (vlan, ether_type) = tag(frame, ETHERNET_BYTES)?;
    if !is_tag(ether_type) {
        return Ok(Link { ether_type, ip_offset: ETHERNET_BYTES + VLAN_BYTES, vlan, outer_vlan: 0 });
    }
    let (outer_vlan, (vlan, ether_type)) = (vlan, tag(frame, ETHERNET_BYTES + VLAN_BYTES)?);
    Ok(Link { ether_type, ip_offset: ETHERNET_BYTES + 2 * VLAN_BYTES, vlan, outer_vlan })
}

#[inline(always)]
fn is_tag(ether_type: u16) -> bool {
    matches!(ether_type, ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN)
}

/// The VLAN id of the tag at an offset, and the EtherType behind it.
#[inline(always)]
fn tag(frame: &Frame, offset: usize) -> Result<(u16, u16), PassReason> {
    let tag = frame.window::<VLAN_BYTES>(offset).ok_or(PassReason::Truncated)?;
    Ok((u16::from_be(tag.load16::<0>()) & VLAN_ID_MASK, u16::from_be(tag.load16::<2>())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_and_ends_are_found() {
        let macs = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        let read = |rest: &[u8]| {
            let mut bytes = [0; 22];
            bytes[..12].copy_from_slice(&macs);
            bytes[12..12 + rest.len()].copy_from_slice(rest);
            link(&Frame::over(&mut bytes[..12 + rest.len()]))
        };
        let link = |ether_type, ip_offset, vlan, outer_vlan| {
            Ok::<_, PassReason>(Link { ether_type, ip_offset, vlan, outer_vlan })
        };
        assert_eq!(read(&[8, 0]), link(0x0800, 14, 0, 0));
        assert_eq!(read(&[0x81, 0, 0xa1, 0x23, 0x86, 0xdd]), link(0x86dd, 18, 0x123, 0));
        let two = [0x88, 0xa8, 0xf0, 7, 0x81, 0, 0xa1, 0x23, 8, 0];
        assert_eq!(read(&two), link(0x0800, 22, 0x123, 7));
        for length in [0, 1, 3, 5, 7, 9] {
            assert_eq!(read(&two[..length]), Err(PassReason::Truncated), "{length}");
        }
        assert_eq!(read(&[0x88, 0xa8, 0, 7, 8, 0]), link(0x0800, 18, 7, 0));
        assert_eq!(read(&[0x81, 0, 0, 7, 0x81, 0, 0, 8, 8, 0]), link(0x0800, 22, 8, 7));
        assert_eq!(read(&[0x81, 0, 0, 7, 0x81, 0, 0, 8, 0x81, 0]), link(0x8100, 22, 8, 7));
    }
}
