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
    /// When the first packet of the present rate window came, in [`crate::flow::TICK_NS`].
    pub window_began: u32,
    /// Packets of the present rate window.
    pub window_packets: u16,
    /// Low half of the last packet's RTP timestamp.
    pub timestamp: u16,
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
    /// Payload type of the last packet in order.
    pub payload_type: u8,
    /// Always zero.
    pub unused: u8,
    /// How often the payload type changed, as it does for comfort noise and telephone events. Never reset, wraps.
    pub payload_type_changes: u16,
    /// Daemon: where packets go if the flow's way is `V6`, network order.
    pub destination6: [u8; 16],
}

/// Length of a rate window in ticks ([`crate::flow::TICK_NS`]): 1.07 seconds. It begins with its first packet and does
/// not slide, for the reasons in [`crate::window`].
pub const RATE_WINDOW_TICKS: u32 = 1 << 10;

/// What a packet says of its place in a stream (RFC 3550 section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The synchronisation source, network order.
    pub source: [u8; 4],
    /// The sequence number.
    pub sequence: u16,
    /// The timestamp.
    pub timestamp: u32,
    /// The payload type.
    pub payload_type: u8,
}

impl Heard {
    /// From the first eight bytes of an RTP header and the four after them.
    #[inline(always)]
    pub const fn from_header(start: [u8; 8], source: [u8; 4]) -> Self {
        let [_, marked_type, a, b, c, d, e, f] = start;
        Self {
            source,
            sequence: u16::from_be_bytes([a, b]),
            timestamp: u32::from_be_bytes([c, d, e, f]),
            payload_type: marked_type & 0x7f,
        }
    }
}

impl StreamSlot {
    /// Words in a slot.
    pub const WORDS: usize = 8;
    /// Word of `run`.
    pub const RUN: usize = 0;
    /// Word of `expected` (its first half in memory) and `over_rate`.
    pub const EXPECTED: usize = 1;
    /// Word of `window_began`, `window_packets` and `timestamp`.
    pub const WINDOW: usize = 2;
    /// Word of `clock_rate_hz`, `limit` and `source_changes`.
    pub const LIMIT: usize = 3;
    /// Word of `jitter` and `transit`.
    pub const JITTER: usize = 4;
    /// Word of `out_of_order`, `payload_type` and `payload_type_changes`.
    pub const ORDER: usize = 5;
    /// First of the two words of `destination6`.
    pub const DESTINATION6: usize = 6;

    /// As it lies in the map.
    #[inline(always)]
    pub const fn to_words(&self) -> [u64; Self::WORDS] {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self.destination6;
        [
            self.run.to_word(),
            halves(self.expected, self.over_rate),
            quarters(self.window_began, self.window_packets, self.timestamp),
            quarters(self.clock_rate_hz, self.limit, self.source_changes),
            halves(self.jitter, self.transit),
            quarters(
                self.out_of_order,
                u16::from_ne_bytes([self.payload_type, self.unused]),
                self.payload_type_changes,
            ),
            u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
        ]
    }

    /// From the words in the map.
    #[inline(always)]
    pub const fn from_words(words: [u64; Self::WORDS]) -> Self {
        let [run, expected, window, limit, jitter, order, first, second] = words;
        let ((expected, over_rate), (jitter, transit)) = (in_halves(expected), in_halves(jitter));
        let (window_began, window_packets, timestamp) = in_quarters(window);
        let (clock_rate_hz, limit, source_changes) = in_quarters(limit);
        let (out_of_order, types, payload_type_changes) = in_quarters(order);
        let [payload_type, unused] = types.to_ne_bytes();
        let ([a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]) =
            (first.to_ne_bytes(), second.to_ne_bytes());
        Self {
            run: Run::from_word(run),
            expected,
            over_rate,
            window_began,
            window_packets,
            timestamp,
            clock_rate_hz,
            limit,
            source_changes,
            jitter,
            transit,
            out_of_order,
            payload_type,
            unused,
            payload_type_changes,
            destination6: [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p],
        }
    }

    /// Counts a packet against the limit. Whether it is within.
    #[inline(always)]
    #[must_use]
    pub const fn admits(&mut self, now_ticks: u32) -> bool {
        if self.limit == 0 {
            return true;
        }
        if self.window_packets == 0 || now_ticks.wrapping_sub(self.window_began) >= RATE_WINDOW_TICKS {
            (self.window_began, self.window_packets) = (now_ticks, 1);
            return true;
        }
        if self.window_packets >= self.limit {
            self.over_rate = self.over_rate.wrapping_add(1);
            return false;
        }
        self.window_packets += 1;
        true
    }

