//! Counts RTP in captures of the two networks on both sides of a call path.
//!
//! RTP alone counts, not RTCP. What a party still sends after its call's BYE was seen on the side where signalling is
//! in the clear (`near` the PBX) does not count, on either side. A stream keeps its SSRC across the SBC, which ties
//! what is seen on the far side to the call.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use crate::pcap::Packet;

/// RTP that travelled one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Direction {
    /// Seen where the sender is.
    pub sent: u64,
    /// Seen where the receiver is.
    pub received: u64,
}

/// RTP both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// From the far side to the side near the PBX.
    pub to_near: Direction,
    /// From the side near the PBX to the far side.
    pub to_far: Direction,
    /// Packets of any kind with a wrong checksum.
    pub wrong_checksums: u64,
}

impl Counts {
    /// Sent in both directions.
    pub fn sent(&self) -> u64 {
        self.to_near.sent + self.to_far.sent
    }

    /// Received in both directions.
    pub fn received(&self) -> u64 {
        self.to_near.received + self.to_far.received
    }
}

/// Who is on a captured network, apart from the SBC.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// The party's address.
    pub party: IpAddr,
    /// What was captured there.
    pub packets: &'a [Packet],
}

/// Counts both ways.
pub fn count(far: Side<'_>, near: Side<'_>) -> Counts {
    let ends = call_ends(near.packets);
    // When the stream with this SSRC stops to count, by who sent it.
    let mut until: HashMap<(bool, u32), u64> = HashMap::new();
    let mut counts = Counts::default();
    for packet in near.packets {
        counts.wrong_checksums += u64::from(!packet.checksums_right);
        let Some(ssrc) = rtp_ssrc(packet) else { continue };
        let leaves = packet.source.ip() == near.party;
        // Our own media address is named in the offer that the PBX got.
        let end = ends.get(if leaves { &packet.destination } else { &packet.source }).copied();
        let end = end.unwrap_or(u64::MAX);
        until.insert((leaves, ssrc), end);
        if packet.time_ns <= end {
            let counter = if leaves { &mut counts.to_far.sent } else { &mut counts.to_near.received };
            *counter += 1;
        }
    }
    for packet in far.packets {
        counts.wrong_checksums += u64::from(!packet.checksums_right);
        let Some(ssrc) = rtp_ssrc(packet) else { continue };
        let leaves = packet.source.ip() == far.party;
        // A stream that never arrived counts in full: it is lost.
        let end = until.get(&(!leaves, ssrc)).copied().unwrap_or(u64::MAX);
        if packet.time_ns <= end {
            let counter = if leaves { &mut counts.to_near.sent } else { &mut counts.to_far.received };
            *counter += 1;
        }
    }
    counts
}

/// By the caller's media address in each INVITE: when the call's BYE was seen.
fn call_ends(packets: &[Packet]) -> HashMap<SocketAddr, u64> {
    let mut media: HashMap<String, HashSet<SocketAddr>> = HashMap::new();
    let mut ends = HashMap::new();
    for (packet, text) in packets.iter().filter_map(|packet| Some((packet, sip(packet)?))) {
        let Some(call) = header(text, "Call-ID").or_else(|| header(text, "i")) else { continue };
        if text.starts_with("INVITE ") {
            media.entry(call.to_owned()).or_default().extend(audio_address(text));
        } else if text.starts_with("BYE ") {
            for address in media.get(call).into_iter().flatten() {
                ends.entry(*address).or_insert(packet.time_ns);
            }
        }
    }
    ends
}

/// Time from each INVITE to its 200 in milliseconds, sorted; one per Call-ID, retransmissions aside.
pub fn setup_times_ms(packets: &[Packet]) -> Vec<f64> {
    let mut began: HashMap<&str, u64> = HashMap::new();
    let mut took = HashMap::new();
    for (packet, text) in packets.iter().filter_map(|packet| Some((packet, sip(packet)?))) {
        let Some(call) = header(text, "Call-ID") else { continue };
        if text.starts_with("INVITE ") {
            began.entry(call).or_insert(packet.time_ns);
        } else if text.starts_with("SIP/2.0 200 ")
            && header(text, "CSeq").is_some_and(|cseq| cseq.ends_with("INVITE"))
            && let Some(began) = began.get(call)
        {
            took.entry(call).or_insert(packet.time_ns.saturating_sub(*began));
        }
    }
    let mut times: Vec<f64> = took.into_values().map(|nanoseconds: u64| nanoseconds as f64 / 1e6).collect();
    times.sort_by(f64::total_cmp);
    times
}

