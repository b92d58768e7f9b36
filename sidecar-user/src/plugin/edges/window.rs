//! The time over which flows are added up. What is remembered begins somewhere: a long flow of yesterday among the short ones of the last
//! minute must not make a day of them.

use std::time::{Duration, SystemTime};

use crate::observe::FlowReport;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    start: SystemTime,
    end: SystemTime,
}

impl Window {
    /// `asked` is what the endpoint was asked for. Without it the window begins where the memory does: with the first end that is
    /// remembered, as every flow that was opened after it is remembered too; or, where none was, with the first flow.
    pub(super) fn of(flows: &[&FlowReport], asked: Option<Self>) -> Option<Self> {
        if asked.is_some() {
            return asked;
        }
        let lives: Vec<Life> = flows.iter().filter_map(|flow| Life::of(flow)).collect();
        let end = lives.iter().map(|life| life.end).max()?;
        let first = lives.iter().map(|life| life.opened).min()?;
        let first_end = lives
            .iter()
            .filter(|life| life.is_closed)
            .map(|life| life.end)
            .min();
        let start = first_end.filter(|start| lives.iter().any(|life| life.opened >= *start));
        Self::between(start.unwrap_or(first), end)
    }

    /// What `--since` asks for: a time that has passed, or when it began.
    pub(super) fn since(since: &str, now: SystemTime) -> Option<Self> {
        let start = match humantime::parse_duration(since) {
            Ok(ago) => now.checked_sub(ago)?,
            Err(_) => humantime::parse_rfc3339_weak(since).ok()?,
        };
        Self::between(start, now)
    }

    fn between(start: SystemTime, end: SystemTime) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    pub(super) fn seconds(&self) -> f64 {
        seconds(self.start, self.end)
    }

    /// Whether the flow was opened in it, and how much of its life lies in it.
    pub(super) fn holds(&self, flow: &FlowReport) -> (bool, f64) {
        let Some(life) = Life::of(flow) else {
            return (false, 0.0);
        };
        let is_opened = (self.start..=self.end).contains(&life.opened);
        let inside = seconds(life.opened.max(self.start), life.end.min(self.end));
        match seconds(life.opened, life.end) {
            0.0 => (is_opened, f64::from(u8::from(is_opened))),
            whole => (is_opened, inside / whole),
        }
    }
}

struct Life {
    opened: SystemTime,
    /// Or the time of the answer.
    end: SystemTime,
    is_closed: bool,
}

impl Life {
    fn of(flow: &FlowReport) -> Option<Self> {
        let opened = humantime::parse_rfc3339(&flow.opened).ok()?;
        let closed = flow.closed.as_deref().map(humantime::parse_rfc3339);
        let age = Duration::try_from_secs_f64(flow.age_seconds).unwrap_or_default();
        Some(Self {
            opened,
            is_closed: closed.is_some(),
            end: match closed {
                Some(closed) => closed.ok()?,
                None => opened.checked_add(age)?,
            },
        })
    }
}

fn seconds(from: SystemTime, to: SystemTime) -> f64 {
    to.duration_since(from).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    /// Opened in this second, and closed in the other one, or open for so long.
    fn flow(opened: u64, closed: Option<u64>, age: u64) -> FlowReport {
        let time = |second| humantime::format_rfc3339_millis(at(second)).to_string();
        FlowReport {
            opened: time(opened),
            closed: closed.map(time),
            age_seconds: age as f64,
            ..crate::plugin::table::tests::reports().remove(0)
        }
    }

    fn window(flows: &[FlowReport]) -> Option<Window> {
        let flows: Vec<&FlowReport> = flows.iter().collect();
        Window::of(&flows, None)
    }

    #[test]
    fn a_flow_of_yesterday_does_not_make_a_day_of_a_minute() {
        let day = 86_400;
        let mut flows = vec![flow(0, Some(day), day)];
        flows.extend((1..=10).map(|n| flow(day + n * 6, Some(day + n * 6 + 1), 1)));
        let window = window(&flows).unwrap();
        assert_eq!(window.seconds(), 61.0);
        let fresh = flows.iter().filter(|flow| window.holds(flow).0).count();
        assert_eq!((fresh, window.holds(&flows[0]).1), (10, 0.0));
    }

    #[test]
    fn where_nothing_was_opened_after_an_end_the_window_begins_with_the_first_flow() {
        let flows = [flow(0, Some(10), 10), flow(1, None, 30)];
        let window = window(&flows).unwrap();
        assert_eq!(window.seconds(), 31.0);
        assert_eq!(window.holds(&flows[1]), (true, 1.0));
        assert_eq!(self::window(&[flow(5, Some(5), 0)]), None, "no time at all");
        assert_eq!(self::window(&[]), None);
    }

    #[test]
    fn what_was_asked_for_is_the_window() {
        let now = at(10_000);
        let asked = Window::since("10m", now).unwrap();
        let long = flow(0, None, 10_000);
        assert_eq!(Window::of(&[&long], Some(asked)), Some(asked));
        assert_eq!(asked.holds(&long), (false, 0.06), "six hundredths of its bytes");
        assert_eq!(
            Window::since("1970-01-01T02:00:00Z", now).unwrap().seconds(),
            2_800.0
        );
        assert_eq!(Window::since("2100-01-01T00:00:00Z", now), None);
        assert_eq!(Window::since("soon", now), None);
    }
}
