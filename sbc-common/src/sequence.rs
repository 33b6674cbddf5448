//! How many RTP packets a flow should have forwarded, from their sequence numbers (RFC 3550 appendices A.1 and A.3).
//!
//! Kept beside the flow slots, in a table with the same index: it is written with every packet, but nobody decides by
//! it. What is missing is the difference between this count and the slot's `packets`, over the same time.

/// A jump ahead of this size or more is a restart, not loss (RFC 3550 A.1).
const MAX_DROPOUT: u16 = 3000;
/// A step back of this size or more is a restart, not reordering (RFC 3550 A.1).
const MAX_MISORDER: u16 = 100;

/// One flow's numbering. Kernel only; two packets of a flow on two CPUs at the same moment may cost a count.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SequenceSlot {
    /// The run that the last packet belongs to.
    pub run: Run,
    /// Packets that there should have been since the slot exists: first to highest number of each run. Never reset.
    pub expected: u64,
}

impl SequenceSlot {
    /// Words in a slot.
    pub const WORDS: usize = 2;
    /// Word of `run`.
    pub const RUN: usize = 0;
    /// Word of `expected`.
    pub const EXPECTED: usize = 1;
}

/// Packets of one source in one numbering.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// The synchronisation source, network order.
    pub source: [u8; 4],
    /// The highest sequence number so far, host order.
    pub highest: u16,
    /// Tag of the flow's generation; 0: no packet yet.
    pub tag: u16,
}

impl Run {
    /// As the word in the map.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        let ([a, b, c, d], [e, f], [g, h]) =
            (self.source, self.highest.to_ne_bytes(), self.tag.to_ne_bytes());
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    }

    /// From the word in the map.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
        Self { source: [a, b, c, d], highest: u16::from_ne_bytes([e, f]), tag: u16::from_ne_bytes([g, h]) }
    }

    /// Takes note of a packet: the run after it, and how many more packets it says that there should have been.
    #[inline(always)]
    pub const fn see(self, packet: Self) -> (Self, u16) {
        if self.tag == packet.tag && u32::from_ne_bytes(self.source) == u32::from_ne_bytes(packet.source) {
            let ahead = packet.highest.wrapping_sub(self.highest);
            if ahead < MAX_DROPOUT {
                return (packet, ahead);
            }
            if ahead.wrapping_neg() < MAX_MISORDER {
                return (self, 0);
            }
        }
        (packet, 1)
    }
}

/// Packets missing, of those expected and those forwarded over the same time. Duplicates may make them fewer than none.
pub const fn missing(expected: u64, forwarded: u64) -> u64 {
    expected.saturating_sub(forwarded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::{align_of, offset_of, size_of};

    #[test]
    fn layout_is_locked() {
        assert_eq!((size_of::<SequenceSlot>(), align_of::<SequenceSlot>()), (16, 16));
        assert_eq!((offset_of!(SequenceSlot, run), offset_of!(SequenceSlot, expected)), (0, 8));
        assert_eq!((offset_of!(Run, source), offset_of!(Run, highest), offset_of!(Run, tag)), (0, 4, 6));
        let run = Run { source: [1, 2, 3, 4], highest: 0x0506, tag: 0x0708 };
        assert_eq!(Run::from_word(run.to_word()), run);
    }

    /// What is missing after packets of (tag, source, sequence number).
    fn lost(packets: &[(u16, u8, u16)]) -> u64 {
        let (mut run, mut expected) = (Run::default(), 0);
        for (tag, source, highest) in packets {
            let more;
            (run, more) = run.see(Run { source: [*source; 4], highest: *highest, tag: *tag });
            expected += u64::from(more);
        }
        missing(expected, packets.len() as u64)
    }

    #[test]
    fn what_is_missing_between_first_and_highest_is_lost() {
        assert_eq!(lost(&[(1, 1, 5), (1, 1, 6), (1, 1, 7)]), 0);
        assert_eq!(lost(&[(1, 1, 5), (1, 1, 8)]), 2);
        assert_eq!(lost(&[(1, 1, 5), (1, 1, 8), (1, 1, 6), (1, 1, 7)]), 0, "late is not lost");
        assert_eq!(lost(&[(1, 1, 65_534), (1, 1, 65_535), (1, 1, 0), (1, 1, 2)]), 1, "numbers wrap");
        assert_eq!(lost(&[(1, 1, 5), (1, 1, 5)]), 0, "duplicates are no gain");
        assert_eq!(
            lost(&[(1, 1, 5), (1, 1, 7), (1, 2, 50_000), (1, 2, 50_002)]),
            2,
            "another source adds up"
        );
        assert_eq!(lost(&[(1, 1, 5), (2, 1, 500), (2, 1, 502)]), 1, "another flow is another run");
        assert_eq!(lost(&[(1, 1, 5), (1, 1, 40_000), (1, 1, 40_001)]), 0, "a restart is no loss");
        assert_eq!(lost(&[(1, 1, 3200), (1, 1, 3101)]), 0, "as late as lateness goes");
        assert_eq!(lost(&[(1, 1, 3200), (1, 1, 3100), (1, 1, 3101)]), 0, "later than that is a restart");
    }
}
