//! `RAck`: which reliable provisional response a PRACK acknowledges (RFC 3262 s.7.2).

use crate::sip::header::CSeq;
use crate::sip::lex;

/// The response's `RSeq` and the `CSeq` of the request that it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RAck {
    /// The `RSeq` of the response.
    pub rseq: u32,
    /// The `CSeq` of the request.
    pub cseq: CSeq,
}

impl RAck {
    /// From the header's value.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let value = lex::trim(value);
        let end = value.iter().position(|b| lex::is_ws(*b))?;
        let rseq =
            lex::number(&value[..end], u64::from(u32::MAX)).ok().and_then(|n| u32::try_from(n).ok())?;
        Some(Self { rseq, cseq: CSeq::parse(&value[end..]).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::Method;

    #[test]
    fn three_parts() {
        let rack = RAck::parse(b"776656 1 INVITE").unwrap();
        assert_eq!((rack.rseq, rack.cseq.number, rack.cseq.method), (776_656, 1, Method::Invite));
        assert_eq!(RAck::parse(b"1 INVITE"), None);
        assert_eq!(RAck::parse(b"4294967296 1 INVITE"), None);
    }
}
