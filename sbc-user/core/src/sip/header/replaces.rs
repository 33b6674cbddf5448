//! `Replaces` (RFC 3891), and `Join` and `Target-Dialog`, which have the same shape: the name of a dialog.

use crate::sip::header::Params;
use crate::sip::lex;

/// The dialog that is to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replaces<'a> {
    call_id: &'a str,
    params: Params<'a>,
}

impl<'a> Replaces<'a> {
    /// From the header's value.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let end = memchr::memchr(b';', value).unwrap_or(value.len());
        let call_id = lex::text(lex::trim(&value[..end])).filter(|id| !id.is_empty())?;
        Some(Self { call_id, params: Params::parse(&value[end..])? })
    }

    /// Its Call-ID.
    #[must_use]
    pub const fn call_id(&self) -> &'a str {
        self.call_id
    }

    /// The tag of the side that receives this.
    #[must_use]
    pub fn to_tag(&self) -> Option<&'a str> {
        self.params.text("to-tag")
    }

    /// The tag of the other side.
    #[must_use]
    pub fn from_tag(&self) -> Option<&'a str> {
        self.params.text("from-tag")
    }

    /// Only a dialog that is not answered yet may be replaced.
    #[must_use]
    pub fn early_only(&self) -> bool {
        self.params.contains("early-only")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_a_dialog() {
        let replaces = Replaces::parse(b"98732@sip.example.com ;from-tag=r33th4x0r;to-tag=ff87ff").unwrap();
        assert_eq!(replaces.call_id(), "98732@sip.example.com");
        assert_eq!((replaces.from_tag(), replaces.to_tag()), (Some("r33th4x0r"), Some("ff87ff")));
        assert!(!replaces.early_only());
        assert_eq!(Replaces::parse(b";to-tag=a"), None);
    }
}
