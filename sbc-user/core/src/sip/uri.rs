//! URIs: sip and sips in full, tel, urn and any other absolute URI as text (RFC 3261 s.19.1, RFC 3966, RFC 5031).
//!
//! The text stays as written, escapes included; the parts are offsets into it. Resolving names is not done here.

mod compare;

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::str::FromStr;

use crate::sip::lex;

/// An absolute URI.
#[derive(Clone, Debug)]
pub struct Uri<'a> {
    text: Cow<'a, str>,
    parts: Parts,
}

/// Why a text is no URI that we understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// There is no `scheme:`.
    #[error("no scheme")]
    NoScheme,
    /// White space, brackets, control characters or a percent sign without two hexadecimal digits.
    #[error("forbidden character")]
    Character,
    /// The user part is empty, or there is more than one `@`.
    #[error("malformed user part")]
    User,
    /// The host is neither a name nor an address, or the port is none.
    #[error("malformed host or port")]
    Host,
    /// The parameters or headers are malformed.
    #[error("malformed parameter")]
    Param,
    /// Longer than a start line may be.
    #[error("too long")]
    TooLong,
}

/// Offsets of the parts. Ranges are empty where a part is missing; `user` has a flag, since it may not be empty.
#[derive(Clone, Debug, Default)]
struct Parts {
    scheme_end: u16,
    kind: Kind,
    user: Option<Range<u16>>,
    password: Option<Range<u16>>,
    host: Range<u16>,
    port: Option<u16>,
    /// From the first `;` to the `?` or the end.
    params: Range<u16>,
    /// Behind the `?`.
    headers: Option<Range<u16>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    Sip,
    Sips,
    Tel,
    #[default]
    Other,
}

/// The host of a URI or of a sent-by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host<'a> {
    /// A name that has to be resolved.
    Name(&'a str),
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address, written in brackets.
    V6(Ipv6Addr),
}

impl<'a> Host<'a> {
    /// What a text is that [`host_port`] has accepted.
    pub(crate) fn from_checked(text: &'a str) -> Self {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').unwrap_or(inner);
            return ipv6(inner).map_or(Self::Name(text), Self::V6);
        }
        text.parse().map_or(Self::Name(text), Self::V4)
    }

    /// The address, if it is one.
    #[must_use]
    pub const fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Name(_) => None,
            Self::V4(ip) => Some(IpAddr::V4(ip)),
            Self::V6(ip) => Some(IpAddr::V6(ip)),
        }
    }
}

/// Splits `host [ ":" port ]`, white space around the colon allowed (a sent-by may have it), and checks both.
pub(crate) fn host_port(text: &str) -> Option<(&str, Option<u16>)> {
    let bytes = text.as_bytes();
    let host_end = if bytes.first() == Some(&b'[') {
        let close = memchr::memchr(b']', bytes)?;
        ipv6(&text[1..close])?;
        close + 1
    } else {
        let end = bytes.iter().position(|b| !is_host_byte(*b)).unwrap_or(bytes.len());
        if end == 0 {
            return None;
        }
        end
    };
    let colon = lex::skip_ws(bytes, host_end);
    let port = match bytes.get(colon) {
        None => None,
        Some(b':') => {
            let digits = lex::trim(&bytes[colon + 1..]);
            Some(u16::try_from(lex::number(digits, u64::from(u16::MAX)).ok()?).ok()?)
        }
        Some(_) => return None,
    };
    Some((&text[..host_end], port))
}

/// The text between the brackets. RFC 3261's grammar lets an embedded IPv4 address follow three colons, and RFC 5118
/// s.4.10 wants that tolerated: it means two.
fn ipv6(text: &str) -> Option<Ipv6Addr> {
    text.parse().ok().or_else(|| {
        let (before, after) = text.split_once(":::")?;
        after.parse::<Ipv4Addr>().ok()?;
        format!("{before}::{after}").parse().ok()
    })
}

/// Letters, digits, dot and hyphen; the underscore is not in the grammar but in many a host name.
const fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

impl<'a> Uri<'a> {
    /// From the text between angle brackets, or a Request-URI.
    pub fn parse(text: &'a str) -> Result<Self, UriError> {
        let parts = Parts::of(text)?;
        Ok(Self { text: Cow::Borrowed(text), parts })
    }

