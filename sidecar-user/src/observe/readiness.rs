//! What must be true before this process may serve: named conditions, set by those who know.
//!
//! Decides nothing about the conditions themselves and talks no HTTP.

use std::fmt;
use std::sync::{Arc, Mutex};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use tokio::sync::watch;

use super::http::Caller;
use super::lock;

/// All conditions of the process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Mutex<State>>);

/// One condition, held by whoever knows whether it is met.
#[derive(Clone, Debug)]
pub struct Condition {
    state: Arc<Mutex<State>>,
    index: usize,
}

#[derive(Debug, Default)]
struct State {
    conditions: Vec<(&'static str, Standing)>,
    draining: bool,
    /// All conditions have been met at the same time, once.
    started: bool,
    changed: watch::Sender<()>,
}

#[derive(Clone, Debug)]
enum Standing {
    Met,
    Unmet(Reason),
}

/// Why a condition is not met. Whoever reaches the status port is shown the first part, which therefore cannot hold
/// anything that is known at run time only: no file name, no address, no word of another program.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reason {
    general: &'static str,
    detail: Option<String>,
}

/// The answer to a probe: whether all is well, and a line for each thing that was asked.
pub(super) struct Verdict {
    well: bool,
    conditions: Vec<(&'static str, Option<Reason>)>,
}

/// A verdict in the words that are for somebody.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub well: bool,
    /// Name, and the reason when it is not met.
    pub conditions: Vec<(&'static str, Option<String>)>,
}

impl Readiness {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    /// Adds a condition, not met yet. Add all of them before the status endpoint is served.
    pub fn condition(&self, name: &'static str, reason: &'static str) -> Condition {
        let mut state = lock(&self.0);
        state
            .conditions
            .push((name, Standing::Unmet(Reason::general(reason))));
        Condition {
            state: self.0.clone(),
            index: state.conditions.len() - 1,
        }
    }

    /// From now on not ready, for good. Startup and liveness are not touched.
    pub fn drain(&self) {
        let mut state = lock(&self.0);
        state.draining = true;
        state.changed.send_replace(());
    }

    /// Wakes whoever waits when the answer to a probe may have changed.
    pub fn changes(&self) -> watch::Receiver<()> {
        lock(&self.0).changed.subscribe()
    }

    /// What keeps this process from being ready, in one line and in words for everybody; `None` when it is.
    pub fn missing(&self) -> Option<String> {
        Some(format!("not ready: {}", self.missing_for(Caller::Anyone)?))
    }

    /// As [`Self::missing`], in the words that are for this one.
    pub(super) fn missing_for(&self, caller: Caller) -> Option<String> {
        let told = self.ready().told_to(caller);
        let unmet = told
            .conditions
            .iter()
            .filter_map(|(name, reason)| Some(format!("{name}: {}", reason.as_ref()?)));
        (!told.well).then(|| unmet.collect::<Vec<_>>().join(", "))
    }

    pub(super) fn ready(&self) -> Verdict {
        let state = lock(&self.0);
        let mut verdict = state.verdict();
        if state.draining {
            verdict.well = false;
            verdict
                .conditions
                .push(("draining", Some(Reason::general("this proxy is shutting down"))));
        }
        verdict
    }

    /// Once everything was met, startup is over: what fails later is a matter of readiness.
    pub(super) fn started(&self) -> Verdict {
        let state = lock(&self.0);
        if state.started {
            return Verdict {
                well: true,
                conditions: state.conditions.iter().map(|(name, _)| (*name, None)).collect(),
            };
        }
        state.verdict()
    }
}

impl Condition {
    pub fn met(&self) {
        self.set(Standing::Met);
    }

    /// The reason is for everybody.
    pub fn unmet(&self, reason: &'static str) {
        self.set(Standing::Unmet(Reason::general(reason)));
    }

    /// The detail is for the owner: for the admin socket, where the log should have it too.
    pub fn unmet_because(&self, reason: &'static str, detail: impl Into<String>) {
        self.set(Standing::Unmet(Reason {
            general: reason,
            detail: Some(detail.into()),
        }));
    }

    fn set(&self, standing: Standing) {
        let mut state = lock(&self.state);
        state.conditions[self.index].1 = standing;
        state.started |= state.conditions.iter().all(|(_, s)| matches!(s, Standing::Met));
        state.changed.send_replace(());
    }
}

impl Verdict {
    pub(super) fn told_to(&self, caller: Caller) -> Told {
        let words = |reason: &Reason| match (caller, &reason.detail) {
            (Caller::Owner, Some(detail)) => format!("{}: {detail}", reason.general),
            _ => reason.general.to_owned(),
        };
        let told = |(name, reason): &(&'static str, Option<Reason>)| (*name, reason.as_ref().map(words));
        Told {
            well: self.well,
            conditions: self.conditions.iter().map(told).collect(),
        }
    }
}

impl Reason {
    fn general(general: &'static str) -> Self {
        Self {
            general,
            detail: None,
        }
    }
}

impl State {
    /// With no condition at all nothing is known, and so nothing is well.
    fn verdict(&self) -> Verdict {
        let conditions: Vec<_> = self
            .conditions
            .iter()
            .map(|(name, standing)| match standing {
                Standing::Met => (*name, None),
                Standing::Unmet(reason) => (*name, Some(reason.clone())),
            })
            .collect();
        Verdict {
            well: !conditions.is_empty() && conditions.iter().all(|(_, reason)| reason.is_none()),
            conditions,
        }
    }
}

impl Collector for Readiness {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let verdict = lock(&self.0).verdict();
        let help = "1 while this condition of readiness is met";
        let mut metric =
            encoder.encode_descriptor("outrigger_condition_met", help, None, MetricType::Gauge)?;
        for (name, reason) in verdict.conditions {
            let labels = [("condition", name)];
            metric
                .encode_family(&labels)?
                .encode_gauge(&i64::from(reason.is_none()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn startup_is_over_once_all_was_met_and_readiness_goes_on() {
        let readiness = Readiness::new();
        assert!(!readiness.ready().well);
        let identity = readiness.condition("identity", "no certificate yet");
        let registry = readiness.condition("registry", "not read yet");
        identity.met();
        assert!(!readiness.started().well);
        registry.met();
        assert!(readiness.started().well && readiness.ready().well);

        identity.unmet("the certificate expired");
        assert!(readiness.started().well);
        let told = readiness.ready().told_to(Caller::Anyone);
        assert!(!told.well);
        assert_eq!(
            told.conditions,
            [
                ("identity", Some("the certificate expired".into())),
                ("registry", None)
            ]
        );
    }

    #[test]
    fn details_are_for_the_owner() {
        let readiness = Readiness::new();
        let identity = readiness.condition("identity", "no certificate yet");
        identity.unmet_because("no certificate yet", "cannot read /run/token");
        let told = |caller| readiness.ready().told_to(caller).conditions[0].1.clone().unwrap();
        assert_eq!(told(Caller::Anyone), "no certificate yet");
        assert_eq!(told(Caller::Owner), "no certificate yet: cannot read /run/token");
    }

    #[test]
    fn draining_is_not_ready_but_started() {
        let readiness = Readiness::new();
        readiness.condition("listeners", "").met();
        readiness.drain();
        assert!(!readiness.ready().well);
        assert!(readiness.started().well);
    }
}
