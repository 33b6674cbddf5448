//! The values that a configuration is made of, read from their text: addresses, prefixes, ports, next hops, names.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use sbc_core::config::{MediaSourceRule, Prefix, RtcpMux};
use sbc_core::flow::Transport;
use sbc_core::guard::Level;

use super::table::Refusal;

pub(super) const ADDRESS: &str = "an IPv4 or IPv6 address, for example \"192.0.2.10\"";
pub(super) const PREFIX: &str = "an address or a prefix, for example \"192.0.2.7\" or \"192.0.2.0/24\"";
pub(super) const NEXT_HOP: &str = "[udp:|tcp:|tls:]address[:port], for example \"192.0.2.7\", \"10.0.0.20:5060\" or \"tls:[2001:db8::7]:5061\"";
pub(super) const PORT_RANGE: &str = "\"first-last\" inside 1024-65535 with at least 4 ports (a call takes an even \
     RTP port and the next RTCP port on each side), for example \"20000-27999\"";
pub(super) const NAME: &str = "1 to 32 of a-z, A-Z, 0-9, '-', '_', beginning with a letter or digit";
pub(super) const MEDIA_SOURCE: &str = "\"signalled\" (exactly the address and port of the peer's SDP); or learned from \
     the first valid packet: \"address\" (from the address of its signalling), \"subnet\" (from that address's /24, \
     IPv6 /64), \"sdp-subnet\" (from the subnet of the address in its SDP), \"any\" (from anywhere)";
pub(super) const RTCP_MUX: &str = "\"off\", \"accept\" (where the peer offers it) or \"offer\"";
pub(super) const SCANNER: &str = "4 to 64 characters of a User-Agent";
pub(super) const NUMBER: &str = "digits, `*` and `#`";
pub(super) const LEVEL: &str = "\"none\", \"auto-protection\" or \"allow-list-only\"";
pub(super) const RETENTION: &str =
    "\"30 s\", \"5 min\", \"30 min\", \"1 h\", \"1 day\", \"1 week\" or \"infinite\"";
pub(super) const PATH: &str = "a path; a relative one begins at the directory of this file";

fn refuse<T>(message: impl Into<String>, allowed: &str) -> Result<T, Refusal> {
    Err(Refusal { message: message.into(), allowed: allowed.to_owned() })
}

/// An address that one host can have: R-UI-1, R-UI-2.
pub(super) fn address(text: &str) -> Result<IpAddr, Refusal> {
    let Ok(address) = text.parse::<IpAddr>() else {
        return refuse(format!("syntax error: \"{text}\" is not an address"), ADDRESS);
    };
    match forbidden(address) {
        Some(why) => refuse(format!("{address} is forbidden here: {why}"), ADDRESS),
        None => Ok(address),
    }
}

fn forbidden(address: IpAddr) -> Option<&'static str> {
    if address.is_unspecified() {
        Some("it stands for any address, and peers are told exactly one")
    } else if address == IpAddr::from([255, 255, 255, 255]) {
        Some("it is the broadcast address")
    } else if address.is_multicast() {
        Some("it is a multicast address")
    } else {
        None
    }
}

/// A source prefix.
pub(super) fn prefix(text: &str) -> Result<Prefix, Refusal> {
    if !text.contains('/') {
        let addr = match address(text) {
            Ok(addr) => addr,
            Err(refusal) => return refuse(refusal.message, PREFIX),
        };
        return Ok(host_prefix(addr));
    }
    let Ok(net) = text.parse::<ipnet::IpNet>() else {
        return refuse(format!("syntax error: \"{text}\" is not a prefix"), PREFIX);
    };
    if net.prefix_len() == 0 {
        return refuse(format!("{net} would admit everybody"), PREFIX);
    }
    if net.addr() != net.network() {
        let allowed = format!("\"{}\" for the network, \"{}\" for the one address", net.trunc(), net.addr());
        return refuse(format!("{net} has bits below its prefix length"), &allowed);
    }
    if let Some(why) = forbidden(net.addr()) {
        return refuse(format!("{net} is forbidden here: {why}"), PREFIX);
    }
    Ok(Prefix { addr: net.addr(), len: net.prefix_len() })
}

/// The prefix of one address alone.
pub(super) fn host_prefix(addr: IpAddr) -> Prefix {
    Prefix { addr, len: if addr.is_ipv4() { 32 } else { 128 } }
}

