//! Reading: cuts a body into lines and sections, tolerantly, and has sdp-types read the lines that the media path needs.
//!
//! Tolerated, because peers send it and a call can live with it: LF alone, no final line end, empty lines, blanks before
//! a line's type and between the fields of an m= line, a port above 65535 (the stream counts as rejected), unknown line
//! types, any o= line (ours replaces it), any encoding outside the lines that are read. Refused: a NUL, or a CR that
//! ends no line, which two readers would understand differently.

use bytes::Bytes;
use memchr::memchr_iter;

use super::model::{Connection, Line, Media, Sdp, Section};

/// Longest body read.
pub const MAX_BYTES: usize = 32 * 1024;
/// Most lines read.
pub const MAX_LINES: usize = 1024;
/// Most m-lines read.
pub const MAX_MEDIA: usize = 32;

/// Why a body is not a session description that we can use. Lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// Longer than [`MAX_BYTES`].
    #[error("session description longer than {MAX_BYTES} bytes")]
    TooLong,
    /// More lines than [`MAX_LINES`].
    #[error("session description of more than {MAX_LINES} lines")]
    TooManyLines,
    /// More m-lines than [`MAX_MEDIA`].
    #[error("session description of more than {MAX_MEDIA} streams")]
    TooManyMedia,
    /// A NUL, or a CR that ends no line.
    #[error("line {line}: control character")]
    ControlCharacter {
        /// The line.
        line: usize,
    },
    /// Does not begin with `v=0`.
    #[error("does not begin with v=0")]
    NotVersion0,
    /// A c= or m= line that cannot be read.
    #[error("line {line}: {what}")]
    Malformed {
        /// The line.
        line: usize,
        /// What the reader missed.
        what: &'static str,
    },
}

impl Sdp {
    /// Reads a body.
    ///
    /// # Errors
    /// If it is not a session description, or beyond the limits.
    pub fn parse(body: &[u8]) -> Result<Self, SdpError> {
        if body.len() > MAX_BYTES {
            return Err(SdpError::TooLong);
        }
        let lines = cut(&Bytes::copy_from_slice(body))?;
        if lines
            .first()
            .and_then(|(_, line)| line.split())
            .is_none_or(|(kind, value)| (kind, value.trim_ascii()) != (b'v', b"0"))
        {
            return Err(SdpError::NotVersion0);
        }
        let mut session = Section::default();
        let mut media: Vec<Media> = Vec::new();
        for (number, line) in lines {
            match line.split() {
                Some((b'm', value)) => {
                    if media.len() == MAX_MEDIA {
                        return Err(SdpError::TooManyMedia);
                    }
                    media.push(read_media(number, value)?);
                }
                Some((b'c', value)) => {
                    let connection = read_connection(number, value)?;
                    let section = media.last_mut().map_or(&mut session, |media| &mut media.section);
                    section.connection.get_or_insert(connection);
                }
                Some(_) | None => {}
            }
            media.last_mut().map_or(&mut session, |media| &mut media.section).lines.push(line);
        }
        Ok(Self { session, media })
    }
}

/// The lines that are not empty, with their numbers.
fn cut(body: &Bytes) -> Result<Vec<(usize, Line)>, SdpError> {
    let mut lines = Vec::new();
    let mut start = 0;
    for (index, end) in memchr_iter(b'\n', body).chain([body.len()]).enumerate() {
        let line = &body[start..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if memchr::memchr2(b'\r', 0, line).is_some() {
            return Err(SdpError::ControlCharacter { line: index + 1 });
        }
        if !line.trim_ascii().is_empty() {
            if lines.len() == MAX_LINES {
                return Err(SdpError::TooManyLines);
            }
            lines.push((index + 1, Line(body.slice(start..start + line.len()))));
        }
        start = end + 1;
    }
    Ok(lines)
}

fn read_media(line: usize, value: &[u8]) -> Result<Media, SdpError> {
    let mut fields: Vec<&[u8]> = fields(value).collect();
    if let Some(port) = fields.get_mut(1)
        && !port.is_empty()
        && port.iter().all(u8::is_ascii_digit)
        && str::from_utf8(port).ok().and_then(|port| port.parse::<u16>().ok()).is_none()
    {
        *port = b"0";
    }
    let text = [b"v=0\r\nm=".as_slice(), &fields.join(&b' ')].concat();
    let media = sdp_types::Session::parse(&text).ok().and_then(|session| session.medias.into_iter().next());
    let media =
        media.ok_or(SdpError::Malformed { line, what: "m= wants media, port, protocol and format" })?;
    Ok(Media {
        section: Section::default(),
        media: media.media,
        port: media.port,
        port_count: media.num_ports,
        proto: media.proto,
        fmt: media.fmt,
    })
}

fn read_connection(line: usize, value: &[u8]) -> Result<Connection, SdpError> {
    let text = [b"v=0\r\nc=".as_slice(), value.trim_ascii()].concat();
    let connection = sdp_types::Session::parse(&text).ok().and_then(|session| session.connection);
    let connection = connection
        .ok_or(SdpError::Malformed { line, what: "c= wants network type, address type and address" })?;
    if connection.nettype != sdp_types::NetType::In {
        return Ok(Connection::NotAnAddress);
    }
    Ok(match connection.try_address() {
        Ok(address) => Connection::from(address.ip),
        Err(_) if connection.connection_address.to_ascii_lowercase().ends_with(".invalid") => {
            Connection::Nowhere
        }
        Err(_) => Connection::NotAnAddress,
    })
}

fn fields(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| matches!(byte, b' ' | b'\t')).filter(|field| !field.is_empty())
}

impl From<std::net::IpAddr> for Connection {
    fn from(ip: std::net::IpAddr) -> Self {
        let broadcast = matches!(ip, std::net::IpAddr::V4(ip) if ip.is_broadcast());
        if ip.is_unspecified() {
            Self::Nowhere
        } else if ip.is_multicast() || broadcast {
            Self::NotUnicast
        } else {
            Self::Unicast(ip)
        }
    }
}
