//! Configurations, right and wrong, against a machine that exists only here.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use sbc_core::config::{MediaSourceRule, NextHop, Prefix, Route, RtcpMux};
use sbc_core::flow::Transport;
use sbc_core::guard::{GuardPolicy, Level, Limit};
use sbc_core::id::{ListenerId, RealmId, TrunkId};

use super::*;

struct FakeHost {
    certificate: String,
    key: String,
    other_key: String,
}

impl FakeHost {
    fn new() -> Self {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["sbc.example".to_owned()]).unwrap();
        let other_key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        Self { certificate: cert.pem(), key: signing_key.serialize_pem(), other_key }
    }
}

impl Host for FakeHost {
    fn addresses(&self) -> Option<Vec<HostAddress>> {
        let address = |interface: &str, address: &str, prefix_len| HostAddress {
            interface: interface.to_owned(),
            address: address.parse().unwrap(),
            prefix_len,
        };
        Some(vec![
            address("lo", "127.0.0.1", 8),
            address("wan0", "198.51.100.10", 24),
            address("wan0", "198.51.100.11", 24),
            address("wan1", "198.51.100.12", 24),
            address("lan0", "10.0.0.5", 24),
            address("lan0", "2001:db8::5", 64),
        ])
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match path.file_name().and_then(|name| name.to_str()) {
            Some("fullchain.pem" | "carrier-ca.pem" | "ca-certificates.crt") => {
                Ok(self.certificate.clone().into())
            }
            Some("privkey.pem") => Ok(self.key.clone().into()),
            Some("other.pem") => Ok(self.other_key.clone().into()),
            Some("empty.pem") => Ok(Vec::new()),
            Some(_) | None => Err(io::Error::from(io::ErrorKind::NotFound)),
        }
    }
}

fn parse(text: &str) -> Result<(Config, Report), Report> {
    static HOST: LazyLock<FakeHost> = LazyLock::new(FakeHost::new);
    Config::parse(Path::new("/etc/sbc/sbc.toml"), text, &*HOST)
}

fn valid(text: &str) -> Config {
    match parse(text) {
        Ok((config, report)) => {
            assert!(report.diagnostics.is_empty(), "{report}");
            config
        }
        Err(report) => panic!("{report}"),
    }
}

/// Asserts every line of the report, in order.
fn refused(text: &str, expected: &[&str]) {
    let report = parse(text).expect_err("must be refused");
    assert_eq!(report.to_string(), expected.join("\n"), "\n{}", report.render(false));
}

const BOTH: &str = r#"
[public]
bind = "198.51.100.10"
peers = ["192.0.2.0/24"]
next_hop = "192.0.2.7"
[private]
bind = "10.0.0.5"
pbx = "10.0.0.20:5060"
"#;

/// `BOTH` with one line replaced.
fn with(line: &str, replacement: &str) -> String {
    assert!(BOTH.contains(line));
    BOTH.replacen(line, replacement, 1)
}

