//! One of the two tables. They differ in where words lie and in how an address is written.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

use sbc_common::addr::Endpoint;
use sbc_common::flow::{Allowed, FlowHead, FlowSlot, FlowState, Learned, SlotIndex, Target};
use sbc_common::flow6::{Claim, ClaimPhase, FlowSlot6};
use sbc_common::stream::{Run, StreamSlot};

use super::{Body, Counted, Expected, Family};
use crate::dataplane::xdp::mapping::Words;

/// A table of slots and the table of streams beside it.
pub(crate) struct Table {
    family: Family,
    layout: Layout,
    slots: Words,
    streams: Words,
    count: u32,
}

/// Where a slot's words lie, as far as both tables have them.
struct Layout {
    words: usize,
    partner: usize,
    packets: usize,
    bytes: usize,
}

impl Layout {
    const fn of(family: Family) -> Self {
        match family {
            Family::V4 => Self {
                words: FlowSlot::WORDS,
                partner: FlowSlot::PARTNER,
                packets: FlowSlot::PACKETS,
                bytes: FlowSlot::BYTES,
            },
            Family::V6 => Self {
                words: FlowSlot6::WORDS,
                partner: FlowSlot6::PARTNER,
                packets: FlowSlot6::PACKETS,
                bytes: FlowSlot6::BYTES,
            },
        }
    }
}

const HEAD: usize = FlowSlot::HEAD;
const _: () = assert!(HEAD == FlowSlot6::HEAD, "both begin with the head");

impl Table {
    /// Maps the arrays behind two descriptors, of so many slots each.
    pub(crate) fn map(
        family: Family,
        slots: BorrowedFd<'_>,
        streams: BorrowedFd<'_>,
        count: u32,
    ) -> io::Result<Self> {
        let layout = Layout::of(family);
        Ok(Self {
            slots: Words::map(slots, count as usize * layout.words)?,
            streams: Words::map(streams, count as usize * StreamSlot::WORDS)?,
            family,
            layout,
            count,
        })
    }

    /// Tables that no kernel reads.
    #[cfg(test)]
    pub(crate) fn detached(family: Family, count: u32) -> io::Result<Self> {
        let layout = Layout::of(family);
        Ok(Self {
            slots: Words::detached(count as usize * layout.words)?,
            streams: Words::detached(count as usize * StreamSlot::WORDS)?,
            family,
            layout,
            count,
        })
    }

    fn at(&self, index: SlotIndex, word: usize) -> usize {
        assert!(index.0 < self.count && word < self.layout.words, "slot {index:?} is beyond the table");
        index.0 as usize * self.layout.words + word
    }

    fn load(&self, index: SlotIndex, word: usize) -> u64 {
        self.slots.word(self.at(index, word)).load(Ordering::Acquire)
    }

    fn store(&self, index: SlotIndex, word: usize, value: u64) {
        self.slots.word(self.at(index, word)).store(value, Ordering::Relaxed);
    }

    fn stream_at(&self, index: SlotIndex, word: usize) -> usize {
        assert!(index.0 < self.count && word < StreamSlot::WORDS, "slot {index:?} is beyond the table");
        index.0 as usize * StreamSlot::WORDS + word
    }

    /// The head. One that this version does not know reads as that of an empty slot.
    pub(super) fn head(&self, index: SlotIndex) -> FlowHead {
        FlowHead::from_word(self.load(index, HEAD)).unwrap_or_default()
    }

    pub(super) fn tags(&self, index: SlotIndex) -> [u16; 4] {
        let generation = self.head(index).generation;
        let run = self.streams.word(self.stream_at(index, StreamSlot::RUN)).load(Ordering::Acquire);
        let run = Run::from_word(run).tag;
        match self.family {
            Family::V4 => {
                let learned = |word| Learned::from_word(self.load(index, word)).tag;
                let source = learned(FlowSlot::LEARNED_SOURCE);
                [generation, run, source, learned(FlowSlot::LEARNED_DESTINATION)]
            }
            Family::V6 => {
                let [a, b, ..] = self.load(index, FlowSlot6::CLAIM).to_ne_bytes();
                [generation, run, u16::from_ne_bytes([a, b]), 0]
            }
        }
    }

