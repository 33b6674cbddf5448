//! What of a message crosses to the other side, and in which form (R-HIDE-1).
//!
//! Every header has one treatment, in one table. What belongs to a hop or a dialog is made anew on each side and never
//! crosses. What names an address keeps its user and gets the host that is right on the other side. What is known to
//! carry topology stays behind. Everything else, known or not, crosses byte for byte, with one exception: a line that
//! mentions a name or address of the side it comes from stays behind and is counted. Without hiding only the first rule
//! holds.
//!
//! Product names (`Server`, `User-Agent`) count as topology: they tell which machine, of which version, stands behind.
//! Dialog identifiers in other headers (`Replaces`, `Join` …) never cross: they mean nothing on the other side.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use crate::flow::Transport;
use crate::mention::mentions;
use crate::sdp::Sdp;
use crate::sdp::anchor::{Relayed, Stream, survey};
use crate::sip::header::{HeaderName, NameAddr};
use crate::sip::{Message, Uri};

/// How one side of a call looks from its own network.
#[derive(Clone, Copy, Debug)]
pub struct Face {
    /// Our address there, as we advertise it.
    pub local: SocketAddr,
    /// The peer there.
    pub remote: SocketAddr,
    /// Nothing of the other side may show there.
    pub hide: bool,
}

/// What happens to a header on its way across.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Treatment {
    /// Made anew on each side.
    Ours,
    /// Meaningless on the other side.
    Dropped,
    /// Describes the body and goes with it.
    Body,
    /// A list of addresses: user kept, host replaced; the rest kept unless it tells.
    Addresses,
    /// `Warning`: the agent's name replaced, unless the text names somebody.
    Warning,
    /// A list of references of which only location-independent ones (`urn:`, `cid:`) cross.
    References,
    /// Shows topology by its nature.
    Topology,
    /// Byte for byte.
    Verbatim,
    /// Byte for byte, whatever it mentions: it is made to be read by everybody, and signed.
    Public,
}

fn treatment(name: HeaderName<'_>) -> Treatment {
    use HeaderName as H;
    match name {
        H::Via
        | H::From
        | H::To
        | H::CallId
        | H::CSeq
        | H::Contact
        | H::Route
        | H::RecordRoute
        | H::MaxForwards
        | H::ContentLength
        | H::Allow
        | H::Supported
        | H::Require
        | H::ProxyRequire
        | H::Unsupported
        | H::RAck
        | H::RSeq
        | H::SessionExpires
        | H::MinSe
        | H::Timestamp
        | H::Date => Treatment::Ours,
        H::Replaces | H::Join | H::TargetDialog | H::InReplyTo => Treatment::Dropped,
        H::ContentType | H::ContentDisposition | H::ContentEncoding | H::ContentLanguage | H::MimeVersion => {
            Treatment::Body
        }
        H::PAssertedIdentity
        | H::PPreferredIdentity
        | H::RemotePartyId
        | H::Diversion
        | H::HistoryInfo
        | H::ReferTo
        | H::ReferredBy
        | H::ReplyTo => Treatment::Addresses,
        H::Warning => Treatment::Warning,
        H::AlertInfo | H::CallInfo | H::ErrorInfo | H::Geolocation => Treatment::References,
        H::AuthenticationInfo
        | H::Authorization
        | H::ProxyAuthenticate
        | H::ProxyAuthorization
        | H::WwwAuthenticate
        | H::Organization
        | H::PAccessNetworkInfo
        | H::PChargingVector
        | H::Path
        | H::ServiceRoute
        | H::Server
        | H::UserAgent => Treatment::Topology,
        H::Accept
        | H::AcceptContact
        | H::AcceptEncoding
        | H::AcceptLanguage
        | H::AllowEvents
        | H::Event
        | H::Expires
        | H::MinExpires
        | H::PAssertedService
        | H::PEarlyMedia
        | H::Priority
        | H::Privacy
        | H::Reason
        | H::RecvInfo
        | H::RejectContact
        | H::RequestDisposition
        | H::ResourcePriority
        | H::RetryAfter
        | H::SessionId
        | H::Subject
        | H::SubscriptionState
        | H::UserToUser => Treatment::Verbatim,
        H::Identity => Treatment::Public,
        H::Other(text) => OTHERS
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(text))
            .map_or(Treatment::Verbatim, |(_, treatment)| *treatment),
    }
}

