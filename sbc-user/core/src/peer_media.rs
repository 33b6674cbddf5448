//! Where a peer receives media: the value that its SDP yields and that a media plan holds. A leaf, so that `sdp` and
//! `media` need not know each other.

use std::net::SocketAddr;

/// Where a peer receives, from its SDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerMedia {
    /// RTP address and port.
    pub rtp: SocketAddr,
    /// RTCP address and port (`a=rtcp`, else the port after RTP; RFC 3605).
    pub rtcp: SocketAddr,
}
