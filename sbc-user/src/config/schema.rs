//! The keys of the file: their names, types and where each may stand. What they mean together is `validate`'s.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use sbc_core::config::{MediaSourceRule, Prefix, RtcpMux};
use sbc_core::flow::Transport;
use sbc_core::guard::Level;

use super::diagnostic::Problems;
use super::table::{At, Refusal, TableReader, parse};
use super::values::{self, NextHopText, Retention};

/// A file as written.
#[derive(Debug)]
pub(super) struct File {
    pub(super) instance: Option<At<String>>,
    pub(super) node: Option<At<u32>>,
    pub(super) daemon: DaemonSection,
    pub(super) limits: LimitsSection,
    pub(super) guard: GuardSection,
    pub(super) realms: Vec<RealmSection>,
    pub(super) trunks: Vec<TrunkSection>,
    pub(super) routes: Vec<RouteSection>,
}

/// `[daemon]`.
#[derive(Debug, Default)]
pub(super) struct DaemonSection {
    pub(super) socket: Option<At<PathBuf>>,
    pub(super) state_dir: Option<At<PathBuf>>,
    pub(super) record: Option<At<PathBuf>>,
    pub(super) stop_grace_seconds: Option<At<u32>>,
    pub(super) xdp: Option<At<bool>>,
}

/// `[limits]`.
#[derive(Debug, Default)]
pub(super) struct LimitsSection {
    pub(super) max_calls: Option<At<u32>>,
    pub(super) max_connections: Option<At<u32>>,
    pub(super) max_connections_per_source: Option<At<u32>>,
    pub(super) media_timeout_seconds: Option<At<u32>>,
    pub(super) media_hold_timeout_seconds: Option<At<u32>>,
}

/// `[guard]`.
#[derive(Debug, Default)]
pub(super) struct GuardSection {
    pub(super) level: Option<At<Level>>,
    pub(super) dos_threshold: Option<At<u32>>,
    pub(super) dos_window_seconds: Option<At<u32>>,
    pub(super) connections: Option<At<u32>>,
    pub(super) segments: Option<At<u32>>,
    pub(super) ddos_threshold: Option<At<u32>>,
    pub(super) ddos_window_seconds: Option<At<u32>>,
    pub(super) fragments: Option<At<u32>>,
    pub(super) malformed: Option<At<u32>>,
    pub(super) scanners: Option<Vec<At<String>>>,
    pub(super) emergency_numbers: Option<Vec<At<String>>>,
    pub(super) retention: Option<At<Retention>>,
    pub(super) deny_max: Option<At<u32>>,
    pub(super) allow: Vec<At<Prefix>>,
    pub(super) allow_max: Option<At<u32>>,
    pub(super) block: Vec<At<Prefix>>,
    pub(super) block_max: Option<At<u32>>,
}

/// `[public]`, `[private]` or one `[[realm]]`.
#[derive(Debug)]
pub(super) struct RealmSection {
    pub(super) here: At<()>,
    pub(super) name: Option<At<String>>,
    pub(super) preset: Option<Preset>,
    pub(super) bind: Option<At<IpAddr>>,
    pub(super) advertised: Option<At<IpAddr>>,
    pub(super) may_appear_later: bool,
    pub(super) hide_topology: bool,
    pub(super) dscp_signalling: Option<At<u32>>,
    pub(super) udp: Option<At<u16>>,
    pub(super) tcp: Option<At<u16>>,
    pub(super) tls: Option<At<u16>>,
    pub(super) advertised_udp: Option<At<u16>>,
    pub(super) advertised_tcp: Option<At<u16>>,
    pub(super) advertised_tls: Option<At<u16>>,
    pub(super) certificate: Option<At<PathBuf>>,
    pub(super) key: Option<At<PathBuf>>,
    pub(super) tls_ca: Option<At<PathBuf>>,
    pub(super) media: MediaSection,
    /// For every trunk of the realm that does not say otherwise.
    pub(super) rules: RulesSection,
    /// The preset's own trunk; a `[[realm]]` has none.
    pub(super) peer: PeerSection,
}

/// Which of the two tables of the preset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preset {
    Public,
    Private,
}

/// `media` of a realm.
#[derive(Debug, Default)]
pub(super) struct MediaSection {
    pub(super) bind: Option<At<IpAddr>>,
    pub(super) advertised: Option<At<IpAddr>>,
    pub(super) ports: Option<At<RangeInclusive<u16>>>,
    pub(super) dscp_audio: Option<At<u32>>,
    pub(super) dscp_video: Option<At<u32>>,
    pub(super) rate_factor: Option<At<u32>>,
    pub(super) quarantine_seconds: Option<At<u32>>,
}

/// Who is at the other end: in a preset table, or in a `[[trunk]]`.
#[derive(Debug, Default)]
pub(super) struct PeerSection {
    pub(super) sources: Option<Vec<At<Prefix>>>,
    pub(super) next_hop: Option<At<NextHopText>>,
    pub(super) tls_name: Option<At<String>>,
    pub(super) tls_verify: Option<At<bool>>,
}

