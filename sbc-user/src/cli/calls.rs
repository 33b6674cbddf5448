//! `sbcctl calls`.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use super::status::duration;
use super::{ask, print_json, table};
use crate::admin::dto::{Call, Calls, Heard, Leg, MediaSide, Packets, Stream};

pub(super) fn run(socket: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let calls: Calls = ask(socket, "/v1/calls")?;
    if json {
        print_json(&calls)?;
    } else {
        io::stdout().write_all(render(&calls).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn render(calls: &Calls) -> String {
    if calls.calls.is_empty() {
        return "no calls\n".to_owned();
    }
    let mut rows = table(&["CALL", "STATE", "AGE", "CALLER", "CALLED", "MEDIA"]);
    for call in &calls.calls {
        let Call { call: number, state, age_seconds, caller, callee, streams, .. } = call;
        let media: Vec<String> = streams.iter().map(stream).collect();
        let media = if media.is_empty() { "none yet".to_owned() } else { media.join("\n") };
        rows.add_row([
            number.to_string(),
            state.clone(),
            duration(*age_seconds),
            leg(caller, &caller.from, streams.first().map(|stream| &stream.caller)),
            leg(callee, &callee.to, streams.first().map(|stream| &stream.callee)),
            media,
        ]);
    }
    format!("{}\n", rows.trim_fmt())
}

/// Who, over which trunk, from where; and where its media goes.
fn leg(leg: &Leg, who: &str, media: Option<&MediaSide>) -> String {
    let Leg { realm, trunk, transport, remote, .. } = leg;
    let place = if trunk == realm { realm.clone() } else { format!("{trunk} in {realm}") };
    let mut text = format!("{who}\n{place}, {transport} {remote}");
    if let Some(media) = media {
        let peer = media.peer.map_or_else(|| "not known yet".to_owned(), |peer| peer.to_string());
        // Writing to a String does not fail.
        let _ = write!(text, "\nrtp {} <> {peer} ({})", media.local, media.source);
    }
    text
}

fn stream(stream: &Stream) -> String {
    let path = stream.path.as_deref().unwrap_or("not installed");
    let Stream { mline, from_caller, from_callee, heard_by_caller, heard_by_callee, .. } = stream;
    let [to_callee, to_caller] =
        [heard_by_callee, heard_by_caller].map(|it| it.as_ref().map(heard).unwrap_or_default());
    format!(
        "{mline}: {path}\n -> {}{to_callee}\n <- {}{to_caller}",
        packets(from_caller),
        packets(from_callee)
    )
}

/// What the party at the arrow's head says.
fn heard(heard: &Heard) -> String {
    let mut text = format!("\n    there: {} lost, {} % lately", heard.lost, heard.lost_percent);
    for (what, us) in [("jitter", heard.jitter_us), ("round trip", heard.round_trip_us)] {
        if let Some(us) = us {
            let _ = write!(text, ", {what} {}", milliseconds(us));
        }
    }
    text
}

fn milliseconds(us: u32) -> String {
    format!("{:.1} ms", f64::from(us) / 1000.0)
}

fn packets(packets: &Packets) -> String {
    let lost = packets.lost.map_or_else(|| "?".to_owned(), |lost| lost.to_string());
    let total = packets.rtp_kernel + packets.rtp_relay;
    // Only a stream that has changed its carrier needs both figures.
    let split = if packets.rtp_kernel > 0 && packets.rtp_relay > 0 {
        format!(" ({} kernel, {} relay)", packets.rtp_kernel, packets.rtp_relay)
    } else {
        String::new()
    };
    let mut text = format!("{total} rtp{split}, {} rtcp, {lost} lost", packets.rtcp);
    if let Some(us) = packets.jitter_us {
        let _ = write!(text, ", jitter {}", milliseconds(us));
    }
    // Mostly there is nothing of these.
    for (count, what) in [(packets.out_of_order, "late"), (packets.over_rate, "over the rate")] {
        if count > 0 {
            let _ = write!(text, ", {count} {what}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::admin::tests::call;

    #[test]
    fn a_call_shows_both_sides_and_what_carries_its_media() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_065);
        let text = render(&Calls::new(&[call()], now));
        let expected = [
            " CALL  STATE     AGE        CALLER                                                               CALLED                                           MEDIA",
            " 7     answered  1 min 5 s  sip:100@example                                                      sip:200@example                                  0: kernel",
            "                            public, udp 192.0.2.7:5060                                           private, udp 10.0.0.20:5060                       -> 500 rtp, 2 rtcp, 1 lost, jitter 1.9 ms",
            "                            rtp 198.51.100.10:20000 <> 192.0.2.7:40000 (learned from 192.0.2.7)  rtp 10.0.0.5:24000 <> not known yet (signalled)      there: 3 lost, 0.8 % lately, jitter 3.2 ms, round trip 40.4 ms",
            "                                                                                                                                                   <- 498 rtp, 2 rtcp, ? lost, 4 over the rate",
        ];
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(lines, expected, "\n{text}");
        assert_eq!(render(&Calls { schema: 1, calls: Vec::new() }), "no calls\n");
    }
}