#[test]
fn the_shortest_configuration_is_a_whole_one() {
    let config = valid(BOTH);
    let engine = &config.engine;
    assert_eq!(config.instance, "main");
    assert_eq!(config.daemon.socket, Path::new(DEFAULT_SOCKET));
    assert_eq!(config.daemon.record, RecordTo::File("/var/lib/sbc/calls.jsonl".into()));
    let names: Vec<&str> = engine.realms.iter().map(|realm| realm.name.as_str()).collect();
    assert_eq!(names, ["public", "private"]);
    assert!(
        engine
            .realms
            .iter()
            .all(|realm| realm.hide_topology && (realm.media.dscp_audio, realm.media.dscp_video) == (46, 46))
    );
    assert!(engine.realms.iter().all(|realm| realm.media.ports == (20_000..=27_999)));
    let sockets: Vec<_> =
        engine.listeners.iter().map(|listener| (listener.transport, listener.bind.to_string())).collect();
    assert_eq!(
        sockets,
        [
            (Transport::Udp, "198.51.100.10:5060".to_owned()),
            (Transport::Tcp, "198.51.100.10:5060".to_owned()),
            (Transport::Udp, "10.0.0.5:5060".to_owned()),
            (Transport::Tcp, "10.0.0.5:5060".to_owned()),
        ]
    );
    assert_eq!(engine.trunks[0].sources, [Prefix { addr: IpAddr::from([192, 0, 2, 0]), len: 24 }]);
    assert_eq!(engine.trunks[1].sources, [Prefix { addr: IpAddr::from([10, 0, 0, 20]), len: 32 }]);
    let pbx = NextHop { listener: ListenerId(2), remote: "10.0.0.20:5060".parse().unwrap() };
    assert_eq!(engine.trunks[1].next_hop, Some(pbx));
    assert_eq!(
        engine.routes,
        [Route { from: TrunkId(0), to: TrunkId(1) }, Route { from: TrunkId(1), to: TrunkId(0) }]
    );
    assert_eq!(engine.max_calls, 4000, "each side's 8000 ports hold 4000 pairs");
}

#[test]
fn every_example_configuration_is_valid() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut examples = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        match Config::parse(&path, &text, &FakeHost::new()) {
            Ok((_, report)) => assert!(report.diagnostics.is_empty(), "{report}"),
            Err(report) => panic!("{report}"),
        }
        examples += 1;
    }
    assert!(examples >= 3, "{examples}");
}

#[test]
fn a_certificate_makes_tls_the_default_transport() {
    let tls = with("peers", "certificate = \"fullchain.pem\"\nkey = \"privkey.pem\"\npeers");
    let config = valid(&tls);
    assert_eq!(config.engine.listeners[0].bind.to_string(), "198.51.100.10:5063");
    assert_eq!(config.realms[0].tls.as_ref().unwrap().certificate, Path::new("/etc/sbc/fullchain.pem"));
    let carrier = config.engine.trunks[0].next_hop.unwrap();
    assert_eq!(carrier.remote.to_string(), "192.0.2.7:5061");
    let (hop, how) = &config.tls_peers[0];
    assert_eq!(*hop, carrier);
    let authorities = "/etc/ssl/certs/ca-certificates.crt".into();
    assert_eq!(*how, TlsPeer::Verified { authorities, name: None });
}

#[test]
fn realms_on_one_address_share_the_default_media_ports() {
    let config = valid(&BOTH.replace("198.51.100.10\"", "10.0.0.5\"\nudp = 5070"));
    assert_eq!(config.engine.realms[0].media.ports, 20_000..=23_999);
    assert_eq!(config.engine.realms[1].media.ports, 24_000..=27_999);
    assert_eq!(config.engine.max_calls, 2000);
}

#[test]
fn the_advertised_address_is_signalled_and_offered_for_media() {
    let config = valid(&with("peers", "advertised = \"203.0.113.5\"\nmedia_source = \"address\"\npeers"));
    assert_eq!(config.engine.listeners[0].bind.to_string(), "198.51.100.10:5060");
    assert_eq!(config.engine.listeners[0].advertised.to_string(), "203.0.113.5:5060");
    assert_eq!(config.engine.realms[0].media.advertised, IpAddr::from([203, 0, 113, 5]));
    assert_eq!(config.engine.trunks[0].media.source, MediaSourceRule::Address);
    assert_eq!(config.engine.listeners[2].realm, RealmId(1));
}

