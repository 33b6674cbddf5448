//! Datagrams taken from a socket many at a time, each with the port of ours that it was sent to.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

/// Datagrams that one system call takes.
pub(super) const BATCH: usize = 64;
/// Larger than any UDP payload, so that none is cut. Memory is used as far as it was written to.
const PAYLOAD_BYTES: usize = 64 * 1024;

/// Room for one control message with a socket address.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 64]);

/// Room for a batch, and the batch that is in it.
pub(super) struct Inbox {
    payloads: Vec<u8>,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
    received: Vec<Option<Envelope>>,
}

/// Whose datagram, and to whom.
#[derive(Clone, Copy)]
struct Envelope {
    at: SocketAddr,
    from: SocketAddr,
    length: usize,
}

/// A datagram that arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived<'a> {
    /// The port of ours that it was sent to.
    pub(super) at: SocketAddr,
    /// Its source.
    pub(super) from: SocketAddr,
    pub(super) payload: &'a [u8],
}

impl Inbox {
    pub(super) fn new() -> Self {
        // SAFETY: integers and byte arrays; all zeroes is an address of no family.
        let name: libc::sockaddr_storage = unsafe { mem::zeroed() };
        Self {
            payloads: vec![0; BATCH * PAYLOAD_BYTES],
            names: vec![name; BATCH],
            controls: vec![Control([0; 64]); BATCH],
            received: Vec::with_capacity(BATCH),
        }
    }

    /// Takes what waits at a socket, up to a batch, in place of the batch before. How many there were.
    ///
    /// # Errors
    /// The system's; `WouldBlock` if nothing waits.
    pub(super) fn receive(&mut self, socket: &impl AsFd) -> io::Result<usize> {
        self.received.clear();
        // SAFETY: pointers and integers; all zeroes is a message without room.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
        let mut vectors = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH];
        let room = self.payloads.chunks_exact_mut(PAYLOAD_BYTES);
        let room = room.zip(&mut self.names).zip(&mut self.controls);
        for ((message, vector), ((payload, name), control)) in messages.iter_mut().zip(&mut vectors).zip(room)
        {
            *vector = libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() };
            let header = &mut message.msg_hdr;
            header.msg_name = ptr::from_mut(name).cast();
            header.msg_namelen = mem::size_of_val(name) as libc::socklen_t;
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            header.msg_control = ptr::from_mut(control).cast();
            header.msg_controllen = mem::size_of_val(control) as _;
        }
        let fd = socket.as_fd().as_raw_fd();
        let (most, flags) = (BATCH as libc::c_uint, libc::MSG_DONTWAIT as _);
        // SAFETY: every message points to room of the length that it says, which nothing else uses until this returns.
        let count = unsafe { libc::recvmmsg(fd, messages.as_mut_ptr(), most, flags, ptr::null_mut()) };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        let arrived = messages[..count].iter().zip(&self.names);
        self.received.extend(arrived.map(|(message, name)| {
            let length = (message.msg_len as usize).min(PAYLOAD_BYTES);
            Some(Envelope { at: destination(&message.msg_hdr)?, from: address(name)?, length })
        }));
        Ok(count)
    }

    /// One of the batch, by its position.
    pub(super) fn get(&self, position: usize) -> Option<Arrived<'_>> {
        let Envelope { at, from, length } = (*self.received.get(position)?)?;
        let start = position * PAYLOAD_BYTES;
        Some(Arrived { at, from, payload: self.payloads.get(start..start + length)? })
    }
}

/// The destination of a received message, from its control messages.
fn destination(message: &libc::msghdr) -> Option<SocketAddr> {
    // SAFETY: the kernel filled in the control messages, and said how much room it used; the macros keep to that.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(message);
        while let Some(header) = control.as_ref() {
            let data = libc::CMSG_DATA(control);
            match (header.cmsg_level, header.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_ORIGDSTADDR) => {
                    return Some(v4(&data.cast::<libc::sockaddr_in>().read_unaligned()));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_ORIGDSTADDR) => {
                    return Some(v6(&data.cast::<libc::sockaddr_in6>().read_unaligned()));
                }
                _ => control = libc::CMSG_NXTHDR(message, control),
            }
        }
    }
    None
}

fn address(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(name.ss_family) {
        // SAFETY: the family says which of the layouts it is, and a storage is large and aligned enough for each.
        libc::AF_INET => Some(v4(unsafe { &*ptr::from_ref(name).cast() })),
        // SAFETY: as above.
        libc::AF_INET6 => Some(v6(unsafe { &*ptr::from_ref(name).cast() })),
        _ => None,
    }
}

fn v4(address: &libc::sockaddr_in) -> SocketAddr {
    let ip = Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes());
    SocketAddr::from((ip, u16::from_be(address.sin_port)))
}

/// Without flow label and scope: a plan has neither.
fn v6(address: &libc::sockaddr_in6) -> SocketAddr {
    SocketAddr::from((Ipv6Addr::from(address.sin6_addr.s6_addr), u16::from_be(address.sin6_port)))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use nix::sys::socket::{setsockopt, sockopt};

    use super::*;

    #[test]
    fn a_batch_tells_who_sent_what_to_which_port() {
        let (socket, sender) =
            (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        setsockopt(&socket, sockopt::Ipv4OrigDstAddr, &true).unwrap();
        let (at, from) = (socket.local_addr().unwrap(), sender.local_addr().unwrap());
        let mut inbox = Inbox::new();
        assert_eq!(inbox.receive(&socket).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        for payload in [&b"one"[..], b"", b"three"] {
            sender.send_to(payload, at).unwrap();
        }
        assert_eq!(inbox.receive(&socket).unwrap(), 3);
        let payloads: Vec<&[u8]> = (0..3).map(|position| inbox.get(position).unwrap().payload).collect();
        assert_eq!(payloads, [&b"one"[..], b"", b"three"]);
        let Arrived { at: to, from: source, .. } = inbox.get(1).unwrap();
        assert_eq!((to, source), (at, from));
        assert!(inbox.get(3).is_none());
    }
}
