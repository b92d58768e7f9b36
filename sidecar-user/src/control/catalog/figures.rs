//! The catalog's counts as metrics, read at each scrape. The only place where their names are.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::discovery::catalog::{Counts, Kind};
use crate::observe::{Figure, Observer};
use crate::xds::Shared;

/// How following the cluster goes.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// By the number of the kind.
    pub(super) watches: [Watch; Kind::ALL.len()],
    counts: Mutex<Counts>,
    /// Milliseconds.
    lag: AtomicU64,
    problems: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct Watch {
    /// It has answered, and nothing has failed since.
    up: AtomicBool,
    /// It had answered, and does not any more.
    lost: AtomicBool,
    changes: AtomicU64,
    lists: AtomicU64,
    failures: AtomicU64,
}

impl Watch {
    /// Whether this is worth a line: it is the first word, or the first failure, after the other.
    pub(super) fn heard(&self, trouble: Option<&str>, is_list: bool) -> bool {
        if trouble.is_some() {
            self.failures.fetch_add(1, Relaxed);
            self.up.store(false, Relaxed);
            return !self.lost.swap(true, Relaxed);
        }
        let counter = if is_list { &self.lists } else { &self.changes };
        counter.fetch_add(1, Relaxed);
        self.up.store(true, Relaxed);
        self.lost.swap(false, Relaxed)
    }
}

impl Standing {
    pub(super) fn count(&self, counts: Counts) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }

    pub(super) fn problems(&self, number: usize) {
        self.problems.store(number as u64, Relaxed);
    }

    pub(super) fn lag(&self, lag: Duration) {
        self.lag
            .store(lag.as_millis().try_into().unwrap_or(u64::MAX), Relaxed);
    }
}

pub(super) fn show(observer: &Observer, standing: Arc<Standing>, store: Arc<Shared>) {
    observer.figures(move || read(&standing, store.lock().len()));
}

pub(super) fn read(standing: &Standing, resources: usize) -> Vec<Figure> {
    let of = |read: fn(&Watch) -> u64| Kind::ALL.map(|kind| (kind.name(), read(standing.of(kind))));
    let counts = *standing.counts.lock().unwrap_or_else(PoisonError::into_inner);
    vec![
        Figure::gauge(
            "outrigger_catalog_objects",
            "Objects of the cluster that are known",
        )
        .by(
            "kind",
            [
                (Kind::Nodes.name(), counts.nodes as u64),
                (Kind::Pods.name(), counts.pods as u64),
                (Kind::Services.name(), counts.services as u64),
                (Kind::Slices.name(), counts.slices as u64),
            ],
        ),
        Figure::gauge(
            "outrigger_catalog_resources",
            "Resources of discovery made of them",
        )
        .value(resources as u64),
        Figure::gauge(
            "outrigger_catalog_watch_up",
            "Whether the API server answers; 0: what it said last stays in force",
        )
        .by("kind", of(|watch| watch.up.load(Relaxed).into())),
        Figure::counter("outrigger_catalog_changes", "Changes of single objects")
            .by("kind", of(|watch| watch.changes.load(Relaxed))),
        Figure::counter(
            "outrigger_catalog_lists",
            "Lists of all objects, after which changes follow",
        )
        .by("kind", of(|watch| watch.lists.load(Relaxed))),
        Figure::counter(
            "outrigger_catalog_failures",
            "Questions that the API server did not answer",
        )
        .by("kind", of(|watch| watch.failures.load(Relaxed))),
        Figure::gauge(
            "outrigger_catalog_lag_milliseconds",
            "From the change of a pod or Service to its endpoints being served, the last time",
        )
        .value(standing.lag.load(Relaxed)),
        Figure::gauge(
            "outrigger_catalog_policy_problems",
            "What policies say that is not followed",
        )
        .value(standing.problems.load(Relaxed)),
    ]
}
