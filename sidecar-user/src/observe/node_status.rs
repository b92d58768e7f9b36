//! What a node's agent says of itself, its node and what is attached there. As in `pods.rs` names of closed sets are strings, and what is
//! not known is `null`.

use serde::{Deserialize, Serialize};

/// The answer of an agent to `GET /node`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// `null`: it is told none, where there is no Kubernetes.
    pub node: Option<String>,
    /// Of the agent.
    pub version: String,
    /// Its release, as uname(2) says.
    pub kernel: String,
    /// When this was said, by the clock of the node.
    pub time: String,
    pub pods: PodCounts,
    /// By name.
    pub intercepted: Vec<InterceptedPod>,
}

/// Pods of the node that are to have a sidecar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodCounts {
    /// Whose connections are intercepted.
    pub intercepted: u64,
    /// Of those, with a sidecar.
    pub with_sidecar: u64,
    /// Without one: their connections are refused until it is there.
    pub waiting: u64,
    /// That can have none on this node, and are not intercepted.
    pub refused: u64,
}

/// A pod to which programs are attached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InterceptedPod {
    pub pod: String,
    /// Programs of ours that are attached, each at a hook of its own.
    pub programs: u64,
    /// Hooks where none of ours is.
    pub missing: Vec<String>,
    /// Programs of others at the same hooks.
    pub others: Vec<OtherProgram>,
    pub maps: Vec<MapFill>,
    /// Why the kernel did not say.
    pub problem: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OtherProgram {
    /// Such as `connect4`.
    pub hook: String,
    pub id: u32,
    /// Empty where the kernel does not tell.
    pub name: String,
    /// `before` ours, `after` it, or `alone` where none of ours is.
    pub order: String,
}

/// A map that connections on their way have an entry in. Where it is full, new ones are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MapFill {
    pub map: String,
    pub entries: u64,
    pub size: u64,
}
