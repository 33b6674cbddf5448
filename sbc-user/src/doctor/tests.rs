//! Each check against a host that is right, and against one with a single thing wrong.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::*;
use crate::config::OtherHost;
use crate::dataplane::xdp::inspect::ABI;

const CONFIG: &str = r#"
[public]
bind = "198.51.100.1"
udp = 5060
peers = ["198.51.100.2/32"]
next_hop = "udp:198.51.100.2:5060"

[private]
bind = "10.0.0.1"
udp = 5060
pbx = "udp:10.0.0.2:5060"
"#;

/// A host made of values.
#[derive(Clone)]
struct Fake {
    config: String,
    system: System,
    interfaces: Vec<Interface>,
    nic: Nic,
    filter: Filter,
    pinned: Vec<Pinned>,
    descriptors: Option<u64>,
}

impl HostFacts for Fake {
    fn system(&self) -> Result<System, Unseen> {
        Ok(self.system.clone())
    }

    fn interfaces(&self) -> Result<Vec<Interface>, Unseen> {
        if self.interfaces.is_empty() {
            return Err(Unseen::new("the interfaces", "netlink is silent"));
        }
        Ok(self.interfaces.clone())
    }

    /// The first interface has the driver of the test, the others one that is right.
    fn nic(&self, interface: &Interface) -> Nic {
        if interface.ifindex == 2 { self.nic.clone() } else { right().nic }
    }

    fn filter(&self) -> Filter {
        self.filter.clone()
    }

    fn pinned(&self) -> Result<Vec<Pinned>, Unseen> {
        Ok(self.pinned.clone())
    }

    fn descriptors(&self, process: Option<u32>) -> Option<u64> {
        assert_eq!(
            process,
            self.pinned.iter().find(|own| own.instance == "main").and_then(|own| own.running)
        );
        self.descriptors
    }
}

fn interface(ifindex: u32, name: &str, address: &str) -> Interface {
    Interface {
        ifindex,
        name: name.to_owned(),
        ethernet: true,
        up: true,
        mtu: 1500,
        addresses: vec![address.parse().unwrap()],
        vlan: None,
        xdp: Some(Attachment { program: 40 + ifindex, name: "sbc".to_owned(), native: true }),
    }
}

/// A host on which everything is right and the daemon runs.
fn right() -> Fake {
    let xdp = Some(Attachment { program: 77, name: "sbc".to_owned(), native: true });
    let public = Interface { xdp: xdp.clone(), ..interface(2, "eth0", "198.51.100.1") };
    let private = Interface { xdp, ..interface(3, "eth1", "10.0.0.1") };
    Fake {
        config: CONFIG.to_owned(),
        system: System {
            kernel_release: "6.12.9-amd64".to_owned(),
            jit: Some(true),
            btf: true,
            bpffs: true,
            missing_map_types: Vec::new(),
            cpus: 4,
            local_ports: 32_768..=60_999,
            reserved_ports: (1024..=65_535).collect(),
            now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000),
            clock_synchronised: Some(true),
        },
        interfaces: vec![public, private],
        nic: Nic {
            driver: Some("ice".to_owned()),
            native_xdp: Some(true),
            takes_redirected: Some(true),
            offloads: Some(["rx-gro".to_owned()].into()),
            queues: Some(Queues { now: 4, most: 16, combined: true }),
            udp4_hash: Some(Hash { addresses: true, ports: true }),
            udp6_hash: Some(Hash { addresses: true, ports: true }),
        },
        filter: Filter { rules: Some(Vec::new()), legacy_tables: Vec::new() },
        pinned: vec![Pinned {
            instance: "main".to_owned(),
            abi: ABI,
            path: PathBuf::from("/sys/fs/bpf/sbc/main/v"),
            running: Some(4711),
            program: Some(77),
            interfaces: vec!["eth0".to_owned(), "eth1".to_owned()],
            bad_checksums: Some(0),
        }],
        descriptors: Some(1 << 20),
    }
}

fn look(fake: &Fake) -> Report {
    let config = Config::parse(Path::new("sbc.toml"), &fake.config, &OtherHost);
    let (config, _) = config.unwrap_or_else(|report| panic!("{report}"));
    examine(&config, fake).unwrap()
}

/// The one change, the check that must notice, how bad it is, and a part of what mends it.
type Case = (&'static str, fn(&mut Fake), Severity, &'static str);

