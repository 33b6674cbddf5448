//! `CSeq` (RFC 3261 s.20.16).

use crate::sip::lex::{self, NumberError};
use crate::sip::{HeaderError, HeaderName, Method};

/// Number and method of a request within its dialog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CSeq {
    /// Below 2^31 (s.8.1.1.5).
    pub number: u32,
    /// The method.
    pub method: Method,
}

impl CSeq {
    /// From the header's value.
    pub fn parse(value: &[u8]) -> Result<Self, HeaderError> {
        const NAME: HeaderName<'static> = HeaderName::CSeq;
        let value = lex::trim(value);
        let end = value.iter().position(|b| lex::is_ws(*b)).ok_or(HeaderError::Malformed(NAME))?;
        let number = match lex::number(&value[..end], (1 << 31) - 1) {
            Ok(number) => u32::try_from(number).map_err(|_| HeaderError::Overflow(NAME))?,
            Err(NumberError::NotDigits) => return Err(HeaderError::Malformed(NAME)),
            Err(NumberError::Overflow) => return Err(HeaderError::Overflow(NAME)),
        };
        let method = Method::from_token(lex::trim(&value[end..])).ok_or(HeaderError::Malformed(NAME))?;
        Ok(Self { number, method })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_methods() {
        assert_eq!(CSeq::parse(b"0009  INVITE"), Ok(CSeq { number: 9, method: Method::Invite }));
        assert_eq!(CSeq::parse(b"2147483648 BYE"), Err(HeaderError::Overflow(HeaderName::CSeq)));
        for bad in ["", "1", "INVITE", "1INVITE", "-1 BYE", "1 BYE BYE"] {
            assert_eq!(CSeq::parse(bad.as_bytes()), Err(HeaderError::Malformed(HeaderName::CSeq)), "{bad}");
        }
    }
}
