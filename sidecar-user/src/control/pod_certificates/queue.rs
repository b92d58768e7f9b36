//! Which request for a certificate is answered next. Sans-io: changes and outcomes in, requests out; time is an argument.
//!
//! ```text
//!   told ─▶ ready ─▶ being answered ─▶ taken: forgotten
//!             ▲             │
//!             └── delayed ◀─┘ failed, with a pause that doubles
//!   settled or gone, as the API server tells: forgotten
//! ```
//!
//! Replicas each have the same queue. What is ready has no order but that of a hash with a seed of this process, so that two of them
//! begin at different ends and each learns of the other's answers on the way.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::kubernetes::{Change, PodCertificateRequest};

/// All pods of a large cluster at once are more; what finds no room is listed again.
const ROOM: usize = 20_000;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(60);

type Uid = String;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It has its answer.
    Settled,
    /// Somebody else has changed it, and whatever it is now is told.
    Changed,
    Failed,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    open: HashMap<Uid, Open>,
    ready: HashSet<Uid>,
    delayed: BTreeSet<(Instant, Uid)>,
    overflown: bool,
}

#[derive(Debug)]
struct Open {
    request: PodCertificateRequest,
    failures: u32,
    is_busy: bool,
    /// Another version was told while the one before was being answered.
    is_new: bool,
}

impl Queue {
    /// `Trouble` changes nothing.
    pub(super) fn apply(&mut self, change: Change<PodCertificateRequest>) {
        match change {
            Change::All(all) => {
                let there: HashSet<&Uid> = all.iter().map(|request| &request.uid).collect();
                self.open.retain(|uid, open| there.contains(uid) || open.is_busy);
                all.into_iter().for_each(|request| self.told(request));
            }
            Change::Applied(request) => self.told(request),
            Change::Gone(request) => self.forget(&request.uid),
            Change::Trouble(_) => {}
        }
    }

    fn told(&mut self, request: PodCertificateRequest) {
        if request.is_settled {
            return self.forget(&request.uid);
        }
        if let Some(open) = self.open.get_mut(&request.uid) {
            open.is_new |= open.request != request;
            open.request = request;
            return;
        }
        if self.open.len() >= ROOM {
            self.overflown = true;
            return;
        }
        self.ready.insert(request.uid.clone());
        let open = Open {
            request,
            failures: 0,
            is_busy: false,
            is_new: false,
        };
        self.open.insert(open.request.uid.clone(), open);
    }

    fn forget(&mut self, uid: &str) {
        self.open.remove(uid);
        self.ready.remove(uid);
    }

    /// One to answer now. It is not given again before [`Self::ended`].
    pub(super) fn next(&mut self, now: Instant) -> Option<PodCertificateRequest> {
        while let Some((from, _)) = self.delayed.first()
            && *from <= now
        {
            let (_, uid) = self.delayed.pop_first().expect("it was just seen");
            if self.open.get(&uid).is_some_and(|open| !open.is_busy) {
                self.ready.insert(uid);
            }
        }
        loop {
            let uid = self.ready.iter().next()?.clone();
            self.ready.remove(&uid);
            if let Some(open) = self.open.get_mut(&uid) {
                open.is_busy = true;
                open.is_new = false;
                return Some(open.request.clone());
            }
        }
    }

    pub(super) fn ended(&mut self, uid: &str, outcome: Outcome, now: Instant) {
        // Settled or gone meanwhile, as the API server told.
        let Some(open) = self.open.get_mut(uid) else {
            return;
        };
        open.is_busy = false;
        let pause = match outcome {
            Outcome::Settled => return self.forget(uid),
            // The version that was told meanwhile is the one to answer.
            Outcome::Changed if open.is_new => Duration::ZERO,
            _ => {
                open.failures += 1;
                pause(open.failures)
            }
        };
        self.delayed.insert((now + pause, uid.to_owned()));
    }

    /// When [`Self::next`] may have one that it has not now.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.delayed.first().map(|(from, _)| *from)
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// There are requests that found no room, and now there is some: everything is to be listed again.
    pub(super) fn is_to_be_listed_again(&mut self) -> bool {
        self.open.len() < ROOM / 2 && std::mem::take(&mut self.overflown)
    }
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(LAST_PAUSE)
}

#[cfg(test)]
mod tests;
