//! Descriptions as they arrive and as they leave, word for word.

use proptest::prelude::*;

use super::anchor::{Addressing, Crypto, Mux, Refusal, Relayed, Stream, rewrite, survey};
use super::formats::Formats;
use super::{Direction, MediaKind, Sdp};
use crate::peer_media::PeerMedia;

/// Rewritten for 198.51.100.7 with session 9, version 3; `\n` stands for CRLF.
fn anchored(body: &str, ports: &[Option<u16>]) -> String {
    let addressing = Addressing {
        advertised: "198.51.100.7".parse().unwrap(),
        ports,
        rtcp_mux: &[],
        session_id: 9,
        session_version: 3,
    };
    let written = rewrite(&sdp(body), &addressing).to_bytes();
    assert_eq!(
        rewrite(&sdp(body), &addressing),
        Sdp::parse(&written).unwrap(),
        "what is held is what is written"
    );
    String::from_utf8(written.to_vec()).unwrap().replace("\r\n", "\n")
}

fn sdp(body: &str) -> Sdp {
    Sdp::parse(body.as_bytes()).unwrap()
}

fn relay(rtp: &str, rtcp: &str, kind: MediaKind, crypto: Crypto, direction: Direction) -> Stream {
    let peer = Some(PeerMedia { rtp: rtp.parse().unwrap(), rtcp: rtcp.parse().unwrap() });
    carried(peer, kind, crypto, direction)
}

/// On ports of its own; formats have tests of their own.
fn carried(peer: Option<PeerMedia>, kind: MediaKind, crypto: Crypto, direction: Direction) -> Stream {
    let (mux, formats) = (Mux::Separate, Formats::default());
    Stream::Relay(Relayed { peer, kind, crypto, direction, mux, formats })
}

fn streams(body: &str) -> Vec<Stream> {
    let mut streams = survey(&sdp(body)).unwrap().streams;
    for stream in &mut streams {
        if let Stream::Relay(relayed) = stream {
            relayed.formats = Formats::default();
        }
    }
    streams
}

fn muxes(body: &str) -> Vec<Mux> {
    let streams = survey(&sdp(body)).unwrap();
    (0..streams.streams.len()).filter_map(|mline| Some(streams.relayed(mline)?.mux)).collect()
}

const PLAIN: &str = "\
v=0
o=alice 2890844526 2890844526 IN IP4 192.0.2.10
s=A call
c=IN IP4 192.0.2.10
b=AS:64
t=0 0
a=ptime:20
m=audio 49170 RTP/AVP 0 8 101
a=rtpmap:0 PCMU/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=sendrecv
";

#[test]
fn a_plain_offer_gets_our_address_and_ports_and_keeps_the_rest() {
    use Direction::SendRecv;
    assert_eq!(
        streams(PLAIN),
        [relay("192.0.2.10:49170", "192.0.2.10:49171", MediaKind::Audio, Crypto::Clear, SendRecv)]
    );
    assert_eq!(
        anchored(PLAIN, &[Some(20_000)]),
        "\
v=0
o=- 9 3 IN IP4 198.51.100.7
s=A call
c=IN IP4 198.51.100.7
b=AS:64
t=0 0
a=ptime:20
m=audio 20000 RTP/AVP 0 8 101
a=rtpmap:0 PCMU/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=sendrecv
"
    );
}

