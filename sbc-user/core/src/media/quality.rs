//! How a stream arrives at its two ends, by their own reports: what no counter of ours can see, because it happens behind
//! us. Of clear RTP only: encrypted reports cannot be read in passing. A party may report what it likes; these are
//! figures, nothing is decided by them.

use std::time::{Duration, Instant};

use crate::media::rtcp::{Block, Report};

/// Both ends of one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamQuality {
    /// Position of the m-line in the SDP.
    pub mline: u8,
    /// What the caller reports of what it hears.
    pub caller: EndQuality,
    /// What the callee reports.
    pub callee: EndQuality,
}

/// One end of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndQuality {
    /// What it reported, if it did.
    pub heard: Option<Heard>,
    /// Its last sender reports, and when they passed: the other end refers to them.
    sent: [Option<(u32, Instant)>; 4],
    next: usize,
}

/// What a party reports of the stream that it receives through us (RFC 3550 s.6.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Reports with such a block.
    pub reports: u64,
    /// Packets lost from the other party to it, as last reported. Negative: more copies than losses.
    pub lost: i32,
    /// Lost in the time of the last report, in 256ths of the packets expected.
    pub fraction_lost: u8,
    /// The most of that in any report.
    pub fraction_lost_max: u8,
    /// Interarrival jitter at it, microseconds, as last reported; `None` where the clock rate is not known.
    pub jitter_us: Option<u32>,
    /// The most in any report.
    pub jitter_us_max: Option<u32>,
    /// From us to it and back, microseconds, at the last report that tells.
    pub round_trip_us: Option<u32>,
    /// The most at any report.
    pub round_trip_us_max: Option<u32>,
}

/// A round trip that takes longer is a wrong report.
const ROUND_TRIP_LIMIT: Duration = Duration::from_secs(60);

impl StreamQuality {
    /// A report passed from one end to the other.
    pub fn take(&mut self, now: Instant, by_caller: bool, report: Report, clock_rate_hz: u32) {
        let (from, across) =
            if by_caller { (&mut self.caller, &self.callee) } else { (&mut self.callee, &self.caller) };
        if let Some(block) = report.received {
            let round_trip = across.round_trip(now, block);
            from.heard.get_or_insert_default().take(block, round_trip, clock_rate_hz);
        }
        if let Some(sent) = report.sent {
            from.sent[from.next] = Some((sent, now));
            from.next = (from.next + 1) % from.sent.len();
        }
    }
}

impl EndQuality {
    /// How long after the report of this end the other's answer to it came, its own delay taken off.
    fn round_trip(&self, now: Instant, answer: Block) -> Option<Duration> {
        let of = |(sent, _): &&(u32, Instant)| answer.last_report != 0 && *sent == answer.last_report;
        let (_, passed) = self.sent.iter().flatten().find(of)?;
        let delay = Duration::from_nanos(u64::from(answer.delay) * 1_000_000_000 / 65_536);
        let round_trip = now.saturating_duration_since(*passed).checked_sub(delay)?;
        (round_trip <= ROUND_TRIP_LIMIT).then_some(round_trip)
    }
}

impl Heard {
    fn take(&mut self, block: Block, round_trip: Option<Duration>, clock_rate_hz: u32) {
        self.reports = self.reports.saturating_add(1);
        self.lost = block.lost;
        self.fraction_lost = block.fraction_lost;
        self.fraction_lost_max = self.fraction_lost_max.max(block.fraction_lost);
        let jitter = (u64::from(block.jitter) * 1_000_000).checked_div(u64::from(clock_rate_hz));
        let jitter = jitter.map(|jitter| u32::try_from(jitter).unwrap_or(u32::MAX));
        self.jitter_us = jitter.or(self.jitter_us);
        self.jitter_us_max = self.jitter_us_max.max(jitter);
        let round_trip = round_trip.map(|it| u32::try_from(it.as_micros()).unwrap_or(u32::MAX));
        self.round_trip_us = round_trip.or(self.round_trip_us);
        self.round_trip_us_max = self.round_trip_us_max.max(round_trip);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods)] // Any instant will do as the origin; one cannot be made otherwise.
    fn the_way_to_an_end_and_back_is_what_its_answer_took_without_its_own_delay() {
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        let mut quality = StreamQuality::default();
        let report = |sent, received| Report { sent, received };
        let block = |last_report, delay, fraction_lost, jitter| {
            Some(Block { fraction_lost, lost: 5, jitter, last_report, delay })
        };
        quality.take(at(0), true, report(Some(77), None), 8000);
        // The callee waited for a second.
        quality.take(at(1040), false, report(Some(88), block(77, 65_536, 10, 80)), 8000);
        let heard = quality.callee.heard.unwrap();
        assert_eq!((heard.round_trip_us, heard.jitter_us), (Some(40_000), Some(10_000)));
        assert_eq!((heard.lost, heard.fraction_lost), (5, 10));
        assert_eq!(quality.caller.heard, None);
        // One that refers to nothing known, or to the future, tells no time; nor does one without a clock a jitter.
        for (last_report, delay) in [(0, 0), (99, 0), (77, u32::MAX)] {
            quality.take(at(2000), false, report(None, block(last_report, delay, 3, 160)), 0);
        }
        let heard = quality.callee.heard.unwrap();
        assert_eq!((heard.reports, heard.fraction_lost, heard.fraction_lost_max), (4, 3, 10));
        assert_eq!((heard.round_trip_us, heard.jitter_us), (Some(40_000), Some(10_000)));
        quality.take(at(2000), true, report(None, block(88, 0, 0, u32::MAX)), 1);
        assert_eq!(quality.caller.heard.unwrap().round_trip_us, Some(960_000));
        assert_eq!(quality.caller.heard.unwrap().jitter_us_max, Some(u32::MAX));
    }
}
