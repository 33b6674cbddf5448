//! The messages that transactions make by themselves: 100, the ACK to a refusal, CANCEL, and the refusal of what is
//! too much.

use bytes::Bytes;

use crate::flow::Flow;
use crate::sip::{HeaderName, Message, MessageBuilder, Method};

/// Seconds after which a refused sender may try again: by then, transactions have ended.
const RETRY_AFTER: &str = "32";

/// 100 (Trying) to an INVITE (RFC 3261 s.17.2.1, s.8.2.6.1).
pub(super) fn trying(request: &Message, source: Flow) -> Bytes {
    MessageBuilder::response_to(request, 100, "Trying", Some(source.remote), None).build()
}

/// 503 to a request for which there is no room; no transaction is kept for it (s.8.2.7), so `to_tag` must be the same
/// for every copy.
pub(super) fn overloaded(request: &Message, source: Flow, to_tag: &str) -> Bytes {
    MessageBuilder::response_to(request, 503, "Service Unavailable", Some(source.remote), Some(to_tag))
        .header(HeaderName::RetryAfter, RETRY_AFTER)
        .build()
}

/// The ACK to a response of 300 to 699 (s.17.1.1.3): all from our request, but the To from the response.
pub(super) fn ack(request: &Bytes, refusal: &Message) -> Option<Bytes> {
    Some(follow_up(request, &Method::Ack, refusal.header(HeaderName::To)?)?.build())
}

/// The CANCEL of an INVITE (s.9.1): all from our request, and the lines in which the user says why (RFC 3326).
pub(super) fn cancel(request: &Bytes, lines: &[Bytes]) -> Option<Bytes> {
    let invite = Message::parse(request.clone()).ok()?;
    let message = follow_up(request, &Method::Cancel, invite.header(HeaderName::To)?)?;
    Some(lines.iter().fold(message, |message, line| message.raw_line(line)).build())
}

/// A request that follows one of ours on its path: same Request-URI, top Via, Route, From, Call-ID and CSeq number.
/// `None` only if our request was not well-formed.
fn follow_up(request: &Bytes, method: &Method, to: &[u8]) -> Option<MessageBuilder> {
    let request = Message::parse(request.clone()).ok()?;
    let mut message = MessageBuilder::request(method, request.request_uri()?)
        .header(HeaderName::Via, request.values(HeaderName::Via).next()?)
        .header(HeaderName::MaxForwards, "70");
    for route in request.all(HeaderName::Route) {
        message = message.header(HeaderName::Route, route);
    }
    let message = message
        .header(HeaderName::From, request.header(HeaderName::From)?)
        .header(HeaderName::To, to)
        .header(HeaderName::CallId, request.header(HeaderName::CallId)?)
        .header(HeaderName::CSeq, format!("{} {method}", request.cseq().ok()?.number));
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &str = "INVITE sip:b@example.com;x=y SIP/2.0\r\n\
        Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKx\r\n\
        Max-Forwards: 69\r\n\
        Route: <sip:p1.example.com;lr>, <sip:p2.example.com;lr>\r\n\
        Route: <sip:p3.example.com;lr>\r\n\
        From: \"A\" <sip:a@example.com>;tag=1\r\n\
        To: <sip:b@example.com>\r\n\
        Call-ID: c1\r\n\
        CSeq: 7 INVITE\r\n\
        Contact: <sip:a@192.0.2.1>\r\n\
        Content-Type: text/plain\r\n\
        Content-Length: 2\r\n\r\nhi";

    fn text(bytes: Option<Bytes>) -> String {
        String::from_utf8(bytes.unwrap().to_vec()).unwrap()
    }

    #[test]
    fn an_ack_is_the_request_with_the_to_of_the_response() {
        let refusal = "SIP/2.0 486 Busy Here\r\nTo: <sip:b@example.com>;tag=2\r\n\r\n";
        let refusal = Message::parse(Bytes::from_static(refusal.as_bytes())).unwrap();
        assert_eq!(
            text(ack(&Bytes::from_static(INVITE.as_bytes()), &refusal)),
            "ACK sip:b@example.com;x=y SIP/2.0\r\n\
             Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKx\r\n\
             Max-Forwards: 70\r\n\
             Route: <sip:p1.example.com;lr>, <sip:p2.example.com;lr>\r\n\
             Route: <sip:p3.example.com;lr>\r\n\
             From: \"A\" <sip:a@example.com>;tag=1\r\n\
             To: <sip:b@example.com>;tag=2\r\n\
             Call-ID: c1\r\n\
             CSeq: 7 ACK\r\n\
             Content-Length: 0\r\n\r\n"
        );
    }

    #[test]
    fn a_cancel_is_the_request_without_body_and_extensions() {
        let cancel = text(cancel(&Bytes::from_static(INVITE.as_bytes()), &[]));
        assert!(cancel.starts_with("CANCEL sip:b@example.com;x=y SIP/2.0\r\n"), "{cancel}");
        assert!(cancel.contains("\r\nCSeq: 7 CANCEL\r\n"), "{cancel}");
        assert!(cancel.contains("\r\nTo: <sip:b@example.com>\r\n"), "{cancel}");
        assert!(!cancel.contains("Contact"), "{cancel}");
    }
}
