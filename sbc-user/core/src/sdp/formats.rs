//! What a stream's formats ask of whoever sends by them: how many packets in a second, and the clock of the timestamps
//! (RFC 3551, RFC 8866 s.6.4, s.6.6). An estimate from above: no sender that keeps to the description exceeds it.

use super::model::{Media, MediaKind, Sdp, Section};

/// What a description's formats come to. Zeroes: nothing is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Formats {
    /// Packets in a second, at most.
    pub packets_per_second: u32,
    /// Clock rate of all of them in Hz; 0: unknown, or not one.
    pub clock_rate_hz: u32,
}

/// Where nothing else is said, audio is sent in packets of this many milliseconds (RFC 3551 s.4.2).
const PACKET_MS: u32 = 20;
/// The shortest packet of Opus where the description does not name one (RFC 7587 s.6.1).
const OPUS_PACKET_MS: u32 = 3;
/// Bytes in an average packet of video: small ones are few.
const VIDEO_PACKET_BYTES: u64 = 250;
/// Video without a bandwidth: some 16 Mbit/s in packets of 1000 bytes.
const VIDEO_PACKETS: u32 = 2000;
/// Video with a small one: still a frame in two packets at 50 frames in a second.
const VIDEO_PACKETS_MIN: u32 = 100;

pub(super) fn read(sdp: &Sdp, media: &Media, kind: MediaKind) -> Formats {
    let packets_per_second = match kind {
        MediaKind::Audio => audio_packets(media),
        MediaKind::Video => video_packets(sdp, media),
    };
    Formats { packets_per_second, clock_rate_hz: clock_rate(media) }
}

/// The shortest packet that any format may have. Digits (RFC 4733) may come beside the voice.
fn audio_packets(media: &Media) -> u32 {
    let attribute = |name| media.section.attribute(name).and_then(|it| number(it.value));
    let names = || media.fmt.split_ascii_whitespace().filter_map(|format| encoding(media, format));
    let least = fmtp_values(&media.section, b"minptime").min();
    let opus = names().any(|name| name.eq_ignore_ascii_case("opus")).then(|| least.unwrap_or(OPUS_PACKET_MS));
    let shortest = [Some(PACKET_MS), attribute("ptime"), least, opus].into_iter().flatten();
    let voice = 1000_u32.div_ceil(shortest.filter(|ms| *ms > 0).min().unwrap_or(PACKET_MS));
    let digits = names().any(|name| name.eq_ignore_ascii_case("telephone-event"));
    if digits { voice * 2 } else { voice }
}

fn video_packets(sdp: &Sdp, media: &Media) -> u32 {
    let Some(bits) = bandwidth(&media.section).or_else(|| bandwidth(&sdp.session)) else {
        return VIDEO_PACKETS;
    };
    u32::try_from(bits / 8 / VIDEO_PACKET_BYTES).unwrap_or(u32::MAX).max(VIDEO_PACKETS_MIN)
}

/// Bits in a second (RFC 8866 s.5.8, RFC 3890). Zero says that none is wanted, not how much comes if it comes.
fn bandwidth(section: &Section) -> Option<u64> {
    let given = section.lines.iter().filter_map(|line| {
        let (b'b', value) = line.split()? else { return None };
        let (kind, value) = str::from_utf8(value).ok()?.trim().split_once(':')?;
        let value: u64 = value.trim().parse().ok()?;
        match kind {
            "TIAS" => Some(value),
            "AS" => value.checked_mul(1000),
            _ => None,
        }
    });
    given.filter(|bits| *bits > 0).max()
}

/// Clock rates that are believed: more than a hundred times that of video is no clock, and too much to count jitter with.
const CLOCK_RATES_HZ: std::ops::RangeInclusive<u32> = 1..=10_000_000;

fn clock_rate(media: &Media) -> u32 {
    let mut rates = media.fmt.split_ascii_whitespace().map(|format| rate(media, format));
    let Some(Some(first)) = rates.next() else { return 0 };
    if rates.all(|rate| rate == Some(first)) { first } else { 0 }
}

fn rate(media: &Media, format: &str) -> Option<u32> {
    match rtpmap(media, format) {
        Some(map) => map.split('/').nth(1)?.trim().parse().ok().filter(|rate| CLOCK_RATES_HZ.contains(rate)),
        None => static_rate(format.parse().ok()?),
    }
}

fn encoding<'a>(media: &'a Media, format: &str) -> Option<&'a str> {
    rtpmap(media, format)?.split('/').next()
}

/// `encoding/clock[/channels]` of a payload type.
fn rtpmap<'a>(media: &'a Media, format: &str) -> Option<&'a str> {
    media.section.attributes().filter(|it| it.is("rtpmap")).find_map(|it| {
        let (of, map) = str::from_utf8(it.value).ok()?.split_once(' ')?;
        (of == format).then_some(map.trim())
    })
}

