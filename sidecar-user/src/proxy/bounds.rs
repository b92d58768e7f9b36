//! What is bounded, for whoever scrapes, and memory given back after a burst. Bounds nothing itself.

use std::time::Duration;

use super::doors::Doors;
use crate::budget::{self, Budget};
use crate::observe::{Figure, Observer};

/// Shows how full the buffers and the doors are.
pub(super) fn show(observer: &Observer, budget: &Budget, doors: &Doors) {
    let budget = budget.clone();
    observer.figures(move || read(&budget));
    for (name, door) in doors.named() {
        observer.door(name, door.clone());
    }
}

fn read(budget: &Budget) -> Vec<Figure> {
    vec![
        Figure::gauge(
            "outrigger_buffer_memory_bytes",
            "Memory of bytes that wait, of all connections",
        )
        .value(budget.used() as u64),
        Figure::gauge(
            "outrigger_buffer_memory_peak_bytes",
            "The most of it since the start",
        )
        .value(budget.peak() as u64),
        Figure::gauge("outrigger_buffer_memory_limit_bytes", "What it may be").value(budget.total() as u64),
        Figure::counter(
            "outrigger_buffer_memory_waits",
            "Times that a tunnel had to wait for memory before more was read",
        )
        .value(budget.waits() as u64),
    ]
}

/// Gives memory back after a burst: once buffers have held much and hold little again.
pub(super) async fn trim(budget: Budget) {
    const LOOK: Duration = Duration::from_secs(10);
    let mut most = 0;
    loop {
        tokio::time::sleep(LOOK).await;
        let used = budget.used();
        most = most.max(budget.take_peak());
        if most > budget.total() / 16 && used < most / 4 {
            budget::trim();
            most = used;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_documented() {
        const MANUAL: &str = include_str!("../../../docs/observability.md");
        let figures = read(&Budget::new(1 << 20));
        for figure in &figures {
            let name = figure.exposed_name();
            assert!(MANUAL.contains(&format!("`{name}`")), "{name}");
        }
        let documented = MANUAL
            .lines()
            .filter(|row| row.starts_with("| `outrigger_buffer_memory_"));
        assert_eq!(documented.count(), figures.len());
    }
}