#[test]
fn a_trunks_rules_for_media_go_before_its_realms() {
    let text = "[[realm]]\nname = \"a\"\nbind = \"198.51.100.10\"\nmedia_source = \"subnet\"\nrelatch_seconds = 60\n\
                media = { dscp_audio = 40, rate_factor = 0 }\n\
                [[trunk]]\nname = \"one\"\nrealm = \"a\"\nsources = [\"192.0.2.1\"]\nrtcp_mux = \"offer\"\n\
                [[trunk]]\nname = \"two\"\nrealm = \"a\"\nsources = [\"192.0.2.2\"]\nmedia_source = \"signalled\"\n\
                [[trunk]]\nname = \"three\"\nrealm = \"a\"\nsources = [\"192.0.2.3\"]\nmedia_source = \"any\"\nlatch_seconds = 3\nrelatch_seconds = 0\nprime_seconds = 5\n\
                [[realm]]\nname = \"b\"\nbind = \"10.0.0.5\"\n\
                [[trunk]]\nname = \"four\"\nrealm = \"b\"\nsources = [\"192.0.2.4\"]\nmedia_source = \"any\"\n";
    // None of them has a route: warnings.
    let (config, _) = parse(text).unwrap();
    let rules: Vec<_> = config.engine.trunks.iter().map(|trunk| trunk.media).collect();
    let seconds = Duration::from_secs;
    assert_eq!(rules[0].source, MediaSourceRule::Subnet);
    assert_eq!((rules[0].learning.window, rules[0].learning.relatch), (seconds(10), Some(seconds(60))));
    assert_eq!((rules[0].rtcp_mux, rules[1].rtcp_mux), (RtcpMux::Offer, RtcpMux::Accept));
    assert_eq!((rules[0].prime, rules[1].prime, rules[2].prime), (Some(seconds(20)), None, Some(seconds(5))));
    assert_eq!(rules[1].source, MediaSourceRule::Signalled);
    assert_eq!(rules[2].source, MediaSourceRule::Any);
    assert_eq!((rules[2].learning.window, rules[2].learning.relatch), (seconds(3), None));
    assert_eq!(rules[3].learning.relatch, None, "anybody may claim: not after silence unless it is ordered");
    let media = &config.engine.realms[0].media;
    assert_eq!((media.dscp_audio, media.dscp_video, media.rate_factor), (40, 46, 0));
    assert_eq!(config.engine.realms[1].media.rate_factor, 3);
}

#[test]
fn a_realm_may_be_ipv6_for_signalling_and_media() {
    let ipv6 = BOTH.replace("10.0.0.5", "2001:db8::5").replace("10.0.0.20:5060", "tcp:[2001:db8::20]:5070");
    let config = valid(&ipv6);
    let realm = &config.engine.realms[1].media;
    assert_eq!(
        (realm.bind, realm.advertised),
        ("2001:db8::5".parse().unwrap(), "2001:db8::5".parse().unwrap())
    );
    let listeners: Vec<_> = config.engine.listeners.iter().map(|it| it.bind.to_string()).collect();
    assert_eq!(listeners[2..], ["[2001:db8::5]:5060", "[2001:db8::5]:5060"]);
    let next_hop = config.engine.trunks[1].next_hop.unwrap();
    assert_eq!(next_hop.remote.to_string(), "[2001:db8::20]:5070");
    assert_eq!(config.engine.trunks[1].sources[0].len, 128);
    // Media alone may be as well.
    let media = with("bind = \"10.0.0.5\"", "bind = \"10.0.0.5\"\nmedia = { bind = \"2001:db8::5\" }");
    assert_eq!(valid(&media).engine.realms[1].media.advertised, "2001:db8::5".parse::<IpAddr>().unwrap());
}

#[test]
fn rules_for_media_that_mean_nothing_are_refused() {
    refused(
        "[[realm]]\nname = \"a\"\nbind = \"198.51.100.10\"\nmedia = { bind = \"2001:db8::10\" }\nmay_appear_later = true\n\
         [[trunk]]\nname = \"one\"\nrealm = \"a\"\nsources = [\"192.0.2.1\"]\nmedia_source = \"address\"\n\
         [[trunk]]\nname = \"two\"\nrealm = \"a\"\nsources = [\"192.0.2.2\"]\nlatch_seconds = 5\n",
        &[
            "/etc/sbc/sbc.toml:10:16: error: trunk[0].media_source: signalling at 198.51.100.10 and media at \
             2001:db8::10 are of two families: nobody could be learned (allowed: \"signalled\", \"sdp-subnet\" or \"any\")",
            "/etc/sbc/sbc.toml:15:17: error: trunk[1].latch_seconds: has no meaning where media is accepted from the \
             signalled place only (allowed: only beside another `media_source`)",
        ],
    );
}

