//! `Content-Type` (RFC 3261 s.20.15).

use crate::sip::header::Params;
use crate::sip::lex;

/// What the body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentType<'a> {
    kind: &'a str,
    subtype: &'a str,
    params: Params<'a>,
}

impl<'a> ContentType<'a> {
    /// From the header's value.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let end = memchr::memchr(b';', value).unwrap_or(value.len());
        let media = &value[..end];
        let slash = memchr::memchr(b'/', media)?;
        let (kind, subtype) = (lex::trim(&media[..slash]), lex::trim(&media[slash + 1..]));
        if !lex::is_token(kind) || !lex::is_token(subtype) {
            return None;
        }
        Some(Self {
            kind: lex::text(kind)?,
            subtype: lex::text(subtype)?,
            params: Params::parse(&value[end..])?,
        })
    }

    /// Whether it is this type and subtype, case ignored.
    #[must_use]
    pub fn is(&self, kind: &str, subtype: &str) -> bool {
        self.kind.eq_ignore_ascii_case(kind) && self.subtype.eq_ignore_ascii_case(subtype)
    }

    /// Type and subtype as written.
    #[must_use]
    pub const fn media(&self) -> (&'a str, &'a str) {
        (self.kind, self.subtype)
    }

    /// The parameters, such as a multipart's `boundary`.
    #[must_use]
    pub const fn params(&self) -> Params<'a> {
        self.params
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_and_parameters() {
        let multipart = ContentType::parse(b"Multipart / mixed;boundary=\"a b\"").unwrap();
        assert!(multipart.is("multipart", "mixed"));
        assert_eq!(multipart.params().bytes("boundary"), Some(&b"\"a b\""[..]));
        assert!(ContentType::parse(b"application").is_none());
    }
}
