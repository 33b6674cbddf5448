//! What the keys mean together: defaults, references, conflicts. From [`File`] to [`Config`].
//!
//! This file: the daemon, realms, their listeners and media. `peers`: trunks and routes.

mod guard;
mod peers;
mod rules;

use std::net::{IpAddr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sbc_core::config::{EngineConfig, Listener, MediaRealm, MediaTimeouts, Realm};
use sbc_core::flow::Transport;
use sbc_core::id::RealmId;

use super::diagnostic::{Diagnostic, Problems};
use super::host::{Host, HostAddress};
use super::schema::{DaemonSection, File, LimitsSection, Preset, RealmSection};
use super::table::At;
use super::values::{self, pairs};
use super::{Config, ConnectionLimits, DEFAULT_SOCKET, DaemonConfig, RealmShell, RecordTo, TlsFiles};
use crate::transport::tls::certs;

/// Clear SIP: RFC 3261 s.18.
const SIP_PORT: u16 = 5060;
/// TLS on the outside.
const PUBLIC_TLS_PORT: u16 = 5063;
/// TLS on the inside.
const PRIVATE_TLS_PORT: u16 = 5064;
/// TLS of any other realm, and of a peer: RFC 3261 s.18, and the port at which a PBX listens.
pub(super) const SIPS_PORT: u16 = 5061;
/// Media of a realm, inclusive.
const MEDIA_PORTS: RangeInclusive<u16> = 20_000..=27_999;
/// Expedited forwarding (RFC 3246), for audio and video alike (R-QOS-1).
const MEDIA_DSCP: u8 = 46;
/// Assured forwarding 41, as telephone systems mark signalling (R-QOS-1).
const SIGNALLING_DSCP: u8 = 34;
/// A phone that sends packets of 10 ms where 20 were agreed, or all of a second's at once after the network stood still,
/// is no flood.
const RATE_FACTOR: u32 = 3;
const QUARANTINE: Duration = Duration::from_secs(30);
const STOP_GRACE: Duration = Duration::from_secs(30);
/// Long enough for a conference in which nobody speaks and whose phones suppress silence without sending RTCP; short
/// enough that a call whose phones have vanished is not billed for long.
const MEDIA_TIMEOUT_SECONDS: u32 = 300;
/// A caller may wait in a queue, without music, for long.
const MEDIA_HOLD_TIMEOUT_SECONDS: u32 = 7200;
const MAX_CONNECTIONS: usize = 4096;
const MAX_CONNECTIONS_PER_SOURCE: usize = 64;

/// A realm on its way into the configuration.
struct DraftRealm<'a> {
    section: &'a RealmSection,
    name: At<String>,
    realm: Realm,
    shell: RealmShell,
}

/// A listener and where it was asked for.
struct DraftListener {
    listener: Listener,
    span: Range<usize>,
}

