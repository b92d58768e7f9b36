//! `docs/observability.md` and the counters of the programs, both ways.

use std::collections::BTreeSet;

use sidecar_ebpf::abi::Counter;

const PAGE: &str = include_str!("../../../../docs/observability.md");

#[test]
fn every_kernel_event_stands_in_the_documentation_and_no_other() {
    let section = PAGE.split("### Kernel events").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let events = rows.skip(1).map(|row| row.split(" | ").next().unwrap());
    let documented: BTreeSet<&str> = events
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    let counted: BTreeSet<&str> = Counter::ALL.iter().map(|(_, name)| *name).collect();
    assert_eq!(documented, counted);
}
