//! Anchoring: what a peer's description means for the media path, and the same description with this SBC in the middle.
//!
//! [`survey`] reads who receives where; [`rewrite`] puts our address and ports in its place and takes away what works
//! only end to end or names the other side: ICE (RFC 8839), BUNDLE (RFC 8843), capability negotiation (RFC 5939), DTLS
//! fingerprints. Whether RTP and RTCP share a port (RFC 5761) is agreed with each side for itself. Keys of SDES (RFC
//! 4568) pass. Everything else stays byte for byte.

use std::net::{IpAddr, SocketAddr};

use super::crypto;
use super::formats::{self, Formats};
use super::model::{Attribute, Connection, Direction, Line, Media, MediaKind, Sdp, Section};
use crate::mention::mentions;
use crate::peer_media::PeerMedia;

/// What a description asks of the media path, by m-line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// In the order of the m-lines.
    pub streams: Vec<Stream>,
}

/// One m-line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Carried by this SBC.
    Relay(Relayed),
    /// Port 0: rejected or switched off by the peer.
    Disabled,
    /// Of a kind that is not carried (T.38, application, message …): answered with port 0.
    Reject,
}

/// A stream that this SBC carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// Where the peer receives, if RTP and RTCP have ports of their own. `None`: nowhere at present
    /// (`c=IN IP4 0.0.0.0`, the old form of hold).
    pub peer: Option<PeerMedia>,
    /// Audio or video.
    pub kind: MediaKind,
    /// Whether its packets are in the clear.
    pub crypto: Crypto,
    /// Who sends, seen from the peer.
    pub direction: Direction,
    /// Whether RTP and RTCP may share a port.
    pub mux: Mux,
    /// What its codecs ask of whoever sends.
    pub formats: Formats,
}

/// Whether RTP and RTCP share a port (RFC 5761).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mux {
    /// They do not.
    Separate,
    /// They may, or, in an answer, they do.
    Shared,
    /// They must (RFC 8858).
    Only,
}

/// How a carried stream is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Crypto {
    /// Plain RTP.
    Clear,
    /// SRTP, keys in the description. A source is never learned from such packets: they cannot be checked in passing.
    Sdes,
}

/// Why no call can be made of a description: 488 with [`Refusal::warn_code`] and this text as Warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A stream wants DTLS-SRTP.
    #[error("stream {mline}: DTLS-SRTP is not supported here, use SDES or plain RTP")]
    DtlsSrtp {
        /// Position of the m-line.
        mline: usize,
    },
    /// There are streams, but none that this SBC carries.
    #[error("no audio or video stream over RTP")]
    NothingToCarry,
    /// A stream without an address.
    #[error("stream {mline}: no c= line")]
    NoConnection {
        /// Position of the m-line.
        mline: usize,
    },
    /// A name or another network instead of an address.
    #[error("stream {mline}: an IP address is required in c=")]
    NotAnAddress {
        /// Position of the m-line.
        mline: usize,
    },
    /// A multicast or broadcast address.
    #[error("stream {mline}: a unicast address is required in c=")]
    NotUnicast {
        /// Position of the m-line.
        mline: usize,
    },
    /// An address of the family that this side of the SBC does not have.
    #[error("stream {mline}: address family not available on this side")]
    WrongFamily {
        /// Position of the m-line.
        mline: usize,
    },
}

impl Refusal {
    /// The warn-code (RFC 3261 s.20.43).
    #[must_use]
    pub const fn warn_code(self) -> u16 {
        match self {
            Self::DtlsSrtp { .. } => 302,
            Self::NothingToCarry => 304,
            Self::NoConnection { .. } | Self::NotAnAddress { .. } | Self::WrongFamily { .. } => 301,
            Self::NotUnicast { .. } => 330,
        }
    }
}

impl Survey {
    /// Whether every carried stream is in the family of `local`, our address on the peer's side.
    ///
    /// # Errors
    /// The first that is not.
    pub fn require_family(&self, local: IpAddr) -> Result<(), Refusal> {
        let foreign = self.streams.iter().position(|stream| match stream {
            Stream::Relay(relayed) => relayed.peer.is_some_and(|peer| peer.rtp.is_ipv4() != local.is_ipv4()),
            Stream::Disabled | Stream::Reject => false,
        });
        foreign.map_or(Ok(()), |mline| Err(Refusal::WrongFamily { mline }))
    }

