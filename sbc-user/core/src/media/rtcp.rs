//! Reading sender and receiver reports (RFC 3550 s.6.4) out of copies of RTCP packets.
//!
//! A copy may be cut off and nothing in it is true because it says so: what is not whole is not read, what follows
//! something broken neither. Reads the first report and its first block: one party at each end of a stream.

/// What a compound packet says first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Of a sender report: the middle 32 bits of its NTP timestamp, by which receivers refer to it.
    pub sent: Option<u32>,
    /// What its sender has received.
    pub received: Option<Block>,
}

/// A report block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Packets lost since the report before, in 256ths of those expected.
    pub fraction_lost: u8,
    /// Packets lost since the beginning; negative where there were more copies than losses.
    pub lost: i32,
    /// Interarrival jitter, in units of the RTP timestamp.
    pub jitter: u32,
    /// `sent` of the sender report heard last; 0: none was.
    pub last_report: u32,
    /// Time since that one came, in 65536ths of a second.
    pub delay: u32,
}

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const HEADER: usize = 8;
const SENDER_INFO: usize = 20;

/// The first report of a compound packet; `None` if it has none.
#[must_use]
pub fn read(mut compound: &[u8]) -> Option<Report> {
    loop {
        let [first, kind, high, low, ..] = *compound else { return None };
        if first >> 6 != 2 {
            return None;
        }
        if matches!(kind, SENDER_REPORT | RECEIVER_REPORT) {
            return report(kind, first & 0x1f, compound);
        }
        let length = (usize::from(u16::from_be_bytes([high, low])) + 1) * 4;
        compound = compound.get(length..)?;
    }
}

fn report(kind: u8, blocks: u8, packet: &[u8]) -> Option<Report> {
    // What stands behind the packet's end is another's.
    let length = (usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?])) + 1) * 4;
    let packet = packet.get(..length.min(packet.len()))?;
    let (sent, at) = if kind == SENDER_REPORT {
        // Behind the synchronisation source: 64 bits of NTP time, of which the middle ones count.
        (Some(word(packet, HEADER + 2)?), HEADER + SENDER_INFO)
    } else {
        (None, HEADER)
    };
    let received = if blocks > 0 { block(packet.get(at..)?) } else { None };
    Some(Report { sent, received })
}

fn block(bytes: &[u8]) -> Option<Block> {
    let losses = word(bytes, 4)?;
    let [fraction_lost, ..] = losses.to_be_bytes();
    Some(Block {
        fraction_lost,
        // 24 bits with a sign.
        lost: losses.cast_signed() << 8 >> 8,
        jitter: word(bytes, 12)?,
        last_report: word(bytes, 16)?,
        delay: word(bytes, 20)?,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_be_bytes(*word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A sender report with one block, and a source description behind it.
    fn compound() -> Vec<u8> {
        let mut bytes = vec![0x81, 200, 0, 12];
        for word in
            [1_u32, 0xaaaa_1234, 0x5678_bbbb, 160, 7, 1120, 2, 0x40ff_fffe, 900, 80, 0x1111_2222, 65_536]
        {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend([0x81, 202, 0, 2, 0, 0, 0, 1, 1, 1, b'a', 0]);
        bytes
    }

    const BLOCK: Block =
        Block { fraction_lost: 0x40, lost: -2, jitter: 80, last_report: 0x1111_2222, delay: 65_536 };

    #[test]
    fn a_sender_report_is_read() {
        assert_eq!(read(&compound()), Some(Report { sent: Some(0x1234_5678), received: Some(BLOCK) }));
    }

    #[test]
    fn a_receiver_report_is_read_behind_others() {
        let bytes = compound();
        let mut receiver = vec![0x80, 205, 0, 1, 0, 0, 0, 0, 0x81, 201, 0, 7, 0, 0, 0, 1];
        receiver.extend(&bytes[28..52]);
        assert_eq!(read(&receiver), Some(Report { sent: None, received: Some(BLOCK) }));
        assert_eq!(read(&[0x80, 201, 0, 1, 0, 0, 0, 1]), Some(Report::default()), "an empty one");
    }

    #[test]
    fn what_is_not_whole_is_not_read() {
        let bytes = compound();
        for length in 0..52 {
            let read = read(&bytes[..length]);
            let sender_info = Report { sent: Some(0x1234_5678), received: None };
            assert_eq!(read, (length >= 28).then_some(sender_info), "{length}");
        }
        // The header says that the packet ends before its block.
        let mut short = bytes.clone();
        short[3] = 6;
        assert_eq!(read(&short), Some(Report { sent: Some(0x1234_5678), received: None }));
        let mut version = bytes;
        version[0] = 0x41;
        assert_eq!(read(&version), None);
    }

    proptest! {
        #[test]
        fn anything_is_read_or_not(bytes in prop::collection::vec(any::<u8>(), 0..200), kinds in prop::collection::vec(198u8..206, 1..20)) {
            let mut bytes = bytes;
            for (index, kind) in kinds.into_iter().enumerate() {
                if let Some(header) = bytes.get_mut(index * 8..index * 8 + 4) {
                    header.copy_from_slice(&[0x81, kind, 0, 1]);
                }
            }
            let _ = read(&bytes);
        }
    }
}
