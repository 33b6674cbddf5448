//! Records of the two ring buffers: state changes in `EVENTS`, and copies of RTCP in `REPORTS`, where they cannot push out
//! a state change.

use crate::addr::Endpoint;
use crate::flow::SlotIndex;
use crate::flow6::Endpoint6;
use crate::guard::{Exceeded, SourceKey};

/// A learning slot was claimed.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatchedRecord {
    /// [`LATCHED`].
    pub kind: u32,
    /// The slot.
    pub slot: u32,
    /// The source that claimed it.
    pub source: Endpoint,
    /// The generation that it was claimed in.
    pub generation: u16,
    /// Always zero.
    pub unused: [u8; 6],
}

/// A learning slot of IPv6 was claimed. Longer than the other records.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatchedRecord6 {
    /// [`LATCHED6`].
    pub kind: u32,
    /// The slot.
    pub slot: u32,
    /// The source that claimed it.
    pub source: Endpoint6,
    /// The generation that it was claimed in.
    pub generation: u16,
    /// Always zero.
    pub unused: [u8; 6],
}

/// `kind` of [`LatchedRecord`].
pub const LATCHED: u32 = 1;
/// `kind` of [`ExceededRecord`].
pub const EXCEEDED: u32 = 2;
/// `kind` of [`LatchedRecord6`].
pub const LATCHED6: u32 = 3;

impl LatchedRecord6 {
    /// Its size in the ring.
    pub const BYTES: usize = size_of::<Self>();

    /// A record of a claim.
    #[inline(always)]
    pub const fn new(slot: SlotIndex, source: Endpoint6, generation: u16) -> Self {
        Self { kind: LATCHED6, slot: slot.0, source, generation, unused: [0; 6] }
    }

    fn read(bytes: &[u8; Self::BYTES]) -> Option<Event> {
        let [a, b, c, d, e, f, g, h, ..] = *bytes;
        let word = |at: usize| bytes[at..].first_chunk().map(|word| u64::from_ne_bytes(*word));
        (u32::from_ne_bytes([a, b, c, d]) == LATCHED6).then_some(Event::Latched6 {
            slot: SlotIndex(u32::from_ne_bytes([e, f, g, h])),
            source: Endpoint6::from_words([word(8)?, word(16)?, word(24)?]),
            generation: u16::from_ne_bytes([bytes[32], bytes[33]]),
        })
    }
}

impl LatchedRecord {
    /// Its size in the ring.
    pub const BYTES: usize = size_of::<Self>();

    /// A record of a claim.
    #[inline(always)]
    pub const fn new(slot: SlotIndex, source: Endpoint, generation: u16) -> Self {
        Self { kind: LATCHED, slot: slot.0, source, generation, unused: [0; 6] }
    }
}

/// A limit was exceeded. As long as a [`LatchedRecord`]: a record is read by its length first, then by its kind.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExceededRecord {
    /// [`EXCEEDED`].
    pub kind: u32,
    /// Number of an [`Exceeded`].
    pub limit: u32,
    /// Whose packet it was.
    pub source: SourceKey,
    /// Always zero.
    pub unused: [u8; 4],
}

impl ExceededRecord {
    /// A record of the first packet over a limit.
    #[inline(always)]
    pub const fn new(limit: Exceeded, source: SourceKey) -> Self {
        Self { kind: EXCEEDED, limit: limit as u32, source, unused: [0; 4] }
    }
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A learning slot was claimed.
    Latched {
        /// The slot.
        slot: SlotIndex,
        /// The source that claimed it.
        source: Endpoint,
        /// The generation that it was claimed in: an event of an earlier flow must not be taken for this one's.
        generation: u16,
    },
    /// A learning slot of IPv6 was claimed.
    Latched6 {
        /// The slot.
        slot: SlotIndex,
        /// The source that claimed it.
        source: Endpoint6,
        /// The generation that it was claimed in.
        generation: u16,
    },
    /// A limit was exceeded, once in a window.
    Exceeded {
        /// Which.
        limit: Exceeded,
        /// Whose packet it was.
        source: SourceKey,
    },
}

