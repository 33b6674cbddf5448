//! One side of a relayed stream: from whom it accepts, where its packets go, and what it heard.

use std::net::SocketAddr;

use sbc_common::counter::Counter;
use sbc_common::flow::{MediaKind, PortKind, TICK_NS, TICK_SHIFT};
use sbc_common::limits::RTCP_PER_WINDOW;
use sbc_common::rtp::{self, MediaError as NotMedia};
use sbc_common::stream::{Heard, RATE_WINDOW_TICKS, StreamSlot, missing};
use sbc_core::media::command::DirectionCounters;
use sbc_core::media::plan::{MediaPace, Placement, SourcePolicy, StreamSide};

use crate::dataplane::carrier::keeps_claims;

/// One side of a stream, and what arrived on its ports.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) plan: StreamSide,
    /// By port: the side's only port's if RTP and RTCP share one.
    pub(super) learned: Learned,
    rtp: u64,
    rtp_bytes: u64,
    rtcp: u64,
    /// As the kernel keeps it.
    stream: StreamSlot,
    /// Of RTCP: its rate.
    reports: StreamSlot,
    /// The numbering that `stream` is in. Packets of another peer are no continuation of this one's.
    tag: u16,
}

/// Who claimed the ports of a side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Learned {
    pub(super) rtp: Option<SocketAddr>,
    pub(super) rtcp: Option<SocketAddr>,
}

/// What a side is to its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It carries it.
    Carrier,
    /// Another does, and leaves over what it cannot carry. Who may claim the ports is decided there, and what is seen here
    /// says nothing about the stream.
    Standby,
}

/// What a datagram is that a side accepted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Accepted {
    pub(super) kind: MediaKind,
    /// Whether its source claimed the port with it.
    pub(super) claimed: bool,
}

impl Side {
    /// As the plan says; of what it was before it keeps what still holds.
    pub(super) fn new(plan: StreamSide, old: Option<Self>) -> Self {
        let mut side = match old {
            Some(old) => {
                let (learned, tag) = if keeps_claims(&old.plan, &plan) {
                    (old.learned, old.tag)
                } else {
                    (Learned::default(), old.tag.checked_add(1).unwrap_or(1))
                };
                Self { plan, learned, tag, ..old }
            }
            None => Self {
                plan,
                learned: Learned::default(),
                rtp: 0,
                rtp_bytes: 0,
                rtcp: 0,
                stream: StreamSlot::default(),
                reports: StreamSlot { limit: RTCP_PER_WINDOW, ..StreamSlot::default() },
                tag: 1,
            },
        };
        let MediaPace { packets_per_second, clock_rate_hz } = side.plan.pace;
        if side.stream.clock_rate_hz != clock_rate_hz {
            // Sixteenths of another unit.
            side.stream.jitter = 0;
        }
        side.stream.clock_rate_hz = clock_rate_hz;
        side.stream.limit = limit(packets_per_second);
        side
    }

    /// Whether a datagram that arrived on a port of this side is what the port is for, and from where it may be. `is_ours`
    /// tells the ports of ours.
    pub(super) fn accept(
        &mut self,
        role: Role,
        port: MediaKind,
        from: SocketAddr,
        datagram: &[u8],
        is_ours: impl Fn(SocketAddr) -> bool,
    ) -> Result<Accepted, Counter> {
        let kind = self.carried(port, datagram)?;
        rtp::check(kind, datagram).map_err(reason)?;
        let claimed = self.admit(role, kind, from, is_ours)?;
        Ok(Accepted { kind, claimed })
    }

    /// Whether there are not too many, this one included.
    pub(super) fn within_rate(&mut self, kind: MediaKind, now_ns: u64) -> Result<(), Counter> {
        let within = match kind {
            MediaKind::Rtp => self.stream.admits(ticks(now_ns)),
            MediaKind::Rtcp => self.reports.admits(ticks(now_ns)),
        };
        if within { Ok(()) } else { Err(Counter::DropOverRate) }
    }

    /// What a datagram on a port is.
    fn carried(&self, port: MediaKind, datagram: &[u8]) -> Result<MediaKind, Counter> {
        let port = match (self.plan.rtcp_mux, port) {
            (false, MediaKind::Rtp) => PortKind::Rtp,
            (false, MediaKind::Rtcp) => PortKind::Rtcp,
            (true, MediaKind::Rtp) => PortKind::Muxed,
            (true, MediaKind::Rtcp) => return Err(Counter::DropNoFlow),
        };
        Ok(rtp::carried(port, datagram.get(1).copied().unwrap_or_default()))
    }

    /// Whether the source claims its port, if it may send at all.
    fn admit(
        &mut self,
        role: Role,
        kind: MediaKind,
        from: SocketAddr,
        is_ours: impl Fn(SocketAddr) -> bool,
    ) -> Result<bool, Counter> {
        let port = self.port_of(kind);
        let signalled = self.signalled(kind);
        let from_signalled = signalled == Some(from);
        let learned = match port {
            MediaKind::Rtp => &mut self.learned.rtp,
            MediaKind::Rtcp => &mut self.learned.rtcp,
        };
        let accepted = match (self.plan.source, *learned) {
            // What comes from a port of ours went through no NAT: nobody claims such a peer's place.
            (SourcePolicy::Learn { .. }, _) if signalled.is_some_and(is_ours) => from_signalled,
            (SourcePolicy::Learn { .. }, Some(source)) => source == from,
            (policy @ SourcePolicy::Learn { window, .. }, None) if window.open => {
                let may = policy.lets_claim(from);
                if may && role == Role::Carrier {
                    *learned = Some(from);
                    return Ok(true);
                }
                may
            }
            (SourcePolicy::Learn { .. }, None) | (SourcePolicy::Signalled, _) => from_signalled,
        };
        if accepted { Ok(false) } else { Err(Counter::DropWrongSource) }
    }

