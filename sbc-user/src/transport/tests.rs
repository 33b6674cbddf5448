//! Sockets on loopback: each test has an address of its own, so that no port is fought for.

// A test stops at whatever it did not expect.
#![allow(clippy::wildcard_enum_match_arm)]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::tls::certs;
use super::*;
use crate::config::OtherHost;

/// Far longer than anything takes; a test that hangs fails instead.
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory, two loopback addresses and PEM files that nobody else uses.
struct Place {
    directory: PathBuf,
    ours: Ipv4Addr,
    theirs: Ipv4Addr,
}

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let host = u8::try_from(number * 2).unwrap();
        let directory = std::env::temp_dir().join(format!("sbc-transport-{}-{number}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        for name in ["ours", "theirs"] {
            let names = [format!("{name}.example"), Ipv4Addr::new(127, high, low, host + 1).to_string()];
            let rcgen::CertifiedKey { cert, signing_key } =
                rcgen::generate_simple_self_signed(names).unwrap();
            std::fs::write(directory.join(format!("{name}.pem")), cert.pem()).unwrap();
            std::fs::write(directory.join(format!("{name}.key")), signing_key.serialize_pem()).unwrap();
        }
        Self {
            directory,
            ours: Ipv4Addr::new(127, high, low, host),
            theirs: Ipv4Addr::new(127, high, low, host + 1),
        }
    }

    fn config(&self, realm: &str) -> Config {
        let peers = if realm.contains("peers") { "" } else { "peers = [\"127.0.0.0/8\"]" };
        let text = format!(
            "[public]\nbind = \"{}\"\n{peers}\n{}\n",
            self.ours,
            realm.replace("THEIRS", &self.theirs.to_string())
        );
        match Config::parse(&self.directory.join("sbc.toml"), &text, &OtherHost) {
            Ok((config, _)) => config,
            Err(report) => panic!("{report}"),
        }
    }

    fn pem(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.directory.join(name)).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

async fn next(events: &mut mpsc::Receiver<TransportEvent>) -> TransportEvent {
    tokio::time::timeout(PATIENCE, events.recv()).await.expect("an event").expect("the channel is open")
}

async fn opened(events: &mut mpsc::Receiver<TransportEvent>) -> Flow {
    match next(events).await {
        TransportEvent::Opened { flow } => flow,
        other => panic!("{other:?}"),
    }
}

