//! Calls by dice: bad links and damaged messages. Whatever happens, nothing is left.

use std::net::SocketAddr;
use std::time::Duration;

use sbc_core::Input;
use sbc_core::command::Command;
use sbc_core::config::{MediaSourceRule, RtcpMux, TrunkMedia};
use sbc_core::flow::{Flow, Transport};
use sbc_core::id::{CallId, ListenerId};
use sbc_core::media::command::MediaEvent;
use sbc_core::rng::{Rng, SeededRng};

use crate::pair::link::Quality;
use crate::pair::ua::OnUpdate;
use crate::pair::{Media, Pair, Setup, sdp};
use crate::{answer, assert_hidden, offer};

/// One thing that a user or a fault may do at any moment, whether it makes sense or not.
fn anything(pair: &mut Pair, rng: &mut SeededRng) {
    let ringing = !pair.b.invites.is_empty();
    let a_up = pair.a.up && !pair.a.ended;
    let b_up = pair.b.up && !pair.b.ended;
    let a_moved = sdp("198.51.100.10", 40002, "8", "a=rtcp-mux\r\n");
    let b_moved = sdp("10.9.0.20", 50002, "8", "");
    match rng.next_u64() % 30 {
        0 if ringing => pair.b.respond(180, None),
        1..4 if ringing => pair.b.respond(183, Some(&answer())),
        4..8 if ringing => {
            pair.b.respond(200, Some(&answer()));
            if rng.next_u64().is_multiple_of(3) {
                pair.b.respond_as(200, Some(&b_moved), "another-fork", "");
            }
            pair.b.invite_done();
        }
        8 if ringing => pair.b.respond(486, None),
        9 if !pair.a.ended => pair.a.cancel(),
        10 if a_up => pair.a.reinvite(Some(&a_moved)),
        11 if a_up => pair.a.reinvite(None),
        12 if b_up => pair.b.reinvite(Some(&b_moved)),
        13 if a_up => pair.a.update(&a_moved),
        14 if b_up => pair.b.update(&b_moved),
        15 if a_up => pair.a.in_dialog("INFO", Some(("text/plain", "x")), ""),
        16 if b_up => pair.b.in_dialog("OPTIONS", None, ""),
        17 if a_up => pair.a.bye(),
        18 if b_up => pair.b.bye(),
        19 => pair.media = Media::Slow(Duration::from_millis(rng.next_u64() % 1000)),
        20 if rng.next_u64().is_multiple_of(8) => pair.media = Media::Fail,
        21 if rng.next_u64().is_multiple_of(8) => drop(pair.command(Command::HangUpAll)),
        22 => pair.a.on_update = OnUpdate::Refuse(488),
        23 => pair.b.on_update = OnUpdate::Refuse(491),
        24 => pair.carried.0.rtp_kernel += 1,
        25 => pair.carried.1.rtcp += 1,
        26..28 => media_event(pair, rng),
        28 => pair.run(Duration::from_secs(rng.next_u64() % 20)),
        _ => {}
    }
}

/// Of a stream and side that there is or not, from somewhere.
fn media_event(pair: &mut Pair, rng: &mut SeededRng) {
    let dice = rng.next_u64();
    let (mline, caller_side) = (u8::from(dice & 7 == 0), dice & 8 == 0);
    let call = CallId(1);
    let event = if dice & 16 == 0 {
        let ip = ["198.51.100.10", "10.9.0.20", "192.0.2.66"][(dice >> 8) as usize % 3].parse().unwrap();
        let source = SocketAddr::new(ip, 1024 + (dice >> 16 & 0xfff) as u16);
        MediaEvent::Latched { call, mline, caller_side, rtcp: dice & 32 == 0, source }
    } else {
        let packet = [0x81, 200 + (dice >> 8 & 1) as u8, 0, 12].into_iter().chain([7; 48]).collect();
        MediaEvent::Report { call, mline, caller_side, packet }
    };
    pair.input(Input::Media(event));
}

/// Any rule that a trunk may have.
fn media(rng: &mut SeededRng) -> TrunkMedia {
    use MediaSourceRule::{Address, Any, SdpSubnet, Signalled, Subnet};
    let dice = rng.next_u64();
    TrunkMedia {
        source: [Signalled, Address, Subnet, SdpSubnet, Any][(dice & 0xff) as usize % 5],
        rtcp_mux: [RtcpMux::Off, RtcpMux::Accept, RtcpMux::Offer][(dice >> 8 & 0xff) as usize % 3],
        prime: (dice >> 16 & 1 == 0).then_some(TrunkMedia::PRIME),
        ..TrunkMedia::default()
    }
}

