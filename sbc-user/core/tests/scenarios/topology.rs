//! Nothing of one side shows on the other.

use crate::pair::ua::OnUpdate;
use crate::pair::{Pair, Setup};
use crate::{answer, assert_hidden, offer};

#[test]
fn topology_is_hidden() {
    let mut pair = Pair::new();
    pair.a.extra = "P-Asserted-Identity: \"Alice\" <sip:+331@carrier.example;user=phone>, <tel:+331>\r\n\
                    Diversion: <sip:+332@198.51.100.77:5060;transport=udp>;reason=unconditional\r\n\
                    History-Info: <sip:bob@carrier.example?Reason=SIP%3Bcause%3D302>;index=1\r\n\
                    Record-Route: <sip:198.51.100.10;lr>\r\n\
                    X-Carrier: kept  as: it is\r\n\
                    X-Trunk-Host: gw7.carrier.example\r\n\
                    P-Charging-Vector: icid-value=1;icid-generated-at=198.51.100.9\r\n\
                    Call-Info: <http://198.51.100.9/pic.png>;purpose=icon\r\n\
                    Warning: 399 carrier.example \"hello\"\r\n"
        .into();
    pair.basic_call();
    let invite = pair.b.last("INVITE", 0);
    assert!(invite.text.contains("\r\nX-Carrier: kept  as: it is\r\n"));
    assert_eq!(
        invite.header("P-Asserted-Identity").unwrap(),
        "\"Alice\" <sip:+331@10.9.0.1;user=phone>, <tel:+331>"
    );
    assert_eq!(invite.header("Diversion").unwrap(), "<sip:+332@10.9.0.1>;reason=unconditional");
    assert_eq!(invite.header("X-Trunk-Host"), None);
    assert_eq!(invite.header("From").unwrap().split(';').next().unwrap(), "<sip:alice@10.9.0.1>");
    assert!(invite.text.starts_with("INVITE sip:bob@10.9.0.20:5060 SIP/2.0\r\n"));
    assert_eq!(pair.counter("header_hidden"), 1);
    pair.a.in_dialog("INFO", Some(("text/plain", "x")), "");
    pair.b.in_dialog("OPTIONS", None, "");
    pair.a.on_update = OnUpdate::Answer(offer());
    pair.run_ms(100);
    pair.b.reinvite(Some(&answer()));
    pair.run_ms(200);
    pair.b.bye();
    pair.assert_nothing_left(1);
    assert_hidden(&pair);
}

#[test]
fn refusals_hide_topology_too() {
    for status in [302, 404, 407, 488, 503] {
        let mut pair = Pair::new();
        pair.a.invite("bob", Some(&offer()));
        pair.run_ms(100);
        let extra = "Warning: 370 pbx.internal:5060 \"no bandwidth\"\r\nWWW-Authenticate: Digest realm=\"pbx.internal\"\r\n\
                     X-Where: at 10.9.0.20, there\r\n";
        pair.b.respond_as(status, None, "refused", extra);
        pair.run_ms(100);
        pair.assert_nothing_left(1);
        assert_hidden(&pair);
        assert!(
            pair.to_a.iter().any(|message| message.contains("Warning: 370 203.0.113.1 \"no bandwidth\""))
        );
    }
}

/// Phones without a name put their address in its place.
#[test]
fn display_names_and_parameters_tell_nothing() {
    let mut pair = Pair::new();
    pair.a.extra = "P-Asserted-Identity: \"198.51.100.10\" <sip:+331@carrier.example>\r\n\
                    Diversion: \"Front desk\" <sip:+332@carrier.example>;reason=busy;x-from=gw.carrier.example\r\n\
                    Remote-Party-ID: \"Alice\" <sip:+331@carrier.example>;party=calling\r\n"
        .into();
    pair.a.invite("bob", Some(&offer()));
    let named = pair.a.sent.last().unwrap().replace("From: <sip:alice", "From: \"198.51.100.10\" <sip:alice");
    pair.a.outbox.clear();
    pair.a.raw(&named);
    pair.run_ms(100);
    let invite = pair.b.last("INVITE", 0);
    assert!(invite.header("From").unwrap().starts_with("<sip:alice@10.9.0.1>;tag="));
    assert_eq!(invite.header("P-Asserted-Identity").unwrap(), "<sip:+331@10.9.0.1>");
    assert_eq!(invite.header("Diversion").unwrap(), "<sip:+332@10.9.0.1>");
    assert_eq!(invite.header("Remote-Party-ID").unwrap(), "\"Alice\" <sip:+331@10.9.0.1>;party=calling");
    pair.b.respond(486, None);
    pair.assert_nothing_left(1);
    assert_hidden(&pair);
}