/// Validates; `None` if too little is there to build anything. Errors are in `problems`.
pub(super) fn validate(file: &File, base_dir: &Path, host: &dyn Host, problems: &Problems) -> Option<Config> {
    if file.realms.is_empty() {
        let missing = Diagnostic::error(0..0, "", "no realm: there is no network to serve");
        problems.add(missing.allowed("the tables [public] and [private], or one [[realm]] for each network"));
        return None;
    }
    let mut realms: Vec<DraftRealm<'_>> =
        file.realms.iter().filter_map(|section| draft_realm(section, base_dir)).collect();
    let complete = realms.len() == file.realms.len();
    share_default_ports(&mut realms);
    check_names(&realms, problems);
    check_addresses(&realms, host, problems);
    check_media_overlap(&realms, problems);
    let listeners = listeners(&realms, problems);
    for draft in &realms {
        check_tls_files(draft.section, base_dir, host, problems);
    }
    let peers = peers::validate(file, &realms, &listeners, base_dir, host, problems);
    if !complete {
        return None;
    }

    let capacity = call_capacity(&realms);
    let max_calls = match &file.limits.max_calls {
        None => capacity,
        Some(wanted) => {
            let wanted_calls = wanted.value as usize;
            if wanted_calls > capacity {
                let message = format!("the media ports hold {capacity} audio calls, fewer than this");
                problems.add(wanted.warning(message).allowed("wider `media.ports`, or a lower limit"));
            }
            wanted_calls
        }
    };
    let total = file.limits.max_connections.as_ref().map_or(MAX_CONNECTIONS, |at| at.value as usize);
    let per_source = file
        .limits
        .max_connections_per_source
        .as_ref()
        .map_or(MAX_CONNECTIONS_PER_SOURCE.min(total), |at| at.value as usize);
    let media_timeouts = media_timeouts(&file.limits, problems);
    let (realms, shells) = realms.into_iter().map(|draft| (draft.realm, draft.shell)).unzip();
    Some(Config {
        instance: file.instance.as_ref().map_or_else(|| "main".to_owned(), |at| at.value.clone()),
        daemon: daemon(&file.daemon, base_dir),
        connections: ConnectionLimits { total, per_source },
        realms: shells,
        tls_peers: peers.tls,
        engine: EngineConfig {
            node: file.node.as_ref().and_then(|at| u16::try_from(at.value).ok()).unwrap_or(0),
            epoch: 0,
            realms,
            listeners: listeners.into_iter().map(|draft| draft.listener).collect(),
            trunks: peers.trunks,
            routes: peers.routes,
            max_calls,
            media_timeouts,
            guard: guard::validate(&file.guard, problems),
        },
    })
}

/// A call must not end sooner because somebody put it on hold.
fn media_timeouts(section: &LimitsSection, problems: &Problems) -> MediaTimeouts {
    let talking = section.media_timeout_seconds.as_ref().map_or(MEDIA_TIMEOUT_SECONDS, |at| at.value);
    let held = match &section.media_hold_timeout_seconds {
        None => MEDIA_HOLD_TIMEOUT_SECONDS.max(talking),
        Some(held) => {
            if held.value != 0 && held.value < talking {
                let message = format!("is shorter than `media_timeout_seconds` ({talking})");
                problems.add(held.error(message).allowed(format!("0 (off) or {talking} to 86400")));
            }
            held.value
        }
    };
    let limit = |seconds: u32| (seconds != 0).then(|| Duration::from_secs(seconds.into()));
    MediaTimeouts { talking: limit(talking), held: limit(held) }
}

fn daemon(section: &DaemonSection, base_dir: &Path) -> DaemonConfig {
    let path = |at: &Option<At<PathBuf>>, default: &str| {
        at.as_ref().map_or_else(|| PathBuf::from(default), |at| base_dir.join(&at.value))
    };
    let state_dir = path(&section.state_dir, "/var/lib/sbc");
    DaemonConfig {
        socket: path(&section.socket, DEFAULT_SOCKET),
        record: match &section.record {
            None => RecordTo::File(state_dir.join("calls.jsonl")),
            Some(at) if at.value == Path::new("log") => RecordTo::Log,
            Some(at) => RecordTo::File(base_dir.join(&at.value)),
        },
        state_dir,
        stop_grace: section
            .stop_grace_seconds
            .as_ref()
            .map_or(STOP_GRACE, |at| Duration::from_secs(at.value.into())),
        xdp: section.xdp.as_ref().is_none_or(|at| at.value),
    }
}

/// A realm with its defaults; `None` if it lacks what the schema has already complained about.
fn draft_realm<'a>(section: &'a RealmSection, base_dir: &Path) -> Option<DraftRealm<'a>> {
    let name = section.name.clone()?;
    let bind = section.bind.as_ref()?.value;
    let media = &section.media;
    let media_bind = media.bind.as_ref().map_or(bind, |at| at.value);
    let media_advertised = match (&media.advertised, &media.bind, &section.advertised) {
        (Some(at), _, _) | (None, None, Some(at)) => at.value,
        (None, Some(_), _) | (None, None, None) => media_bind,
    };
    Some(DraftRealm {
        realm: Realm {
            name: name.value.clone(),
            media: MediaRealm {
                bind: media_bind,
                advertised: media_advertised,
                ports: media.ports.as_ref().map_or(MEDIA_PORTS, |at| at.value.clone()),
                quarantine: media
                    .quarantine_seconds
                    .as_ref()
                    .map_or(QUARANTINE, |at| Duration::from_secs(at.value.into())),
                dscp_audio: dscp(media.dscp_audio.as_ref(), MEDIA_DSCP),
                dscp_video: dscp(media.dscp_video.as_ref(), MEDIA_DSCP),
                rate_factor: media.rate_factor.as_ref().map_or(RATE_FACTOR, |at| at.value),
            },
            hide_topology: section.hide_topology,
        },
        shell: RealmShell {
            may_appear_later: section.may_appear_later,
            dscp_signalling: dscp(section.dscp_signalling.as_ref(), SIGNALLING_DSCP),
            tls: section.certificate.as_ref().zip(section.key.as_ref()).map(|(certificate, key)| TlsFiles {
                certificate: base_dir.join(&certificate.value),
                key: base_dir.join(&key.value),
            }),
        },
        section,
        name,
    })
}