impl Event {
    /// Reads a record; `None` for one of another length or kind.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if let Ok(bytes) = bytes.try_into() {
            return LatchedRecord6::read(bytes);
        }
        let bytes: &[u8; LatchedRecord::BYTES] = bytes.try_into().ok()?;
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        match word(0) {
            LATCHED => Some(Self::Latched {
                slot: SlotIndex(word(4)),
                source: Endpoint {
                    address: [bytes[8], bytes[9], bytes[10], bytes[11]],
                    port: [bytes[12], bytes[13]],
                    unused: [0; 2],
                },
                generation: u16::from_ne_bytes([bytes[16], bytes[17]]),
            }),
            EXCEEDED => {
                let [_, _, _, _, _, _, _, _, a, b, c, d, e, f, g, h, family, ..] = *bytes;
                let source = SourceKey { address: [a, b, c, d, e, f, g, h], family, unused: [0; 3] };
                Some(Self::Exceeded { limit: Exceeded::from_number(word(4))?, source })
            }
            _ => None,
        }
    }
}

/// Most bytes of a report that are copied: a compound packet with a sender report of several blocks and its descriptions.
pub const REPORT_BYTES: usize = 256;

/// RTCP that was forwarded, as it arrived.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportRecord {
    /// The slot by which it left: that of the port which it arrived on, or the next one if that is for RTP and RTCP.
    pub slot: u32,
    /// The generation of the slot.
    pub generation: u16,
    /// 4: the slot is one of `FLOWS`; 6: of `FLOWS6`.
    pub family: u8,
    /// Always zero.
    pub unused: u8,
    /// Length of the payload that was forwarded.
    pub length: u16,
    /// How many of `bytes` are of it; the others are what the ring held before.
    pub copied: u16,
    /// Always zero.
    pub unused_too: [u8; 4],
    /// The beginning of the payload.
    pub bytes: [u8; REPORT_BYTES],
}

/// A copy of RTCP that was forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report<'a> {
    /// The slot by which it left.
    pub slot: SlotIndex,
    /// The generation of the slot.
    pub generation: u16,
    /// Whether the slot is one of `FLOWS6`.
    pub is_v6: bool,
    /// Length of the payload that was forwarded.
    pub length: u16,
    /// Its beginning.
    pub bytes: &'a [u8],
}