/// Calls in which anything happens at any moment, over links that lose a fifth of everything and over streams.
#[test]
fn any_call_over_a_bad_link_leaves_nothing() {
    let mut answered = 0;
    let mut changed = 0;
    for seed in 0..400 {
        let mut rng = SeededRng::new(seed ^ 0x5eed);
        let transport = |dice: u64| if dice.is_multiple_of(4) { Transport::Tls } else { Transport::Udp };
        let mut pair = Pair::with(Setup {
            quality: if rng.next_u64().is_multiple_of(3) { Quality::PERFECT } else { Quality::BAD },
            seed,
            a_transport: transport(rng.next_u64()),
            b_transport: transport(rng.next_u64()),
            chunks: vec![1 + (rng.next_u64() % 700) as usize, 4096],
            media_a: media(&mut rng),
            media_b: media(&mut rng),
            ..Setup::default()
        });
        pair.a.on_update = OnUpdate::Answer(offer());
        pair.b.on_update = OnUpdate::Answer(answer());
        let late = rng.next_u64().is_multiple_of(5);
        pair.a.ack_sdp = late.then(offer);
        pair.a.invite("bob", if late { None } else { Some(offer()) }.as_deref());
        for _ in 0..rng.next_u64() % 30 {
            pair.run_ms(rng.next_u64() % 600);
            anything(&mut pair, &mut rng);
        }
        answered += u32::from(pair.status().calls_answered > 0);
        changed += u32::from(pair.a.count("INVITE", 200) > 1 || pair.b.count("INVITE", 200) > 0);
        pair.run(Duration::from_secs(100));
        pair.media = Media::Ok;
        pair.command(Command::HangUpAll);
        let begun = usize::try_from(pair.status().calls_offered).unwrap();
        assert!(begun <= 1);
        pair.assert_nothing_left(begun);
        assert!(!pair.a.up || pair.a.ended, "seed {seed}: A is left in a call: {:?}", pair.a.summary());
        assert!(!pair.b.up || pair.b.ended, "seed {seed}: B is left in a call: {:?}", pair.b.summary());
        assert_hidden(&pair);
    }
    assert!(answered > 150 && changed > 40, "{answered} calls were answered, {changed} were changed");
}

/// The messages of a whole call, of both sides, in the order in which they were sent.
fn script(setup: Setup) -> Vec<(bool, Vec<u8>)> {
    let mut pair = Pair::with(setup);
    pair.basic_call();
    let no_video = "m=video 0 RTP/AVP 96\r\n";
    pair.a.on_update = OnUpdate::Answer(sdp("198.51.100.10", 40002, "8", no_video));
    pair.b.on_update = OnUpdate::Answer(sdp("10.9.0.20", 50000, "8", no_video));
    pair.a.reinvite(Some(&sdp("198.51.100.10", 40002, "8", "m=video 40100 RTP/AVP 96\r\n")));
    pair.run_ms(200);
    pair.b.in_dialog("INFO", Some(("text/plain", "x")), "");
    pair.run_ms(100);
    pair.b.update(&sdp("10.9.0.20", 50010, "8", no_video));
    pair.run_ms(100);
    pair.a.bye();
    pair.settle();
    pair.heard
}

/// The messages of a call, damaged, lost, doubled and in a wrong order: nothing panics, nothing is left.
#[test]
fn damaged_calls_leave_nothing() {
    let script = script(Setup::default());
    assert!(script.len() > 12);
    let mut reached = [0_u32; 2];
    for seed in 0..400 {
        let mut rng = SeededRng::new(seed);
        // The same seed inside: tags and branches come out as the script knows them.
        let mut pair = Pair::with(Setup { mute: true, ..Setup::default() });
        pair.media = if rng.next_u64().is_multiple_of(8) { Media::FailAfter(1) } else { Media::Ok };
        let mut messages = script.clone();
        for _ in 0..rng.next_u64() % 4 {
            let (from, to) =
                (rng.next_u64() as usize % messages.len(), rng.next_u64() as usize % messages.len());
            let message = messages[from].clone();
            match rng.next_u64() % 4 {
                0 => messages.swap(from, to),
                1 => messages.insert(to, message),
                2 => drop(messages.remove(from)),
                _ => {
                    let bytes = &mut messages[from].1;
                    for _ in 0..=rng.next_u64() % 3 {
                        let at = rng.next_u64() as usize % bytes.len();
                        bytes[at] = (rng.next_u64() % 256) as u8;
                    }
                }
            }
        }
        for (from_a, bytes) in messages {
            let (listener, remote) = if from_a { (0, pair.a.addr) } else { (1, pair.b.addr) };
            let flow = Flow { listener: ListenerId(listener), transport: Transport::Udp, remote, conn: None };
            pair.input(Input::Datagram { flow, bytes: &bytes });
            pair.run_ms(rng.next_u64() % 50);
        }
        let status = pair.status();
        reached[0] += u32::from(status.calls_answered > 0);
        reached[1] += u32::from(status.calls_failed > 0);
        pair.run(Duration::from_secs(rng.next_u64() % 100));
        pair.command(Command::HangUpAll);
        pair.settle();
        let status = pair.status();
        let left = (status.calls, status.transactions, status.timers, status.ports_in_use, pair.plans.len());
        assert_eq!(left, (0, 0, 0, 0, 0), "seed {seed}");
        assert_eq!(pair.records.len() as u64, status.calls_offered, "seed {seed}");
    }
    assert!(reached[0] > 200 && reached[1] > 5, "{reached:?}");
}
