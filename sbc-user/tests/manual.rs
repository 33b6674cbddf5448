//! The manual cannot rot: what it lists is what the program counts and pins.
#![allow(clippy::unwrap_used, reason = "a test file")]

use std::collections::BTreeMap;

use sbc_common::counter::Counter;
use sbc_common::guard::DenyReason;
use sbc_common::names;

const BPFTOOL: &str = include_str!("../doc/bpftool.md");

/// The rows `| number | `name` | …` of the table of outcomes.
fn outcomes() -> BTreeMap<u32, (String, String)> {
    let rows = BPFTOOL.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let number = cells.next()?.parse().ok()?;
        let name = cells.next()?.trim_matches('`').to_owned();
        Some((number, (name, cells.next()?.to_owned())))
    });
    let rows: Vec<_> = rows.collect();
    let table: BTreeMap<_, _> = rows.iter().cloned().collect();
    assert_eq!(rows.len(), table.len(), "a number is listed twice");
    table
}

#[test]
fn the_page_on_bpftool_names_every_outcome_and_no_other() {
    let table = outcomes();
    for counter in Counter::ALL {
        let (number, name) = (counter.number(), counter.name());
        let row =
            table.get(&number).unwrap_or_else(|| panic!("doc/bpftool.md has no row for {number} {name}"));
        assert_eq!(row.0, name, "name of {number} in doc/bpftool.md");
        assert!(!row.1.is_empty(), "doc/bpftool.md does not say what {number} {name} is");
    }
    for (number, (name, _)) in &table {
        assert!(
            Counter::from_number(*number).is_some(),
            "doc/bpftool.md lists {number} {name}, which is no outcome"
        );
    }
}

#[test]
fn the_page_on_bpftool_names_every_map_and_reason() {
    for map in names::MAPS {
        let named = [format!("pinned {map} "), format!("pinned {map}\n"), format!("`{map}`")];
        assert!(named.iter().any(|named| BPFTOOL.contains(named)), "doc/bpftool.md does not name map {map}");
    }
    let (_, reasons) = BPFTOOL.split_once("Reasons: ").unwrap();
    let (reasons, _) = reasons.split_once(". ").unwrap();
    let listed: Vec<u32> = reasons
        .split(", ")
        .map(|reason| reason.split_whitespace().next().unwrap().parse().unwrap())
        .collect();
    let known: Vec<u32> = (0..64).filter(|number| DenyReason::from_number(*number).is_some()).collect();
    assert_eq!(listed, known);
}
