//! Peers that only flows reach which we opened (R-TMS-2): when a stream carries nothing, nobody may be able to begin.
//!
//! Two looks soon after the answer, because two parties that wait for each other wait in vain; then one at every half of
//! the time after which a NAT or firewall may forget a flow, so that a flow is never without a packet for longer than
//! that time, on hold as well. Packets of either side keep a flow open, those of the other side too: they leave to here.

use std::time::Duration;

use crate::media::command::StreamCounters;

/// After the answer, and after the look before.
const SOON: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(1500)];

/// What the last look saw.
#[derive(Debug, Default)]
pub(super) struct Pinholes {
    looks: usize,
    packets: Vec<(u8, u64)>,
}

impl Pinholes {
    /// Time until the next look, of flows that may be without a packet for `most`.
    pub(super) fn next_look(&self, most: Duration) -> Duration {
        SOON.get(self.looks).copied().unwrap_or(most / 2)
    }

    /// Looks soon again.
    pub(super) const fn restart(&mut self) {
        self.looks = 0;
    }

    /// Takes in a look: the streams that have carried nothing since the one before, or ever.
    pub(super) fn look(&mut self, counters: &[StreamCounters]) -> Vec<u8> {
        self.looks = self.looks.saturating_add(1);
        let packets: Vec<_> = counters.iter().map(|stream| (stream.mline, stream.packets())).collect();
        let before =
            |mline: u8| self.packets.iter().find(|(it, _)| *it == mline).map_or(0, |(_, count)| *count);
        let idle = packets
            .iter()
            .filter(|(mline, count)| before(*mline) == *count)
            .map(|(mline, _)| *mline)
            .collect();
        self.packets = packets;
        idle
    }
}
