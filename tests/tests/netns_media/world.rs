//! The three namespaces, the dataplane between them, and what is sent through it.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sbc_core::id::{CallId, OpId, RealmId};
use sbc_core::media::command::{MediaCommand, MediaEvent, MediaResult};
use sbc_core::media::plan::{
    MediaPace, MediaPlan, PeerMedia, Placement, SourcePolicy, StreamPlan, StreamSide,
};
use sbc_tests::cleanup;
use sbc_tests::cleanup::Guard;
use sbc_tests::netns::{End, Namespace, connect};
use sbc_tests::process::Scratch;
use sbc_user::dataplane::planes::{Planes, PlanesConfig, StartReport};
use sbc_user::dataplane::xdp::{self, MediaBind, StartError};
use sbc_user::dataplane::{Dataplane, DataplaneEvent};

pub(super) const CALLER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(super) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(super) const INSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub(super) const CALLEE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// An address on the callee's network at which nobody is.
pub(super) const NOBODY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 99);

/// Our RTP ports.
pub(super) const OUTSIDE_PORT: u16 = 20_000;
pub(super) const INSIDE_PORT: u16 = 20_100;
/// The peers' RTP ports.
pub(super) const CALLER_PORT: u16 = 4000;
pub(super) const CALLEE_PORT: u16 = 6000;

pub(super) const CALL: CallId = CallId(1);
/// Longest wait for something that must happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Wait in which something that must not happen would have happened: delivery over veth takes microseconds.
pub(super) const SILENCE: Duration = Duration::from_millis(100);

/// Whether this test can run here; says why not.
pub(super) fn possible(test: &str) -> bool {
    let bpffs = nix::sys::statfs::statfs("/sys/fs/bpf")
        .is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::BPF_FS_MAGIC);
    let reason = if !sbc_tests::is_root() {
        "needs root"
    } else if !xdp::is_embedded() {
        "built without the kernel object (SBC_EBPF_OBJECT)"
    } else if !bpffs {
        "no bpffs on /sys/fs/bpf"
    } else {
        return true;
    };
    sbc_tests::skip(test, reason);
    false
}

/// Runs a test in the border's namespace.
pub(super) fn inside(test: &str, body: impl FnOnce(&World) + Send) {
    if possible(test) {
        let world = World::new();
        world.border.enter(|| body(&world)).unwrap();
    }
}

/// Three namespaces in a row, and an instance's name.
pub(super) struct World {
    pub(super) caller: Namespace,
    pub(super) border: Namespace,
    pub(super) callee: Namespace,
    pub(super) instance: String,
    pub(super) scratch: Scratch,
    _pins: Guard,
}

impl World {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let instance = format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let [caller, border, callee] =
            ["caller", "border", "callee"].map(|label| Namespace::create(label).unwrap());
        connect(
            End {
                namespace: &caller,
                interface: "eth0",
                addresses: &["192.0.2.2/24", "192.0.2.3/24", "2001:db8:1::2/64", "2001:db8:1::3/64"],
            },
            End { namespace: &border, interface: "out0", addresses: &["192.0.2.1/24", "2001:db8:1::1/64"] },
        )
        .unwrap();
        connect(
            End { namespace: &border, interface: "in0", addresses: &["198.51.100.1/24", "2001:db8:2::1/64"] },
            End {
                namespace: &callee,
                interface: "eth0",
                addresses: &["198.51.100.2/24", "2001:db8:2::2/64"],
            },
        )
        .unwrap();
        let home = Path::new("/sys/fs/bpf/sbc").join(&instance);
        let pins = cleanup::on_exit(move || {
            // bpffs takes remove_dir_all like any other file system.
            let _ = std::fs::remove_dir_all(home);
        });
        Self {
            caller,
            border,
            callee,
            instance,
            scratch: Scratch::create("netns-media").unwrap(),
            _pins: pins,
        }
    }

    pub(super) fn config(&self) -> PlanesConfig {
        let bind = |address: Ipv4Addr| MediaBind { address: address.into(), ports: 20_000..=20_199 };
        PlanesConfig {
            instance: self.instance.clone(),
            run_dir: self.scratch.path().join("run"),
            kernel: true,
            media: vec![bind(OUTSIDE), bind(INSIDE)],
            sip: Vec::new(),
            reserved_ports: vec![5060..=5061],
        }
    }

    pub(super) fn try_start(&self, config: &PlanesConfig) -> Result<(Planes, StartReport), StartError> {
        Planes::start(config, Instant::now())
    }

    pub(super) fn start(&self) -> Border {
        self.start_with(&self.config())
    }

    pub(super) fn start_with(&self, config: &PlanesConfig) -> Border {
        let (planes, report) = self.try_start(config).unwrap();
        for address in &report.addresses {
            assert_eq!(address.relay_reason, None, "{report:?}");
        }
        Border::new(planes)
    }

    pub(super) fn pin(&self, name: &str) -> PathBuf {
        Path::new("/sys/fs/bpf/sbc")
            .join(&self.instance)
            .join(format!("v{}", sbc_common::limits::ABI))
            .join(name)
    }
}