/// A next hop as written: transport and port may be left to defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NextHopText {
    pub(super) transport: Option<Transport>,
    pub(super) address: IpAddr,
    pub(super) port: Option<u16>,
}

/// `[udp:|tcp:|tls:]address[:port]`.
pub(super) fn next_hop(text: &str) -> Result<NextHopText, Refusal> {
    let (transport, rest) = if let Some(rest) = text.strip_prefix("udp:") {
        (Some(Transport::Udp), rest)
    } else if let Some(rest) = text.strip_prefix("tcp:") {
        (Some(Transport::Tcp), rest)
    } else if let Some(rest) = text.strip_prefix("tls:") {
        (Some(Transport::Tls), rest)
    } else {
        (None, text)
    };
    let (host, port) = if let Ok(socket) = rest.parse::<SocketAddr>() {
        if socket.port() == 0 {
            return refuse("out of bounds: port 0", "a port from 1 to 65535");
        }
        (socket.ip(), Some(socket.port()))
    } else if let Ok(host) = rest.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        (host, None)
    } else if rest.bytes().any(|byte| byte.is_ascii_alphabetic()) && !rest.contains("::") {
        return refuse(format!("\"{rest}\" is not an address; host names are not looked up"), NEXT_HOP);
    } else {
        return refuse(format!("syntax error: \"{text}\" is not a next hop"), NEXT_HOP);
    };
    match forbidden(host) {
        Some(why) => refuse(format!("{host} is forbidden here: {why}"), NEXT_HOP),
        None => Ok(NextHopText { transport, address: host, port }),
    }
}

/// `first-last`, inclusive, wide enough for a call: R-RTP-2, R-UI-3.
pub(super) fn port_range(text: &str) -> Result<RangeInclusive<u16>, Refusal> {
    let Some((first, last)) = text.split_once('-') else {
        return refuse(format!("syntax error: \"{text}\" is not a port range"), PORT_RANGE);
    };
    let (Ok(first), Ok(last)) = (first.trim().parse::<u32>(), last.trim().parse::<u32>()) else {
        return refuse(format!("syntax error: \"{text}\" is not a port range"), PORT_RANGE);
    };
    let (Ok(first_port), Ok(last_port)) = (u16::try_from(first), u16::try_from(last)) else {
        return refuse(format!("out of bounds: {first}-{last}"), PORT_RANGE);
    };
    if first_port < 1024 || last_port < first_port {
        return refuse(format!("out of bounds: {first}-{last}"), PORT_RANGE);
    }
    if pairs(&(first_port..=last_port)) < 2 {
        return refuse(format!("out of bounds: {first}-{last} cannot hold a call"), PORT_RANGE);
    }
    Ok(first_port..=last_port)
}

/// How many pairs of an even port and the next one lie inside `ports`.
pub(super) fn pairs(ports: &RangeInclusive<u16>) -> usize {
    let first_even = u32::from(*ports.start()).next_multiple_of(2);
    let end = u32::from(*ports.end()) + 1;
    (end.saturating_sub(first_even) / 2) as usize
}

/// A name of an instance, realm or trunk.
pub(super) fn name(text: &str) -> Result<String, Refusal> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let begins_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if text.len() > 32 || !begins_well || !text.bytes().all(plain) {
        return refuse(format!("\"{text}\" is not a name"), NAME);
    }
    Ok(text.to_owned())
}

/// A rule for media sources.
pub(super) fn media_source(text: &str) -> Result<MediaSourceRule, Refusal> {
    match text {
        "signalled" => Ok(MediaSourceRule::Signalled),
        "address" => Ok(MediaSourceRule::Address),
        "subnet" => Ok(MediaSourceRule::Subnet),
        "sdp-subnet" => Ok(MediaSourceRule::SdpSubnet),
        "any" => Ok(MediaSourceRule::Any),
        _ => refuse(format!("\"{text}\" is not a rule"), MEDIA_SOURCE),
    }
}

/// Whether RTP and RTCP may share a port.
pub(super) fn rtcp_mux(text: &str) -> Result<RtcpMux, Refusal> {
    match text {
        "off" => Ok(RtcpMux::Off),
        "accept" => Ok(RtcpMux::Accept),
        "offer" => Ok(RtcpMux::Offer),
        _ => refuse(format!("\"{text}\" is not a rule"), RTCP_MUX),
    }
}

