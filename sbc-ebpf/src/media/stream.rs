//! The cold slot of a flow: how many packets it may have, and what they say of themselves.

use sbc_common::stream::StreamSlot;

use super::payload::Media;
use crate::clock;
use crate::ctx::Stream;
use crate::outcome::DropReason;

/// A cold slot and what was read of it.
pub(super) struct Cold {
    stream: Stream,
    slot: StreamSlot,
}

impl Cold {
    /// Reads the slot behind a pointer that a map lookup returned. Nothing waits for it here: the memory is on its way
    /// while the packet is judged by other things.
    #[inline(always)]
    pub(super) fn at(pointer: *mut StreamSlot) -> Self {
        let stream = Stream::at(pointer);
        let slot = StreamSlot::from_words([
            stream.word::<{ StreamSlot::RUN }>(),
            stream.word::<{ StreamSlot::EXPECTED }>(),
            stream.word::<{ StreamSlot::WINDOW }>(),
            stream.word::<{ StreamSlot::LIMIT }>(),
            stream.word::<{ StreamSlot::JITTER }>(),
            stream.word::<{ StreamSlot::ORDER }>(),
            0,
            0,
        ]);
        Self { stream, slot }
    }

    /// Counts a packet against the flow's rate.
    #[inline(always)]
    pub(super) fn admit(&mut self) -> Result<(), DropReason> {
        if self.slot.limit == 0 {
            return Ok(());
        }
        let within = self.slot.admits(clock::ticks());
        let words = self.slot.to_words();
        if within {
            self.stream.set_word::<{ StreamSlot::WINDOW }>(words[StreamSlot::WINDOW]);
            Ok(())
        } else {
            self.stream.set_word::<{ StreamSlot::EXPECTED }>(words[StreamSlot::EXPECTED]);
            Err(DropReason::OverRate)
        }
    }

    /// Takes note of a packet of a generation that was forwarded.
    #[inline(always)]
    pub(super) fn note(mut self, generation: u16, media: &Media) {
        let Media::Rtp(heard) = media else { return };
        let source_changes = self.slot.source_changes;
        if self.slot.clock_rate_hz == 0 {
            self.slot.hear(generation, *heard, 0);
        } else {
            self.slot.hear(generation, *heard, clock::now_ns());
            let words = self.slot.to_words();
            self.stream.set_word::<{ StreamSlot::WINDOW }>(words[StreamSlot::WINDOW]);
            self.stream.set_word::<{ StreamSlot::JITTER }>(words[StreamSlot::JITTER]);
        }
        let words = self.slot.to_words();
        self.stream.set_word::<{ StreamSlot::RUN }>(words[StreamSlot::RUN]);
        self.stream.set_word::<{ StreamSlot::EXPECTED }>(words[StreamSlot::EXPECTED]);
        self.stream.set_word::<{ StreamSlot::ORDER }>(words[StreamSlot::ORDER]);
        if self.slot.source_changes != source_changes {
            self.stream.set_last_quarter::<{ StreamSlot::LIMIT }>(self.slot.source_changes);
        }
    }
}