const CASES: &[Case] = &[
    (
        "kernel-version",
        |host| host.system.kernel_release = "5.15.0-91-generic".to_owned(),
        Severity::Fault,
        "apt-get",
    ),
    ("kernel-version", |host| host.system.kernel_release = "custom".to_owned(), Severity::Warning, ""),
    ("jit", |host| host.system.jit = Some(false), Severity::Warning, "sysctl -w net.core.bpf_jit_enable=1"),
    ("jit", |host| host.system.jit = None, Severity::Note, "nsenter"),
    ("btf", |host| host.system.btf = false, Severity::Warning, "CONFIG_DEBUG_INFO_BTF"),
    ("bpffs", |host| no_bpffs(host), Severity::Fault, "mount -t bpf bpf /sys/fs/bpf"),
    ("map-types", |host| host.system.missing_map_types = vec!["ring buffer"], Severity::Fault, "kernel"),
    (
        "address",
        |host| host.interfaces[0].addresses.clear(),
        Severity::Fault,
        "ip addr add 198.51.100.1/32 dev",
    ),
    ("address", |host| later(host), Severity::Note, "ip addr add 198.51.100.1/32 dev"),
    ("address", |host| host.interfaces[0].up = false, Severity::Fault, "ip link set dev eth0 up"),
    ("address", |host| host.interfaces[0].ethernet = false, Severity::Note, "Ethernet"),
    ("address", |host| host.interfaces[0].vlan = Some((99, 7)), Severity::Warning, "namespace"),
    ("driver", |host| host.nic.native_xdp = Some(false), Severity::Warning, "network card"),
    ("driver", |host| host.nic.native_xdp = None, Severity::Note, ""),
    ("driver", |host| driver(host, "bonding"), Severity::Warning, "physical interface"),
    ("driver", |host| driver(host, "bridge"), Severity::Warning, "physical interface"),
    ("program", |host| host.interfaces[0].xdp = None, Severity::Fault, "sbcctl status"),
    ("program", |host| foreign(host, 5, true), Severity::Fault, "ip link set dev eth0 xdp off"),
    ("program", |host| foreign(host, 5, false), Severity::Fault, "ip link set dev eth0 xdpgeneric off"),
    ("program", |host| foreign(host, 77, false), Severity::Fault, "ip link set dev eth0 xdpgeneric off"),
    ("program", |host| others_program(host), Severity::Fault, "instance lab"),
    ("redirect-target", |host| host.nic.takes_redirected = Some(false), Severity::Fault, "ndo_xdp_xmit"),
    ("redirect-target", |host| host.nic.takes_redirected = None, Severity::Note, ""),
    ("redirect-target", |host| deaf_veth(host), Severity::Fault, "gro on"),
    ("mtu", |host| jumbo(host, "ice"), Severity::Fault, "ip link set dev eth0 mtu 1500"),
    ("mtu", |host| jumbo(host, "some_driver"), Severity::Warning, "ip link set dev eth0 mtu 1500"),
    ("offloads", |host| host.nic.offloads = None, Severity::Note, ""),
    ("lro", |host| offload(host, "rx-lro"), Severity::Fault, "ethtool -K eth0 lro off"),
    ("gro-hw", |host| offload(host, "rx-gro-hw"), Severity::Warning, "ethtool -K eth0 rx-gro-hw off"),
    ("address", |host| stacked(host, 3), Severity::Note, "two tags at most"),
    ("rxvlan", |host| stacked(host, 2), Severity::Fault, "ethtool -K eth0 rxvlan off"),
    ("rxvlan", |host| tagged(host), Severity::Fault, "ethtool -K eth0 rxvlan off"),
    ("rxvlan", |host| tagged_veth(host), Severity::Note, "txvlan off"),
    ("veth-checksums", |host| driver(host, "veth"), Severity::Note, "tx off"),
    ("checksums", |host| host.pinned[0].bad_checksums = Some(3), Severity::Warning, "tx off"),
    ("queues", |host| queues(host, 1, 16), Severity::Warning, "ethtool -L eth0 combined 4"),
    ("queues", |host| host.nic.queues = None, Severity::Note, ""),
    ("queues", |host| few_virtio(host), Severity::Warning, "8 queues"),
    ("queues", |host| full_ena(host), Severity::Fault, "ethtool -L eth0 combined 4"),
    ("udp-hash", |host| by_addresses(host), Severity::Warning, "ethtool -N eth0 rx-flow-hash udp4 sdfn"),
    ("udp-hash", |host| host.nic.udp4_hash = None, Severity::Note, "ethtool -n eth0 rx-flow-hash udp4"),
    ("nft-bypass", |host| host.filter.rules = None, Severity::Note, "nftables"),
    (
        "nft-bypass",
        |host| rule(host, "", &[20_000..=20_001], "drop"),
        Severity::Warning,
        "nft -a list chain ip nat pre",
    ),
    (
        "nft-bypass",
        |host| rule(host, "eth1", &[], "limit"),
        Severity::Warning,
        "nft -a list chain ip nat pre",
    ),
    ("nft-bypass", |host| rule(host, "eth1", &[], "accept"), Severity::Note, "nft -a list chain ip nat pre"),
    ("iptables-legacy", |host| host.filter.legacy_tables = vec!["nat".to_owned()], Severity::Note, "legacy"),
    ("reserved-ports", |host| unreserved(host), Severity::Warning, "ip_local_reserved_ports="),
    ("reserved-ports", |host| unreserved_and_stopped(host), Severity::Note, "ip_local_reserved_ports="),
    ("descriptors", |host| host.descriptors = Some(1024), Severity::Warning, "LimitNOFILE="),
    ("descriptors", |host| host.descriptors = None, Severity::Note, ""),
    ("pins", |host| left(host, "main", ABI + 1), Severity::Warning, "rm -r /sys/fs/bpf/sbc/left"),
    ("pins", |host| left(host, "lab", ABI), Severity::Note, "rm -r /sys/fs/bpf/sbc/left"),
    ("clock", |host| host.system.now = SystemTime::UNIX_EPOCH, Severity::Fault, "timedatectl set-ntp true"),
    ("clock", |host| host.system.clock_synchronised = Some(false), Severity::Warning, "chrony"),
    ("clock", |host| host.system.clock_synchronised = None, Severity::Note, ""),
    ("xdp", |host| host.config.push_str("[daemon]\nxdp = false\n"), Severity::Note, ""),
];

