//! Slices: a load stays connected for a whole run and works only while it is told to, so that several contenders can
//! take turns. Does not choose the turns.

use std::io::{self, BufRead, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::samples::Latency;

pub(crate) trait Load {
    /// Works for a span and is silent again when it returns.
    fn slice(&mut self, span: Span) -> Result<Facts>;
}

/// When a slice counts: after a warm-up, until the end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) counted_from: Instant,
    pub(crate) end: Instant,
}

/// What a slice did while it counted.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Facts {
    pub(crate) seconds: f64,
    /// Exchanges or connections.
    pub(crate) operations: u64,
    /// Those of the warm-up and the last ones too, for what is measured from outside, such as CPU time.
    pub(crate) all_operations: u64,
    /// Arrived at the server; only where bytes are the point.
    pub(crate) bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency_ns: Option<Latency>,
    /// Of connect() alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connect_ns: Option<Latency>,
}

/// A slice for each line of the standard input.
pub(crate) fn run_each(load: &mut impl Load) -> Result<()> {
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (warm, counted) = parse(&line)?;
        let counted_from = Instant::now() + warm;
        let facts = load.slice(Span {
            counted_from,
            end: counted_from + counted,
        })?;
        print(&facts)?;
    }
    Ok(())
}

pub(crate) fn print(facts: &impl Serialize) -> Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, facts)?;
    out.write_all(b"\n")?;
    out.flush().context("write to the standard output")
}

impl Span {
    pub(crate) fn counts(&self, at: Instant) -> bool {
        (self.counted_from..self.end).contains(&at)
    }

    pub(crate) fn seconds(&self) -> f64 {
        (self.end - self.counted_from).as_secs_f64()
    }
}

fn parse(line: &str) -> Result<(Duration, Duration)> {
    let numbers: Vec<u64> = line
        .split_whitespace()
        .map_while(|word| word.parse().ok())
        .collect();
    match numbers[..] {
        [warm, counted] if counted > 0 => Ok((Duration::from_millis(warm), Duration::from_millis(counted))),
        _ => anyhow::bail!(
            "{line:?} on the standard input is not `WARM COUNTED` in milliseconds, e.g. `10 100`"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_ordered_by_two_numbers() {
        assert_eq!(
            parse("10 100").unwrap(),
            (Duration::from_millis(10), Duration::from_millis(100))
        );
        for wrong in ["", "10", "10 0", "a b", "1 2 3"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn neither_the_warm_up_nor_the_end_counts() {
        let now = Instant::now();
        let ms = Duration::from_millis(1);
        let span = Span {
            counted_from: now + ms,
            end: now + 3 * ms,
        };
        let counts: Vec<bool> = (0..4).map(|n| span.counts(now + n * ms)).collect();
        assert_eq!(counts, [false, true, true, false]);
        assert_eq!(span.seconds(), 0.002);
    }
}
