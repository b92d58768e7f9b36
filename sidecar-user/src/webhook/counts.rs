//! How many pods were asked about, and what became of them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// By result: `injected`, `unchanged`, the rule of a refusal, or `bad` for what is no question.
#[derive(Debug, Default)]
pub struct Counts(Mutex<BTreeMap<&'static str, u64>>);

impl Counts {
    pub(super) fn count(&self, result: &'static str) {
        *self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(result)
            .or_default() += 1;
    }

    pub fn read(&self) -> Vec<(&'static str, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(result, count)| (*result, *count)).collect()
    }
}