fn no_bpffs(host: &mut Fake) {
    stop(host);
    host.system.bpffs = false;
    host.pinned.clear();
}

/// The daemon has never run here.
fn stop(host: &mut Fake) {
    host.pinned.clear();
    for interface in &mut host.interfaces {
        interface.xdp = None;
    }
}

fn later(host: &mut Fake) {
    host.config = host.config.replacen("udp = 5060", "udp = 5060\nmay_appear_later = true", 1);
    host.interfaces[0].addresses.clear();
}

fn driver(host: &mut Fake, name: &str) {
    host.nic.driver = Some(name.to_owned());
}

fn foreign(host: &mut Fake, program: u32, native: bool) {
    host.interfaces[0].xdp = Some(Attachment { program, name: "other".to_owned(), native });
}

fn others_program(host: &mut Fake) {
    let running = Some(5000);
    let lab = Pinned { instance: "lab".to_owned(), program: Some(5), running, ..host.pinned[0].clone() };
    host.pinned.push(lab);
    foreign(host, 5, true);
}

fn deaf_veth(host: &mut Fake) {
    driver(host, "veth");
    host.nic.takes_redirected = Some(false);
}

fn jumbo(host: &mut Fake, name: &str) {
    stop(host);
    driver(host, name);
    host.interfaces[0].mtu = 9000;
}

fn offload(host: &mut Fake, name: &str) {
    host.nic.offloads = Some([name.to_owned()].into());
}

/// The public address is on VLAN 7 of `eth0`.
fn tagged(host: &mut Fake) {
    let vlan = Interface { vlan: Some((2, 7)), xdp: None, ..interface(9, "eth0.7", "198.51.100.1") };
    host.interfaces[0].addresses.clear();
    host.interfaces.push(vlan);
    offload(host, "rx-vlan-hw-parse");
}

/// The public address is on a VLAN interface on top of others.
fn stacked(host: &mut Fake, tags: u16) {
    tagged(host);
    let addresses = std::mem::take(&mut host.interfaces.last_mut().unwrap().addresses);
    for above in 1..tags {
        let (below, tag) = (u32::from(8 + above), 7 + above);
        let name = format!("eth0.{tag}");
        let vlan = Interface { vlan: Some((below, tag)), ..interface(below + 1, &name, "198.51.100.1") };
        host.interfaces.push(Interface { addresses: Vec::new(), ..vlan });
    }
    host.interfaces.last_mut().unwrap().addresses = addresses;
}

fn tagged_veth(host: &mut Fake) {
    tagged(host);
    driver(host, "veth");
}

fn queues(host: &mut Fake, now: u32, most: u32) {
    host.nic.queues = Some(Queues { now, most, combined: true });
}

fn few_virtio(host: &mut Fake) {
    driver(host, "virtio_net");
    queues(host, 4, 4);
}