#[test]
fn a_static_nat_may_map_other_ports() {
    let lines = "advertised = \"203.0.113.5\"\nudp = 5062\ntcp = 5064\nadvertised_udp = 5060\npeers";
    let listeners = valid(&with("peers", lines)).engine.listeners;
    assert_eq!(listeners[0].bind.to_string(), "198.51.100.10:5062");
    assert_eq!(listeners[0].advertised.to_string(), "203.0.113.5:5060");
    assert_eq!(listeners[1].advertised.to_string(), "203.0.113.5:5064");

    refused(
        &with("peers", "advertised_tls = 443\npeers"),
        &[
            "/etc/sbc/sbc.toml:4:18: error: public.advertised_tls: nothing listens for tls here (allowed: with \
           `tls = port` in public)",
        ],
    );
}

#[test]
fn all_problems_are_reported_at_once_and_located() {
    refused(
        "[public]\nbind = \"0.0.0.0\"\npears = []\nudp = 70000\n[private]\nbind = \"10.0.0\"\npbx = 5\n",
        &[
            "/etc/sbc/sbc.toml:2:8: error: public.bind: 0.0.0.0 is forbidden here: it stands for any address, and \
             peers are told exactly one (allowed: an IPv4 or IPv6 address, for example \"192.0.2.10\")",
            "/etc/sbc/sbc.toml:3:1: error: public.pears: unknown key (allowed: did you mean `peers`? advertised, \
             advertised_tcp, advertised_tls, advertised_udp, bind, certificate, dscp_signalling, hide_topology, key, latch_seconds, may_appear_later, media, media_source, next_hop, peers, prime_seconds, \
             relatch_seconds, rtcp_mux, tcp, tls, tls_ca, tls_name, tls_verify, udp)",
            "/etc/sbc/sbc.toml:4:7: error: public.udp: out of bounds: 70000 (allowed: a whole number from 1 to 65535)",
            "/etc/sbc/sbc.toml:6:8: error: private.bind: syntax error: \"10.0.0\" is not an address (allowed: an \
             IPv4 or IPv6 address, for example \"192.0.2.10\")",
            "/etc/sbc/sbc.toml:7:7: error: private.pbx: wrong type: integer (allowed: \
             [udp:|tcp:|tls:]address[:port], for example \"192.0.2.7\", \"10.0.0.20:5060\" or \
             \"tls:[2001:db8::7]:5061\")",
        ],
    );
}

#[test]
fn a_person_is_shown_the_line() {
    let report =
        parse(&with("bind = \"10.0.0.5\"", "bind = \"255.255.255.255\"")).expect_err("must be refused");
    let expected = "\
error: private.bind: 255.255.255.255 is forbidden here: it is the broadcast address
 --> /etc/sbc/sbc.toml:7:8
  |
7 | bind = \"255.255.255.255\"
  |        ^^^^^^^^^^^^^^^^^
  |
  = help: allowed: an IPv4 or IPv6 address, for example \"192.0.2.10\"

";
    assert_eq!(report.render(false), expected);
}

#[test]
fn broken_toml_is_located() {
    let report = parse("[public\nbind = \"198.51.100.10\"\n").expect_err("must be refused");
    assert!(report.to_string().starts_with("/etc/sbc/sbc.toml:1:"), "{report}");
    assert!(report.to_string().contains("syntax error"), "{report}");
}

#[test]
fn a_realm_must_say_where_it_is() {
    refused(
        "[public]\npeers = \"192.0.2.7\"\n[private]\nbind = \"10.0.0.5\"\npbx = \"10.0.0.20\"\n",
        &["/etc/sbc/sbc.toml:1:2: error: public.bind: is missing (allowed: an address of this host)"],
    );
    refused(
        "instance = \"a\"\n",
        &[
            "/etc/sbc/sbc.toml:1:1: error: no realm: there is no network to serve (allowed: the tables [public] and \
           [private], or one [[realm]] for each network)",
        ],
    );
}