/// The value below which `percent` of the sorted `values` lie (nearest rank).
pub fn percentile(values: &[f64], percent: f64) -> f64 {
    let rank = (percent / 100.0 * values.len() as f64).ceil() as usize;
    values.get(rank.clamp(1, values.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

fn sip(packet: &Packet) -> Option<&str> {
    if packet.is_tcp {
        return None;
    }
    let text = std::str::from_utf8(&packet.payload).ok()?;
    let first = text.lines().next()?;
    (first.starts_with("SIP/2.0 ") || first.ends_with(" SIP/2.0")).then_some(text)
}

fn header<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().take_while(|line| !line.is_empty()).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Address and port of the first audio stream of a message's SDP.
fn audio_address(text: &str) -> Option<SocketAddr> {
    let body = text.split_once("\r\n\r\n")?.1;
    let value = |start: &str| body.lines().find_map(|line| line.strip_prefix(start));
    let ip = value("c=IN IP4 ").or_else(|| value("c=IN IP6 "))?.trim().parse().ok()?;
    let port = value("m=audio ")?.split(' ').next()?.parse().ok()?;
    Some(SocketAddr::new(ip, port))
}

/// The SSRC if this is RTP (RFC 3550) rather than RTCP (packet types 192 to 223, RFC 5761 s.4), SIP or STUN.
fn rtp_ssrc(packet: &Packet) -> Option<u32> {
    let payload = &packet.payload;
    if packet.is_tcp || payload.len() < 12 || payload[0] >> 6 != 2 || (192..=223).contains(&payload[1]) {
        return None;
    }
    Some(u32::from_be_bytes([payload[8], payload[9], payload[10], payload[11]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(time_ns: u64, from: &str, to: &str, payload: &[u8]) -> Packet {
        Packet {
            time_ns,
            source: from.parse().unwrap(),
            destination: to.parse().unwrap(),
            is_tcp: false,
            payload: payload.to_vec(),
            checksums_right: true,
            ttl: 64,
            dscp: 0,
        }
    }

    fn rtp(ssrc: u8, kind: u8) -> Vec<u8> {
        vec![0x80, kind, 0, 1, 0, 0, 0, 0, 0, 0, 0, ssrc, 1, 2, 3, 4]
    }

    const PARTY: &str = "198.51.100.2:30000";
    const SBC_FAR: &str = "198.51.100.1:20000";
    const SBC_NEAR: &str = "10.0.0.1:22000";
    const PBX: &str = "10.0.0.2:40000";

    #[test]
    fn counts_rtp_until_the_bye_and_no_rtcp() {
        let invite = b"INVITE sip:1@10.0.0.2 SIP/2.0\r\nCall-ID: one\r\nCSeq: 1 INVITE\r\n\r\n\
                       v=0\r\nc=IN IP4 10.0.0.1\r\nm=audio 22000 RTP/AVP 8\r\n";
        let answer = b"SIP/2.0 200 OK\r\nCall-ID: one\r\nCSeq: 1 INVITE\r\n\r\n";
        let bye = b"BYE sip:1@10.0.0.2 SIP/2.0\r\nCall-ID: one\r\nCSeq: 2 BYE\r\n\r\n";
        let (rtp_a, rtp_b, rtcp) = (rtp(1, 8), rtp(2, 8), rtp(1, 200));
        let far = [
            packet(30, PARTY, SBC_FAR, &rtp_a),
            packet(40, PARTY, SBC_FAR, &rtp_a),
            packet(45, PARTY, SBC_FAR, &rtcp),
            packet(61, SBC_FAR, PARTY, &rtp_b),
            packet(90, PARTY, SBC_FAR, &rtp_a),
        ];
        let near = [
            packet(10, "10.0.0.1:5061", "10.0.0.2:5060", invite),
            packet(2_000_010, "10.0.0.2:5060", "10.0.0.1:5061", answer),
            packet(31, SBC_NEAR, PBX, &rtp_a),
            packet(60, PBX, SBC_NEAR, &rtp_b),
            packet(80, "10.0.0.1:5061", "10.0.0.2:5060", bye),
            packet(92, PBX, SBC_NEAR, &rtp_b),
        ];
        let counts = count(
            Side { party: "198.51.100.2".parse().unwrap(), packets: &far },
            Side { party: "10.0.0.2".parse().unwrap(), packets: &near },
        );
        assert_eq!(counts.to_near, Direction { sent: 2, received: 1 });
        assert_eq!(counts.to_far, Direction { sent: 1, received: 1 });
        assert_eq!((counts.sent(), counts.received(), counts.wrong_checksums), (3, 2, 0));
        assert_eq!(setup_times_ms(&near), [2.0]);
    }

    #[test]
    fn percentiles_by_nearest_rank() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!((percentile(&values, 50.0), percentile(&values, 99.0)), (50.0, 99.0));
        assert_eq!(percentile(&[7.0], 50.0), 7.0);
        assert!(percentile(&[], 50.0).is_nan());
    }
}