    /// Takes note of an RTP packet of a generation that arrived at a time. The time matters only if there is a clock rate.
    #[inline(always)]
    pub const fn hear(&mut self, tag: u16, heard: Heard, arrival_ns: u64) {
        let Heard { source, sequence, timestamp, payload_type } = heard;
        let (run, place) = self.run.see(Run { source, highest: sequence, tag });
        self.run = run;
        let more = match place {
            Place::Ahead(more) => more,
            Place::Late => 0,
            Place::Restart | Place::NewSource | Place::First => 1,
        };
        self.expected = self.expected.wrapping_add(more as u32);
        match place {
            Place::Late => self.out_of_order = self.out_of_order.wrapping_add(1),
            Place::First => self.payload_type = payload_type,
            Place::NewSource => self.source_changes = self.source_changes.wrapping_add(1),
            Place::Ahead(_) | Place::Restart => {}
        }
        if !matches!(place, Place::Late) && self.payload_type != payload_type {
            self.payload_type = payload_type;
            self.payload_type_changes = self.payload_type_changes.wrapping_add(1);
        }
        if self.clock_rate_hz != 0 {
            let goes_on = matches!(place, Place::Ahead(_) | Place::Late);
            self.time(goes_on, timestamp, arrival_ns);
        }
    }

    /// Interarrival jitter (RFC 3550 A.8). Packets that share a timestamp with the one before are left out: those of a
    /// telephone event (RFC 4733) come every 20 ms with the time of its beginning, those of a video frame in one burst.
    /// A step of more than a second is a step of the timestamps, not of the network.
    #[inline(always)]
    const fn time(&mut self, goes_on: bool, timestamp: u32, arrival_ns: u64) {
        if goes_on && self.timestamp == timestamp as u16 {
            return;
        }
        let transit = timestamp_units(arrival_ns, self.clock_rate_hz).wrapping_sub(timestamp);
        let step = transit.wrapping_sub(self.transit);
        let distance = if step >> 31 == 0 { step } else { step.wrapping_neg() };
        if !goes_on {
            self.jitter = 0;
        } else if distance < self.clock_rate_hz {
            self.jitter = self.jitter.wrapping_add(distance).wrapping_sub(self.jitter.wrapping_add(8) >> 4);
        }
        (self.transit, self.timestamp) = (transit, timestamp as u16);
    }

    /// The jitter in microseconds.
    pub const fn jitter_us(&self) -> u64 {
        if self.clock_rate_hz == 0 {
            return 0;
        }
        self.jitter as u64 * 1_000_000 / 16 / self.clock_rate_hz as u64
    }
}

#[inline(always)]
const fn halves(first: u32, second: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

#[inline(always)]
const fn quarters(first: u32, second: u16, third: u16) -> u64 {
    let ([a, b, c, d], [e, f], [g, h]) = (first.to_ne_bytes(), second.to_ne_bytes(), third.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

#[inline(always)]
const fn in_halves(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]))
}

#[inline(always)]
const fn in_quarters(word: u64) -> (u32, u16, u16) {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    (u32::from_ne_bytes([a, b, c, d]), u16::from_ne_bytes([e, f]), u16::from_ne_bytes([g, h]))
}

/// A time in units of a clock of some rate, modulo 2^32; without a division, which the kernel has not got cheaply. It is
/// wrong by less than a part in ten million, for ever: what counts is the difference of two.
#[inline(always)]
const fn timestamp_units(ns: u64, clock_rate_hz: u32) -> u32 {
    /// 2^52 units for each 1.024 microseconds and hertz.
    const SCALE: u64 = 4_611_686_018;
    // Wraps for rates beyond 4 GHz only, which nobody has.
    let scaled_rate = (clock_rate_hz as u64).wrapping_mul(SCALE) >> 20;
    ((ns >> 10).wrapping_mul(scaled_rate) >> 32) as u32
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

/// Where a packet stands to the packets before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// So much ahead of the highest; 0 is the highest once more.
    Ahead(u16),
    /// Behind the highest.
    Late,
    /// So far away that its source must have begun anew.
    Restart,
    /// Of another source.
    NewSource,
    /// The first of its flow.
    First,
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

    /// Takes note of a packet: the run after it, and its place.
    #[inline(always)]
    pub const fn see(self, packet: Self) -> (Self, Place) {
        if self.tag != packet.tag {
            return (packet, Place::First);
        }
        if u32::from_ne_bytes(self.source) != u32::from_ne_bytes(packet.source) {
            return (packet, Place::NewSource);
        }
        let ahead = packet.highest.wrapping_sub(self.highest);
        if ahead < MAX_DROPOUT {
            (packet, Place::Ahead(ahead))
        } else if ahead.wrapping_neg() < MAX_MISORDER {
            (self, Place::Late)
        } else {
            (packet, Place::Restart)
        }
    }
}