#[test]
fn a_bind_address_is_the_hosts_unless_it_may_appear_later() {
    let elsewhere = with("bind = \"10.0.0.5\"", "bind = \"10.0.9.9\"");
    refused(
        &elsewhere,
        &[
            "/etc/sbc/sbc.toml:7:8: error: private.bind: 10.0.9.9 is not an address of this host (allowed: 127.0.0.1 \
           (lo), 198.51.100.10 (wan0), 198.51.100.11 (wan0), 198.51.100.12 (wan1), 10.0.0.5 (lan0); or \
           `may_appear_later = true` in private)",
        ],
    );
    let later = valid(&elsewhere.replace("pbx", "may_appear_later = true\npbx"));
    assert!(later.realms[1].may_appear_later && !later.realms[0].may_appear_later);
    assert!(Config::parse(Path::new("sbc.toml"), &elsewhere, &OtherHost).is_ok());
}

#[test]
fn two_interfaces_in_one_subnet_are_refused_and_two_addresses_of_one_are_not() {
    refused(
        &with("bind = \"10.0.0.5\"", "bind = \"198.51.100.12\""),
        &[
            "/etc/sbc/sbc.toml:7:8: error: private.bind: 198.51.100.10 on wan0 and 198.51.100.12 on wan1 are in one \
           subnet: answers would leave by the wrong interface (allowed: two addresses of one interface, or two \
           interfaces in different subnets)",
        ],
    );
    valid(&with("bind = \"10.0.0.5\"", "bind = \"198.51.100.11\""));
}

#[test]
fn a_media_range_must_hold_a_call_and_be_its_realms_alone() {
    let report =
        parse(&with("pbx", "media = { ports = \"20001-20004\" }\npbx")).expect_err("must be refused");
    assert_eq!(
        report.to_string(),
        "/etc/sbc/sbc.toml:8:19: error: private.media.ports: out of bounds: 20001-20004 cannot hold a call (allowed: \
         \"first-last\" inside 1024-65535 with at least 4 ports (a call takes an even RTP port and the next RTCP \
         port on each side), for example \"20000-27999\")"
    );
    let one_address = with("bind = \"10.0.0.5\"", "bind = \"198.51.100.10\"\nudp = 5070");
    refused(
        &one_address.replace("pbx", "media = { ports = \"27000-27999\" }\npbx"),
        &[
            "/etc/sbc/sbc.toml:9:19: error: private.media.ports: realms public and private would share media ports of \
           198.51.100.10 (allowed: ranges that do not overlap)",
        ],
    );
}

#[test]
fn a_socket_is_taken_once() {
    refused(
        &with("bind = \"10.0.0.5\"", "bind = \"198.51.100.10\"\nudp = 5060"),
        &[
            "/etc/sbc/sbc.toml:8:7: error: private.udp: udp 198.51.100.10:5060 is taken twice (allowed: another port \
           or another `bind`)",
        ],
    );
    refused(
        &with("pbx", "tcp = 5061\ntls = 5061\ncertificate = \"fullchain.pem\"\nkey = \"privkey.pem\"\npbx"),
        &[
            "/etc/sbc/sbc.toml:9:7: error: private.tls: tls 10.0.0.5:5061 is taken twice (allowed: another port or \
           another `bind`)",
        ],
    );
    refused(
        &with("pbx", "udp = 20002\npbx"),
        &[
            "/etc/sbc/sbc.toml:8:7: error: private.udp: udp 10.0.0.5:20002 lies in the media ports of realm private, \
           20000-27999 (allowed: a port outside of them)",
        ],
    );
    valid(&with("pbx", "tcp = 20002\npbx"));
}