/// How media is exchanged with trunks: in a realm, and in a `[[trunk]]`, which goes before its realm.
#[derive(Debug, Default)]
pub(super) struct RulesSection {
    pub(super) media_source: Option<At<MediaSourceRule>>,
    pub(super) latch_seconds: Option<At<u32>>,
    pub(super) relatch_seconds: Option<At<u32>>,
    pub(super) rtcp_mux: Option<At<RtcpMux>>,
    pub(super) prime_seconds: Option<At<u32>>,
}

/// `[[trunk]]`.
#[derive(Debug)]
pub(super) struct TrunkSection {
    pub(super) here: At<()>,
    pub(super) name: Option<At<String>>,
    pub(super) realm: Option<At<String>>,
    pub(super) rules: RulesSection,
    pub(super) peer: PeerSection,
}

/// `[[route]]`.
#[derive(Debug)]
pub(super) struct RouteSection {
    pub(super) here: At<()>,
    pub(super) from: Option<At<String>>,
    pub(super) to: Option<At<String>>,
}

impl File {
    /// Reads what can be read; everything else becomes a problem.
    pub(super) fn read(source: &str, problems: &Problems) -> Self {
        let table = parse(source, problems);
        let mut root = TableReader::root(table.get_ref(), problems);
        let mut realms = Vec::new();
        for (key, preset) in [("public", Preset::Public), ("private", Preset::Private)] {
            if let Some(reader) = root.table(key) {
                realms.push(RealmSection::read(reader, Some(preset), problems));
            }
        }
        for reader in root.tables("realm") {
            realms.push(RealmSection::read(reader, None, problems));
        }
        let file = Self {
            instance: root.parsed("instance", values::NAME, values::name),
            node: root.integer("node", 0..=u32::from(u16::MAX)),
            daemon: root.table("daemon").map(DaemonSection::read).unwrap_or_default(),
            limits: root.table("limits").map(LimitsSection::read).unwrap_or_default(),
            guard: root.table("guard").map(GuardSection::read).unwrap_or_default(),
            realms,
            trunks: root
                .tables("trunk")
                .into_iter()
                .map(|reader| TrunkSection::read(reader, problems))
                .collect(),
            routes: root
                .tables("route")
                .into_iter()
                .map(|reader| RouteSection::read(reader, problems))
                .collect(),
        };
        root.finish();
        file
    }
}

impl DaemonSection {
    fn read(mut table: TableReader<'_, '_>) -> Self {
        let section = Self {
            socket: table.parsed("socket", values::PATH, values::path),
            state_dir: table.parsed("state_dir", values::PATH, values::path),
            record: table.parsed("record", "\"log\" or a path", values::path),
            stop_grace_seconds: table.integer("stop_grace_seconds", 0..=86_400),
            xdp: table.boolean("xdp"),
        };
        table.finish();
        section
    }
}

impl LimitsSection {
    fn read(mut table: TableReader<'_, '_>) -> Self {
        let section = Self {
            max_calls: table.integer("max_calls", 1..=1_000_000),
            max_connections: table.integer("max_connections", 1..=1_000_000),
            max_connections_per_source: table.integer("max_connections_per_source", 1..=1_000_000),
            media_timeout_seconds: table.integer("media_timeout_seconds", 0..=86_400),
            media_hold_timeout_seconds: table.integer("media_hold_timeout_seconds", 0..=86_400),
        };
        table.finish();
        section
    }
}

impl GuardSection {
    fn read(mut table: TableReader<'_, '_>) -> Self {
        let section = Self {
            level: table.parsed("level", values::LEVEL, values::level),
            dos_threshold: table.integer("dos_threshold", 10..=5000),
            dos_window_seconds: table.integer("dos_window_seconds", 2..=10),
            connections: table.integer("connections", 10..=5000),
            segments: table.integer("segments", 100..=1_000_000),
            ddos_threshold: table.integer("ddos_threshold", 10..=5000),
            ddos_window_seconds: table.integer("ddos_window_seconds", 2..=10),
            fragments: table.integer("fragments", 10..=5000),
            malformed: table.integer("malformed", 1..=5000),
            scanners: table.list("scanners", values::SCANNER, values::scanner),
            emergency_numbers: table.list("emergency_numbers", values::NUMBER, values::number),
            retention: table.parsed("retention", values::RETENTION, values::retention),
            deny_max: table.integer("deny_max", 1..=65_536),
            allow: table.list("allow", values::PREFIX, values::prefix).unwrap_or_default(),
            allow_max: table.integer("allow_max", 1..=8192),
            block: table.list("block", values::PREFIX, values::prefix).unwrap_or_default(),
            block_max: table.integer("block_max", 1..=16_384),
        };
        table.finish();
        section
    }
}

impl RealmSection {
    /// The port that peers are told for a transport, where a static NAT maps another one than ours.
    pub(super) const fn advertised_port(&self, transport: Transport) -> Option<&At<u16>> {
        match transport {
            Transport::Udp => self.advertised_udp.as_ref(),
            Transport::Tcp => self.advertised_tcp.as_ref(),
            Transport::Tls => self.advertised_tls.as_ref(),
        }
    }