#[test]
fn what_works_only_end_to_end_is_taken_away() {
    let offer = "\
v=0
o=- 1 1 IN IP4 192.0.2.10
s=-
u=http://192.0.2.10/
e=alice@192.0.2.10
t=0 0
a=group:BUNDLE audio video
a=group:LS audio video
a=ice-lite
a=ice-options:trickle
a=fingerprint:sha-256 00:11
m=audio 49170 RTP/AVPF 111 0
c=IN IP4 192.0.2.10
a=mid:audio
a=msid:stream track
a=rtcp:49180 IN IP4 192.0.2.11
a=rtcp-rsize
a=rtcp-fb:111 transport-cc
a=ice-ufrag:abcd
a=ice-pwd:secretsecretsecretsecret
a=candidate:1 1 UDP 2130706431 192.0.2.10 49170 typ host
a=Candidate:2 1 UDP 1694498815 203.0.113.4 5000 typ srflx raddr 192.0.2.10 rport 49170
a=remote-candidates:1 203.0.113.9 4000
a=end-of-candidates
a=setup:actpass
a=tcap:1 RTP/SAVPF
a=pcfg:1 t=1
a=rtpmap:111 opus/48000/2
m=video 49172 RTP/AVPF 96
c=IN IP4 192.0.2.10
a=mid:video
a=bundle-only
a=recvonly
";
    assert_eq!(
        streams(offer),
        [
            relay(
                "192.0.2.10:49170",
                "192.0.2.11:49180",
                MediaKind::Audio,
                Crypto::Clear,
                Direction::SendRecv
            ),
            relay(
                "192.0.2.10:49172",
                "192.0.2.10:49173",
                MediaKind::Video,
                Crypto::Clear,
                Direction::RecvOnly
            ),
        ]
    );
    assert_eq!(
        anchored(offer, &[Some(20_000), Some(20_002)]),
        "\
v=0
o=- 9 3 IN IP4 198.51.100.7
s=-
t=0 0
a=group:LS audio video
m=audio 20000 RTP/AVPF 111 0
c=IN IP4 198.51.100.7
a=mid:audio
a=msid:stream track
a=rtcp-rsize
a=rtcp-fb:111 transport-cc
a=rtpmap:111 opus/48000/2
m=video 20002 RTP/AVPF 96
c=IN IP4 198.51.100.7
a=mid:video
a=recvonly
"
    );
}

#[test]
fn whether_rtcp_shares_the_port_is_said_for_each_side_anew() {
    let offer = "\
v=0
o=- 1 1 IN IP4 192.0.2.10
s=-
c=IN IP4 192.0.2.10
t=0 0
m=audio 49170 RTP/AVP 0
a=rtcp:49170
a=rtcp-mux
a=ptime:20
m=video 49172 RTP/AVP 31
a=RTCP-MUX-only
a=rtcp-mux
m=video 49174 RTP/AVP 31
";
    assert_eq!(muxes(offer), [Mux::Shared, Mux::Only, Mux::Separate]);
    let addressing = Addressing {
        advertised: "198.51.100.7".parse().unwrap(),
        ports: &[Some(20_000), Some(20_002), Some(20_004)],
        rtcp_mux: &[false, true, true],
        session_id: 9,
        session_version: 3,
    };
    let written = String::from_utf8(rewrite(&sdp(offer), &addressing).to_bytes().to_vec()).unwrap();
    assert_eq!(
        written.replace("\r\n", "\n"),
        "\
v=0
o=- 9 3 IN IP4 198.51.100.7
s=-
c=IN IP4 198.51.100.7
t=0 0
m=audio 20000 RTP/AVP 0
a=ptime:20
m=video 20002 RTP/AVP 31
a=rtcp-mux
m=video 20004 RTP/AVP 31
a=rtcp-mux
"
    );
    let mut survey = survey(&sdp(offer)).unwrap();
    survey.allow_mux(|_| false).unwrap();
    let left: Vec<_> = (0..3).map(|mline| survey.relayed(mline).map(|it| it.mux)).collect();
    assert_eq!(left, [Some(Mux::Separate), None, Some(Mux::Separate)], "what cannot do without is refused");
    let only = "v=0\nc=IN IP4 192.0.2.10\nm=audio 4000 RTP/AVP 0\na=rtcp-mux-only\na=rtcp-mux\n";
    let mut only = super::anchor::survey(&sdp(only)).unwrap();
    assert_eq!(only.allow_mux(|_| false), Err(Refusal::NothingToCarry));
}

