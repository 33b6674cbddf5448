//! Dialogs of both sides, held against messages as they are on the wire.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const VIA: &str = "SIP/2.0/UDP 192.0.2.2:5060;branch=z9hG4bKnew";

fn message(text: impl Into<String>) -> Message {
    Message::parse(Bytes::from(text.into().replace('\n', "\r\n"))).unwrap()
}

fn invite(from: &str, extra: &str) -> Message {
    message(format!(
        "INVITE sip:b@example.com SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\nFrom: {from}\n\
         To: \"B\" <sip:b@example.com>\nCall-ID: c1\nCSeq: 7 INVITE\n{extra}Content-Length: 0\n\n"
    ))
}

fn response(status: u16, to: &str, extra: &str) -> Message {
    message(format!(
        "SIP/2.0 {status} X\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\nFrom: <sip:a@example.com>;tag=a\n\
         To: {to}\nCall-ID: c1\nCSeq: 7 INVITE\n{extra}Content-Length: 0\n\n"
    ))
}

fn callee() -> Dialog {
    let request = invite(
        "<sip:a@example.com>;tag=a",
        "Contact: <sip:a@192.0.2.1:5062>\nRecord-Route: <sip:p2;lr>\nRecord-Route: <sip:p1;lr>\n",
    );
    Dialog::of_callee(&request, "b", DialogState::Early).unwrap()
}

fn caller(status: u16, extra: &str) -> Dialog {
    let request = invite("<sip:a@example.com>;tag=a", "");
    Dialog::of_caller(&request, &response(status, "\"B\" <sip:b@example.com>;tag=b", extra)).unwrap()
}

fn text(builder: MessageBuilder) -> String {
    String::from_utf8(builder.build().to_vec()).unwrap()
}

fn bye(number: u32) -> Message {
    message(format!(
        "BYE sip:b@192.0.2.2 SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKz\nFrom: <sip:a@example.com>;tag=a\n\
         To: <sip:b@example.com>;tag=b\nCall-ID: c1\nCSeq: {number} BYE\nContent-Length: 0\n\n"
    ))
}

#[test]
fn a_callees_request_goes_back_through_the_recorded_route() {
    let mut dialog = callee();
    assert_eq!(
        text(dialog.request(&Method::Bye, VIA, MAX_FORWARDS)),
        "BYE sip:a@192.0.2.1:5062 SIP/2.0\r\n\
         Via: SIP/2.0/UDP 192.0.2.2:5060;branch=z9hG4bKnew\r\n\
         Max-Forwards: 70\r\n\
         Route: <sip:p2;lr>\r\n\
         Route: <sip:p1;lr>\r\n\
         From: \"B\" <sip:b@example.com>;tag=b\r\n\
         To: <sip:a@example.com>;tag=a\r\n\
         Call-ID: c1\r\n\
         CSeq: 1 BYE\r\n\
         Content-Length: 0\r\n\r\n"
    );
    assert!(text(dialog.request(&Method::Info, VIA, MAX_FORWARDS)).contains("\r\nCSeq: 2 INFO\r\n"));
    assert_eq!(dialog.next_hop(), "sip:p2;lr");
}

#[test]
fn a_caller_acknowledges_through_the_reversed_route() {
    let dialog = caller(200, "Contact: <sip:b@192.0.2.9>\nRecord-Route: <sip:p2;lr>, <sip:p1;lr>\n");
    assert_eq!(dialog.state(), DialogState::Confirmed);
    assert_eq!(
        text(dialog.ack(7, VIA)),
        "ACK sip:b@192.0.2.9 SIP/2.0\r\n\
         Via: SIP/2.0/UDP 192.0.2.2:5060;branch=z9hG4bKnew\r\n\
         Max-Forwards: 70\r\n\
         Route: <sip:p1;lr>\r\n\
         Route: <sip:p2;lr>\r\n\
         From: <sip:a@example.com>;tag=a\r\n\
         To: \"B\" <sip:b@example.com>;tag=b\r\n\
         Call-ID: c1\r\n\
         CSeq: 7 ACK\r\n\
         Content-Length: 0\r\n\r\n"
    );
}

