//! What a datagram carries, and whether its port is for that.

use sbc_common::flow::{MediaKind, PortKind};
use sbc_common::rtp::{self, MediaError};
use sbc_common::stream::Heard;

use crate::ctx::Frame;
use crate::outcome::DropReason;
use crate::parse::UDP_BYTES;

/// Where the payload of a UDP datagram lies. It is known to be in the frame.
#[derive(Clone, Copy)]
pub(super) struct Payload {
    /// Where it starts.
    pub(super) offset: usize,
    /// Its length.
    pub(super) bytes: usize,
}

impl Payload {
    /// The payload behind a UDP header whose announced length was checked.
    #[inline(always)]
    pub(super) fn behind(udp_offset: usize, udp_bytes: u16) -> Self {
        Self { offset: udp_offset + UDP_BYTES, bytes: usize::from(udp_bytes) - UDP_BYTES }
    }

    /// As one argument of a function that the kernel calls.
    #[inline(always)]
    pub(super) fn to_word(self) -> u64 {
        (self.offset as u64) << 32 | self.bytes as u64
    }

    /// From an argument. The offset is masked to what headers can be: the verifier follows no other.
    #[inline(always)]
    pub(super) fn from_word(word: u64) -> Self {
        Self { offset: (word >> 32) as usize & 0x7f, bytes: word as u32 as usize }
    }
}

/// What a packet is.
#[derive(Clone, Copy)]
pub(super) enum Media {
    /// RTP, and what it says of its place in its stream.
    Rtp(Heard),
    /// RTCP.
    Rtcp,
}

/// The payload, if it is what the port is for.
#[inline(always)]
pub(super) fn check(frame: &Frame, payload: Payload, port: PortKind) -> Result<Media, DropReason> {
    if payload.bytes < rtp::RTCP_HEADER_BYTES {
        return Err(DropReason::ShortMedia);
    }
    let start = frame
        .window::<{ rtp::RTCP_HEADER_BYTES }>(payload.offset)
        .ok_or(DropReason::BadLength)?
        .load64::<0>()
        .to_ne_bytes();
    let [_, second_byte, ..] = start;
    let kind = rtp::carried(port, second_byte);
    match rtp::check_head(kind, start, payload.bytes) {
        Ok(()) => {}
        Err(MediaError::Short) => return Err(DropReason::ShortMedia),
        Err(MediaError::Stun) => return Err(DropReason::Stun),
        Err(MediaError::Dtls) => return Err(DropReason::Dtls),
        Err(MediaError::NotRtp) => return Err(DropReason::NotRtp),
        Err(MediaError::WrongKind) => return Err(DropReason::WrongKind),
    }
    match kind {
        MediaKind::Rtcp => Ok(Media::Rtcp),
        MediaKind::Rtp => {
            let header =
                frame.window::<{ rtp::RTP_HEADER_BYTES }>(payload.offset).ok_or(DropReason::BadLength)?;
            Ok(Media::Rtp(Heard::from_header(start, header.load32::<8>().to_ne_bytes())))
        }
    }
}