#[test]
fn sdes_keys_pass_untouched() {
    let offer = "\
v=0
o=- 1 1 IN IP4 192.0.2.10
s=-
c=IN IP4 192.0.2.10
t=0 0
m=audio 49170 RTP/SAVP 0
a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj|2^20|1:32
a=crypto:2 AEAD_AES_256_GCM  inline:AAAA  KDR=1
a=fingerprint:sha-256 00:11
m=audio 49172 RTP/AVP 0
a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj
";
    let secure = |rtp, rtcp| relay(rtp, rtcp, MediaKind::Audio, Crypto::Sdes, Direction::SendRecv);
    assert_eq!(
        streams(offer),
        [secure("192.0.2.10:49170", "192.0.2.10:49171"), secure("192.0.2.10:49172", "192.0.2.10:49173")]
    );
    let written = anchored(offer, &[Some(20_000), Some(20_002)]);
    let keys = |body: &str| {
        body.lines().filter(|line| line.starts_with("a=crypto")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(keys(&written), keys(offer));
    assert!(!written.contains("fingerprint"));
}

#[test]
fn streams_that_are_not_carried_keep_their_place_and_lose_everything_else() {
    let offer = "\
v=0
o=- 1 1 IN IP4 192.0.2.10
s=-
c=IN IP4 192.0.2.10
t=0 0
m=audio 49170/1 RTP/AVP 0
m=image 49180 udptl t38
a=T38FaxVersion:0
m=application 49190 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 192.0.2.10
a=mid:data
a=sctp-port:5000
m=message 49200 TCP/MSRP *
a=path:msrp://192.0.2.10:49200/s;tcp
m=video 0 RTP/AVP 96
a=rtpmap:96 H264/90000
m=audio 70000 RTP/AVP 0
m=audio 49210 TCP/RTP/AVP 0
m=audio 49220/2 RTP/AVP 0
";
    assert_eq!(streams(offer)[1..], {
        use Stream::{Disabled, Reject};
        [Reject, Reject, Reject, Disabled, Disabled, Reject, Reject]
    });
    assert_eq!(
        anchored(offer, &[Some(20_000)]),
        "\
v=0
o=- 9 3 IN IP4 198.51.100.7
s=-
c=IN IP4 198.51.100.7
t=0 0
m=audio 20000 RTP/AVP 0
m=image 0 udptl t38
m=application 0 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 198.51.100.7
a=mid:data
m=message 0 TCP/MSRP *
m=video 0 RTP/AVP 96
m=audio 0 RTP/AVP 0
m=audio 0 TCP/RTP/AVP 0
m=audio 0 RTP/AVP 0
"
    );
}

#[test]
fn hold_keeps_its_meaning() {
    for (session, media, direction, lines) in [
        ("", "a=sendonly\n", Direction::SendOnly, "a=sendonly\n"),
        ("", "a=inactive\n", Direction::Inactive, "a=inactive\n"),
        ("a=inactive\n", "", Direction::Inactive, ""),
        ("a=inactive\n", "a=recvonly\n", Direction::RecvOnly, "a=recvonly\n"),
    ] {
        let offer = format!(
            "v=0\no=- 1 1 IN IP4 192.0.2.10\nc=IN IP4 192.0.2.10\n{session}m=audio 4000 RTP/AVP 0\n{media}"
        );
        assert_eq!(
            streams(&offer),
            [relay("192.0.2.10:4000", "192.0.2.10:4001", MediaKind::Audio, Crypto::Clear, direction)]
        );
        let expected = format!(
            "v=0\no=- 9 3 IN IP4 198.51.100.7\nc=IN IP4 198.51.100.7\n{session}m=audio 20000 RTP/AVP 0\n{lines}"
        );
        assert_eq!(anchored(&offer, &[Some(20_000)]), expected);
    }
}

#[test]
fn the_old_form_of_hold_becomes_the_new_one() {
    for address in ["IN IP4 0.0.0.0", "IN IP6 ::", "IN IP6 hold.invalid"] {
        for (given, direction) in [
            ("", Direction::SendOnly),
            ("a=sendrecv\n", Direction::SendOnly),
            ("a=sendonly\n", Direction::SendOnly),
            ("a=recvonly\n", Direction::Inactive),
            ("a=inactive\n", Direction::Inactive),
        ] {
            let offer = format!(
                "v=0\no=- 1 1 IN IP4 192.0.2.10\nc={address}\nm=audio 4000 RTP/AVP 0\n{given}a=ptime:20\n"
            );
            let stream = carried(None, MediaKind::Audio, Crypto::Clear, direction);
            assert_eq!(streams(&offer), [stream], "{address} {given}");
            let name = direction.name();
            assert_eq!(
                anchored(&offer, &[Some(20_000)]),
                format!(
                    "v=0\no=- 9 3 IN IP4 198.51.100.7\nc=IN IP4 198.51.100.7\nm=audio 20000 RTP/AVP 0\na=ptime:20\na={name}\n"
                )
            );
        }
    }
}

#[test]
fn an_ipv6_side_is_written_as_such() {
    let addressing = Addressing {
        advertised: "2001:db8::7".parse().unwrap(),
        ports: &[Some(20_000)],
        rtcp_mux: &[],
        session_id: 9,
        session_version: 3,
    };
    let written = rewrite(&sdp(PLAIN), &addressing);
    let body = String::from_utf8(written.to_bytes().to_vec()).unwrap();
    assert!(
        body.contains("\r\no=- 9 3 IN IP6 2001:db8::7\r\n") && body.contains("\r\nc=IN IP6 2001:db8::7\r\n"),
        "{body}"
    );
    let seen = survey(&written).unwrap();
    assert_eq!(seen.require_family("2001:db8::1".parse().unwrap()), Ok(()));
    assert_eq!(seen.require_family("192.0.2.1".parse().unwrap()), Err(Refusal::WrongFamily { mline: 0 }));
}

#[test]
fn no_line_repeats_an_address_of_the_other_side() {
    let offer = "v=0\no=- 1 1 IN IP4 Host.Internal.example\ns=call from 192.0.2.10\ni=at 192.0.2.99\n\
                 c=IN IP4 192.0.2.10\na=oldmediaip:192.0.2.10\na=x-at:host.internal.example:5060\na=x-kept:192.0.2.101\n\
                 m=audio 4000 RTP/AVP 0\nc=IN IP4 192.0.2.99/127\na=x-relay:192.0.2.99:4000\na=x-ours:198.51.100.7\n";
    assert_eq!(
        anchored(offer, &[Some(20_000)]),
        "v=0\no=- 9 3 IN IP4 198.51.100.7\ns=-\nc=IN IP4 198.51.100.7\na=x-kept:192.0.2.101\n\
         m=audio 20000 RTP/AVP 0\nc=IN IP4 198.51.100.7\na=x-ours:198.51.100.7\n"
    );
}

#[test]
fn what_no_call_can_be_made_of_is_refused_with_a_reason() {
    const HEAD: &str = "v=0\no=- 1 1 IN IP4 192.0.2.10\n";
    const HERE: &str = "c=IN IP4 192.0.2.10\n";
    for (rest, refusal) in [
        (
            format!("{HERE}m=audio 4000 UDP/TLS/RTP/SAVPF 111\na=fingerprint:sha-256 00\n"),
            Refusal::DtlsSrtp { mline: 0 },
        ),
        (
            format!("{HERE}a=fingerprint:sha-256 00\nm=audio 4000 RTP/SAVPF 0\n"),
            Refusal::DtlsSrtp { mline: 0 },
        ),
        (
            format!("{HERE}m=audio 4000 RTP/AVP 0\nm=video 4002 udp/tls/rtp/savp 96\n"),
            Refusal::DtlsSrtp { mline: 1 },
        ),
        (format!("{HERE}m=image 4000 udptl t38\n"), Refusal::NothingToCarry),
        ("m=audio 4000 RTP/AVP 0\n".to_owned(), Refusal::NoConnection { mline: 0 }),
        (
            "c=IN IP4 media.example.com\nm=audio 4000 RTP/AVP 0\n".to_owned(),
            Refusal::NotAnAddress { mline: 0 },
        ),
        ("c=ATM NSAP 47\nm=audio 4000 RTP/AVP 0\n".to_owned(), Refusal::NotAnAddress { mline: 0 }),
        ("c=IN IP4 233.252.0.1/127\nm=audio 4000 RTP/AVP 0\n".to_owned(), Refusal::NotUnicast { mline: 0 }),
        ("c=IN IP4 255.255.255.255\nm=audio 4000 RTP/AVP 0\n".to_owned(), Refusal::NotUnicast { mline: 0 }),
    ] {
        assert_eq!(survey(&sdp(&format!("{HEAD}{rest}"))), Err(refusal), "{rest}");
    }
}

#[test]
fn a_stream_that_is_off_needs_no_address() {
    assert_eq!(streams("v=0\no=- 1 1 IN IP4 192.0.2.10\nm=audio 0 RTP/AVP 0\n"), [Stream::Disabled]);
    assert_eq!(streams("v=0\no=- 1 1 IN IP4 192.0.2.10\n"), []);
}

#[test]
fn rtcp_goes_where_the_peer_says_if_that_can_be() {
    for (line, rtcp) in [
        ("", "192.0.2.10:4001"),
        ("a=rtcp:5000", "192.0.2.10:5000"),
        ("a=rtcp:5000 IN IP4 192.0.2.99", "192.0.2.99:5000"),
        ("a=rtcp:5000 IN IP4 0.0.0.0", "192.0.2.10:5000"),
        ("a=rtcp:5000 IN IP4 233.252.0.1", "192.0.2.10:5000"),
        ("a=rtcp:5000 IN IP6 2001:db8::1", "192.0.2.10:5000"),
        ("a=rtcp:5000 IN IP4 media.example.com", "192.0.2.10:5000"),
        ("a=rtcp:0", "192.0.2.10:4001"),
        ("a=rtcp:nonsense", "192.0.2.10:4001"),
    ] {
        let offer = format!("v=0\nc=IN IP4 192.0.2.10\nm=audio 4000 RTP/AVP 0\n{line}\n");
        let expected = relay("192.0.2.10:4000", rtcp, MediaKind::Audio, Crypto::Clear, Direction::SendRecv);
        assert_eq!(streams(&offer), [expected], "{line}");
        assert!(!anchored(&offer, &[Some(20_000)]).contains("a=rtcp"));
    }
    let last = "v=0\nc=IN IP4 192.0.2.10\nm=audio 65535 RTP/AVP 0\nm=audio 4000 RTP/AVP 0\n";
    assert_eq!(streams(last)[0], Stream::Reject, "no port is left for RTCP");
}

/// Lines that a description may hold, the peer's address 192.0.2.10 in every place that we know.
fn line() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "o=root 1 1 IN IP4 192.0.2.10",
        "s=-",
        "u=http://192.0.2.10",
        "e=a@192.0.2.10",
        "p=192.0.2.10",
        "c=IN IP4 192.0.2.10",
        " c=IN IP4 192.0.2.10",
        "c=IN IP4 0.0.0.0",
        "b=AS:64",
        "t=0 0",
        "m=audio 4000 RTP/AVP 0",
        "m=video 4002 RTP/SAVPF 96",
        "m=image 4004 udptl t38",
        "m=message 4006 TCP/MSRP *",
        "a=sendonly",
        "a=recvonly",
        "a=rtcp:4001 IN IP4 192.0.2.10",
        "a= candidate:1 1 UDP 1 192.0.2.10 4000 typ host",
        "a=remote-candidates:1 192.0.2.10 4000",
        "a=altc:1 IP4 192.0.2.10 4000",
        "a=source-filter: incl IN IP4 * 192.0.2.10",
        "a=ssrc:7 cname:alice@192.0.2.10",
        "a=ssrc:7  CNAME:192.0.2.10",
        "a=ssrc:7 fmtp:96 kept",
        "a=mid:1",
        "a=x-unknown:kept",
    ])
}

