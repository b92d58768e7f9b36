//! INSTALLING: loads, attaches and pins the programs of a pod, gives them to another proxy, and takes them away. Everything
//! here takes privileges (CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN) or a path below the pins directory.
//!
//! Serves no connection: what that takes is made of descriptors, in `session/`, which knows nothing of this room.

mod attach;
pub(super) mod attached;
mod check;
mod close;
mod detach;
mod ending;
mod fill;
mod generation;
mod handover;
mod image;
mod in_force;
mod installed;
mod lease;
pub(super) mod links;
mod locks;
mod logs;
mod neighbours;
mod node;
pub(super) mod object;
pub(super) mod pins;
mod probes;
pub(super) mod shape;
mod whole_host;

pub use attach::Datapath;
pub use attached::{ABI_VERSION, Attached, Hook, Loaded, Place, attached, cgroup_id, cgroup_of};
pub use check::{Finding, State, check};
pub use close::{close, close_on};
pub use detach::{detach, detach_own, take_off};
pub use ending::Ending;
pub use fill::{Fill, fills};
pub use generation::Generation;
pub use handover::Handover;
pub use in_force::InForce;
pub use lease::Lease;
pub use logs::Logs;
pub use neighbours::{Foreign, NeighbourQuery, Neighbours, Order};
pub use node::Node;
pub use pins::{Former, require_bpffs};