impl<'a> Report<'a> {
    /// Reads a record; `None` for one of another length or with contradictions.
    pub fn from_bytes(record: &'a [u8]) -> Option<Self> {
        let record: &[u8; size_of::<ReportRecord>()] = record.try_into().ok()?;
        let ([a, b, c, d, e, f, family, _, g, h, i, j, _, _, _, _], bytes) = record.split_first_chunk()?;
        let is_v6 = match *family {
            4 => false,
            6 => true,
            _ => return None,
        };
        Some(Self {
            slot: SlotIndex(u32::from_ne_bytes([*a, *b, *c, *d])),
            generation: u16::from_ne_bytes([*e, *f]),
            is_v6,
            length: u16::from_ne_bytes([*g, *h]),
            bytes: bytes.get(..usize::from(u16::from_ne_bytes([*i, *j])))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn layout_is_locked_and_read_back() {
        assert_eq!(LatchedRecord::BYTES, 24);
        assert_eq!(
            (
                offset_of!(LatchedRecord, kind),
                offset_of!(LatchedRecord, slot),
                offset_of!(LatchedRecord, source),
                offset_of!(LatchedRecord, generation),
                offset_of!(LatchedRecord, unused)
            ),
            (0, 4, 8, 16, 18)
        );
        let (slot, source) = (SlotIndex::new(1, 20_000), Endpoint::new([203, 0, 113, 9], 40_000));
        // SAFETY: 24 bytes without padding.
        let bytes: [u8; 24] = unsafe { core::mem::transmute(LatchedRecord::new(slot, source, 77)) };
        assert_eq!(Event::from_bytes(&bytes), Some(Event::Latched { slot, source, generation: 77 }));
        assert_eq!(Event::from_bytes(&bytes[..23]), None);
        let mut other = bytes;
        other[..4].copy_from_slice(&9u32.to_ne_bytes());
        assert_eq!(Event::from_bytes(&other), None);
    }

    #[test]
    fn a_report_is_read_back() {
        assert_eq!(size_of::<ReportRecord>(), 272);
        assert_eq!(
            (
                offset_of!(ReportRecord, slot),
                offset_of!(ReportRecord, generation),
                offset_of!(ReportRecord, family),
                offset_of!(ReportRecord, length),
                offset_of!(ReportRecord, copied),
                offset_of!(ReportRecord, bytes)
            ),
            (0, 4, 6, 8, 10, 16)
        );
        let record = |family, copied| {
            let record = ReportRecord {
                slot: 77,
                generation: 9,
                family,
                unused: 0,
                length: 300,
                copied,
                unused_too: [0; 4],
                bytes: [0x81; REPORT_BYTES],
            };
            // SAFETY: 272 bytes without padding.
            unsafe { core::mem::transmute::<ReportRecord, [u8; 272]>(record) }
        };
        let expected =
            Report { slot: SlotIndex(77), generation: 9, is_v6: true, length: 300, bytes: &[0x81; 256] };
        assert_eq!(Report::from_bytes(&record(6, 256)), Some(expected));
        let expected = Report { is_v6: false, bytes: &[0x81; 8], ..expected };
        assert_eq!(Report::from_bytes(&record(4, 8)), Some(expected));
        assert_eq!(Report::from_bytes(&record(4, 257)), None);
        assert_eq!(Report::from_bytes(&record(5, 8)), None);
        assert_eq!(Report::from_bytes(&record(4, 8)[..271]), None);
    }

    #[test]
    fn a_claim_of_ipv6_is_read_back() {
        assert_eq!(LatchedRecord6::BYTES, 40);
        assert_eq!((offset_of!(LatchedRecord6, source), offset_of!(LatchedRecord6, generation)), (8, 32));
        let slot = SlotIndex::new(2, 20_000);
        let source = Endpoint6::new([0x20, 1, 0xd, 0xb8, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], 40_000);
        // SAFETY: 40 bytes without padding.
        let mut bytes: [u8; 40] = unsafe { core::mem::transmute(LatchedRecord6::new(slot, source, 77)) };
        assert_eq!(Event::from_bytes(&bytes), Some(Event::Latched6 { slot, source, generation: 77 }));
        assert_eq!(Event::from_bytes(&bytes[..39]), None);
        bytes[0] = LATCHED as u8;
        assert_eq!(Event::from_bytes(&bytes), None);
    }

    #[test]
    fn an_exceeded_limit_is_read_back() {
        assert_eq!(size_of::<ExceededRecord>(), LatchedRecord::BYTES);
        assert_eq!((offset_of!(ExceededRecord, limit), offset_of!(ExceededRecord, source)), (4, 8));
        for source in [SourceKey::v4([203, 0, 113, 9]), SourceKey::v6([0x20, 1, 0xd, 0xb8, 0, 7, 0, 1])] {
            let record = ExceededRecord::new(Exceeded::Connections, source);
            // SAFETY: 24 bytes without padding.
            let mut bytes: [u8; 24] = unsafe { core::mem::transmute(record) };
            let event = Event::Exceeded { limit: Exceeded::Connections, source };
            assert_eq!(Event::from_bytes(&bytes), Some(event));
            bytes[4] = 200;
            assert_eq!(Event::from_bytes(&bytes), None);
        }
    }
}