/// Level of the guard.
pub(super) fn level(text: &str) -> Result<Level, Refusal> {
    match text {
        "none" => Ok(Level::None),
        "auto-protection" => Ok(Level::AutoProtection),
        "allow-list-only" => Ok(Level::AllowListOnly),
        _ => refuse(format!("\"{text}\" is no level"), LEVEL),
    }
}

/// How long a denial lasts; `None`: until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Retention(pub(super) Option<Duration>);

/// How long a denial lasts (R-DOS-3).
pub(super) fn retention(text: &str) -> Result<Retention, Refusal> {
    let seconds = match text {
        "30 s" => 30,
        "5 min" => 300,
        "30 min" => 1800,
        "1 h" => 3600,
        "1 day" => 86_400,
        "1 week" => 604_800,
        "infinite" => return Ok(Retention(None)),
        _ => return refuse(format!("\"{text}\" is none of the times"), RETENTION),
    };
    Ok(Retention(Some(Duration::from_secs(seconds))))
}

/// What a scanner calls itself; compared without regard to case.
pub(super) fn scanner(text: &str) -> Result<String, Refusal> {
    // A shorter one would be found in what honest devices call themselves.
    if !(4..=64).contains(&text.len()) {
        return refuse(format!("\"{text}\" is too short or too long"), SCANNER);
    }
    Ok(text.to_ascii_lowercase())
}

/// A number as it is dialled.
pub(super) fn number(text: &str) -> Result<String, Refusal> {
    let dialled = |byte: u8| byte.is_ascii_digit() || byte == b'*' || byte == b'#';
    if text.is_empty() || text.len() > 32 || !text.bytes().all(dialled) {
        return refuse(format!("\"{text}\" is no number"), NUMBER);
    }
    Ok(text.to_owned())
}

/// A path.
pub(super) fn path(text: &str) -> Result<PathBuf, Refusal> {
    if text.is_empty() {
        return refuse("an empty path", PATH);
    }
    Ok(PathBuf::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_no_peer_can_be_told_are_refused() {
        for text in ["0.0.0.0", "255.255.255.255", "::", "224.0.0.1", "ff02::1"] {
            assert!(address(text).is_err_and(|refusal| refusal.message.contains("forbidden")), "{text}");
        }
        for text in ["", "192.0.2", "192.0.2.256", "localhost", "192.0.2.1 "] {
            assert!(address(text).is_err_and(|refusal| refusal.message.contains("syntax error")), "{text}");
        }
        assert!(address("192.0.2.1").is_ok() && address("2001:db8::1").is_ok());
    }

    #[test]
    fn a_next_hop_may_leave_transport_and_port_open() {
        let parsed = |text| next_hop(text).ok().map(|hop| (hop.transport, hop.address.to_string(), hop.port));
        assert_eq!(parsed("10.0.0.20"), Some((None, "10.0.0.20".into(), None)));
        assert_eq!(parsed("10.0.0.20:5070"), Some((None, "10.0.0.20".into(), Some(5070))));
        assert_eq!(
            parsed("tls:[2001:db8::7]:5061"),
            Some((Some(Transport::Tls), "2001:db8::7".into(), Some(5061)))
        );
        assert_eq!(parsed("tcp:2001:db8::7"), Some((Some(Transport::Tcp), "2001:db8::7".into(), None)));
        assert_eq!(parsed("udp:pbx.example"), None);
        assert_eq!(parsed("10.0.0.20:0"), None);
        assert_eq!(parsed("udp:0.0.0.0:5060"), None);
    }

    #[test]
    fn a_port_range_must_hold_a_call() {
        assert_eq!(port_range("20000-27999").ok(), Some(20000..=27999));
        assert_eq!(port_range("20000-20003").ok(), Some(20000..=20003));
        assert_eq!(port_range("64000-65535").ok(), Some(64000..=65535));
        for text in ["20001-20004", "20000-20002", "27999-20000", "1000-2000", "20000-70000", "20000", "a-b"]
        {
            assert!(port_range(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_prefix_names_a_network_exactly() {
        assert_eq!(prefix("192.0.2.7").ok().map(|net| net.len), Some(32));
        assert_eq!(prefix("2001:db8::/32").ok().map(|net| net.len), Some(32));
        assert!(prefix("192.0.2.7/24").is_err_and(|refusal| refusal.allowed.contains("192.0.2.0/24")));
        assert!(prefix("0.0.0.0/0").is_err());
        assert!(prefix("192.0.2.0/33").is_err());
    }
}
