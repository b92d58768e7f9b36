//! What is bounded, for whoever scrapes, and memory given back after a burst. Bounds nothing itself.

use std::time::Duration;

use super::doors::Doors;
use crate::budget::{self, Budget};
use crate::observe::{Figure, Observer};

/// Shows how full the buffers and the doors are.
pub(super) fn show(observer: &Observer, budget: &Budget, doors: &Doors) {
    let (budget, doors) = (budget.clone(), doors.clone());
    observer.figures(move || read(&budget, &doors));
}

fn read(budget: &Budget, doors: &Doors) -> Vec<Figure> {
    let doors = doors
        .named()
        .map(|(name, door)| (name, door.counts(), door.limits()));
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
        Figure::gauge(
            "outrigger_admission_waiting",
            "Connections that have proved nothing yet, by door",
        )
        .by(
            "door",
            doors.map(|(name, counts, _)| (name, counts.waiting as u64)),
        ),
        Figure::gauge(
            "outrigger_admission_places",
            "How many of them there may be, by door",
        )
        .by(
            "door",
            doors.map(|(name, _, limits)| (name, limits.places as u64)),
        ),
        Figure::counter(
            "outrigger_admission_evicted_by_quota",
            "Connections that gave their place to a later one of their source, by door",
        )
        .by(
            "door",
            doors.map(|(name, counts, _)| (name, counts.evicted_by_quota)),
        ),
        Figure::counter(
            "outrigger_admission_evicted_when_full",
            "Connections that gave their place to a later one because all were taken, by door",
        )
        .by(
            "door",
            doors.map(|(name, counts, _)| (name, counts.evicted_when_full)),
        ),
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
