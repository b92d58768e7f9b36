//! Whoever asks at a service of the control plane, once it is known. How it is known, `issuer/` and `agent/` say.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::identity::SpiffeId;

/// The header in which an agent shows its own token beside that of the pod it asks for.
pub const AGENT_TOKEN: &str = "outrigger-agent-token";

/// At the control process, by a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub identity: SpiffeId,
    /// For the log: the label of a bootstrap token, or `NAMESPACE/POD`.
    pub name: Arc<str>,
    pub kind: CallerKind,
    /// The name of the node where it runs; `None`: nobody has said.
    pub node: Option<Arc<str>>,
    /// Of its pod, as the API server says; none where there is no cluster.
    pub addresses: Arc<[IpAddr]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerKind {
    /// It asks for itself.
    Workload,
    /// It asks for the pods of its node.
    Agent,
}

/// At the agent of a node, by the door that it came through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPod {
    /// The pod's UID, or the name of its cgroup where that has none.
    pub uid: Arc<str>,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, &self.node) {
            (CallerKind::Agent, Some(node)) => write!(f, "the agent of node {node}"),
            _ => f.write_str(&self.name),
        }
    }
}
