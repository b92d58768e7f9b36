//! A sidecar that attaches by itself in a pod of Kubernetes, where no agent does: it finds the cgroup of its pod by the pod's UID, lets the
//! kubelet ask the containers past it. What that takes and is missing is told at once.
//!
//! What is pinned is in a directory for each pod, called by its UID. A sidecar that is killed leaves it: the one that the kubelet starts
//! in its place adopts it, and where the pod is gone the next one of the node that starts, or an agent, removes it. One that ends with its pod removes it
//! itself (`leaving.rs`).

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;

use anyhow::bail;

use crate::datapath::{self, Datapath, Netns, PodTarget};
use crate::error_chain;
use crate::host;
use crate::lifecycle::Privileges;
use crate::pods::{PodUid, Roots, sweep};

/// The pod that this process is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnPod {
    pub uid: PodUid,
    /// Where the kubelet asks its containers.
    pub probe_ports: BTreeSet<u16>,
    /// From where, beside the next hops of the pod's routes.
    pub node_addresses: BTreeSet<IpAddr>,
}

/// What attaching takes of a container, each with what is to be written into the pod.
const NEEDED: [(Privileges, &str); 3] = [
    (Privileges::BPF, "BPF"),
    (Privileges::PERFMON, "PERFMON"),
    (Privileges::NET_ADMIN, "NET_ADMIN"),
];

impl OwnPod {
    /// The pod's cgroup, in which every container of it is, and the network namespace of this process.
    pub(super) fn find(&self, kernel: &mut datapath::Config) -> anyhow::Result<PodTarget> {
        let pod = Roots::of_host(&[]).and_then(|roots| roots.pod(&self.uid, None));
        let mut missing: Vec<String> = lacking();
        if let Err(error) = &pod {
            missing.push(format!(
                "{}; mount the host's cgroup2 tree into this container (hostPath /sys/fs/cgroup)",
                error_chain(error)
            ));
        }
        if datapath::require_bpffs(&kernel.pins).is_err() {
            missing.push(format!(
                "{} is on no bpffs; mount the host's into this container (hostPath /sys/fs/bpf)",
                kernel.pins.display()
            ));
        }
        let (Ok(pod), true) = (pod, missing.is_empty()) else {
            bail!(
                "this sidecar cannot attach to its pod {}: {}",
                self.uid,
                missing.join("; ")
            );
        };
        kernel.cgroup = pod.path().to_owned();
        if let Some(all) = kernel.pins.parent() {
            sweep(all, Some(&self.uid));
        }
        tracing::info!(pod = %self.uid, cgroup = %kernel.cgroup.display(), "this sidecar attaches to its pod by itself");
        Ok(pod.target(Netns::own()?)?)
    }

    /// To be called before the programs are attached.
    pub(super) fn let_probe(&self, datapath: &Datapath) -> anyhow::Result<()> {
        let mut from = self.node_addresses.clone();
        match host::gateways() {
            Ok(gateways) => from.extend(gateways),
            Err(error) => tracing::warn!(
                error = error_chain(&error),
                "probes of the kubelet may be refused: the next hops of this pod are not known"
            ),
        }
        tracing::debug!(?from, ports = ?self.probe_ports, "the kubelet may ask");
        Ok(datapath.let_probe(&from, &self.probe_ports)?)
    }
}

/// Of what the container was to be given.
fn lacking() -> Vec<String> {
    let mut lacking: Vec<String> = NEEDED
        .iter()
        .filter(|(privilege, _)| !privilege.are_held())
        .map(|(_, name)| format!("CAP_{name} is missing; add {name} to its securityContext.capabilities"))
        .collect();
    if !is_initial_user_namespace() {
        lacking.push(
            "the pod has a user namespace of its own, in which nobody may; leave hostUsers: false out".into(),
        );
    }
    lacking
}

/// By its table, which says that every user is who he is.
fn is_initial_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map")
        .map_or(true, |map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}