    /// Detached from the message that it came in.
    #[must_use]
    pub fn into_owned(self) -> Uri<'static> {
        Uri { text: Cow::Owned(self.text.into_owned()), parts: self.parts }
    }

    /// The whole text as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn part(&self, range: &Range<u16>) -> &str {
        &self.text[usize::from(range.start)..usize::from(range.end)]
    }

    /// The scheme: lower case for the ones that we know, else as written.
    #[must_use]
    pub fn scheme(&self) -> &str {
        match self.parts.kind {
            Kind::Sip => "sip",
            Kind::Sips => "sips",
            Kind::Tel => "tel",
            Kind::Other => &self.text[..usize::from(self.parts.scheme_end)],
        }
    }

    /// Whether it is a sip or sips URI, which alone has user, host and port.
    #[must_use]
    pub const fn is_sip(&self) -> bool {
        matches!(self.parts.kind, Kind::Sip | Kind::Sips)
    }

    /// Whether it is a sips URI.
    #[must_use]
    pub const fn is_sips(&self) -> bool {
        matches!(self.parts.kind, Kind::Sips)
    }

    /// The user part without password, escapes as written, `;` parameters of a telephone number included.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.parts.user.as_ref().map(|r| self.part(r))
    }

    /// The password, escapes as written.
    #[must_use]
    pub fn password(&self) -> Option<&str> {
        self.parts.password.as_ref().map(|r| self.part(r))
    }

    /// The host as written, IPv6 with its brackets; empty for other schemes than sip and sips.
    #[must_use]
    pub fn host_text(&self) -> &str {
        self.part(&self.parts.host)
    }

    /// The host of a sip or sips URI.
    #[must_use]
    pub fn host(&self) -> Option<Host<'_>> {
        self.is_sip().then(|| Host::from_checked(self.host_text()))
    }

    /// The port, if one is written.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        self.parts.port
    }

    /// What follows the scheme in a tel, urn or other URI, up to parameters of a tel URI.
    #[must_use]
    pub fn opaque(&self) -> &str {
        &self.text[usize::from(self.parts.scheme_end) + 1..usize::from(self.parts.params.start)]
    }

    /// The parameters as written, with the leading `;`.
    #[must_use]
    pub fn params_text(&self) -> &str {
        self.part(&self.parts.params)
    }

    /// Name and value of each parameter of a sip, sips or tel URI.
    pub fn params(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.params_text().split(';').skip(1).map(name_value)
    }

    /// The value of the first parameter of that name, empty for one without value.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.unwrap_or_default())
    }

    /// The headers behind the `?`, as written.
    #[must_use]
    pub fn headers_text(&self) -> Option<&str> {
        self.parts.headers.as_ref().map(|r| self.part(r))
    }

    /// Name and value of each header behind the `?`, escapes as written.
    pub fn headers(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.headers_text().unwrap_or_default().split('&').filter(|h| !h.is_empty()).map(name_value)
    }

    /// Whether a request to this URI would go the same way, by the rules of RFC 3261 s.19.1.4. For other schemes
    /// than sip and sips: equal text, scheme without case.
    #[must_use]
    pub fn equivalent(&self, other: &Uri<'_>) -> bool {
        compare::equivalent(self, other)
    }
}

fn name_value(text: &str) -> (&str, Option<&str>) {
    text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)))
}

impl Parts {
    fn of(text: &str) -> Result<Self, UriError> {
        let bytes = text.as_bytes();
        let length = u16::try_from(bytes.len()).map_err(|_| UriError::TooLong)?;
        let colon = bytes.iter().position(|b| *b == b':').ok_or(UriError::NoScheme)?;
        let scheme = &bytes[..colon];
        if !is_scheme(scheme) {
            return Err(UriError::NoScheme);
        }
        check_characters(bytes)?;
        let kind = if scheme.eq_ignore_ascii_case(b"sip") {
            Kind::Sip
        } else if scheme.eq_ignore_ascii_case(b"sips") {
            Kind::Sips
        } else if scheme.eq_ignore_ascii_case(b"tel") {
            Kind::Tel
        } else {
            Kind::Other
        };
        let at = |index: usize| u16::try_from(index).unwrap_or(length);
        let mut parts = Self { scheme_end: at(colon), kind, params: length..length, ..Self::default() };
        let start = colon + 1;
        match kind {
            Kind::Sip | Kind::Sips => parts.sip(text, start, at)?,
            Kind::Tel => {
                let end = memchr::memchr(b';', &bytes[start..]).map_or(bytes.len(), |n| start + n);
                if end == start {
                    return Err(UriError::User);
                }
                check_params(&text[end..])?;
                parts.params = at(end)..length;
            }
            Kind::Other if start == bytes.len() => return Err(UriError::Host),
            Kind::Other => {}
        }
        Ok(parts)
    }

