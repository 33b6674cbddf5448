//! Media forwarded by the daemon: for interfaces to which XDP does not attach, and for peers on the same host.
//!
//! One plain UDP socket per port, bound to the realm's address; one thread waits for all of them and forwards. The
//! rules are [`Table`]'s. A command takes effect between two datagrams, never inside one.

mod loss;
mod socket;
mod table;
mod worker;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::Context as _;
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use sbc_common::counter::Counter;
use sbc_common::flow::MediaKind;
use sbc_core::id::{CallId, OpId};
use sbc_core::media::command::{MediaCommand, MediaDone, MediaResult, StreamCounters};
use sbc_core::media::plan::{MediaPlan, Placement};

use super::{Dataplane, DataplaneEvent};
use socket::Sockets;
pub(super) use table::Table;

/// See the module.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    done: VecDeque<DataplaneEvent>,
}

/// What the caller's thread and the forwarding thread share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// In hand of whoever waits for the state: so nobody takes it twice while another waits. Without it the forwarding
    /// thread, which gives the state back only to take it again, would keep it for as long as a flood lasts.
    turn: Mutex<()>,
    epoll: Epoll,
    /// Wakes the forwarding thread, which then ends.
    stop: EventFd,
    /// Readable when there is something to poll.
    news: EventFd,
}

#[derive(Debug)]
struct State {
    table: Table,
    sockets: Sockets,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // A panic inside leaves at worst one datagram uncounted.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Relay {
    /// Starts the forwarding thread.
    ///
    /// # Errors
    /// If the system has no descriptor or thread left.
    pub fn start() -> anyhow::Result<Self> {
        let eventfd =
            || EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).context("eventfd");
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("epoll")?;
        let state = Mutex::new(State { table: Table::new(Placement::Relay), sockets: Sockets::default() });
        let turn = Mutex::new(());
        let shared = Arc::new(Shared { state, turn, epoll, stop: eventfd()?, news: eventfd()? });
        let thread = worker::spawn(Arc::clone(&shared)).context("start the relay's thread")?;
        Ok(Self { shared, thread: Some(thread), done: VecDeque::new() })
    }

    /// How often a datagram had this outcome.
    #[must_use]
    pub fn outcome(&self, counter: Counter) -> u64 {
        self.shared.state().table.outcome(counter)
    }

    /// Every outcome that a datagram had here, with how often, in the order of their numbers.
    #[must_use]
    pub fn outcomes(&self) -> Vec<(Counter, u64)> {
        let state = self.shared.state();
        Counter::ALL.iter().map(|counter| (*counter, state.table.outcome(*counter))).collect()
    }

    fn install(&self, plan: MediaPlan) -> MediaResult {
        let mut state = self.shared.state();
        let State { table, sockets } = &mut *state;
        let change = table.admit(&plan)?;
        sockets.open(&self.shared.epoll, &change.opened)?;
        sockets.close(&self.shared.epoll, &change.closed);
        for side in plan.streams.iter().flat_map(|stream| [&stream.caller, &stream.callee]) {
            sockets.mark([MediaKind::Rtp, MediaKind::Rtcp].map(|kind| table::local(side, kind)), side.dscp);
        }
        let placements = vec![Placement::Relay; plan.streams.len()];
        table.install(plan);
        Ok(MediaDone { placements, counters: Vec::new() })
    }

    fn remove(&self, call: CallId) -> MediaDone {
        let mut state = self.shared.state();
        let (counters, ports) = state.table.remove(call);
        state.sockets.close(&self.shared.epoll, &ports);
        MediaDone { placements: Vec::new(), counters }
    }

    /// Addresses and ports of ours that are bound.
    #[must_use]
    pub fn bound(&self) -> Vec<SocketAddr> {
        self.shared.state().sockets.bound()
    }
}

impl Dataplane for Relay {
    fn apply(&mut self, _now: Instant, op: OpId, command: MediaCommand) {
        let result = match command {
            MediaCommand::Install(plan) => self.install(plan),
            MediaCommand::Remove(call) => Ok(self.remove(call)),
            MediaCommand::Observe(call) => {
                Ok(MediaDone { placements: Vec::new(), counters: self.counters(call) })
            }
            MediaCommand::Prime { .. } => Ok(MediaDone::default()),
        };
        self.done.push_back(DataplaneEvent::Done { op, result });
    }

    fn poll_event(&mut self) -> Option<DataplaneEvent> {
        self.done.pop_front().or_else(|| self.shared.state().table.poll_event().map(DataplaneEvent::Media))
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn handle_timeout(&mut self, _now: Instant) {
        // Not readable any more until there is something new. Nothing to read is no error.
        let _ = self.shared.news.read();
    }

    fn counters(&self, call: CallId) -> Vec<StreamCounters> {
        self.shared.state().table.counters(call)
    }

    fn snapshot(&self) -> Vec<CallId> {
        self.shared.state().table.calls()
    }
}

/// Readable when `handle_timeout` and `poll_event` have something to do.
impl AsFd for Relay {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.news.as_fd()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.shared.stop.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSliceMut;
    use std::net::{IpAddr, UdpSocket};
    use std::os::fd::AsRawFd as _;
    use std::thread;
    use std::time::Duration;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt};
    use sbc_core::id::RealmId;
    use sbc_core::media::command::MediaError;
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

    fn done(relay: &mut Relay, command: MediaCommand) -> MediaResult {
        relay.apply(Instant::now(), OpId(1), command);
        match relay.poll_event() {
            Some(DataplaneEvent::Done { op: OpId(1), result }) => result,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_port_of_another_program_leaves_no_socket_behind() {
        let ip = here(1);
        let peer = SocketAddr::new(ip, 30_000);
        let mut relay = Relay::start().unwrap();
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

    #[test]
    fn an_address_that_is_not_ours_is_named() {
        let elsewhere: IpAddr = "192.0.2.1".parse().unwrap();
        let peer = SocketAddr::new("192.0.2.2".parse().unwrap(), 30_000);
        let mut relay = Relay::start().unwrap();
        let refused = done(&mut relay, MediaCommand::Install(plan(elsewhere, peer, peer)));
        assert_eq!(refused, Err(MediaError::NotOurs(SocketAddr::new(elsewhere, 20_000))));
    }

    #[test]
    fn packets_leave_marked_and_a_claim_is_news() {
        let ip = here(2);
        let (caller, callee) =
            (UdpSocket::bind((ip, 30_000)).unwrap(), UdpSocket::bind((ip, 30_010)).unwrap());
        callee.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        setsockopt(&callee, sockopt::IpRecvTos, &true).unwrap();
        let mut relay = Relay::start().unwrap();
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
        drop(Relay::start().unwrap());
    }
}
