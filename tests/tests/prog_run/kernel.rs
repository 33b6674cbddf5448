//! The program in the kernel, with maps of its own that nothing pins, run over single packets.

use std::path::PathBuf;

use aya::maps::lpm_trie::LpmTrie;
use aya::maps::xdp::DevMapHash;
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, ProgramArray, RingBuf};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use sbc_common::addr::{AddressSlot, AddressSlot6};
use sbc_common::config::Config;
use sbc_common::counter::Counter;
use sbc_common::event::{Event, Report};
use sbc_common::flow::{FlowSlot, SlotIndex};
use sbc_common::flow6::FlowSlot6;
use sbc_common::guard::{
    DenyEntry, GuardConfig, MappedAddress, RealmAddress, SipSocket, SourceKey, SourceWindows, TotalWindows,
};
use sbc_common::next_hop::NextHop;
use sbc_common::stream::StreamSlot;
use sbc_common::{limits, names};
use sbc_user::dataplane::xdp::prepare_trace;

/// What the program said should become of a packet: the number of the XDP action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Action {
    Drop = 1,
    Pass = 2,
    Transmit = 3,
    Redirect = 4,
}

/// The interface that packets arrive on: a test run has no other than the loopback of its namespace.
pub(crate) const INGRESS: u32 = 1;
/// The key of another device. What stands behind it is the loopback again: nothing is sent in a test run.
pub(crate) const OTHER: u32 = 77;

/// The loaded program and its maps.
pub(crate) struct Kernel {
    pub(crate) ebpf: Ebpf,
    program: &'static str,
    pub(crate) flows: Array<MapData, [u64; FlowSlot::WORDS]>,
    pub(crate) streams: Array<MapData, [u64; StreamSlot::WORDS]>,
    pub(crate) flows6: Array<MapData, [u64; FlowSlot6::WORDS]>,
    pub(crate) streams6: Array<MapData, [u64; StreamSlot::WORDS]>,
    /// The kernel's number of the map of flows.
    pub(crate) flows_id: u32,
    pub(crate) next_hops: Array<MapData, NextHop>,
    pub(crate) addresses: Array<MapData, AddressSlot>,
    pub(crate) addresses6: Array<MapData, AddressSlot6>,
    pub(crate) config: Array<MapData, Config>,
    pub(crate) guard: Array<MapData, GuardConfig>,
    pub(crate) totals: Array<MapData, TotalWindows>,
    pub(crate) sip_sockets: HashMap<MapData, SipSocket, u32>,
    pub(crate) sources: HashMap<MapData, SourceKey, SourceWindows>,
    pub(crate) deny: HashMap<MapData, SourceKey, DenyEntry>,
    pub(crate) block: LpmTrie<MapData, MappedAddress, u32>,
    pub(crate) trusted: LpmTrie<MapData, RealmAddress, u32>,
    counters: PerCpuArray<MapData, u64>,
    events: RingBuf<MapData>,
    reports: RingBuf<MapData>,
    _devices: DevMapHash<MapData>,
    _next: Option<ProgramArray<MapData>>,
}

/// Which of the two programs that do the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    Ordinary,
    /// Its object lies beside the other one.
    Tracing,
}

/// What came of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) action: Action,
    pub(crate) frame: Vec<u8>,
    /// What was counted, in the order of the numbers; a counter that rose twice stands twice.
    pub(crate) counted: Vec<Counter>,
}

impl Kernel {
    /// Loads the object that `SBC_EBPF_OBJECT` names; says why the test is skipped if that cannot be.
    pub(crate) fn load(test: &str, variant: Variant, address_slots: u32) -> Option<Self> {
        let Some(path) = std::env::var_os("SBC_EBPF_OBJECT").filter(|path| !path.is_empty()) else {
            sbc_tests::skip(test, "no kernel object: SBC_EBPF_OBJECT names none");
            return None;
        };
        if !sbc_tests::is_root() {
            sbc_tests::skip(test, "needs root");
            return None;
        }
        let (path, program) = match variant {
            Variant::Ordinary => (path.into(), names::PROGRAM),
            Variant::Tracing => (PathBuf::from(path).with_file_name("trace.o"), names::TRACING_PROGRAM),
        };
        let object = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(names::FLOWS, address_slots * limits::PORTS_PER_ADDRESS)
            .map_max_entries(names::STREAMS, address_slots * limits::PORTS_PER_ADDRESS)
            .map_max_entries(names::FLOWS6, limits::PORTS_PER_ADDRESS * address_slots)
            .map_max_entries(names::STREAMS6, limits::PORTS_PER_ADDRESS * address_slots)
            .load(&object)
            .unwrap();
        let next = match variant {
            Variant::Ordinary => {
                let xdp: &mut Xdp = ebpf.program_mut(program).unwrap().try_into().unwrap();
                xdp.load().unwrap();
                None
            }
            Variant::Tracing => Some(prepare_trace(&mut ebpf).unwrap()),
        };
        let mut devices = DevMapHash::try_from(ebpf.take_map(names::DEVICES).unwrap()).unwrap();
        devices.insert(OTHER, INGRESS, None, 0).unwrap();
        let mut config: Array<_, Config> = take(&mut ebpf, names::CONFIG);
        config.set(0, Config { verify_one_in: 1, ..Config::new(address_slots, address_slots) }, 0).unwrap();
        let flows_id = match ebpf.map(names::FLOWS) {
            Some(Map::Array(map)) => map.info().unwrap().id(),
            other => panic!("FLOWS is {other:?}"),
        };
        Some(Self {
            flows_id,
            flows: take(&mut ebpf, names::FLOWS),
            streams: take(&mut ebpf, names::STREAMS),
            flows6: take(&mut ebpf, names::FLOWS6),
            streams6: take(&mut ebpf, names::STREAMS6),
            next_hops: take(&mut ebpf, names::NEXT_HOPS),
            addresses: take(&mut ebpf, names::ADDRESSES),
            addresses6: take(&mut ebpf, names::ADDRESSES6),
            config,
            guard: take(&mut ebpf, names::GUARD),
            totals: take(&mut ebpf, names::TOTALS),
            sip_sockets: HashMap::try_from(ebpf.take_map(names::SIP_SOCKETS).unwrap()).unwrap(),
            sources: HashMap::try_from(ebpf.take_map(names::SOURCES).unwrap()).unwrap(),
            deny: HashMap::try_from(ebpf.take_map(names::DENY).unwrap()).unwrap(),
            block: LpmTrie::try_from(ebpf.take_map(names::BLOCK).unwrap()).unwrap(),
            trusted: LpmTrie::try_from(ebpf.take_map(names::TRUSTED).unwrap()).unwrap(),
            counters: PerCpuArray::try_from(ebpf.take_map(names::COUNTERS).unwrap()).unwrap(),
            events: RingBuf::try_from(ebpf.take_map(names::EVENTS).unwrap()).unwrap(),
            reports: RingBuf::try_from(ebpf.take_map(names::REPORTS).unwrap()).unwrap(),
            _devices: devices,
            _next: next,
            program,
            ebpf,
        })
    }

