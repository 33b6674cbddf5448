//! Which packets the tracing program tells about, and how many of them.
//!
//! Traces are made by a program of their own that takes the place of the ordinary one while a trace runs: what is not
//! traced costs nothing, because the code is not there.

use crate::guard::MappedAddress;
use crate::window::{Limit, Window};

/// Packets told of in [`WINDOW_TICKS`]; the rest are counted.
pub const LINES: u32 = 100;

/// Time of the window, ticks of [`crate::flow::TICK_NS`]: about a second.
pub const WINDOW_TICKS: u32 = 954;

/// `kind` of a [`TraceFilter`]: packets from the address, whatever they are.
pub const SOURCE: u8 = 1;
/// `kind` of a [`TraceFilter`]: packets that come from or go to the address and port, on their way in or out.
pub const FLOW: u8 = 2;

/// The one entry of `TRACE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceFilter {
    /// How many were told of. The program's.
    pub window: Window,
    /// Packets that were not told of because there were too many. The program's.
    pub suppressed: u64,
    /// When it ends, nanoseconds of the monotonic clock; 0: it has not begun.
    pub until_ns: u64,
    /// How many are told of.
    pub limit: Limit,
    /// The address.
    pub address: MappedAddress,
    /// The port of a flow, network order.
    pub port: [u8; 2],
    /// [`SOURCE`] or [`FLOW`].
    pub kind: u8,
    /// Always zero.
    pub unused: [u8; 5],
}

/// What a packet says of where it comes from and goes to.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// From this address.
    pub from: MappedAddress,
    /// To this one.
    pub to: MappedAddress,
    /// From this port, network order; 0 where ports are not read.
    pub from_port: [u8; 2],
    /// To this one.
    pub to_port: [u8; 2],
    /// Length of the frame.
    pub frame_bytes: u32,
}

impl TraceFilter {
    /// Whether a packet is chosen: one that came as `before` and leaves as `after`, or not at all.
    #[inline(always)]
    #[must_use]
    pub fn chooses(&self, before: &Ends, after: &Ends) -> bool {
        if self.kind == SOURCE {
            return before.from == self.address;
        }
        let is = |address: &MappedAddress, port: [u8; 2]| *address == self.address && port == self.port;
        is(&before.from, before.from_port)
            || is(&before.to, before.to_port)
            || is(&after.from, after.from_port)
            || is(&after.to, after.to_port)
    }
}

#[cfg(test)]
mod tests {
    use core::mem::{align_of, offset_of, size_of};

    use super::*;
    use crate::guard::mapped;

    #[test]
    fn layout_is_locked() {
        assert_eq!((size_of::<TraceFilter>(), align_of::<TraceFilter>()), (56, 8));
        assert_eq!(
            (
                offset_of!(TraceFilter, window),
                offset_of!(TraceFilter, suppressed),
                offset_of!(TraceFilter, until_ns),
                offset_of!(TraceFilter, limit),
                offset_of!(TraceFilter, address),
                offset_of!(TraceFilter, port),
                offset_of!(TraceFilter, kind)
            ),
            (0, 8, 16, 24, 32, 48, 50)
        );
        assert_eq!((size_of::<Ends>(), align_of::<Ends>()), (40, 4));
    }

    #[test]
    fn a_flow_is_seen_from_both_ends_and_a_source_from_its_own() {
        let ends = |from, from_port: u16, to, to_port: u16| Ends {
            from: mapped([192, 0, 2, from]),
            to: mapped([192, 0, 2, to]),
            from_port: from_port.to_be_bytes(),
            to_port: to_port.to_be_bytes(),
            frame_bytes: 100,
        };
        let (before, after) = (ends(9, 4000, 1, 20_000), ends(1, 20_002, 8, 5000));
        let filter = |kind, last, port: u16| TraceFilter {
            kind,
            address: mapped([192, 0, 2, last]),
            port: port.to_be_bytes(),
            ..TraceFilter::default()
        };
        for (last, port) in [(9, 4000), (1, 20_000), (1, 20_002), (8, 5000)] {
            assert!(filter(FLOW, last, port).chooses(&before, &after), "{last}:{port}");
        }
        assert!(!filter(FLOW, 9, 20_000).chooses(&before, &after));
        assert!(filter(SOURCE, 9, 0).chooses(&before, &after));
        assert!(!filter(SOURCE, 8, 0).chooses(&before, &after));
    }
}