#[test]
fn a_tls_listener_needs_a_certificate_and_its_own_key() {
    let tls = |files: &str| with("pbx", &format!("tls = 5064\n{files}pbx"));
    refused(
        &tls(""),
        &[
            "/etc/sbc/sbc.toml:8:7: error: private.tls: TLS needs a certificate and its key (allowed: `certificate` \
           and `key` in private, paths of PEM files)",
        ],
    );
    refused(
        &tls("certificate = \"fullchain.pem\"\nkey = \"other.pem\"\n"),
        &[
            "/etc/sbc/sbc.toml:10:7: error: private.key: the private key does not belong to the certificate (allowed: \
           the private key of the realm's certificate)",
        ],
    );
    refused(
        &tls("certificate = \"nowhere.pem\"\nkey = \"empty.pem\"\n"),
        &[
            "/etc/sbc/sbc.toml:9:15: error: private.certificate: /etc/sbc/nowhere.pem: entity not found (allowed: a \
             path; a relative one begins at the directory of this file)",
            "/etc/sbc/sbc.toml:10:7: error: private.key: holds no private key (PKCS#8, PKCS#1 or SEC1; an encrypted \
             one cannot be used) (allowed: a PEM file with one private key)",
        ],
    );
}

#[test]
fn a_next_hop_must_be_reachable_by_its_realm() {
    refused(
        &with("10.0.0.20:5060", "tls:10.0.0.20"),
        &[
            "/etc/sbc/sbc.toml:8:7: error: private.pbx: the realm has no tls listener to send from (allowed: udp, tcp; \
           or `tls = port` in private, with `certificate` and `key`)",
        ],
    );
    refused(
        &with("10.0.0.20:5060", "10.0.0.5:5060"),
        &[
            "/etc/sbc/sbc.toml:8:7: error: private.pbx: 10.0.0.5:5060 is a listener of this SBC: calls would come back \
           to it (allowed: the peer's address)",
        ],
    );
    refused(
        &with("10.0.0.20:5060", "[2001:db8::20]:5060"),
        &[
            "/etc/sbc/sbc.toml:8:7: error: private.pbx: 2001:db8::20 cannot be reached from 10.0.0.5 (allowed: an \
           address of the same family as the realm's `bind`)",
        ],
    );
    refused(
        &with("pbx", "tls_verify = false\npbx"),
        &[
            "/etc/sbc/sbc.toml:8:14: error: private.tls_verify: has no meaning without a TLS next hop (allowed: only \
           beside a next hop that is reached by TLS)",
        ],
    );
}

#[test]
fn names_of_realms_and_trunks_are_resolved() {
    let more = "[[trunk]]\nname = \"a\"\nrealm = \"publik\"\nsources = \"192.0.3.0/24\"\n[[route]]\nfrom = \"b\"\nto = \"private\"\n";
    refused(
        &format!("{BOTH}{more}"),
        &[
            "/etc/sbc/sbc.toml:11:9: error: trunk[0].realm: there is no realm \"publik\" (allowed: public, private)",
            "/etc/sbc/sbc.toml:14:8: error: route[0].from: there is no trunk \"b\" (allowed: public, private)",
        ],
    );
}

#[test]
fn a_source_belongs_to_one_trunk_of_its_realm() {
    let more = "[[trunk]]\nname = \"a\"\nrealm = \"public\"\nsources = [\"192.0.2.99\"]\n[[route]]\nfrom = \"a\"\nto = \"private\"\n";
    refused(
        &format!("{BOTH}{more}"),
        &[
            "/etc/sbc/sbc.toml:12:12: error: trunk[0].sources: trunks public and a both claim 192.0.2.99 (allowed: \
           sources that belong to one trunk of the realm only)",
        ],
    );
    valid(&format!("{BOTH}{}", more.replace("192.0.2.99", "192.0.3.99")));
}

