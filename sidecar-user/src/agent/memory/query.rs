//! What is asked of the memory: the filter of `/flows`, and of which pod, when, and since which cursor.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use super::kept::millis;
use crate::observe::{FlowQuery, FlowReport, misfit};

#[derive(Debug, Default)]
pub struct Question {
    pub flows: FlowQuery,
    pub pods: Pods,
    /// Milliseconds since 1970.
    since: Option<u64>,
    until: Option<u64>,
    pub(super) after: Option<Cursor>,
}

/// Of which pods: of each that is named or in a namespace that is. Where there is neither, of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    /// `namespace/name`.
    pub names: BTreeSet<String>,
    pub namespaces: BTreeSet<String>,
}

impl Pods {
    /// Of a query string, whatever else it asks for. An error is a sentence for the caller.
    pub fn of_query(query: &str) -> Result<Self, String> {
        let mut pods = Self::default();
        FlowQuery::parse_with(query, |name, value| {
            pods.take(name, value);
            Ok(true)
        })?;
        Ok(pods)
    }

    /// Whether it is a parameter that names pods.
    fn take(&mut self, name: &str, value: &str) -> bool {
        match name {
            "pod" => self.names.insert(value.to_owned()),
            "namespace" => self.namespaces.insert(value.to_owned()),
            _ => return false,
        };
        true
    }

    pub fn named(name: &str) -> Self {
        Self {
            names: [name.to_owned()].into(),
            ..Self::default()
        }
    }

    /// Where exactly one is named.
    pub fn only(&self) -> Option<&str> {
        match self.names.len() {
            1 if self.namespaces.is_empty() => self.names.first().map(String::as_str),
            _ => None,
        }
    }

    pub fn are_all(&self) -> bool {
        self.names.is_empty() && self.namespaces.is_empty()
    }

    /// Whether a pod is among them that is called so.
    pub fn have(&self, called: &str) -> bool {
        let is_inside = || {
            called
                .split_once('/')
                .is_some_and(|(namespace, _)| self.namespaces.contains(namespace))
        };
        self.are_all() || self.names.contains(called) || is_inside()
    }
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
                "since" => question.since = Some(time()?),
                "until" => question.until = Some(time()?),
                "after" => {
                    let cursor = value.parse();
                    question.after = Some(cursor.map_err(|()| misfit(name, value, "a cursor of an answer"))?);
                }
                _ => return Ok(question.pods.take(name, value)),
            }
            Ok(true)
        });
        question.flows = flows.map_err(|error| match error.starts_with("unknown") {
            true => error + ", pod, namespace, since, until, after",
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
        self.pods.have(pod)
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
