//! The table once, for pipes and programs: text, or the kind `TopList`.

use serde::{Deserialize, Serialize};

use super::super::columns::Columns;
use super::super::edges::graph::Failures;
use super::super::screen::Screen;
use super::ends::{End, Pair};
use super::model::Row;
use super::order::{COLUMNS, cells};
use super::rates::WINDOW;

/// The body of the kind `TopList`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::plugin) struct TopList {
    /// Those that move the most bytes first.
    pairs: Vec<TopPair>,
    /// Over which the rates are.
    window_seconds: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TopPair {
    source: TopEnd,
    destination: TopEnd,
    service: Option<String>,
    port: Option<u16>,
    open: u64,
    /// Opened, and failed, while this was looked at.
    connections: u64,
    failed: u64,
    connections_per_second: f64,
    failed_per_second: f64,
    bytes_sent_per_second: f64,
    bytes_received_per_second: f64,
    rtt_median_seconds: Option<f64>,
    secured: bool,
    tls: Vec<String>,
    reason: Option<String>,
    failures: Vec<Failures>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TopEnd {
    name: String,
    kind: String,
}

impl TopList {
    /// `elapsed` since the first answer.
    pub(super) fn of(rows: &[Row], elapsed: f64) -> Self {
        Self {
            pairs: rows.iter().map(TopPair::of).collect(),
            window_seconds: elapsed.clamp(1.0, WINDOW),
        }
    }
}

impl TopPair {
    fn of(row: &Row) -> Self {
        let Pair {
            source,
            destination,
            port,
            ..
        } = &row.pair;
        let suffix = port.map(|port| format!(":{port}")).unwrap_or_default();
        let named = |end: &End, name: &str| TopEnd {
            name: end.whole_name().unwrap_or(name).to_owned(),
            kind: end.kind().to_owned(),
        };
        let to = row.destination.strip_suffix(&suffix).unwrap_or(&row.destination);
        let failures = row.failures.iter().map(|(cause, by, connections)| Failures {
            cause: cause.clone(),
            by: by.clone(),
            connections: *connections,
        });
        Self {
            source: named(source, &row.source),
            destination: named(destination, to),
            service: row.service.clone(),
            port: *port,
            open: row.open,
            connections: row.connections,
            failed: row.failed,
            connections_per_second: row.rates.connections,
            failed_per_second: row.rates.failed,
            bytes_sent_per_second: row.rates.sent,
            bytes_received_per_second: row.rates.received,
            rtt_median_seconds: row.rtt,
            secured: row.is_secured,
            tls: row.tls.clone(),
            reason: row.reason.map(str::to_owned),
            failures: failures.collect(),
        }
    }
}

pub(super) fn table(rows: &[Row], screen: &Screen, headers: bool) -> String {
    let columns = Columns::new(COLUMNS.into(), screen.width, headers);
    let mut columns = columns.coloured(screen.is_coloured);
    for row in rows {
        columns.push(cells(row));
    }
    columns.text()
}