    fn sip(&mut self, text: &str, start: usize, at: impl Fn(usize) -> u16) -> Result<(), UriError> {
        let bytes = text.as_bytes();
        let mut host_start = start;
        if let Some(n) = memchr::memchr(b'@', &bytes[start..]) {
            let end = start + n;
            host_start = end + 1;
            if memchr::memchr(b'@', &bytes[host_start..]).is_some() {
                return Err(UriError::User);
            }
            let user_end = memchr::memchr(b':', &bytes[start..end]).map_or(end, |n| start + n);
            if user_end == start {
                return Err(UriError::User);
            }
            self.user = Some(at(start)..at(user_end));
            self.password = (user_end < end).then(|| at(user_end + 1)..at(end));
        }
        let host_end =
            memchr::memchr2(b';', b'?', &bytes[host_start..]).map_or(bytes.len(), |n| host_start + n);
        let (host, port) = host_port(&text[host_start..host_end]).ok_or(UriError::Host)?;
        self.host = at(host_start)..at(host_start + host.len());
        self.port = port;
        let params_end = memchr::memchr(b'?', &bytes[host_end..]).map_or(bytes.len(), |n| host_end + n);
        check_params(&text[host_end..params_end])?;
        self.params = at(host_end)..at(params_end);
        if params_end < bytes.len() {
            let headers = &text[params_end + 1..];
            if headers.split('&').any(|h| h.is_empty() || h.starts_with('=')) {
                return Err(UriError::Param);
            }
            self.headers = Some(at(params_end + 1)..at(bytes.len()));
        }
        Ok(())
    }
}

/// `ALPHA *( ALPHA / DIGIT / "+" / "-" / "." )`.
fn is_scheme(scheme: &[u8]) -> bool {
    matches!(scheme, [first, rest @ ..] if first.is_ascii_alphabetic()
        && rest.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')))
}

/// Wider than the grammar where the field is (`#` in dialled numbers, UTF-8 users), never where structure could be
/// read in two ways.
fn check_characters(bytes: &[u8]) -> Result<(), UriError> {
    for (index, byte) in bytes.iter().enumerate() {
        let ok = match byte {
            0..=b' ' | 0x7f | b'<' | b'>' | b'"' => false,
            b'%' => matches!(bytes.get(index + 1..index + 3), Some([a, b])
                if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()),
            _ => true,
        };
        if !ok {
            return Err(UriError::Character);
        }
    }
    Ok(())
}

/// Every `;` is followed by a name.
fn check_params(text: &str) -> Result<(), UriError> {
    if text.split(';').skip(1).any(|p| p.is_empty() || p.starts_with('=')) {
        return Err(UriError::Param);
    }
    Ok(())
}

impl FromStr for Uri<'static> {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let parts = Parts::of(text)?;
        Ok(Self { text: Cow::Owned(text.to_owned()), parts })
    }
}

/// Equal text. For equal meaning see [`Uri::equivalent`].
impl PartialEq<Uri<'_>> for Uri<'_> {
    fn eq(&self, other: &Uri<'_>) -> bool {
        self.text == other.text
    }
}

impl Eq for Uri<'_> {}

