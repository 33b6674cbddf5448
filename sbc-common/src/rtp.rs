//! What a media datagram is by its first bytes: RFC 7983 (first byte), RFC 3550 sections 5.1 and 6.4.1 (headers),
//! RFC 5761 section 4 (RTP or RTCP).
//!
//! Only what stands in clear is judged: with SRTP the end of the packet, so the padding count too, is ciphertext.

use crate::flow::{MediaKind, PortKind};

/// Bytes of the fixed RTP header.
pub const RTP_HEADER_BYTES: usize = 12;
/// Bytes of the RTCP header with the SSRC of its sender.
pub const RTCP_HEADER_BYTES: usize = 8;

/// Who a datagram is for, by its first byte (RFC 7983 section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FirstByte {
    /// 0 to 3.
    Stun,
    /// 16 to 19.
    Zrtp,
    /// 20 to 63.
    Dtls,
    /// 64 to 79.
    TurnChannel,
    /// 128 to 191: version 2 of RTP and RTCP.
    Rtp,
    /// The rest.
    Unknown,
}

impl FirstByte {
    /// The class of a first byte.
    #[inline(always)]
    pub const fn of(byte: u8) -> Self {
        match byte {
            0..=3 => Self::Stun,
            16..=19 => Self::Zrtp,
            20..=63 => Self::Dtls,
            64..=79 => Self::TurnChannel,
            128..=191 => Self::Rtp,
            4..=15 | 80..=127 | 192..=255 => Self::Unknown,
        }
    }
}

/// Why a datagram is not the RTP or RTCP that its port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaError {
    /// Too short for its header.
    Short,
    /// First byte of STUN.
    Stun,
    /// First byte of DTLS.
    Dtls,
    /// First byte of neither.
    NotRtp,
    /// RTCP on an RTP port, or the reverse.
    WrongKind,
}

/// What a datagram on a port is, RTP or RTCP, by its second byte: payload types 64 to 95 with the marker bit are RTCP on
/// a port that carries both (RFC 5761 section 4).
#[inline(always)]
pub const fn carried(port: PortKind, second_byte: u8) -> MediaKind {
    match port {
        PortKind::Rtp => MediaKind::Rtp,
        PortKind::Rtcp => MediaKind::Rtcp,
        PortKind::Muxed if matches!(second_byte, 192..=223) => MediaKind::Rtcp,
        PortKind::Muxed => MediaKind::Rtp,
    }
}

/// Judges a datagram by its first 8 bytes and its length. A shorter one is judged by [`check`].
#[inline(always)]
pub const fn check_head(kind: MediaKind, head: [u8; 8], length: usize) -> Result<(), MediaError> {
    match FirstByte::of(head[0]) {
        FirstByte::Rtp => {}
        FirstByte::Stun => return Err(MediaError::Stun),
        FirstByte::Dtls => return Err(MediaError::Dtls),
        FirstByte::Zrtp | FirstByte::TurnChannel | FirstByte::Unknown => return Err(MediaError::NotRtp),
    }
    match kind {
        MediaKind::Rtp => {
            // Without rtcp-mux a payload type of 64 to 95 is lawful; only the marker bit with the five types that
            // RFC 3551 keeps free (72 to 76) is RTCP for certain.
            if matches!(head[1], 200..=204) {
                return Err(MediaError::WrongKind);
            }
            let contributing = (head[0] & 0x0f) as usize * 4;
            let extension = if head[0] & 0x10 == 0 { 0 } else { 4 };
            if length < RTP_HEADER_BYTES + contributing + extension {
                return Err(MediaError::Short);
            }
        }
        MediaKind::Rtcp => {
            if !matches!(head[1], 192..=223) {
                return Err(MediaError::WrongKind);
            }
            let announced = (u16::from_be_bytes([head[2], head[3]]) as usize + 1) * 4;
            if length < RTCP_HEADER_BYTES || length < announced {
                return Err(MediaError::Short);
            }
        }
    }
    Ok(())
}

