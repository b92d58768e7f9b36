//! THE KERNEL DOOR: loads, attaches and pins the BPF programs. The only user of aya.

use std::net::IpAddr;
use std::path::PathBuf;

#[derive(Clone, Debug)]
pub struct Config {
    /// The pod's cgroup2 directory.
    pub cgroup: PathBuf,
    /// A directory on a bpffs, made when absent; links and maps are pinned below it.
    pub pins: PathBuf,
    pub outbound_port: u16,
    pub inbound_port: u16,
    /// Ports that outsiders reach the proxy on (15008, 15020): never steered.
    pub open_ports: Vec<u16>,
    pub pod_addresses: Vec<IpAddr>,
    /// Plaintext from outside is dropped instead of steered to the inbound port.
    pub strict: bool,
}