fn full_ena(host: &mut Fake) {
    stop(host);
    driver(host, "ena");
    queues(host, 8, 8);
}

fn by_addresses(host: &mut Fake) {
    host.nic.udp4_hash = Some(Hash { addresses: true, ports: false });
}

fn rule(host: &mut Fake, interface: &str, ports: &[RangeInclusive<u16>], action: &str) {
    host.filter.rules = Some(vec![Rule {
        table: "ip nat".to_owned(),
        chain: "pre".to_owned(),
        handle: 9,
        interfaces: [interface].into_iter().filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        ports: ports.to_vec(),
        actions: [action.to_owned()].into(),
    }]);
}

fn unreserved(host: &mut Fake) {
    host.system.local_ports = 1024..=65_535;
    host.system.reserved_ports.clear();
}

fn unreserved_and_stopped(host: &mut Fake) {
    unreserved(host);
    stop(host);
}

fn left(host: &mut Fake, instance: &str, abi: u32) {
    let path = PathBuf::from("/sys/fs/bpf/sbc/left");
    let running = if instance == "main" { Some(4711) } else { None };
    let instance = instance.to_owned();
    host.pinned.push(Pinned { instance, abi, path, running, program: None, ..host.pinned[0].clone() });
}

#[test]
fn a_host_without_fault_has_findings_and_all_are_right() {
    let report = look(&right());
    let bad: Vec<_> = report.findings.iter().filter(|finding| finding.severity != Severity::Ok).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(report.findings.len() > 25, "{}", report.findings.len());
}

#[test]
fn each_check_notices_the_one_thing_that_is_wrong() {
    for (id, break_it, severity, mend) in CASES {
        let mut host = right();
        break_it(&mut host);
        let report = look(&host);
        let found: Vec<_> = report
            .findings
            .iter()
            .filter(|finding| finding.id == *id && finding.severity == *severity)
            .collect();
        assert_eq!(found.len(), 1, "{id} {severity}: {:#?}", report.findings);
        let Finding { mend: said, why, .. } = found[0];
        assert!(!why.is_empty(), "{id}");
        assert!(said.iter().any(|said| said.contains(mend)) || mend.is_empty(), "{id}: {said:?}");
    }
}

#[test]
fn every_check_has_a_case_that_it_notices() {
    let mut host = right();
    tagged(&mut host);
    for finding in look(&host).findings {
        assert!(CASES.iter().any(|(id, ..)| *id == finding.id), "no case breaks {}", finding.id);
    }
}

#[test]
fn only_what_is_wrong_is_said_to_be_wrong() {
    // One thing wrong, one finding; where several follow from it, the case says so here.
    let follow = ["address", "rxvlan", "redirect-target", "bpffs"];
    for (id, break_it, ..) in CASES.iter().filter(|(id, ..)| !follow.contains(id)) {
        let mut host = right();
        break_it(&mut host);
        let others: Vec<_> = look(&host)
            .findings
            .into_iter()
            .filter(|finding| finding.severity > Severity::Note && finding.id != *id)
            .collect();
        assert!(others.is_empty(), "{id}: {others:#?}");
    }
}

#[test]
fn rules_that_are_not_about_media_are_passed_over() {
    for (interface, ports) in [("eth7", 20_000..=20_001), ("eth0", 22..=22), ("", 5060..=5060)] {
        let mut host = right();
        rule(&mut host, interface, &[ports], "drop");
        let report = look(&host);
        let filter: Vec<_> = report.findings.iter().filter(|finding| finding.id == "nft-bypass").collect();
        assert_eq!((filter.len(), filter[0].severity), (1, Severity::Ok));
    }
    let mut host = right();
    rule(&mut host, "", &[], "drop");
    assert_eq!(look(&host).count(Severity::Warning), 0, "a rule for everything names neither");
}

#[test]
fn one_queue_needs_no_hash_and_an_attached_program_proves_its_mtu() {
    let mut host = right();
    by_addresses(&mut host);
    host.system.cpus = 1;
    queues(&mut host, 1, 1);
    host.interfaces[0].mtu = 9000;
    let report = look(&host);
    assert_eq!(report.count(Severity::Fault) + report.count(Severity::Warning), 0, "{:#?}", report.findings);
}

#[test]
fn what_cannot_be_seen_is_no_health() {
    let mut host = right();
    host.interfaces.clear();
    let (config, _) = Config::parse(Path::new("sbc.toml"), CONFIG, &OtherHost).unwrap();
    assert_eq!(
        examine(&config, &host).unwrap_err().to_string(),
        "cannot look at the interfaces: netlink is silent"
    );
}
