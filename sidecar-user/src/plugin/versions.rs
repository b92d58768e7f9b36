//! Versions of many processes: how many there are of each, in order.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

/// Ordered as semantic versions are by their numbers, and then by their text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version(String);

/// The oldest first.
pub(super) type Counts = BTreeMap<Version, usize>;

impl Version {
    fn numbers(&self) -> [u64; 3] {
        let core = self.0.split(['-', '+']).next().unwrap_or_default();
        let mut numbers = core
            .trim_start_matches('v')
            .split('.')
            .map(|part| part.parse().unwrap_or(0));
        [(); 3].map(|()| numbers.next().unwrap_or(0))
    }

    /// `1.0.0-rc.1` comes before `1.0.0`.
    fn is_final(&self) -> bool {
        !self.0.contains('-')
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |version: &Self| (version.numbers(), version.is_final());
        key(self).cmp(&key(other)).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Deref for Version {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) fn count<'a>(versions: impl IntoIterator<Item = &'a str>) -> Counts {
    let mut counts = Counts::new();
    for version in versions {
        *counts.entry(Version(version.to_owned())).or_default() += 1;
    }
    counts
}

/// `0.1.0 (2), 0.2.0 (7)`.
pub(super) fn text(counts: &Counts) -> String {
    let each = counts.iter().map(|(version, n)| format!("{version} ({n})"));
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_counted_in_their_own_order() {
        let counts = count(["0.10.0", "0.9.0", "0.10.0", "0.10.0-rc.1", "local"]);
        assert_eq!(text(&counts), "local (1), 0.9.0 (1), 0.10.0-rc.1 (1), 0.10.0 (2)");
    }
}
