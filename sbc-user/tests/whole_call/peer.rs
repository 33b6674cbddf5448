//! A peer of the SBC, written by hand: sends what a test says, shows what arrives.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Far longer than anything takes; a test that hangs fails instead.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// A message as it was on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Message(pub(crate) String);

impl Message {
    pub(crate) fn start(&self) -> &str {
        self.0.lines().next().unwrap_or("")
    }

    /// Values of a header, one for each line of it.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        let (head, _) = self.0.split_once("\r\n\r\n").expect("an empty line");
        let matches = |line: &&str| line.split_once(':').is_some_and(|(found, _)| found.trim() == name);
        let value =
            |line: &str| line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default();
        head.split("\r\n").filter(matches).map(value).collect()
    }

    pub(crate) fn one(&self, name: &str) -> String {
        let all = self.all(name);
        assert_eq!(all.len(), 1, "{name} in\n{}", self.0);
        all[0].clone()
    }

    pub(crate) fn body(&self) -> &str {
        self.0.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }

    /// The URI of a name-addr header.
    pub(crate) fn uri(&self, name: &str) -> String {
        let value = self.one(name);
        let (_, rest) = value.split_once('<').expect("a name-addr");
        rest.split_once('>').expect("a name-addr").0.to_owned()
    }

    /// Where the SDP says that RTP is received.
    pub(crate) fn media(&self) -> SocketAddr {
        let line =
            |prefix| self.body().lines().find_map(|line| line.strip_prefix(prefix)).expect("an SDP line");
        let address = line("c=IN IP4 ");
        let port = line("m=audio ").split(' ').next().unwrap();
        format!("{address}:{port}").parse().unwrap()
    }

    /// A response to this request.
    pub(crate) fn answer(&self, status: &str, tag: &str, more: &[String], body: &str) -> String {
        let mut text = format!("SIP/2.0 {status}\r\n");
        for name in ["Via", "Record-Route"] {
            for value in self.all(name) {
                text += &format!("{name}: {value}\r\n");
            }
        }
        let to = self.one("To");
        let to = if to.contains(";tag=") { to } else { format!("{to};tag={tag}") };
        text += &format!("From: {}\r\nTo: {to}\r\n", self.one("From"));
        text += &format!("Call-ID: {}\r\nCSeq: {}\r\n", self.one("Call-ID"), self.one("CSeq"));
        for line in more {
            text += &format!("{line}\r\n");
        }
        text + &with_body(body)
    }
}

/// The end of a message: type, length, empty line, body.
pub(crate) fn with_body(body: &str) -> String {
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!("{kind}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// How it is connected to the SBC.
pub(crate) enum Peer {
    Udp { socket: UdpSocket, sbc: SocketAddr },
    Tls { stream: Box<TlsStream<TcpStream>>, buffer: Vec<u8> },
}

impl Peer {
    pub(crate) async fn udp(local: SocketAddr, sbc: SocketAddr) -> Self {
        Self::Udp { socket: UdpSocket::bind(local).await.unwrap(), sbc }
    }

    pub(crate) async fn tls(local: SocketAddr, sbc: SocketAddr, authority: &[u8]) -> Self {
        let roots = sbc_user::transport::tls::certs::authorities(authority).unwrap();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(local).unwrap();
        let stream = socket.connect(sbc).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("sbc.example").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        Self::Tls { stream: Box::new(stream), buffer: Vec::new() }
    }

    /// As it stands in a Via.
    pub(crate) fn transport(&self) -> &'static str {
        match self {
            Self::Udp { .. } => "UDP",
            Self::Tls { .. } => "TLS",
        }
    }

    pub(crate) fn local(&self) -> SocketAddr {
        match self {
            Self::Udp { socket, .. } => socket.local_addr().unwrap(),
            Self::Tls { stream, .. } => stream.get_ref().0.local_addr().unwrap(),
        }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        match self {
            Self::Udp { socket, sbc } => {
                socket.send_to(text.as_bytes(), *sbc).await.unwrap();
            }
            Self::Tls { stream, .. } => stream.write_all(text.as_bytes()).await.unwrap(),
        }
    }

    pub(crate) async fn next(&mut self) -> Message {
        tokio::time::timeout(PATIENCE, self.receive()).await.expect("a message")
    }

    async fn receive(&mut self) -> Message {
        match self {
            Self::Udp { socket, .. } => {
                let mut buffer = vec![0; 65_535];
                let (length, _) = socket.recv_from(&mut buffer).await.unwrap();
                Message(String::from_utf8(buffer[..length].to_vec()).unwrap())
            }
            Self::Tls { stream, buffer } => loop {
                let text = String::from_utf8(buffer.clone()).unwrap();
                if let Some((head, rest)) = text.split_once("\r\n\r\n") {
                    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length:")).unwrap();
                    let length: usize = length.trim().parse().unwrap();
                    if rest.len() >= length {
                        let end = head.len() + 4 + length;
                        buffer.drain(..end);
                        return Message(text[..end].to_owned());
                    }
                }
                let mut chunk = vec![0; 4096];
                let read = stream.read(&mut chunk).await.unwrap();
                assert!(read > 0, "the SBC closed the connection");
                buffer.extend_from_slice(&chunk[..read]);
            },
        }
    }

    /// The next message whose start line begins so; 100 and repetitions before it are passed over.
    pub(crate) async fn expect(&mut self, start: &str) -> Message {
        for _ in 0..16 {
            let message = self.next().await;
            if message.start().starts_with(start) {
                return message;
            }
        }
        panic!("no {start}");
    }
}