/// The values of a parameter in all a=fmtp lines.
fn fmtp_values<'a>(section: &'a Section, name: &'static [u8]) -> impl Iterator<Item = u32> + 'a {
    section.attributes().filter(|it| it.is("fmtp")).filter_map(move |it| {
        it.value.split(|byte| matches!(byte, b';' | b' ')).find_map(|parameter| {
            let (key, value) = parameter.split_at_checked(name.len())?;
            number(value.strip_prefix(b"=").filter(|_| key.eq_ignore_ascii_case(name))?)
        })
    })
}

/// A whole number, whatever follows it.
fn number(value: &[u8]) -> Option<u32> {
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    str::from_utf8(value.get(..digits)?).ok()?.parse().ok()
}

/// The payload types with a meaning of their own (RFC 3551 s.6).
const fn static_rate(payload_type: u8) -> Option<u32> {
    match payload_type {
        0 | 3..=5 | 7..=9 | 12 | 13 | 15 | 18 => Some(8000),
        6 => Some(16_000),
        10 | 11 => Some(44_100),
        16 => Some(11_025),
        17 => Some(22_050),
        14 | 25 | 26 | 28 | 31..=34 => Some(90_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(session: &str, media: &str) -> (u32, u32) {
        let sdp = Sdp::parse(format!("v=0\r\nc=IN IP4 192.0.2.1\r\n{session}{media}").as_bytes()).unwrap();
        let media = &sdp.media[0];
        let formats = read(&sdp, media, media.kind().unwrap());
        (formats.packets_per_second, formats.clock_rate_hz)
    }

    #[test]
    fn packets_and_clock_follow_from_the_formats() {
        const EVENT: &str = "a=rtpmap:101 telephone-event/8000\r\n";
        for (media, lines, expected) in [
            ("audio 4000 RTP/AVP 0", "", (50, 8000)),
            ("audio 4000 RTP/AVP 0 8", "a=ptime:10\r\n", (100, 8000)),
            ("audio 4000 RTP/AVP 0", "a=ptime:30\r\n", (50, 8000)),
            ("audio 4000 RTP/AVP 0", "a=ptime:0\r\n", (50, 8000)),
            ("audio 4000 RTP/AVP 0", "a=ptime:20.5\r\na=maxptime:150\r\n", (50, 8000)),
            ("audio 4000 RTP/AVP 0 101", EVENT, (100, 8000)),
            ("audio 4000 RTP/AVP 9 0", "", (50, 8000)),
            ("audio 4000 RTP/AVP 96 101", &format!("a=rtpmap:96 G7221/16000\r\n{EVENT}"), (100, 0)),
            ("audio 4000 RTP/AVP 96", "", (50, 0)),
            ("audio 4000 RTP/AVP 0", "a=rtpmap:0 PCMU/16000/1\r\n", (50, 16_000)),
            ("audio 4000 RTP/AVP 111", "a=rtpmap:111 opus/48000/2\r\n", (334, 48_000)),
            (
                "audio 4000 RTP/AVP 111",
                "a=rtpmap:111 OPUS/48000/2\r\na=fmtp:111 useinbandfec=1; minptime=10\r\n",
                (100, 48_000),
            ),
            ("audio 4000 RTP/AVP 0", "a=rtpmap:0 PCMU/0\r\n", (50, 0)),
            ("audio 4000 RTP/AVP 0", "a=rtpmap:0 PCMU/10000000\r\n", (50, 10_000_000)),
            ("audio 4000 RTP/AVP 0", "a=rtpmap:0 PCMU/10000001\r\n", (50, 0)),
            ("audio 4000 RTP/AVP 0", "a=rtpmap:0 PCMU/4294967295\r\n", (50, 0)),
            ("audio 4000 RTP/AVP 0", "a=rtpmap:0 PCMU\r\n", (50, 0)),
            ("audio 4000 RTP/AVP 99999999999", "a=ptime:99999999999\r\n", (50, 0)),
            ("video 4000 RTP/AVP 31", "", (2000, 90_000)),
            ("video 4000 RTP/AVP 96", "b=AS:2000\r\na=rtpmap:96 H264/90000\r\n", (1000, 90_000)),
            ("video 4000 RTP/AVP 96", "b=AS:20\r\n", (100, 0)),
            ("video 4000 RTP/AVP 96", "b=AS:0\r\n", (2000, 0)),
            ("video 4000 RTP/AVP 96", "b=TIAS:4000000\r\nb=AS:20\r\n", (2000, 0)),
            ("video 4000 RTP/AVP 96", "b=AS:18446744073709551615\r\nb=X-y:1\r\nb=AS\r\n", (2000, 0)),
        ] {
            assert_eq!(of("", &format!("m={media}\r\n{lines}")), expected, "{media} {lines}");
        }
        assert_eq!(of("b=AS:512\r\n", "m=video 4000 RTP/AVP 34\r\n"), (256, 90_000));
    }
}
