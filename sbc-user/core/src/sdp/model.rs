//! The lossless model: lines in their order and bytes, cut into the session's section and one per m-line, and beside
//! each section the few facts that the media path needs.

use std::fmt;
use std::net::IpAddr;

use bytes::Bytes;

use super::crypto;

/// A session description (RFC 8866).
#[derive(Clone, PartialEq, Eq)]
pub struct Sdp {
    pub(super) session: Section,
    pub(super) media: Vec<Media>,
}

impl Sdp {
    /// How many m-lines it has.
    #[must_use]
    pub const fn media_count(&self) -> usize {
        self.media.len()
    }

    /// The direction of a stream, from its own lines, else the session's (RFC 8866 s.6.7).
    pub(super) fn direction(&self, media: &Media) -> Direction {
        media.section.direction().or_else(|| self.session.direction()).unwrap_or(Direction::SendRecv)
    }

    /// Where a stream is received: its own c= line, else the session's.
    pub(super) fn connection(&self, media: &Media) -> Option<Connection> {
        media.section.connection.or(self.session.connection)
    }
}

/// Keys do not show.
impl fmt::Debug for Sdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sections = std::iter::once(&self.session).chain(self.media.iter().map(|media| &media.section));
        f.debug_list().entries(sections.flat_map(|section| &section.lines)).finish()
    }
}

/// What flows in a stream that the SBC carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// `m=audio`.
    Audio,
    /// `m=video`.
    Video,
}

/// Who sends in a stream, seen from the describing side (RFC 3264 s.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Both sides.
    SendRecv,
    /// The describing side only: the other is on hold.
    SendOnly,
    /// The other side only.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    /// The attribute that says so.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    fn of(attribute: &[u8]) -> Option<Self> {
        [Self::SendRecv, Self::SendOnly, Self::RecvOnly, Self::Inactive]
            .into_iter()
            .find(|direction| attribute.eq_ignore_ascii_case(direction.name().as_bytes()))
    }

    /// The same for a side that cannot receive, as `c=IN IP4 0.0.0.0` says (RFC 3264 s.8.4).
    pub(super) const fn without_receiving(self) -> Self {
        match self {
            Self::SendRecv | Self::SendOnly => Self::SendOnly,
            Self::RecvOnly | Self::Inactive => Self::Inactive,
        }
    }
}

/// What a c= line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connection {
    /// One host.
    Unicast(IpAddr),
    /// `0.0.0.0`, `::` or a name under `.invalid`: nothing can be sent there; the old form of hold (RFC 3264 s.8.4,
    /// RFC 6337 s.5.4).
    Nowhere,
    /// A multicast or broadcast address.
    NotUnicast,
    /// A name, or another kind of network.
    NotAnAddress,
}

/// The session's lines, or one m-line and what belongs to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) lines: Vec<Line>,
    /// Of the first c= line.
    pub(super) connection: Option<Connection>,
}

impl Section {
    pub(super) fn attributes(&self) -> impl Iterator<Item = Attribute<'_>> {
        self.lines.iter().filter_map(Line::attribute)
    }

    pub(super) fn attribute(&self, name: &str) -> Option<Attribute<'_>> {
        self.attributes().find(|attribute| attribute.is(name))
    }

    fn direction(&self) -> Option<Direction> {
        self.lines.iter().find_map(Line::direction)
    }
}

/// One m-line and what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Media {
    /// The m= line is its first.
    pub(super) section: Section,
    /// `audio`, `video`, `application`, …
    pub(super) media: String,
    /// 0: rejected or disabled.
    pub(super) port: u16,
    /// Consecutive port pairs (`49170/2`), where it says so.
    pub(super) port_count: Option<u16>,
    /// `RTP/AVP` and its like.
    pub(super) proto: String,
    /// Formats, as they came.
    pub(super) fmt: String,
}

impl Media {
    /// `Some` for the kinds that the SBC carries.
    pub(super) fn kind(&self) -> Option<MediaKind> {
        if self.media.eq_ignore_ascii_case("audio") {
            Some(MediaKind::Audio)
        } else if self.media.eq_ignore_ascii_case("video") {
            Some(MediaKind::Video)
        } else {
            None
        }
    }

    /// Whether its packets are SRTP, however their keys are exchanged.
    pub(super) fn is_secure(&self) -> bool {
        let proto = self.proto.to_ascii_uppercase();
        proto.ends_with("/SAVP") || proto.ends_with("/SAVPF")
    }
}

/// One line, without its terminator.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Line(pub(super) Bytes);

impl Line {
    pub(super) fn new(text: String) -> Self {
        Self(Bytes::from(text))
    }

    /// Type letter and value. `None`: not of the form `x=…`; such a line is kept where it is. Blanks before the type
    /// are a known fault and mean nothing.
    pub(super) fn split(&self) -> Option<(u8, &[u8])> {
        match self.0.trim_ascii_start() {
            [kind, b'=', value @ ..] => Some((*kind, value)),
            _ => None,
        }
    }

    pub(super) fn is(&self, kind: u8) -> bool {
        self.split().is_some_and(|(it, _)| it == kind)
    }

    pub(super) fn attribute(&self) -> Option<Attribute<'_>> {
        let (b'a', value) = self.split()? else { return None };
        Some(match value.iter().position(|byte| *byte == b':') {
            Some(colon) => {
                Attribute { name: value[..colon].trim_ascii(), value: value[colon + 1..].trim_ascii() }
            }
            None => Attribute { name: value.trim_ascii(), value: b"" },
        })
    }

    pub(super) fn direction(&self) -> Option<Direction> {
        Direction::of(self.attribute()?.name)
    }
}

/// Keys do not show.
impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&crypto::without_keys(self), f)
    }
}

/// An a= line.
#[derive(Clone, Copy)]
pub(super) struct Attribute<'a> {
    pub(super) name: &'a [u8],
    /// What follows the colon; empty for a property attribute.
    pub(super) value: &'a [u8],
}

impl Attribute<'_> {
    /// Names are case-sensitive by RFC 8866; a peer that is not would get past us with `a=Candidate`.
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}
