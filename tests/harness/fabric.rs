//! A private network: a bridge in a namespace of its own, and pods on it. Routes nowhere else, and changes nothing in
//! the host's namespace.
//!
//! Every fabric uses the same addresses; they cannot meet.
//!
//! | | IPv4 | IPv6 |
//! | --- | --- | --- |
//! | node (the bridge) | 10.99.0.1 | fd99::1 |
//! | pods, in order | 10.99.0.2 … | fd99::2 … |
//! | service VIPs: routed out of eth0, answered by nobody | 10.96.0.0/16 | fd96::/64 |
//! | refused by every pod's routing (EHOSTUNREACH) | 10.98.0.0/16 | fd98::/64 |

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Uid;

use crate::apiserver::ApiServer;
use crate::mesh::agent::{self, Agent, KUBEPODS};
use crate::name;
use crate::netns::Netns;
use crate::pod::Pod;

pub(crate) const BRIDGE: &str = "br0";
/// A bridge that is given no address has the lowest of its ports, and another one when a pod with a lower one comes. The
/// pods that know the old one from ARP would send to nobody until their entries end, half a minute later.
const BRIDGE_ADDRESS: &str = "02:00:0a:63:00:01";

/// Cheap to clone. All that belongs to it is removed when the last clone and the last pod are dropped.
#[derive(Clone, Debug)]
pub struct Fabric {
    node: Pod,
    shared: Arc<Shared>,
}

/// What pods hold on to, so that the fabric outlives them.
#[derive(Debug)]
pub(crate) struct Shared {
    name: String,
    scratch: PathBuf,
    next_host: AtomicU16,
    agent: Agent,
    /// The URL of the one that its agent asks.
    api_server: OnceLock<String>,
}

impl Fabric {
    /// `kind` goes into every name, to tell whose it is: the name of the test, or `demo`.
    pub fn new(kind: &str) -> Result<Self> {
        ensure!(
            Uid::effective().is_root(),
            "network namespaces and cgroups need root; run it as root (sudo)"
        );
        name::sweep();
        raise_file_limit()?;
        let name = name::fresh(kind);
        let shared = Arc::new(Shared {
            scratch: name::scratch(&name),
            name,
            next_host: AtomicU16::new(2),
            agent: Agent::default(),
            api_server: OnceLock::new(),
        });
        // From here on `Shared` cleans up, however far the rest gets.
        fs::create_dir_all(&shared.scratch)?;
        mount_bpffs(&shared.scratch.join("bpf"))?;
        let netns = Netns::create(&shared.name)?;
        netns.ip_batch(&format!(
            "link set lo up\n\
             link add {BRIDGE} address {BRIDGE_ADDRESS} type bridge forward_delay 0 stp_state 0 mcast_snooping 0\n\
             link set {BRIDGE} up\n\
             address add 10.99.0.1/16 broadcast 10.99.255.255 dev {BRIDGE}\n\
             address add fd99::1/64 dev {BRIDGE} nodad\n\
             route add blackhole 10.96.0.0/16\n\
             route add blackhole fd96::/64\n"
        ))?;
        let (ipv4, ipv6) = addresses(1);
        let node = Pod::place(shared.clone(), ("node", "node"), netns, ipv4, ipv6)?;
        Ok(Self { node, shared })
    }

    /// A new pod on the bridge.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        self.place(name, name)
    }

    /// As [`Fabric::pod`], with a cgroup as the kubelet makes it for one of that UID.
    pub fn pod_of_kubelet(&self, name: &str, uid: &str) -> Result<Pod> {
        self.place(name, &format!("{KUBEPODS}/pod{uid}"))
    }

    fn place(&self, name: &str, cgroup: &str) -> Result<Pod> {
        let host = self.shared.next_host.fetch_add(1, Relaxed);
        let (ipv4, ipv6) = addresses(host);
        let netns = Netns::create(&format!("{}.{name}", self.name()))?;
        // Both ends are made at once in their own namespaces: nothing ever appears in the host's.
        self.node.netns().ip_batch(&format!(
            "link add v{host} type veth peer name eth0 netns {}\n\
             link set v{host} master {BRIDGE} up\n",
            netns.name()
        ))?;
        netns.ip_batch(&format!(
            "link set lo up\n\
             address add {ipv4}/16 dev eth0\n\
             address add {ipv6}/64 dev eth0 nodad\n\
             link set eth0 up\n\
             route add default via 10.99.0.1\n\
             route add default via fd99::1\n\
             route add unreachable 10.98.0.0/16\n\
             route add unreachable fd98::/64\n"
        ))?;
        Pod::place(self.shared.clone(), (name, cgroup), netns, ipv4, ipv6)
    }

    /// The namespace of the bridge, as a place to run programs in: control, captures, clients outside the mesh.
    pub fn node(&self) -> &Pod {
        &self.node
    }

    pub fn name(&self) -> &str {
        &self.shared.name
    }

    pub fn scratch(&self) -> &Path {
        &self.shared.scratch
    }

    /// From now on its agent is that of a node of Kubernetes, in the network namespace of the bridge, and asks that API server.
    pub fn join_cluster(&self, server: &ApiServer) -> Result<()> {
        let set = self.shared.api_server.set(server.url());
        set.ok().context("it is in a cluster already")
    }

    /// What the agent of its pods has logged, if there is one.
    pub fn agent_log(&self) -> String {
        self.shared.agent.log()
    }

    /// Ends the agent at once, as the kernel would.
    pub fn kill_agent(&self) {
        self.shared.agent.kill();
    }

    /// Tells the agent to end, waits until it has, and returns its log.
    pub fn end_agent(&self) -> Result<String> {
        self.shared.agent.end()
    }

    /// From its next start on the agent has these capabilities (`net_admin`) and no others.
    pub fn confine_agent(&self, capabilities: &[String]) {
        self.shared.agent.confine(capabilities);
    }

    /// Below which the agent pins.
    pub fn agent_pins(&self) -> PathBuf {
        agent::pins(&self.shared)
    }

    /// Starts it, again where it was killed.
    pub fn start_agent(&self) -> Result<()> {
        self.shared.agent.start(&self.shared)
    }

    /// Where it is asked for pods.
    pub fn agent_socket(&self) -> PathBuf {
        agent::socket(&self.shared)
    }

    /// A bpffs that only this fabric uses.
    pub fn bpffs(&self) -> PathBuf {
        self.shared.bpffs()
    }
}

impl Shared {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn scratch(&self) -> &Path {
        &self.scratch
    }

    pub(crate) fn api_server(&self) -> Option<&str> {
        self.api_server.get().map(String::as_str)
    }

    pub(crate) fn agent(&self) -> &Agent {
        &self.agent
    }

    pub(crate) fn bpffs(&self) -> PathBuf {
        self.scratch.join("bpf")
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.agent.kill();
        name::remove(&self.name);
    }
}

fn addresses(host: u16) -> (Ipv4Addr, Ipv6Addr) {
    let [high, low] = host.to_be_bytes();
    (
        Ipv4Addr::new(10, 99, high, low),
        Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, host),
    )
}

fn mount_bpffs(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    mount(Some("bpf"), dir, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mount a bpf file system on {}", dir.display()))
}

/// Programs started here inherit the limit, and a thousand connections need more than the usual 1,024.
fn raise_file_limit() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raise the limit of open files")
}
