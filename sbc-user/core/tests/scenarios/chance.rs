//! Calls by dice: bad links and damaged messages. Whatever happens, nothing is left.

use std::time::Duration;

use sbc_core::Input;
use sbc_core::command::Command;
use sbc_core::flow::{Flow, Transport};
use sbc_core::id::ListenerId;
use sbc_core::rng::{Rng, SeededRng};

use crate::pair::link::Quality;
use crate::pair::ua::OnUpdate;
use crate::pair::{Media, Pair, Setup, sdp};
use crate::{answer, assert_hidden, offer};

/// A call over a link that loses a fifth of everything: whatever happens, nothing is left of it.
#[test]
fn any_call_over_a_bad_link_leaves_nothing() {
    let mut answered = 0;
    for seed in 0..300 {
        let mut pair = Pair::with(Setup { quality: Quality::BAD, seed, ..Setup::default() });
        pair.media =
            if seed % 3 == 0 { Media::Slow(Duration::from_millis(seed * 7 % 400)) } else { Media::Ok };
        pair.a.on_update = OnUpdate::Answer(offer());
        pair.b.on_update = OnUpdate::Answer(answer());
        pair.a.invite("bob", Some(&offer()));
        pair.run_ms(seed * 37 % 3000);
        match seed % 5 {
            0 => pair.a.cancel(),
            1 if !pair.b.invites.is_empty() => pair.b.respond(486, None),
            _ if !pair.b.invites.is_empty() => {
                pair.b.respond(183, Some(&answer()));
                pair.run_ms(seed * 11 % 700);
                pair.b.respond(200, Some(&answer()));
                pair.b.invite_done();
            }
            _ => {}
        }
        pair.run_ms(seed * 53 % 4000);
        if pair.a.up && seed % 2 == 0 {
            pair.a.reinvite(Some(&sdp("198.51.100.10", 40002, "8", "")));
        }
        if pair.b.up && seed % 3 == 0 && !pair.b.ended {
            pair.b.reinvite(Some(&sdp("10.9.0.20", 50002, "8", "")));
        }
        pair.run_ms(seed * 29 % 2500);
        answered += u32::from(pair.a.up);
        if pair.b.up && seed % 4 < 2 && !pair.b.ended {
            pair.b.bye();
        }
        if pair.a.up && seed % 4 > 0 && !pair.a.ended {
            pair.a.bye();
        }
        pair.run(Duration::from_secs(100));
        pair.command(Command::HangUpAll);
        pair.assert_nothing_left(1);
        assert_hidden(&pair);
    }
    assert!(answered > 100, "{answered} calls were answered");
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
