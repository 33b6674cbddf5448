//! The table: one row per case, with the reason, and the values that must be read from the message.

use std::net::IpAddr;

use sbc_core::sip::{HeaderName, Host, Message, Uri};

/// What comes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// At the wire layer: it makes sense, and the layers above act on it. At the engine: it goes on to the other side.
    Taken,
    /// It is refused with this status.
    Answered(u16),
    /// It gets no answer.
    Dropped,
}

use Outcome::{Answered, Dropped, Taken};

// What the engine says to messages that make sense, and why.

/// REGISTER: there is no registrar.
const NO_REGISTRAR: Outcome = Answered(405);
/// MESSAGE outside of a call.
const NO_MESSAGING: Outcome = Answered(405);
/// OPTIONS outside of a call asks whether we live.
const ALIVE: Outcome = Answered(200);
/// A method that nobody has defined.
const UNKNOWN_METHOD: Outcome = Answered(501);
/// A response to nothing that we have sent.
const NOBODY_WAITS: Outcome = Dropped;
/// Extensions are required, and there are none.
const NO_EXTENSIONS: Outcome = Answered(420);
/// The body of an INVITE is not a session description.
const NOT_SDP: Outcome = Answered(415);
/// Media over IPv6, in a realm whose media address is IPv4.
const NO_IPV6_MEDIA: Outcome = Answered(488);

pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// RFC and section.
    pub(crate) section: &'static str,
    pub(crate) bytes: &'static [u8],
    /// By itself.
    pub(crate) wire: Outcome,
    /// When a carrier sends it to the engine.
    pub(crate) engine: Outcome,
    pub(crate) why: &'static str,
    /// Asserts on what can be read from it.
    pub(crate) values: fn(&Message),
}

macro_rules! cases {
    ($($suite:literal $section:literal $kind:literal $name:literal => $wire:expr, $engine:expr, $why:literal, $values:expr;)*) => {
        pub(crate) const CASES: &[Case] = &[$(Case {
            name: $name,
            section: concat!($suite, " ", $section),
            bytes: include_bytes!(concat!(
                "../../../../tests/fixtures/torture/rfc", $suite, "/", $kind, "/", $name, ".sip"
            )),
            wire: $wire,
            engine: $engine,
            why: $why,
            values: $values,
        },)*];
    };
}

fn nothing(_: &Message) {}

fn text(bytes: Option<&[u8]>) -> &str {
    std::str::from_utf8(bytes.unwrap()).unwrap()
}

fn user<'m>(uri: &'m Uri<'_>) -> &'m str {
    uri.user().unwrap()
}

