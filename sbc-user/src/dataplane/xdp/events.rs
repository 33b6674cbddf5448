//! Records of the ring buffers.

use aya::maps::{MapData, RingBuf};
use sbc_common::event::{Event, Report};

/// Reports that are taken at once. There may be more: a flood of them must not keep the daemon from anything else.
pub(crate) const REPORTS_AT_ONCE: usize = 512;

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

/// Hands the waiting reports over; says whether there may be more.
pub(crate) fn reports(ring: &mut RingBuf<MapData>, mut hear: impl FnMut(Report<'_>)) -> bool {
    for _ in 0..REPORTS_AT_ONCE {
        let Some(record) = ring.next() else { return false };
        match Report::from_bytes(&record) {
            Some(report) => hear(report),
            None => tracing::warn!(bytes = record.len(), "a report of an unknown kind"),
        }
    }
    true
}
