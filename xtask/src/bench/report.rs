//! What a run found: a table for people, a file for programs. Measures nothing and rounds only what it prints.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::blocks::{MOST_STEAL, Plan, Series};
use super::machine::Machine;
use super::memory::Weight;
use super::rows::{Aim, Figure, IDLE_CONNECTION, IDLE_SIDECAR, Row, Unit, Verdict};
use super::statistics::{Estimate, estimate, median};

#[derive(Serialize)]
pub(super) struct Report {
    machine: Machine,
    /// Of what the sidecars carry.
    protection: String,
    plan: Plan,
    rows: Vec<Line>,
    memory: Option<Vec<Weight>>,
}

/// A row and all it found.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    name: &'static str,
    title: &'static str,
    figures: Vec<Found>,
    series: Series,
}

/// What a figure of a row came to.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    title: &'static str,
    unit: Unit,
    /// Of a ratio to the first contender.
    aim: Option<Aim>,
    /// Of each contender, over the blocks that were kept.
    medians: Vec<f64>,
    ratios: Vec<Ratio>,
}

/// Of one contender to another, taken inside each block.
#[derive(Serialize)]
struct Ratio {
    of: usize,
    to: usize,
    estimate: Estimate,
}

impl Report {
    pub(super) fn new(
        machine: Machine,
        protection: String,
        plan: &Plan,
        measured: Vec<(&Row, Series)>,
        memory: Option<Vec<Weight>>,
    ) -> Self {
        let rows = measured.into_iter().map(|(row, series)| Line::of(row, series));
        Self {
            rows: rows.collect(),
            machine,
            protection,
            plan: *plan,
            memory,
        }
    }

    pub(super) fn print(&self) {
        let machine = &self.machine;
        println!(
            "\n{}, {} cores, Linux {}",
            machine.cpu, machine.cores, machine.kernel
        );
        println!(
            "everything on core {}; congestion control {}; load average {} before, {} after; {:.1} % of the core stolen",
            machine.core,
            machine.congestion_control,
            machine.load[0],
            machine.load[1],
            machine.steal * 100.0
        );
        println!(
            "{} blocks a row, slices of {} ms after {} ms of warm-up; 128 B each way, bulk in 256 KB writes",
            self.plan.blocks,
            self.plan.counted.as_millis(),
            self.plan.warm_up.as_millis()
        );
        println!(
            "direct: no sidecar, no eBPF; the others: sidecars of one worker, warm tunnels of {};\n\
             truthful (the default): connect() waits for the server; optimistic: it does not. A base is direct, where not named\n",
            self.protection
        );
        println!(
            "{}",
            columns(["", "base", "contender", "ratio [95 %]", "aim", ""])
        );
        for line in &self.rows {
            line.print();
        }
        if let Some(memory) = &self.memory {
            print_memory(memory);
        }
        self.print_dropped();
        println!("\nAgain: {}", command_line());
    }

    fn print_dropped(&self) {
        let tried: usize = self.rows.iter().map(|line| line.series.blocks.len()).sum();
        let dropped: usize = self.rows.iter().map(|line| line.series.dropped()).sum();
        if tried > 0 {
            println!(
                "\n{dropped} of {tried} blocks dropped, because more than {:.0} % of the core was stolen meanwhile",
                MOST_STEAL * 100.0
            );
        }
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
    }
}

impl Line {
    fn of(row: &Row, series: Series) -> Self {
        let found = |(index, figure): (usize, &Figure)| Found::of(figure, index, &series);
        Self {
            name: row.name,
            title: row.title,
            figures: row.figures.iter().enumerate().map(found).collect(),
            series,
        }
    }

    fn print(&self) {
        println!("{}", self.title);
        for found in &self.figures {
            for ratio in &found.ratios {
                found.print(ratio, &self.series.contenders);
            }
        }
    }
}

impl Found {
    fn of(figure: &Figure, index: usize, series: &Series) -> Self {
        let blocks: Vec<&Vec<f64>> = series.kept().map(|block| &block.figures[index]).collect();
        let column = |n: usize| -> Vec<f64> { blocks.iter().map(|values| values[n]).collect() };
        let ratio = |(of, to): (usize, usize)| {
            let values: Vec<f64> = blocks.iter().map(|values| values[of] / values[to]).collect();
            Ratio {
                of,
                to,
                estimate: estimate(&values),
            }
        };
        let count = series.contenders.len();
        // Each to the first, then each to the one before it, where that is another.
        let to_first = (1..count).map(|of| (of, 0));
        let to_previous = (2..count).map(|of| (of, of - 1));
        Self {
            title: figure.title,
            unit: figure.unit,
            aim: figure.aim,
            medians: (0..count).map(|n| median(&column(n))).collect(),
            ratios: to_first.chain(to_previous).map(ratio).collect(),
        }
    }