#[test]
fn a_route_leads_to_a_next_hop_and_there_is_one_from_each_trunk() {
    let more = "[[trunk]]\nname = \"in\"\nrealm = \"public\"\nsources = \"192.0.3.1\"\n\
                [[route]]\nfrom = \"private\"\nto = \"in\"\n[[route]]\nfrom = \"private\"\nto = \"public\"\n\
                [[route]]\nfrom = \"in\"\nto = \"private\"\n";
    refused(
        &format!("{BOTH}{more}"),
        &[
            "/etc/sbc/sbc.toml:15:6: error: route[0].to: trunk in has no next hop: no call can be sent to it \
             (allowed: a trunk with a next hop)",
            "/etc/sbc/sbc.toml:16:1: error: route[1]: calls from private already have a route (allowed: one route \
             from each trunk)",
        ],
    );
}

#[test]
fn what_is_possible_but_strange_is_a_warning() {
    let (_, report) = parse(&with("next_hop = \"192.0.2.7\"", "")).unwrap();
    assert_eq!(
        report.to_string(),
        "/etc/sbc/sbc.toml:6:2: warning: private: calls from private have no route (allowed: `next_hop` in [public], \
         or a [[route]])"
    );
    let (config, report) = parse(&format!("{BOTH}[limits]\nmax_calls = 5000\n")).unwrap();
    assert_eq!(config.engine.max_calls, 5000);
    assert!(report.to_string().contains("the media ports hold 4000 audio calls"), "{report}");
}

#[test]
fn silence_ends_a_call_later_on_hold_or_never() {
    let timeouts = |text: &str| {
        let it = valid(&format!("{BOTH}[limits]\n{text}\n")).engine.media_timeouts;
        [it.talking, it.held].map(|limit| limit.map(|limit| limit.as_secs()))
    };
    assert_eq!(timeouts(""), [Some(300), Some(7200)]);
    assert_eq!(timeouts("media_timeout_seconds = 60\nmedia_hold_timeout_seconds = 90"), [Some(60), Some(90)]);
    assert_eq!(timeouts("media_timeout_seconds = 10000"), [Some(10_000), Some(10_000)]);
    assert_eq!(timeouts("media_timeout_seconds = 0"), [None, Some(7200)]);
    assert_eq!(timeouts("media_hold_timeout_seconds = 0"), [Some(300), None]);
}

#[test]
fn a_hold_that_ends_a_call_sooner_is_refused() {
    let refused = |text: &str| parse(&format!("{BOTH}[limits]\n{text}\n")).unwrap_err().to_string();
    let report = refused("media_timeout_seconds = 600\nmedia_hold_timeout_seconds = 60");
    assert!(
        report.contains("limits.media_hold_timeout_seconds: is shorter than `media_timeout_seconds` (600)"),
        "{report}"
    );
    let report = refused("media_timeout_seconds = 86401");
    assert!(report.contains("limits.media_timeout_seconds"), "{report}");
}

/// Texts near a right one: a piece replaced by what a tired operator, or nobody, would write.
fn nearly_right() -> impl Strategy<Value = String> {
    let pieces = [
        "\"",
        "=",
        "[",
        "]]",
        "\n",
        "é",
        "0.0.0.0",
        "-1",
        "[[trunk]]",
        "media = {",
        "#",
        "{}",
        "\t",
        "\\u",
        "",
    ];
    let example =
        format!("{BOTH}{}", include_str!("../../config/carriers.toml").replace("[[realm]]", "[[realm]] "));
    let length = example.len();
    (proptest::collection::vec((0..length, 0..12usize, proptest::sample::select(pieces.to_vec())), 1..4))
        .prop_map(move |edits| {
            let mut text = example.clone();
            for (at, remove, insert) in edits {
                let mut at = at.min(text.len());
                while !text.is_char_boundary(at) {
                    at -= 1;
                }
                let mut end = (at + remove).min(text.len());
                while !text.is_char_boundary(end) {
                    end += 1;
                }
                text.replace_range(at..end, insert);
            }
            text
        })
}

