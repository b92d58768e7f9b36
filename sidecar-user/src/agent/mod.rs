//! ROLE: the agent of a node. Today it is the part that finds pods: their cgroups by path, process or UID, their network
//! namespaces, and those that come and go.
//!
//! [`Roots`] says where pods are, [`Finder`] finds one of them, [`Watch`] tells of all of them; [`memory`] keeps their
//! flows. Attaches nothing: what it finds
//! is a [`PodTarget`](crate::datapath::PodTarget).

mod cgroup;
mod error;
mod event;
mod find;
pub mod memory;
mod mounts;
mod path;
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
pub use find::Finder;
pub use path::{Driver, PodPath, Qos};
pub use roots::{Root, Roots};
pub use uid::{NotUid, PodUid};
pub use watch::Watch;
