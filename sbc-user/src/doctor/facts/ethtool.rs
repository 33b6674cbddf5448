//! What `ethtool` shows, asked as `ethtool` asks: the ioctl SIOCETHTOOL. Only questions; it follows the network
//! namespace of the calling thread, which sysfs does not.

use std::collections::BTreeSet;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};

use super::{Hash, Queues};

// linux/ethtool.h.
const GDRVINFO: u32 = 0x03;
const GSTRINGS: u32 = 0x1b;
const GRXFH: u32 = 0x29;
const GSSET_INFO: u32 = 0x37;
const GFEATURES: u32 = 0x3a;
const GCHANNELS: u32 = 0x3c;
const SS_FEATURES: u32 = 4;
const UDP_V4_FLOW: u32 = 0x02;
const UDP_V6_FLOW: u32 = 0x06;
const RXH_ADDRESSES: u64 = 1 << 4 | 1 << 5;
const RXH_PORTS: u64 = 1 << 6 | 1 << 7;
/// Bytes of a string in a set.
const STRING: usize = 32;
/// More offloads than any kernel has; bounds what is allocated on its word.
const MAX_OFFLOADS: usize = 1024;
/// `struct ethtool_rxnfc` has 192 bytes; the kernel writes no more.
const RXNFC_WORDS: usize = 256 / 8;

/// A socket that carries the questions, about one interface.
pub(super) struct Ethtool {
    socket: OwnedFd,
    name: [libc::c_char; libc::IFNAMSIZ],
}

impl Ethtool {
    pub(super) fn open(interface: &str) -> io::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0").or_else(|_| UdpSocket::bind("[::]:0"))?.into();
        let mut name = [0; libc::IFNAMSIZ];
        if interface.len() >= name.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (to, from) in name.iter_mut().zip(interface.bytes()) {
            *to = from as libc::c_char;
        }
        Ok(Self { socket, name })
    }

    /// The driver's name.
    pub(super) fn driver(&self) -> io::Result<String> {
        // Command, then the driver's name in 32 bytes; 196 bytes in all.
        let mut info = vec![0_u64; 196_usize.div_ceil(8)];
        self.ask(GDRVINFO, &mut info)?;
        Ok(text(&bytes(&info)[4..4 + 32]))
    }

    /// The offloads that are on.
    pub(super) fn offloads(&self) -> io::Result<BTreeSet<String>> {
        // struct ethtool_sset_info: command, reserved, mask (u64), then a u32 for each set asked for.
        let mut info = vec![0_u64; 3];
        info[1] = 1 << SS_FEATURES;
        self.ask(GSSET_INFO, &mut info)?;
        let count = word(&info, 4) as usize;
        if count > MAX_OFFLOADS {
            return Err(io::ErrorKind::InvalidData.into());
        }

        // struct ethtool_gstrings: command, set, length, strings.
        let mut names = vec![0_u64; (12 + count * STRING).div_ceil(8)];
        set_word(&mut names, 1, SS_FEATURES);
        set_word(&mut names, 2, count as u32);
        self.ask(GSTRINGS, &mut names)?;

        // struct ethtool_gfeatures: command, blocks, and for 32 offloads each: available, requested, active, fixed.
        let blocks = count.div_ceil(32);
        let mut features = vec![0_u64; (8 + blocks * 16).div_ceil(8)];
        set_word(&mut features, 1, blocks as u32);
        self.ask(GFEATURES, &mut features)?;
        let active = |at: usize| word(&features, 2 + at / 32 * 4 + 2) >> (at % 32) & 1 == 1;
        let names = bytes(&names);
        Ok((0..count)
            .filter(|at| active(*at))
            .map(|at| text(&names[12 + at * STRING..12 + (at + 1) * STRING]))
            .collect())
    }

    /// The receive queues.
    pub(super) fn queues(&self) -> io::Result<Queues> {
        // struct ethtool_channels: command, most of rx, tx, other, combined, then how many of each.
        let mut channels = vec![0_u64; 5];
        self.ask(GCHANNELS, &mut channels)?;
        let [most_rx, most_combined] = [1, 4].map(|at| word(&channels, at));
        let [rx, combined] = [5, 8].map(|at| word(&channels, at));
        Ok(Queues { now: rx + combined, most: most_rx.max(most_combined), combined: most_combined > 0 })
    }

    /// What UDP is spread by, over IPv4 or IPv6.
    pub(super) fn udp_hash(&self, ipv6: bool) -> io::Result<Hash> {
        // struct ethtool_rxnfc: command, type of flow, bits.
        let mut rxnfc = vec![0_u64; RXNFC_WORDS];
        set_word(&mut rxnfc, 1, if ipv6 { UDP_V6_FLOW } else { UDP_V4_FLOW });
        self.ask(GRXFH, &mut rxnfc)?;
        let bits = rxnfc[1];
        Ok(Hash { addresses: bits & RXH_ADDRESSES == RXH_ADDRESSES, ports: bits & RXH_PORTS == RXH_PORTS })
    }

    /// One question; `about` begins with room for the command and takes the answer.
    fn ask(&self, command: u32, about: &mut [u64]) -> io::Result<()> {
        set_word(about, 0, command);
        let mut request = libc::ifreq {
            ifr_name: self.name,
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: about.as_mut_ptr().cast() },
        };
        // SAFETY: the request is a valid `ifreq` whose data points to a buffer that is as large as the command's
        // structure with as many elements as the kernel has of it, aligned for it, and outlives the call.
        let done = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// The `at`th 32-bit word.
fn word(words: &[u64], at: usize) -> u32 {
    let half = words[at / 2].to_ne_bytes();
    let from = at % 2 * 4;
    u32::from_ne_bytes([half[from], half[from + 1], half[from + 2], half[from + 3]])
}

fn set_word(words: &mut [u64], at: usize, value: u32) {
    let mut half = words[at / 2].to_ne_bytes();
    half[at % 2 * 4..][..4].copy_from_slice(&value.to_ne_bytes());
    words[at / 2] = u64::from_ne_bytes(half);
}

/// Text up to its terminating zero.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lie_as_the_kernel_has_them() {
        let mut words = [0_u64; 2];
        set_word(&mut words, 1, 0x0102_0304);
        set_word(&mut words, 2, 7);
        assert_eq!(bytes(&words)[4..8], 0x0102_0304_u32.to_ne_bytes());
        assert_eq!((word(&words, 0), word(&words, 1), word(&words, 2)), (0, 0x0102_0304, 7));
    }

    #[test]
    fn the_loopback_has_offloads_and_an_unknown_interface_has_not() {
        let offloads = Ethtool::open("lo").unwrap().offloads().unwrap();
        assert!(offloads.contains("loopback"), "{offloads:?}");
        assert!(Ethtool::open("no-such-one").unwrap().offloads().is_err());
        assert!(Ethtool::open("a-name-that-is-too-long").is_err());
    }
}
