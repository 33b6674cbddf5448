//! `name-addr` and `addr-spec` with header parameters: From, To, Contact, Route and their kin (RFC 3261 s.20.10).

use crate::sip::header::Params;
use crate::sip::lex;
use crate::sip::uri::Uri;

/// An address with an optional display name and parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameAddr<'a> {
    display: Option<&'a [u8]>,
    uri: Uri<'a>,
    params: Params<'a>,
    raw: &'a [u8],
}

impl<'a> NameAddr<'a> {
    /// From one value of the header, not a list.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let raw = lex::trim(value);
        let (display, open) = match raw.first()? {
            b'"' => {
                let end = lex::quoted_end(raw, 0)?;
                (Some(&raw[..end]), lex::skip_ws(raw, end))
            }
            _ => match memchr::memchr(b'<', raw) {
                Some(open) => (Some(lex::trim(&raw[..open])).filter(|d| !d.is_empty()), open),
                None => return Self::addr_spec(raw),
            },
        };
        if raw.get(open) != Some(&b'<') || display.is_some_and(|d| d[0] != b'"' && !is_unquoted_display(d)) {
            return None;
        }
        let close = open + memchr::memchr(b'>', &raw[open..])?;
        let uri = Uri::parse(lex::text(&raw[open + 1..close])?).ok()?;
        let params = Params::parse(&raw[close + 1..])?;
        Some(Self { display, uri, params, raw })
    }

    /// Without angle brackets every `;` starts a header parameter, and a `?` or comma would be ambiguous.
    fn addr_spec(raw: &'a [u8]) -> Option<Self> {
        let end = memchr::memchr(b';', raw).unwrap_or(raw.len());
        let spec = lex::trim(&raw[..end]);
        if memchr::memchr2(b'?', b',', spec).is_some() {
            return None;
        }
        let uri = Uri::parse(lex::text(spec)?).ok()?;
        Some(Self { display: None, uri, params: Params::parse(&raw[end..])?, raw })
    }

    /// The display name as written, with its quotes.
    #[must_use]
    pub const fn display_raw(&self) -> Option<&'a [u8]> {
        self.display
    }

    /// The display name without quotes; quoted pairs stay as written.
    #[must_use]
    pub fn display(&self) -> Option<&'a [u8]> {
        let display = self.display?;
        Some(display.strip_prefix(b"\"").and_then(|d| d.strip_suffix(b"\"")).unwrap_or(display))
    }

    /// The address.
    #[must_use]
    pub const fn uri(&self) -> &Uri<'a> {
        &self.uri
    }

    /// The header parameters.
    #[must_use]
    pub const fn params(&self) -> Params<'a> {
        self.params
    }

    /// The `tag` parameter of From and To; an empty one is none.
    #[must_use]
    pub fn tag(&self) -> Option<&'a str> {
        self.params.text("tag").filter(|t| !t.is_empty())
    }

    /// The whole value as written.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.raw
    }
}

/// Tokens with spaces between, and in the field also other punctuation and UTF-8: all but what would make it
/// ambiguous where the address starts.
fn is_unquoted_display(display: &[u8]) -> bool {
    display
        .iter()
        .all(|b| !matches!(b, 0..=8 | 10..=31 | 127 | b',' | b';' | b':' | b'"' | b'<' | b'>' | b'@'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<NameAddr<'_>> {
        NameAddr::parse(text.as_bytes())
    }

    #[test]
    fn forms() {
        let a = parse(r#""Bob \"<x>\" B" <sip:bob@example.com;transport=tcp>;tag=a73kszlfl"#).unwrap();
        assert_eq!(a.display(), Some(&br#"Bob \"<x>\" B"#[..]));
        assert_eq!((a.uri().user(), a.uri().host_text()), (Some("bob"), "example.com"));
        assert_eq!(a.uri().param("transport"), Some("tcp"));
        assert_eq!(a.tag(), Some("a73kszlfl"));

        let b = parse("sip:+12125551212@server.phone2net.com;tag=887s").unwrap();
        assert_eq!((b.tag(), b.uri().param("tag")), (Some("887s"), None));

        let c = parse("Anonymous <sip:c8oqz84zk7z@privacy.org>;tag=hyh8").unwrap();
        assert_eq!(c.display(), Some(&b"Anonymous"[..]));

        let d = parse("<tel:+1-555-0100;phone-context=x>").unwrap();
        assert_eq!((d.display(), d.uri().scheme(), d.tag()), (None, "tel", None));

        let e = parse("sip:h ;   tag    = 1918181833n").unwrap();
        assert_eq!(e.tag(), Some("1918181833n"));

        let f = NameAddr::parse(b"\"\xe9t\xe9\" <sip:a@h>;tag=").unwrap();
        assert_eq!((f.display(), f.tag()), (Some(&b"\xe9t\xe9"[..]), None));

        let g = parse(r#"<sip:a@h>;+sip.instance="<urn:uuid:0>";q=0.5"#).unwrap();
        assert_eq!(g.params().text("+sip.instance"), Some("\"<urn:uuid:0>\""));
    }

    #[test]
    fn broken_ones_are_refused() {
        for bad in [
            "",
            "*",
            r#""Mr. J. User <sip:j.user@example.com>"#,
            "Bell, Alexander <sip:a@h>",
            "< sip:a@h >",
            "<sip:a@h",
            "<sip:a@h>x",
            "<<sip:a@h>>",
            "sip:a@h?Route=%3Csip:x%3E",
            "sip:a@h, sip:b@h",
            r#"x "y" <sip:a@h>"#,
            "<sip:a@h>;;",
            "<>",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