/// Judges a whole datagram.
pub fn check(kind: MediaKind, datagram: &[u8]) -> Result<(), MediaError> {
    match datagram.first_chunk() {
        Some(head) => check_head(kind, *head, datagram.len()),
        None => Err(MediaError::Short),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use MediaError::{Dtls, NotRtp, Short, Stun, WrongKind};
    use MediaKind::{Rtcp, Rtp};

    #[test]
    fn first_bytes_of_rfc_7983() {
        let class = |range: core::ops::RangeInclusive<u8>, class| {
            range.for_each(|b| assert_eq!(FirstByte::of(b), class))
        };
        class(0..=3, FirstByte::Stun);
        class(4..=15, FirstByte::Unknown);
        class(16..=19, FirstByte::Zrtp);
        class(20..=63, FirstByte::Dtls);
        class(64..=79, FirstByte::TurnChannel);
        class(80..=127, FirstByte::Unknown);
        class(128..=191, FirstByte::Rtp);
        class(192..=255, FirstByte::Unknown);
    }

    #[test]
    fn a_muxed_port_tells_by_the_second_byte() {
        for (second, kind) in [
            (0, MediaKind::Rtp),
            (96, MediaKind::Rtp),
            (0x80 | 63, MediaKind::Rtp),
            (192, MediaKind::Rtcp),
            (200, MediaKind::Rtcp),
            (223, MediaKind::Rtcp),
            (224, MediaKind::Rtp),
        ] {
            assert_eq!(carried(PortKind::Muxed, second), kind, "{second}");
            assert_eq!(carried(PortKind::Rtp, second), MediaKind::Rtp);
            assert_eq!(carried(PortKind::Rtcp, second), MediaKind::Rtcp);
        }
    }

    #[test]
    fn headers() {
        let rtp = |first: u8, second: u8, length: usize| {
            let mut data = [0u8; 96];
            (data[0], data[1]) = (first, second);
            check(Rtp, &data[..length])
        };
        for (first, second, length, expected) in [
            (0x80, 0, 12, Ok(())),
            (0x80, 0, 11, Err(Short)),
            (0x80, 0, 7, Err(Short)),
            (0x80, 0, 0, Err(Short)),
            (0x8f, 0, 72, Ok(())),
            (0x8f, 0, 71, Err(Short)),
            (0x90, 0, 16, Ok(())),
            (0x90, 0, 15, Err(Short)),
            (0x9f, 0, 75, Err(Short)),
            (0x9f, 0, 76, Ok(())),
            (0x80, 199, 12, Ok(())),
            (0x80, 200, 12, Err(WrongKind)),
            (0x80, 204, 12, Err(WrongKind)),
            (0x80, 205, 12, Ok(())),
            (0x00, 1, 20, Err(Stun)),
            (0x16, 0, 20, Err(Dtls)),
            (0x10, 0, 20, Err(NotRtp)),
            (0x40, 0, 20, Err(NotRtp)),
            (0xc0, 0, 20, Err(NotRtp)),
        ] {
            assert_eq!(rtp(first, second, length), expected, "{first:#x} {second} {length}");
        }
        let rtcp = |second: u8, words: u8, length: usize| {
            let mut data = [0u8; 96];
            (data[0], data[1], data[3]) = (0x80, second, words);
            check(Rtcp, &data[..length])
        };
        for (second, words, length, expected) in [
            (200, 6, 28, Ok(())),
            (200, 6, 27, Err(Short)),
            (201, 1, 8, Ok(())),
            (201, 0, 8, Ok(())),
            (201, 0, 7, Err(Short)),
            (207, 1, 40, Ok(())),
            (192, 1, 8, Ok(())),
            (191, 1, 12, Err(WrongKind)),
            (224, 1, 12, Err(WrongKind)),
            (0, 1, 12, Err(WrongKind)),
        ] {
            assert_eq!(rtcp(second, words, length), expected, "{second} {words} {length}");
        }
    }
}
