//! What the guard's two halves say to each other, and what is configured of them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use crate::config::Prefix;
use crate::flow::Transport;
use crate::id::RealmId;

/// How the common scanners call themselves.
pub const SCANNERS: [&str; 9] = [
    "friendly-scanner",
    "sipvicious",
    "sipcli",
    "sip-scan",
    "sipsak",
    "sundayddr",
    "iwar",
    "vaxsipuseragent",
    "pplsip",
];

/// The numbers that call for help in most of the world.
pub const EMERGENCY_NUMBERS: [&str; 2] = ["112", "911"];

/// How much the guard does. The block and deny lists work at every level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Nothing is counted.
    None,
    /// Sources that are not trusted are counted and held to their limits (R-SEC-2: a new installation's level).
    #[default]
    AutoProtection,
    /// Nobody is served but those on the allow list and the configured peers.
    AllowListOnly,
}

/// So many in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What one window lets through.
    pub count: u32,
    /// Its length.
    pub window: Duration,
}

/// The configuration of the guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardPolicy {
    /// How much it does.
    pub level: Level,
    /// Requests of one source (R-DOS-1, R-DOS-2). Default 500 in 10 s: an office of fifty phones that come back after a
    /// power cut register, are challenged, register again and subscribe, some six requests each, within that time; a
    /// scanner sends as many in a second or two.
    pub requests: Limit,
    /// TCP connections that one source may try to open in the same time. Default 100: the fifty phones above, each
    /// twice.
    pub connections: u32,
    /// TCP segments of one source in the same time. Default 10,000: the requests above in three segments each, as many
    /// acknowledgements, and a hundred TLS handshakes, five times over.
    pub segments: u32,
    /// Datagrams and connection attempts of all sources that are not trusted (R-DDOS-1, R-DDOS-2). Default 5000 in 2 s,
    /// the most that can be set: what is left to the trusted then is most of what one engine parses.
    pub total: Limit,
    /// Fragments and the like of all sources that are not trusted, in the same time. Default 500: SIP that does not fit
    /// a datagram belongs on TCP (RFC 3261 s.18.1.1).
    pub fragments: u32,
    /// Messages that are no SIP, or broken, of one source that is no configured peer, in the time of `requests`. Default
    /// 10: a phone that works sends none, and what the network damages does not pass its checksum.
    pub malformed: u32,
    /// What scanners write into `User-Agent`, in lower case: one message of theirs denies its source. Default: those of
    /// the common ones that do not hide.
    pub scanners: Vec<String>,
    /// Numbers that call for help, beside `urn:service:sos` (RFC 5031). Such an INVITE is not counted. Default 112 and
    /// 911.
    pub emergency_numbers: Vec<String>,
    /// How long a denial lasts (R-DOS-3); `None`: until it is removed. Default one hour.
    pub retention: Option<Duration>,
    /// Most denied sources at once; the oldest gives way, those first that were denied over UDP only.
    pub deny_max: usize,
    /// Sources whose requests are not counted.
    pub allow: Vec<Prefix>,
    /// Most prefixes on the allow list; one more is refused (R-ALLOW-1: 100).
    pub allow_max: usize,
    /// Sources from which nothing is taken.
    pub block: Vec<Prefix>,
    /// Most prefixes on the block list; one more is refused.
    pub block_max: usize,
}

impl Default for GuardPolicy {
    fn default() -> Self {
        Self {
            level: Level::AutoProtection,
            requests: Limit { count: 500, window: Duration::from_secs(10) },
            connections: 100,
            segments: 10_000,
            total: Limit { count: 5000, window: Duration::from_secs(2) },
            fragments: 500,
            malformed: 10,
            scanners: SCANNERS.map(str::to_owned).to_vec(),
            emergency_numbers: EMERGENCY_NUMBERS.map(str::to_owned).to_vec(),
            retention: Some(Duration::from_secs(3600)),
            deny_max: 10_000,
            allow: Vec::new(),
            allow_max: 100,
            block: Vec::new(),
            block_max: 1000,
        }
    }
}

