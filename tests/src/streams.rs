//! Many calls at once by two parties that know little SIP, and numbered RTP in both directions of each of them, so that a
//! single missing packet shows.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::netns::Namespace;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Packets that leave together, and the pause after them: as much as any queue on the way takes.
const BURST: usize = 8;
const PAUSE: Duration = Duration::from_millis(1);
/// First media port of the caller, and of the callee.
const CALLER_PORT: u16 = 30_000;
const CALLEE_PORT: u16 = 40_000;

/// A party: its namespace and address, and where it finds the SBC.
#[derive(Clone, Copy, Debug)]
pub struct Party<'a> {
    /// Where it is.
    pub namespace: &'a Namespace,
    /// Its address.
    pub address: IpAddr,
    /// The SBC's address on its side.
    pub sbc: IpAddr,
}

/// Calls that are up, and their media.
#[derive(Debug)]
pub struct Streams {
    ends: Arc<Vec<End>>,
    stop: Arc<AtomicBool>,
    /// Packets sent so far.
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
    sender: Option<JoinHandle<Vec<u16>>>,
    receiver: Option<JoinHandle<HashMap<(usize, u16), u32>>>,
}

/// One end of a two-way stream.
#[derive(Debug)]
struct End {
    socket: UdpSocket,
    /// Where it sends.
    to: SocketAddr,
    /// The end that its packets arrive at.
    across: usize,
}

/// What came of the media.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets sent.
    pub sent: u64,
    /// Of these, received.
    pub received: u64,
    /// Received more than once, or where they do not belong.
    pub wrong: u64,
}

impl Streams {
    /// Sets up `calls` calls one after the other and begins to send in each of them, both ways, a packet per `interval`.
    pub fn start(caller: Party<'_>, callee: Party<'_>, calls: u16, interval: Duration) -> Result<Self> {
        let uac = socket(caller, 5060)?;
        let uas = socket(callee, 5060)?;
        let mut ends = Vec::new();
        for call in 0..calls {
            let (near, far) =
                (socket(caller, CALLER_PORT + 2 * call)?, socket(callee, CALLEE_PORT + 2 * call)?);
            let (to_callee, to_caller) =
                set_up(call, (&uac, caller, near.local_addr()?), (&uas, callee, far.local_addr()?))
                    .with_context(|| format!("call {call}"))?;
            let at = ends.len();
            ends.push(End { socket: near, to: to_callee, across: at + 1 });
            ends.push(End { socket: far, to: to_caller, across: at });
        }
        let ends = Arc::new(ends);
        let (stop, sent, received): (Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>) = Default::default();
        let sender = {
            let (ends, stop, sent) = (ends.clone(), stop.clone(), sent.clone());
            std::thread::spawn(move || send(&ends, interval, &stop, &sent))
        };
        let receiver = {
            let (ends, stop, received) = (ends.clone(), stop.clone(), received.clone());
            std::thread::spawn(move || receive(&ends, &stop, &received))
        };
        Ok(Self { ends, stop, sent, received, sender: Some(sender), receiver: Some(receiver) })
    }

