//! What is bounded, for whoever scrapes, and memory given back after a burst. Bounds nothing itself.

use std::time::Duration;

use super::doors::Doors;
use crate::budget::{self, Budget};
use crate::observe::{Bounds, BufferMemory, Observer};

/// Shows how full the buffers and the doors are.
pub(super) fn show(observer: &Observer, budget: &Budget, doors: &Doors) {
    let budget = budget.clone();
    observer.bounds(Bounds {
        memory: Box::new(move || BufferMemory {
            used: budget.used(),
            peak: budget.peak(),
            limit: budget.total(),
            waits: budget.waits(),
        }),
    });
    for (name, door) in doors.named() {
        observer.door(name, door.clone());
    }
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
