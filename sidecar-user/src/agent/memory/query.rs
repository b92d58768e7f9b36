//! What is asked of the memory: the filter of `/flows`, and of which pod, when, and since which cursor.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use super::kept::millis;
use crate::observe::{FlowQuery, FlowReport, misfit};

#[derive(Debug, Default)]
pub struct Question {
    pub flows: FlowQuery,
    /// `namespace/name`.
    pub pod: Option<String>,
    /// Milliseconds since 1970.
    since: Option<u64>,
    until: Option<u64>,
    pub(super) after: Option<Cursor>,
}

/// A place in the row of all flows of one memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) start: u64,
    pub(super) number: u64,
}

const DEFAULT_LIMIT: usize = 1000;
/// Some 10 MB of JSON.
const MAX_LIMIT: usize = 10_000;

impl Question {
    /// Of a query string. An error is a sentence for the caller.
    pub fn parse(query: &str, now: SystemTime) -> Result<Self, String> {
        let mut question = Self::default();
        let flows = FlowQuery::parse_with(query, |name, value| {
            let time = || {
                moment(value, now).ok_or_else(|| {
                    misfit(
                        name,
                        value,
                        "how long ago, such as 10m, or a time such as 2026-01-31T12:00:00Z",
                    )
                })
            };
            match name {
                "pod" => question.pod = Some(value.to_owned()),
                "since" => question.since = Some(time()?),
                "until" => question.until = Some(time()?),
                "after" => {
                    let cursor = value.parse();
                    question.after = Some(cursor.map_err(|()| misfit(name, value, "a cursor of an answer"))?);
                }
                _ => return Ok(false),
            }
            Ok(true)
        });
        question.flows = flows.map_err(|error| match error.starts_with("unknown") {
            true => error + ", pod, since, until, after",
            false => error,
        })?;
        Ok(question)
    }

    pub fn limit(&self) -> usize {
        self.flows.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT)
    }

    /// Whether it is about what has come since an earlier answer.
    pub fn has_cursor(&self) -> bool {
        self.after.is_some()
    }

    /// Whether it is about what has ended, up to some time.
    pub fn has_end(&self) -> bool {
        self.until.is_some()
    }

    /// Whether it is about when flows ended at all.
    pub fn has_times(&self) -> bool {
        self.since.is_some() || self.has_end() || self.has_cursor()
    }

    /// What can be said without reading the flow.
    pub(super) fn asks_for(&self, pod: &str, at: u64) -> bool {
        self.pod.as_deref().is_none_or(|wanted| wanted == pod)
            && self.since.is_none_or(|since| at >= since)
            && self.until.is_none_or(|until| at <= until)
    }

    pub fn passes(&self, flow: &FlowReport) -> bool {
        self.flows.filter.passes_report(flow)
    }
}

fn moment(text: &str, now: SystemTime) -> Option<u64> {
    let ago = humantime::parse_duration(text).ok();
    let time = match ago {
        Some(ago) => now.checked_sub(ago),
        None => humantime::parse_rfc3339_weak(text).ok(),
    };
    time.map(millis)
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.start, self.number)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (start, number) = text.split_once('.').ok_or(())?;
        Ok(Self {
            start: start.parse().map_err(drop)?,
            number: number.parse().map_err(drop)?,
        })
    }
}
