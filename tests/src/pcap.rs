//! Captures: tcpdump inside a namespace, and a reader of its files that verifies every checksum.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::netns::Namespace;
use crate::process::{Process, Scratch};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Captures everything on `interface` from now on.
    pub fn start(namespace: &Namespace, interface: &str, scratch: &Scratch) -> Result<Self> {
        let name = format!("capture-{}-{interface}", namespace.name());
        let file = scratch.path().join(format!("{name}.pcap"));
        let mut command = namespace.command("tcpdump");
        // -B: 64 MiB of kernel buffer. -Z root: the file lies in our own directory.
        command
            .args([
                "-i",
                interface,
                "-n",
                "-s",
                "2048",
                "-B",
                "65536",
                "--immediate-mode",
                "-U",
                "-Z",
                "root",
                "-w",
            ])
            .arg(&file);
        let process = Process::spawn(&name, &mut command, scratch)?;
        process.wait_until("capturing", Duration::from_secs(10), |p| p.log().contains("listening on"))?;
        Ok(Self { process, file })
    }

    /// Ends it and reads what was captured; an error if the kernel dropped a frame.
    pub fn finish(self) -> Result<Vec<Packet>> {
        // What the kernel still holds for tcpdump is lost at the signal, so wait until the file rests.
        let mut size = u64::MAX;
        while size != self.size()? {
            size = self.size()?;
            std::thread::sleep(Duration::from_millis(250));
        }
        self.process.stop(Signal::SIGINT, Duration::from_secs(10))?;
        let log = self.process.log();
        let dropped = log.lines().find_map(|line| line.strip_suffix(" packets dropped by kernel"));
        match dropped {
            Some("0") => read(&self.file),
            Some(dropped) => bail!("tcpdump lost {dropped} frames, so counts would be wrong"),
            None => bail!("tcpdump did not say how much it lost:\n{log}"),
        }
    }

    fn size(&self) -> Result<u64> {
        Ok(std::fs::metadata(&self.file)?.len())
    }
}

/// A captured TCP or UDP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// When, in nanoseconds since 1970.
    pub time_ns: u64,
    /// From where.
    pub source: SocketAddr,
    /// To where.
    pub destination: SocketAddr,
    /// TCP segment rather than UDP datagram.
    pub is_tcp: bool,
    /// Behind the UDP or TCP header.
    pub payload: Vec<u8>,
    /// Whether every checksum (IPv4 header, UDP or TCP) is right.
    pub checksums_right: bool,
    /// TTL or hop limit.
    pub ttl: u8,
    /// DSCP, 0 to 63.
    pub dscp: u8,
}

/// Reads a capture file: TCP and UDP over IPv4 and IPv6 over Ethernet; anything else is left out.
pub fn read(path: &Path) -> Result<Vec<Packet>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&bytes).with_context(|| format!("{}", path.display()))
}

fn parse(file: &[u8]) -> Result<Vec<Packet>> {
    let header = file.get(..24).context("no capture file: too short")?;
    let nanoseconds_per_unit = match u32_le(header, 0) {
        0xa1b2_c3d4 => 1000,
        0xa1b2_3c4d => 1,
        magic => bail!("no little-endian capture file: magic {magic:#x}"),
    };
    if u32_le(header, 20) & 0xffff != 1 {
        bail!("not captured on Ethernet");
    }
    let mut packets = Vec::new();
    let mut rest = &file[24..];
    // A record that the end of the file cuts is one that tcpdump had not finished.
    while let Some(record) = rest.get(..16) {
        let time_ns = u64::from(u32_le(record, 0)) * 1_000_000_000
            + u64::from(u32_le(record, 4)) * nanoseconds_per_unit;
        let length = usize::try_from(u32_le(record, 8))?;
        let Some(frame) = rest.get(16..16 + length) else { break };
        packets.extend(packet(time_ns, frame));
        rest = &rest[16 + length..];
    }
    Ok(packets)
}