/// Headers outside of the parser's known set that are not copied.
const OTHERS: [(&str, Treatment); 15] = [
    ("P-Called-Party-ID", Treatment::Addresses),
    ("P-Served-User", Treatment::Addresses),
    ("P-Associated-URI", Treatment::Addresses),
    ("P-Charging-Function-Addresses", Treatment::Topology),
    ("P-Visited-Network-ID", Treatment::Topology),
    ("P-User-Database", Treatment::Topology),
    ("P-RTP-Stat", Treatment::Topology),
    ("X-RTP-Stat", Treatment::Topology),
    ("X-Forwarded-For", Treatment::Topology),
    ("X-Real-IP", Treatment::Topology),
    ("Identity-Info", Treatment::Topology),
    ("Security-Client", Treatment::Topology),
    ("Security-Server", Treatment::Topology),
    ("Security-Verify", Treatment::Topology),
    ("Feature-Caps", Treatment::Topology),
];

/// The headers of a message that may cross, detached from the message's own dialog and path.
#[derive(Clone, Debug, Default)]
pub struct Carried {
    lines: Vec<CarriedLine>,
}

#[derive(Clone, Debug)]
struct CarriedLine {
    treatment: Treatment,
    /// Name as written.
    name: Bytes,
    /// Value, unfolded.
    value: Bytes,
    /// The whole line as it arrived.
    line: Bytes,
    /// Mentions the side it comes from.
    tells: bool,
}

/// What crosses, and how much stayed behind.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    /// Whole header lines with their line ends.
    pub lines: Vec<Bytes>,
    /// Lines that stayed behind because they mention the other side.
    pub hidden: usize,
}

impl Carried {
    /// Takes what may cross out of a message that came from a side with these secrets.
    #[must_use]
    pub fn of(message: &Message, secrets: &Secrets) -> Self {
        let raw = message.raw();
        let lines = message.headers().filter_map(|header| {
            let treatment = treatment(header.name);
            match treatment {
                Treatment::Ours | Treatment::Dropped | Treatment::Body => return None,
                Treatment::Addresses
                | Treatment::Warning
                | Treatment::References
                | Treatment::Topology
                | Treatment::Verbatim
                | Treatment::Public => {}
            }
            Some(CarriedLine {
                treatment,
                name: Bytes::copy_from_slice(header.name_text.as_bytes()),
                value: Bytes::copy_from_slice(header.value),
                line: raw.slice_ref(header.line),
                tells: match treatment {
                    Treatment::Warning => split_list(header.value).any(|value| warning_tells(value, secrets)),
                    Treatment::Addresses => {
                        split_list(header.value).any(|value| address_tells(value, secrets))
                    }
                    Treatment::References
                    | Treatment::Topology
                    | Treatment::Verbatim
                    | Treatment::Public
                    | Treatment::Ours
                    | Treatment::Dropped
                    | Treatment::Body => secrets.mentioned_in(header.line),
                },
            })
        });
        Self { lines: lines.collect() }
    }

    /// The lines as they leave on the side with this face.
    #[must_use]
    pub fn lines(&self, face: &Face) -> Lines {
        let mut out = Lines::default();
        for carried in &self.lines {
            if !face.hide {
                out.lines.push(carried.line.clone());
                continue;
            }
            match carried.treatment {
                Treatment::Verbatim if carried.tells => out.hidden += 1,
                Treatment::Verbatim | Treatment::Public => out.lines.push(carried.line.clone()),
                Treatment::Addresses => {
                    out.lines.extend(carried.rewritten(|value| address(value, face.local, carried.tells)));
                }
                Treatment::Warning if carried.tells => out.hidden += 1,
                Treatment::Warning => out.lines.extend(carried.rewritten(|value| warning(value, face.local))),
                Treatment::References if !carried.tells => out.lines.extend(carried.rewritten(reference)),
                Treatment::References => out.hidden += 1,
                Treatment::Topology | Treatment::Ours | Treatment::Dropped | Treatment::Body => {}
            }
        }
        out
    }

