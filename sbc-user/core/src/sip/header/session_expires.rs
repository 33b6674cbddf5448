//! `Session-Expires` (RFC 4028 s.4).

use crate::sip::header::Params;
use crate::sip::lex;

/// Who refreshes the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresher {
    /// The sender of the request.
    Uac,
    /// The one that answers it.
    Uas,
}

/// How long a session lives without a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionExpires {
    /// The interval.
    pub seconds: u32,
    /// Who refreshes, if it is said.
    pub refresher: Option<Refresher>,
}

impl SessionExpires {
    /// From the header's value.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let end = memchr::memchr(b';', value).unwrap_or(value.len());
        let seconds = lex::number(lex::trim(&value[..end]), u64::from(u32::MAX)).ok()?;
        let refresher = match Params::parse(&value[end..])?.text("refresher") {
            Some(who) if who.eq_ignore_ascii_case("uac") => Some(Refresher::Uac),
            Some(who) if who.eq_ignore_ascii_case("uas") => Some(Refresher::Uas),
            _ => None,
        };
        Some(Self { seconds: u32::try_from(seconds).ok()?, refresher })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_and_refresher() {
        let parsed = SessionExpires::parse(b"1800;refresher=UAS;x=1");
        assert_eq!(parsed, Some(SessionExpires { seconds: 1800, refresher: Some(Refresher::Uas) }));
        assert_eq!(SessionExpires::parse(b" 90 ").map(|s| s.refresher), Some(None));
        assert_eq!(SessionExpires::parse(b"soon"), None);
    }
}
