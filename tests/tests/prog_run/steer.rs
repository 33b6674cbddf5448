//! The steering program: loaded, attached, and asked about real datagrams, since there is no test run for its type in
//! every kernel that it must work with.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use aya::EbpfLoader;
use aya::maps::{HashMap, SockMap};
use aya::programs::SkLookup;
use sbc_common::names;
use sbc_common::steer::SteeredPort;

#[test]
fn datagrams_of_steered_ports_arrive_at_the_socket() {
    const TEST: &str = "datagrams_of_steered_ports_arrive_at_the_socket";
    let Some(path) = std::env::var_os("SBC_EBPF_OBJECT").filter(|path| !path.is_empty()) else {
        return sbc_tests::skip(TEST, "no kernel object: SBC_EBPF_OBJECT names none");
    };
    if !sbc_tests::is_root() {
        return sbc_tests::skip(TEST, "needs root");
    }
    let object = std::fs::read(PathBuf::from(path).with_file_name("steer.o")).unwrap();
    let mut ebpf = EbpfLoader::new().load(&object).unwrap();
    let program: &mut SkLookup = ebpf.program_mut(names::STEER).unwrap().try_into().unwrap();
    program.load().unwrap();
    program.attach(File::open("/proc/thread-self/ns/net").unwrap()).unwrap();
    let mut ports: HashMap<_, SteeredPort, u32> =
        HashMap::try_from(ebpf.take_map(names::STEERED).unwrap()).unwrap();
    let mut sockets = SockMap::try_from(ebpf.take_map(names::RELAY_SOCKETS).unwrap()).unwrap();

    for (index, ip) in [(2, IpAddr::V4(Ipv4Addr::LOCALHOST)), (5, IpAddr::V6(Ipv6Addr::LOCALHOST))] {
        let Ok(receiver) = UdpSocket::bind((ip, 0)) else {
            println!("no {ip} here");
            continue;
        };
        receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        sockets.set(index, &receiver, 0).unwrap();
        let (owner, sender) = (UdpSocket::bind((ip, 0)).unwrap(), UdpSocket::bind((ip, 0)).unwrap());
        owner.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let at = owner.local_addr().unwrap();
        let key = match at {
            SocketAddr::V4(at) => SteeredPort::v4(at.ip().octets(), at.port()),
            SocketAddr::V6(at) => SteeredPort::v6(at.ip().octets(), at.port()),
        };
        let mut payload = [0; 16];
        let mut arrives = |socket: &UdpSocket, text: &[u8]| {
            sender.send_to(text, at).unwrap();
            let length = socket.recv(&mut payload).unwrap();
            assert_eq!(&payload[..length], text);
        };
        arrives(&owner, b"before");
        ports.insert(key, index, 0).unwrap();
        arrives(&receiver, b"steered");
        // An index without a socket: as if it were not steered.
        ports.insert(key, 9, 0).unwrap();
        arrives(&owner, b"no socket");
        ports.remove(&key).unwrap();
        arrives(&owner, b"after");
    }
}
