//! The program that traces: it does what the ordinary one does, and tells of the packets that are chosen.

use std::net::SocketAddr;

use aya::maps::{Array, MapData};
use sbc_common::guard::mapped;
use sbc_common::names;
use sbc_common::trace::{FLOW, SOURCE, TraceFilter};
use sbc_common::window::Limit;
use sbc_user::dataplane::xdp::TraceLog;
use sbc_user::trace::{Ends, TracedPacket};

use crate::kernel::{INGRESS, Kernel, Variant};
use crate::packet::Packet;
use crate::table::goes_as_the_table_says;
use crate::world::{
    INSIDE, INSIDE_PEER, INSIDE_PORT, OUTSIDE, OUTSIDE_PEER, OUTSIDE_PORT, from_inside, from_outside,
};

/// Told of in one window; its time is longer than any test.
const LINES: u32 = 5;

struct Traced {
    kernel: Kernel,
    filter: Array<MapData, TraceFilter>,
    log: TraceLog,
}

impl Traced {
    fn load(test: &str) -> Option<Self> {
        let mut kernel = Kernel::with_call_in(test, Variant::Tracing)?;
        let filter = Array::try_from(kernel.ebpf.take_map(names::TRACE).unwrap()).unwrap();
        let log = TraceLog::take(&mut kernel.ebpf).unwrap();
        Some(Self { kernel, filter, log })
    }

    fn choose(&mut self, kind: u8, (address, port): ([u8; 4], u16), until_ns: u64) {
        let filter = TraceFilter {
            until_ns,
            limit: Limit { count: LINES, ticks: 1 << 24 },
            address: mapped(address),
            port: port.to_be_bytes(),
            kind,
            ..TraceFilter::default()
        };
        self.filter.set(0, filter, 0).unwrap();
    }

    /// What is told of a packet.
    fn tell(&mut self, packet: &Packet) -> Vec<TracedPacket> {
        self.kernel.run(&packet.bytes());
        self.log.drain()
    }
}

fn ends(from: ([u8; 4], u16), to: ([u8; 4], u16), frame: &Packet) -> Ends {
    let frame_bytes = u32::try_from(frame.bytes().len()).unwrap();
    Ends { from: SocketAddr::from(from), to: SocketAddr::from(to), frame_bytes }
}

#[test]
fn it_does_with_every_packet_what_the_ordinary_program_does() {
    let test = "it_does_with_every_packet_what_the_ordinary_program_does";
    if let Some(kernel) = Kernel::with_call_in(test, Variant::Tracing) {
        goes_as_the_table_says(kernel);
    }
}

#[test]
fn a_flow_is_told_of_in_both_directions_and_nothing_else_is() {
    let Some(mut traced) = Traced::load("a_flow_is_told_of_in_both_directions_and_nothing_else_is") else {
        return;
    };
    assert_eq!(traced.tell(&from_outside()), [], "nothing is chosen yet");
    for chosen in [OUTSIDE_PEER, (OUTSIDE, OUTSIDE_PORT)] {
        traced.choose(FLOW, chosen, u64::MAX);
        let inwards = TracedPacket {
            outcome: "forward_other",
            ifindex: INGRESS,
            arrived: ends(OUTSIDE_PEER, (OUTSIDE, OUTSIDE_PORT), &from_outside()),
            left: Some(ends((INSIDE, INSIDE_PORT), INSIDE_PEER, &from_outside())),
        };
        assert_eq!(traced.tell(&from_outside()), [inwards], "{chosen:?}");
        let outwards = TracedPacket {
            outcome: "forward_same",
            ifindex: INGRESS,
            arrived: ends(INSIDE_PEER, (INSIDE, INSIDE_PORT), &from_inside()),
            left: Some(ends((OUTSIDE, OUTSIDE_PORT), OUTSIDE_PEER, &from_inside())),
        };
        assert_eq!(traced.tell(&from_inside()), [outwards], "{chosen:?}");
        let elsewhere = Packet { destination: (OUTSIDE, OUTSIDE_PORT + 100), ..from_inside() };
        assert_eq!(traced.tell(&elsewhere), []);
    }
}

#[test]
fn a_source_is_told_of_with_what_is_dropped() {
    let Some(mut traced) = Traced::load("a_source_is_told_of_with_what_is_dropped") else { return };
    let stranger = ([203, 0, 113, 66], 999);
    traced.choose(SOURCE, (stranger.0, 0), u64::MAX);
    let spray = Packet { source: stranger, ..from_outside() };
    let told = TracedPacket {
        outcome: "drop_wrong_source",
        ifindex: INGRESS,
        arrived: ends(stranger, (OUTSIDE, OUTSIDE_PORT), &spray),
        left: None,
    };
    assert_eq!(traced.tell(&spray), [told]);
    assert_eq!(traced.tell(&from_outside()), []);
}

/// Bounded in number, and in time without anybody who ends it.
#[test]
fn a_trace_is_bounded() {
    let Some(mut traced) = Traced::load("a_trace_is_bounded") else { return };
    traced.choose(FLOW, OUTSIDE_PEER, u64::MAX);
    let told: usize = (0..50).map(|_| traced.tell(&from_outside()).len()).sum();
    assert_eq!(told as u32, LINES);
    assert_eq!(traced.filter.get(&0, 0).unwrap().suppressed, 50 - u64::from(LINES));
    traced.choose(FLOW, OUTSIDE_PEER, 1);
    assert_eq!(traced.tell(&from_outside()), [], "its time is over");
    assert_eq!(traced.filter.get(&0, 0).unwrap().suppressed, 0);
}