    pub(super) fn learned(&self, index: SlotIndex, tag: u16) -> Option<SocketAddr> {
        match self.family {
            Family::V4 => {
                let learned = Learned::from_word(self.load(index, FlowSlot::LEARNED_SOURCE)).endpoint(tag)?;
                Some(SocketAddr::from((learned.address, learned.port())))
            }
            Family::V6 => {
                if Claim::phase_in(self.load(index, FlowSlot6::CLAIM), tag) != ClaimPhase::Claimed {
                    return None;
                }
                let word = |at| self.load(index, FlowSlot6::LEARNED_SOURCE + at).to_ne_bytes();
                let mut address = [0; 16];
                address[..8].copy_from_slice(&word(0));
                address[8..].copy_from_slice(&word(1));
                let [a, b, ..] = word(2);
                Some(SocketAddr::from((address, u16::from_be_bytes([a, b]))))
            }
        }
    }

    pub(super) fn counted(&self, index: SlotIndex) -> Counted {
        let cold = |word| self.stream_at(index, word);
        // What is expected first: a packet that comes between the loads must not look like one that is missing.
        let expected = self.streams.half(cold(StreamSlot::EXPECTED), 0).load(Ordering::Acquire);
        let half = |word, half| self.streams.half(cold(word), half).load(Ordering::Relaxed);
        let quarter = |word, quarter| self.streams.quarter(cold(word), quarter).load(Ordering::Relaxed);
        Counted {
            packets: self.load(index, self.layout.packets),
            bytes: self.load(index, self.layout.bytes),
            expected,
            over_rate: half(StreamSlot::EXPECTED, 1),
            source_changes: quarter(StreamSlot::LIMIT, 3),
            jitter: half(StreamSlot::JITTER, 0),
            out_of_order: half(StreamSlot::ORDER, 0),
            payload_type_changes: quarter(StreamSlot::ORDER, 3),
        }
    }

    pub(super) fn write_body(&self, index: SlotIndex, body: &Body) {
        match self.family {
            Family::V4 => self.write_v4(index, body),
            Family::V6 => self.write_v6(index, body),
        }
        let partner = self.at(index, self.layout.partner);
        self.slots.half(partner, 0).store(body.partner.0, Ordering::Relaxed);
        let limit = self.stream_at(index, StreamSlot::LIMIT);
        self.streams.half(limit, 0).store(body.clock_rate_hz, Ordering::Relaxed);
        self.streams.quarter(limit, 2).store(body.limit, Ordering::Relaxed);
    }

    fn write_v4(&self, index: SlotIndex, body: &Body) {
        let expected = match body.expected {
            Expected::Exactly(SocketAddr::V4(source)) => {
                Allowed::exactly(Endpoint::new(source.ip().octets(), source.port()))
            }
            Expected::AnyPort(allowed) => match allowed.addr {
                IpAddr::V4(address) => Allowed::any_port(address.octets(), allowed.len.min(32)),
                IpAddr::V6(_) => Allowed::NOBODY,
            },
            Expected::Exactly(SocketAddr::V6(_)) | Expected::Nobody => Allowed::NOBODY,
        };
        let (endpoint, address6) = match body.destination {
            None => (Endpoint::NONE, None),
            Some(SocketAddr::V4(to)) => (Endpoint::new(to.ip().octets(), to.port()), None),
            Some(SocketAddr::V6(to)) => (Endpoint::new([0; 4], to.port()), Some(to.ip().octets())),
        };
        if let Some(address) = address6 {
            let [high, low] = halves(address);
            let words = [(0, high), (1, low)].map(|(at, value)| {
                (self.streams.word(self.stream_at(index, StreamSlot::DESTINATION6 + at)), value)
            });
            if words.iter().any(|(word, value)| word.load(Ordering::Relaxed) != *value) {
                self.withdraw(index);
                words.into_iter().for_each(|(word, value)| word.store(value, Ordering::Relaxed));
            }
        }
        self.store(index, FlowSlot::EXPECTED, expected.to_word());
        self.store(index, FlowSlot::DESTINATION, Target::new(endpoint, body.dscp, body.ttl).to_word());
    }

    fn write_v6(&self, index: SlotIndex, body: &Body) {
        let (address, port, prefix) = match body.expected {
            Expected::Exactly(source) => (octets6(source.ip()), source.port(), 128),
            Expected::AnyPort(allowed) => (octets6(allowed.addr), 0, allowed.len.min(128)),
            Expected::Nobody => ([0; 16], 0, 128),
        };
        let ([high, low], [a, b]) = (halves(address), port.to_be_bytes());
        let expected = [high, low, u64::from_ne_bytes([a, b, prefix, 0, 0, 0, 0, 0])];
        let (address, port) = body.destination.map_or(([0; 16], 0), |to| (octets6(to.ip()), to.port()));
        let ([high, low], [a, b]) = (halves(address), port.to_be_bytes());
        let destination = [high, low, u64::from_ne_bytes([a, b, body.dscp, body.ttl, 0, 0, 0, 0])];
        for (first, values) in [(FlowSlot6::EXPECTED, expected), (FlowSlot6::DESTINATION, destination)] {
            if (0..3).any(|at| self.load(index, first + at) != values[at]) {
                self.withdraw(index);
                (0..3).for_each(|at| self.store(index, first + at, values[at]));
            }
        }
    }