/// The dataplane under test, driven as the event loop drives it.
pub(super) struct Border {
    pub(super) planes: Planes,
    pub(super) next_op: u64,
    pub(super) heard: Vec<MediaEvent>,
}

impl Border {
    pub(super) fn new(planes: Planes) -> Self {
        Self { planes, next_op: 1, heard: Vec::new() }
    }

    /// Applies a command and drives the dataplane until it is answered.
    pub(super) fn apply(&mut self, command: MediaCommand) -> MediaResult {
        let op = OpId(self.next_op);
        self.next_op += 1;
        self.planes.apply(Instant::now(), op, command);
        let mut answer = None;
        self.drive(|border| {
            while let Some(event) = border.planes.poll_event() {
                match event {
                    DataplaneEvent::Done { op: answered, result } => {
                        assert_eq!((answered, answer.is_none()), (op, true));
                        answer = Some(result);
                    }
                    DataplaneEvent::Media(event) => border.heard.push(event),
                    DataplaneEvent::Guard(event) => panic!("nobody floods: {event:?}"),
                }
            }
            answer.is_some()
        });
        answer.unwrap()
    }

    /// Waits for descriptors and timeouts until `done`.
    pub(super) fn drive(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            let now = Instant::now();
            assert!(now < deadline, "nothing happened");
            let until = self.planes.poll_timeout().map_or(deadline, |at| at.min(deadline));
            let raw = self.planes.poll_fds();
            // SAFETY: the descriptors belong to the dataplane, which is not touched while they are polled.
            let borrowed = raw.iter().map(|fd| unsafe { BorrowedFd::borrow_raw(*fd) });
            let mut fds: Vec<PollFd<'_>> = borrowed.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            let wait = until.saturating_duration_since(now) + Duration::from_millis(1);
            poll(&mut fds, PollTimeout::try_from(wait).unwrap()).unwrap();
            self.planes.handle_timeout(Instant::now());
        }
    }

    pub(super) fn install(&mut self, streams: Vec<StreamPlan>) -> Vec<Placement> {
        self.install_call(CALL, streams)
    }

    pub(super) fn install_call(&mut self, call: CallId, streams: Vec<StreamPlan>) -> Vec<Placement> {
        self.apply(MediaCommand::Install(MediaPlan { call, streams })).unwrap().placements
    }

    /// Why the relay has streams, and how many for each reason.
    pub(super) fn relay_streams(&self) -> Vec<(&'static str, u64)> {
        self.planes.figures().relay_streams.into_iter().filter(|(_, count)| *count > 0).collect()
    }

    pub(super) fn outcome(&self, name: &str) -> u64 {
        let outcomes = self.planes.figures().outcomes;
        outcomes.iter().find(|(outcome, _)| *outcome == name).map(|(_, count)| *count).unwrap()
    }

    pub(super) fn hears_latch(&mut self) -> MediaEvent {
        self.drive(|border| {
            while let Some(event) = border.planes.poll_event() {
                match event {
                    DataplaneEvent::Media(event) => border.heard.push(event),
                    DataplaneEvent::Guard(event) => panic!("nobody floods: {event:?}"),
                    DataplaneEvent::Done { op, .. } => panic!("{op} was not asked"),
                }
            }
            !border.heard.is_empty()
        });
        self.heard.remove(0)
    }
}

