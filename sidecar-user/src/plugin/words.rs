//! Times, sizes and failures as people say them.

use crate::observe::DialFailureReport;

pub(super) fn known(value: Option<&str>) -> String {
    value.unwrap_or("-").to_owned()
}

/// As kubectl writes ages: one unit when it is enough, two while the second still says something.
pub(super) fn age(seconds: f64) -> String {
    let s = seconds as u64;
    match s {
        0 => format!("{}ms", (seconds * 1e3) as u64),
        1..120 => format!("{s}s"),
        120..600 => format!("{}m{}s", s / 60, s % 60),
        600..10_800 => format!("{}m", s / 60),
        10_800..172_800 => format!("{}h", s / 3600),
        _ => format!("{}d", s / 86_400),
    }
}

pub(super) fn short_time(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.0}us", s * 1e6),
        s if s < 1.0 => format!("{:.1}ms", s * 1e3),
        s => format!("{s:.1}s"),
    }
}

pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would print as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1}{}", UNITS[unit])
}

/// Of a probability, so that only what never happens is 0%.
pub(super) fn percent(part: f64) -> String {
    match part {
        p if p > 0.0 && p < 0.01 => "<1%".to_owned(),
        p => format!("{:.0}%", p * 100.0),
    }
}

pub(super) fn failed(failure: &DialFailureReport) -> String {
    let DialFailureReport {
        count,
        at,
        by,
        cause,
        detail,
    } = failure;
    let times = match count {
        1 => String::new(),
        count => format!(" {count} times in a row"),
    };
    format!("failed{times}, at {at}: {cause} by {by}: {detail}")
}

/// How many a second, without a unit: `0.25`, `3.1`, `120`, `12k`.
pub(super) fn rate(per_second: f64) -> String {
    match per_second {
        0.0 => "0".to_owned(),
        r if r < 0.005 => "<0.01".to_owned(),
        r if r < 0.995 => format!("{r:.2}"),
        r if r < 9.95 => format!("{r:.1}"),
        r if r < 9_999.5 => format!("{r:.0}"),
        r => format!("{:.0}k", r / 1e3),
    }
}

/// `3`, or `3 (2.5%)` of them all; below a thousandth no share is told.
pub(super) fn part(some: u64, of: u64) -> String {
    let percent = some as f64 / of.max(1) as f64 * 100.0;
    match percent {
        0.0..0.1 => some.to_string(),
        p if p < 9.95 => format!("{some} ({p:.1}%)"),
        p => format!("{some} ({p:.0}%)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_change_where_people_expect_it() {
        let sizes = [0, 1023, 1024, 1536, 1_048_575, 1 << 30].map(size);
        assert_eq!(sizes, ["0B", "1023B", "1.0KiB", "1.5KiB", "1.0MiB", "1.0GiB"]);
        assert_eq!([0.0, 0.001, 0.5, 1.0].map(percent), ["0%", "<1%", "50%", "100%"]);
        let rates = [0.0, 0.001, 0.25, 0.999, 9.94, 9.96, 120.4, 12_400.0].map(rate);
        assert_eq!(rates, ["0", "<0.01", "0.25", "1.0", "9.9", "10", "120", "12k"]);
        let parts = [(0, 0), (3, 120), (1, 2), (1, 5000), (7, 7)].map(|(some, of)| part(some, of));
        assert_eq!(parts, ["0", "3 (2.5%)", "1 (50%)", "1", "7 (100%)"]);
        let ages = [0.25, 1.0, 119.0, 120.0, 700.0, 11_000.0, 200_000.0].map(age);
        assert_eq!(ages, ["250ms", "1s", "119s", "2m0s", "11m", "3h", "2d"]);
    }
}