async fn received(events: &mut mpsc::Receiver<TransportEvent>, conn: ConnId, expected: &[u8]) {
    let mut all = Vec::new();
    while all.len() < expected.len() {
        match next(events).await {
            TransportEvent::Bytes { conn: on, bytes } if on == conn => all.extend_from_slice(&bytes),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(all, expected);
}

async fn closed(events: &mut mpsc::Receiver<TransportEvent>, conn: ConnId) {
    match next(events).await {
        TransportEvent::Closed { conn: on } => assert_eq!(on, conn),
        other => panic!("{other:?}"),
    }
}

async fn failed(events: &mut mpsc::Receiver<TransportEvent>) -> OpId {
    match next(events).await {
        TransportEvent::SendFailed { op } => op,
        other => panic!("{other:?}"),
    }
}

fn to(transport: Transport, remote: SocketAddr) -> Flow {
    Flow { listener: ListenerId(0), transport, remote, conn: None }
}

async fn read_some(stream: &mut (impl tokio::io::AsyncRead + Unpin), length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    bytes
}

#[tokio::test]
async fn datagrams_go_both_ways() {
    let place = Place::new();
    let (mut transports, mut events) = Transports::bind(&place.config("udp = 5060")).unwrap();
    let peer = UdpSocket::bind((place.theirs, 5060)).await.unwrap();
    peer.send_to(b"in", (place.ours, 5060)).await.unwrap();
    let TransportEvent::Datagram { flow, bytes } = next(&mut events).await else { panic!("a datagram") };
    assert_eq!((flow.remote, flow.conn, &bytes[..]), (peer.local_addr().unwrap(), None, &b"in"[..]));
    transports.send(OpId(1), flow, Bytes::from_static(b"out"));
    let mut buffer = [0; 16];
    let (length, from) = tokio::time::timeout(PATIENCE, peer.recv_from(&mut buffer)).await.unwrap().unwrap();
    assert_eq!((&buffer[..length], from), (&b"out"[..], (place.ours, 5060).into()));
    assert_eq!(transports.take_failed(), None);
}

/// Of both families, bound, accepted and opened.
#[tokio::test]
async fn sockets_mark_what_leaves() {
    let realm = RealmShell { dscp_signalling: 34, ..RealmShell::default() };
    for ip in [IpAddr::from([127, 0, 0, 1]), IpAddr::from(std::net::Ipv6Addr::LOCALHOST)] {
        let class = |socket: SockRef<'_>| {
            if ip.is_ipv4() { socket.tos_v4().unwrap() } else { socket.tclass_v6().unwrap() }
        };
        let any_port = SocketAddr::new(ip, 0);
        let datagrams = udp::bind(any_port, &realm).unwrap();
        let listener = tcp::listen(any_port, &realm).unwrap();
        let opened = tcp::open(ip, 10, listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        assert_eq!(class(SockRef::from(&datagrams)), 34 << 2, "{ip}");
        assert_eq!(class(SockRef::from(&accepted)), 34 << 2, "{ip}");
        assert_eq!(class(SockRef::from(&opened)), 10 << 2, "{ip}");
    }
}

#[tokio::test]
async fn a_datagram_that_cannot_leave_is_reported() {
    let place = Place::new();
    let (mut transports, _events) = Transports::bind(&place.config("udp = 5060")).unwrap();
    let too_long = Bytes::from(vec![0; 70_000]);
    transports.send(OpId(7), to(Transport::Udp, (place.theirs, 5060).into()), too_long);
    assert_eq!(transports.take_failed(), Some(OpId(7)));
}

#[tokio::test]
async fn a_connection_is_reused_whoever_opened_it() {
    let place = Place::new();
    let (mut transports, mut events) = Transports::bind(&place.config("tcp = 5060")).unwrap();

    let mut theirs = TcpStream::connect((place.ours, 5060)).await.unwrap();
    theirs.write_all(b"hello").await.unwrap();
    let flow = opened(&mut events).await;
    let conn = flow.conn.unwrap();
    received(&mut events, conn, b"hello").await;
    transports.send(OpId(1), flow, Bytes::from_static(b"by id "));
    transports.send(OpId(2), to(Transport::Tcp, flow.remote), Bytes::from_static(b"by peer"));
    assert_eq!(read_some(&mut theirs, 13).await, b"by id by peer");
    assert_eq!(transports.connections(), 1);

    let server = TcpListener::bind((place.theirs, 5060)).await.unwrap();
    let remote = server.local_addr().unwrap();
    transports.send(OpId(3), to(Transport::Tcp, remote), Bytes::from_static(b"one "));
    transports.send(OpId(4), to(Transport::Tcp, remote), Bytes::from_static(b"two"));
    let (mut accepted, from) = server.accept().await.unwrap();
    assert_eq!(from.ip(), place.ours);
    assert_eq!(read_some(&mut accepted, 7).await, b"one two");
    let ours = opened(&mut events).await;
    assert_eq!(ours.remote, remote);
    assert_eq!(transports.connections(), 2);

    transports.close(conn);
    closed(&mut events, conn).await;
    assert_eq!(theirs.read(&mut [0; 8]).await.unwrap(), 0);
    drop(accepted);
    closed(&mut events, ours.conn.unwrap()).await;
    assert_eq!(transports.connections(), 0);
}

#[tokio::test]
async fn what_is_queued_is_sent_before_a_close() {
    let place = Place::new();
    let (mut transports, mut events) = Transports::bind(&place.config("tcp = 5060")).unwrap();
    let server = TcpListener::bind((place.theirs, 5060)).await.unwrap();
    transports.send(OpId(1), to(Transport::Tcp, server.local_addr().unwrap()), Bytes::from_static(b"first"));
    let (mut accepted, _) = server.accept().await.unwrap();
    let flow = opened(&mut events).await;
    let conn = flow.conn.unwrap();
    let last = vec![b'x'; 500_000];
    transports.send(OpId(2), flow, Bytes::from(last.clone()));
    transports.close(conn);
    assert_eq!(read_some(&mut accepted, 5).await, b"first");
    assert_eq!(read_some(&mut accepted, last.len()).await, last);
    assert_eq!(accepted.read(&mut [0; 8]).await.unwrap(), 0);
    closed(&mut events, conn).await;
}

#[tokio::test]
async fn a_connection_that_cannot_be_opened_fails_every_message_queued_on_it() {
    let place = Place::new();
    let (mut transports, mut events) = Transports::bind(&place.config("tcp = 5060")).unwrap();
    let nobody = to(Transport::Tcp, (place.theirs, 5060).into());
    transports.send(OpId(1), nobody, Bytes::from_static(b"one"));
    transports.send(OpId(2), nobody, Bytes::from_static(b"two"));
    assert_eq!((failed(&mut events).await, failed(&mut events).await), (OpId(1), OpId(2)));
    assert_eq!(transports.connections(), 0);
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_closed_and_holds_little() {
    let place = Place::new();
    let (mut transports, mut events) = Transports::bind(&place.config("tcp = 5060")).unwrap();
    let peer = TcpStream::connect((place.ours, 5060)).await.unwrap();
    let flow = opened(&mut events).await;
    let message = Bytes::from(vec![b'x'; 64 * 1024]);
    let mut sent = 0;
    let refused = loop {
        transports.send(OpId(sent), flow, message.clone());
        if let Some(op) = transports.take_failed() {
            break op;
        }
        sent += 1;
        assert!(sent < 10_000, "the queue has no bound");
        if sent % 16 == 0 {
            // Lets the connection's task fill the kernel's buffers.
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(refused, OpId(sent));
    let mut failures = 0;
    loop {
        match next(&mut events).await {
            TransportEvent::SendFailed { .. } => failures += 1,
            TransportEvent::Closed { conn } => {
                assert_eq!(Some(conn), flow.conn);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(failures >= 1 && failures <= limits::QUEUED_BYTES / message.len() + 1, "{failures}");
    assert_eq!(transports.connections(), 0);
    drop(peer);
}

#[tokio::test]
async fn connections_from_one_source_are_limited() {
    let place = Place::new();
    let config = place.config("tcp = 5060\n[limits]\nmax_connections_per_source = 2");
    let (transports, mut events) = Transports::bind(&config).unwrap();
    let first = TcpStream::connect((place.ours, 5060)).await.unwrap();
    let first_flow = opened(&mut events).await;
    let _second = TcpStream::connect((place.ours, 5060)).await.unwrap();
    opened(&mut events).await;
    let mut third = TcpStream::connect((place.ours, 5060)).await.unwrap();
    assert!(matches!(third.read(&mut [0; 8]).await, Ok(0) | Err(_)));
    assert_eq!(transports.connections(), 2);
    drop(first);
    closed(&mut events, first_flow.conn.unwrap()).await;
    let _fourth = TcpStream::connect((place.ours, 5060)).await.unwrap();
    opened(&mut events).await;
    let refused = transports.counters().list().into_iter().find(|(name, _)| *name == "connections_refused");
    assert_eq!(refused, Some(("connections_refused", 1)));
}

const TLS: &str = "tls = 5063\ncertificate = \"ours.pem\"\nkey = \"ours.key\"\n";

/// Who is no peer takes no connection away from peers.
#[tokio::test]
async fn strangers_are_not_connected_to() {
    let place = Place::new();
    let config = place.config("tcp = 5060\npeers = [\"THEIRS\"]\n[limits]\nmax_connections = 1");
    let (transports, mut events) = Transports::bind(&config).unwrap();
    let to = SocketAddr::new(place.ours.into(), 5060);
    for _ in 0..3 {
        let mut stranger = TcpStream::connect(to).await.unwrap();
        // The end of the stream, or a reset; no byte.
        let read = tokio::time::timeout(PATIENCE, stream_end(&mut stranger)).await.unwrap();
        assert_eq!(read, 0);
    }
    assert_eq!((transports.connections(), counted(&transports, "strangers_refused")), (0, 3));
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((place.theirs, 0).into()).unwrap();
    let peer = socket.connect(to).await.unwrap();
    assert_eq!(opened(&mut events).await.remote, peer.local_addr().unwrap());
}

async fn stream_end(stream: &mut TcpStream) -> usize {
    stream.read(&mut [0; 64]).await.unwrap_or(0)
}

#[tokio::test]
async fn tls_is_accepted_in_both_versions() {
    let place = Place::new();
    let (mut transports, mut events) = Transports::bind(&place.config(TLS)).unwrap();
    let roots = certs::authorities(&place.pem("ours.pem")).unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = rustls::ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let stream = TcpStream::connect((place.ours, 5063)).await.unwrap();
        let name = ServerName::try_from("ours.example").unwrap();
        let mut stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
        let flow = opened(&mut events).await;
        assert_eq!(flow.transport, Transport::Tls);
        stream.write_all(b"over tls").await.unwrap();
        received(&mut events, flow.conn.unwrap(), b"over tls").await;
        transports.send(OpId(1), flow, Bytes::from_static(b"back"));
        assert_eq!(read_some(&mut stream, 4).await, b"back");
        transports.close(flow.conn.unwrap());
        // An orderly end: close_notify, not an error.
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
        closed(&mut events, flow.conn.unwrap()).await;
    }
}

#[tokio::test]
async fn what_is_not_tls_is_not_opened() {
    let place = Place::new();
    let (transports, _events) = Transports::bind(&place.config(TLS)).unwrap();
    let mut stream = TcpStream::connect((place.ours, 5063)).await.unwrap();
    stream.write_all(b"OPTIONS sip:x SIP/2.0\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap();
    assert!(transports.counters().list().contains(&("handshakes_failed", 1)));
}

/// Sends one message to a TLS server with the certificate `theirs`; what it received, if we trusted it.
async fn connect_to_theirs(place: &Place, how: &str) -> Option<Vec<u8>> {
    let peer = "peers = \"THEIRS\"\nnext_hop = \"tls:THEIRS:5061\"\n";
    let (mut transports, mut events) = Transports::bind(&place.config(&format!("{TLS}{peer}{how}"))).unwrap();
    let chain = certs::chain(&place.pem("theirs.pem")).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(&place.pem("theirs.key")).unwrap();
    let server = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let listener = TcpListener::bind((place.theirs, 5061)).await.unwrap();
    transports.send(
        OpId(1),
        to(Transport::Tls, listener.local_addr().unwrap()),
        Bytes::from_static(b"secret"),
    );
    let (stream, _) = listener.accept().await.unwrap();
    let accepted = TlsAcceptor::from(Arc::new(server)).accept(stream).await;
    let received = match next(&mut events).await {
        TransportEvent::Opened { .. } => Some(read_some(&mut accepted.unwrap(), 6).await),
        TransportEvent::SendFailed { op } => {
            assert_eq!(op, OpId(1));
            None
        }
        other => panic!("{other:?}"),
    };
    transports.shutdown().await;
    received
}

#[tokio::test]
async fn a_next_hop_under_tls_must_prove_who_it_is() {
    let place = Place::new();
    let secret = Some(b"secret".to_vec());
    assert_eq!(connect_to_theirs(&place, "tls_ca = \"theirs.pem\"").await, secret, "by its address");
    let named = "tls_ca = \"theirs.pem\"\ntls_name = \"theirs.example\"";
    assert_eq!(connect_to_theirs(&place, named).await, secret, "by its name");
    let misnamed = "tls_ca = \"theirs.pem\"\ntls_name = \"other.example\"";
    assert_eq!(connect_to_theirs(&place, misnamed).await, None, "another name");
    assert_eq!(connect_to_theirs(&place, "tls_ca = \"ours.pem\"").await, None, "another authority");
    assert_eq!(connect_to_theirs(&place, "tls_verify = false").await, secret, "anybody");
}

#[tokio::test]
async fn tls_is_opened_to_configured_next_hops_only() {
    let place = Place::new();
    let (mut transports, _events) = Transports::bind(&place.config(TLS)).unwrap();
    transports.send(OpId(1), to(Transport::Tls, (place.theirs, 5061).into()), Bytes::from_static(b"x"));
    assert_eq!(transports.take_failed(), Some(OpId(1)));
}

#[tokio::test]
async fn a_shutdown_ends_every_connection_and_accepts_none() {
    let place = Place::new();
    let (mut transports, mut events) = Transports::bind(&place.config("tcp = 5060")).unwrap();
    let mut peer = TcpStream::connect((place.ours, 5060)).await.unwrap();
    let flow = opened(&mut events).await;
    transports.send(OpId(1), flow, Bytes::from_static(b"bye"));
    transports.shutdown().await;
    assert_eq!(read_some(&mut peer, 3).await, b"bye");
    assert_eq!(peer.read(&mut [0; 8]).await.unwrap(), 0);
    closed(&mut events, flow.conn.unwrap()).await;
    assert!(TcpStream::connect((place.ours, 5060)).await.is_err());
    transports.send(OpId(2), to(Transport::Tcp, (place.theirs, 5060).into()), Bytes::from_static(b"x"));
    assert_eq!(transports.take_failed(), Some(OpId(2)));
}

fn counted(transports: &Transports, name: &str) -> u64 {
    let list = transports.counters().list();
    list.into_iter().find(|(found, _)| *found == name).expect("a counter of that name").1
}

#[tokio::test]
async fn a_connection_on_which_nothing_comes_is_closed() {
    let place = Place::new();
    let (transports, mut events) = Transports::bind(&place.config("tcp = 5060")).unwrap();
    let _silent = TcpStream::connect((place.ours, 5060)).await.unwrap();
    let flow = opened(&mut events).await;
    // From here on the clock jumps to the next timer whenever nothing happens.
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let event = events.recv().await;
    assert!(matches!(event, Some(TransportEvent::Closed { conn }) if Some(conn) == flow.conn), "{event:?}");
    assert_eq!(began.elapsed().as_secs(), limits::FIRST_BYTES.as_secs());
    assert_eq!(counted(&transports, "idle_closed"), 1);
}

#[tokio::test]
async fn a_connection_that_has_spoken_may_be_silent_for_long_but_not_for_ever() {
    let place = Place::new();
    let (transports, mut events) = Transports::bind(&place.config("tcp = 5060")).unwrap();
    let mut peer = TcpStream::connect((place.ours, 5060)).await.unwrap();
    let conn = opened(&mut events).await.conn.unwrap();
    peer.write_all(b"hello").await.unwrap();
    received(&mut events, conn, b"hello").await;
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let event = events.recv().await;
    assert!(matches!(event, Some(TransportEvent::Closed { conn: on }) if on == conn), "{event:?}");
    let silent = began.elapsed();
    assert!(silent.as_secs().abs_diff(limits::IDLE.as_secs()) <= 1, "{silent:?}");
    assert_eq!(counted(&transports, "idle_closed"), 1);
}

#[tokio::test]
async fn a_handshake_that_is_not_finished_is_given_up() {
    let place = Place::new();
    let (transports, _events) = Transports::bind(&place.config(TLS)).unwrap();
    let mut silent = TcpStream::connect((place.ours, 5063)).await.unwrap();
    while transports.connections() == 0 {
        tokio::task::yield_now().await;
    }
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    assert!(matches!(silent.read(&mut [0; 8]).await, Ok(0) | Err(_)));
    assert_eq!(began.elapsed().as_secs(), limits::HANDSHAKE.as_secs());
    assert_eq!(counted(&transports, "handshakes_failed"), 1);
}

#[tokio::test]
async fn an_address_that_may_appear_later_is_bound_before_it_does() {
    let place = Place::new();
    let absent = "udp = 5060\ntcp = 5060\n[[realm]]\nname = \"later\"\nbind = \"203.0.113.77\"\nudp = 5060\ntcp = 5060";
    assert!(Transports::bind(&place.config(absent)).is_err());
    let config = place.config(&format!("{absent}\nmay_appear_later = true"));
    assert!(Transports::bind(&config).is_ok());
}

#[tokio::test]
async fn an_opened_connection_leaves_with_what_was_not_written() {
    let place = Place::new();
    let (mut transports, mut events) = Transports::bind(&place.config("tcp = 5060")).unwrap();
    let peer = TcpStream::connect((place.ours, 5060)).await.unwrap();
    let flow = opened(&mut events).await;
    // More than the kernel takes from a peer that reads nothing, and less than the queue holds.
    for op in 0..15 {
        transports.send(OpId(op), flow, Bytes::from(vec![b'x'; 64 * 1024]));
    }
    assert_eq!(transports.take_failed(), None);
    drop(peer);
    let mut ended = false;
    while !ended {
        match next(&mut events).await {
            TransportEvent::SendFailed { .. } => {}
            TransportEvent::Closed { conn } => {
                assert_eq!(Some(conn), flow.conn);
                ended = true;
            }
            other => panic!("{other:?}"),
        }
    }
    // From here on the flow's peer cannot be reached: it has no listener at that port.
    transports.send(OpId(99), flow, Bytes::from_static(b"late"));
    assert_eq!(failed(&mut events).await, OpId(99));
}

#[test]
fn an_error_of_binding_names_the_listener() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let place = Place::new();
    runtime.block_on(async {
        let config = place.config("tcp = 5060");
        let _taken = TcpListener::bind((place.ours, 5060)).await.unwrap();
        let error = Transports::bind(&config).err().expect("the port is taken");
        assert!(format!("{error:#}").contains(&format!("listener tcp {}:5060", place.ours)), "{error:#}");
    });
    assert!(Path::new(&place.directory).is_dir());
}
