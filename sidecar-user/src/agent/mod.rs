//! ROLE: the agent of a node. It finds pods, installs interception for each of them, and gives their sidecars sessions, so that
//! those need no privilege.
//!
//! [`Roots`] says where pods are, [`Finder`] finds one of them, [`Watch`] tells of all of them. `run.rs` has what they
//! find installed, each by `serving.rs`; `door.rs` answers the sidecars of one pod, `session.rs` makes what they are given, `caller.rs` knows who asks,
//! `introduce.rs` brings a sidecar to the one before it. On a node of Kubernetes `cluster.rs` hears which pods are meshed, `meshed.rs` decides,
//! and `probes.rs` lets the kubelet ask. `leave.rs` is its end. `memory.rs` keeps the flows of all pods, which `following.rs` hears of
//! from their sidecars; `answers.rs` says what is known, as `register.rs` has it.

mod answers;
mod caller;
mod cgroup;
mod client;
mod cluster;
mod control;
mod discovery;
mod door;
mod error;
mod event;
mod figures;
mod find;
mod fit;
mod following;
mod introduce;
mod leave;
mod listing;
pub mod memory;
mod merged;
mod meshed;
mod mounts;
mod names;
mod path;
mod pod;
mod probes;
mod refusal;
mod register;
mod role;
mod roots;
mod run;
mod serving;
mod session;
mod sys;
#[cfg(test)]
mod tests;
mod tree;
mod uid;
mod watch;

pub use cgroup::PodCgroup;
pub use cluster::Kubernetes;
pub use error::Error;
pub use event::Event;
pub use find::Finder;
pub use path::{Driver, PodPath, Qos};
pub use roots::{Root, Roots};
pub use run::{Config, run};
pub use uid::{NotUid, PodUid};
pub use watch::Watch;
