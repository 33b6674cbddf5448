//! `Contact` (RFC 3261 s.20.10).

use crate::sip::header::NameAddr;

/// One value of the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contact<'a> {
    /// `*`: every binding of a REGISTER.
    Star,
    /// An address.
    Addr(NameAddr<'a>),
}

impl<'a> Contact<'a> {
    /// From one value of the header, not a list.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        if crate::sip::lex::trim(value) == b"*" {
            return Some(Self::Star);
        }
        NameAddr::parse(value).map(Self::Addr)
    }

    /// The address, if it is one.
    #[must_use]
    pub const fn addr(&self) -> Option<&NameAddr<'a>> {
        match self {
            Self::Star => None,
            Self::Addr(addr) => Some(addr),
        }
    }
}
