//! What is measured, a load a row and what is read from it, and what is aimed at.

use serde::Serialize;

use super::generator::Facts;
use super::topology::{Contender, Topology};

/// A load that contenders are compared by.
#[derive(Clone, Copy)]
pub(super) struct Row {
    /// For `--only` and the JSON file.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// The first is what the others are compared with.
    pub(super) contenders: fn(&Topology) -> Vec<&Contender>,
    /// The arguments of `outrigger-load`.
    pub(super) load: fn(&Contender) -> Vec<String>,
    pub(super) figures: &'static [Figure],
}

/// One number of a slice.
#[derive(Clone, Copy)]
pub(super) struct Figure {
    pub(super) title: &'static str,
    pub(super) of: fn(&Slice) -> Option<f64>,
    pub(super) unit: Unit,
    /// Of the ratio to the first contender.
    pub(super) aim: Option<Aim>,
}

/// What a contender did in a slice, and what it took.
#[derive(Debug)]
pub(super) struct Slice {
    pub(super) facts: Facts,
    /// Of everything in the pods, in nanoseconds, warm-up included.
    pub(super) cpu: f64,
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

pub(super) const ROWS: [Row; 9] = [
    Row {
        name: "round-trip",
        title: "round trip, 1 connection",
        contenders: through_tunnel,
        load: |c| args(&["rr", &c.echo.to_string()]),
        figures: &[Figure {
            title: "p50",
            of: |slice| slice.facts.latency_ns.as_ref().map(|l| l.p50),
            unit: Unit::Nanoseconds,
            aim: Some(Aim::AtMost(4.5)),
        }],
    },
    Row {
        name: "requests",
        title: "requests, 32 connections",
        contenders: through_tunnel,
        load: |c| args(&["rr", &c.echo.to_string(), "--connections", "32"]),
        figures: &[rate(Some(Aim::AtLeast(0.25)))],
    },
    Row {
        name: "connections",
        title: "connections, warm tunnel",
        contenders: both_ways_in_mesh,
        load: |c| args(&["connect", &c.echo.to_string()]),
        figures: CONNECTION,
    },
    Row {
        name: "connections-plaintext",
        title: "connections, to no sidecar",
        contenders: both_ways_to_outside,
        load: |c| args(&["connect", &c.echo.to_string()]),
        figures: CONNECTION,
    },
    Row {
        name: "crowd",
        title: "64 at once, warm tunnel",
        contenders: both_ways_in_mesh,
        load: |c| args(&["crowd", &c.echo.to_string(), "--connections", "64"]),
        figures: &[rate(None), CPU],
    },
    Row {
        name: "crowd-plaintext",
        title: "64 at once, to no sidecar",
        contenders: both_ways_to_outside,
        load: |c| args(&["crowd", &c.echo.to_string(), "--connections", "64"]),
        figures: &[rate(None), CPU],
    },
    Row {
        name: "refused",
        title: "64 refused at once, warm tunnel",
        contenders: through_tunnel,
        load: |c| args(&["crowd", &c.refused.to_string(), "--refused"]),
        figures: &[rate(None), CPU],
    },
    Row {
        name: "refused-plaintext",
        title: "64 refused at once, to no sidecar",
        contenders: |t| vec![&t.direct, &t.plaintext_ways.truthful],
        load: |c| args(&["crowd", &c.refused.to_string(), "--refused"]),
        figures: &[rate(None), CPU],
    },
    Row {
        name: "bulk",
        title: "bulk, 1 connection",
        contenders: through_tunnel,
        load: |c| args(&["bulk", &c.sink.to_string()]),
        figures: &[Figure {
            title: "rate",
            of: |slice| Some(slice.facts.bytes / slice.facts.seconds),
            unit: Unit::BytesPerSecond,
            aim: Some(Aim::AtLeast(0.2)),
        }],
    },
];

const CONNECTION: &[Figure] = &[
    rate(Some(Aim::AtLeast(0.15))),
    latency("whole, p50", |slice| {
        slice.facts.latency_ns.as_ref().map(|l| l.p50)
    }),
    latency("whole, p99", |slice| {
        slice.facts.latency_ns.as_ref().map(|l| l.p99)
    }),
    latency("connect(), p50", |slice| {
        slice.facts.connect_ns.as_ref().map(|l| l.p50)
    }),
    latency("connect(), p99", |slice| {
        slice.facts.connect_ns.as_ref().map(|l| l.p99)
    }),
    CPU,
];

const CPU: Figure = latency("CPU of all, each", |slice| {
    Some(slice.cpu / slice.facts.all_operations)
});

const fn rate(aim: Option<Aim>) -> Figure {
    Figure {
        title: "rate",
        of: |slice| Some(slice.facts.operations / slice.facts.seconds),
        unit: Unit::PerSecond,
        aim,
    }
}

const fn latency(title: &'static str, of: fn(&Slice) -> Option<f64>) -> Figure {
    Figure {
        title,
        of,
        unit: Unit::Nanoseconds,
        aim: None,
    }
}

fn through_tunnel(t: &Topology) -> Vec<&Contender> {
    vec![&t.direct, &t.mesh_ways.truthful]
}

fn both_ways_in_mesh(t: &Topology) -> Vec<&Contender> {
    vec![&t.direct, &t.mesh_ways.optimistic, &t.mesh_ways.truthful]
}

fn both_ways_to_outside(t: &Topology) -> Vec<&Contender> {
    vec![
        &t.direct,
        &t.plaintext_ways.optimistic,
        &t.plaintext_ways.truthful,
    ]
}

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
