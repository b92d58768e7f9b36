//! What a picture says: its title, the time that it tells of, the words of nodes and of lines. Draws nothing.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use super::super::columns::printable;
use super::super::words::size;
use super::graph::{Edge, EdgeList, Node};

const LONGEST_NAME: usize = 40;

/// A rate of fewer connections is chance.
const FEW: u64 = 10;

/// How the words of a line are coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// What is in order is grey, so that the rest is seen.
    Quiet,
    Plaintext,
    Failed,
}

/// The words of a line: above it, and below it where there is something to say.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Caption {
    pub(super) above: String,
    pub(super) below: Option<String>,
    pub(super) tone: Tone,
}

pub(super) fn of_edge(edge: &Edge, window: Option<Duration>) -> Caption {
    let mut above = edge.port.map_or_else(String::new, |port| format!(":{port} "));
    match window.filter(|_| edge.connections >= FEW) {
        None => above.push_str(&format!("×{}", edge.connections)),
        Some(window) => above.push_str(&often(edge.connections as f64 / window.as_secs_f64())),
    }
    if let Some(window) = window
        && edge.bytes() > 0
    {
        let rate = edge.bytes() as f64 / window.as_secs_f64();
        above.push_str(&format!(" {}/s", size(rate.ceil() as u64)));
    }
    let (below, tone) = match (edge.trouble(), edge.secured) {
        (Some(trouble), _) => (Some(trouble), Tone::Failed),
        (None, true) => (None, Tone::Quiet),
        (None, false) if edge.is_down() => (Some(edge.security()), Tone::Failed),
        (None, false) => (Some(edge.security()), Tone::Plaintext),
    };
    Caption { above, below, tone }
}

/// Name, and what it is.
pub(super) fn of_node(node: &Node, is_titled: bool) -> (String, String) {
    let pods = match node.pods.len() {
        0 => String::new(),
        1 => "1 pod".to_owned(),
        n => format!("{n} pods"),
    };
    let (name, note) = match &*node.kind {
        "workload" => match node.name.rsplit_once('/') {
            Some((namespace, name)) => (name.to_owned(), joined(namespace, &pods, is_titled)),
            None => (node.name.clone(), joined("workload", &pods, is_titled)),
        },
        "service" => (node.name.clone(), "service".to_owned()),
        "pod" => match node.name.split_once('/') {
            Some((_, name)) => (name.to_owned(), "outside the mesh".to_owned()),
            None => (node.name.clone(), "outside the mesh".to_owned()),
        },
        "strangers" => (node.name.clone(), "not let in".to_owned()),
        _ => (node.name.clone(), "outside the mesh".to_owned()),
    };
    (cut(&printable(&name)), cut(&printable(&note)))
}

/// Pods alone where the title names the namespace already.
fn joined(namespace: &str, pods: &str, is_titled: bool) -> String {
    match (pods, is_titled) {
        ("", _) => namespace.to_owned(),
        (pods, true) => pods.to_owned(),
        (pods, false) => format!("{namespace}, {pods}"),
    }
}

fn cut(name: &str) -> String {
    match name.char_indices().nth(LONGEST_NAME) {
        None => name.to_owned(),
        Some(_) => name.chars().take(LONGEST_NAME - 1).collect::<String>() + "…",
    }
}

/// The one of all workloads, where there is one.
pub(super) fn namespace(list: &EdgeList) -> Option<&str> {
    let ends = list
        .edges
        .iter()
        .flat_map(|edge| [&edge.source, &edge.destination]);
    let workloads = ends.filter(|node| node.kind == "workload");
    let namespaces: BTreeSet<&str> = workloads
        .filter_map(|node| node.name.rsplit_once('/').map(|(namespace, _)| namespace))
        .collect();
    let mut namespaces = namespaces.into_iter();
    namespaces.next().filter(|_| namespaces.next().is_none())
}

pub(super) fn title(list: &EdgeList) -> String {
    match namespace(list) {
        Some(namespace) => cut(&printable(&format!("{namespace}: who talks to whom"))),
        None => "Who talks to whom".to_owned(),
    }
}

/// How much went, how much of it in the mesh, and when.
pub(super) fn summary(list: &EdgeList) -> String {
    let sum = |of: &dyn Fn(&Edge) -> u64| list.edges.iter().map(of).sum::<u64>();
    let (all, failed) = (sum(&|edge| edge.connections), sum(&|edge| edge.failed));
    let secured = sum(&|edge| if edge.secured { edge.connections } else { 0 });
    if all == 0 {
        return "no connection is remembered".to_owned();
    }
    let share = match secured {
        secured if secured == all => "all by mutual TLS".to_owned(),
        // 99.6 % are not all.
        secured => format!("{} % by mutual TLS", secured * 100 / all),
    };
    let failed = match failed {
        0 => "none failed".to_owned(),
        failed => format!("{failed} failed"),
    };
    let when = match (&list.from, &list.until) {
        (Some(from), Some(until)) => format!(", {}", between(from, until)),
        (Some(from), None) => format!(", since {}", spoken(from)),
        _ => String::new(),
    };
    format!("{all} connections, {share}, {failed}{when}")
}

/// The time in which the flows of a list were open: what a rate is a rate of.
pub(super) fn window(list: &EdgeList) -> Option<Duration> {
    let time =
        |time: &Option<String>| -> Option<SystemTime> { humantime::parse_rfc3339(time.as_deref()?).ok() };
    let (from, until) = (time(&list.from)?, time(&list.until)?);
    let window = until.duration_since(from).ok()?;
    (window >= Duration::from_secs(1)).then_some(window)
}

/// `2026-01-31 12:00:00 to 12:10:00 UTC`.
fn between(from: &str, until: &str) -> String {
    match (from.split_once('T'), until.split_once('T')) {
        (Some((day, _)), Some((other, time))) if day == other => {
            let from = spoken(from);
            format!("{} to {} UTC", from.trim_end_matches(" UTC"), whole_seconds(time))
        }
        _ => format!("{} to {}", spoken(from), spoken(until)),
    }
}

fn spoken(time: &str) -> String {
    match time.split_once('T') {
        Some((day, time)) => format!("{day} {} UTC", whole_seconds(time)),
        None => printable(time),
    }
}

fn whole_seconds(time: &str) -> &str {
    time.split(['.', 'Z']).next().unwrap_or(time)
}

/// In the unit that gives a number people can picture.
fn often(per_second: f64) -> String {
    match per_second {
        rate if rate >= 9.95 => format!("{rate:.0}/s"),
        rate if rate >= 0.095 => format!("{rate:.1}/s"),
        rate if rate * 60.0 >= 0.95 => format!("{:.0}/min", rate * 60.0),
        rate => format!("{:.0}/h", (rate * 3600.0).max(1.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_the_unit_that_one_can_picture() {
        let rates = [250.4, 9.96, 9.94, 0.1, 0.09, 0.016, 0.001, 0.000_01].map(often);
        assert_eq!(
            rates,
            ["250/s", "10/s", "9.9/s", "0.1/s", "5/min", "1/min", "4/h", "1/h"]
        );
    }

    #[test]
    fn a_day_is_said_once() {
        let (noon, later, tomorrow) = (
            "2026-01-31T12:00:00.000Z",
            "2026-01-31T12:10:05.123Z",
            "2026-02-01T00:00:00Z",
        );
        assert_eq!(between(noon, later), "2026-01-31 12:00:00 to 12:10:05 UTC");
        assert_eq!(
            between(noon, tomorrow),
            "2026-01-31 12:00:00 UTC to 2026-02-01 00:00:00 UTC"
        );
    }
}
