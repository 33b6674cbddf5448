//! IPv4 on one side, IPv6 on the other: each side is told of our address in its family, the plan has both.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sbc_core::config::{MediaSourceRule, TrunkMedia};
use sbc_core::media::plan::SourcePolicy;

use crate::offer;
use crate::pair::ua::OnUpdate;
use crate::pair::{Pair, Setup, sdp};

const OURS: &str = "2001:db8:9::1";

fn pair(source: MediaSourceRule) -> Pair {
    let media_b = TrunkMedia { source, ..TrunkMedia::default() };
    Pair::with(Setup { inside_media: OURS, media_b, ..Setup::default() })
}

fn v6(port: u16, more: &str) -> String {
    sdp("2001:db8:9::20", port, "8 101", more).replace("IP4", "IP6")
}

fn lines<'a>(body: &'a str, kind: &str) -> Vec<&'a str> {
    body.lines().filter(|line| line.starts_with(kind)).collect()
}

#[test]
fn a_call_crosses_from_ipv4_to_ipv6_and_changes_both_ways() {
    let mut pair = pair(MediaSourceRule::Signalled);
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    let invite = pair.b.last("INVITE", 0).body().to_owned();
    assert_eq!(lines(&invite, "c="), ["c=IN IP6 2001:db8:9::1"]);
    assert!(lines(&invite, "o=")[0].ends_with(" IN IP6 2001:db8:9::1"), "{invite}");
    let stream = pair.plan().streams[0].clone();
    assert_eq!(
        (stream.caller.local_ip, stream.callee.local_ip),
        ("203.0.113.1".parse().unwrap(), OURS.parse::<IpAddr>().unwrap())
    );
    // Its signalling is IPv4: nobody on an IPv6 port can be known by that.
    assert_eq!((stream.callee.peer, stream.callee.source), (None, SourcePolicy::Signalled));
    pair.b.respond(200, Some(&v6(50000, "")));
    pair.b.invite_done();
    pair.run_ms(100);
    let answer = pair.a.last("INVITE", 200).body().to_owned();
    assert_eq!(lines(&answer, "c="), ["c=IN IP4 203.0.113.1"]);
    assert!(lines(&answer, "o=")[0].ends_with(" IN IP4 203.0.113.1") && !answer.contains("IP6"), "{answer}");
    let peer = |pair: &Pair| pair.plan().streams[0].callee.peer.unwrap();
    assert_eq!(peer(&pair).rtp, "[2001:db8:9::20]:50000".parse().unwrap());
    assert_eq!(peer(&pair).rtcp, "[2001:db8:9::20]:50001".parse().unwrap());
    // The IPv6 side moves, says where its RTCP goes, and holds the old way.
    pair.a.on_update = OnUpdate::Answer(offer());
    pair.b.reinvite(Some(&v6(50010, "a=rtcp:50021 IN IP6 2001:db8:9::21\r\n")));
    pair.run_ms(200);
    assert!(pair.a.last("INVITE", 0).body().contains("c=IN IP4 203.0.113.1"));
    assert_eq!(peer(&pair).rtcp, "[2001:db8:9::21]:50021".parse().unwrap());
    pair.b.reinvite(Some(&v6(50010, "").replace("2001:db8:9::20", "::")));
    pair.run_ms(200);
    assert!(pair.a.last("INVITE", 0).body().contains("a=sendonly"));
    assert_eq!(pair.plan().streams[0].callee.peer, None);
    pair.a.bye();
    pair.assert_nothing_left(1);
}

#[test]
fn the_other_family_is_refused_on_either_side() {
    let mut pair = pair(MediaSourceRule::Signalled);
    pair.a.invite("bob", Some(&v6(40000, "")));
    pair.run_ms(100);
    assert!(pair.a.last("INVITE", 488).header("Warning").unwrap().starts_with("301 "));
    pair.assert_nothing_left(1);
    let mut pair = self::pair(MediaSourceRule::Signalled);
    pair.a.invite("bob", Some(&offer()));
    pair.run_ms(100);
    pair.b.respond(200, Some(&sdp("10.9.0.20", 50000, "8", "")));
    pair.b.invite_done();
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.a.count("INVITE", 502), 1, "{:?}", pair.a.summary());
    pair.assert_nothing_left(1);
}

#[test]
fn ipv6_media_is_learned_by_prefixes_of_its_own_family() {
    for (source, may, may_not) in [
        (MediaSourceRule::SdpSubnet, "2001:db8:9::77", "2001:db8:9:1::20"),
        (MediaSourceRule::Any, "2001:db8:77::1", "198.51.100.10"),
    ] {
        let mut pair = pair(source);
        pair.a.invite("bob", Some(&offer()));
        pair.run_ms(100);
        pair.b.respond(200, Some(&v6(50000, "")));
        pair.b.invite_done();
        pair.run_ms(100);
        let policy = pair.plan().streams[0].callee.source;
        let from = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 4000);
        assert!(policy.lets_claim(from(may)) && !policy.lets_claim(from(may_not)), "{policy:?}");
        for plan in &pair.installed {
            if let SourcePolicy::Learn { allowed, .. } = plan.streams[0].callee.source {
                assert!(allowed.addr.is_ipv6(), "{plan:?}");
            }
        }
        pair.a.bye();
        pair.assert_nothing_left(1);
    }
}