    fn read(mut table: TableReader<'_, '_>, preset: Option<Preset>, problems: &Problems) -> Self {
        let here = table.here();
        let name = match preset {
            Some(_) => Some(At { value: here.key.clone(), span: here.span.clone(), key: here.key.clone() }),
            None => required(&mut table, "name", values::NAME, values::name, problems),
        };
        let peer = match preset {
            None => PeerSection::default(),
            Some(Preset::Public) => PeerSection::read(&mut table, "peers", "next_hop"),
            Some(Preset::Private) => PeerSection::read(&mut table, "peers", "pbx"),
        };
        let section = Self {
            name,
            preset,
            bind: required(&mut table, "bind", "an address of this host", values::address, problems),
            advertised: table.parsed("advertised", values::ADDRESS, values::address),
            may_appear_later: table.boolean("may_appear_later").is_some_and(|at| at.value),
            hide_topology: table.boolean("hide_topology").is_none_or(|at| at.value),
            dscp_signalling: table.integer("dscp_signalling", 0..=63),
            udp: table.port("udp"),
            tcp: table.port("tcp"),
            tls: table.port("tls"),
            advertised_udp: table.port("advertised_udp"),
            advertised_tcp: table.port("advertised_tcp"),
            advertised_tls: table.port("advertised_tls"),
            certificate: table.parsed("certificate", values::PATH, values::path),
            key: table.parsed("key", values::PATH, values::path),
            tls_ca: table.parsed("tls_ca", values::PATH, values::path),
            media: table.table("media").map(MediaSection::read).unwrap_or_default(),
            rules: RulesSection::read(&mut table),
            peer,
            here,
        };
        table.finish();
        section
    }
}

impl MediaSection {
    fn read(mut table: TableReader<'_, '_>) -> Self {
        let section = Self {
            bind: table.parsed("bind", values::ADDRESS, values::address),
            advertised: table.parsed("advertised", values::ADDRESS, values::address),
            ports: table.parsed("ports", values::PORT_RANGE, values::port_range),
            dscp_audio: table.integer("dscp_audio", 0..=63),
            dscp_video: table.integer("dscp_video", 0..=63),
            rate_factor: table.integer("rate_factor", 0..=100),
            quarantine_seconds: table.integer("quarantine_seconds", 0..=3600),
        };
        table.finish();
        section
    }
}

impl PeerSection {
    fn read(table: &mut TableReader<'_, '_>, sources: &'static str, next_hop: &'static str) -> Self {
        Self {
            sources: table.list(sources, values::PREFIX, values::prefix),
            next_hop: table.parsed(next_hop, values::NEXT_HOP, values::next_hop),
            tls_name: table.parsed("tls_name", "the name in the peer's certificate", |text| {
                rustls::pki_types::ServerName::try_from(text).map(|_| text.to_owned()).map_err(|_| Refusal {
                    message: format!("\"{text}\" is not a DNS name or address"),
                    allowed: "the name in the peer's certificate".to_owned(),
                })
            }),
            tls_verify: table.boolean("tls_verify"),
        }
    }
}

impl RulesSection {
    fn read(table: &mut TableReader<'_, '_>) -> Self {
        Self {
            media_source: table.parsed("media_source", values::MEDIA_SOURCE, values::media_source),
            latch_seconds: table.integer("latch_seconds", 1..=300),
            relatch_seconds: table.integer("relatch_seconds", 0..=3600),
            rtcp_mux: table.parsed("rtcp_mux", values::RTCP_MUX, values::rtcp_mux),
            prime_seconds: table.integer("prime_seconds", 0..=120),
        }
    }
}

impl TrunkSection {
    fn read(mut table: TableReader<'_, '_>, problems: &Problems) -> Self {
        let section = Self {
            name: required(&mut table, "name", values::NAME, values::name, problems),
            realm: required(&mut table, "realm", "the name of a realm", values::name, problems),
            rules: RulesSection::read(&mut table),
            peer: PeerSection::read(&mut table, "sources", "next_hop"),
            here: table.here(),
        };
        table.finish();
        section
    }
}

impl RouteSection {
    fn read(mut table: TableReader<'_, '_>, problems: &Problems) -> Self {
        let section = Self {
            from: required(&mut table, "from", "the name of a trunk", values::name, problems),
            to: required(&mut table, "to", "the name of a trunk", values::name, problems),
            here: table.here(),
        };
        table.finish();
        section
    }
}

/// A key that must stand in the table. Reported as missing only if it is: a bad value was reported by itself.
fn required<T>(
    table: &mut TableReader<'_, '_>,
    key: &'static str,
    allowed: &str,
    parse: impl Fn(&str) -> Result<T, Refusal>,
    problems: &Problems,
) -> Option<At<T>> {
    if !table.has(key) {
        let here = At { key: table.key(key), ..table.here() };
        problems.add(here.error("is missing").allowed(allowed));
    }
    table.parsed(key, allowed, parse)
}
