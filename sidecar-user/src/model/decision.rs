//! What was decided about a connection on its way, in order. Facts only: who decides, fills this in.

use std::net::SocketAddr;
use std::time::Duration;

use super::authorization::PolicyName;
use super::outcome::{Cause, Outcome, Transport};

/// One decision, and when it fell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Since the flow was opened.
    pub after: Duration,
    pub what: Decided,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decided {
    /// What the destination is, by the registry.
    Routed(Routed),
    /// An endpoint, or the application, was dialled. `None`: it took the connection.
    Tried {
        endpoint: SocketAddr,
        transport: Transport,
        failure: Option<Box<Failure>>,
    },
    /// Every endpoint was tried; they are tried again, as long as the application waits.
    Again,
    /// Policy lets the connection in, by the rule of this number or because none restricts the workload.
    Admitted(Option<(PolicyName, u32)>),
    /// The mode or a policy refuses it, with these words.
    Denied(Box<str>),
    /// The peer has not proved who it is.
    Unproved(Box<Failure>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routed {
    /// A service of the registry; the flow names it.
    Service,
    /// A workload of the registry, by its own address.
    Workload,
    /// The registry does not know it, and it is dialled as it is.
    Unknown,
    /// Nowhere.
    Refused(Cause),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub outcome: Outcome,
    /// The error in words.
    pub detail: Box<str>,
}

/// The decisions of one flow. An application may wait for minutes for endpoints that are tried in turn: the first and the
/// last decisions are kept.
#[derive(Clone, Debug, Default)]
pub struct Decisions {
    kept: Vec<Decision>,
    left_out: u32,
}

/// Twice three endpoints with what led to them, and the same at the end.
pub const MOST_DECISIONS: usize = 16;
/// A chain of errors has some 150 bytes; a peer's certificate can make it longer.
const LONGEST_DETAIL: usize = 240;

impl Decisions {
    pub fn push(&mut self, decision: Decision) {
        if self.kept.len() == MOST_DECISIONS {
            self.kept.remove(MOST_DECISIONS / 2);
            self.left_out = self.left_out.saturating_add(1);
        } else if self.kept.is_empty() {
            // Where nothing fails there are two.
            self.kept.reserve_exact(2);
        }
        self.kept.push(decision);
    }

    /// In order. Those that were left out stood behind the first half.
    pub fn all(&self) -> &[Decision] {
        &self.kept
    }

    pub fn left_out(&self) -> u32 {
        self.left_out
    }
}

impl Failure {
    pub fn new(outcome: Outcome, detail: &str) -> Self {
        let end = detail.floor_char_boundary(LONGEST_DETAIL);
        Self {
            outcome,
            detail: detail[..end].into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Party;

    #[test]
    fn the_first_and_the_last_decisions_are_kept_and_the_others_counted() {
        let mut decisions = Decisions::default();
        for n in 0..100 {
            decisions.push(Decision {
                after: Duration::from_secs(n),
                what: Decided::Again,
            });
        }
        let kept: Vec<u64> = decisions.all().iter().map(|d| d.after.as_secs()).collect();
        assert_eq!(kept, [0, 1, 2, 3, 4, 5, 6, 7, 92, 93, 94, 95, 96, 97, 98, 99]);
        assert_eq!(decisions.left_out(), 84);
    }

    #[test]
    fn a_decision_is_small_and_an_error_is_cut_between_characters() {
        assert!(size_of::<Decision>() <= 64, "{}", size_of::<Decision>());
        let failure = Failure::new(Outcome::new(Party::Us, Cause::Io), &"é".repeat(500));
        assert_eq!(failure.detail.len(), 240);
    }
}
