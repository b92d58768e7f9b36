//! What a node's agent says of its pods, and a pod's own proxy of itself: the contracts between those who serve it and
//! those who read it. Names of closed sets are strings, so that an older reader understands a newer writer. What is not
//! known is `null`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::why::WhyReport;

/// The answer of an agent to `GET /pods`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodList {
    /// By name.
    pub pods: Vec<PodStatus>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// `namespace/name`, or what the pod is called by where there is no Kubernetes.
    pub pod: String,
    /// `serving`, `lame-duck`, `draining` or `cut`, as the sidecar says; `waiting`: none holds the pod, and connections are
    /// refused; `silent`: one holds it and does not answer; `refused`: it can have none on this node; `gone`: the pod is, and its flows are remembered.
    pub sidecar: Cow<'static, str>,
    /// Its workload identity.
    pub identity: Option<String>,
    pub version: Option<String>,
    /// Since when the sidecar runs, RFC 3339; where there is none since when the agent knows of that.
    pub since: Option<String>,
    pub open_flows: Option<u64>,
    /// That are remembered.
    pub closed_flows: u64,
    /// Of those.
    pub failed_flows: u64,
    /// Processes of the pod that asked for its session and are not its sidecar.
    #[serde(default)]
    pub refused_askers: u64,
    pub problems: Vec<Problem>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    pub what: String,
    pub remedy: String,
}

/// The answer of an agent to `GET /why`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodExplanation {
    /// `null`: of all pods.
    pub pod: Option<String>,
    /// What would happen, as the pod's sidecar says.
    pub now: Option<WhyReport>,
    /// Why `now` is not known.
    pub problem: Option<Problem>,
    /// What happened, the newest first.
    pub past: Vec<WhyReport>,
}

/// The answer of a proxy to `GET /summary`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub version: String,
    /// `serving`, `lame-duck`, `draining` or `cut`.
    pub state: String,
    pub identity: Option<String>,
    /// RFC 3339.
    pub started: String,
    pub open_flows: u64,
    /// What keeps it from being ready; `None`: it is.
    #[serde(default)]
    pub missing: Option<String>,
}