    /// The daemon's words, for a comparison.
    pub(super) fn written(&self, index: SlotIndex) -> Vec<u64> {
        let (expected, destination, length) = match self.family {
            Family::V4 => (FlowSlot::EXPECTED, FlowSlot::DESTINATION, 1),
            Family::V6 => (FlowSlot6::EXPECTED, FlowSlot6::DESTINATION, 3),
        };
        let mut words = vec![self.load(index, HEAD), self.partner(index).0.into()];
        for first in [expected, destination] {
            words.extend((first..first + length).map(|word| self.load(index, word)));
        }
        let limit = self.stream_at(index, StreamSlot::LIMIT);
        words.push(self.streams.half(limit, 0).load(Ordering::Acquire).into());
        words.push(self.streams.quarter(limit, 2).load(Ordering::Acquire).into());
        words.extend((0..2).map(|at| {
            self.streams.word(self.stream_at(index, StreamSlot::DESTINATION6 + at)).load(Ordering::Acquire)
        }));
        words
    }

    pub(super) fn publish(&self, index: SlotIndex, head: FlowHead) {
        self.slots.word(self.at(index, HEAD)).store(head.to_word(), Ordering::Release);
    }

    pub(super) fn withdraw(&self, index: SlotIndex) {
        self.publish(index, FlowHead { state: FlowState::Idle, next_hop: 0, ..self.head(index) });
    }

    /// The slots that are not empty.
    pub(super) fn live(&self) -> impl Iterator<Item = SlotIndex> + use<'_> {
        // Only the state's byte: an untouched page of the table is not worth more loads per slot.
        let state = |index| self.slots.word(self.at(index, HEAD)).load(Ordering::Relaxed).to_ne_bytes()[0];
        (0..self.count).map(SlotIndex).filter(move |index| state(*index) != FlowState::Idle as u8)
    }

    pub(super) fn partner(&self, index: SlotIndex) -> SlotIndex {
        SlotIndex(self.slots.half(self.at(index, self.layout.partner), 0).load(Ordering::Acquire))
    }
}

/// What a test needs to play the kernel, and to look at what was written.
#[cfg(test)]
impl Table {
    pub(crate) fn store_kernel_word(&self, index: SlotIndex, word: usize, value: u64) {
        self.store(index, word, value);
    }

    pub(crate) fn store_stream_word(&self, index: SlotIndex, word: usize, value: u64) {
        self.streams.word(self.stream_at(index, word)).store(value, Ordering::Relaxed);
    }

    pub(crate) fn stream_word(&self, index: SlotIndex, word: usize) -> u64 {
        self.streams.word(self.stream_at(index, word)).load(Ordering::Relaxed)
    }

    pub(crate) fn word(&self, index: SlotIndex, word: usize) -> u64 {
        self.load(index, word)
    }

    /// A slot of `FLOWS`.
    pub(crate) fn slot(&self, index: SlotIndex) -> FlowSlot {
        FlowSlot::from_words(std::array::from_fn(|word| self.load(index, word))).unwrap_or_default()
    }
}

/// An address in the form that `FLOWS6` has for both families (RFC 4291 section 2.5.5.2).
const fn octets6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