    /// A carried stream.
    #[must_use]
    pub fn relayed(&self, mline: usize) -> Option<&Relayed> {
        match self.streams.get(mline)? {
            Stream::Relay(relayed) => Some(relayed),
            Stream::Disabled | Stream::Reject => None,
        }
    }

    /// Takes back a shared port wherever it may not be: an offer's `Only` stream is rejected then.
    ///
    /// # Errors
    /// Nothing is left to carry.
    pub fn allow_mux(&mut self, allowed: impl Fn(usize) -> bool) -> Result<(), Refusal> {
        for (mline, stream) in self.streams.iter_mut().enumerate() {
            match stream {
                _ if allowed(mline) => {}
                Stream::Relay(Relayed { mux: Mux::Only, .. }) => *stream = Stream::Reject,
                Stream::Relay(relayed) => relayed.mux = Mux::Separate,
                Stream::Disabled | Stream::Reject => {}
            }
        }
        self.require_any()
    }

    fn require_any(&self) -> Result<(), Refusal> {
        let carried = self.streams.iter().any(|stream| matches!(stream, Stream::Relay(_)));
        if !carried && self.streams.contains(&Stream::Reject) {
            return Err(Refusal::NothingToCarry);
        }
        Ok(())
    }
}

/// Reads what a description asks of the media path.
///
/// # Errors
/// If no call can be made of it.
pub fn survey(sdp: &Sdp) -> Result<Survey, Refusal> {
    let stream = |(mline, media)| survey_stream(sdp, mline, media);
    let streams = sdp.media.iter().enumerate().map(stream).collect::<Result<Vec<_>, _>>()?;
    let survey = Survey { streams };
    survey.require_any()?;
    Ok(survey)
}

fn survey_stream(sdp: &Sdp, mline: usize, media: &Media) -> Result<Stream, Refusal> {
    if media.port == 0 {
        return Ok(Stream::Disabled);
    }
    let Some(kind) = media.kind() else { return Ok(Stream::Reject) };
    let sdes = crypto::has_sdes(&media.section);
    match transport(&media.proto) {
        RtpTransport::Udp if media.is_secure() && !sdes && has_fingerprint(sdp, media) => {
            return Err(Refusal::DtlsSrtp { mline });
        }
        RtpTransport::Dtls => return Err(Refusal::DtlsSrtp { mline }),
        RtpTransport::Udp => {}
        RtpTransport::Other => return Ok(Stream::Reject),
    }
    if media.port_count.is_some_and(|count| count > 1) {
        return Ok(Stream::Reject);
    }
    let peer = match sdp.connection(media) {
        Some(Connection::Unicast(ip)) => match peer_media(media, ip) {
            Some(peer) => Some(peer),
            None => return Ok(Stream::Reject),
        },
        Some(Connection::Nowhere) => None,
        Some(Connection::NotUnicast) => return Err(Refusal::NotUnicast { mline }),
        Some(Connection::NotAnAddress) => return Err(Refusal::NotAnAddress { mline }),
        None => return Err(Refusal::NoConnection { mline }),
    };
    // A=crypto under RTP/AVP offers SRTP as well (RFC 8643): the packets may be either, so they count as SRTP.
    let crypto = if sdes || media.is_secure() { Crypto::Sdes } else { Crypto::Clear };
    let direction = effective_direction(sdp, media);
    let formats = formats::read(sdp, media, kind);
    Ok(Stream::Relay(Relayed { peer, kind, crypto, direction, mux: mux(media), formats }))
}

fn mux(media: &Media) -> Mux {
    if media.section.attribute("rtcp-mux-only").is_some() {
        Mux::Only
    } else if media.section.attribute("rtcp-mux").is_some() {
        Mux::Shared
    } else {
        Mux::Separate
    }
}

/// How RTP is transported, from the protocol field of an m= line.
#[derive(Clone, Copy)]
enum RtpTransport {
    Udp,
    /// Over UDP or TCP, keys by DTLS.
    Dtls,
    /// RTP in TCP, or not RTP.
    Other,
}

fn transport(proto: &str) -> RtpTransport {
    match proto.to_ascii_uppercase().as_str() {
        "RTP/AVP" | "RTP/AVPF" | "RTP/SAVP" | "RTP/SAVPF" => RtpTransport::Udp,
        proto if proto.contains("TLS/RTP/") => RtpTransport::Dtls,
        _ => RtpTransport::Other,
    }
}

fn has_fingerprint(sdp: &Sdp, media: &Media) -> bool {
    media.section.attribute("fingerprint").or_else(|| sdp.session.attribute("fingerprint")).is_some()
}

