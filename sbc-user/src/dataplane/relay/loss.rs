//! How many packets of an RTP stream are missing, from its sequence numbers (RFC 3550 appendices A.1 and A.3).

/// A jump ahead of this size or more is a restart, not loss (RFC 3550 A.1).
const MAX_DROPOUT: u16 = 3000;
/// A step back of this size or more is a restart, not reordering (RFC 3550 A.1).
const MAX_MISORDER: u16 = 100;

/// What the packets of one direction say about loss. A new source or a restart begins a new run; losses add up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Loss {
    run: Option<Run>,
    before: u64,
}

/// Packets of one source in one numbering.
#[derive(Clone, Copy, Debug)]
struct Run {
    source: u32,
    last: u16,
    /// From the first packet to the highest numbered one, both included.
    expected: u64,
    received: u64,
}

impl Loss {
    /// Takes note of an RTP packet.
    pub(super) fn see(&mut self, datagram: &[u8]) {
        let Some(&[_, _, high, low, _, _, _, _, a, b, c, d]) = datagram.first_chunk() else { return };
        let (sequence, source) = (u16::from_be_bytes([high, low]), u32::from_be_bytes([a, b, c, d]));
        if let Some(run) = self.run.as_mut().filter(|run| run.source == source) {
            let ahead = sequence.wrapping_sub(run.last);
            if ahead < MAX_DROPOUT {
                run.last = sequence;
                run.expected += u64::from(ahead);
                run.received += 1;
                return;
            }
            if ahead.wrapping_neg() < MAX_MISORDER {
                run.received += 1;
                return;
            }
        }
        self.before = self.total();
        self.run = Some(Run { source, last: sequence, expected: 1, received: 1 });
    }

    /// Packets missing so far; `None` before the first packet.
    pub(super) fn lost(&self) -> Option<u64> {
        self.run.map(|_| self.total())
    }

    /// Duplicates can make more packets arrive than were expected; nothing is lost then.
    fn total(&self) -> u64 {
        self.before + self.run.map_or(0, |run| run.expected.saturating_sub(run.received))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(packets: &[(u32, u16)]) -> Option<u64> {
        let mut loss = Loss::default();
        for (source, sequence) in packets {
            let mut packet = [0x80; 12];
            packet[2..4].copy_from_slice(&sequence.to_be_bytes());
            packet[8..12].copy_from_slice(&source.to_be_bytes());
            loss.see(&packet);
        }
        loss.lost()
    }

    #[test]
    fn what_is_missing_between_first_and_highest_is_lost() {
        assert_eq!(lost(&[]), None);
        assert_eq!(lost(&[(1, 5)]), Some(0));
        assert_eq!(lost(&[(1, 5), (1, 6), (1, 7)]), Some(0));
        assert_eq!(lost(&[(1, 5), (1, 8)]), Some(2));
        assert_eq!(lost(&[(1, 5), (1, 8), (1, 6), (1, 7)]), Some(0), "late is not lost");
        assert_eq!(lost(&[(1, 65_534), (1, 65_535), (1, 0), (1, 2)]), Some(1), "numbers wrap");
        assert_eq!(lost(&[(1, 5), (1, 5), (1, 5)]), Some(0), "duplicates are no gain");
        assert_eq!(lost(&[(1, 5), (1, 7), (2, 50_000), (2, 50_002)]), Some(2), "another source adds up");
        assert_eq!(lost(&[(1, 5), (1, 40_000), (1, 40_001)]), Some(0), "a restart is no loss");
    }
}
