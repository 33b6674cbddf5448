//! To which transaction a message belongs (RFC 3261 s.17.1.3 and s.17.2.3).
//!
//! A server key holds the listener and the trunk as well: whoever knows the branch of another peer's request can neither
//! take its place nor acknowledge it. The peer's address is not part of it: a request may be repeated from another port
//! behind a NAT, and answers do not follow the copy but the first request. A client key needs no trunk: its branch is
//! ours, and only who got the request knows it.

use super::peer::Peer;
use crate::id::{ListenerId, TrunkId};
use crate::identity::MAGIC_COOKIE;
use crate::sip::{Message, Method};

/// Names a client transaction: our branch and the method (s.17.1.3).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ClientKey {
    pub(super) listener: ListenerId,
    pub(super) branch: Box<str>,
    pub(super) method: Method,
}

impl ClientKey {
    /// Of the transaction that a response belongs to; `None` if what names it is missing or malformed.
    pub(super) fn of(response: &Message, listener: ListenerId) -> Option<Self> {
        Some(Self {
            listener,
            branch: response.top_via().ok()?.branch()?.into(),
            method: response.cseq().ok()?.method,
        })
    }
}

/// Names a server transaction (s.17.2.3). An ACK has the key of its INVITE.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum ServerKey {
    /// The branch is unique by itself.
    Branch { listener: ListenerId, trunk: TrunkId, branch: Box<str>, sent_by: Box<str>, method: Method },
    /// The sender follows RFC 2543, whose branches are not: everything that a copy repeats. The To tag is left out,
    /// because the ACK has the one that our response added; see [`Self::needs_to_tag`].
    Rfc2543 {
        listener: ListenerId,
        trunk: TrunkId,
        request_uri: Box<str>,
        from_tag: Option<Box<str>>,
        call_id: Box<str>,
        number: u32,
        top_via: Box<[u8]>,
        method: Method,
    },
}

impl ServerKey {
    /// Of the transaction that a request belongs to or opens; `None` if what names it is missing or malformed.
    pub(super) fn of(request: &Message, listener: ListenerId, Peer { trunk, .. }: Peer) -> Option<Self> {
        let method =
            request.method().map(|method| if method == Method::Ack { Method::Invite } else { method })?;
        let via = request.top_via().ok()?;
        if let Some(branch) = via.branch().filter(|branch| is_unique(branch)) {
            let mut sent_by = via.host_text().to_ascii_lowercase();
            if let Some(port) = via.port() {
                sent_by.push(':');
                sent_by.push_str(&port.to_string());
            }
            return Some(Self::Branch {
                listener,
                trunk,
                branch: branch.into(),
                sent_by: sent_by.into(),
                method,
            });
        }
        Some(Self::Rfc2543 {
            listener,
            trunk,
            request_uri: request.request_uri()?.into(),
            from_tag: request.from().ok()?.tag().map(Into::into),
            call_id: request.call_id().ok()?.into(),
            number: request.cseq().ok()?.number,
            top_via: request.values(crate::sip::HeaderName::Via).next()?.into(),
            method,
        })
    }

    /// The request's method; for an ACK, INVITE.
    pub(super) const fn method(&self) -> &Method {
        match self {
            Self::Branch { method, .. } | Self::Rfc2543 { method, .. } => method,
        }
    }

    /// The key of the INVITE that a CANCEL with this key is meant for (s.9.2); `None` if this is not a CANCEL's.
    pub(super) fn of_cancelled(&self) -> Option<Self> {
        if *self.method() != Method::Cancel {
            return None;
        }
        let mut key = self.clone();
        match &mut key {
            Self::Branch { method, .. } | Self::Rfc2543 { method, .. } => *method = Method::Invite,
        }
        Some(key)
    }

    /// Whether an ACK with this key belongs to the INVITE only if it has the To tag of our response as well.
    pub(super) const fn needs_to_tag(&self) -> bool {
        matches!(self, Self::Rfc2543 { .. })
    }
}

