//! Datagrams given to the kernel many at a time, from whichever port of ours: by raw sockets, one for each family.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::ptr;

use socket2::{Domain, Protocol, Socket, Type};

use super::inbox::{BATCH, Inbox};
use super::packet::Headers;
use super::table::Forward;
use crate::dataplane::send_once::{self, Way};

/// What every way of IPv6 carries (RFC 8200 section 5). A larger packet needs somebody who knows the path's MTU.
const IPV6_MINIMUM_MTU: usize = 1280;

/// Raw sockets of one thread.
pub(super) struct RawSockets {
    v4: Socket,
    /// `None` where the host has no IPv6.
    v6: Option<Socket>,
}

/// A datagram of the inbox's batch that is to leave.
pub(super) struct Leaving {
    pub(super) forward: Forward,
    /// Its position in the batch.
    pub(super) position: usize,
}

/// Room for one control message with a source address.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 40]);

impl RawSockets {
    /// # Errors
    /// The system's: raw sockets need `CAP_NET_RAW`.
    pub(super) fn open() -> io::Result<Self> {
        let kind = Type::RAW.nonblocking().cloexec();
        // Of this protocol nothing arrives, and what leaves has its headers already.
        let protocol = Some(Protocol::from(libc::IPPROTO_RAW));
        let v4 = Socket::new(Domain::IPV4, kind, protocol)?;
        v4.set_header_included_v4(true)?;
        let v6 = match Socket::new(Domain::IPV6, kind, protocol) {
            Ok(v6) => {
                v6.set_header_included_v6(true)?;
                Some(v6)
            }
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            Err(error) => return Err(error),
        };
        Ok(Self { v4, v6 })
    }

    /// Sends datagrams of the inbox's batch, each family's in their order; `failed` hears of those that could not be.
    pub(super) fn send(&self, leaving: &[Leaving], inbox: &Inbox, mut failed: impl FnMut(&Forward, &[u8])) {
        let of = |v4: bool| leaving.iter().filter(move |leaving| leaving.forward.way.via.is_ipv4() == v4);
        self.send_family(Some(&self.v4), of(true), inbox, &mut failed);
        self.send_family(self.v6.as_ref(), of(false), inbox, &mut failed);
    }

    fn send_family<'a>(
        &self,
        socket: Option<&Socket>,
        leaving: impl Iterator<Item = &'a Leaving>,
        inbox: &Inbox,
        failed: &mut impl FnMut(&Forward, &[u8]),
    ) {
        let mut batch = Batch::default();
        for Leaving { forward, position } in leaving {
            let Some(payload) = inbox.get(*position).map(|arrived| arrived.payload) else { continue };
            let Way { via, to, dscp } = forward.way;
            match (socket, Headers::new(via, to, dscp, payload)) {
                (Some(_), Some(headers)) if fits_every_way(&headers, payload) => {
                    batch.packets.push(Packet { forward, headers, payload });
                }
                _ if send_once::send(forward.way, payload).is_ok() => {}
                _ => failed(forward, payload),
            }
        }
        if let Some(socket) = socket {
            batch.send(socket, failed);
        }
    }
}

/// Whether a raw socket may send it without knowing the path: IPv4 is fragmented wherever that is needed.
fn fits_every_way(headers: &Headers, payload: &[u8]) -> bool {
    headers.is_ipv4() || headers.as_bytes().len() + payload.len() <= IPV6_MINIMUM_MTU
}

/// Packets of one family.
#[derive(Default)]
struct Batch<'a> {
    packets: Vec<Packet<'a>>,
}

struct Packet<'a> {
    forward: &'a Forward,
    headers: Headers,
    payload: &'a [u8],
}

impl Batch<'_> {
    fn send(&self, socket: &Socket, failed: &mut impl FnMut(&Forward, &[u8])) {
        for packets in self.packets.chunks(BATCH) {
            let mut sent = 0;
            while let Some(rest) = packets.get(sent..).filter(|rest| !rest.is_empty()) {
                match send_many(socket, rest) {
                    Ok(count) => sent += count.max(1),
                    Err(error) => {
                        // It is about the first of them.
                        let Packet { forward, payload, .. } = &rest[0];
                        let too_large = error.raw_os_error() == Some(libc::EMSGSIZE);
                        if !(too_large && send_once::send(forward.way, payload).is_ok()) {
                            failed(forward, payload);
                        }
                        sent += 1;
                    }
                }
            }
        }
    }
}

