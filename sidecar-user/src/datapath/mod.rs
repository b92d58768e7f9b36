//! THE KERNEL DOOR: loads, attaches and pins the BPF programs. The only user of aya.
//!
//! What is attached here outlives the process: links and maps are pinned, so that a pod whose proxy has died
//! refuses connections instead of sending plaintext. `detach` takes them away. A [`Lease`] sees to it that one process
//! at a time does either. Does not accept connections, and
//! does not read original destinations: the programs answer SO_ORIGINAL_DST for `intercept/`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

pub use sidecar_ebpf::abi::{HELD_ENTRIES, MAX_SHARDS, PRESENTED_ENTRIES};

/// Where the listeners have to be bound that the kernel brings connections to: nobody can dial them there.
pub const LISTENERS: Ipv4Addr = Ipv4Addr::new(127, 129, 0, 1);

mod app_ports;
mod attach;
mod attached;
mod bypass;
mod check;
mod close;
mod detach;
mod error;
mod explain;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod generation;
mod handover;
mod hold;
mod install;
mod ip;
mod lease;
mod links;
mod locks;
mod logs;
mod map;
mod neighbours;
mod netns;
mod object;
mod pins;
mod pod;
pub mod policy;
mod proof;
mod routes;
mod settings;
mod sys;
#[cfg(test)]
mod tests;
mod whole_host;

pub use app_ports::AppPorts;
pub use attach::{Datapath, Steered};
pub use attached::{ABI_VERSION, Attached, Hook, Loaded, Place, attached, cgroup_id, cgroup_of};
pub use bypass::Bypass;
pub use check::{Finding, State, check};
pub use close::close;
pub use detach::detach;
pub use error::{Error, Owner};
pub use explain::{Action, Connect, Explain, Verdict};
pub use generation::Generation;
pub use handover::Handover;
pub use hold::{Approvals, HeldEvents, Hold};
pub use lease::Lease;
pub use logs::Logs;
pub use neighbours::{Foreign, Neighbours, Order};
pub use netns::Netns;
pub use pins::Former;
pub use pod::PodTarget;
pub use policy::{Policy, PolicyMap};
pub use proof::{Dialled, Family, Lost, Proof, Unseen};
pub use routes::RouteMap;
pub use settings::Ownership;

/// What an attachment needs to know about its pod.
#[derive(Clone, Debug)]
pub struct Config {
    /// The pod's cgroup2 directory. The proxy must be in it too: its accepted sockets are where original
    /// destinations arrive. [`Proof`] tells whether it is.
    pub cgroup: PathBuf,
    /// The file of the pod's network namespace; `None`: that of the process.
    pub netns: Option<PathBuf>,
    /// A directory on a bpffs, made when absent; links and maps are pinned below it.
    pub pins: PathBuf,
    /// Where mesh peers dial; one of the open ports.
    pub hbone_port: u16,
    /// Shards of the proxy, among which connections are shared out; at most [`MAX_SHARDS`].
    pub shards: usize,
    /// Ports that outsiders reach the proxy on (15008, 15020): never steered. At most 16.
    pub open_ports: Vec<u16>,
    /// At most 16.
    pub pod_addresses: Vec<IpAddr>,
    /// Plaintext from outside is dropped instead of steered to the proxy, and a socket that cannot be
    /// redirected (bound to a device, or going to an IPv6 link-local address) may not connect.
    pub strict: bool,
    /// Attach to the host's own network namespace, or to a cgroup that holds its system processes.
    pub allow_whole_host: bool,
    /// What is intercepted, from the first moment on.
    pub policy: Policy,
}