/// Whether the branch follows RFC 3261: the cookie, and something behind it.
fn is_unique(branch: &str) -> bool {
    branch.len() > MAGIC_COOKIE.len()
        && branch.get(..MAGIC_COOKIE.len()).is_some_and(|start| start.eq_ignore_ascii_case(MAGIC_COOKIE))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: ListenerId = ListenerId(0);
    const CARRIER: Peer = Peer { trunk: TrunkId(0), behind_nat: false };

    fn message(text: &str) -> Message {
        Message::parse(bytes::Bytes::from(text.replace('\n', "\r\n"))).unwrap()
    }

    fn request(method: &str, via: &str, to_tag: &str) -> Message {
        message(&format!(
            "{method} sip:b@example.com SIP/2.0\nVia: SIP/2.0/UDP {via}\nFrom: <sip:a@example.com>;tag=1\n\
             To: <sip:b@example.com>{to_tag}\nCall-ID: c1\nCSeq: 7 {method}\nContent-Length: 0\n\n"
        ))
    }

    fn key(method: &str, via: &str, to_tag: &str) -> ServerKey {
        ServerKey::of(&request(method, via, to_tag), HERE, CARRIER).unwrap()
    }

    #[test]
    fn a_copy_an_ack_and_a_cancel_find_the_invite() {
        for via in
            ["192.0.2.1;branch=z9hG4bKx", "192.0.2.1", "192.0.2.1;branch=1", "192.0.2.1;branch=z9hG4bK"]
        {
            let invite = key("INVITE", via, "");
            assert_eq!(key("INVITE", via, ""), invite, "{via}");
            assert_eq!(key("ACK", via, ";tag=ours"), invite, "{via}");
            assert_ne!(key("CANCEL", via, ""), invite, "{via}");
            assert_eq!(key("CANCEL", via, "").of_cancelled(), Some(invite.clone()), "{via}");
            assert_eq!(invite.of_cancelled(), None);
            assert_eq!(invite.needs_to_tag(), !via.contains("z9hG4bKx"), "{via}");
        }
    }

    #[test]
    fn branch_and_sent_by_tell_transactions_apart_and_nothing_else_does() {
        let base = key("INVITE", "h.example.com:5060;branch=z9hG4bKx", "");
        assert_eq!(
            key("INVITE", "H.Example.COM:5060;rport=9;branch=z9hG4bKx;received=192.0.2.9", ";tag=2"),
            base
        );
        assert_ne!(key("INVITE", "h.example.com:5060;branch=z9hG4bKy", ""), base);
        assert_ne!(key("INVITE", "h.example.com;branch=z9hG4bKx", ""), base);
        assert_ne!(key("INVITE", "g.example.com:5060;branch=z9hG4bKx", ""), base);
        let elsewhere = request("INVITE", "h.example.com:5060;branch=z9hG4bKx", "");
        assert_ne!(ServerKey::of(&elsewhere, ListenerId(1), CARRIER).unwrap(), base);
    }

    #[test]
    fn what_another_trunk_sends_is_never_the_same_transaction() {
        for via in ["h.example.com:5060;branch=z9hG4bKx", "192.0.2.1"] {
            for method in ["INVITE", "ACK", "CANCEL"] {
                let of = |trunk| {
                    let peer = Peer { trunk: TrunkId(trunk), ..CARRIER };
                    ServerKey::of(&request(method, via, ""), HERE, peer).unwrap()
                };
                assert_ne!(of(1), of(0), "{method} {via}");
            }
        }
    }

    #[test]
    fn an_old_branch_is_compared_with_the_whole_request() {
        let base = key("INVITE", "192.0.2.1;branch=1", "");
        assert_ne!(key("INVITE", "192.0.2.2;branch=1", ""), base);
        assert_ne!(key("BYE", "192.0.2.1;branch=1", ""), base);
        let mut other = request("INVITE", "192.0.2.1;branch=1", "").raw().to_vec();
        let at = other.windows(2).position(|w| w == b"c1").unwrap();
        other[at + 1] = b'2';
        assert_ne!(ServerKey::of(&Message::parse(other.into()).unwrap(), HERE, CARRIER).unwrap(), base);
    }

    #[test]
    fn a_response_finds_its_request_by_branch_and_cseq_method() {
        let response = message(
            "SIP/2.0 200 OK\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\nFrom: <sip:a@example.com>;tag=1\n\
             To: <sip:b@example.com>;tag=2\nCall-ID: c1\nCSeq: 7 CANCEL\nContent-Length: 0\n\n",
        );
        let expected = ClientKey { listener: HERE, branch: "z9hG4bKx".into(), method: Method::Cancel };
        assert_eq!(ClientKey::of(&response, HERE), Some(expected));
    }
}