    /// The first `Reason` among them (RFC 3326).
    #[must_use]
    pub fn reason(&self) -> Option<&[u8]> {
        let reason = self.lines.iter().find(|line| line.name.eq_ignore_ascii_case(b"Reason"));
        reason.map(|line| line.value.as_ref())
    }
}

impl CarriedLine {
    /// The line with each of its values rewritten; `None` if none is left.
    fn rewritten(&self, rewrite: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Option<Bytes> {
        let mut line = self.name.to_vec();
        line.extend_from_slice(b": ");
        let mut any = false;
        for value in split_list(&self.value).filter_map(rewrite) {
            if any {
                line.extend_from_slice(b", ");
            }
            any = true;
            line.extend_from_slice(&value);
        }
        line.extend_from_slice(b"\r\n");
        any.then(|| Bytes::from(line))
    }
}

/// Values of a list: commas outside of quotes and angle brackets part them.
fn split_list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let all = rest?;
        let (mut quoted, mut bracketed, mut escaped) = (false, false, false);
        let comma = all.iter().position(|&byte| {
            if escaped {
                escaped = false;
                return false;
            }
            match byte {
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b'<' if !quoted => bracketed = true,
                b'>' if !quoted => bracketed = false,
                b',' if !quoted && !bracketed => return true,
                _ => {}
            }
            false
        });
        let (head, tail) = match comma {
            Some(at) => (all.get(..at)?, all.get(at + 1..)),
            None => (all, None),
        };
        rest = tail;
        Some(head.trim_ascii())
    })
    .filter(|value| !value.is_empty())
}

/// An address with our host in place of the other side's. Display name and header parameters stay unless they are what
/// tells. A URI that names neither a user at a host nor a number (`http:` …) would show a place.
fn address(value: &[u8], local: SocketAddr, tells: bool) -> Option<Vec<u8>> {
    let address = NameAddr::parse(value)?;
    let uri = address.uri();
    if !uri.is_sip() && !["tel", "urn"].iter().any(|scheme| uri.scheme().eq_ignore_ascii_case(scheme)) {
        return None;
    }
    let mut out = Vec::with_capacity(value.len() + 16);
    if let Some(display) = address.display_raw().filter(|_| !tells) {
        out.extend_from_slice(display);
        out.push(b' ');
    }
    out.push(b'<');
    out.extend_from_slice(with_host(address.uri(), local.ip()).as_bytes());
    out.push(b'>');
    if !tells {
        out.extend_from_slice(address.params().raw());
    }
    Some(out)
}

/// Whether something besides the URI of an address names its side.
fn address_tells(value: &[u8], secrets: &Secrets) -> bool {
    NameAddr::parse(value).is_some_and(|address| {
        secrets.mentioned_in(address.display_raw().unwrap_or_default())
            || secrets.mentioned_in(address.params().raw())
    })
}

/// `code agent "text"` with our name for the agent; the text goes when it is no quoted string.
fn warning(value: &[u8], local: SocketAddr) -> Option<Vec<u8>> {
    let text = str::from_utf8(value).ok()?;
    let (code, rest) = text.split_once(' ')?;
    let (_, said) = rest.trim_start().split_once(' ')?;
    let sound = code.len() == 3 && code.bytes().all(|digit| digit.is_ascii_digit());
    sound.then(|| format!("{code} {} {}", host(local.ip()), said.trim()).into_bytes())
}

/// Whether the text of a warning names its side or any address: SIP servers in the field write where a request came
/// from and went to in there.
fn warning_tells(value: &[u8], secrets: &Secrets) -> bool {
    let text = value.iter().position(|byte| *byte == b'"').and_then(|at| value.get(at..)).unwrap_or_default();
    let is_address = |word: &[u8]| {
        str::from_utf8(word)
            .is_ok_and(|word| word.parse::<IpAddr>().is_ok() || word.parse::<SocketAddr>().is_ok())
    };
    let in_address = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b':' | b'[' | b']');
    secrets.mentioned_in(text)
        || text.split(|byte| !in_address(byte)).any(|word| {
            // Behind `sip:` as well.
            is_address(word)
                || word.iter().position(|byte| *byte == b':').is_some_and(|at| is_address(&word[at + 1..]))
        })
}

