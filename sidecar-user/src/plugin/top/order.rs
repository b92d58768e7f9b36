//! The columns of the view: what stands in them, and how rows are put in order by one.

use std::cmp::Ordering;

use super::super::columns::{Column, WHOLE, column};
use super::super::paint::{Cell, Tint};
use super::super::words::{known, rate, short_time, size};
use super::model::Row;

pub(super) const COLUMNS: [Column; 13] = [
    column("SOURCE", 0, 12),
    column("DESTINATION", 0, 18),
    column("SECURED", 0, 9),
    column("CONN/S", 1, WHOLE),
    column("BYTES/S", 1, WHOLE),
    column("RTT", 2, WHOLE),
    column("FAILED", 0, WHOLE),
    column("OPEN", 3, WHOLE),
    column("FAILED/S", 5, WHOLE),
    column("LAST FAILURE", 4, 14),
    column("SERVICE", 6, 12),
    column("SENT/S", 7, WHOLE),
    column("RECV/S", 7, WHOLE),
];

/// Widths that most values keep to, so that columns do not move when a number grows.
pub(super) const USUAL: [usize; COLUMNS.len()] = [12, 18, 9, 6, 8, 5, 6, 4, 8, 12, 7, 8, 8];

/// Numbers stand under each other by their ends.
pub(super) fn is_number(column: usize) -> bool {
    [CONNECTIONS, BYTES, RTT, FAILED, OPEN, FAILED_RATE, SENT, RECEIVED].contains(&column)
}

const SOURCE: usize = 0;
const DESTINATION: usize = 1;
const SECURED: usize = 2;
const CONNECTIONS: usize = 3;
pub(super) const BYTES: usize = 4;
const RTT: usize = 5;
const FAILED: usize = 6;
const OPEN: usize = 7;
const FAILED_RATE: usize = 8;
const LAST_FAILURE: usize = 9;
const SERVICE: usize = 10;
const SENT: usize = 11;
const RECEIVED: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) column: usize,
    pub(super) is_descending: bool,
}

impl Default for Order {
    fn default() -> Self {
        Self::by(BYTES)
    }
}

impl Order {
    /// What is most comes first, names in the order of the alphabet.
    pub(super) fn by(column: usize) -> Self {
        Self {
            column,
            is_descending: ![SOURCE, DESTINATION, SECURED, SERVICE].contains(&column),
        }
    }

    pub(super) fn sort(self, rows: &mut [Row]) {
        rows.sort_by(|a, b| {
            let order = self.compare(a, b);
            let order = if self.is_descending {
                order.reverse()
            } else {
                order
            };
            // What is as large stays where it is.
            let names = |row: &Row| (row.source.clone(), row.destination.clone());
            order.then_with(|| names(a).cmp(&names(b)).then_with(|| a.pair.cmp(&b.pair)))
        });
    }

    fn compare(self, a: &Row, b: &Row) -> Ordering {
        // What is not known is less than anything.
        let known = |number: Option<f64>| number.unwrap_or(-1.0);
        match self.column {
            SOURCE => a.source.cmp(&b.source),
            DESTINATION => a.destination.cmp(&b.destination),
            SECURED => a.security.cmp(&b.security),
            CONNECTIONS => a.rates.connections.total_cmp(&b.rates.connections),
            RTT => known(a.rtt).total_cmp(&known(b.rtt)),
            FAILED => a.failed.cmp(&b.failed),
            OPEN => a.open.cmp(&b.open),
            FAILED_RATE => a.rates.failed.total_cmp(&b.rates.failed),
            LAST_FAILURE => a.last_failure.cmp(&b.last_failure),
            SERVICE => a.service.cmp(&b.service),
            SENT => a.rates.sent.total_cmp(&b.rates.sent),
            RECEIVED => a.rates.received.total_cmp(&b.rates.received),
            _ => a.rates.bytes().total_cmp(&b.rates.bytes()),
        }
    }
}

pub(super) fn cells(row: &Row) -> Vec<Cell> {
    let is_failing = row.rates.failed > 0.0;
    // Of what never came up nothing went in plaintext.
    let is_down = row.failed > 0 && row.failed == row.connections && row.open == 0;
    let security = match (row.is_secured, is_down) {
        (true, _) => Cell::tinted(&*row.security, Tint::Secured),
        (_, true) if !row.pair.is_mesh => "-".into(),
        (_, true) => Cell::tinted(shortly(&row.security), Tint::Failed),
        _ => Cell::tinted(shortly(&row.security), Tint::Plaintext),
    };
    let last = row
        .last_failure
        .as_ref()
        .map(|(cause, by)| format!("{cause} by {by}"));
    vec![
        row.source.clone().into(),
        row.destination.clone().into(),
        security,
        rate(row.rates.connections).into(),
        size(row.rates.bytes() as u64).into(),
        row.rtt.map_or_else(|| "-".to_owned(), short_time).into(),
        Cell::maybe(row.failed.to_string(), (row.failed > 0).then_some(Tint::Failed)),
        row.open.to_string().into(),
        Cell::maybe(rate(row.rates.failed), is_failing.then_some(Tint::Failed)),
        known(last.as_deref()).into(),
        known(row.service.as_deref()).into(),
        size(row.rates.sent as u64).into(),
        size(row.rates.received as u64).into(),
    ]
}

/// Why it is not secured stands in the detail.
fn shortly(security: &str) -> &str {
    match security.split_once(':') {
        Some((plaintext, _)) => plaintext,
        None => security.strip_suffix(" came up").unwrap_or(security),
    }
}

/// Whether a row has the word somewhere, in whatever case; with `!` before it, whether it has not.
pub(super) fn has(row: &Row, word: &str) -> bool {
    let (word, wanted) = match word.strip_prefix('!') {
        Some(rest) => (rest, false),
        None => (word, true),
    };
    if word.is_empty() {
        return true;
    }
    let word = word.to_lowercase();
    let holds = |text: &str| text.to_lowercase().contains(&word);
    let failure = row.last_failure.as_ref().map(|(cause, _)| cause);
    let is_there = [&row.source, &row.destination, &row.security]
        .into_iter()
        .chain(&row.service)
        .chain(failure)
        .any(|text| holds(text));
    is_there == wanted
}
