//! THE KERNEL DOOR: loads, attaches and pins the BPF programs. The only user of aya.
//!
//! What is attached here outlives the process: links and maps are pinned, so that a pod whose proxy has died
//! refuses connections instead of sending plaintext. `detach` takes them away. A [`Lease`] sees to it that one process
//! at a time does either. Does not accept connections, and
//! does not read original destinations: the programs answer SO_ORIGINAL_DST for `intercept/`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

pub use sidecar_ebpf::abi::{GENERATIONS, HELD_MOST, MAX_SHARDS, PRESENTED_ENTRIES};

/// Where the listeners have to be bound that the kernel brings connections to: nobody can dial them there.
pub const LISTENERS: Ipv4Addr = Ipv4Addr::new(127, 129, 0, 1);

mod capabilities;
mod error;
mod install;
mod ip;
mod map;
mod netns;
mod pod;
pub mod policy;
mod process;
mod session;
mod sys;
#[cfg(test)]
mod tests;
mod versioned;

pub use capabilities::takes_capability;
pub use error::{Error, Owner};
pub use install::{
    ABI_VERSION, Attached, Datapath, Ending, Fill, Finding, Foreign, Former, Generation, Handover, Hook,
    InForce, Lease, Loaded, Logs, NeighbourQuery, Neighbours, Node, Order, Place, State, attached, cgroup_id,
    cgroup_of, check, close, close_on, detach, detach_own, fills, require_bpffs, take_off,
};
pub use netns::Netns;
pub use pod::PodTarget;
pub use policy::Policy;
pub use process::Process;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use session::fuzz;
pub use session::{
    Action, AppPorts, Approvals, Bypass, Connect, Control, Descriptors, Dialled, Explain, Family, HeldEvents,
    Hold, LeftAloneEvent, Lost, Ownership, PolicyMap, Proof, RouteMap, RoutesWritten, Secret, Session,
    Steered, Unseen, Verdict, WriteRight,
};
use versioned::versioned;

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