fn dscp(written: Option<&At<u32>>, default: u8) -> u8 {
    written.and_then(|at| u8::try_from(at.value).ok()).unwrap_or(default)
}

/// Realms that receive media on one address and say nothing of ports share the default range in equal parts.
fn share_default_ports(realms: &mut [DraftRealm<'_>]) {
    for index in 0..realms.len() {
        let bind = realms[index].realm.media.bind;
        let on_address: Vec<usize> =
            (0..realms.len()).filter(|&other| realms[other].realm.media.bind == bind).collect();
        if on_address.iter().any(|&other| realms[other].section.media.ports.is_some()) {
            continue;
        }
        let count = on_address.len();
        let position = on_address.iter().position(|&other| other == index).unwrap_or(0);
        let share = pairs(&MEDIA_PORTS) / count * 2;
        let first = usize::from(*MEDIA_PORTS.start()) + position * share;
        if let (Ok(first), Ok(last)) = (u16::try_from(first), u16::try_from(first + share - 1)) {
            realms[index].realm.media.ports = first..=last;
        }
    }
}

/// Audio calls that the ports hold when each call has a side in the narrowest realm; with one realm, both sides.
fn call_capacity(realms: &[DraftRealm<'_>]) -> usize {
    let narrowest = realms.iter().map(|draft| pairs(&draft.realm.media.ports)).min().unwrap_or(0);
    if realms.len() == 1 { narrowest / 2 } else { narrowest }
}

fn check_names(realms: &[DraftRealm<'_>], problems: &Problems) {
    for (index, draft) in realms.iter().enumerate() {
        if let Some(first) = realms[..index].iter().find(|first| first.name.value == draft.name.value) {
            let error = draft.name.error(format!("there are two realms named \"{}\"", draft.name.value));
            problems.add(error.allowed("a name of its own").related(first.name.span.clone(), "the first"));
        }
    }
}

/// Bind addresses are the host's (R-UI-4); two interfaces do not share a subnet (R-SCOPE-6); an advertised address is
/// of its bind address's family.
fn check_addresses(realms: &[DraftRealm<'_>], host: &dyn Host, problems: &Problems) {
    let addresses = host.addresses();
    let mut found: Vec<(&At<IpAddr>, &HostAddress)> = Vec::new();
    for draft in realms {
        let section = draft.section;
        check_family(section.bind.as_ref(), section.advertised.as_ref(), problems);
        let media_bind = section.media.bind.as_ref().or(section.bind.as_ref());
        check_family(media_bind, section.media.advertised.as_ref(), problems);
        let Some(addresses) = &addresses else { continue };
        for bind in [&section.bind, &section.media.bind].into_iter().flatten() {
            match addresses.iter().find(|address| address.address == bind.value) {
                Some(address) => found.push((bind, address)),
                None if section.may_appear_later => {}
                None => {
                    let error = bind.error(format!("{} is not an address of this host", bind.value));
                    problems.add(error.allowed(format!(
                        "{}; or `may_appear_later = true` in {}",
                        listed(addresses, bind.value.is_ipv4()),
                        section.here.key
                    )));
                }
            }
        }
    }
    for (index, (bind, address)) in found.iter().enumerate() {
        let clash = found[..index].iter().find(|(_, other)| {
            other.interface != address.interface
                && other.subnet().zip(address.subnet()).is_some_and(|(a, b)| a.contains(&b) || b.contains(&a))
        });
        if let Some((first, other)) = clash {
            let error = bind.error(format!(
                "{} on {} and {} on {} are in one subnet: answers would leave by the wrong interface",
                other.address, other.interface, address.address, address.interface
            ));
            problems.add(
                error
                    .allowed("two addresses of one interface, or two interfaces in different subnets")
                    .related(first.span.clone(), format!("{} is on {}", other.address, other.interface)),
            );
        }
    }
}

fn check_family(bind: Option<&At<IpAddr>>, advertised: Option<&At<IpAddr>>, problems: &Problems) {
    if let (Some(bind), Some(advertised)) = (bind, advertised)
        && bind.value.is_ipv4() != advertised.value.is_ipv4()
    {
        let family = if bind.value.is_ipv4() { "IPv4" } else { "IPv6" };
        let error = advertised.error(format!("{} cannot stand for {}", advertised.value, bind.value));
        problems.add(
            error
                .allowed(format!("an {family} address"))
                .related(bind.span.clone(), "the address that it stands for"),
        );
    }
}

fn listed(addresses: &[HostAddress], ipv4: bool) -> String {
    let usable = addresses.iter().filter(|address| address.address.is_ipv4() == ipv4);
    let listed: Vec<String> =
        usable.map(|address| format!("{} ({})", address.address, address.interface)).collect();
    if listed.is_empty() { "this host has none of that family".to_owned() } else { listed.join(", ") }
}

/// Realms on one media address have ports of their own.
fn check_media_overlap(realms: &[DraftRealm<'_>], problems: &Problems) {
    for (index, draft) in realms.iter().enumerate() {
        let media = &draft.realm.media;
        let clash = realms[..index].iter().find(|first| {
            let first = &first.realm.media;
            first.bind == media.bind
                && first.ports.start() <= media.ports.end()
                && media.ports.start() <= first.ports.end()
        });
        if let Some(first) = clash {
            let here = ports_place(draft);
            let error = here.error(format!(
                "realms {} and {} would share media ports of {}",
                first.name.value, draft.name.value, media.bind
            ));
            problems.add(
                error
                    .allowed("ranges that do not overlap")
                    .related(ports_place(first).span, "the other range"),
            );
        }
    }
}

/// Where a realm's media range is decided: its key, or the realm when it is a default.
fn ports_place(draft: &DraftRealm<'_>) -> At<()> {
    let at = draft.section.media.ports.as_ref();
    at.map_or_else(
        || draft.section.here.clone(),
        |at| At { value: (), span: at.span.clone(), key: at.key.clone() },
    )
}

/// The listeners of all realms, each address and port once and outside of the media ranges.
fn listeners(realms: &[DraftRealm<'_>], problems: &Problems) -> Vec<DraftListener> {
    let mut listeners: Vec<DraftListener> = Vec::new();
    for (draft, index) in realms.iter().zip(0u16..) {
        let transports = transports(draft.section, problems);
        check_advertised_ports(draft.section, &transports, problems);
        for (transport, port) in transports {
            let Some(bind) = &draft.section.bind else { continue };
            let advertised = draft.section.advertised.as_ref().map_or(bind.value, |at| at.value);
            let advertised_port = draft.section.advertised_port(transport).map_or(port.value, |at| at.value);
            let bind = SocketAddr::new(bind.value, port.value);
            let clash = listeners.iter().find(|other| {
                other.listener.bind == bind
                    && (other.listener.transport == Transport::Udp) == (transport == Transport::Udp)
            });
            if let Some(clash) = clash {
                let error = port.error(format!("{transport} {bind} is taken twice"));
                problems.add(
                    error
                        .allowed("another port or another `bind`")
                        .related(clash.span.clone(), "taken here first"),
                );
            }
            let media = realms.iter().find(|other| {
                other.realm.media.bind == bind.ip() && other.realm.media.ports.contains(&bind.port())
            });
            if let (Transport::Udp, Some(other)) = (transport, media) {
                let error = port.error(format!(
                    "{transport} {bind} lies in the media ports of realm {}, {}-{}",
                    other.name.value,
                    other.realm.media.ports.start(),
                    other.realm.media.ports.end()
                ));
                problems.add(
                    error
                        .allowed("a port outside of them")
                        .related(ports_place(other).span, "these media ports"),
                );
            }
            listeners.push(DraftListener {
                listener: Listener {
                    realm: RealmId(index),
                    transport,
                    bind,
                    advertised: SocketAddr::new(advertised, advertised_port),
                },
                span: port.span,
            });
        }
    }
    listeners
}

/// A port that peers are told of leads to a listener (R-CFG-11).
fn check_advertised_ports(section: &RealmSection, transports: &[(Transport, At<u16>)], problems: &Problems) {
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        let listens = transports.iter().any(|(it, _)| *it == transport);
        if let (Some(port), false) = (section.advertised_port(transport), listens) {
            let error = port.error(format!("nothing listens for {transport} here"));
            problems.add(error.allowed(format!("with `{transport} = port` in {}", section.here.key)));
        }
    }
}

/// The transports of a realm: those that it names; else TLS if it has a certificate, else UDP and TCP.
fn transports(section: &RealmSection, problems: &Problems) -> Vec<(Transport, At<u16>)> {
    let named: Vec<(Transport, At<u16>)> = [
        (Transport::Udp, section.udp.clone()),
        (Transport::Tcp, section.tcp.clone()),
        (Transport::Tls, section.tls.clone()),
    ]
    .into_iter()
    .filter_map(|(transport, port)| Some((transport, port?)))
    .collect();
    let has_certificate = section.certificate.is_some() && section.key.is_some();
    if let (Some(tls), false) = (&section.tls, has_certificate) {
        let error = tls.error("TLS needs a certificate and its key");
        problems.add(
            error.allowed(format!("`certificate` and `key` in {}, paths of PEM files", section.here.key)),
        );
    }
    for (one, other, lacks) in [
        (&section.certificate, &section.key, "its private key is missing: `key`"),
        (&section.key, &section.certificate, "its certificate chain is missing: `certificate`"),
    ] {
        if let (Some(one), None) = (one, other)
            && section.tls.is_none()
        {
            problems.add(one.error(lacks).allowed("both, paths of PEM files"));
        }
    }
    if !named.is_empty() {
        return named;
    }
    let default = |port: u16, key: &str| At {
        value: port,
        span: section.here.span.clone(),
        key: format!("{}.{key}", section.here.key),
    };
    if has_certificate {
        let port = match section.preset {
            Some(Preset::Public) => PUBLIC_TLS_PORT,
            Some(Preset::Private) => PRIVATE_TLS_PORT,
            None => SIPS_PORT,
        };
        vec![(Transport::Tls, default(port, "tls"))]
    } else {
        vec![(Transport::Udp, default(SIP_PORT, "udp")), (Transport::Tcp, default(SIP_PORT, "tcp"))]
    }
}

/// Certificate and key are readable, are what they should be, and belong together.
fn check_tls_files(section: &RealmSection, base_dir: &Path, host: &dyn Host, problems: &Problems) {
    let read = |at: &At<PathBuf>| match host.read(&base_dir.join(&at.value)) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            let message = format!("{}: {error}", base_dir.join(&at.value).display());
            problems.add(at.error(message).allowed(values::PATH));
            None
        }
    };
    let chain = section.certificate.as_ref().and_then(|at| {
        let bytes = read(at)?;
        match certs::chain(&bytes) {
            Ok(chain) => Some(chain),
            Err(error) => {
                problems.add(at.error(error.to_string()).allowed("a PEM file, the certificate first"));
                None
            }
        }
    });
    let Some(key_at) = &section.key else { return };
    let key = read(key_at).and_then(|bytes| match certs::private_key(&bytes) {
        Ok(key) => Some(key),
        Err(error) => {
            problems.add(key_at.error(error.to_string()).allowed("a PEM file with one private key"));
            None
        }
    });
    if let (Some(chain), Some(key)) = (chain, key)
        && let Err(error) = certs::identity(chain, key)
    {
        problems.add(key_at.error(error.to_string()).allowed("the private key of the realm's certificate"));
    }
}