/// Sends as many as the kernel takes at once, from the first on, at most [`BATCH`].
fn send_many(socket: &Socket, packets: &[Packet<'_>]) -> io::Result<usize> {
    // SAFETY: pointers and integers; all zeroes is a message of nothing.
    let mut messages: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
    let mut vectors = [[libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; 2]; BATCH];
    let mut names = [const { Name::NONE }; BATCH];
    let mut controls = [Control([0; 40]); BATCH];
    let room = vectors.iter_mut().zip(&mut names).zip(&mut controls);
    let count = packets.len().min(BATCH);
    for ((message, packet), ((vectors, name), control)) in messages.iter_mut().zip(packets).zip(room) {
        *vectors = [packet.headers.as_bytes(), packet.payload]
            .map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
        *name = Name::of(packet.forward.way.to);
        let header = &mut message.msg_hdr;
        (header.msg_name, header.msg_namelen) = name.raw();
        header.msg_iov = vectors.as_mut_ptr();
        header.msg_iovlen = 2;
        header.msg_control = ptr::from_mut(control).cast();
        header.msg_controllen = mem::size_of_val(control) as _;
        header.msg_controllen = write_source(header, packet.forward.way.via) as _;
    }
    let (count, flags) = (count as libc::c_uint, libc::MSG_DONTWAIT as _);
    // SAFETY: every message points to bytes of the length that it says, which live until this returns; the kernel writes
    // to none of them.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count, flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Tells the kernel the source address: routes may depend on it, and it reads no header for that. The bytes used.
fn write_source(header: &libc::msghdr, via: SocketAddr) -> usize {
    fn write<T>(header: &libc::msghdr, level: libc::c_int, kind: libc::c_int, value: T) -> usize {
        let bytes = size_of::<T>() as libc::c_uint;
        // SAFETY: the caller gave the header's control room for any of the two values.
        unsafe {
            let Some(control) = libc::CMSG_FIRSTHDR(header).as_mut() else { return 0 };
            control.cmsg_level = level;
            control.cmsg_type = kind;
            control.cmsg_len = libc::CMSG_LEN(bytes) as _;
            libc::CMSG_DATA(control).cast::<T>().write_unaligned(value);
            libc::CMSG_SPACE(bytes) as usize
        }
    }
    match via {
        SocketAddr::V4(via) => {
            let source = libc::in_addr { s_addr: u32::from_ne_bytes(via.ip().octets()) };
            let any = libc::in_addr { s_addr: 0 };
            let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: any };
            write(header, libc::IPPROTO_IP, libc::IP_PKTINFO, info)
        }
        SocketAddr::V6(via) => {
            let source = libc::in6_addr { s6_addr: via.ip().octets() };
            let info = libc::in6_pktinfo { ipi6_addr: source, ipi6_ifindex: 0 };
            write(header, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
        }
    }
}

/// Where a packet goes, as the kernel wants it: without a port, which a raw socket does not know.
enum Name {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

impl Name {
    const NONE: Self = Self::V4(libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: 0 },
        sin_zero: [0; 8],
    });

    fn of(to: SocketAddr) -> Self {
        match to {
            SocketAddr::V4(to) => Self::V4(libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: 0,
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(to.ip().octets()) },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(to) => Self::V6(libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: 0,
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: to.ip().octets() },
                sin6_scope_id: to.scope_id(),
            }),
        }
    }

    fn raw(&mut self) -> (*mut libc::c_void, libc::socklen_t) {
        match self {
            Self::V4(name) => (ptr::from_mut(name).cast(), mem::size_of_val(name) as libc::socklen_t),
            Self::V6(name) => (ptr::from_mut(name).cast(), mem::size_of_val(name) as libc::socklen_t),
        }
    }
}