    /// Instructions that the verifier followed to accept the program; `None` before Linux 5.16.
    pub(crate) fn verified_instructions(&self) -> Option<u32> {
        let program: &Xdp = self.ebpf.program(names::PROGRAM).unwrap().try_into().unwrap();
        program.info().unwrap().verified_instruction_count()
    }

    /// One packet through the program.
    pub(crate) fn run(&self, frame: &[u8]) -> Ran {
        let before = self.counters();
        let (action, frame) = self.run_times(frame, 1);
        let after = self.counters();
        let counted = Counter::ALL
            .iter()
            .zip(before.iter().zip(after))
            .flat_map(|(counter, (before, after))| std::iter::repeat_n(*counter, (after - before) as usize))
            .collect();
        Ran { action, frame, counted }
    }

    /// A packet through the program some times over, each time as the time before left it.
    pub(crate) fn run_times(&self, frame: &[u8], repeat: u32) -> (Action, Vec<u8>) {
        let program: &Xdp = self.ebpf.program(self.program).unwrap().try_into().unwrap();
        let mut out = vec![0; frame.len() + 64];
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                repeat,
                ..TestRunOptions::new()
            })
            .unwrap();
        out.truncate(result.data_size_out as usize);
        let action = match result.return_value {
            1 => Action::Drop,
            2 => Action::Pass,
            3 => Action::Transmit,
            4 => Action::Redirect,
            other => panic!("action {other}"),
        };
        (action, out)
    }

    /// Sums over the CPUs, in the order of [`Counter::ALL`].
    pub(crate) fn counters(&self) -> Vec<u64> {
        let sum = |counter: &Counter| self.counters.get(&counter.number(), 0).unwrap().iter().sum();
        Counter::ALL.iter().map(sum).collect()
    }

    /// Takes the events out of the ring.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.next().map(|record| Event::from_bytes(&record).unwrap())).collect()
    }

    /// Takes the copies of RTCP out of the ring: slot, generation, length and what was copied.
    pub(crate) fn reports(&mut self) -> Vec<(SlotIndex, u16, usize, Vec<u8>)> {
        let next = || {
            self.reports.next().map(|record| {
                let report = Report::from_bytes(&record).unwrap();
                assert!(!report.is_v6);
                (report.slot, report.generation, usize::from(report.length), report.bytes.to_vec())
            })
        };
        std::iter::from_fn(next).collect()
    }

    pub(crate) fn slot(&self, index: SlotIndex) -> FlowSlot {
        FlowSlot::from_words(self.flows.get(&index.0, 0).unwrap()).unwrap()
    }

    pub(crate) fn slot6(&self, index: SlotIndex) -> FlowSlot6 {
        FlowSlot6::from_words(self.flows6.get(&index.0, 0).unwrap()).unwrap()
    }

    pub(crate) fn set_slot6(&mut self, index: SlotIndex, slot: &FlowSlot6) {
        self.flows6.set(index.0, slot.to_words(), 0).unwrap();
    }

    pub(crate) fn stream6(&self, index: SlotIndex) -> StreamSlot {
        StreamSlot::from_words(self.streams6.get(&index.0, 0).unwrap())
    }

    pub(crate) fn stream(&self, index: SlotIndex) -> StreamSlot {
        StreamSlot::from_words(self.streams.get(&index.0, 0).unwrap())
    }

    pub(crate) fn set_stream(&mut self, index: SlotIndex, stream: &StreamSlot) {
        self.streams.set(index.0, stream.to_words(), 0).unwrap();
    }

    pub(crate) fn set_slot(&mut self, index: SlotIndex, slot: &FlowSlot) {
        self.flows.set(index.0, slot.to_words(), 0).unwrap();
    }
}

fn take<V: Pod>(ebpf: &mut Ebpf, name: &str) -> Array<MapData, V> {
    Array::try_from(ebpf.take_map(name).unwrap()).unwrap()
}
