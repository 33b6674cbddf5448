//! One hop of an INVITE: parse it, read the typed top Via, From, To, CSeq and Contact, push one Via, serialise.
//!
//! The same work for three implementations, each in its own idiom, from `&[u8]` to owned bytes.

use std::hint::black_box;

use bytes::Bytes;
use sbc_core::sip;

/// A plain trunk INVITE with a session description: 900 bytes.
pub const INVITE: &[u8] = b"INVITE sip:+15550200@sbc.example.net:5060;user=phone SIP/2.0\r\n\
Via: SIP/2.0/UDP edge1.carrier.example.com:5060;branch=z9hG4bK74bf9a1c7d3e;rport\r\n\
Via: SIP/2.0/UDP 192.0.2.33:5060;branch=z9hG4bKnashds8;received=192.0.2.1\r\n\
Max-Forwards: 69\r\n\
From: \"Alice\" <sip:+15550100@carrier.example.com;user=phone>;tag=9fxced76sl\r\n\
To: <sip:+15550200@sbc.example.net;user=phone>\r\n\
Call-ID: 3848276298220188511@edge1.carrier.example.com\r\n\
CSeq: 314159 INVITE\r\n\
Contact: <sip:+15550100@192.0.2.33:5060;transport=udp>\r\n\
Record-Route: <sip:edge1.carrier.example.com;lr>\r\n\
Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE\r\n\
Supported: timer\r\n\
X-Trace-Id: 66a17c7c7c7c7c\r\n\
Content-Type: application/sdp\r\n\
Content-Length: 205\r\n\
\r\n\
v=0\r\n\
o=- 20518 1 IN IP4 192.0.2.101\r\n\
s=-\r\n\
c=IN IP4 192.0.2.101\r\n\
t=0 0\r\n\
m=audio 49172 RTP/AVP 8 0 101\r\n\
a=rtpmap:8 PCMA/8000\r\n\
a=rtpmap:0 PCMU/8000\r\n\
a=rtpmap:101 telephone-event/8000\r\n\
a=ptime:20\r\n\
a=sendrecv\r\n";

/// The Via that each contender pushes on top.
pub const VIA: &str = "SIP/2.0/UDP 198.51.100.1:5060;branch=z9hG4bK0a1b2c3d4e5f;rport";

/// This project's wire layer.
///
/// # Panics
/// If it cannot read the message.
#[must_use]
pub fn ours(datagram: &[u8]) -> Bytes {
    let message = sip::Message::parse(Bytes::copy_from_slice(datagram)).expect("the INVITE is sound");
    let via = message.top_via().expect("a Via");
    black_box((via.host(), via.port(), via.transport(), via.branch()));
    let from = message.from().expect("a From");
    black_box((from.display(), from.uri().user(), from.uri().host(), from.tag()));
    let to = message.to().expect("a To");
    black_box((to.uri().user(), to.uri().host(), to.tag()));
    black_box(message.cseq().expect("a CSeq"));
    let contact = message.contacts().next().expect("a Contact").expect("a sound one");
    black_box(contact.addr().map(|c| (c.uri().user(), c.uri().host(), c.uri().port())));
    sip::Edit::new(&message).push(sip::HeaderName::Via, VIA).build()
}

/// rsip 0.4.
///
/// # Panics
/// If it cannot read the message.
#[must_use]
pub fn rsip(datagram: &[u8]) -> Vec<u8> {
    use rsip::headers::{ToTypedHeader, UntypedHeader};
    use rsip::message::{HasHeaders, HeadersExt};
    let mut message = rsip::SipMessage::try_from(datagram).expect("the INVITE is sound");
    black_box(message.via_header().expect("a Via").typed().expect("a sound one"));
    black_box(message.from_header().expect("a From").typed().expect("a sound one"));
    black_box(message.to_header().expect("a To").typed().expect("a sound one"));
    black_box(message.cseq_header().expect("a CSeq").typed().expect("a sound one"));
    black_box(message.contact_header().expect("a Contact").typed().expect("a sound one"));
    let mut headers: Vec<rsip::Header> = std::mem::take(message.headers_mut()).into();
    headers.insert(0, rsip::headers::Via::new(VIA).into());
    *message.headers_mut() = headers.into();
    message.into()
}

/// rsipstack 0.7.
///
/// # Panics
/// If it cannot read the message.
#[must_use]
pub fn rsipstack(datagram: &[u8]) -> Vec<u8> {
    use rsipstack::sip::prelude::{HasHeaders, HeadersExt, ToTypedHeader};
    let mut message = rsipstack::sip::SipMessage::try_from(datagram).expect("the INVITE is sound");
    black_box(message.via_header().expect("a Via").typed().expect("a sound one"));
    black_box(message.from_header().expect("a From").typed().expect("a sound one"));
    black_box(message.to_header().expect("a To").typed().expect("a sound one"));
    black_box(message.cseq_header().expect("a CSeq").typed().expect("a sound one"));
    black_box(message.contact_header().expect("a Contact").typed().expect("a sound one"));
    message.headers_mut().push_front(rsipstack::sip::Header::Via(rsipstack::sip::Via::new(VIA)));
    message.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The contenders do the same work: the same values are in each one's output, the new Via on top.
    #[test]
    fn all_do_the_same_work() {
        assert_eq!(INVITE.len(), 900);
        for out in [ours(INVITE).to_vec(), rsip(INVITE), rsipstack(INVITE)] {
            let message = sip::Message::parse(out.into()).unwrap();
            assert_eq!(sip::judge(&message), sip::Judgement::Ok);
            assert_eq!(message.values(sip::HeaderName::Via).next(), Some(VIA.as_bytes()));
            assert_eq!(message.vias().count(), 3);
            assert!(INVITE.ends_with(message.body()) && message.body().len() == 205);
            assert_eq!(message.header("X-Trace-Id".into()), Some(&b"66a17c7c7c7c7c"[..]));
        }
    }
}