/// Packets missing, of those expected and those forwarded over the same time. Duplicates may make them fewer than none.
pub const fn missing(expected: u64, forwarded: u64) -> u64 {
    expected.saturating_sub(forwarded)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use core::mem::{align_of, offset_of, size_of};
    use std::vec::Vec;

    proptest::proptest! {
        /// Peers say the clock rate, the timestamps and when they come.
        #[test]
        fn no_clock_rate_is_too_much(
            clock_rate_hz: u32,
            packets in proptest::collection::vec(proptest::prelude::any::<(u16, u32, u64)>(), 0..20),
        ) {
            for clock_rate_hz in [clock_rate_hz, u32::MAX - clock_rate_hz % 1000] {
                let mut slot = StreamSlot { clock_rate_hz, ..StreamSlot::default() };
                for (sequence, timestamp, arrival_ns) in &packets {
                    let (sequence, timestamp) = (*sequence, *timestamp);
                    slot.hear(1, Heard { source: [1; 4], sequence, timestamp, payload_type: 0 }, *arrival_ns);
                    let _ = slot.jitter_us();
                }
            }
        }
    }

    #[test]
    fn layout_is_locked() {
        assert_eq!((size_of::<StreamSlot>(), align_of::<StreamSlot>()), (64, 64));
        assert_eq!(
            (
                offset_of!(StreamSlot, run),
                offset_of!(StreamSlot, expected),
                offset_of!(StreamSlot, over_rate),
                offset_of!(StreamSlot, window_began),
                offset_of!(StreamSlot, window_packets),
                offset_of!(StreamSlot, timestamp),
                offset_of!(StreamSlot, clock_rate_hz),
                offset_of!(StreamSlot, limit),
                offset_of!(StreamSlot, source_changes)
            ),
            (0, 8, 12, 16, 20, 22, 24, 28, 30)
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
        let memory: [u64; StreamSlot::WORDS] =
            core::array::from_fn(|n| 0x0123_4567_89ab_cdef_u64.wrapping_mul(n as u64 + 1));
        // SAFETY: a slot is 64 bytes without padding, of which any bit pattern is a value.
        let slot: StreamSlot = unsafe { core::mem::transmute(memory) };
        assert_eq!((StreamSlot::from_words(memory), slot.to_words()), (slot, memory));
        let run = Run { source: [1, 2, 3, 4], highest: 0x0506, tag: 0x0708 };
        assert_eq!(Run::from_word(run.to_word()), run);
    }

    /// A stream that hears packets of generation 1.
    fn hears(packets: &[(u8, u16, u32, u8, u64)], clock_rate_hz: u32) -> StreamSlot {
        let mut slot = StreamSlot { clock_rate_hz, ..StreamSlot::default() };
        for (source, sequence, timestamp, payload_type, arrival_ns) in packets {
            let heard = Heard {
                source: [*source; 4],
                sequence: *sequence,
                timestamp: *timestamp,
                payload_type: *payload_type,
            };
            slot.hear(1, heard, *arrival_ns);
        }
        slot
    }

    #[test]
    fn order_payload_types_and_sources_are_counted() {
        let slot = hears(
            &[
                (1, 10, 0, 0, 0),
                (1, 12, 0, 0, 0),
                (1, 11, 0, 101, 0), // late: its type is no change
                (1, 12, 0, 0, 0),   // once more: neither late nor lost
                (1, 13, 0, 101, 0),
                (1, 14, 0, 0, 0),
                (2, 900, 0, 8, 0),
            ],
            0,
        );
        assert_eq!((slot.expected, slot.out_of_order), (6, 1));
        assert_eq!((slot.payload_type, slot.payload_type_changes, slot.source_changes), (8, 3, 1));
        assert_eq!((slot.jitter, slot.transit, slot.timestamp), (0, 0, 0), "without a clock rate");
        let mut slot = slot;
        let heard = Heard { source: [3; 4], sequence: 5, timestamp: 0, payload_type: 0 };
        slot.hear(2, heard, 0);
        assert_eq!((slot.payload_type_changes, slot.source_changes), (3, 1), "another flow changes nothing");
        assert_eq!((slot.payload_type, slot.expected), (0, 7));
    }

    #[test]
    fn heard_is_read_from_the_header() {
        let heard = Heard::from_header([0x80, 0xe5, 1, 2, 3, 4, 5, 6], [7, 8, 9, 10]);
        let expected =
            Heard { source: [7, 8, 9, 10], sequence: 0x0102, timestamp: 0x0304_0506, payload_type: 101 };
        assert_eq!(heard, expected);
    }

    const MS: u64 = 1_000_000;

    /// RFC 3550 A.8 in floating point, over (timestamp, arrival).
    fn jitter_us(clock_rate_hz: f64, packets: &[(u32, u64)]) -> f64 {
        let transit = |(timestamp, ns): (u32, u64)| ns as f64 * 1e-9 - f64::from(timestamp) / clock_rate_hz;
        let mut jitter = 0.0;
        for pair in packets.windows(2) {
            jitter += ((transit(pair[1]) - transit(pair[0])).abs() - jitter) / 16.0;
        }
        jitter * 1e6
    }

    #[test]
    fn jitter_is_that_of_rfc_3550() {
        for (rate, step) in [(8000u32, 160u32), (48_000, 960), (90_000, 1800)] {
            for delay_of in [|_| 0, |n: u64| (n * 7919 % 13) * MS, |n: u64| (n % 2) * 3 * MS] {
                // Days after the start of the clock, and across the end of the timestamps.
                let packets: Vec<(u32, u64)> = (0..500u64)
                    .map(|n| {
                        let timestamp = 0xffff_f000u32.wrapping_add(n as u32 * step);
                        (timestamp, 500_000_000 * MS + n * 20 * MS + delay_of(n))
                    })
                    .collect();
                let slot = {
                    let heard: Vec<_> = packets
                        .iter()
                        .enumerate()
                        .map(|(n, (timestamp, ns))| (1, n as u16, *timestamp, 0, *ns))
                        .collect();
                    hears(&heard, rate)
                };
                let unwrapped: Vec<(u32, u64)> =
                    packets.iter().enumerate().map(|(n, (_, ns))| (n as u32 * step, *ns)).collect();
                let (is, should) = (slot.jitter_us() as f64, jitter_us(f64::from(rate), &unwrapped));
                // Whole timestamp units are what the appendix computes in.
                let unit_us = 1e6 / f64::from(rate);
                assert!((is - should).abs() <= 1.5 * unit_us, "{rate} Hz: {is} us, should be {should}");
            }
        }
    }

    #[test]
    fn events_and_new_timestamps_are_no_jitter() {
        let voice = |n: u64| (1, n as u16, n as u32 * 160, 0, n * 20 * MS);
        let mut packets: Vec<_> = (0..10).map(voice).collect();
        packets.extend((10..20u64).map(|n| (1, n as u16, 1600, 101, n * 20 * MS)));
        packets.extend((20..30).map(voice));
        assert!(hears(&packets, 8000).jitter_us() < 125, "a telephone event keeps its timestamp");
        packets.extend((30..40u64).map(|n| (1, n as u16, n as u32 * 160 + 0x1234_5678, 0, n * 20 * MS)));
        assert!(hears(&packets, 8000).jitter_us() < 125, "music on hold has its own timestamps");
        packets.push((1, 40, 40 * 160 + 0x1234_5678, 0, (40 * 20 + 16) * MS));
        let slot = hears(&packets, 8000);
        assert!((900..1100).contains(&slot.jitter_us()), "{} us", slot.jitter_us());
        packets.push((2, 7, 99, 0, 900 * MS));
        assert_eq!(hears(&packets, 8000).jitter, 0, "another source begins anew");
    }

    #[test]
    fn a_window_lets_through_its_limit() {
        let mut slot = StreamSlot { limit: 3, ..StreamSlot::default() };
        let start = u32::MAX - 100; // The clock turns over inside the window.
        let mut at = |ticks: u32| slot.admits(start.wrapping_add(ticks));
        assert_eq!([at(0), at(1), at(2), at(3), at(1023)], [true, true, true, false, false]);
        assert_eq!([at(1024), at(1025), at(1026), at(2047), at(2048)], [true, true, true, false, true]);
        assert_eq!(slot.over_rate, 3);
        let mut unlimited = StreamSlot::default();
        assert!((0..100_000).all(|_| unlimited.admits(7)));
        assert_eq!(unlimited, StreamSlot::default());
    }

    /// What is missing after packets of (tag, source, sequence number).
    fn lost(packets: &[(u16, u8, u16)]) -> u64 {
        let mut slot = StreamSlot::default();
        for (tag, source, sequence) in packets {
            let heard = Heard { source: [*source; 4], sequence: *sequence, timestamp: 0, payload_type: 0 };
            slot.hear(*tag, heard, 0);
        }
        missing(u64::from(slot.expected), packets.len() as u64)
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
