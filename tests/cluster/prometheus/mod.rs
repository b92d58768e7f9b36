//! What `deploy/grafana` and `deploy/prometheus` hold: that each part is whole, and that it finds what it asks for in what a
//! Prometheus scrapes of a mesh that runs.

mod dashboard;
mod live;
mod rules;
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use harness::chart;

/// A file of `deploy`, or of `docs`.
fn path(file: &str) -> PathBuf {
    chart::root().join(file)
}

fn read(file: &str) -> String {
    fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The metrics that an expression, or a whole file, names: not those that rules record, whose names have colons.
fn metrics(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c: char| !is_part(c));
    let ours = words.filter(|word| {
        let prefixes = ["outrigger_", "process_"];
        !word.contains(':') && prefixes.iter().any(|prefix| word.starts_with(prefix))
    });
    ours.map(String::from).collect()
}