const fn halves(address: [u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
}

#[cfg(test)]
mod tests {
    use sbc_common::flow::{PortKind, Way};
    use sbc_core::config::Prefix;

    use super::*;

    fn head(state: FlowState) -> FlowHead {
        FlowHead { state, kind: PortKind::Rtcp, next_hop: 3, way: Way::V4, flags: 0, generation: 17 }
    }

    fn body(expected: Expected, destination: &str) -> Body {
        Body {
            expected,
            destination: Some(destination.parse().unwrap()),
            dscp: 46,
            ttl: 64,
            partner: SlotIndex(9),
            clock_rate_hz: 8000,
            limit: 120,
        }
    }

    #[test]
    fn a_published_slot_is_read_back_and_a_withdrawn_one_keeps_its_generation() {
        let table = Table::detached(Family::V4, 64).unwrap();
        let index = SlotIndex(7);
        let expected = Expected::Exactly("192.0.2.1:4000".parse().unwrap());
        table.store_stream_word(index, StreamSlot::LIMIT, u64::MAX);
        table.write_body(index, &body(expected, "198.51.100.1:5000"));
        table.publish(index, head(FlowState::Latched));
        let slot = table.slot(index);
        assert_eq!((slot.head, slot.partner), (head(FlowState::Latched), 9));
        assert_eq!(slot.expected, Allowed::exactly(Endpoint::new([192, 0, 2, 1], 4000)));
        assert_eq!(slot.destination, Target::new(Endpoint::new([198, 51, 100, 1], 5000), 46, 64));
        let limit = table.stream_word(index, StreamSlot::LIMIT).to_ne_bytes();
        assert_eq!((&limit[..4], &limit[4..6]), (&8000u32.to_ne_bytes()[..], &120u16.to_ne_bytes()[..]));
        assert_eq!(limit[6..], [0xff; 2], "the kernel's count stays");
        assert_eq!(table.slot(SlotIndex(8)), FlowSlot::default());
        assert_eq!(table.live().collect::<Vec<_>>(), [index]);
        table.withdraw(index);
        assert_eq!((table.head(index).state, table.head(index).generation), (FlowState::Idle, 17));
        assert_eq!(table.live().count(), 0);
    }

    #[test]
    fn an_ipv6_slot_holds_whole_addresses_and_is_withdrawn_while_they_change() {
        let table = Table::detached(Family::V6, 64).unwrap();
        let index = SlotIndex(7);
        let allowed = Prefix { addr: "2001:db8:1::".parse().unwrap(), len: 64 };
        table.write_body(index, &body(Expected::AnyPort(allowed), "[2001:db8::9]:5000"));
        let bytes = |first: usize| {
            [0, 1, 2].map(|at| table.word(index, first + at).to_ne_bytes()).as_flattened().to_vec()
        };
        let expected = bytes(FlowSlot6::EXPECTED);
        assert_eq!(expected[..6], [0x20, 1, 0xd, 0xb8, 0, 1]);
        assert_eq!(expected[16..], [0, 0, 64, 0, 0, 0, 0, 0]);
        let destination = bytes(FlowSlot6::DESTINATION);
        assert_eq!((destination[1], destination[15]), (1, 9));
        assert_eq!(destination[16..20], [0x13, 0x88, 46, 64]);

        table.publish(index, head(FlowState::Learning));
        table.write_body(index, &body(Expected::AnyPort(allowed), "[2001:db8::9]:5000"));
        assert_eq!(table.head(index).state, FlowState::Learning, "nothing changed");
        table.write_body(index, &body(Expected::AnyPort(allowed), "192.0.2.1:5000"));
        assert_eq!(table.head(index).state, FlowState::Idle, "until it is published again");
        assert_eq!(bytes(FlowSlot6::DESTINATION)[10..16], [0xff, 0xff, 192, 0, 2, 1]);
    }

    #[test]
    fn a_claim_of_an_ipv6_slot_counts_when_it_is_whole_and_in_its_generation() {
        let table = Table::detached(Family::V6, 64).unwrap();
        let index = SlotIndex(7);
        let claim = |tag, phase| Claim { tag, phase, unused: [0; 5] }.to_word();
        for (at, bytes) in
            [[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 5], [0x13, 0x88, 0, 0, 0, 0, 0, 0]]
                .into_iter()
                .enumerate()
        {
            table.store_kernel_word(index, FlowSlot6::LEARNED_SOURCE + at, u64::from_ne_bytes(bytes));
        }
        table.store_kernel_word(index, FlowSlot6::CLAIM, claim(17, ClaimPhase::Claiming));
        assert_eq!(table.learned(index, 17), None);
        table.store_kernel_word(index, FlowSlot6::CLAIM, claim(17, ClaimPhase::Claimed));
        assert_eq!(table.learned(index, 17), Some("[2001:db8::5]:5000".parse().unwrap()));
        assert_eq!(table.learned(index, 18), None);
        assert_eq!(table.tags(index), [0, 0, 17, 0]);
    }

    #[test]
    #[should_panic(expected = "beyond the table")]
    fn a_slot_beyond_the_table_is_never_touched() {
        Table::detached(Family::V4, 64).unwrap().withdraw(SlotIndex(64));
    }
}
