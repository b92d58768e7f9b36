//! What an object of Istio's says that does not happen, for people.

use std::fmt;

/// Of one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// E.g. `AuthorizationPolicy demo/allow-web`.
    pub object: String,
    pub what: String,
    pub remedy: &'static str,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, what, remedy } = self;
        write!(f, "{object}: {what}; {remedy}")
    }
}

/// Collects those of one object.
pub(super) struct Teller<'p> {
    pub(super) object: String,
    pub(super) problems: &'p mut Vec<Problem>,
}

impl Teller<'_> {
    pub(super) fn tell(&mut self, what: impl Into<String>, remedy: &'static str) {
        self.problems.push(Problem {
            object: self.object.clone(),
            what: what.into(),
            remedy,
        });
    }
}