#[test]
fn a_strict_router_is_addressed_itself() {
    let mut dialog = caller(200, "Contact: <sip:b@192.0.2.9>\nRecord-Route: <sip:p1.example.com>\n");
    let bye = text(dialog.request(&Method::Bye, VIA, MAX_FORWARDS));
    assert!(bye.starts_with("BYE sip:p1.example.com SIP/2.0\r\n"), "{bye}");
    assert!(bye.contains("\r\nRoute: <sip:b@192.0.2.9>\r\n"), "{bye}");
    assert!(bye.contains("\r\nCSeq: 8 BYE\r\n"), "{bye}");
}

#[test]
fn both_sides_have_the_same_name_with_the_tags_swapped() {
    let (a, b) = (caller(200, "Contact: <sip:b@h>\n"), callee());
    assert_eq!(
        (&a.id().local_tag, a.id().remote_tag.as_ref()),
        (b.id().remote_tag.as_ref().unwrap(), Some(&b.id().local_tag))
    );
    assert_eq!(DialogId::of_request(&bye(8)).as_ref(), Some(b.id()));
    let ok = response(200, "<sip:b@example.com>;tag=b", "");
    assert_eq!(DialogId::of_response(&ok).as_ref(), Some(a.id()));
}

#[test]
fn a_request_without_to_tag_is_outside_of_any_dialog() {
    assert_eq!(DialogId::of_request(&invite("<sip:a@example.com>;tag=a", "")), None);
}

#[test]
fn peers_of_rfc_2543_have_no_tag() {
    let request = invite("sip:a@example.com", "Contact: sip:a@192.0.2.1\n");
    let mut dialog = Dialog::of_callee(&request, "b", DialogState::Confirmed).unwrap();
    assert_eq!(dialog.id().remote_tag, None);
    assert!(text(dialog.request(&Method::Bye, VIA, MAX_FORWARDS)).contains("\r\nTo: sip:a@example.com\r\n"));

    let request = invite("<sip:a@example.com>;tag=a", "");
    let mut dialog = Dialog::of_caller(&request, &response(200, "<sip:b@example.com>", "")).unwrap();
    assert_eq!((dialog.id().remote_tag.as_deref(), dialog.remote_target()), (None, "sip:b@example.com"));
    assert!(
        text(dialog.request(&Method::Bye, VIA, MAX_FORWARDS)).contains("\r\nTo: <sip:b@example.com>\r\n")
    );
}

#[test]
fn an_empty_tag_does_not_stay_beside_ours() {
    let request = invite("<sip:a@example.com>;tag=a", "Contact: <sip:a@h>\n");
    let request = String::from_utf8(request.raw().to_vec()).unwrap();
    let request =
        message(request.replace("\"B\" <sip:b@example.com>", "<sip:b@example.com>;tag=").replace('\r', ""));
    let mut dialog = Dialog::of_callee(&request, "b", DialogState::Early).unwrap();
    let bye = text(dialog.request(&Method::Bye, VIA, MAX_FORWARDS));
    assert!(bye.contains("\r\nFrom: <sip:b@example.com>;tag=b\r\n"), "{bye}");
}

#[test]
fn what_a_dialog_is_made_of_must_be_there() {
    let missing = Dialog::of_callee(&invite("<sip:a@h>;tag=a", ""), "b", DialogState::Early);
    assert_eq!(missing, Err(HeaderError::Missing(HeaderName::Contact)));
    for contact in ["*", "<sip:a", ""] {
        let request = invite("<sip:a@h>;tag=a", &format!("Contact: {contact}\n"));
        assert!(Dialog::of_callee(&request, "b", DialogState::Early).is_err(), "{contact}");
    }
}