impl fmt::Display for Uri<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sip_in_full() {
        let uri = Uri::parse("SIPS:alice;x=1:secret%21@[2001:db8::10]:5071;transport=tls;lr?subject=hi&to=b")
            .unwrap();
        assert_eq!((uri.scheme(), uri.is_sips()), ("sips", true));
        assert_eq!((uri.user(), uri.password()), (Some("alice;x=1"), Some("secret%21")));
        assert_eq!(uri.host(), Some(Host::V6("2001:db8::10".parse().unwrap())));
        assert_eq!((uri.host_text(), uri.port()), ("[2001:db8::10]", Some(5071)));
        assert_eq!((uri.param("TRANSPORT"), uri.param("lr"), uri.param("x")), (Some("tls"), Some(""), None));
        assert_eq!(uri.headers().collect::<Vec<_>>(), [("subject", Some("hi")), ("to", Some("b"))]);
    }

    #[test]
    fn what_other_parsers_get_wrong() {
        let uri = Uri::parse("sip:john.smith@example.com").unwrap();
        assert_eq!((uri.user(), uri.host_text()), (Some("john.smith"), "example.com"));
        let uri = Uri::parse("sip:user;par=u%40example.net@example.com").unwrap();
        assert_eq!((uri.user(), uri.host_text()), (Some("user;par=u%40example.net"), "example.com"));
        let uri = Uri::parse("sip:+1555;phone-context=+44@gw.example.com;user=phone").unwrap();
        assert_eq!((uri.user(), uri.param("user")), (Some("+1555;phone-context=+44"), Some("phone")));
        let uri = Uri::parse("sip:a@h;gr=urn:uuid:f81d4fae;maddr=[::1]").unwrap();
        assert_eq!((uri.param("gr"), uri.param("maddr")), (Some("urn:uuid:f81d4fae"), Some("[::1]")));
        let uri = Uri::parse("sip:h?Route=%3Csip:x.example%3E").unwrap();
        assert_eq!((uri.user(), uri.host_text()), (None, "h"));
        assert_eq!(uri.headers_text(), Some("Route=%3Csip:x.example%3E"));
        assert_eq!(
            Uri::parse("sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*@h.example").unwrap().host_text(),
            "h.example"
        );
    }

    #[test]
    fn tel_urn_and_the_rest() {
        let tel = Uri::parse("tel:+1-555-0100;phone-context=example.com").unwrap();
        assert_eq!((tel.scheme(), tel.opaque()), ("tel", "+1-555-0100"));
        assert_eq!((tel.param("phone-context"), tel.host()), (Some("example.com"), None));
        let sos = Uri::parse("urn:service:sos").unwrap();
        assert_eq!((sos.scheme(), sos.opaque(), sos.is_sip()), ("urn", "service:sos", false));
        let beep = Uri::parse("soap.beep://192.0.2.103:3002").unwrap();
        assert_eq!(beep.scheme(), "soap.beep");
    }

    #[test]
    fn broken_ones_are_refused() {
        for (text, error) in [
            ("", UriError::NoScheme),
            ("bob", UriError::NoScheme),
            ("1sip:bob", UriError::NoScheme),
            ("sip:", UriError::Host),
            ("sip:@h", UriError::User),
            ("sip:a@b@c", UriError::User),
            ("sip:a@", UriError::Host),
            ("sip:a@h:", UriError::Host),
            ("sip:a@h:65536", UriError::Host),
            ("sip:a@2001:db8::1", UriError::Host),
            ("sip:a@[2001:db8::1", UriError::Host),
            ("sip:a@[2001:db8:::1]", UriError::Host),
            ("sip:a@[::1]x", UriError::Host),
            ("sip:a@h;;lr", UriError::Param),
            ("sip:a@h?", UriError::Param),
            ("<sip:a@h>", UriError::NoScheme),
            ("sip:a b@h", UriError::Character),
            ("sip:a%zz@h", UriError::Character),
            ("sip:a%4", UriError::Character),
            ("tel:", UriError::User),
            ("urn:", UriError::Host),
        ] {
            assert_eq!(Uri::parse(text).map(|u| u.to_string()), Err(error), "{text}");
        }
    }

    #[test]
    fn text_and_owned_copies_are_as_written() {
        let text = "sip:%61lice@Example.COM:5060;X=%41";
        assert_eq!(Uri::parse(text).unwrap().into_owned().to_string(), text);
        assert_eq!(text.parse::<Uri<'static>>().unwrap(), Uri::parse(text).unwrap());
    }
}
