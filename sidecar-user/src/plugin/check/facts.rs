//! What is judged: what the API server and the agents say, as plain values.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::kubernetes::{OwnRight, SeenNode, SeenPod, Server, Tried};
use crate::observe::{NodeStatus, PodStatus};
use crate::plugin::versions::{self, Counts};

/// Why something could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::plugin) struct Unknown {
    /// This person may not.
    pub(in crate::plugin) is_forbidden: bool,
    pub(in crate::plugin) why: String,
}

pub(in crate::plugin) type Known<T> = Result<T, Unknown>;

#[derive(Clone, Debug)]
pub(super) struct ApiServer {
    pub(super) address: String,
    pub(super) server: Known<Server>,
    /// When it said so, by the clock of this machine.
    pub(super) now: SystemTime,
}

/// A right that a verb takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Needed {
    pub(super) right: OwnRight,
    /// Such as `finds pods`.
    pub(super) purpose: &'static str,
    /// Without it hardly anything works.
    pub(super) is_must: bool,
    pub(super) remedy: String,
}

/// What an installation takes.
#[derive(Clone, Debug)]
pub(super) struct Before {
    /// Each with whether this person has it.
    pub(super) rights: Known<Vec<(OwnRight, bool)>>,
    pub(super) nodes: Known<Vec<SeenNode>>,
    /// Labels of the namespace of the installation. `None`: it is not there yet.
    pub(super) namespace: Known<Option<BTreeMap<String, String>>>,
}

/// What there is of an installation.
#[derive(Clone, Debug)]
pub(super) struct Installed {
    pub(super) rights: Known<Vec<(Needed, bool)>>,
    pub(super) control: Known<Option<Workload>>,
    pub(super) roots: Known<Option<Roots>>,
    pub(super) injection: Injection,
    pub(super) nodes: Known<Vec<SeenNode>>,
    /// Whether there is the DaemonSet at all.
    pub(super) agents: Known<Vec<Agent>>,
    pub(super) pods: Pods,
}

/// A Deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::plugin) struct Workload {
    pub(in crate::plugin) wanted: u64,
    pub(in crate::plugin) ready: u64,
    pub(in crate::plugin) version: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) enum Roots {
    /// When each ends.
    Until(Vec<SystemTime>),
    Unreadable(String),
}

#[derive(Clone, Debug)]
pub(super) struct Injection {
    pub(super) policy: Known<Option<Policy>>,
    pub(super) webhook: Known<Option<Webhook>>,
    /// Names of objects that refuse what would start without a sidecar, and are missing.
    pub(super) missing_guards: Known<Vec<String>>,
    /// Where a pod was tried, whether it asked by its own label, and what became of it.
    pub(super) tried_in: String,
    pub(super) asked_itself: bool,
    pub(super) tried: Known<Tried>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Policy {
    pub(super) failure_policy: String,
    /// Names of bindings that are missing.
    pub(super) unbound: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Webhook {
    pub(super) failure_policy: String,
    pub(super) has_roots: bool,
}

#[derive(Clone, Debug)]
pub(in crate::plugin) struct Agent {
    pub(in crate::plugin) node: String,
    pub(in crate::plugin) pod: String,
    pub(in crate::plugin) is_ready: bool,
    pub(in crate::plugin) answer: Answer,
    /// When it was asked, by the clock of this machine.
    pub(in crate::plugin) asked: SystemTime,
}

impl Agent {
    /// As they say themselves.
    pub(in crate::plugin) fn versions(all: &[Self]) -> Counts {
        versions::count(all.iter().filter_map(|agent| match &agent.answer {
            Answer::Told(status) => Some(&*status.version),
            _ => None,
        }))
    }
}

/// What became of a question to an agent.
#[derive(Clone, Debug)]
pub(in crate::plugin) enum Answer {
    Told(Box<NodeStatus>),
    /// It has proved itself, and does not say how its node is: this person may not ask, or it is of a version that does not know.
    Withheld(String),
    /// It has not answered, or not proved who it is.
    None(String),
}

#[derive(Clone, Debug)]
pub(super) struct Pods {
    /// `None`: all namespaces.
    pub(super) namespace: Option<String>,
    /// As their agents tell.
    pub(super) told: Vec<PodStatus>,
    /// Nodes whose agents did not say, and why.
    pub(super) untold: BTreeMap<String, Unknown>,
    pub(super) seen: Known<Vec<SeenPod>>,
    /// The label of the injection, of each namespace that could be looked at.
    pub(super) labels: Known<BTreeMap<String, Option<String>>>,
}