proptest! {
    #[test]
    fn whatever_is_written_is_answered_and_can_be_shown(text in prop_oneof![nearly_right(), ".{0,80}"]) {
        let report = match parse(&text) {
            Ok((_, report)) => {
                prop_assert_eq!(report.errors(), 0);
                report
            }
            Err(report) => {
                prop_assert!(report.errors() > 0);
                report
            }
        };
        let lines = text.matches('\n').count() + 1;
        for diagnostic in &report.diagnostics {
            let (line, column) = report.position(diagnostic.span.start);
            prop_assert!((1..=lines).contains(&line) && column >= 1);
        }
        prop_assert_eq!(report.to_string().is_empty(), report.diagnostics.is_empty());
        prop_assert_eq!(report.render(true).is_empty(), report.diagnostics.is_empty());
    }
}

#[test]
fn a_new_installation_has_automatic_protection() {
    let guard = valid(BOTH).engine.guard;
    assert_eq!(guard, GuardPolicy::default());
    assert_eq!(guard.level, Level::AutoProtection);
    assert_eq!(guard.retention, Some(Duration::from_secs(3600)));
}

#[test]
fn the_guard_takes_its_limits_and_lists() {
    let guard = valid(&format!(
        "{BOTH}\n{}",
        r#"
[guard]
level = "allow-list-only"
dos_threshold = 10
dos_window_seconds = 2
connections = 20
segments = 200
ddos_threshold = 5000
ddos_window_seconds = 10
fragments = 30
malformed = 3
scanners = ["Rude-Scanner"]
emergency_numbers = ["113", "*55"]
retention = "infinite"
deny_max = 7
allow = ["203.0.113.0/24", "2001:db8:5::/48"]
allow_max = 2
block = ["198.51.100.77"]
block_max = 9
"#
    ))
    .engine
    .guard;
    let expected = GuardPolicy {
        level: Level::AllowListOnly,
        requests: Limit { count: 10, window: Duration::from_secs(2) },
        connections: 20,
        segments: 200,
        total: Limit { count: 5000, window: Duration::from_secs(10) },
        fragments: 30,
        malformed: 3,
        scanners: vec!["rude-scanner".to_owned()],
        emergency_numbers: vec!["113".to_owned(), "*55".to_owned()],
        retention: None,
        deny_max: 7,
        allow: vec![
            Prefix { addr: "203.0.113.0".parse().unwrap(), len: 24 },
            Prefix { addr: "2001:db8:5::".parse().unwrap(), len: 48 },
        ],
        allow_max: 2,
        block: vec![Prefix { addr: "198.51.100.77".parse().unwrap(), len: 32 }],
        block_max: 9,
    };
    assert_eq!(guard, expected);
}

#[test]
fn limits_and_lists_of_the_guard_have_bounds() {
    refused(
        &format!(
            "{BOTH}{}",
            r#"[guard]
level = "off"
dos_threshold = 9
dos_window_seconds = 11
retention = "2 h"
allow = ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
allow_max = 2
block = ["192.0.2.9", "192.0.2.9"]
"#
        ),
        &[
            "/etc/sbc/sbc.toml:10:9: error: guard.level: \"off\" is no level (allowed: \"none\", \"auto-protection\" \
             or \"allow-list-only\")",
            "/etc/sbc/sbc.toml:11:17: error: guard.dos_threshold: out of bounds: 9 (allowed: a whole number from 10 \
             to 5000)",
            "/etc/sbc/sbc.toml:12:22: error: guard.dos_window_seconds: out of bounds: 11 (allowed: a whole number \
             from 2 to 10)",
            "/etc/sbc/sbc.toml:13:13: error: guard.retention: \"2 h\" is none of the times (allowed: \"30 s\", \
             \"5 min\", \"30 min\", \"1 h\", \"1 day\", \"1 week\" or \"infinite\")",
            "/etc/sbc/sbc.toml:14:36: error: guard.allow: the list is full: it holds 2 at most (allowed: fewer \
             entries, or a larger `allow_max`)",
            "/etc/sbc/sbc.toml:16:23: error: guard.block: is on the list already",
        ],
    );
}
