//! What validation must know of the machine: its addresses, and the files that a configuration names.

use std::io;
use std::net::IpAddr;
use std::path::Path;

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAddress {
    /// The interface.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
    /// Length of its subnet's prefix.
    pub prefix_len: u8,
}

impl HostAddress {
    /// Its subnet.
    #[must_use]
    pub fn subnet(&self) -> Option<ipnet::IpNet> {
        ipnet::IpNet::new(self.address, self.prefix_len).ok().map(|net| net.trunc())
    }
}

/// The machine that a configuration is checked against. Tests have one of their own.
pub trait Host {
    /// Its addresses; `None` when they are not to be compared, because the configuration is for another machine.
    fn addresses(&self) -> Option<Vec<HostAddress>>;

    /// Text of a file that the configuration names.
    ///
    /// # Errors
    /// The system's.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// This machine.
#[derive(Clone, Copy, Debug)]
pub struct ThisHost;

impl Host for ThisHost {
    fn addresses(&self) -> Option<Vec<HostAddress>> {
        let Ok(all) = nix::ifaddrs::getifaddrs() else { return None };
        let mut addresses = Vec::new();
        for entry in all {
            let (Some(address), Some(netmask)) = (entry.address, entry.netmask) else { continue };
            let (address, netmask) = if let (Some(address), Some(mask)) =
                (address.as_sockaddr_in(), netmask.as_sockaddr_in())
            {
                (IpAddr::V4(address.ip()), IpAddr::V4(mask.ip()))
            } else if let (Some(address), Some(mask)) = (address.as_sockaddr_in6(), netmask.as_sockaddr_in6())
            {
                (IpAddr::V6(address.ip()), IpAddr::V6(mask.ip()))
            } else {
                continue;
            };
            let Ok(prefix_len) = ipnet::ip_mask_to_prefix(netmask) else { continue };
            addresses.push(HostAddress { interface: entry.interface_name, address, prefix_len });
        }
        Some(addresses)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }
}

/// A machine that is not this one: addresses are not compared, files are read here.
#[derive(Clone, Copy, Debug)]
pub struct OtherHost;

impl Host for OtherHost {
    fn addresses(&self) -> Option<Vec<HostAddress>> {
        None
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }
}
