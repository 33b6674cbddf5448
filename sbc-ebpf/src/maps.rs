//! The maps, and nothing else. BTF definitions, so that `bpftool map dump` prints named fields.

use aya_ebpf::btf_maps::{Array, DevMapHash, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use sbc_common::addr::{AddressSlot, AddressSlot6};
use sbc_common::config::Config;
use sbc_common::flow::FlowSlot;
use sbc_common::flow6::FlowSlot6;
use sbc_common::guard::{
    DenyEntry, GuardConfig, MappedAddress, RealmAddress, SipSocket, SourceKey, SourceWindows, TotalWindows,
};
use sbc_common::next_hop::NextHop;
use sbc_common::stream::StreamSlot;
use sbc_common::{counter, limits};

use crate::clock::Reading;

/// `BPF_F_MMAPABLE`: the daemon reads counters and writes slots without a system call.
const MMAPABLE: usize = 1 << 10;
/// `BPF_F_NO_PREALLOC`: only the daemon adds entries, so no packet waits for memory.
const NO_PREALLOC: usize = 1;

/// Flow slots. Room for one address here; the loader gives as much as there are addresses.
#[btf_map]
pub static FLOWS: Array<FlowSlot, { limits::PORTS_PER_ADDRESS as usize }, MMAPABLE> = Array::new();

/// What the packets say, indexed and sized like the flow slots.
#[btf_map]
pub static STREAMS: Array<StreamSlot, { limits::PORTS_PER_ADDRESS as usize }, MMAPABLE> = Array::new();

/// Flow slots of IPv6, as `FLOWS`.
#[btf_map]
pub static FLOWS6: Array<FlowSlot6, { limits::PORTS_PER_ADDRESS as usize }, MMAPABLE> = Array::new();

/// What the packets of IPv6 say, indexed and sized like `FLOWS6`.
#[btf_map]
pub static STREAMS6: Array<StreamSlot, { limits::PORTS_PER_ADDRESS as usize }, MMAPABLE> = Array::new();

/// Next hops.
#[btf_map]
pub static NEXT_HOPS: Array<NextHop, { limits::NEXT_HOPS as usize }> = Array::new();

/// Our media addresses by address slot.
#[btf_map]
pub static ADDRESSES: Array<AddressSlot, { limits::ADDRESS_SLOTS as usize }> = Array::new();

/// Our IPv6 media addresses by address slot.
#[btf_map]
pub static ADDRESSES6: Array<AddressSlot6, { limits::ADDRESS_SLOTS6 as usize }> = Array::new();

/// Interfaces that packets may leave from, by interface index.
#[btf_map]
pub static DEVICES: DevMapHash<{ limits::DEVICES as usize }> = DevMapHash::new();

/// Packets by outcome.
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { counter::COUNTERS as usize }> = PerCpuArray::new();

/// State changes. Its records have no one type, and the kernel wants a ring buffer to have no value type.
#[btf_map]
pub static EVENTS: RingBuf<(), { limits::EVENTS_BYTES as usize }> = RingBuf::new();

/// RTCP that was forwarded.
#[btf_map]
pub static REPORTS: RingBuf<(), { limits::REPORTS_BYTES as usize }> = RingBuf::new();

/// Each CPU's reading of the clock.
#[btf_map]
pub static CLOCK: PerCpuArray<Reading, 1> = PerCpuArray::new();

/// Which layout the maps have, for whoever finds them pinned; and what the daemon may switch.
#[btf_map]
pub static CONFIG: Array<Config, 1> = Array::new();

/// The guard's level and limits.
#[btf_map]
pub static GUARD: Array<GuardConfig, 1> = Array::new();

/// What all sources together did.
#[btf_map]
pub static TOTALS: Array<TotalWindows, 1> = Array::new();

/// SIP sockets of ours, each with the number of its realm.
#[btf_map]
pub static SIP_SOCKETS: HashMap<SipSocket, u32, { limits::SIP_SOCKETS as usize }> = HashMap::new();

/// What each source did.
#[btf_map]
pub static SOURCES: LruHashMap<SourceKey, SourceWindows, { limits::SOURCES as usize }> = LruHashMap::new();

/// Who is denied until when. No LRU: who is denied stays so until the time is over, however little is heard of them.
#[btf_map]
pub static DENY: HashMap<SourceKey, DenyEntry, { limits::DENIED as usize }, NO_PREALLOC> = HashMap::new();

/// The operator's block list. The value says nothing.
#[btf_map]
pub static BLOCK: LpmTrie<MappedAddress, u32, { limits::PREFIXES as usize }> = LpmTrie::new();

/// Configured peers and the allow list, by realm. The value says nothing.
#[btf_map]
pub static TRUSTED: LpmTrie<RealmAddress, u32, { limits::PREFIXES as usize }> = LpmTrie::new();
