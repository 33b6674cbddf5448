//! The cold slot of a flow: how many packets it may have, and what they say of themselves.

use sbc_common::stream::{Heard, StreamSlot};

use crate::clock;
use crate::ctx::Stream;
use crate::outcome::DropReason;

/// A cold slot in the map.
#[derive(Clone, Copy)]
pub(super) struct Cold {
    stream: Stream,
    limit: u64,
}

impl Cold {
    /// The slot behind a pointer that a map lookup returned. Its memory is asked for at once: early in a packet's way it
    /// comes while the flow slot's does, and nothing waits for it.
    #[inline(always)]
    pub(super) fn at(pointer: *mut StreamSlot) -> Self {
        let stream = Stream::at(pointer);
        Self { stream, limit: stream.word::<{ StreamSlot::LIMIT }>() }
    }

    /// Counts a packet against the flow's rate.
    #[inline(always)]
    pub(super) fn admit(&self) -> Result<(), DropReason> {
        let mut words = [0; StreamSlot::WORDS];
        words[StreamSlot::LIMIT] = self.limit;
        if StreamSlot::from_words(words).limit == 0 {
            return Ok(());
        }
        words[StreamSlot::EXPECTED] = self.stream.word::<{ StreamSlot::EXPECTED }>();
        words[StreamSlot::WINDOW] = self.stream.word::<{ StreamSlot::WINDOW }>();
        let mut slot = StreamSlot::from_words(words);
        let within = slot.admits(clock::ticks());
        words = slot.to_words();
        if within {
            self.stream.set_word::<{ StreamSlot::WINDOW }>(words[StreamSlot::WINDOW]);
            Ok(())
        } else {
            self.stream.set_word::<{ StreamSlot::EXPECTED }>(words[StreamSlot::EXPECTED]);
            Err(DropReason::OverRate)
        }
    }

    /// Takes note of an RTP packet of a generation that was forwarded.
    #[inline(always)]
    pub(super) fn note(&self, generation: u16, heard: Heard) {
        let mut slot = StreamSlot::from_words([
            self.stream.word::<{ StreamSlot::RUN }>(),
            self.stream.word::<{ StreamSlot::EXPECTED }>(),
            self.stream.word::<{ StreamSlot::WINDOW }>(),
            self.limit,
            self.stream.word::<{ StreamSlot::JITTER }>(),
            self.stream.word::<{ StreamSlot::ORDER }>(),
            0,
            0,
        ]);
        let source_changes = slot.source_changes;
        if slot.clock_rate_hz == 0 {
            slot.hear(generation, heard, 0);
        } else {
            slot.hear(generation, heard, clock::now_ns());
            let words = slot.to_words();
            self.stream.set_word::<{ StreamSlot::WINDOW }>(words[StreamSlot::WINDOW]);
            self.stream.set_word::<{ StreamSlot::JITTER }>(words[StreamSlot::JITTER]);
        }
        let words = slot.to_words();
        self.stream.set_word::<{ StreamSlot::RUN }>(words[StreamSlot::RUN]);
        self.stream.set_word::<{ StreamSlot::EXPECTED }>(words[StreamSlot::EXPECTED]);
        self.stream.set_word::<{ StreamSlot::ORDER }>(words[StreamSlot::ORDER]);
        if slot.source_changes != source_changes {
            self.stream.set_last_quarter::<{ StreamSlot::LIMIT }>(slot.source_changes);
        }
    }
}
