//! `Via`: who sent the message, and where the answer goes (RFC 3261 s.20.42, RFC 3581).

use std::net::IpAddr;

use crate::sip::header::Params;
use crate::sip::lex;
use crate::sip::uri::{Host, host_port};

/// One `Via` value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via<'a> {
    protocol: &'a str,
    version: &'a str,
    transport: &'a str,
    host: &'a str,
    port: Option<u16>,
    params: Params<'a>,
}

impl<'a> Via<'a> {
    /// From one value of the header, not a list.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let (protocol, at) = token(value, lex::skip_ws(value, 0))?;
        let (version, at) = token(value, slash(value, at)?)?;
        let (transport, at) = token(value, slash(value, at)?)?;
        let start = lex::skip_ws(value, at);
        if start == at {
            return None;
        }
        let end = memchr::memchr(b';', &value[start..]).map_or(value.len(), |n| start + n);
        let (host, port) = host_port(lex::text(lex::trim(&value[start..end]))?)?;
        let params = Params::parse(&value[end..])?;
        Some(Self { protocol, version, transport, host, port, params })
    }

    /// `SIP` and `2.0`.
    #[must_use]
    pub const fn protocol(&self) -> (&'a str, &'a str) {
        (self.protocol, self.version)
    }

    /// `UDP`, `TCP`, `TLS`, `WSS` … as written: an open set.
    #[must_use]
    pub const fn transport(&self) -> &'a str {
        self.transport
    }

    /// Host of the sent-by.
    #[must_use]
    pub fn host(&self) -> Host<'a> {
        Host::from_checked(self.host)
    }

    /// Host of the sent-by as written, IPv6 with its brackets.
    #[must_use]
    pub const fn host_text(&self) -> &'a str {
        self.host
    }

    /// Port of the sent-by, if one is written.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    /// All parameters.
    #[must_use]
    pub const fn params(&self) -> Params<'a> {
        self.params
    }

    /// The transaction's identity; RFC 2543 senders have none.
    #[must_use]
    pub fn branch(&self) -> Option<&'a str> {
        self.params.text("branch").filter(|b| !b.is_empty())
    }

    /// RFC 3581: `Some(None)` asks for the answer to the source port, `Some(Some(port))` says which that was.
    #[must_use]
    pub fn rport(&self) -> Option<Option<u16>> {
        let value = self.params.bytes("rport")?;
        Some(lex::number(value, u64::from(u16::MAX)).ok().and_then(|n| u16::try_from(n).ok()))
    }

    /// The address that the next hop saw; IPv6 with or without brackets (RFC 5118 s.4.5).
    #[must_use]
    pub fn received(&self) -> Option<IpAddr> {
        let text = self.params.text("received")?;
        text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text).parse().ok()
    }

    /// The multicast or forced address of RFC 3261 s.18.2.2.
    #[must_use]
    pub fn maddr(&self) -> Option<&'a str> {
        self.params.text("maddr")
    }
}

fn token(value: &[u8], start: usize) -> Option<(&str, usize)> {
    let end = lex::skip_token(value, start);
    if start == end {
        return None;
    }
    Some((lex::text(&value[start..end])?, end))
}

/// Behind `SWS "/" SWS`.
fn slash(value: &[u8], at: usize) -> Option<usize> {
    let at = lex::skip_ws(value, at);
    (value.get(at) == Some(&b'/')).then(|| lex::skip_ws(value, at + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain() {
        let via = Via::parse(b"SIP/2.0/UDP pc33.example.com:5066;branch=z9hG4bK776;rport;x=y").unwrap();
        assert_eq!(via.protocol(), ("SIP", "2.0"));
        assert_eq!((via.transport(), via.host_text(), via.port()), ("UDP", "pc33.example.com", Some(5066)));
        assert_eq!(via.branch(), Some("z9hG4bK776"));
        assert_eq!(via.rport(), Some(None));
        assert_eq!(via.params().text("x"), Some("y"));
        assert_eq!(via.received(), None);
    }

    #[test]
    fn spaced_out_as_the_grammar_allows() {
        let via = Via::parse(b"SIP / 2.0 / quic  192.0.2.2 : 5060 ; branch = z9hG4bK1").unwrap();
        assert_eq!((via.transport(), via.port()), ("quic", Some(5060)));
        assert_eq!(via.host(), Host::V4([192, 0, 2, 2].into()));
        assert_eq!(via.branch(), Some("z9hG4bK1"));
    }

    #[test]
    fn ipv6_everywhere() {
        let via =
            Via::parse(b"SIP/2.0/TLS [2001:db8::9]:5061;received=[2001:db8::a];rport=4444;branch=z9hG4bKa");
        let via = via.unwrap();
        assert_eq!(via.host(), Host::V6("2001:db8::9".parse().unwrap()));
        assert_eq!(via.received(), Some("2001:db8::a".parse().unwrap()));
        assert_eq!(via.rport(), Some(Some(4444)));
        assert_eq!(via.branch(), Some("z9hG4bKa"));
        let bare = Via::parse(b"SIP/2.0/UDP h;received=2001:db8::b;branch=z9hG4bKb").unwrap();
        assert_eq!(bare.received(), Some("2001:db8::b".parse().unwrap()));
        assert_eq!(bare.branch(), Some("z9hG4bKb"));
    }

    #[test]
    fn broken_ones_are_refused() {
        for bad in [
            "",
            "SIP/2.0/UDP",
            "SIP/2.0 UDP h",
            "SIP/2.0/UDP ;branch=1",
            "SIP/2.0/UDP h:port",
            "SIP/2.0/UDP h:70000",
            "SIP/2.0/UDP h;;",
            "SIP/2.0/UDP 2001:db8::1",
            "SIP/2.0/UDP [2001:db8::1",
            "SIP/2.0/UDP a b",
        ] {
            assert!(Via::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
