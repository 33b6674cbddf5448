//! What a flow's packets say of themselves, and how many there may be: numbering, jitter, payload types, rate (RFC 3550
//! appendices A.1, A.3 and A.8).
//!
//! Kept beside the flow slots, in a table with the same index. Nobody decides by it but for the rate. What is missing is
//! the difference between `expected` and the slot's `packets`, over the same time.

/// A jump ahead of this size or more is a restart, not loss (RFC 3550 A.1).
const MAX_DROPOUT: u16 = 3000;
/// A step back of this size or more is a restart, not reordering (RFC 3550 A.1).
const MAX_MISORDER: u16 = 100;

/// One flow's statistics: 64 bytes, one cache line. Kernel only, but for what is said to be the daemon's; two packets of
/// a flow on two CPUs at the same moment may cost a count.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamSlot {
    /// The run that the last packet belongs to.
    pub run: Run,
    /// Packets that there should have been since the slot exists: first to highest number of each run. Never reset, wraps.
    pub expected: u32,
    /// Packets dropped because they were more than `limit`. Never reset, wraps.
    pub over_rate: u32,
    /// Packets of the present window.
    pub window: RateWindow,
    /// Daemon: clock rate of the RTP timestamps in Hz; 0 if it is not known.
    pub clock_rate_hz: u32,
    /// Daemon: packets that one window of [`RATE_WINDOW_TICKS`] lets through; 0 for any number.
    pub limit: u16,
    /// How often the synchronisation source changed. Never reset, wraps.
    pub source_changes: u16,
    /// Interarrival jitter (RFC 3550 A.8), in sixteenths of a timestamp unit.
    pub jitter: u32,
    /// Transit time of the last packet in timestamp units, from an arbitrary origin.
    pub transit: u32,
    /// Packets that came after one with a higher number. Never reset, wraps.
    pub out_of_order: u32,
    /// Payload type of the last packet.
    pub payload_type: u8,
    /// Always zero.
    pub unused: u8,
    /// How often the payload type changed. Never reset, wraps.
    pub payload_type_changes: u16,
    /// Daemon: where packets go if the flow's way is `V6`, network order.
    pub destination6: [u8; 16],
}

/// Length of a rate window in ticks ([`crate::flow::TICK_NS`]): 1.07 seconds.
pub const RATE_WINDOW_TICKS: u32 = 1 << 10;

/// A count of packets and when it began.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateWindow {
    /// The tick of its first packet.
    pub began: u32,
    /// Packets so far.
    pub packets: u32,
}

impl StreamSlot {
    /// Words in a slot.
    pub const WORDS: usize = 8;
    /// Word of `run`.
    pub const RUN: usize = 0;
    /// Word of `expected` (its first half in memory) and `over_rate`.
    pub const EXPECTED: usize = 1;
    /// Word of `window`.
    pub const WINDOW: usize = 2;
    /// Word of `clock_rate_hz`, `limit` and `source_changes`.
    pub const LIMIT: usize = 3;
    /// Word of `jitter` and `transit`.
    pub const JITTER: usize = 4;
    /// Word of `out_of_order`, `payload_type` and `payload_type_changes`.
    pub const ORDER: usize = 5;
    /// First of the two words of `destination6`.
    pub const DESTINATION6: usize = 6;
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
        assert_eq!((size_of::<StreamSlot>(), align_of::<StreamSlot>()), (64, 64));
        assert_eq!(
            (
                offset_of!(StreamSlot, run),
                offset_of!(StreamSlot, expected),
                offset_of!(StreamSlot, over_rate),
                offset_of!(StreamSlot, window),
                offset_of!(StreamSlot, clock_rate_hz),
                offset_of!(StreamSlot, limit),
                offset_of!(StreamSlot, source_changes)
            ),
            (0, 8, 12, 16, 24, 28, 30)
        );
        assert_eq!(
            (
                offset_of!(StreamSlot, jitter),
                offset_of!(StreamSlot, transit),
                offset_of!(StreamSlot, out_of_order),
                offset_of!(StreamSlot, payload_type),
                offset_of!(StreamSlot, payload_type_changes),
                offset_of!(StreamSlot, destination6)
            ),
            (32, 36, 40, 44, 46, 48)
        );
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
