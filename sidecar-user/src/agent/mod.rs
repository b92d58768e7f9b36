//! ROLE: the agent of a node. It finds pods, installs interception for each of them, and gives their sidecars sessions, so that
//! those need no privilege.
//!
//! The room `pods/` finds them and tells of those that come and go. `run.rs` has them installed, each by `serving.rs`; `door.rs` answers the
//! sidecars of one pod, `session.rs` makes what they are given, `caller.rs` knows who asks,
//! `introduce.rs` brings a sidecar to the one before it. On a node of Kubernetes `cluster.rs` hears which pods are meshed, `meshed.rs` decides,
//! and `probes.rs` lets the kubelet ask. `leave.rs` is its end. `memory.rs` keeps the flows of all pods, which `following.rs` hears of
//! from their sidecars; `answers.rs` says what is known, as `register.rs` has it, and `api.rs` says it to those who may hear it.

mod answers;
mod api;
mod caller;
mod client;
mod cluster;
mod control;
mod discovery;
mod door;
mod draining;
mod figures;
mod fit;
mod following;
mod introduce;
mod leave;
mod listing;
pub mod memory;
mod merged;
mod meshed;
mod names;
mod nodes;
mod pod;
mod probes;
mod refusal;
mod register;
mod relayed;
mod run;
mod serving;
mod session;
mod status;
#[cfg(test)]
mod tests;

pub use api::Config as ApiConfig;
pub use cluster::Kubernetes;
pub use run::{Config, run};
