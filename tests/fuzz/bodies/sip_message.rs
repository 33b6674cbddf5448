//! No accessor panics on any message; an unchanged message is the same bytes; a message rebuilt from its lines reads
//! the same; and where rsip can read a sound message too, both read the same Call-ID and CSeq.

use bytes::Bytes;
use rsip::prelude::{HeadersExt, UntypedHeader};
use sbc_core::sip::frame::{Datagram, datagram};
use sbc_core::sip::{Edit, HeaderName, Judgement, Message, MessageBuilder, Uri, judge};

pub(crate) fn run(data: &[u8]) {
    let Datagram::Message(content) = datagram(data) else { return };
    let Ok(message) = Message::parse(Bytes::copy_from_slice(content)) else { return };
    assert!(content.starts_with(message.raw()));
    assert_eq!(Edit::new(&message).build(), message.raw());
    ask_everything(&message);
    if judge(&message) == Judgement::Ok {
        rebuilt_reads_the_same(&message);
        pushed_via_is_on_top(&message);
        agrees_with_rsip(&message);
    }
}

fn ask_everything(m: &Message) {
    let _ =
        (m.method(), m.request_uri(), m.status(), m.reason_phrase(), m.version(), m.body(), m.body_bytes());
    let _ = (m.call_id().is_ok(), m.cseq().is_ok(), m.max_forwards(), m.rseq(), m.expires(), m.retry_after());
    let _ =
        (m.content_type().is_ok(), m.rack().is_ok(), m.session_expires(), m.replaces().is_ok(), m.min_se());
    for reason in m.reasons() {
        let _ = (reason.protocol(), reason.cause(), reason.text());
    }
    for via in m.vias().flatten() {
        let _ = (via.host().ip(), via.port(), via.branch(), via.rport(), via.received(), via.maddr());
    }
    let addresses = [m.from().ok(), m.to().ok()].into_iter().flatten().chain(m.routes().flatten());
    for address in addresses.chain(m.record_routes().flatten()) {
        uri_is_consistent(address.uri());
        let _ = (address.display(), address.tag(), address.params().iter().count());
    }
    for contact in m.contacts().flatten() {
        if let Some(address) = contact.addr() {
            uri_is_consistent(address.uri());
        }
    }
    for header in m.headers() {
        assert!(!header.value.contains(&b'\n'), "values are unfolded");
        let _ = m.header(header.name);
    }
    let _ =
        MessageBuilder::response_to(m, 400, "Bad", Some(([192, 0, 2, 1], 5060).into()), Some("x")).build();
}

fn uri_is_consistent(uri: &Uri<'_>) {
    assert!(uri.equivalent(uri), "{uri}");
    assert_eq!(uri.clone().into_owned(), *uri);
    let _ =
        (uri.host(), uri.port(), uri.password(), uri.opaque(), uri.params().count(), uri.headers().count());
    if let Some(user) = uri.user() {
        let scheme = uri.scheme().len() + 1;
        assert!(uri.as_str()[scheme..].starts_with(user));
    }
}

fn rebuilt_reads_the_same(m: &Message) {
    let mut builder = match (m.method(), m.request_uri(), m.status()) {
        (Some(method), Some(uri), _) => MessageBuilder::request(&method, uri),
        (_, _, Some(status)) => MessageBuilder::response(status, m.reason_phrase().unwrap_or_default()),
        _ => return,
    };
    for header in m.headers() {
        builder = builder.raw_line(header.line);
    }
    let bytes = Edit::new(&reparse(builder.build())).body("", m.body()).build();
    let again = reparse(bytes);
    assert_eq!(judge(&again), Judgement::Ok);
    assert_eq!(
        (again.method(), again.request_uri(), again.status()),
        (m.method(), m.request_uri(), m.status())
    );
    assert_eq!(again.body(), m.body());
    let values = |m: &Message| {
        let kept = m.headers().filter(|h| h.name != HeaderName::ContentLength);
        kept.map(|h| (h.name_text.to_owned(), h.value.to_vec())).collect::<Vec<_>>()
    };
    assert_eq!(values(&again), values(m));
}

fn pushed_via_is_on_top(m: &Message) {
    let bytes = Edit::new(m).push(HeaderName::Via, "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1").build();
    let pushed = reparse(bytes);
    assert_eq!(pushed.top_via().map(|v| v.branch().map(str::to_owned)), Ok(Some("z9hG4bK1".to_owned())));
    assert_eq!(pushed.vias().count(), m.vias().count() + 1);
}

fn reparse(bytes: Bytes) -> Message {
    match Message::parse(bytes) {
        Ok(message) => message,
        Err(error) => panic!("what we write, we read: {error}"),
    }
}

/// rsip refuses much that is sound and takes much that is not; where it reads a header at all, it must not be another
/// one.
fn agrees_with_rsip(m: &Message) {
    let Ok(theirs) = rsip::SipMessage::try_from(m.raw().as_ref()) else { return };
    // rsip knows neither compact names nor a line end without CR: such a message has other headers for it.
    if m.headers().any(|h| h.name_text.len() == 1 || !h.line.ends_with(b"\r\n")) {
        return;
    }
    if let (Ok(theirs), Ok(ours)) = (theirs.call_id_header(), m.call_id()) {
        assert_eq!(theirs.value().trim(), ours);
    }
    if let (Ok(theirs), Ok(ours)) = (theirs.cseq_header(), m.cseq())
        && let (Ok(number), Ok(method)) = (theirs.seq(), theirs.method())
    {
        assert_eq!(number, ours.number);
        assert!(method.to_string().eq_ignore_ascii_case(ours.method.as_str()));
    }
}
