//! `Reason`: why a request was sent or a call ended (RFC 3326).

use crate::sip::header::Params;
use crate::sip::lex;

/// One value of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason<'a> {
    protocol: &'a str,
    params: Params<'a>,
}

impl<'a> Reason<'a> {
    /// From one value of the header, not a list.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let value = lex::trim(value);
        let end = lex::skip_token(value, 0);
        if end == 0 {
            return None;
        }
        Some(Self { protocol: lex::text(&value[..end])?, params: Params::parse(&value[end..])? })
    }

    /// `SIP`, `Q.850` …
    #[must_use]
    pub const fn protocol(&self) -> &'a str {
        self.protocol
    }

    /// The status or cause number.
    #[must_use]
    pub fn cause(&self) -> Option<u16> {
        lex::number(self.params.bytes("cause")?, u64::from(u16::MAX)).ok().and_then(|n| u16::try_from(n).ok())
    }

    /// The words, as written with their quotes.
    #[must_use]
    pub fn text(&self) -> Option<&'a [u8]> {
        self.params.bytes("text")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cause_and_text() {
        let reason = Reason::parse(br#"Q.850 ;cause=16 ;text="Terminated""#).unwrap();
        assert_eq!((reason.protocol(), reason.cause()), ("Q.850", Some(16)));
        assert_eq!(reason.text(), Some(&br#""Terminated""#[..]));
    }
}
