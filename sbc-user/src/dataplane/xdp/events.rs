//! Records of the ring buffer.

use aya::maps::{MapData, RingBuf};
use sbc_common::event::Event;

/// The next event; records that this version does not know are passed over.
pub(crate) fn next(ring: &mut RingBuf<MapData>) -> Option<Event> {
    while let Some(record) = ring.next() {
        match Event::from_bytes(&record) {
            Some(event) => return Some(event),
            None => tracing::warn!(bytes = record.len(), "an event of an unknown kind"),
        }
    }
    None
}
