//! How often packets had which outcome, by name.

use aya::maps::{MapData, PerCpuArray};
use sbc_common::counter::Counter;

/// An outcome and how often it occurred since the maps exist, over all processors.
pub type Outcome = (Counter, u64);

/// Every outcome in the order of its number. One that cannot be read is left out.
pub(crate) fn outcomes(counters: &PerCpuArray<MapData, u64>) -> Vec<Outcome> {
    Counter::ALL.iter().filter_map(|counter| Some((*counter, outcome(counters, *counter)?))).collect()
}

/// One outcome.
pub(crate) fn outcome(counters: &PerCpuArray<MapData, u64>, counter: Counter) -> Option<u64> {
    let values = counters.get(&counter.number(), 0).ok()?;
    Some(values.iter().fold(0, |sum, value| sum.wrapping_add(*value)))
}