pub(super) fn side<A: Into<IpAddr>>(
    local: A,
    local_rtp_port: u16,
    peer: Option<(A, u16)>,
    source: SourcePolicy,
) -> StreamSide {
    let peer = peer.map(|(ip, port)| media(ip.into(), port));
    StreamSide {
        realm: RealmId(0),
        local_ip: local.into(),
        local_rtp_port,
        peer,
        rtcp_mux: false,
        source,
        pace: MediaPace::default(),
        dscp: 46,
    }
}

/// Both peers signalled and taken at their word.
pub(super) fn signalled() -> StreamPlan {
    StreamPlan {
        mline: 0,
        caller: side(OUTSIDE, OUTSIDE_PORT, Some((CALLER, CALLER_PORT)), SourcePolicy::Signalled),
        callee: side(INSIDE, INSIDE_PORT, Some((CALLEE, CALLEE_PORT)), SourcePolicy::Signalled),
    }
}

/// Where a peer receives.
pub(super) fn media(ip: IpAddr, port: u16) -> PeerMedia {
    PeerMedia { rtp: (ip, port).into(), rtcp: (ip, port + 1).into() }
}

pub(super) fn bind(namespace: &Namespace, ip: impl Into<IpAddr>, port: u16) -> UdpSocket {
    let at = address(ip, port);
    let deadline = Instant::now() + PATIENCE;
    let socket = loop {
        match namespace.enter(|| UdpSocket::bind(at)).unwrap() {
            Ok(socket) => break socket,
            // A program that another test starts holds, from the fork until it runs, a socket that was just closed here.
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::yield_now();
            }
            Err(error) => panic!("bind {at}: {error}"),
        }
    };
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

pub(super) fn rtp(sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 8, 0, 0, 0, 0, 0, 0, 0x5b, 0xc0, 0, 1];
    packet[2..4].copy_from_slice(&sequence.to_be_bytes());
    // Payloads of many lengths, odd ones too: each is another case of the checksum.
    packet.extend((0..160 + sequence % 7).map(|at| (at ^ sequence) as u8));
    packet
}

pub(super) fn rtcp(number: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 201, 0, 1];
    packet.extend(u32::from(number).to_be_bytes());
    packet
}

pub(super) fn address(ip: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}

/// Sends and expects it, unchanged, from the border's address and port.
pub(super) fn passes(
    from: &UdpSocket,
    to: SocketAddr,
    receiver: &UdpSocket,
    via: SocketAddr,
    payload: &[u8],
) {
    from.send_to(payload, to).unwrap();
    let mut buffer = [0; 2048];
    let (length, source) =
        receiver.recv_from(&mut buffer).unwrap_or_else(|error| panic!("from {via}: {error}"));
    assert_eq!((&buffer[..length], source), (payload, via));
}

/// Nothing arrives.
pub(super) fn silent(receiver: &UdpSocket) {
    receiver.set_read_timeout(Some(SILENCE)).unwrap();
    let received = receiver.recv_from(&mut [0; 2048]);
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(received.is_err(), "{received:?}");
}

/// Datagrams that a namespace's kernel threw away because their checksum was wrong.
pub(super) fn wrong_checksums(namespace: &Namespace) -> u64 {
    let text = namespace.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp")).unwrap().unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("Udp:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let named = names.split_whitespace().zip(values.split_whitespace());
    named.filter(|(name, _)| *name == "InCsumErrors").map(|(_, value)| value.parse::<u64>().unwrap()).sum()
}
