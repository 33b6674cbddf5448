//! What rtpengine's control protocol needs of us: bencoded dictionaries over UDP, a cookie in front.
//! <https://rtpengine.readthedocs.io/en/latest/ng_control_protocol.html>

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Integer(i64),
    /// A string of bytes.
    Bytes(Vec<u8>),
    /// A list.
    List(Vec<Self>),
    /// A dictionary, sorted by key.
    Dictionary(BTreeMap<Vec<u8>, Self>),
}

/// How deep lists and dictionaries may nest.
const DEPTH: usize = 16;

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Bytes(text.into())
    }
}

impl Value {
    /// A dictionary.
    pub fn dictionary<const N: usize>(entries: [(&str, Self); N]) -> Self {
        Self::Dictionary(entries.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }

    /// An entry of a dictionary that is text.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self {
            Self::Dictionary(entries) => match entries.get(key.as_bytes())? {
                Self::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
                Self::Integer(_) | Self::List(_) | Self::Dictionary(_) => None,
            },
            Self::Integer(_) | Self::Bytes(_) | Self::List(_) => None,
        }
    }

    /// Appends it in its encoding.
    pub fn encode(&self, to: &mut Vec<u8>) {
        let bytes = |bytes: &[u8], to: &mut Vec<u8>| {
            to.extend(format!("{}:", bytes.len()).as_bytes());
            to.extend(bytes);
        };
        match self {
            Self::Integer(number) => to.extend(format!("i{number}e").as_bytes()),
            Self::Bytes(text) => bytes(text, to),
            Self::List(values) => {
                to.push(b'l');
                values.iter().for_each(|value| value.encode(to));
                to.push(b'e');
            }
            Self::Dictionary(entries) => {
                to.push(b'd');
                for (key, value) in entries {
                    bytes(key, to);
                    value.encode(to);
                }
                to.push(b'e');
            }
        }
    }

    /// Reads one value, which must be all there is.
    ///
    /// # Errors
    /// If it is none.
    pub fn decode(from: &[u8]) -> Result<Self> {
        let mut rest = from;
        let value = take(&mut rest, DEPTH)?;
        ensure!(rest.is_empty(), "{} bytes behind the value", rest.len());
        Ok(value)
    }
}

fn take(rest: &mut &[u8], depth: usize) -> Result<Value> {
    ensure!(depth > 0, "nested too deep");
    match rest.first() {
        Some(b'i') => {
            *rest = &rest[1..];
            Ok(Value::Integer(number(rest, b'e')?))
        }
        Some(b'l') => {
            let mut values = Vec::new();
            *rest = &rest[1..];
            while !ended(rest) {
                values.push(take(rest, depth - 1)?);
            }
            Ok(Value::List(values))
        }
        Some(b'd') => {
            let mut entries = BTreeMap::new();
            *rest = &rest[1..];
            while !ended(rest) {
                let key = string(rest)?;
                entries.insert(key, take(rest, depth - 1)?);
            }
            Ok(Value::Dictionary(entries))
        }
        Some(b'0'..=b'9') => Ok(Value::Bytes(string(rest)?)),
        Some(other) => bail!("no value begins with {other:#x}"),
        None => bail!("it ends too early"),
    }
}

/// Whether the list or dictionary ends here; the end is taken.
fn ended(rest: &mut &[u8]) -> bool {
    let ended = rest.first() == Some(&b'e');
    if ended {
        *rest = &rest[1..];
    }
    ended
}

fn number(rest: &mut &[u8], end: u8) -> Result<i64> {
    let length = rest.iter().position(|byte| *byte == end).context("a number without an end")?;
    let text = std::str::from_utf8(&rest[..length])?;
    *rest = &rest[length + 1..];
    text.parse().with_context(|| format!("{text} is no number"))
}

fn string(rest: &mut &[u8]) -> Result<Vec<u8>> {
    let length = usize::try_from(number(rest, b':')?)?;
    let (bytes, after) = rest.split_at_checked(length).context("a string that is cut off")?;
    *rest = after;
    Ok(bytes.to_vec())
}

/// Somebody who speaks the protocol.
#[derive(Debug)]
pub struct Client {
    socket: UdpSocket,
    cookie: u32,
}

/// How long to wait for an answer, and how often to ask.
const PATIENCE: Duration = Duration::from_millis(250);
const TRIES: usize = 40;

impl Client {
    /// One that sends by a socket, which is connected.
    ///
    /// # Errors
    /// If the socket refuses a time limit.
    pub fn new(socket: UdpSocket) -> Result<Self> {
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, cookie: 0 })
    }

    /// Asks, again where no answer comes, and hands back the answer.
    ///
    /// # Errors
    /// If none comes, or the answer is a refusal.
    pub fn ask(&mut self, request: &Value) -> Result<Value> {
        self.cookie += 1;
        let mut datagram = format!("{} ", self.cookie).into_bytes();
        let cookie_bytes = datagram.len();
        request.encode(&mut datagram);
        let mut buffer = [0; 8192];
        for _ in 0..TRIES {
            // If nobody listens yet, that comes back as an error of the socket, at once.
            let sent = Instant::now();
            if self.socket.send(&datagram).is_ok() {
                while let Ok(length) = self.socket.recv(&mut buffer) {
                    if buffer[..length].starts_with(&datagram[..cookie_bytes]) {
                        let answer = Value::decode(&buffer[cookie_bytes..length])?;
                        match answer.text("result") {
                            Some("ok" | "pong") => return Ok(answer),
                            result => bail!("{result:?}: {:?}", answer.text("error-reason")),
                        }
                    }
                }
            }
            std::thread::sleep(PATIENCE.saturating_sub(sent.elapsed()));
        }
        bail!("no answer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_read_back() {
        let value = Value::dictionary([
            ("sdp", "v=0\r\n".into()),
            ("flags", Value::List(vec!["a".into(), Value::Integer(-7)])),
            ("command", "offer".into()),
        ]);
        let mut encoded = Vec::new();
        value.encode(&mut encoded);
        assert_eq!(encoded, b"d7:command5:offer5:flagsl1:ai-7ee3:sdp5:v=0\r\ne");
        assert_eq!(Value::decode(&encoded).unwrap(), value);
        assert_eq!(
            (value.text("command"), value.text("flags"), value.text("no")),
            (Some("offer"), None, None)
        );
    }

    #[test]
    fn what_is_none_is_refused() {
        let deep = ["l"; 40].concat();
        for broken in
            ["", "x", "i1", "iae", "3:ab", "-1:a", "99999999999:a", "l1:a", "d1:ae", "d1:a", "i1ei2e", &deep]
        {
            assert!(Value::decode(broken.as_bytes()).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_client_asks_until_its_own_answer_comes() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(server.local_addr().unwrap()).unwrap();
        let mut client = Client::new(socket).unwrap();
        let answering = std::thread::spawn(move || {
            let mut buffer = [0; 256];
            for answers in [["0 d6:result4:fail", "1 d6:result4:ponge"], ["2 d6:result5:errore", "2 x"]] {
                let (length, from) = server.recv_from(&mut buffer).unwrap();
                assert!(buffer[..length].ends_with(b"d7:command4:pinge"));
                for answer in answers {
                    server.send_to(answer.as_bytes(), from).unwrap();
                }
            }
        });
        let ping = Value::dictionary([("command", "ping".into())]);
        assert_eq!(client.ask(&ping).unwrap().text("result"), Some("pong"));
        assert!(client.ask(&ping).is_err());
        answering.join().unwrap();
    }
}
