//! A SIP user agent for the simulator: builds and reads its messages with `rsip`, keeps its own transactions and one
//! dialog at a time, and does by itself what every user agent does (retransmit, acknowledge, answer BYE and CANCEL).
//! What a scenario is about (ringing, answering, hanging up, refusing) the scenario says.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rsip::prelude::*;

const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);
const GIVE_UP: Duration = Duration::from_secs(32);

/// A message as the scenario sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When it arrived (for the first time).
    pub at: Instant,
    /// Method of the request, or of the request that the response answers.
    pub method: String,
    /// Status of a response, 0 for a request.
    pub status: u16,
    /// The whole message.
    pub text: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<String> {
        headers(&self.text, name).into_iter().next()
    }

    pub fn body(&self) -> &str {
        self.text.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }
}

/// All values of a header, read by rsip.
pub fn headers(text: &str, name: &str) -> Vec<String> {
    let message = rsip::SipMessage::try_from(text.as_bytes()).expect("rsip reads what the engine writes");
    message
        .headers()
        .iter()
        .filter_map(|header| {
            let line = header.to_string();
            let (key, value) = line.split_once(':')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
        .collect()
}

/// What the user agent does with a re-INVITE or UPDATE by itself.
#[derive(Clone, Debug)]
pub enum OnUpdate {
    /// 200 with this SDP.
    Answer(String),
    /// This status.
    Refuse(u16),
    /// Leave it to the scenario.
    Wait,
}

/// What one message repeated until something stops it is.
#[derive(Debug)]
struct Repeat {
    /// `branch method` of the transaction.
    key: String,
    bytes: Vec<u8>,
    next: Instant,
    interval: Duration,
    longest: Duration,
    until: Instant,
}

#[derive(Clone, Debug)]
struct Pending {
    request: String,
    key: String,
}

/// The user agent.
pub struct Ua {
    pub name: &'static str,
    /// Where it receives.
    pub addr: SocketAddr,
    /// The SBC as it sees it.
    pub sbc: SocketAddr,
    /// `UDP`, `TCP` or `TLS`.
    pub transport: &'static str,
    /// Host in its From.
    pub domain: &'static str,
    pub now: Instant,
    /// Messages that it wants sent.
    pub outbox: VecDeque<Vec<u8>>,
    /// Requests and responses that came, without repetitions.
    pub seen: Vec<Seen>,
    /// Every message that it sent, repetitions too.
    pub sent: Vec<String>,
    /// ACK a 2xx at once.
    pub auto_ack: bool,
    /// SDP of the ACK (answer to an offer in the 2xx).
    pub ack_sdp: Option<String>,
    pub on_update: OnUpdate,
    /// Headers added to every INVITE that it sends.
    pub extra: String,

    repeats: Vec<Repeat>,
    /// Responses already given by `branch method`, repeated when the request is.
    answered: Vec<(String, Vec<u8>)>,
    /// ACKs already given by `Call-ID CSeq to-tag`.
    acked: Vec<(String, Vec<u8>)>,
    /// Finals already seen by `branch status tag`.
    finals: Vec<String>,
    /// INVITEs not yet answered.
    pub invites: Vec<String>,
    pending_invite: Option<Pending>,
    serial: u32,
    pub call_id: String,
    pub local_tag: String,
    remote_tag: String,
    local_from: String,
    remote_to: String,
    remote_target: String,
    route_set: Vec<String>,
    cseq: u32,
    /// The dialog is confirmed.
    pub up: bool,
    /// The dialog was ended, by either.
    pub ended: bool,
}

impl Ua {
    pub fn new(
        name: &'static str,
        addr: SocketAddr,
        sbc: SocketAddr,
        domain: &'static str,
        now: Instant,
    ) -> Self {
        Self {
            name,
            addr,
            sbc,
            transport: "UDP",
            domain,
            now,
            outbox: VecDeque::new(),
            seen: Vec::new(),
            sent: Vec::new(),
            auto_ack: true,
            ack_sdp: None,
            on_update: OnUpdate::Wait,
            extra: String::new(),
            repeats: Vec::new(),
            answered: Vec::new(),
            acked: Vec::new(),
            finals: Vec::new(),
            invites: Vec::new(),
            pending_invite: None,
            serial: 0,
            call_id: String::new(),
            local_tag: String::new(),
            remote_tag: String::new(),
            local_from: String::new(),
            remote_to: String::new(),
            remote_target: String::new(),
            route_set: Vec::new(),
            cseq: 0,
            up: false,
            ended: false,
        }
    }

    // --- what scenarios ask of it ---

    /// Places a call.
    pub fn invite(&mut self, to: &str, sdp: Option<&str>) {
        self.serial += 1;
        self.call_id = format!("{}-call-{}@{}", self.name, self.serial, self.domain);
        self.local_tag = format!("{}-tag-{}", self.name, self.serial);
        self.remote_tag.clear();
        self.local_from = format!("<sip:{}@{}>", self.name, self.domain);
        self.remote_to = format!("<sip:{to}@{}>", self.sbc);
        self.remote_target = format!("sip:{to}@{}", self.sbc);
        self.route_set.clear();
        self.cseq = 1;
        self.up = false;
        self.ended = false;
        let extra = self.extra.clone();
        self.request("INVITE", sdp.map(|sdp| ("application/sdp", sdp)), &extra);
    }

    /// Sends re-INVITE.
    pub fn reinvite(&mut self, sdp: Option<&str>) {
        self.cseq += 1;
        self.request("INVITE", sdp.map(|sdp| ("application/sdp", sdp)), "");
    }

    /// Sends UPDATE with an offer.
    pub fn update(&mut self, sdp: &str) {
        self.cseq += 1;
        self.request("UPDATE", Some(("application/sdp", sdp)), "");
    }

    /// Sends another request inside the dialog.
    pub fn in_dialog(&mut self, method: &str, body: Option<(&str, &str)>, extra: &str) {
        self.cseq += 1;
        self.request(method, body, extra);
    }

    /// Sends BYE.
    pub fn bye(&mut self) {
        self.ended = true;
        self.in_dialog("BYE", None, "");
    }

    /// Takes the dialog of a provisional response.
    pub fn adopt(&mut self, response: &str) {
        self.remote_tag = text_tag(response, "To").expect("a tag");
        self.remote_target = uri_in(&headers(response, "Contact").remove(0));
    }

    /// Cancels its INVITE.
    pub fn cancel(&mut self) {
        self.cancel_because("");
    }

    /// The same with further headers.
    pub fn cancel_because(&mut self, extra: &str) {
        let pending = self.pending_invite.clone().expect("an INVITE to cancel");
        let mut text = String::new();
        for line in pending.request.split("\r\n").take_while(|line| !line.is_empty()) {
            let lower = line.to_ascii_lowercase();
            if lower.starts_with("invite ") {
                text += &line.replacen("INVITE", "CANCEL", 1);
            } else if lower.starts_with("cseq:") {
                text += &line.replace("INVITE", "CANCEL");
            } else if ["via:", "from:", "to:", "call-id:", "max-forwards:", "route:"]
                .iter()
                .any(|name| lower.starts_with(name))
            {
                text += line;
            } else {
                continue;
            }
            text += "\r\n";
        }
        text += extra;
        text += "Content-Length: 0\r\n\r\n";
        let key = pending.key.replace("INVITE", "CANCEL");
        self.send_repeated(key, text, T2, true);
    }

    /// Answers the oldest waiting INVITE with `status` and, when given, SDP.
    pub fn respond(&mut self, status: u16, sdp: Option<&str>) {
        let tag = self.local_tag.clone();
        self.respond_as(status, sdp, &tag, "");
    }

    /// The same with another To tag (a fork) and with further headers.
    pub fn respond_as(&mut self, status: u16, sdp: Option<&str>, tag: &str, extra: &str) {
        let request = self.invites.first().cloned().expect("an INVITE to answer");
        if status >= 300 {
            self.invites.remove(0);
        }
        self.respond_to(&request, status, sdp.map(|sdp| ("application/sdp", sdp)), tag, extra);
    }

    /// The last INVITE needs no more responses.
    pub fn invite_done(&mut self) {
        self.invites.clear();
    }

    /// How many messages of a method (and status; 0: requests) came.
    pub fn count(&self, method: &str, status: u16) -> usize {
        self.seen.iter().filter(|seen| seen.method == method && seen.status == status).count()
    }

    /// The last such message.
    pub fn last(&self, method: &str, status: u16) -> &Seen {
        self.seen
            .iter()
            .rev()
            .find(|seen| seen.method == method && seen.status == status)
            .unwrap_or_else(|| panic!("{}: no {method} {status} among {:?}", self.name, self.summary()))
    }

    /// `INVITE`, `180 INVITE` … as they came.
    pub fn summary(&self) -> Vec<String> {
        self.seen
            .iter()
            .map(|seen| match seen.status {
                0 => seen.method.clone(),
                status => format!("{status} {}", seen.method),
            })
            .collect()
    }

    /// Sends these bytes as they are.
    pub fn raw(&mut self, text: &str) {
        self.outbox.push_back(text.as_bytes().to_vec());
    }

    /// A request outside of any dialog, as text; not repeated.
    pub fn outside(&mut self, method: &str, extra: &str) {
        self.serial += 1;
        let text = format!(
            "{method} sip:{} SIP/2.0\r\nVia: SIP/2.0/{} {};branch=z9hG4bK-{}-out-{};rport\r\nMax-Forwards: 70\r\n\
             From: <sip:{}@{}>;tag=out{}\r\nTo: <sip:{}>\r\nCall-ID: out-{}-{}\r\nCSeq: 1 {method}\r\n{extra}\
             Contact: <sip:{}@{}>\r\nContent-Length: 0\r\n\r\n",
            self.sbc,
            self.transport,
            self.addr,
            self.name,
            self.serial,
            self.name,
            self.domain,
            self.serial,
            self.sbc,
            self.name,
            self.serial,
            self.name,
            self.addr
        );
        self.send(text);
    }

    // --- time ---

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.repeats.iter().map(|repeat| repeat.next.min(repeat.until)).min()
    }

    pub fn handle_timeout(&mut self) {
        let now = self.now;
        let mut send = Vec::new();
        self.repeats.retain_mut(|repeat| {
            if repeat.until <= now {
                return false;
            }
            if repeat.next <= now {
                send.push(repeat.bytes.clone());
                repeat.interval = (repeat.interval * 2).min(repeat.longest);
                repeat.next = now + repeat.interval;
            }
            true
        });
        for bytes in send {
            self.push(bytes);
        }
    }

    // --- what arrives ---

    pub fn receive(&mut self, bytes: &[u8]) {
        let message = rsip::SipMessage::try_from(bytes).unwrap_or_else(|error| {
            panic!("{}: rsip refuses {error}: {}", self.name, String::from_utf8_lossy(bytes))
        });
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        match message {
            rsip::SipMessage::Request(request) => self.receive_request(&request, text),
            rsip::SipMessage::Response(response) => self.receive_response(&response, text),
        }
    }

    fn receive_request(&mut self, request: &rsip::Request, text: String) {
        let method = request.method.to_string();
        let key = format!("{} {method}", branch_of(&text));
        if method == "ACK" {
            // Stops 2xx (its own branch) and failures (the INVITE's branch) alike.
            let cseq = cseq_of(&text);
            self.repeats.retain(|repeat| {
                let repeated = std::str::from_utf8(&repeat.bytes).expect("text");
                !(repeated.starts_with("SIP/2.0") && cseq_of(repeated) == cseq)
            });
            if !self.seen.iter().any(|seen| seen.method == "ACK" && seen.text == text) {
                self.note("ACK", 0, text);
            }
            return;
        }
        if let Some((_, response)) = self.answered.iter().find(|(answered, _)| *answered == key) {
            let response = response.clone();
            self.push(response);
            return;
        }
        if self
            .seen
            .iter()
            .any(|seen| seen.status == 0 && format!("{} {}", branch_of(&seen.text), seen.method) == key)
        {
            return;
        }
        self.note(&method, 0, text.clone());
        match method.as_str() {
            "INVITE" => {
                let in_dialog = text_tag(&text, "To").is_some();
                self.invites.push(text.clone());
                if in_dialog {
                    match self.on_update.clone() {
                        OnUpdate::Answer(sdp) => {
                            self.respond(200, Some(&sdp));
                            self.invites.clear();
                        }
                        OnUpdate::Refuse(status) => self.respond(status, None),
                        OnUpdate::Wait => {}
                    }
                } else {
                    self.serial += 1;
                    self.call_id = headers(&text, "Call-ID").remove(0);
                    self.local_tag = format!("{}-tag-{}", self.name, self.serial);
                    self.remote_tag = text_tag(&text, "From").expect("a tag");
                    self.local_from = strip_tag(&headers(&text, "To").remove(0));
                    self.remote_to = strip_tag(&headers(&text, "From").remove(0));
                    self.remote_target = uri_in(&headers(&text, "Contact").remove(0));
                    self.route_set = headers(&text, "Record-Route");
                    self.cseq = 100;
                    self.up = false;
                    self.ended = false;
                }
            }
            "UPDATE" => match self.on_update.clone() {
                OnUpdate::Answer(sdp) => {
                    let tag = self.local_tag.clone();
                    self.respond_to(&text, 200, Some(("application/sdp", &sdp)), &tag, "");
                }
                OnUpdate::Refuse(status) => {
                    let tag = self.local_tag.clone();
                    self.respond_to(&text, status, None, &tag, "");
                }
                OnUpdate::Wait => {}
            },
            "CANCEL" => {
                let tag = self.local_tag.clone();
                self.respond_to(&text, 200, None, &tag, "");
                let invite = text.clone();
                let waiting =
                    self.invites.iter().position(|waiting| branch_of(waiting) == branch_of(&invite));
                if let Some(index) = waiting {
                    let invite = self.invites.remove(index);
                    let already = format!("{} INVITE", branch_of(&invite));
                    let finally_answered = self
                        .answered
                        .iter()
                        .any(|(key, bytes)| *key == already && !bytes.starts_with(b"SIP/2.0 1"));
                    if !finally_answered {
                        self.respond_to(&invite, 487, None, &tag, "");
                    }
                }
            }
            "BYE" => {
                let tag = self.local_tag.clone();
                let ours = headers(&text, "Call-ID").first() == Some(&self.call_id);
                self.respond_to(&text, if ours { 200 } else { 481 }, None, &tag, "");
                self.ended |= ours;
                // A BYE says that the peer has our 2xx.
                self.stop_success();
            }
            _ => {
                let tag = self.local_tag.clone();
                self.respond_to(&text, 200, None, &tag, "");
            }
        }
    }

    fn receive_response(&mut self, response: &rsip::Response, text: String) {
        let status = response.status_code.code();
        let method = cseq_of(&text).1;
        let key = format!("{} {method}", branch_of(&text));
        let to_tag = text_tag(&text, "To").unwrap_or_default();
        if status >= 200 || method == "INVITE" {
            self.repeats.retain(|repeat| repeat.key != key);
        }
        if status >= 200 && method == "INVITE" {
            let ack = format!("{} {to_tag}", cseq_of(&text).0);
            if let Some((_, bytes)) = self.acked.iter().find(|(acked, _)| *acked == ack) {
                let bytes = bytes.clone();
                self.push(bytes);
                return;
            }
        }
        let seen_as = format!("{key} {status} {to_tag} {}", text.len());
        if self.finals.contains(&seen_as) {
            return;
        }
        self.finals.push(seen_as);
        self.note(&method, status, text.clone());
        if method != "INVITE" {
            return;
        }
        if status >= 300 {
            let Some(invite) = self.pending_invite.clone() else { return };
            let ack = self.ack_for_failure(&invite.request, &text);
            self.acked.push((format!("{} {to_tag}", cseq_of(&text).0), ack.clone().into_bytes()));
            self.send(ack);
        } else if status >= 200 {
            self.remote_tag = to_tag;
            self.remote_target = uri_in(&headers(&text, "Contact").remove(0));
            if !self.up {
                self.route_set = headers(&text, "Record-Route");
                self.route_set.reverse();
            }
            self.up = true;
            if self.auto_ack {
                self.ack();
            }
        }
    }

    /// ACKs the last 2xx to INVITE.
    pub fn ack(&mut self) {
        let success = self
            .seen
            .iter()
            .rev()
            .find(|seen| seen.method == "INVITE" && (200..300).contains(&seen.status))
            .expect("a 2xx")
            .text
            .clone();
        let (cseq, _) = cseq_of(&success);
        let tag = text_tag(&success, "To").unwrap_or_default();
        let sdp = self.ack_sdp.clone();
        let text = self.compose("ACK", cseq, sdp.as_deref().map(|sdp| ("application/sdp", sdp)), "");
        self.acked.push((format!("{cseq} {tag}"), text.clone().into_bytes()));
        self.send(text);
    }

    // --- building ---

    fn request(&mut self, method: &str, body: Option<(&str, &str)>, extra: &str) {
        let text = self.compose(method, self.cseq, body, extra);
        let key = format!("{} {method}", branch_of(&text));
        if method == "INVITE" {
            self.pending_invite = Some(Pending { request: text.clone(), key: key.clone() });
        }
        let longest = if method == "INVITE" { GIVE_UP } else { T2 };
        self.send_repeated(key, text, longest, true);
    }

    fn compose(&mut self, method: &str, cseq: u32, body: Option<(&str, &str)>, extra: &str) -> String {
        self.serial += 1;
        let to_tag =
            if self.remote_tag.is_empty() { String::new() } else { format!(";tag={}", self.remote_tag) };
        let routes: String = self.route_set.iter().map(|route| format!("Route: {route}\r\n")).collect();
        let (content_type, body) = match body {
            Some((kind, body)) => (format!("Content-Type: {kind}\r\n"), body),
            None => (String::new(), ""),
        };
        format!(
            "{method} {} SIP/2.0\r\nVia: SIP/2.0/{} {};branch=z9hG4bK-{}-{};rport\r\n{routes}Max-Forwards: 70\r\n\
             From: {};tag={}\r\nTo: {}{to_tag}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:{}@{};transport={}>\r\nUser-Agent: {}-ua/1.0\r\n{extra}{content_type}Content-Length: {}\r\n\r\n{body}",
            self.remote_target,
            self.transport,
            self.addr,
            self.name,
            self.serial,
            self.local_from,
            self.local_tag,
            self.remote_to,
            self.call_id,
            self.name,
            self.addr,
            self.transport.to_ascii_lowercase(),
            self.name,
            body.len()
        )
    }

    fn ack_for_failure(&self, invite: &str, failure: &str) -> String {
        let uri = invite.split(' ').nth(1).expect("a Request-URI");
        let via = headers(invite, "Via").remove(0);
        let from = headers(invite, "From").remove(0);
        let to = headers(failure, "To").remove(0);
        format!(
            "ACK {uri} SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {}\r\n\
             CSeq: {} ACK\r\nContent-Length: 0\r\n\r\n",
            headers(invite, "Call-ID").remove(0),
            cseq_of(invite).0
        )
    }

    pub fn respond_to(
        &mut self,
        request: &str,
        status: u16,
        body: Option<(&str, &str)>,
        tag: &str,
        extra: &str,
    ) {
        let method = cseq_of(request).1;
        let vias: String = headers(request, "Via").iter().map(|via| format!("Via: {via}\r\n")).collect();
        let routes: String = headers(request, "Record-Route")
            .iter()
            .map(|route| format!("Record-Route: {route}\r\n"))
            .collect();
        let to = headers(request, "To").remove(0);
        let to = if to.contains("tag=") { to } else { format!("{to};tag={tag}") };
        let (content_type, body) = match body {
            Some((kind, body)) => (format!("Content-Type: {kind}\r\n"), body),
            None => (String::new(), ""),
        };
        let text = format!(
            "SIP/2.0 {status} Something\r\n{vias}{routes}From: {}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {}\r\n\
             Contact: <sip:{}@{};transport={}>\r\nServer: {}-server/1.0\r\n{extra}{content_type}Content-Length: {}\r\n\r\n{body}",
            headers(request, "From").remove(0),
            headers(request, "Call-ID").remove(0),
            headers(request, "CSeq").remove(0),
            self.name,
            self.addr,
            self.transport.to_ascii_lowercase(),
            self.name,
            body.len()
        );
        let key = format!("{} {method}", branch_of(request));
        self.answered.retain(|(answered, _)| *answered != key);
        self.answered.push((key.clone(), text.clone().into_bytes()));
        if method == "INVITE" && status >= 200 {
            self.up |= status < 300;
            self.send_repeated(format!("{key} {tag}"), text, T2, false);
        } else {
            self.send(text);
        }
    }

    fn stop_success(&mut self) {
        self.repeats.retain(|repeat| !repeat.bytes.starts_with(b"SIP/2.0 2"));
    }

    fn send_repeated(&mut self, key: String, text: String, longest: Duration, request: bool) {
        let reliable = self.transport != "UDP";
        // Requests are repeated on unreliable transports only; a 2xx is repeated on all (RFC 3261 s.13.3.1.4).
        if !(reliable && (request || !text.starts_with("SIP/2.0 2"))) {
            self.repeats.push(Repeat {
                key,
                bytes: text.clone().into_bytes(),
                next: self.now + T1,
                interval: T1,
                longest,
                until: self.now + GIVE_UP,
            });
        }
        self.send(text);
    }

    fn send(&mut self, text: String) {
        rsip::SipMessage::try_from(text.as_bytes()).expect("rsip reads what the user agent writes");
        self.push(text.into_bytes());
    }

    fn push(&mut self, bytes: Vec<u8>) {
        self.sent.push(String::from_utf8_lossy(&bytes).into_owned());
        self.outbox.push_back(bytes);
    }

    fn note(&mut self, method: &str, status: u16, text: String) {
        self.seen.push(Seen { at: self.now, method: method.to_owned(), status, text });
    }
}

pub fn branch_of(text: &str) -> String {
    let via = headers(text, "Via").into_iter().next().expect("a Via");
    via.split(';')
        .find_map(|param| param.trim().strip_prefix("branch="))
        .expect("a branch")
        .split(',')
        .next()
        .expect("the first value")
        .to_owned()
}

pub fn cseq_of(text: &str) -> (u32, String) {
    let cseq = headers(text, "CSeq").remove(0);
    let (number, method) = cseq.split_once(' ').expect("number and method");
    (number.parse().expect("a number"), method.trim().to_owned())
}

pub fn text_tag(text: &str, name: &str) -> Option<String> {
    headers(text, name)
        .first()?
        .split(';')
        .find_map(|param| param.trim().strip_prefix("tag=").map(ToOwned::to_owned))
}

fn strip_tag(value: &str) -> String {
    value.split(";tag=").next().expect("the part before").to_owned()
}

fn uri_in(value: &str) -> String {
    match value.split_once('<') {
        Some((_, rest)) => rest.split('>').next().expect("a closing bracket").to_owned(),
        None => value.split(';').next().expect("a URI").to_owned(),
    }
}