    /// Takes over that somebody claimed a port.
    pub(super) fn teach(&mut self, rtcp: bool, source: SocketAddr, role: Role) {
        let learned = if rtcp { &mut self.learned.rtcp } else { &mut self.learned.rtp };
        let learns = matches!(self.plan.source, SourcePolicy::Learn { .. });
        if learns && (learned.is_none() || role == Role::Standby) {
            *learned = Some(source);
        }
    }

    /// Counts a datagram that arrived here and goes on.
    pub(super) fn forwarded(&mut self, role: Role, kind: MediaKind, datagram: &[u8], now_ns: u64) {
        match kind {
            MediaKind::Rtp => {
                self.rtp += 1;
                self.rtp_bytes += datagram.len() as u64;
                if role == Role::Carrier
                    && let (Some(start), Some(&[.., a, b, c, d])) =
                        (datagram.first_chunk::<8>(), datagram.first_chunk::<12>())
                {
                    self.stream.hear(self.tag, Heard::from_header(*start, [a, b, c, d]), now_ns);
                }
            }
            MediaKind::Rtcp => self.rtcp += 1,
        }
    }

    /// What was counted as forwarded could not be sent after all.
    pub(super) fn not_sent(&mut self, kind: MediaKind, bytes: usize) {
        // The call may have got another plan meanwhile, whose streams count from zero.
        match kind {
            MediaKind::Rtp => {
                self.rtp = self.rtp.saturating_sub(1);
                self.rtp_bytes = self.rtp_bytes.saturating_sub(bytes as u64);
            }
            MediaKind::Rtcp => self.rtcp = self.rtcp.saturating_sub(1),
        }
    }

    /// Our port that packets to this side leave from.
    pub(super) fn via(&self, kind: MediaKind) -> SocketAddr {
        local(&self.plan, self.port_of(kind))
    }

    /// Where packets to this side go: to what it learned, else where signalling said; to a peer that is a port of ours
    /// in any case.
    pub(super) fn destination(
        &self,
        kind: MediaKind,
        is_ours: impl Fn(SocketAddr) -> bool,
    ) -> Option<SocketAddr> {
        let learned = match self.port_of(kind) {
            MediaKind::Rtp => self.learned.rtp,
            MediaKind::Rtcp => self.learned.rtcp,
        };
        let signalled = self.signalled(kind);
        learned.filter(|_| !signalled.is_some_and(is_ours)).or(signalled)
    }

    pub(super) fn counters(&self, placement: Placement) -> DirectionCounters {
        let (rtp_kernel, rtp_relay) = match placement {
            Placement::Kernel => (self.rtp, 0),
            Placement::Relay => (0, self.rtp),
        };
        let stream = &self.stream;
        DirectionCounters {
            rtp_kernel,
            rtp_relay,
            rtp_bytes: self.rtp_bytes,
            rtcp: self.rtcp,
            // Modulo 2^32 both, of which no call has as many.
            lost: (stream.run.tag != 0).then(|| missing(stream.expected.into(), self.rtp)),
            out_of_order: stream.out_of_order.into(),
            jitter_us: (stream.clock_rate_hz != 0 && stream.run.tag != 0)
                .then(|| u32::try_from(stream.jitter_us()).unwrap_or(u32::MAX)),
            payload_type_changes: stream.payload_type_changes.into(),
            source_changes: stream.source_changes.into(),
            over_rate: stream.over_rate.into(),
        }
    }

    /// The port that carries RTP or RTCP on this side.
    fn port_of(&self, kind: MediaKind) -> MediaKind {
        if self.plan.rtcp_mux { MediaKind::Rtp } else { kind }
    }

    fn signalled(&self, kind: MediaKind) -> Option<SocketAddr> {
        let peer = self.plan.peer?;
        let address = match self.port_of(kind) {
            MediaKind::Rtp => peer.rtp,
            MediaKind::Rtcp => peer.rtcp,
        };
        // A port of 0 or an address of 0.0.0.0 says that it does not receive.
        (address.port() != 0 && !address.ip().is_unspecified()).then_some(address)
    }
}

/// Our port on a side. RTP is even, so that setting the lowest bit is the next one.
pub(super) fn local(side: &StreamSide, port: MediaKind) -> SocketAddr {
    let port = match port {
        MediaKind::Rtp => side.local_rtp_port,
        MediaKind::Rtcp => side.local_rtp_port | 1,
    };
    SocketAddr::new(side.local_ip, port)
}

/// Packets that a rate window lets through, which is longer than a second.
fn limit(packets_per_second: u32) -> u16 {
    let window_ns = u64::from(RATE_WINDOW_TICKS) * TICK_NS;
    let packets = (u64::from(packets_per_second) * window_ns).div_ceil(1_000_000_000);
    u16::try_from(packets).unwrap_or(u16::MAX)
}

fn ticks(now_ns: u64) -> u32 {
    (now_ns >> TICK_SHIFT) as u32 // wraps, as the kernel's do
}

fn reason(error: NotMedia) -> Counter {
    match error {
        NotMedia::Short => Counter::DropShortMedia,
        NotMedia::Stun => Counter::DropStun,
        NotMedia::Dtls => Counter::DropDtls,
        NotMedia::NotRtp => Counter::DropNotRtp,
        NotMedia::WrongKind => Counter::DropWrongKind,
    }
}
