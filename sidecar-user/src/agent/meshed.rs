//! Which pods of a node of Kubernetes are installed: those of which its watch says that they have a container for their sidecar.
//! What the cgroups show and what the API server tells come in any order; effects come out. Pure.
//!
//! ```text
//!                the watch tells of it                 the watch tells of it
//!   unknown  ─────────── meshed ──────────▶ served   unknown ── not meshed ──▶ left alone
//!      │  asked for once                       │
//!      └─ pinned by an agent before ──────────▶│ its cgroup is gone
//!                                              ▼
//!                                           removed
//! ```
//!
//! A pod that is served stays so until its cgroup is gone: nothing that the API server says, and no silence of it, takes the
//! programs from under running containers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::refusal::Refusal;
use crate::kubernetes::Pod;

/// By what the cgroup is called: the UID, or the hash of a static pod's configuration.
pub(super) struct Meshed<C> {
    pods: BTreeMap<String, Known<C>>,
    /// Whether everything has been told once.
    is_listed: bool,
}

struct Known<C> {
    /// As the watch has told of it last.
    pod: Option<Arc<Pod>>,
    /// Whether the API server has it still.
    is_there: bool,
    /// While it exists.
    cgroup: Option<C>,
    is_populated: bool,
    /// Programs are attached to it, or about to be.
    is_installed: bool,
    is_asked_for: bool,
    is_refused: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect<C> {
    /// Told again whenever something has changed, also where it is served.
    Serve(C),
    /// What serves it ends; the programs stay.
    End(C),
    /// What is pinned of it goes.
    Remove(String),
    /// The watch may be late: whether there is such a pod is to be asked.
    Ask(String),
    Learn(String, Arc<Pod>),
    Refuse(Arc<Pod>, Refusal),
}

enum Verdict {
    Serve,
    Leave,
    Refuse(Refusal),
    Unknown,
}

impl<C> Default for Known<C> {
    fn default() -> Self {
        Self {
            pod: None,
            is_there: false,
            cgroup: None,
            is_populated: false,
            is_installed: false,
            is_asked_for: false,
            is_refused: false,
        }
    }
}

impl<C> Known<C> {
    fn verdict(&self) -> Verdict {
        match &self.pod {
            Some(pod) if !pod.is_meshed => Verdict::Leave,
            Some(pod) => Refusal::of(pod).map_or(Verdict::Serve, Verdict::Refuse),
            // It was meshed, and pods do not cease to be.
            None if self.is_installed => Verdict::Serve,
            None => Verdict::Unknown,
        }
    }
}

impl<C: Clone> Meshed<C> {
    /// These have programs from an agent before.
    pub(super) fn new(installed: impl IntoIterator<Item = String>) -> Self {
        let known = |uid| {
            let is_installed = true;
            (
                uid,
                Known {
                    is_installed,
                    ..Known::default()
                },
            )
        };
        Self {
            pods: installed.into_iter().map(known).collect(),
            is_listed: false,
        }
    }

    /// Processes are in a cgroup.
    pub(super) fn populated(&mut self, uid: &str, cgroup: C) -> Vec<Effect<C>> {
        let known = self.pods.entry(uid.to_owned()).or_default();
        known.cgroup = Some(cgroup);
        known.is_populated = true;
        self.judge(uid)
    }

    pub(super) fn emptied(&mut self, uid: &str) -> Vec<Effect<C>> {
        let Some(known) = self.pods.get_mut(uid) else {
            return Vec::new();
        };
        known.is_populated = false;
        let is_installed = known.is_installed;
        known
            .cgroup
            .clone()
            .filter(|_| is_installed)
            .map(Effect::End)
            .into_iter()
            .collect()
    }

    /// Its cgroup is.
    pub(super) fn gone(&mut self, uid: &str) -> Vec<Effect<C>> {
        let mut effects = self.emptied(uid);
        if let Some(known) = self.pods.get_mut(uid) {
            if std::mem::take(&mut known.is_installed) {
                effects.push(Effect::Remove(uid.to_owned()));
            }
            known.cgroup = None;
            known.is_asked_for = false;
            if !known.is_there {
                self.pods.remove(uid);
            }
        }
        effects
    }

