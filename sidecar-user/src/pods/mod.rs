//! WHERE ARE THE PODS OF THIS HOST? Their cgroups by path, process or UID, their network namespaces by the processes in them, and what is
//! pinned of those that are gone. For the agent of a node, which finds all of them, and for a sidecar that finds its own. Attaches nothing,
//! and asks no API server.
//!
//! [`Roots`] says where pods are, [`Finder`] finds one of them, [`Watch`] tells of all of them.

mod cgroup;
mod error;
mod event;
mod find;
mod mounts;
mod path;
mod pinned;
mod role;
mod roots;
mod sys;
#[cfg(test)]
mod tests;
mod tree;
mod uid;
mod watch;

pub use cgroup::PodCgroup;
pub use error::Error;
pub use event::Event;
pub use find::{Finder, own_addresses};
pub use path::{Driver, PodPath, Qos, container};
pub use pinned::{SELF_ATTACHED, cgroup_of, sweep};
pub use roots::{Root, Roots};
pub use uid::{NotUid, PodUid};
pub use watch::Watch;
