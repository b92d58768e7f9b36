//! What the signer of pod certificates counts, for `figures.rs`, which has the names.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

#[derive(Debug, Default)]
pub(crate) struct Stats {
    issued: AtomicU64,
    denied: AtomicU64,
    failed: AtomicU64,
    conflicts: AtomicU64,
    troubles: AtomicU64,
    bundle_troubles: AtomicU64,
    waiting: AtomicUsize,
    is_offered: AtomicBool,
}

/// At one moment.
pub(crate) struct Counts {
    /// By outcome.
    pub(crate) outcomes: [(&'static str, u64); 5],
    pub(crate) bundle_troubles: u64,
    pub(crate) waiting: u64,
    pub(crate) is_offered: bool,
}

impl Stats {
    pub(super) fn issued(&self) {
        self.issued.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, is_denied: bool) {
        let counter = match is_denied {
            true => &self.denied,
            false => &self.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn conflict(&self) {
        self.conflicts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn trouble(&self) {
        self.troubles.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn bundle_trouble(&self) {
        self.bundle_troubles.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn waiting(&self, requests: usize) {
        self.waiting.store(requests, Ordering::Relaxed);
    }

    pub(super) fn offered(&self, is_offered: bool) {
        self.is_offered.store(is_offered, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            outcomes: [
                ("issued", read(&self.issued)),
                ("denied", read(&self.denied)),
                ("failed", read(&self.failed)),
                ("conflict", read(&self.conflicts)),
                ("error", read(&self.troubles)),
            ],
            bundle_troubles: read(&self.bundle_troubles),
            waiting: self.waiting.load(Ordering::Relaxed) as u64,
            is_offered: self.is_offered.load(Ordering::Relaxed),
        }
    }
}