fn reference(value: &[u8]) -> Option<Vec<u8>> {
    let inner = value.strip_prefix(b"<")?;
    let start = |scheme: &[u8]| inner.get(..scheme.len()).is_some_and(|it| it.eq_ignore_ascii_case(scheme));
    (start(b"urn:") || start(b"cid:")).then(|| value.to_vec())
}

/// The same URI at another host: user kept, port gone, parameters that speak about the way there gone. An anonymous one
/// (RFC 3323 s.4.1.1.3) and one without a host stay as they are.
#[must_use]
pub fn with_host(uri: &Uri<'_>, ip: IpAddr) -> String {
    if !uri.is_sip() || uri.host_text().to_ascii_lowercase().ends_with(".invalid") {
        return uri.as_str().to_owned();
    }
    let user = uri.user().map_or(String::new(), |user| format!("{user}@"));
    format!("sip:{user}{}{}", host(ip), params_that_cross(uri))
}

/// Whom a request for `asked` is for at the next hop: the same user there. A URI without a host of its own (`urn:`) stays
/// as it is.
#[must_use]
pub fn asked_at(asked: &str, face: &Face, transport: Transport) -> String {
    let Ok(uri) = Uri::parse(asked) else { return asked.to_owned() };
    let by = if transport.is_reliable() { format!(";transport={transport}") } else { String::new() };
    if uri.is_sip() {
        let user = uri.user().map_or_else(String::new, |user| format!("{user}@"));
        format!("sip:{user}{}{}{by}", face.remote, params_that_cross(&uri))
    } else if uri.scheme() == "tel" {
        format!("sip:{}{}@{};user=phone{by}", uri.opaque(), uri.params_text(), face.remote)
    } else {
        asked.to_owned()
    }
}

/// Parameters of a URI that speak about the party and not about the way to it.
#[must_use]
pub fn params_that_cross(uri: &Uri<'_>) -> String {
    const OF_THE_WAY: [&str; 11] = [
        "transport",
        "maddr",
        "ttl",
        "lr",
        "received",
        "alias",
        "ob",
        "gr",
        "trunk-context",
        "tgrp",
        "method",
    ];
    let mut out = String::new();
    for (name, value) in uri.params() {
        if OF_THE_WAY.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            continue;
        }
        out.push(';');
        out.push_str(name);
        if let Some(value) = value {
            out.push('=');
            out.push_str(value);
        }
    }
    out
}

