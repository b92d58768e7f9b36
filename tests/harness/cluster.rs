//! The Kubernetes cluster of this machine, as `cargo xtask cluster up` describes it to everybody else: where it is and how
//! programs get into it. Starts and ends no cluster.
//!
//! One cluster a machine: everything of it has a fixed name, so that whoever comes later finds it, or what is left of it.

pub mod bookstore;
pub mod istio;
mod kubectl;
mod link;
pub mod mesh;
mod plugin;
mod programs;
mod prometheus;
mod remains;

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cgroup;
use crate::name::NETNS_DIR;

pub use kubectl::{Kubectl, Namespace};
pub use link::LinkCapture;
pub use mesh::Mesh;
pub use plugin::Plugin;
pub use programs::Program;
pub use prometheus::Prometheus;

/// The stem of every name: of network namespaces, of the cgroup in each hierarchy, of the directory.
pub const NAME: &str = "outrigger-cluster";

/// Its files: the description, keys, configuration and logs. The nodes see it too.
pub const DIRECTORY: &str = "/run/outrigger-cluster";

/// The end of the link between the nodes, in each of them.
pub const LINK: &str = "to-node";

/// What others need to know about a cluster that runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cluster {
    /// kube-apiserver, kubectl and the others.
    pub programs: PathBuf,
    /// Of an administrator; good inside the nodes.
    pub kubeconfig: PathBuf,
    /// The first one runs the control plane, too.
    pub nodes: Vec<Node>,
}

/// A node: a network namespace and a mount namespace with its own `/run`, `/var/lib`, `/var/log` and `/sys/fs/bpf`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    pub ipv4: Ipv4Addr,
    pub ipv6: Ipv6Addr,
    /// The process that holds the namespaces.
    pub holder: u32,
}

/// Where the description of the running cluster is.
pub fn description() -> PathBuf {
    Path::new(DIRECTORY).join("cluster.json")
}

/// The network namespace of a node, as `ip netns` knows it.
pub fn netns(node: &str) -> String {
    format!("{NAME}.{node}")
}

/// Every process of the cluster is in this cgroup or below it, those of its pods too: killing them is killing it.
pub fn cgroup() -> Result<PathBuf> {
    Ok(cgroup::mount()?.join(NAME))
}

/// Where programs of the nodes are that are not of a pod.
pub fn system_cgroup() -> Result<PathBuf> {
    Ok(cgroup()?.join("system"))
}

impl Cluster {
    /// The one that has been brought up; none when there is no description.
    pub fn find() -> Result<Option<Self>> {
        let path = description();
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .with_context(|| format!("{} is damaged; run: cargo xtask cluster down", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    pub fn demand() -> Result<Self> {
        Self::find()?.context("there is no cluster; bring one up: cargo xtask cluster up")
    }

    pub fn node(&self, name: &str) -> Result<&Node> {
        let names = || {
            self.nodes
                .iter()
                .map(|node| node.name.as_str())
                .collect::<Vec<_>>()
        };
        self.nodes
            .iter()
            .find(|node| node.name == name)
            .with_context(|| format!("the cluster has no node {name:?}; it has {}", names().join(", ")))
    }

    /// The node of the control plane.
    pub fn first(&self) -> &Node {
        &self.nodes[0]
    }

    pub fn kubectl(&self) -> Kubectl<'_> {
        Kubectl::new(self)
    }

    /// `kubectl outrigger`, as an administrator.
    pub fn plugin(&self) -> Plugin<'_> {
        Plugin::of_admin(self)
    }

    /// The cgroup of a pod that is running, as the kubelet of its node has made it. `pod` is the object.
    pub fn pod_cgroup(&self, pod: &Value) -> Result<PathBuf> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let class = match &*text(&pod["status"]["qosClass"]) {
            "Burstable" => "burstable/",
            "BestEffort" => "besteffort/",
            _ => "",
        };
        let (node, uid) = (text(&pod["spec"]["nodeName"]), text(&pod["metadata"]["uid"]));
        Ok(cgroup()?.join(format!("{node}/kubepods/{class}pod{uid}")))
    }

    /// What the agent of a node has pinned for pods, by their uids.
    pub fn installed_pods(&self, node: &str) -> Result<Vec<String>> {
        self.pinned(node, "pods")
    }

    /// What sidecars that attach by themselves have pinned for pods of a node, by their uids.
    pub fn self_attached_pods(&self, node: &str) -> Result<Vec<String>> {
        self.pinned(node, "self")
    }

    fn pinned(&self, node: &str, by: &str) -> Result<Vec<String>> {
        let node = self.node(node)?;
        let root = Path::new("/proc").join(node.holder.to_string()).join("root");
        let pins = root.join("sys/fs/bpf/outrigger").join(by);
        let entries = fs::read_dir(pins).into_iter().flatten().flatten();
        Ok(entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect())
    }

    /// Sends a signal to every process of a container, as its node might.
    pub fn signal_in_pod(&self, namespace: &str, pod: &str, container: &str, signal: Signal) -> Result<()> {
        let pod = self.kubectl().get(&["--namespace", namespace, "pod", pod])?;
        let statuses = ["containerStatuses", "initContainerStatuses"]
            .iter()
            .filter_map(|kind| pod["status"][kind].as_array())
            .flatten();
        let mut named = statuses.filter(|status| status["name"] == container);
        let id = named.next().and_then(|status| status["containerID"].as_str());
        let id = id.and_then(|id| id.strip_prefix("containerd://"));
        let id = id.with_context(|| format!("{container} does not run"))?;
        let leaf = self.pod_cgroup(&pod)?.join(id);
        let processes = cgroup::processes(&leaf);
        ensure!(!processes.is_empty(), "no process in {}", leaf.display());
        for process in processes {
            kill(process, signal)?;
        }
        Ok(())
    }
}

impl Node {
    /// Whether the namespaces are still there.
    pub fn is_held(&self) -> bool {
        let command = fs::read(format!("/proc/{}/cmdline", self.holder)).unwrap_or_default();
        command == b"sleep\0infinity\0"
    }

    /// A program on the node: in its namespaces and in the cluster's cgroup, as if from a terminal of it.
    pub fn command(&self, program: &Path) -> Result<Command> {
        let mut command = in_the_cgroup()?;
        command
            .args([
                "nsenter",
                "--target",
                &self.holder.to_string(),
                "--mount",
                "--net",
                "--",
            ])
            .arg(program);
        Ok(command)
    }

    /// A program in the node's network alone, that sees the files of this machine.
    pub fn network_command(&self, program: &Path) -> Result<Command> {
        let mut command = in_the_cgroup()?;
        command
            .arg("nsenter")
            .arg(format!("--net={NETNS_DIR}/{}", netns(&self.name)))
            .arg("--")
            .arg(program);
        Ok(command)
    }
}

/// Begins a command line that moves itself into the cluster's cgroup first, and takes signals as it would from a shell: whoever
/// waits for signals in threads has blocked them, and a program would hand that down to the containers that it starts.
pub fn in_the_cgroup() -> Result<Command> {
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            "echo 0 >\"$0\"/cgroup.procs && exec env --default-signal \"$@\"",
        ])
        .arg(system_cgroup()?);
    Ok(command)
}
