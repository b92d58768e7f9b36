//! Replacing the root while everything runs: each step of `outrigger ca rotate`, and how far a rotation has come.
//!
//! ```text
//!               begin             switch              finish
//!   one root ──────────▶ overlap ────────▶ switched ──────────▶ one root, the younger
//!       ▲                │     ▲              │
//!       └──── abort ─────┘     └──── abort ───┘
//!   signs: elder          elder             younger              younger
//!   trusted: elder        both              both                 younger
//! ```
//!
//! `switch` waits until every workload has been told of both roots, and whatever removes a root until none of its leaves
//! lives any more; both are known, because workloads are told with each certificate and no leaf outlives
//! `Times::leaves_end`. What a step makes of the state is pure; here it is written to files, and `kept.rs` is the same for a state
//! that somebody else keeps. It does not speak to the control process, which sees the state change.

mod kept;

use std::path::Path;
use std::time::SystemTime;

use zeroize::Zeroizing;

use super::Error;
use super::root::{RootCert, RootKey, SigningRoot};
use super::state::{Readers, StateDir};
use super::store::{Files, NEXT_KEY, ROOTS, Times, at, seconds};

pub use kept::{status_kept, take_kept};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Begin,
    Switch,
    Finish,
    Abort,
}

/// How far a rotation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// One root: no rotation is under way.
    Steady,
    /// Two roots are given out, the elder one signs.
    Overlap,
    /// Two roots are given out, the younger one signs.
    Switched,
}

#[derive(Clone, Debug)]
pub struct Status {
    pub phase: Phase,
    /// The one that signs first.
    pub roots: Vec<RootStatus>,
    /// No leaf that was issued so far lives longer.
    pub leaves_end: SystemTime,
    /// The steps that are possible, and from when on without force.
    pub steps: Vec<(Step, SystemTime)>,
    /// `switch` waits until the control process has published both roots, too.
    pub unpublished: bool,
}

#[derive(Clone, Debug)]
pub struct RootStatus {
    /// How the SHA-256 of the certificate begins.
    pub fingerprint: String,
    pub ends: SystemTime,
}

impl Step {
    pub fn name(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Switch => "switch",
            Self::Finish => "finish",
            Self::Abort => "abort",
        }
    }
}

pub fn status(state_dir: &Path) -> Result<Status, Error> {
    let dir = StateDir::existing(state_dir)?;
    let _locked = dir.lock()?;
    Ok(Files::read(&dir)?.status())
}

/// Takes a step, and says how things stand after it. `force` takes it although leaves or bundles are out that will then
/// be refused.
pub fn take(state_dir: &Path, step: Step, force: bool, now: SystemTime) -> Result<Status, Error> {
    let dir = StateDir::existing(state_dir)?;
    let locked = dir.lock()?;
    let files = Files::read(&dir)?;
    files.tidy(&locked)?;
    let next = files.step(step, force, now)?;
    if let Some(key) = &next.key {
        locked.write(NEXT_KEY, Readers::Owner, key)?;
    }
    if next.times != files.times {
        next.times.write(&locked)?;
    }
    // The moment in which the step takes effect.
    locked.write(ROOTS, Readers::Everyone, &bundle(&next.roots))?;
    let files = Files::read(&dir)?;
    files.tidy(&locked)?;
    Ok(files.status())
}

/// What a step makes of the state.
struct Next {
    roots: Vec<RootCert>,
    times: Times,
    /// Of a root that is new.
    key: Option<Zeroizing<String>>,
}

impl Files {
    fn step(&self, step: Step, force: bool, now: SystemTime) -> Result<Next, Error> {
        let status = self.status();
        let Some((_, from)) = status.steps.iter().find(|(possible, _)| *possible == step) else {
            return Err(Error::OutOfOrder {
                step: step.name(),
                phase: status.phase.words(),
                possible: names(&status.steps),
            });
        };
        if step == Step::Switch && status.unpublished && !force {
            return Err(Error::Unpublished);
        }
        if now < *from && !force {
            return Err(Error::TooEarly {
                step: step.name(),
                from: humantime::format_rfc3339_seconds(*from).to_string(),
                reason: match step {
                    Step::Switch => "until then workloads may live that were told of one root only",
                    _ => "until then certificates may live that the root has signed that goes",
                },
            });
        }
        match step {
            Step::Begin => self.begin(now),
            Step::Switch => Ok(self.swap()),
            Step::Abort if self.switched => Ok(self.swap()),
            Step::Finish | Step::Abort => Ok(Next {
                roots: self.roots[..1].to_vec(),
                times: Times {
                    unpublished: false,
                    ..self.times
                },
                key: None,
            }),
        }
    }

    fn phase(&self) -> Phase {
        match (self.roots.len(), self.switched) {
            (1, _) => Phase::Steady,
            (_, false) => Phase::Overlap,
            (_, true) => Phase::Switched,
        }
    }

    fn status(&self) -> Status {
        let (bundles, leaves) = (at(self.times.bundles_at), at(self.times.other_leaves_at));
        let (phase, any) = (self.phase(), SystemTime::UNIX_EPOCH);
        Status {
            steps: match phase {
                Phase::Steady => vec![(Step::Begin, any)],
                Phase::Overlap => vec![(Step::Switch, bundles), (Step::Abort, leaves)],
                // The elder root has been trusted all the time, so that it may sign again at once.
                Phase::Switched => vec![(Step::Finish, leaves), (Step::Abort, any)],
            },
            phase,
            unpublished: phase == Phase::Overlap && self.times.unpublished,
            roots: self
                .roots
                .iter()
                .map(|root| RootStatus {
                    fingerprint: root.fingerprint(),
                    ends: root.ends,
                })
                .collect(),
            leaves_end: at(self.times.leaves_end),
        }
    }

    fn begin(&self, now: SystemTime) -> Result<Next, Error> {
        let key = RootKey::generate()?;
        let pem = key.pem();
        let younger = SigningRoot::generate(key, &self.roots[0].trust_domain, now)?.cert;
        let mut times = self.times;
        times.bundles_at = times.leaves_end.max(seconds(now));
        times.other_leaves_at = 0;
        Ok(Next {
            roots: vec![self.roots[0].clone(), younger],
            times,
            key: Some(pem),
        })
    }

    /// The other root signs from now on.
    fn swap(&self) -> Next {
        let mut times = self.times;
        times.other_leaves_at = times.leaves_end;
        Next {
            roots: vec![self.roots[1].clone(), self.roots[0].clone()],
            times,
            key: None,
        }
    }
}

fn bundle(roots: &[RootCert]) -> String {
    roots.iter().map(RootCert::pem).collect()
}

impl Phase {
    pub fn words(self) -> &'static str {
        match self {
            Self::Steady => "no rotation is under way",
            Self::Overlap => "two roots are given out, the elder one signs",
            Self::Switched => "two roots are given out, the younger one signs",
        }
    }
}

fn names(steps: &[(Step, SystemTime)]) -> String {
    let names: Vec<&str> = steps.iter().map(|(step, _)| step.name()).collect();
    names.join(" or ")
}

#[cfg(test)]
mod tests;
