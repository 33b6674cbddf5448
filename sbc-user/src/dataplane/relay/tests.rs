use std::io::IoSliceMut;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt};
use sbc_core::id::RealmId;
use sbc_core::media::plan::{MediaPace, PeerMedia, SourcePolicy, StreamPlan, StreamSide};

use super::*;

const RTP: [u8; 12] = [0x80, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4];

/// An address in 127/8 for one test of one process.
fn here(test: u8) -> IpAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    IpAddr::from([127, 128 | test, high, low])
}

fn side(local_ip: IpAddr, port: u16, peer: SocketAddr) -> StreamSide {
    let rtcp = SocketAddr::new(peer.ip(), peer.port() ^ 1);
    StreamSide {
        realm: RealmId(0),
        local_ip,
        local_rtp_port: port,
        peer: Some(PeerMedia { rtp: peer, rtcp }),
        source: SourcePolicy::learn_from(peer.ip()),
        dscp: 46,
        rtcp_mux: false,
        pace: MediaPace::default(),
    }
}

fn plan(ip: IpAddr, caller: SocketAddr, callee: SocketAddr) -> MediaPlan {
    let streams = [20_000, 20_010].map(|port| StreamPlan {
        mline: (port == 20_010).into(),
        caller: side(ip, port, caller),
        callee: side(ip, port + 4, callee),
    });
    MediaPlan { call: CallId(1), streams: streams.into() }
}

/// Both ways of holding ports; one where the host or the build has not the other.
fn relays() -> Vec<Relay> {
    let (steered, bound) = (Relay::start().unwrap(), Relay::start_with_bound_ports().unwrap());
    if let Some(reason) = steered.not_steered() {
        eprintln!("only with a socket for each port: {reason}");
        return vec![bound];
    }
    vec![steered, bound]
}

