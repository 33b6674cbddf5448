//! What the cases are written with: a plan, a packet, and what must become of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sbc_common::counter::Counter;
use sbc_core::config::Prefix;
use sbc_core::id::{CallId, OpId, RealmId};
use sbc_core::media::command::{DirectionCounters, MediaCommand, MediaDone, MediaEvent, MediaResult};
use sbc_core::media::plan::{
    LearnWindow, MediaPace, MediaPlan, PeerMedia, Placement, SourcePolicy, StreamPlan, StreamSide,
};

use super::{Addresses, Datagram, Wire};
use crate::dataplane::DataplaneEvent;

pub(super) const CALL: CallId = CallId(7);
pub(super) const OTHER: CallId = CallId(8);
/// Our ports of the first stream; the second stream's are [`NEXT`] above.
pub(super) const CALLER_PORT: u16 = 20_000;
pub(super) const CALLEE_PORT: u16 = 20_100;
/// The peers' ports.
pub(super) const CALLER: u16 = 30_000;
pub(super) const CALLEE: u16 = 30_030;
pub(super) const NEXT: u16 = 2;

/// Longest wait for a command's answer. None of the implementations comes near.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A wire with operation numbers and the events that have been heard.
pub(super) struct Bench<'a> {
    pub(super) wire: &'a mut dyn Wire,
    pub(super) at: Addresses,
    next_op: u64,
    sequence: u16,
    heard: Vec<MediaEvent>,
    reports: Vec<MediaEvent>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(wire: &'a mut dyn Wire) -> Self {
        let at = wire.addresses();
        Self { wire, at, next_op: 1, sequence: 1, heard: Vec::new(), reports: Vec::new() }
    }

    pub(super) fn now() -> Instant {
        Instant::now()
    }

    pub(super) fn apply(&mut self, command: MediaCommand) -> OpId {
        let op = OpId(self.next_op);
        self.next_op += 1;
        self.wire.dataplane().apply(Self::now(), op, command);
        op
    }

    /// Polls until as many commands are answered, and whatever else there is to hear.
    pub(super) fn answers(&mut self, count: usize) -> Vec<(OpId, MediaResult)> {
        let (mut answers, deadline) = (Vec::new(), Self::now() + PATIENCE);
        loop {
            self.poll(&mut answers);
            if answers.len() >= count {
                return answers;
            }
            let now = Self::now();
            assert!(now < deadline, "{} of {count} commands answered", answers.len());
            let wait = self.wire.dataplane().poll_timeout().map(|at| at.saturating_duration_since(now));
            std::thread::sleep(wait.unwrap_or_default().min(Duration::from_millis(5)));
            self.wire.dataplane().handle_timeout(Self::now());
        }
    }

    pub(super) fn poll(&mut self, answers: &mut Vec<(OpId, MediaResult)>) {
        while let Some(event) = self.wire.dataplane().poll_event() {
            match event {
                DataplaneEvent::Done { op, result } => answers.push((op, result)),
                DataplaneEvent::Media(event @ MediaEvent::Latched { .. }) => self.heard.push(event),
                DataplaneEvent::Media(event @ MediaEvent::Report { .. }) => self.reports.push(event),
                DataplaneEvent::Guard(event) => panic!("nobody floods: {event:?}"),
            }
        }
    }

    #[track_caller]
    pub(super) fn command(&mut self, command: MediaCommand) -> MediaResult {
        let op = self.apply(command);
        let mut answers = self.answers(1);
        assert_eq!(answers.len(), 1, "one answer to one command");
        let (answered, result) = answers.remove(0);
        assert_eq!(answered, op);
        result
    }

    #[track_caller]
    pub(super) fn install(&mut self, plan: &MediaPlan) {
        let placements = vec![self.wire.placement(); plan.streams.len()];
        let done = self.command(MediaCommand::Install(plan.clone()));
        assert_eq!(done, Ok(MediaDone { placements, counters: Vec::new() }));
    }

    /// Claims heard since the last time.
    #[track_caller]
    pub(super) fn claims(&mut self) -> Vec<MediaEvent> {
        self.wire.dataplane().handle_timeout(Self::now());
        let mut answers = Vec::new();
        self.poll(&mut answers);
        assert_eq!(answers, [], "nothing was asked");
        std::mem::take(&mut self.heard)
    }

    /// As many copies of RTCP packets as are expected, heard since the last time, and what more there is.
    #[track_caller]
    pub(super) fn reports(&mut self, expected: usize) -> Vec<MediaEvent> {
        let deadline = Self::now() + PATIENCE;
        loop {
            self.wire.dataplane().handle_timeout(Self::now());
            let mut answers = Vec::new();
            self.poll(&mut answers);
            assert_eq!(answers, [], "nothing was asked");
            if self.reports.len() >= expected || Self::now() >= deadline {
                return std::mem::take(&mut self.reports);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sends RTP (to an even port) or RTCP (to an odd one), and expects it to leave so, unchanged.
    #[track_caller]
    pub(super) fn passes(&mut self, from: SocketAddr, to: SocketAddr, via: SocketAddr, onwards: SocketAddr) {
        let payload = self.packet(to);
        let left = self.wire.deliver(from, to, &payload);
        assert_eq!(left, Some(Datagram { from: via, to: onwards, payload }), "from {from} to {to}");
    }

    /// Sends the same, and expects it to go nowhere.
    #[track_caller]
    pub(super) fn stops(&mut self, from: SocketAddr, to: SocketAddr) {
        let payload = self.packet(to);
        assert_eq!(self.wire.deliver(from, to, &payload), None, "from {from} to {to}");
    }

    /// Sends the same, and expects it to go nowhere for this reason.
    #[track_caller]
    pub(super) fn refused(&mut self, from: SocketAddr, to: SocketAddr, reason: Counter) {
        let before = self.wire.outcome(reason);
        self.stops(from, to);
        assert_eq!(self.wire.outcome(reason), before + 1, "{} from {from} to {to}", reason.name());
    }

    pub(super) fn packet(&mut self, to: SocketAddr) -> Vec<u8> {
        self.sequence += 1;
        if to.port().is_multiple_of(2) { rtp(self.sequence) } else { rtcp() }
    }

    pub(super) fn caller(&self) -> SocketAddr {
        SocketAddr::new(self.at.caller, CALLER)
    }

    pub(super) fn callee(&self) -> SocketAddr {
        SocketAddr::new(self.at.callee, CALLEE)
    }

    pub(super) fn callee_rtcp(&self) -> SocketAddr {
        up(self.callee(), 1)
    }

    pub(super) fn caller_local(&self) -> SocketAddr {
        SocketAddr::new(self.at.caller_local, CALLER_PORT)
    }

    pub(super) fn callee_local(&self) -> SocketAddr {
        SocketAddr::new(self.at.callee_local, CALLEE_PORT)
    }

    /// A call's plan of some streams, strict sources on both sides. The streams of `CALL` and `OTHER` share no port.
    pub(super) fn plan(&self, call: CallId, streams: u8) -> MediaPlan {
        let side = |realm, local_ip, local_rtp_port, peer: SocketAddr| StreamSide {
            realm,
            local_ip,
            local_rtp_port,
            peer: Some(media(peer)),
            source: SourcePolicy::Signalled,
            dscp: 46,
            rtcp_mux: false,
            pace: MediaPace::default(),
        };
        let offset = if call == CALL { 0 } else { 10 };
        let stream = |mline: u8| {
            let offset = offset + NEXT * u16::from(mline);
            StreamPlan {
                mline,
                caller: side(
                    RealmId(0),
                    self.at.caller_local,
                    CALLER_PORT + offset,
                    up(self.caller(), offset),
                ),
                callee: side(
                    RealmId(1),
                    self.at.callee_local,
                    CALLEE_PORT + offset,
                    up(self.callee(), offset),
                ),
            }
        };
        MediaPlan { call, streams: (0..streams).map(stream).collect() }
    }

    /// One stream, the caller's side of which learns from the caller's address.
    pub(super) fn learning_plan(&self) -> MediaPlan {
        let mut plan = self.plan(CALL, 1);
        plan.streams[0].caller.source = SourcePolicy::learn_from(self.at.caller);
        plan
    }

    pub(super) fn latched(&self, source: SocketAddr, rtcp: bool) -> MediaEvent {
        MediaEvent::Latched { call: CALL, mline: 0, caller_side: true, rtcp, source }
    }

    /// RTP packets, RTP bytes and RTCP packets by stream and direction.
    pub(super) fn counted(&mut self, call: CallId) -> Vec<[(u64, u64, u64); 2]> {
        let counters = self.wire.dataplane().counters(call);
        let kernel = self.wire.placement() == Placement::Kernel;
        let direction = |it: DirectionCounters| {
            let (ours, theirs) =
                if kernel { (it.rtp_kernel, it.rtp_relay) } else { (it.rtp_relay, it.rtp_kernel) };
            assert_eq!(theirs, 0, "counted by what carried it");
            (ours, it.rtp_bytes, it.rtcp)
        };
        counters.iter().map(|stream| [direction(stream.from_caller), direction(stream.from_callee)]).collect()
    }
}

/// Whoever has such an address may claim, while the window is open.
pub(super) fn opening(allowed: Prefix, opening: u32, open: bool) -> SourcePolicy {
    SourcePolicy::Learn { allowed, window: LearnWindow { opening, open } }
}

pub(super) fn media(rtp: SocketAddr) -> PeerMedia {
    PeerMedia { rtp, rtcp: up(rtp, 1) }
}

pub(super) fn up(address: SocketAddr, ports: u16) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port() + ports)
}

pub(super) const RTP_BYTES: usize = 172;
pub(super) const RTCP_BYTES: usize = 28;

/// 20 ms of G.711.
pub(super) fn rtp(sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x5a; RTP_BYTES];
    packet[..2].copy_from_slice(&[0x80, 0]);
    packet[2..4].copy_from_slice(&sequence.to_be_bytes());
    packet[8..12].copy_from_slice(&[1, 2, 3, 4]);
    packet
}

/// A sender report.
pub(super) fn rtcp() -> Vec<u8> {
    let mut packet = vec![0x5a; RTCP_BYTES];
    packet[..4].copy_from_slice(&[0x80, 200, 0, 6]);
    packet
}