proptest! {
    #[test]
    fn nothing_of_the_other_side_is_left(lines in prop::collection::vec(line(), 0..40), ports in prop::collection::vec(prop::option::of(1024u16..), 0..8)) {
        let body = format!("v=0\n{}\n", lines.join("\n"));
        let written = anchored(&body, &ports);
        prop_assert!(!written.contains("192.0.2.10"), "{written}");
        prop_assert!(!written.contains("0.0.0.0"), "{written}");
        prop_assert_eq!(written.matches("\no=").count(), 1);
        prop_assert_eq!(written.matches("\nm=").count(), body.matches("\nm=").count());
        for (mline, media) in written.split("\nm=").skip(1).enumerate() {
            let port: u16 = media.split(' ').nth(1).unwrap().parse().unwrap();
            prop_assert_eq!(port, ports.get(mline).copied().flatten().unwrap_or(0));
        }
    }

    #[test]
    fn anything_that_can_be_read_can_be_anchored(body: Vec<u8>, tail in "([a-z]=[ -~]{0,30}\n){0,20}") {
        if let Ok(sdp) = Sdp::parse(&[b"v=0\n".as_slice(), tail.as_bytes(), &body].concat()) {
            let _ = survey(&sdp);
            let to = Addressing { advertised: "198.51.100.7".parse().unwrap(), ports: &[Some(4)], rtcp_mux: &[true], session_id: 1, session_version: 1 };
            let once = rewrite(&sdp, &to);
            prop_assert_eq!(rewrite(&once, &to), once);
        }
    }
}