#[test]
fn the_2xx_decides_anew_on_route_and_target_and_its_copies_do_not() {
    let mut dialog = caller(183, "Contact: <sip:early@192.0.2.9>\nRecord-Route: <sip:p1;lr>\n");
    assert_eq!((dialog.state(), dialog.next_hop()), (DialogState::Early, "sip:p1;lr"));
    let to = "<sip:b@example.com>;tag=b";
    dialog.confirm(&response(200, to, "Contact: <sip:b@192.0.2.9>\nRecord-Route: <sip:p2;lr>\n")).unwrap();
    assert_eq!((dialog.state(), dialog.remote_target()), (DialogState::Confirmed, "sip:b@192.0.2.9"));
    assert_eq!(dialog.next_hop(), "sip:p2;lr");
    dialog.confirm(&response(200, to, "Contact: <sip:evil@192.0.2.66>\n")).unwrap();
    assert_eq!((dialog.remote_target(), dialog.next_hop()), ("sip:b@192.0.2.9", "sip:p2;lr"));
}

#[test]
fn a_target_refresh_changes_the_target_alone() {
    let mut dialog = callee();
    let reinvite =
        invite("<sip:a@example.com>;tag=a", "Contact: <sip:a@192.0.2.77>\nRecord-Route: <sip:p9;lr>\n");
    dialog.refresh_target(&reinvite).unwrap();
    assert_eq!((dialog.remote_target(), dialog.next_hop()), ("sip:a@192.0.2.77", "sip:p2;lr"));
    assert!(dialog.refresh_target(&invite("<sip:a@h>;tag=a", "Contact: *\n")).is_err());
    dialog.refresh_target(&invite("<sip:a@h>;tag=a", "")).unwrap();
    assert_eq!(dialog.remote_target(), "sip:a@192.0.2.77");
}

#[test]
fn requests_are_taken_in_order_and_not_after_the_end() {
    let mut dialog = callee();
    assert_eq!(dialog.accept(&bye(9)), Ok(()));
    assert_eq!(dialog.accept(&bye(8)).map_err(RequestRefused::status), Err(500));
    dialog.on(DialogEvent::Bye);
    assert_eq!(dialog.accept(&bye(10)).map_err(RequestRefused::status), Err(481));
    let ack = text(caller(200, "Contact: <sip:b@h>\n").ack(7, VIA));
    assert_eq!(callee().accept(&Message::parse(ack.into()).unwrap()), Ok(()));
}

proptest! {
    /// Whatever a peer writes where our requests take their lines from, each line of ours stays one line.
    #[test]
    fn hostile_values_stay_inside_of_their_lines(
        from in prop_oneof!["[a-z ]{0,8}", "\"[ -~é]{0,20}\""],
        contact in "<?sips?:([a-z%?;=]{1,9}@)?[a-z.:0-9]{1,9}(;[a-zA-Z%=;]{1,9})?(;method=[A-Z]{1,4})?([?][a-z=&]{1,9})?>?",
        route in "<sip:([a-z%?;=]{1,9}@)?[a-z.0-9]{1,9}(;[a-z%=;]{1,9})?([?][a-z=&]{1,9})?>(;[!-~é]{1,9})?",
        strict: bool,
    ) {
        let lr = if strict { "" } else { ", <sip:p1;lr>" };
        let extra = format!("Contact: {contact}\nRecord-Route: {route}{lr}\n");
        let Ok(request) = Message::parse(invite(&format!("{from}<sip:a@h>;tag=a"), &extra).raw().clone()) else {
            return Ok(());
        };
        let Ok(mut dialog) = Dialog::of_callee(&request, "b", DialogState::Confirmed) else { return Ok(()) };
        let bye = dialog.request(&Method::Bye, VIA, MAX_FORWARDS).build();
        let parsed = Message::parse(bytes::Bytes::clone(&bye)).expect("ours can be parsed");
        prop_assert_eq!(parsed.method(), Some(Method::Bye));
        prop_assert_eq!(parsed.call_id(), Ok("c1"));
        prop_assert_eq!(parsed.cseq().map(|cseq| cseq.number), Ok(1));
        let from = parsed.from();
        prop_assert_eq!(from.as_ref().ok().and_then(|from| from.tag()), Some("b"));
        prop_assert!(parsed.uri().is_some(), "Request-URI of {:?}", bye);
        prop_assert_eq!(parsed.headers().len(), 7 + parsed.all(HeaderName::Route).count());
    }
}
