//! Columns for people, and times as people say them.

use std::fmt;
use std::time::{Duration, SystemTime};

/// Rows of so many cells, padded when they are shown.
pub(super) struct Table<const N: usize>(Vec<[String; N]>);

impl<const N: usize> Table<N> {
    pub(super) fn new(head: [&str; N]) -> Self {
        Self(vec![head.map(str::to_owned)])
    }

    pub(super) fn row(&mut self, cells: [String; N]) {
        self.0.push(cells);
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            self.0
                .iter()
                .map(|row| row[column].len())
                .max()
                .unwrap_or_default()
        };
        for row in &self.0 {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                line.push_str(&format!("{cell:<width$}   ", width = width(column)));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// How long ago, in its two largest units.
pub(super) fn since(time: SystemTime, now: SystemTime) -> String {
    rough(now.duration_since(time).unwrap_or_default())
}

pub(super) fn until(time: SystemTime, now: SystemTime) -> String {
    match time.duration_since(now) {
        Ok(left) if !left.is_zero() => format!("in {}", rough(left)),
        _ => format!("expired {} ago", since(time, now)),
    }
}

pub(super) fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m{}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h{minutes}m"),
        (days, hours, _) => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_two_units() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        for (seconds, said) in [(5, "5s"), (65, "1m5s"), (7_200, "2h0m"), (180_000, "2d2h")] {
            assert_eq!(since(at(0), at(seconds)), said);
        }
        assert_eq!(until(at(65), at(0)), "in 1m5s");
        assert_eq!(until(at(0), at(65)), "expired 1m5s ago");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["A", "B"]);
        table.row(["long".into(), "x".into()]);
        assert_eq!(table.to_string(), "A      B\nlong   x\n");
    }
}