    /// Everything that is there.
    pub(super) fn all(&mut self, pods: Vec<Pod>) -> Vec<Effect<C>> {
        self.is_listed = true;
        let listed: BTreeSet<String> = pods.iter().map(|pod| name_of(pod).to_owned()).collect();
        let unlisted = self.pods.keys().filter(|uid| !listed.contains(*uid)).cloned();
        for uid in unlisted.collect::<Vec<_>>() {
            self.forget(&uid);
        }
        pods.into_iter().flat_map(|pod| self.applied(pod)).collect()
    }

    pub(super) fn applied(&mut self, pod: Pod) -> Vec<Effect<C>> {
        let uid = name_of(&pod).to_owned();
        let known = self.pods.entry(uid.clone()).or_default();
        known.is_there = true;
        if known.pod.as_deref() == Some(&pod) {
            return Vec::new();
        }
        let pod = Arc::new(pod);
        known.pod = Some(pod.clone());
        let mut effects = vec![Effect::Learn(uid.clone(), pod)];
        effects.extend(self.judge(&uid));
        effects
    }

    /// The API server has it no more. Its containers may still run, so that what is known of it is needed until they do not.
    pub(super) fn deleted(&mut self, pod: &Pod) {
        self.forget(name_of(pod));
    }

    pub(super) fn pod(&self, uid: &str) -> Option<Arc<Pod>> {
        self.pods.get(uid)?.pod.clone()
    }

    /// Those that were asked for and are not known yet.
    pub(super) fn is_unknown(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(|known| known.pod.is_none())
    }

    /// How many pods with processes wait for the API server.
    pub(super) fn waiting(&self) -> usize {
        let waits = |known: &&Known<C>| known.is_populated && matches!(known.verdict(), Verdict::Unknown);
        self.pods.values().filter(waits).count()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.pods.len()
    }

    fn forget(&mut self, uid: &str) {
        if let Some(known) = self.pods.get_mut(uid) {
            known.is_there = false;
            if known.cgroup.is_none() && !known.is_installed {
                self.pods.remove(uid);
            }
        }
    }

    fn judge(&mut self, uid: &str) -> Vec<Effect<C>> {
        let Some(known) = self.pods.get_mut(uid) else {
            return Vec::new();
        };
        let cgroup = known.cgroup.clone();
        match known.verdict() {
            Verdict::Serve => match cgroup.filter(|_| known.is_populated) {
                Some(cgroup) => {
                    known.is_installed = true;
                    vec![Effect::Serve(cgroup)]
                }
                None => Vec::new(),
            },
            Verdict::Unknown if self.is_listed && !std::mem::replace(&mut known.is_asked_for, true) => {
                vec![Effect::Ask(uid.to_owned())]
            }
            Verdict::Unknown => Vec::new(),
            Verdict::Leave => known.leave(uid),
            Verdict::Refuse(why) => {
                let mut effects = known.leave(uid);
                let told = std::mem::replace(&mut known.is_refused, true);
                let pod = known.pod.clone().filter(|_| !told);
                effects.extend(pod.map(|pod| Effect::Refuse(pod, why)));
                effects
            }
        }
    }
}

impl<C: Clone> Known<C> {
    /// An agent that knew less may have installed it.
    fn leave(&mut self, uid: &str) -> Vec<Effect<C>> {
        if !std::mem::take(&mut self.is_installed) {
            return Vec::new();
        }
        let end = self.cgroup.clone().map(Effect::End);
        end.into_iter().chain([Effect::Remove(uid.to_owned())]).collect()
    }
}

/// As its cgroup is called.
pub(super) fn name_of(pod: &Pod) -> &str {
    pod.static_hash.as_deref().unwrap_or(&pod.uid)
}
