//! What an interface can do with XDP, above all whether it takes packets that XDP redirects to it: the `netdev` family
//! of generic netlink (Linux 6.3).
//!
//! Where it does not, redirected packets vanish: the kernel drops them and no counter of ours sees it. The commonest
//! case is a veth whose other end runs neither GRO nor an XDP program.

use std::io;

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use rtnetlink::packet_core::{NLM_F_REQUEST, NLMSG_ERROR};
use rtnetlink::sys::protocols::NETLINK_GENERIC;
use rtnetlink::sys::{Socket, SocketAddr};

/// How long the kernel may take to answer.
const ANSWER_LIMIT_SECONDS: i64 = 2;

// linux/genetlink.h: the family of families.
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
// linux/netdev.h.
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_XDP_ACT_BASIC: u64 = 1;
const NETDEV_XDP_ACT_NDO_XMIT: u64 = 4;

/// Bytes of a netlink header, and of the generic one behind it.
const HEADER: usize = 16;
const GENERIC: usize = 4;

/// What an interface can do with XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct XdpFeatures {
    /// Its driver runs programs.
    pub(crate) native: bool,
    /// It takes redirected packets, as it is now.
    pub(crate) takes_redirected: bool,
}

/// What the interface can do; `None` if this kernel does not tell.
pub(crate) fn features(ifindex: u32) -> io::Result<Option<XdpFeatures>> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_LIMIT_SECONDS))?;

    let name = attribute(CTRL_ATTR_FAMILY_NAME, b"netdev\0");
    let family = match ask(&socket, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, &name) {
        Ok(answer) => {
            find(&answer, CTRL_ATTR_FAMILY_ID).and_then(|id| Some(u16::from_ne_bytes(id.try_into().ok()?)))
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(family) = family else { return Ok(None) };
    let device = attribute(NETDEV_A_DEV_IFINDEX, &ifindex.to_ne_bytes());
    let answer = ask(&socket, family, NETDEV_CMD_DEV_GET, &device)?;
    let features = find(&answer, NETDEV_A_DEV_XDP_FEATURES);
    let features = features.and_then(|bits| Some(u64::from_ne_bytes(bits.try_into().ok()?)));
    Ok(features.map(|features| XdpFeatures {
        native: features & NETDEV_XDP_ACT_BASIC != 0,
        takes_redirected: features & NETDEV_XDP_ACT_NDO_XMIT != 0,
    }))
}

/// One question, and the attributes of its answer.
fn ask(socket: &Socket, family: u16, command: u8, attributes: &[u8]) -> io::Result<Vec<u8>> {
    let length = HEADER + GENERIC + attributes.len();
    let mut message = Vec::with_capacity(length);
    message.extend((length as u32).to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(attributes);
    socket.send(&message, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let kind = answer.get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
    if kind == Some(NLMSG_ERROR) {
        let code =
            answer.get(HEADER..HEADER + 4).and_then(|code| Some(i32::from_ne_bytes(code.try_into().ok()?)));
        return Err(io::Error::from_raw_os_error(-code.unwrap_or(-libc::EPROTO)));
    }
    Ok(answer.get(HEADER + GENERIC..).unwrap_or_default().to_vec())
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend((length as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// The value of the first attribute of a kind.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some([a, b, c, d]) = attributes.first_chunk::<4>() {
        let (length, kind) = (usize::from(u16::from_ne_bytes([*a, *b])), u16::from_ne_bytes([*c, *d]));
        let value = attributes.get(4..length)?;
        // The two upper bits are flags.
        if kind & 0x3fff == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_takes_no_redirected_packets() {
        let loopback = features(1).unwrap();
        assert!(loopback.is_none_or(|loopback| !loopback.takes_redirected && !loopback.native));
        assert!(matches!(features(u32::MAX >> 1), Ok(None) | Err(_)));
    }

    #[test]
    fn attributes_are_found_and_broken_ones_end_the_search() {
        let two = [attribute(1, &[7]), attribute(3, &5_u64.to_ne_bytes())].concat();
        assert_eq!(find(&two, 3), Some(&5_u64.to_ne_bytes()[..]));
        assert_eq!(find(&two, 1), Some(&[7][..]));
        assert_eq!(find(&two, 2), None);
        assert_eq!(find(&[0; 8], 0), None);
        assert_eq!(find(&[200, 0, 1, 0], 1), None);
    }
}