fn packet(time_ns: u64, frame: &[u8]) -> Option<Packet> {
    let (protocol, source, destination, traffic_class, ttl, segment, header_right) = match u16_be(frame, 12)?
    {
        ETHERTYPE_IPV4 => {
            let packet = frame.get(14..)?;
            let header_length = usize::from(packet.first()? & 0x0f) * 4;
            let total = usize::from(u16_be(packet, 2)?);
            // Only whole packets: a fragment has no ports of its own.
            if u16_be(packet, 6)? & 0x3fff != 0 {
                return None;
            }
            let address =
                |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
            let header = packet.get(..header_length)?;
            let right = fold(sum(header)) == 0xffff;
            let segment = packet.get(header_length..total)?;
            (
                packet[9],
                IpAddr::V4(address(12)?),
                IpAddr::V4(address(16)?),
                packet[1],
                packet[8],
                segment,
                right,
            )
        }
        ETHERTYPE_IPV6 => {
            let packet = frame.get(14..)?;
            let length = usize::from(u16_be(packet, 4)?);
            let address =
                |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
            let class = (packet[0] << 4) | (packet[1] >> 4);
            let segment = packet.get(40..40 + length)?;
            (
                packet[6],
                IpAddr::V6(address(8)?),
                IpAddr::V6(address(24)?),
                class,
                *packet.get(7)?,
                segment,
                true,
            )
        }
        _ => return None,
    };
    let (is_tcp, header_length, sum_is_optional) = match protocol {
        UDP => (false, 8, source.is_ipv4() && u16_be(segment, 6)? == 0),
        TCP => (true, usize::from(segment.get(12)? >> 4) * 4, false),
        _ => return None,
    };
    let right =
        header_right && (sum_is_optional || transport_sum(source, destination, protocol, segment) == 0xffff);
    Some(Packet {
        time_ns,
        source: SocketAddr::new(source, u16_be(segment, 0)?),
        destination: SocketAddr::new(destination, u16_be(segment, 2)?),
        is_tcp,
        payload: segment.get(header_length..)?.to_vec(),
        checksums_right: right,
        ttl,
        dscp: traffic_class >> 2,
    })
}

/// The one's complement sum over pseudo header and segment: 0xffff if the checksum in it is right (RFC 768, 9293, 8200).
fn transport_sum(source: IpAddr, destination: IpAddr, protocol: u8, segment: &[u8]) -> u16 {
    let addresses = match (source, destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => sum(&from.octets()) + sum(&to.octets()),
        (IpAddr::V6(from), IpAddr::V6(to)) => sum(&from.octets()) + sum(&to.octets()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => 0,
    };
    fold(addresses + u64::from(protocol) + segment.len() as u64 + sum(segment))
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0))).sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(0)
}

fn u16_be(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_le(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::{End, connect};
    use std::net::UdpSocket;

    #[test]
    fn a_wrong_checksum_is_seen() {
        // 192.0.2.1:4000 to 192.0.2.2:4002, "hello", checksums worked out by hand below.
        let mut frame = vec![0; 12];
        frame
            .extend([0x08, 0x00, 0x45, 0xb8, 0, 33, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        frame.extend([0x0f, 0xa0, 0x0f, 0xa2, 0, 13, 0, 0]);
        frame.extend(b"hello");
        let header_sum = !fold(sum(&frame[14..34]));
        frame[24..26].copy_from_slice(&header_sum.to_be_bytes());
        let (from, to) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let udp_sum = !transport_sum(from, to, UDP, &frame[34..]);
        frame[40..42].copy_from_slice(&udp_sum.to_be_bytes());
        let right = packet(7, &frame).unwrap();
        assert!(right.checksums_right);
        assert_eq!(
            (right.source.port(), right.destination.port(), right.dscp, right.ttl),
            (4000, 4002, 46, 64)
        );
        assert_eq!(right.payload, b"hello");
        for at in [22, 24, 41, 46] {
            let mut wrong = frame.clone();
            wrong[at] ^= 1;
            assert!(!packet(7, &wrong).unwrap().checksums_right, "byte {at}");
        }
        frame[40..42].copy_from_slice(&[0, 0]);
        assert!(packet(7, &frame).unwrap().checksums_right, "no UDP checksum is allowed over IPv4");
    }

    #[test]
    fn captures_what_passes() {
        if !crate::is_root() {
            return crate::skip("captures_what_passes", "needs root");
        }
        let scratch = Scratch::create("capture").unwrap();
        let (left, right) = (Namespace::create("left").unwrap(), Namespace::create("right").unwrap());
        connect(
            End { namespace: &left, interface: "veth0", addresses: &["192.0.2.1/24"] },
            End { namespace: &right, interface: "veth0", addresses: &["192.0.2.2/24"] },
        )
        .unwrap();
        let capture = Capture::start(&right, "veth0", &scratch).unwrap();
        let receiver = right.enter(|| UdpSocket::bind("192.0.2.2:4000")).unwrap().unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let sender = left.enter(|| UdpSocket::bind("192.0.2.1:4000")).unwrap().unwrap();
        for number in 0..100u8 {
            sender.send_to(&[number; 7], "192.0.2.2:4000").unwrap();
            receiver.recv(&mut [0; 32]).unwrap();
        }
        let packets = capture.finish().unwrap();
        let udp: Vec<_> = packets.iter().filter(|packet| packet.destination.port() == 4000).collect();
        assert_eq!(udp.len(), 100);
        assert!(udp.iter().all(|packet| packet.checksums_right && !packet.is_tcp));
        assert_eq!(udp[99].payload, [99; 7]);
    }
}
