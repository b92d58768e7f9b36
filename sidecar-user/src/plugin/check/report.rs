//! What was looked at and how it is, for programs and for people. Knows nothing of how it was found out.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::facts::Unknown;

/// What `check -o json` prints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::plugin) struct CheckReport {
    /// Nothing has failed.
    pub(in crate::plugin) succeeded: bool,
    pub(in crate::plugin) categories: Vec<Category>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::plugin) struct Category {
    pub(in crate::plugin) name: Cow<'static, str>,
    pub(in crate::plugin) checks: Vec<Check>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::plugin) struct Check {
    /// Of the check: it stays when the words change.
    pub(in crate::plugin) id: Cow<'static, str>,
    pub(in crate::plugin) result: Outcome,
    pub(in crate::plugin) what: String,
    pub(in crate::plugin) reason: Option<String>,
    pub(in crate::plugin) remedy: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::plugin) enum Outcome {
    Ok,
    /// It works, or could not be looked at by this person.
    Warning,
    Failed,
}

impl CheckReport {
    pub(super) fn new(categories: Vec<Category>) -> Self {
        let mut all = categories.iter().flat_map(|category| &category.checks);
        Self {
            succeeded: !all.any(|check| check.result == Outcome::Failed),
            categories,
        }
    }
}

pub(super) fn category(name: &'static str, checks: Vec<Check>) -> Category {
    Category {
        name: name.into(),
        checks,
    }
}

pub(super) fn ok(id: &'static str, what: impl Into<String>) -> Check {
    Check {
        id: id.into(),
        result: Outcome::Ok,
        what: what.into(),
        reason: None,
        remedy: None,
    }
}

impl Check {
    pub(super) fn warning(self, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        self.instead(Outcome::Warning, reason, remedy)
    }

    pub(super) fn failed(self, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        self.instead(Outcome::Failed, reason, remedy)
    }

    /// What nobody could look at: a warning where it is only this person who may not.
    pub(super) fn unknown(self, unknown: &Unknown) -> Self {
        let why = unknown.why.clone();
        match unknown.is_forbidden {
            true => self.warning(why, "ask an administrator, who may look at it"),
            false => self.failed(why, "try again, or look at it by kubectl"),
        }
    }

    fn instead(self, result: Outcome, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            result,
            reason: Some(reason.into()),
            remedy: Some(remedy.into()),
            ..self
        }
    }
}

/// A few of many names.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const FEW: usize = 5;
    let names: Vec<&str> = names.into_iter().collect();
    match names.len().saturating_sub(FEW) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names[..FEW].join(", ")),
    }
}

/// `1 pod`, `2 pods`.
pub(super) fn counted(n: usize, one: &str) -> String {
    match n {
        1 => format!("1 {one}"),
        n => format!("{n} {one}s"),
    }
}
