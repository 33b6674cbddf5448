//! aya's `Pod` marker, for the layouts in which every bit pattern is a value.
//!
//! `FlowSlot` is not among them (its state is an enum): userspace reads it as words, see `FlowSlot::from_words`.

use crate::addr::{AddressSlot, AddressSlot6};
use crate::config::Config;
use crate::guard::{DenyEntry, GuardConfig, RealmAddress, SipSocket, SourceKey, SourceWindows, TotalWindows};
use crate::next_hop::NextHop;
use crate::steer::SteeredPort;
use crate::trace::TraceFilter;

// SAFETY: `repr(C)`, integers and byte arrays only, no padding (their tests compare size and field sizes).
unsafe impl aya::Pod for AddressSlot {}
// SAFETY: as above.
unsafe impl aya::Pod for NextHop {}
// SAFETY: as above.
unsafe impl aya::Pod for Config {}
// SAFETY: as above.
unsafe impl aya::Pod for SourceKey {}
// SAFETY: as above.
unsafe impl aya::Pod for RealmAddress {}
// SAFETY: as above.
unsafe impl aya::Pod for SipSocket {}
// SAFETY: as above.
unsafe impl aya::Pod for SourceWindows {}
// SAFETY: as above.
unsafe impl aya::Pod for TotalWindows {}
// SAFETY: as above.
unsafe impl aya::Pod for DenyEntry {}
// SAFETY: as above.
unsafe impl aya::Pod for GuardConfig {}
// SAFETY: as above.
unsafe impl aya::Pod for AddressSlot6 {}
// SAFETY: as above.
unsafe impl aya::Pod for SteeredPort {}
// SAFETY: as above.
unsafe impl aya::Pod for TraceFilter {}