    /// Waits until so many more packets have arrived.
    pub fn wait_for(&self, packets: u64, limit: Duration) -> Result<()> {
        let (began, first) = (Instant::now(), self.received.load(Ordering::Relaxed));
        while self.received.load(Ordering::Relaxed) < first + packets {
            if began.elapsed() > limit {
                let arrived = self.received.load(Ordering::Relaxed) - first;
                bail!("{arrived} of {packets} packets within {limit:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// How many packets have been sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops sending, waits for what is on its way, and counts.
    pub fn stop(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let counts = self.sender.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let seen = self.receiver.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let mut tally = Tally::default();
        for (from, count) in counts.iter().enumerate() {
            tally.sent += u64::from(*count);
            let arrived = (0..*count).filter(|sequence| seen.contains_key(&(from, *sequence))).count();
            tally.received += arrived as u64;
        }
        let known = |(from, sequence): &(usize, u16)| counts.get(*from).is_some_and(|count| sequence < count);
        tally.wrong = seen.iter().filter(|(key, times)| !known(key) || **times != 1).count() as u64;
        tally
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.ends.len();
    }
}

fn socket(party: Party<'_>, port: u16) -> Result<UdpSocket> {
    let bound = party.namespace.enter(|| UdpSocket::bind((party.address, port)))?;
    bound.with_context(|| format!("cannot bind {}:{port}", party.address))
}

/// Sends by turns, evenly over each interval. How many packets each end has sent.
fn send(ends: &[End], interval: Duration, stop: &AtomicBool, sent: &AtomicU64) -> Vec<u16> {
    let mut counts = vec![0_u16; ends.len()];
    let began = Instant::now();
    for round in 0..u32::from(u16::MAX) {
        for (at, end) in ends.iter().enumerate() {
            if at % BURST == 0 {
                let due = began + interval * round + interval.mul_f64(at as f64 / ends.len() as f64);
                std::thread::sleep(due.saturating_duration_since(Instant::now()).max(PAUSE / 4));
            }
            // A whole round, so that every end has sent as many.
            let mut packet = [0; 32];
            packet[..2].copy_from_slice(&[0x80, 8]);
            packet[2..4].copy_from_slice(&counts[at].to_be_bytes());
            packet[8..12].copy_from_slice(&(at as u32).to_be_bytes());
            if end.socket.send_to(&packet, end.to).is_ok() {
                counts[at] += 1;
                sent.fetch_add(1, Ordering::Relaxed);
            }
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    counts
}

/// How often each packet arrived, by the end that sent it and its number; packets that reach another end than the one
/// across count under a number that nobody has.
fn receive(ends: &[End], stop: &AtomicBool, received: &AtomicU64) -> HashMap<(usize, u16), u32> {
    for end in ends {
        let _ = end.socket.set_nonblocking(true);
    }
    let mut seen = HashMap::new();
    let mut quiet_since: Option<Instant> = None;
    let mut buffer = [0; 256];
    while quiet_since.is_none_or(|since| since.elapsed() < Duration::from_millis(500)) {
        let mut any = false;
        for (at, end) in ends.iter().enumerate() {
            while let Ok(length) = end.socket.recv(&mut buffer) {
                any = true;
                if length < 12 {
                    continue;
                }
                let from = u32::from_be_bytes([buffer[8], buffer[9], buffer[10], buffer[11]]) as usize;
                let sequence = u16::from_be_bytes([buffer[2], buffer[3]]);
                let from =
                    if ends.get(from).is_some_and(|sender| sender.across == at) { from } else { usize::MAX };
                *seen.entry((from, sequence)).or_insert(0) += 1;
                received.fetch_add(1, Ordering::Relaxed);
            }
        }
        if any || !stop.load(Ordering::Relaxed) {
            quiet_since = None;
        } else {
            quiet_since.get_or_insert_with(Instant::now);
        }
        if !any {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    seen
}

type Side<'a> = (&'a UdpSocket, Party<'a>, SocketAddr);

/// One call: where the caller's media goes, and where the callee's.
fn set_up(
    call: u16,
    (uac, caller, near): Side<'_>,
    (uas, callee, far): Side<'_>,
) -> Result<(SocketAddr, SocketAddr)> {
    let (host, sbc) = (caller.address, SocketAddr::new(caller.sbc, 5060));
    let common = |cseq: &str| {
        format!(
            "Via: SIP/2.0/UDP {host}:5060;branch=z9hG4bK-{call}-{cseq}\r\nMax-Forwards: 70\r\n\
             From: <sip:a@{host}>;tag=a{call}\r\nCall-ID: stream-{call}@{host}\r\nContact: <sip:a@{host}:5060>\r\n"
        )
    };
    let offer = sdp(near);
    let invite = format!(
        "INVITE sip:b@{} SIP/2.0\r\n{}To: <sip:b@{}>\r\nCSeq: 1 INVITE\r\nContent-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{offer}",
        caller.sbc,
        common("1"),
        caller.sbc,
        offer.len()
    );
    uac.send_to(invite.as_bytes(), sbc)?;
    let (asked, from) = hear(uas, |text| text.starts_with("INVITE "))?;
    let answer = sdp(far);
    let copied: String = ["Via", "From", "Call-ID", "CSeq", "Record-Route"]
        .iter()
        .flat_map(|name| lines(&asked, name))
        .map(|line| format!("{line}\r\n"))
        .collect();
    let to = lines(&asked, "To").next().context("no To")?;
    let response = format!(
        "SIP/2.0 200 OK\r\n{copied}{to};tag=b{call}\r\nContact: <sip:b@{}:5060>\r\nContent-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{answer}",
        callee.address,
        answer.len()
    );
    uas.send_to(response.as_bytes(), from)?;
    let (answered, _) =
        hear(uac, |text| text.starts_with("SIP/2.0 200") && text.contains(&format!("stream-{call}@")))?;
    let target = lines(&answered, "Contact")
        .next()
        .and_then(|line| Some(line.split_once('<')?.1.split_once('>')?.0.to_owned()))
        .context("no Contact")?;
    let to = lines(&answered, "To").next().context("no To")?;
    let ack =
        format!("ACK {target} SIP/2.0\r\n{}{to}\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n", common("2"));
    uac.send_to(ack.as_bytes(), sbc)?;
    hear(uas, |text| text.starts_with("ACK "))?;
    Ok((media(&answered)?, media(&asked)?))
}

fn sdp(media: SocketAddr) -> String {
    let (ip, port) = (media.ip(), media.port());
    format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 8\r\n\
         a=rtpmap:8 PCMA/8000\r\na=ptime:20\r\n"
    )
}

/// The first message of this kind; others are passed over.
fn hear(socket: &UdpSocket, wanted: impl Fn(&str) -> bool) -> Result<(String, SocketAddr)> {
    let end = Instant::now() + LIMIT;
    let mut buffer = vec![0; 65_536];
    let mut heard = Vec::new();
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        socket.set_read_timeout(Some(left))?;
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { break };
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if wanted(&text) {
            return Ok((text, from));
        }
        heard.push(text.lines().next().unwrap_or_default().to_owned());
    }
    bail!("not heard within {LIMIT:?}; heard {heard:?}")
}

fn lines<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    head.split("\r\n").filter(move |line| {
        line.split_once(':').is_some_and(|(found, _)| found.trim().eq_ignore_ascii_case(name))
    })
}

/// Where a description says that media is received.
fn media(text: &str) -> Result<SocketAddr> {
    let field = |start: &str, at: usize| {
        let line = text.lines().find(|line| line.starts_with(start))?;
        line.split(' ').nth(at)
    };
    let ip = field("c=", 2).context("no address")?.trim().parse()?;
    let port = field("m=audio", 1).context("no port")?.trim().parse()?;
    Ok(SocketAddr::new(ip, port))
}