fn done(relay: &mut Relay, command: MediaCommand) -> MediaResult {
    relay.apply(Instant::now(), OpId(1), command);
    match relay.poll_event() {
        Some(DataplaneEvent::Done { op: OpId(1), result }) => result,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_port_of_another_program_leaves_nothing_behind() {
    let ip = here(1);
    let peer = SocketAddr::new(ip, 30_000);
    for mut relay in relays() {
        let taken = UdpSocket::bind((ip, 20_015)).unwrap();
        let refused = done(&mut relay, MediaCommand::Install(plan(ip, peer, peer)));
        assert_eq!(refused, Err(MediaError::PortInUse(taken.local_addr().unwrap())));
        assert_eq!((relay.bound(), relay.snapshot()), (vec![], vec![]));
        drop(taken);
        done(&mut relay, MediaCommand::Install(plan(ip, peer, peer))).unwrap();
        assert_eq!(relay.bound().len(), 8);
        done(&mut relay, MediaCommand::Remove(CallId(1))).unwrap();
        assert_eq!(relay.bound(), []);
    }
}

#[test]
fn an_address_that_is_not_ours_is_named() {
    let elsewhere: IpAddr = "192.0.2.1".parse().unwrap();
    let peer = SocketAddr::new("192.0.2.2".parse().unwrap(), 30_000);
    for mut relay in relays() {
        let refused = done(&mut relay, MediaCommand::Install(plan(elsewhere, peer, peer)));
        assert_eq!(refused, Err(MediaError::NotOurs(SocketAddr::new(elsewhere, 20_000))));
    }
}

#[test]
fn packets_leave_marked_and_a_claim_is_news() {
    let ip = here(2);
    let (caller, callee) = (UdpSocket::bind((ip, 30_000)).unwrap(), UdpSocket::bind((ip, 30_010)).unwrap());
    callee.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    setsockopt(&callee, sockopt::IpRecvTos, &true).unwrap();
    for mut relay in relays() {
        let plan = plan(ip, caller.local_addr().unwrap(), callee.local_addr().unwrap());
        done(&mut relay, MediaCommand::Install(plan)).unwrap();
        caller.send_to(&RTP, (ip, 20_000)).unwrap();

        let (mut payload, mut control) = ([0; 64], nix::cmsg_space!(u8));
        let mut buffers = [IoSliceMut::new(&mut payload)];
        let received =
            recvmsg::<SockaddrIn>(callee.as_raw_fd(), &mut buffers, Some(&mut control), MsgFlags::empty())
                .unwrap();
        let tos = received.cmsgs().unwrap().find_map(|message| {
            if let ControlMessageOwned::Ipv4Tos(tos) = message { Some(tos) } else { None }
        });
        assert_eq!((received.bytes, tos), (RTP.len(), Some(46 << 2)));

        let mut fds = [PollFd::new(relay.as_fd(), PollFlags::POLLIN)];
        assert_eq!(
            poll(&mut fds, PollTimeout::from(10_000u16)),
            Ok(1),
            "readable when there is something to poll"
        );
        relay.handle_timeout(Instant::now());
        assert!(matches!(relay.poll_event(), Some(DataplaneEvent::Media(_))));
        let mut fds = [PollFd::new(relay.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::ZERO), Ok(0), "and not after that");
    }
}

#[test]
fn a_flood_of_news_is_told_in_parts() {
    let ip = here(7);
    let peer = SocketAddr::new(ip, 30_000);
    let mut relay = Relay::start_with_bound_ports().unwrap();
    done(&mut relay, MediaCommand::Install(plan(ip, peer, SocketAddr::new(ip, 30_010)))).unwrap();
    let report = [0x80, 201, 0, 1, 1, 2, 3, 4];
    for number in 0..NEWS_AT_ONCE as u64 {
        let second = 1_000_000_000 * number;
        relay.shared.state().table.forward((ip, 20_001).into(), peer, &report, second).unwrap();
    }
    // The claim besides.
    for expected in [NEWS_AT_ONCE, 1, 0] {
        relay.handle_timeout(Instant::now());
        let told = iter::from_fn(|| relay.poll_event()).count();
        assert_eq!(told, expected);
        let mut fds = [PollFd::new(relay.as_fd(), PollFlags::POLLIN)];
        let more = expected == NEWS_AT_ONCE;
        assert_eq!(poll(&mut fds, PollTimeout::ZERO), Ok(more.into()), "readable while there is more");
    }
}

#[test]
fn ten_thousand_ports_need_few_descriptors() {
    let ip = here(3);
    let (caller, callee) = (UdpSocket::bind((ip, 30_000)).unwrap(), UdpSocket::bind((ip, 30_010)).unwrap());
    callee.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    let mut relay = Relay::start().unwrap();
    if relay.not_steered().is_some() {
        return;
    }
    let (from, to) = (caller.local_addr().unwrap(), callee.local_addr().unwrap());
    for call in 0..2500 {
        let port = 40_000 + 4 * u16::try_from(call).unwrap();
        let stream = StreamPlan { mline: 0, caller: side(ip, port, from), callee: side(ip, port + 2, to) };
        let plan = MediaPlan { call: CallId(call), streams: vec![stream] };
        done(&mut relay, MediaCommand::Install(plan)).unwrap();
    }
    assert_eq!(relay.bound().len(), 10_000);
    // Other tests have theirs at the same time.
    assert!(descriptors() < before + 100, "{} and {before} before", descriptors());
    for port in [40_000, 45_000, 49_996] {
        caller.send_to(&RTP, (ip, port)).unwrap();
        let mut payload = [0; 64];
        let (length, via) = callee.recv_from(&mut payload).unwrap();
        assert_eq!((&payload[..length], via), (&RTP[..], SocketAddr::new(ip, port + 2)));
    }
}

#[test]
fn a_port_that_nobody_has_stays_unreachable() {
    let ip = here(4);
    let peer = SocketAddr::new(ip, 30_000);
    for mut relay in relays() {
        done(&mut relay, MediaCommand::Install(plan(ip, peer, peer))).unwrap();
        let socket = UdpSocket::bind((ip, 30_020)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.connect((ip, 20_002)).unwrap();
        socket.send(&RTP).unwrap();
        assert_eq!(socket.recv(&mut [0; 64]).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}

#[test]
fn what_is_too_large_for_a_raw_socket_is_sent_all_the_same() {
    let ip = here(5);
    let (caller, callee) = (UdpSocket::bind((ip, 30_000)).unwrap(), UdpSocket::bind((ip, 30_010)).unwrap());
    callee.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // The loopback interface takes 64 KiB and no more: the largest datagram is sent raw, in one piece.
    let mut large = vec![0; 65_507];
    large[..12].copy_from_slice(&RTP);
    for mut relay in relays() {
        let plan = plan(ip, caller.local_addr().unwrap(), callee.local_addr().unwrap());
        done(&mut relay, MediaCommand::Install(plan)).unwrap();
        caller.send_to(&large, (ip, 20_000)).unwrap();
        let mut payload = vec![0; 70_000];
        assert_eq!(callee.recv(&mut payload).unwrap(), large.len());
    }
}

#[test]
fn who_waits_for_the_state_is_the_next_to_have_it() {
    let relay = Relay::start().unwrap();
    let order = Mutex::new(Vec::new());
    let held = relay.shared.state();
    thread::scope(|scope| {
        scope.spawn(|| {
            let _state = relay.shared.state();
            order.lock().unwrap().push("who waited");
        });
        let patience = Instant::now() + Duration::from_secs(10);
        while relay.shared.turn.try_lock().is_ok() {
            assert!(Instant::now() < patience, "it does not wait for its turn");
            thread::yield_now();
        }
        // As the forwarding thread does during a flood: given back only to be taken again.
        drop(held);
        let _state = relay.shared.state();
        order.lock().unwrap().push("who had it");
    });
    assert_eq!(order.into_inner().unwrap(), ["who waited", "who had it"]);
}

#[test]
fn an_idle_relay_ends_when_it_is_dropped() {
    relays().into_iter().for_each(drop);
}