/// `None`: there is no port for RTCP.
fn peer_media(media: &Media, ip: IpAddr) -> Option<PeerMedia> {
    let rtp = SocketAddr::new(ip, media.port);
    let said = media
        .section
        .attribute("rtcp")
        .and_then(|it| str::from_utf8(it.value).ok()?.parse::<sdp_types::Rtcp>().ok());
    let rtcp = match said {
        Some(said) if said.port != 0 => {
            let ip = match said.try_address() {
                Some(Ok(address)) if address.ip.is_ipv4() == ip.is_ipv4() => {
                    match Connection::from(address.ip) {
                        Connection::Unicast(ip) => ip,
                        Connection::Nowhere | Connection::NotUnicast | Connection::NotAnAddress => ip,
                    }
                }
                Some(Ok(_) | Err(_)) | None => ip,
            };
            SocketAddr::new(ip, said.port)
        }
        Some(_) | None => SocketAddr::new(ip, media.port.checked_add(1)?),
    };
    Some(PeerMedia { rtp, rtcp })
}

fn effective_direction(sdp: &Sdp, media: &Media) -> Direction {
    let direction = sdp.direction(media);
    if sdp.connection(media) == Some(Connection::Nowhere) { direction.without_receiving() } else { direction }
}

/// This SBC's place in a description.
#[derive(Clone, Copy, Debug)]
pub struct Addressing<'a> {
    /// Our address as the receiver of the description must know it.
    pub advertised: IpAddr,
    /// Our RTP port for each m-line; RTCP is the next one. `None`, or missing: not carried, port 0.
    pub ports: &'a [Option<u16>],
    /// For each m-line whether RTCP may come to the RTP port as well; missing: it may not.
    pub rtcp_mux: &'a [bool],
    /// Our session id.
    pub session_id: u64,
    /// Our session version.
    pub session_version: u64,
}

/// The description with this SBC in the place of the side that made it.
#[must_use]
pub fn rewrite(sdp: &Sdp, to: &Addressing<'_>) -> Sdp {
    let origin =
        Line::new(format!("o=- {} {} {}", to.session_id, to.session_version, network(to.advertised)));
    let told = addresses_in(sdp, to.advertised);
    let mut lines = Vec::with_capacity(sdp.session.lines.len() + 1);
    for line in &sdp.session.lines {
        match line.split() {
            Some((b'v', _)) if lines.is_empty() => lines.extend([line.clone(), origin.clone()]),
            Some(_) | None => lines.extend(anchored(line, to.advertised, &told)),
        }
    }
    let session = section(lines, to.advertised);
    let media =
        sdp.media.iter().enumerate().map(|(mline, media)| match to.ports.get(mline).copied().flatten() {
            Some(port) => {
                let mux = to.rtcp_mux.get(mline).copied().unwrap_or(false);
                carried(sdp, media, port, mux, to.advertised, &told)
            }
            None => not_carried(media, to.advertised, &told),
        });
    Sdp { media: media.collect(), session }
}

fn carried(
    sdp: &Sdp,
    media: &Media,
    port: u16,
    rtcp_mux: bool,
    advertised: IpAddr,
    told: &[Vec<u8>],
) -> Media {
    let connection = sdp.connection(media);
    let mut lines = vec![media_line(media, port)];
    if connection.is_none() {
        lines.push(connection_line(advertised));
    }
    let hold = connection == Some(Connection::Nowhere);
    for line in media.section.lines.iter().skip(1) {
        if !(hold && line.direction().is_some()) {
            lines.extend(anchored(line, advertised, told));
        }
    }
    if hold {
        lines.push(Line::new(format!("a={}", effective_direction(sdp, media).name())));
    }
    // Never rtcp-mux-only, which asks too much of a peer, nor a=rtcp, which would only say what holds without it.
    if rtcp_mux {
        lines.push(Line::new("a=rtcp-mux".to_owned()));
    }
    Media { section: section(lines, advertised), port, port_count: None, ..media.clone() }
}

/// A rejected stream keeps its m-line and nothing that could name the other side.
fn not_carried(media: &Media, advertised: IpAddr, told: &[Vec<u8>]) -> Media {
    let rest = media.section.lines.iter().skip(1);
    let kept = rest.filter(|line| line.is(b'c') || line.attribute().is_some_and(|it| it.is("mid")));
    let lines =
        std::iter::once(media_line(media, 0)).chain(kept.filter_map(|line| anchored(line, advertised, told)));
    Media { section: section(lines.collect(), advertised), port: 0, port_count: None, ..media.clone() }
}