    fn print(&self, ratio: &Ratio, contenders: &[&str]) {
        let Estimate { median, low, high } = ratio.estimate;
        let to = match ratio.to {
            0 => String::new(),
            to => format!(" / {}", contenders[to]),
        };
        let aim = self.aim.filter(|_| ratio.to == 0);
        println!(
            "{}",
            columns([
                &format!("  {}, {}{to}", self.title, contenders[ratio.of]),
                &self.unit.show(self.medians[ratio.to]),
                &self.unit.show(self.medians[ratio.of]),
                &format!(
                    "{} [{}, {}]",
                    show_ratio(median),
                    show_ratio(low),
                    show_ratio(high)
                ),
                &aim.map(|aim| aim.show(show_ratio)).unwrap_or_default(),
                aim.map(|aim| aim.verdict(low, high).show()).unwrap_or_default(),
            ])
        );
    }
}

fn print_memory(weights: &[Weight]) {
    let bytes = |value| Unit::Bytes.show(value);
    for weight in weights {
        let idle = weight.idle;
        println!(
            "{}",
            columns([
                &format!("idle sidecar of the {}, Pss", weight.side),
                "-",
                &bytes(idle.pss),
                &format!("(Rss {})", bytes(idle.rss)),
                &IDLE_SIDECAR.show(bytes),
                IDLE_SIDECAR.verdict(idle.pss, idle.pss).show(),
            ])
        );
    }
    for weight in weights {
        let Some(each) = weight.per_connection() else {
            continue;
        };
        let steps: Vec<String> = weight
            .with_connections
            .iter()
            .map(|(count, usage)| format!("{} at {count}", bytes(usage.pss)))
            .collect();
        println!(
            "{}",
            columns([
                &format!("idle connection, {}'s sidecar", weight.side),
                "-",
                &bytes(each),
                &format!("({})", steps.join(", ")),
                &IDLE_CONNECTION.show(bytes),
                IDLE_CONNECTION.verdict(each, each).show(),
            ])
        );
    }
}

fn columns([title, base, contender, ratio, aim, verdict]: [&str; 6]) -> String {
    format!("{title:<44} {base:>11} {contender:>11}   {ratio:<34} {aim:<10} {verdict}")
        .trim_end()
        .to_owned()
}

fn show_ratio(ratio: f64) -> String {
    // Two digits that say something, on either side of one.
    if ratio < 1.0 {
        format!("{ratio:.3}x")
    } else {
        format!("{ratio:.2}x")
    }
}

impl Unit {
    /// Decimal prefixes: 1 MB is 1,000,000 bytes.
    fn show(self, value: f64) -> String {
        let (value, unit) = match self {
            Self::Nanoseconds => (value / 1e9, "s"),
            Self::PerSecond => (value, "/s"),
            Self::BytesPerSecond => (value, "B/s"),
            Self::Bytes => (value, "B"),
        };
        let (scale, prefix) = [(1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m")]
            .into_iter()
            .find(|(scale, _)| value.abs() >= *scale)
            .unwrap_or((1e-6, "u"));
        let value = value / scale;
        let digits = if value.abs() < 100.0 { 1 } else { 0 };
        format!("{value:.digits$} {prefix}{unit}")
    }
}

impl Aim {
    fn show(self, value: impl Fn(f64) -> String) -> String {
        match self {
            Self::AtMost(limit) => format!("<= {}", value(limit)),
            Self::AtLeast(limit) => format!(">= {}", value(limit)),
        }
    }
}

impl Verdict {
    fn show(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "MISSED",
            Self::Open => "too close to call",
        }
    }
}

/// The words after `cargo xtask` are this program's arguments.
fn command_line() -> String {
    std::iter::once("cargo xtask".to_owned())
        .chain(std::env::args().skip(1))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_printed_with_a_prefix_and_their_unit() {
        for (unit, value, text) in [
            (Unit::Nanoseconds, 17_900.0, "17.9 us"),
            (Unit::Nanoseconds, 2.5e6, "2.5 ms"),
            (Unit::PerSecond, 76_012.0, "76.0 k/s"),
            (Unit::PerSecond, 682.0, "682 /s"),
            (Unit::BytesPerSecond, 1.82e9, "1.8 GB/s"),
            (Unit::Bytes, 8_000.0, "8.0 kB"),
            (Unit::Bytes, 12e6, "12.0 MB"),
        ] {
            assert_eq!(unit.show(value), text);
        }
    }

    #[test]
    fn a_ratio_has_three_digits() {
        assert_eq!([show_ratio(4.512), show_ratio(0.2048)], ["4.51x", "0.205x"]);
    }
}
