//! What the rounds have met, so that a world in which nothing goes wrong is noticed.

use std::collections::HashMap;

/// How often something has happened.
#[derive(Debug, Default)]
pub(super) struct Seen(pub(super) HashMap<&'static str, u32>);

impl Seen {
    pub(super) fn one(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (what, n) in &other.0 {
            *self.0.entry(what).or_default() += n;
        }
    }
}