/// Who is counted and denied: an IPv4 address, or the /64 of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(IpAddr);

impl Source {
    /// The source that an address belongs to.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(IpAddr::V4(address)),
            IpAddr::V6(address) => Self(IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64))),
        }
    }

    /// Its address; of IPv6 the first of the /64.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        self.0
    }

    /// Its addresses as a prefix.
    #[must_use]
    pub const fn prefix(self) -> Prefix {
        let len = match self.0 {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 64,
        };
        Prefix { addr: self.0, len }
    }

    /// Whether a prefix has any of its addresses.
    #[must_use]
    pub fn overlaps(self, prefix: &Prefix) -> bool {
        prefix.contains(self.0) || self.prefix().contains(prefix.addr)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(address) => write!(f, "{address}/64"),
        }
    }
}

/// Why a source is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DenyReason {
    /// It sent more than its limit.
    Flood,
    /// What it sent is no SIP, or broken, time and again.
    Malformed,
    /// It is a known scanner.
    Scanner,
}

impl DenyReason {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Flood, Self::Malformed, Self::Scanner];

    /// Its name in tables and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flood => "flood",
            Self::Malformed => "malformed",
            Self::Scanner => "scanner",
        }
    }
}

/// What a denial covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DenyScope {
    /// SIP over UDP: all that a datagram proves, whose source may be forged.
    Udp,
    /// SIP over every transport, open connections included: the source has shown that the address is its own.
    All,
}

impl DenyScope {
    /// Its name in tables and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::All => "all",
        }
    }

    /// Whether it covers a transport.
    #[must_use]
    pub const fn covers(self, transport: Transport) -> bool {
        match self {
            Self::All => true,
            Self::Udp => matches!(transport, Transport::Udp),
        }
    }
}

/// Everything that the dataplane's half works with, in place of what it had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardSetup {
    /// Level and limits.
    pub policy: GuardPolicy,
    /// The SIP sockets that are guarded, and whose realm's they are.
    pub sockets: Vec<(RealmId, Transport, SocketAddr)>,
    /// Configured peers and the allow list, by the realm on which they are trusted: an address of one network proves
    /// nothing on another.
    pub trusted: Vec<(RealmId, Prefix)>,
    /// The block list.
    pub blocked: Vec<Prefix>,
    /// Who is denied already.
    pub denied: Vec<Denial>,
}

/// Take nothing from this source for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Who.
    pub source: Source,
    /// Over which transports.
    pub scope: DenyScope,
    /// Why.
    pub reason: DenyReason,
    /// Since when.
    pub since: SystemTime,
    /// How long from now; `None`: until further notice.
    pub lasts: Option<Duration>,
}

/// A request to the dataplane. Nothing depends on its success: where the kernel has no room, the lists hold in the
/// engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuardCommand {
    /// Begin anew with this.
    Configure(Box<GuardSetup>),
    /// Do not count these sources any more on this realm.
    Trust(RealmId, Prefix),
    /// Count them again.
    Distrust(RealmId, Prefix),
    /// Take nothing from these sources.
    Block(Prefix),
    /// Take from them again.
    Unblock(Prefix),
    /// Take nothing from a source for a time.
    Deny(Denial),
    /// Take from it again.
    Undeny(Source),
}

/// Which limit was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exceeded {
    /// A source's datagrams.
    Datagrams,
    /// A source's attempts to open connections.
    Connections,
    /// A source's TCP segments.
    Segments,
    /// All sources together.
    Total,
    /// All sources' fragments.
    Fragments,
}

/// What the dataplane's half noticed: once in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardEvent {
    /// A limit was exceeded. Where it is that of all sources, this one only happened to come next.
    Exceeded {
        /// Which.
        limit: Exceeded,
        /// Whose packet it was.
        source: Source,
    },
}