/// Without hiding as well, nobody is told of a media address that nobody anchored.
#[test]
fn a_wrapped_description_passes_nowhere() {
    let mut pair = Pair::with(Setup { hide: false, ..Setup::default() });
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    let parts = "--x\r\nContent-Type: Application/SDP\r\n\r\nv=0\r\nc=IN IP4 192.0.2.44\r\n--x--\r\n";
    let request = pair.b.invites.first().cloned().unwrap();
    let tag = pair.b.local_tag.clone();
    pair.b.respond_to(&request, 183, Some(("multipart/mixed;boundary=x", parts)), &tag, "");
    pair.run_ms(100);
    assert_eq!(pair.a.last("INVITE", 183).body(), "");
    pair.b.respond(200, Some(&answer()));
    pair.b.invite_done();
    pair.run_ms(100);
    pair.b.in_dialog("INFO", Some(("application/x-report", "from 10.9.0.20 to 10.9.0.1")), "");
    pair.run_ms(100);
    assert_eq!(pair.a.last("INFO", 0).body(), "from 10.9.0.20 to 10.9.0.1");
    assert_eq!(pair.counter("body_hidden"), 1);
    pair.a.bye();
    pair.assert_nothing_left(1);
}

/// A description in a wrapping, or a report that names machines, is not anchored by anybody.
#[test]
fn bodies_that_tell_stay_behind() {
    let mut pair = Pair::new();
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    let parts = "--x\r\nContent-Type: Application/SDP\r\n\r\nv=0\r\nc=IN IP4 192.0.2.44\r\n--x--\r\n";
    let request = pair.b.invites.first().cloned().unwrap();
    let tag = pair.b.local_tag.clone();
    pair.b.respond_to(&request, 183, Some(("multipart/mixed;boundary=x", parts)), &tag, "");
    pair.b.respond(200, Some(&answer()));
    pair.b.invite_done();
    pair.run_ms(100);
    assert_eq!(pair.a.last("INVITE", 183).body(), "");
    pair.b.in_dialog("INFO", Some(("application/x-report", "from 10.9.0.20 to 10.9.0.1")), "");
    pair.b.in_dialog("INFO", Some(("application/dtmf-relay", "Signal=1\r\n")), "");
    pair.b.in_dialog("MESSAGE", Some(("text/plain", "my mail is bob@pbx.example")), "");
    pair.run_ms(100);
    let bodies: Vec<&str> =
        pair.a.seen.iter().filter(|it| it.status == 0).map(crate::pair::ua::Seen::body).collect();
    assert_eq!(bodies, ["", "Signal=1\r\n", "my mail is bob@pbx.example"]);
    assert_eq!(pair.counter("body_hidden"), 2);
    pair.a.bye();
    pair.assert_nothing_left(1);
    assert_hidden(&pair);
}

/// Where a side receives media is its own affair, even where it is not where it speaks SIP.
#[test]
fn media_addresses_do_not_show_in_headers() {
    let mut pair = Pair::new();
    pair.a.extra = "X-Media: rtp at 192.0.2.44, kept\r\n".into();
    pair.a.invite("bob", Some(&offer().replace("198.51.100.10", "192.0.2.44")));
    pair.run_ms(100);
    assert_eq!(pair.b.last("INVITE", 0).header("X-Media"), None);
    pair.b.respond(486, None);
    pair.assert_nothing_left(1);
}

#[test]
fn without_hiding_names_pass() {
    let mut pair = Pair::with(Setup { hide: false, ..Setup::default() });
    pair.a.extra = "P-Asserted-Identity: <sip:+331@carrier.example>\r\n".into();
    pair.basic_call();
    let invite = pair.b.last("INVITE", 0);
    assert!(invite.header("From").unwrap().starts_with("<sip:alice@carrier.example>"));
    assert_eq!(invite.header("P-Asserted-Identity").unwrap(), "<sip:+331@carrier.example>");
    assert_ne!(invite.header("Call-ID").unwrap(), pair.a.call_id);
    pair.a.bye();
    pair.assert_nothing_left(1);
}
