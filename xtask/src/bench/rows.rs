//! What is measured, one row each, and what is aimed at. Knows no contender.

use serde::Serialize;

use super::generator::Facts;
use super::topology::Contender;

/// A row that compares contenders by one figure of the load generator.
#[derive(Clone, Copy)]
pub(super) struct Row {
    /// For `--only` and the JSON file.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// The arguments of `outrigger-load`.
    pub(super) load: fn(&Contender) -> Vec<String>,
    pub(super) figure: fn(&Facts) -> Option<f64>,
    pub(super) unit: Unit,
    /// Of the ratio to the first contender.
    pub(super) aim: Aim,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Aim {
    AtMost(f64),
    AtLeast(f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Unit {
    Nanoseconds,
    PerSecond,
    BytesPerSecond,
    Bytes,
}

pub(super) const ROWS: [Row; 4] = [
    Row {
        name: "round-trip",
        title: "round trip, p50, 1 connection",
        load: |c| args(&["rr", &c.echo.to_string()]),
        figure: |facts| facts.latency_ns.as_ref().map(|l| l.p50),
        unit: Unit::Nanoseconds,
        aim: Aim::AtMost(4.5),
    },
    Row {
        name: "requests",
        title: "requests/s, 32 connections",
        load: |c| args(&["rr", &c.echo.to_string(), "--connections", "32"]),
        figure: |facts| Some(facts.operations / facts.seconds),
        unit: Unit::PerSecond,
        aim: Aim::AtLeast(0.25),
    },
    Row {
        name: "connections",
        title: "new connections/s, warm tunnels",
        load: |c| args(&["connect", &c.echo.to_string()]),
        figure: |facts| Some(facts.operations / facts.seconds),
        unit: Unit::PerSecond,
        aim: Aim::AtLeast(0.15),
    },
    Row {
        name: "bulk",
        title: "bulk, 1 connection",
        load: |c| args(&["bulk", &c.sink.to_string()]),
        figure: |facts| Some(facts.bytes / facts.seconds),
        unit: Unit::BytesPerSecond,
        aim: Aim::AtLeast(0.2),
    },
];

/// Pss of a sidecar that is ready and has done nothing.
pub(super) const IDLE_SIDECAR: Aim = Aim::AtMost(12e6);
/// Pss that each idle connection adds to a sidecar.
pub(super) const IDLE_CONNECTION: Aim = Aim::AtMost(8e3);

/// Whether a figure is on the right side of an aim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Verdict {
    Met,
    Missed,
    /// The interval lies on both sides.
    Open,
}

impl Aim {
    pub(super) fn verdict(self, low: f64, high: f64) -> Verdict {
        let (all, none) = match self {
            Self::AtMost(limit) => (high <= limit, low > limit),
            Self::AtLeast(limit) => (low >= limit, high < limit),
        };
        match (all, none) {
            (true, _) => Verdict::Met,
            (_, true) => Verdict::Missed,
            _ => Verdict::Open,
        }
    }
}

fn args(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aim_is_met_when_the_whole_interval_is_on_its_side() {
        let cases = [
            (Aim::AtMost(4.5), 4.0, 4.5, Verdict::Met),
            (Aim::AtMost(4.5), 4.4, 4.6, Verdict::Open),
            (Aim::AtMost(4.5), 4.6, 5.0, Verdict::Missed),
            (Aim::AtLeast(0.2), 0.2, 0.3, Verdict::Met),
            (Aim::AtLeast(0.2), 0.1, 0.2, Verdict::Open),
            (Aim::AtLeast(0.2), 0.1, 0.19, Verdict::Missed),
        ];
        for (aim, low, high, verdict) in cases {
            assert_eq!(aim.verdict(low, high), verdict, "{aim:?} {low} {high}");
        }
    }

    #[test]
    fn every_row_has_a_name_of_its_own() {
        let mut names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ROWS.len());
    }
}