/// The addresses that a description gives for itself, ours left out: other lines may repeat them.
fn addresses_in(sdp: &Sdp, ours: IpAddr) -> Vec<Vec<u8>> {
    let ours = ours.to_string().into_bytes();
    let lines = sdp.session.lines.iter().chain(sdp.media.iter().flat_map(|media| &media.section.lines));
    let hosts = lines.filter_map(|line| match line.split()? {
        (b'o' | b'c', value) => value.rsplit(|byte| *byte == b' ').next()?.split(|byte| *byte == b'/').next(),
        _ => None,
    });
    let mut hosts: Vec<Vec<u8>> = hosts
        .filter(|host| host.contains(&b'.') || host.contains(&b':'))
        .map(<[u8]>::to_ascii_lowercase)
        .collect();
    hosts.retain(|host| *host != ours && host != b"0.0.0.0" && host != b"::");
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

/// A line as it leaves, if it does. `told`: the other side's addresses.
fn anchored(line: &Line, advertised: IpAddr, told: &[Vec<u8>]) -> Option<Line> {
    let tells = |value: &[u8]| {
        let value = value.to_ascii_lowercase();
        told.iter().any(|address| mentions(&value, address))
    };
    match line.split() {
        Some((b'c', _)) => Some(connection_line(advertised)),
        // Origin, URI, mail address and telephone number of the other side.
        Some((b'o' | b'u' | b'e' | b'p', _)) => None,
        // There must be a name.
        Some((b's', name)) if tells(name) => Some(Line::new("s=-".to_owned())),
        Some((b'a' | b'i', value)) if tells(value) => None,
        Some(_) | None if line.attribute().is_some_and(is_end_to_end) => None,
        Some(_) | None => Some(line.clone()),
    }
}

/// Several c= lines (layered multicast) have become the same: one is left.
fn section(mut lines: Vec<Line>, advertised: IpAddr) -> Section {
    let mut connection = None;
    lines.retain(|line| !line.is(b'c') || connection.replace(Connection::from(advertised)).is_none());
    Section { lines, connection }
}

fn media_line(media: &Media, port: u16) -> Line {
    Line::new(format!("m={} {port} {} {}", media.media, media.proto, media.fmt))
}

fn connection_line(ip: IpAddr) -> Line {
    Line::new(format!("c={}", network(ip)))
}

fn network(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("IN IP4 {ip}"),
        IpAddr::V6(ip) => format!("IN IP6 {ip}"),
    }
}

/// What only the two ends can use, or what names an address of the other side.
fn is_end_to_end(attribute: Attribute<'_>) -> bool {
    const NAMES: [&str; 30] = [
        // ICE (RFC 8839, RFC 8840), and what came before it.
        "candidate",
        "end-of-candidates",
        "remote-candidates",
        "ice-ufrag",
        "ice-pwd",
        "ice-lite",
        "ice-mismatch",
        "ice-options",
        "ice-pacing",
        "ice2",
        "alt",
        "altc",
        // One port for RTP and RTCP (RFC 5761, RFC 8858): agreed on each leg. Where RTCP goes instead (RFC 3605): ours
        // is the next port.
        "rtcp-mux",
        "rtcp-mux-only",
        "rtcp",
        // DTLS (RFC 8842): refused where it is the only way, not offered beside another.
        "fingerprint",
        "setup",
        "connection",
        "tls-id",
        "dtls-id",
        "identity",
        // One transport for several streams (RFC 8843).
        "bundle-only",
        // Other transports and keys to choose from (RFC 5939): the actual one is what is anchored.
        "tcap",
        "acap",
        "pcfg",
        "acfg",
        "csup",
        "creq",
        "sescap",
        // Names senders by address (RFC 4570).
        "source-filter",
    ];
    // A source's canonical name is mostly user@address (RFC 5576 s.6.1, RFC 3550 s.6.5.1).
    let names_source = |value: &[u8]| {
        let said = value.split(|byte| *byte == b' ').skip(1).find(|word| !word.is_empty());
        said.and_then(|word| word.get(..6)).is_some_and(|word| word.eq_ignore_ascii_case(b"cname:"))
    };
    NAMES.iter().any(|name| attribute.is(name))
        || attribute.is("ssrc") && names_source(attribute.value)
        || attribute.is("group")
            && attribute.value.get(..6).is_some_and(|it| it.eq_ignore_ascii_case(b"BUNDLE"))
}
