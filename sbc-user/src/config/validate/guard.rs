//! The guard's limits and lists: defaults, and what does not fit together.

use std::time::Duration;

use sbc_core::config::Prefix;
use sbc_core::guard::{GuardPolicy, Limit};

use super::super::diagnostic::Problems;
use super::super::schema::GuardSection;
use super::super::table::At;

pub(super) fn validate(section: &GuardSection, problems: &Problems) -> GuardPolicy {
    let default = GuardPolicy::default();
    let size = |at: &Option<At<u32>>, default| at.as_ref().map_or(default, |at| at.value as usize);
    let (allow_max, block_max) =
        (size(&section.allow_max, default.allow_max), size(&section.block_max, default.block_max));
    GuardPolicy {
        level: section.level.as_ref().map_or(default.level, |at| at.value),
        requests: limit(&section.dos_threshold, &section.dos_window_seconds, default.requests),
        connections: section.connections.as_ref().map_or(default.connections, |at| at.value),
        segments: section.segments.as_ref().map_or(default.segments, |at| at.value),
        total: limit(&section.ddos_threshold, &section.ddos_window_seconds, default.total),
        fragments: section.fragments.as_ref().map_or(default.fragments, |at| at.value),
        malformed: section.malformed.as_ref().map_or(default.malformed, |at| at.value),
        scanners: texts(&section.scanners, default.scanners),
        emergency_numbers: texts(&section.emergency_numbers, default.emergency_numbers),
        retention: section.retention.as_ref().map_or(default.retention, |at| at.value.0),
        deny_max: size(&section.deny_max, default.deny_max),
        allow: list(&section.allow, allow_max, "allow_max", problems),
        allow_max,
        block: list(&section.block, block_max, "block_max", problems),
        block_max,
    }
}

fn texts(entries: &Option<Vec<At<String>>>, default: Vec<String>) -> Vec<String> {
    entries.as_ref().map_or(default, |entries| entries.iter().map(|at| at.value.clone()).collect())
}

fn limit(count: &Option<At<u32>>, seconds: &Option<At<u32>>, default: Limit) -> Limit {
    Limit {
        count: count.as_ref().map_or(default.count, |at| at.value),
        window: seconds.as_ref().map_or(default.window, |at| Duration::from_secs(at.value.into())),
    }
}

fn list(entries: &[At<Prefix>], max: usize, max_key: &str, problems: &Problems) -> Vec<Prefix> {
    let mut prefixes: Vec<Prefix> = Vec::new();
    for entry in entries {
        if prefixes.contains(&entry.value) {
            problems.add(entry.error("is on the list already"));
        } else if prefixes.len() == max {
            let message = format!("the list is full: it holds {max} at most");
            problems.add(entry.error(message).allowed(format!("fewer entries, or a larger `{max_key}`")));
            break;
        } else {
            prefixes.push(entry.value);
        }
    }
    prefixes
}