cases! {
    "4475" "3.1.1.1" "valid" "wsinv" => Taken, Taken, "white space and folds wherever the grammar has them", |m| {
        assert_eq!(m.to().unwrap().params().text("note"), Some("to-4711"));
        assert_eq!(m.from().unwrap().display(), Some(&br#"Carrier \\\"One\""#[..]));
        assert_eq!((m.max_forwards(), m.cseq().unwrap().number), (Ok(Some(70)), 12));
        let vias: Vec<_> = m.vias().map(|v| v.unwrap()).collect();
        let branches: Vec<_> = vias.iter().map(|v| (v.transport(), v.branch().unwrap())).collect();
        assert_eq!(branches, [("UDP", "z9hG4bK-wsinv"), ("TCP", "z9hG4bK-wsinv2"), ("UDP", "z9hG4bK-wsinv3")]);
        assert_eq!(text(m.header("X-Carrier-Note".into())), "every part of it is folded three times over");
        assert_eq!(m.header(HeaderName::Subject), Some(&b""[..]));
        let contact = m.contacts().next().unwrap().unwrap();
        assert_eq!(contact.addr().unwrap().params().text("newparam"), Some("newvalue"));
        assert!(contact.addr().unwrap().params().contains("secondparam"));
        assert!(m.routes().next().unwrap().unwrap().uri().param("lr").is_some());
    };
    "4475" "3.1.1.2" "valid" "intmeth" => Taken, UNKNOWN_METHOD, "every character that a token, a user and a quoted string may hold", |m| {
        assert_eq!(m.method().unwrap().as_str(), "!odd-but-legal_9*+`.%token'~");
        let uri = m.uri().unwrap();
        assert_eq!(user(&uri), "1_strange.USER~(still-fine!)&isn't+it$/odd?,/;;*");
        assert_eq!(uri.password(), Some("&it+has=1,weird!*pas$wo~d_too.(yes)"));
        assert_eq!(uri.host_text(), "sbc.example");
        assert_eq!(m.to().unwrap().display(), Some(&b"BELL:\\\x07 NULL:\\\0 DELETE:\\\x7f"[..]));
        assert_eq!(m.from().unwrap().params().text("fromParam''~+*_!.-%"), Some("\"раб\""));
        assert_eq!(m.from().unwrap().tag(), Some("_tok~1'+`*%!-."));
        assert_eq!(m.call_id(), Ok("intmeth.odd%ZK-!.*_+'@word`~)(><:\\/\"][?}{"));
        assert_eq!(m.top_via().unwrap().branch(), Some("z9hG4bK-.!%25*_+`'~"));
        assert_eq!(text(m.header("extensionHeader-!.%*+_`'~".into())), "\u{feff}大停電");
    };
    "4475" "3.1.1.3" "valid" "esc01" => Taken, Taken, "escapes stay as written", |m| {
        assert_eq!(user(&m.uri().unwrap()), "sips%3Aowner%40carrier.example");
        assert_eq!(user(m.to().unwrap().uri()), "%75ser");
        assert!(m.to().unwrap().uri().equivalent(&Uri::parse("sip:user@sbc.example").unwrap()));
        assert_eq!(user(m.from().unwrap().uri()), "I%20have%20blanks");
        let contact = m.contacts().next().unwrap().unwrap();
        assert_eq!(contact.addr().unwrap().uri().param("n%61me"), Some("v%61lue%25%34%31"));
    };
    "4475" "3.1.1.4" "valid" "escnull" => Taken, NO_REGISTRAR, "an escaped zero byte is a character like any other", |m| {
        assert_eq!(user(m.to().unwrap().uri()), "null-%00-null");
        let users: Vec<_> =
            m.contacts().map(|c| user(c.unwrap().addr().unwrap().uri()).to_owned()).collect();
        assert_eq!(users, ["%00", "%00%00"]);
    };
    "4475" "3.1.1.5" "valid" "esc02" => Taken, UNKNOWN_METHOD, "a percent sign that is no escape: methods and display names have none", |m| {
        assert_eq!(m.method().unwrap().as_str(), "OP%54IONS");
        assert_eq!(m.to().unwrap().display(), Some(&b"%Z%45"[..]));
        assert_eq!(m.from().unwrap().tag(), Some("f%232"));
        assert_eq!(m.contacts().count(), 2);
    };
    "4475" "3.1.1.6" "valid" "lwsdisp" => Taken, ALIVE, "no space between display name and bracket", |m| {
        assert_eq!(m.from().unwrap().display(), Some(&b"caller"[..]));
        assert_eq!(m.from().unwrap().tag(), Some("lwsdisp-f"));
    };
    "4475" "3.1.1.7" "valid" "longreq" => Taken, Taken, "long values everywhere, within the limits", |m| {
        assert_eq!(m.vias().filter(|v| v.is_ok()).count(), 33);
        assert_eq!(user(m.from().unwrap().uri()).len(), 161);
        assert_eq!(m.body().len(), m.content_length().unwrap().unwrap());
    };
    "4475" "3.1.1.8" "valid" "dblreq" => Taken, NO_REGISTRAR, "a datagram ends its message at the Content-Length", |m| {
        assert_eq!(m.method().unwrap().as_str(), "REGISTER");
        assert_eq!(m.body(), b"");
        assert!(!m.raw().windows(6).any(|w| w == b"INVITE"));
    };
    "4475" "3.1.1.9" "valid" "semiuri" => Taken, ALIVE, "semicolon parameters inside the user part", |m| {
        let uri = m.uri().unwrap();
        assert_eq!((user(&uri), uri.host_text()), ("caller;par=u%40carrier.example", "sbc.example"));
        assert_eq!(uri.param("par"), None);
    };
    "4475" "3.1.1.10" "valid" "transports" => Taken, ALIVE, "transports are an open set", |m| {
        let transports: Vec<_> = m.vias().map(|v| v.unwrap().transport()).collect();
        assert_eq!(transports, ["UDP", "SCTP", "TLS", "CARRIERPIGEON", "TCP"]);
    };
    "4475" "3.1.1.11" "valid" "mpart01" => Taken, NO_MESSAGING, "a body is bytes", |m| {
        let all: Vec<u8> = (0..=255).collect();
        assert!(m.body().windows(256).any(|w| w == all));
        let content_type = m.content_type().unwrap().unwrap();
        assert!(content_type.is("multipart", "mixed"));
        assert_eq!(content_type.params().text("boundary"), Some("7a9cbec02ceef655"));
    };
    "4475" "3.1.1.12" "valid" "unreason" => Taken, NOBODY_WAITS, "a reason phrase is any text", |m| {
        assert_eq!(m.status(), Some(200));
        assert_eq!(text(m.reason_phrase()), "= 2**3 * 5**2 но сто девяносто");
    };
    "4475" "3.1.1.13" "valid" "noreason" => Taken, NOBODY_WAITS, "a reason phrase may be empty", |m| {
        assert_eq!((m.status(), m.reason_phrase()), (Some(100), Some(&b""[..])));
    };

    "4475" "3.1.2.1" "invalid" "badinv01" => Answered(400), Answered(400), "separators without anything between them in Via and Contact", |m| {
        assert!(m.top_via().is_err());
        assert!(m.contacts().next().unwrap().is_err());
    };
    "4475" "3.1.2.2" "invalid" "clerr" => Answered(400), Answered(400), "the datagram ends before its Content-Length; on a stream we wait", |m| {
        assert!(m.body().len() < m.content_length().unwrap().unwrap());
    };
    "4475" "3.1.2.3" "invalid" "ncl" => Answered(400), Answered(400), "a negative Content-Length", |m| {
        assert!(m.content_length().is_err());
    };
    "4475" "3.1.2.4" "invalid" "scalar02" => Answered(400), Answered(400), "CSeq and Max-Forwards beyond their range; a large Expires only means for ever", |m| {
        assert!(m.cseq().is_err() && m.max_forwards().is_err());
        assert_eq!(m.expires(), Ok(Some(u32::MAX)));
    };
    "4475" "3.1.2.5" "invalid" "scalarlg" => Dropped, Dropped, "a response cannot be answered, so one with an impossible CSeq goes", |m| {
        assert!(m.cseq().is_err());
        assert_eq!(m.retry_after(), None);
    };
    "4475" "3.1.2.6" "invalid" "quotbal" => Answered(400), Answered(400), "a quoted string that never closes swallows the address", |m| {
        assert!(m.to().is_err());
    };
    "4475" "3.1.2.7" "invalid" "ltgtruri" => Answered(400), Answered(400), "a Request-URI has no brackets", |m| assert!(m.uri().is_none());
    "4475" "3.1.2.8" "invalid" "lwsruri" => Answered(400), Answered(400), "a Request-URI has no white space", |m| assert!(m.uri().is_none());
    "4475" "3.1.2.9" "invalid" "lwsstart" => Answered(400), Answered(400), "exactly one space between the parts of a request line", nothing;
    "4475" "3.1.2.10" "invalid" "trws" => Answered(400), Answered(400), "nothing behind the version of a request line", nothing;
    "4475" "3.1.2.11" "invalid" "escruri" => Answered(400), Answered(400), "a Request-URI has no headers; they could smuggle a Route past us", |m| {
        assert_eq!(m.uri().unwrap().headers_text(), Some("Route=%3Csip:elsewhere.example%3E"));
    };
    "4475" "3.1.2.12" "valid" "baddate" => Taken, Taken, "nothing here acts on Date, so a wrong time zone is no reason to refuse a call", nothing;
    "4475" "3.1.2.13" "invalid" "regbadct" => Answered(400), Answered(400), "without brackets it is open whether headers belong to the URI or to the Contact", |m| {
        assert!(m.contacts().next().unwrap().is_err());
    };
    "4475" "3.1.2.14" "invalid" "badaspec" => Answered(400), Answered(400), "white space inside the brackets is not part of any URI", |m| assert!(m.to().is_err());
    "4475" "3.1.2.15" "invalid" "baddn" => Answered(400), Answered(400), "a comma in an unquoted display name would make it two addresses", |m| assert!(m.from().is_err());
    "4475" "3.1.2.16" "invalid" "badvers" => Answered(505), Answered(505), "a version that we do not speak is named as such, whatever else is odd", |m| {
        assert_eq!(m.version(), b"SIP/7.0");
    };
    "4475" "3.1.2.17" "invalid" "mismatch01" => Answered(400), Answered(400), "the method of CSeq is the method of the request", nothing;
    "4475" "3.1.2.18" "invalid" "mismatch02" => Answered(400), Answered(400), "the same with a method that nobody knows", nothing;
    "4475" "3.1.2.19" "invalid" "bigcode" => Dropped, Dropped, "a status that is no status; nothing can be answered", nothing;

    "4475" "3.2.1" "valid" "badbranch" => Taken, ALIVE, "a branch of the magic cookie alone identifies nothing; the transaction layer matches it by the rules of RFC 2543", |m| {
        assert_eq!(m.top_via().unwrap().branch(), Some("z9hG4bK"));
    };

    "4475" "3.3.1" "invalid" "insuf" => Answered(400), Answered(400), "no From, To or Call-ID: what is there is copied into the answer", |m| {
        assert!(m.from().is_err() && m.to().is_err() && m.call_id().is_err() && m.top_via().is_ok());
    };
    "4475" "3.3.2" "invalid" "unkscm" => Answered(416), Answered(416), "nobody knows where that is", |m| {
        assert_eq!(m.uri().unwrap().scheme(), "nobodyKnowsThisScheme");
    };
    "4475" "3.3.3" "invalid" "novelsc" => Answered(416), Answered(416), "a known scheme, but none of telephony", |m| {
        assert_eq!(m.uri().unwrap().scheme(), "soap.beep");
    };
    "4475" "3.3.4" "valid" "unksm2" => Taken, NO_REGISTRAR, "From, To and Contact may be any URI", |m| {
        assert_eq!(m.to().unwrap().uri().as_str(), "isbn:2983792873");
        assert_eq!(m.from().unwrap().uri().scheme(), "http");
    };
    "4475" "3.3.5" "valid" "bext01" => Taken, NO_EXTENSIONS, "which extensions we have is not known here", |m| {
        let required: Vec<_> = m.values(HeaderName::Require).collect();
        assert_eq!(required, [&b"nothingSupportsThis"[..], b"nothingSupportsThisEither"]);
    };
    "4475" "3.3.6" "valid" "invut" => Taken, NOT_SDP, "which bodies we take is not known here", |m| {
        assert!(m.content_type().unwrap().unwrap().is("application", "unknownformat"));
    };
    "4475" "3.3.7" "valid" "regaut01" => Taken, NO_REGISTRAR, "an authorization scheme that nobody knows is one that does not help", nothing;
    "4475" "3.3.8" "invalid" "multi01" => Answered(400), Answered(400), "headers that may only be there once are there twice, and differ", nothing;
    "4475" "3.3.9" "invalid" "mcl01" => Answered(400), Answered(400), "two lengths: whoever believes the other one sees another message", nothing;
    "4475" "3.3.10" "valid" "bcast" => Taken, NOBODY_WAITS, "well-formed, whatever address its second Via names; no transaction of ours waits for it", |m| {
        assert_eq!(m.vias().nth(1).unwrap().unwrap().host(), Host::V4([255, 255, 255, 255].into()));
    };
    "4475" "3.3.11" "valid" "zeromf" => Taken, ALIVE, "zero is a number; what it means depends on who receives it", |m| {
        // OPTIONS is for us, not for somebody behind us, so it is answered all the same.
        assert_eq!(m.max_forwards(), Ok(Some(0)));
    };
    "4475" "3.3.12" "valid" "cparam01" => Taken, NO_REGISTRAR, "without brackets the parameter is the header's", |m| {
        let contact = m.contacts().next().unwrap().unwrap();
        assert!(contact.addr().unwrap().params().contains("unknownparam"));
        assert_eq!(contact.addr().unwrap().uri().param("unknownparam"), None);
    };
    "4475" "3.3.13" "valid" "cparam02" => Taken, NO_REGISTRAR, "inside brackets the parameter is the URI's", |m| {
        let contact = m.contacts().next().unwrap().unwrap();
        assert!(!contact.addr().unwrap().params().contains("unknownparam"));
        assert_eq!(contact.addr().unwrap().uri().param("unknownparam"), Some(""));
    };
    "4475" "3.3.14" "valid" "regescrt" => Taken, NO_REGISTRAR, "inside brackets a URI of a Contact may have headers", |m| {
        let contact = m.contacts().next().unwrap().unwrap();
        assert_eq!(contact.addr().unwrap().uri().headers_text(), Some("Route=%3Csip:proxy.example%3E"));
    };
    "4475" "3.3.15" "valid" "sdp01" => Taken, Taken, "what the caller accepts is between caller and callee", |m| {
        assert_eq!(text(m.header(HeaderName::Accept)), "text/nobodyKnowsThis");
    };
    "4475" "3.4.1" "valid" "inv2543" => Taken, Taken, "RFC 2543 senders have neither branch, tag, Max-Forwards nor Content-Length", |m| {
        assert_eq!((m.top_via().unwrap().branch(), m.from().unwrap().tag()), (None, None));
        assert_eq!((m.max_forwards(), m.content_length()), (Ok(None), Ok(None)));
        assert!(m.body().starts_with(b"v=0"));
    };

    "5118" "4.1" "valid" "ipv6-good" => Taken, NO_REGISTRAR, "an IPv6 address in brackets", |m| {
        assert_eq!(m.uri().unwrap().host(), Some(Host::V6("2001:db8:5::10".parse().unwrap())));
        assert_eq!(m.top_via().unwrap().host(), Host::V6("2001:db8:c::20".parse().unwrap()));
    };
    "5118" "4.2" "invalid" "ipv6-bad" => Answered(400), Answered(400), "without brackets the last group could be a port", |m| assert!(m.uri().is_none());
    "5118" "4.3" "valid" "port-ambiguous" => Taken, NO_REGISTRAR, "inside the brackets it is the address, not a port", |m| {
        let uri = m.uri().unwrap();
        assert_eq!(uri.host(), Some(Host::V6("2001:db8:5::10:5070".parse().unwrap())));
        assert_eq!(uri.port(), None);
    };
    "5118" "4.4" "valid" "port-unambiguous" => Taken, NO_REGISTRAR, "behind the brackets it is a port", |m| {
        let uri = m.uri().unwrap();
        assert_eq!(uri.host(), Some(Host::V6("2001:db8:5::10".parse().unwrap())));
        assert_eq!(uri.port(), Some(5070));
    };
    "5118" "4.5" "valid" "via-received-param-with-delim" => Taken, ALIVE, "received with brackets", |m| {
        let via = m.top_via().unwrap();
        assert_eq!(via.received(), Some("2001:db8:c::9:255".parse::<IpAddr>().unwrap()));
        assert_eq!(via.branch(), Some("z9hG4bK-with-delim"));
    };
    "5118" "4.5" "valid" "via-received-param-no-delim" => Taken, ALIVE, "received without brackets", |m| {
        let via = m.top_via().unwrap();
        assert_eq!(via.received(), Some("2001:db8:c::9:255".parse::<IpAddr>().unwrap()));
        assert_eq!(via.branch(), Some("z9hG4bK-no-delim"));
    };
    "5118" "4.6" "valid" "ipv6-in-sdp" => Taken, NO_IPV6_MEDIA, "IPv6 in the session description", |m| {
        assert!(text(Some(m.body())).contains("c=IN IP6 2001:db8:c::20\r\n"));
    };
    "5118" "4.7" "valid" "mult-ip-in-header" => Taken, Taken, "both families in one list of Vias", |m| {
        let hosts: Vec<_> = m.vias().map(|v| v.unwrap().host().ip().unwrap().is_ipv6()).collect();
        assert_eq!(hosts, [true, false, true]);
        assert_eq!(m.vias().nth(2).unwrap().unwrap().received(), Some([192, 0, 2, 200].into()));
    };
    "5118" "4.8" "valid" "mult-ip-in-sdp" => Taken, NO_IPV6_MEDIA, "one stream per family", |m| {
        assert!(text(Some(m.body())).contains("c=IN IP4 198.51.100.20\r\n"));
        assert!(text(Some(m.body())).contains("c=IN IP6 2001:db8:c::20\r\n"));
    };
    "5118" "4.9" "valid" "ipv4-mapped-ipv6" => Taken, NO_IPV6_MEDIA, "an IPv4-mapped address is an IPv6 address", |m| {
        assert_eq!(m.top_via().unwrap().host(), Host::V6("::ffff:198.51.100.20".parse().unwrap()));
        assert_eq!(m.top_via().unwrap().port(), Some(5060));
    };
    "5118" "4.10" "valid" "ipv6-bug-abnf-3-colons" => Taken, ALIVE, "RFC 3261's own grammar allows three colons; they mean two", |m| {
        let host = m.uri().unwrap().host().and_then(Host::ip);
        assert_eq!(host, Some("2001:db8::198.51.100.1".parse().unwrap()));
        assert_eq!(m.uri().unwrap().host_text(), "[2001:db8:::198.51.100.1]");
    };
    "5118" "4.10" "valid" "ipv6-correct-abnf-2-colons" => Taken, ALIVE, "the same address written correctly", |m| {
        let host = m.uri().unwrap().host().and_then(Host::ip);
        assert_eq!(host, Some("2001:db8::198.51.100.1".parse().unwrap()));
    };
}