/// An address as the host of a URI.
#[must_use]
pub fn host(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// Names and addresses of one side that must not show on the other.
#[derive(Clone, Debug, Default)]
pub struct Secrets(Vec<Vec<u8>>);

/// Shorter names would be found in ordinary words.
const SHORTEST_SECRET: usize = 4;
/// Shorter tags and Call-IDs are made by peers that do not follow RFC 3261 s.19.3.
const SHORTEST_ID: usize = 8;
/// More are not kept: those of the first messages are the ones that matter.
const MOST_SECRETS: usize = 32;

impl Secrets {
    /// Adds a name or address.
    pub fn add(&mut self, text: &str) {
        let text = text.trim_matches(['[', ']']).to_ascii_lowercase().into_bytes();
        if text.len() >= SHORTEST_SECRET && self.0.len() < MOST_SECRETS && !self.0.contains(&text) {
            self.0.push(text);
        }
    }

    /// Adds a tag or Call-ID. Short ones could be words.
    pub fn add_id(&mut self, text: &str) {
        if text.len() >= SHORTEST_ID {
            self.add(text);
        }
    }

    /// Adds the addresses of both ends of a side.
    pub fn add_face(&mut self, face: &Face) {
        self.add(&face.local.ip().to_string());
        self.add(&face.remote.ip().to_string());
    }

    /// Adds what a message says about its own side: hosts of its path, contacts and parties, Call-ID, tags,
    /// media addresses.
    pub fn add_of(&mut self, message: &Message) {
        for via in message.vias().flatten() {
            self.add(via.host_text());
        }
        for contact in message.contacts().flatten() {
            if let Some(address) = contact.addr() {
                self.add(address.uri().host_text());
            }
        }
        for address in message.record_routes().chain([message.from(), message.to()]).flatten() {
            self.add(address.uri().host_text());
            self.add_id(address.tag().unwrap_or_default());
        }
        self.add_id(message.call_id().unwrap_or_default());
        if message.content_type().ok().flatten().is_some_and(|it| it.is("application", "sdp"))
            && let Ok(sdp) = Sdp::parse(&message.body_bytes())
        {
            self.add_media(&sdp);
        }
    }

    /// Adds the addresses at which a side receives media.
    fn add_media(&mut self, sdp: &Sdp) {
        let streams = survey(sdp).map(|survey| survey.streams).unwrap_or_default();
        for stream in streams {
            if let Stream::Relay(Relayed { peer: Some(peer), .. }) = stream {
                self.add(&peer.rtp.ip().to_string());
                self.add(&peer.rtcp.ip().to_string());
            }
        }
    }

    /// Whether one of them stands in `text` as a word of its own.
    #[must_use]
    pub fn mentioned_in(&self, text: &[u8]) -> bool {
        let text = text.to_ascii_lowercase();
        self.0.iter().any(|secret| mentions(&text, secret))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIDING: &str = "10.9.0.1:5060";

    fn message(lines: &str) -> Message {
        let text = format!(
            "INVITE sip:bob@203.0.113.1 SIP/2.0\r\nVia: SIP/2.0/UDP edge.carrier.example;branch=z9hG4bK1\r\n\
             From: <sip:alice@carrier.example>;tag=a-long-tag\r\nTo: <sip:bob@203.0.113.1>\r\nCall-ID: id-of-the-call\r\n\
             CSeq: 1 INVITE\r\nContact: <sip:alice@[2001:db8::7]:5070>\r\n{lines}Content-Length: 0\r\n\r\n"
        );
        Message::parse(text.into()).unwrap()
    }

    /// What of these lines crosses to a side that hides, and how many stayed behind for what they mention.
    fn crossing(lines: &str, hide: bool) -> (String, usize) {
        let message = message(lines);
        let mut secrets = Secrets::default();
        secrets.add_of(&message);
        let face = Face { local: HIDING.parse().unwrap(), remote: "10.9.0.20:5060".parse().unwrap(), hide };
        let out = Carried::of(&message, &secrets).lines(&face);
        (out.lines.iter().map(|line| String::from_utf8_lossy(line)).collect(), out.hidden)
    }

    #[test]
    fn each_header_by_its_treatment() {
        for (line, expected) in [
            // Made anew, or without meaning across.
            ("Route: <sip:x>\r\n", ""),
            ("Record-Route: <sip:x>\r\n", ""),
            ("Supported: 100rel, timer\r\n", ""),
            ("k: timer\r\n", ""),
            ("Session-Expires: 1800\r\n", ""),
            ("Max-Forwards: 7\r\n", ""),
            ("Replaces: 1@x;to-tag=2;from-tag=3\r\n", ""),
            ("Content-Type: text/plain\r\n", ""),
            // Topology by nature.
            ("User-Agent: Product/1.2\r\n", ""),
            ("P-Charging-Vector: icid-value=1\r\n", ""),
            ("p-visited-network-id: somewhere\r\n", ""),
            ("Proxy-Authorization: Digest realm=\"x\"\r\n", ""),
            // Byte for byte, folds and all.
            ("X-Odd:  a ,b\r\n\tc\r\n", "X-Odd:  a ,b\r\n\tc\r\n"),
            ("Subject: hello\r\n", "Subject: hello\r\n"),
            ("Reason: Q.850;cause=16\r\n", "Reason: Q.850;cause=16\r\n"),
            ("P-Early-Media: supported\r\n", "P-Early-Media: supported\r\n"),
            (
                "Identity: eyJ..sig;info=<https://carrier.example/c>\r\n",
                "Identity: eyJ..sig;info=<https://carrier.example/c>\r\n",
            ),
            // The user stays, the host goes.
            (
                "P-Asserted-Identity: \"A, B\" <sip:+1;npdi@gw.other.example:5070;user=phone;transport=tcp>;x=y, <tel:+1>\r\n",
                "P-Asserted-Identity: \"A, B\" <sip:+1;npdi@10.9.0.1;user=phone>;x=y, <tel:+1>\r\n",
            ),
            (
                "Remote-Party-ID: <sip:anonymous@anonymous.invalid>;privacy=full\r\n",
                "Remote-Party-ID: <sip:anonymous@anonymous.invalid>;privacy=full\r\n",
            ),
            ("r: <sips:carol@other.example?Subject=x>\r\n", "r: <sip:carol@10.9.0.1>\r\n"),
            ("Diversion: broken\r\n", ""),
            // References that name no place.
            (
                "Alert-Info: <urn:alert:service:normal>, <http://10.1.1.1/x>\r\n",
                "Alert-Info: <urn:alert:service:normal>\r\n",
            ),
            ("Warning: 399 gw.example \"no way\"\r\n", "Warning: 399 10.9.0.1 \"no way\"\r\n"),
            ("Warning: 399\r\n", ""),
            ("Refer-To: <http://192.0.2.9/ivr>\r\n", ""),
            ("Referred-By: <mailto:a@192.0.2.9>\r\n", ""),
        ] {
            assert_eq!(crossing(line, true), (expected.to_owned(), 0), "{line}");
        }
    }

    #[test]
    fn what_mentions_its_own_side_stays_behind() {
        for line in [
            "X-A: via EDGE.carrier.example;y\r\n",
            "X-B: (2001:db8::7)\r\n",
            "X-C: id-of-the-call\r\n",
            "X-D: tag=a-long-tag\r\n",
            "Subject: call from carrier.example\r\n",
            "Warning: 392 gw.example \"Noisy feedback tells: req_src_ip=192.0.2.77 req_src_port=5060\"\r\n",
            "Warning: 399 gw.example \"to sip:192.0.2.77:5060\"\r\n",
            "Warning: 399 gw.example \"at edge.carrier.example\"\r\n",
        ] {
            assert_eq!(crossing(line, true), (String::new(), 1), "{line}");
            assert_eq!(crossing(line, false), (line.to_owned(), 0), "{line}");
        }
        for line in ["X-A: mycarrier.example\r\n", "X-B: carrier.examples\r\n", "X-C: 2001:db8::71\r\n"] {
            assert_eq!(crossing(line, true).0, line);
        }
    }

    #[test]
    fn the_user_asked_for_is_asked_for_at_the_next_hop() {
        let face = |remote: &str| Face {
            local: HIDING.parse().unwrap(),
            remote: remote.parse().unwrap(),
            hide: true,
        };
        for (asked, remote, transport, expected) in [
            ("sip:bob@203.0.113.1", "10.9.0.20:5060", Transport::Udp, "sip:bob@10.9.0.20:5060"),
            ("sips:203.0.113.1;lr", "10.9.0.20:5061", Transport::Tls, "sip:10.9.0.20:5061;transport=tls"),
            (
                "sip:+1;npdi;rn=2@x;user=phone;tgrp=a;trunk-context=y",
                "[2001:db8::2]:5060",
                Transport::Tcp,
                "sip:+1;npdi;rn=2@[2001:db8::2]:5060;user=phone;transport=tcp",
            ),
            ("tel:+1;isub=5", "10.9.0.20:5060", Transport::Udp, "sip:+1;isub=5@10.9.0.20:5060;user=phone"),
            ("urn:service:sos", "10.9.0.20:5060", Transport::Udp, "urn:service:sos"),
        ] {
            assert_eq!(asked_at(asked, &face(remote), transport), expected);
        }
    }

    #[test]
    fn commas_part_values_only_outside_of_quotes_and_brackets() {
        let values: Vec<_> = split_list(b"\"a, \\\" b\" <sip:x,y@h>, , <sip:z>,").collect();
        assert_eq!(values, [&b"\"a, \\\" b\" <sip:x,y@h>"[..], b"<sip:z>"]);
    }
}
