//! What makes a node take pods: containerd with runc, the bridge plugin, and the kubelet. Pulls no image: they are imported.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use harness::cluster::{Cluster, Node};
use harness::wait;
use serde_json::{Value, json};

use super::control_plane::{self, FEATURES};
use super::images::{Images, PAUSE};
use super::node;
use super::pki::{Authority, Subject};
use super::programs::quietly;
use super::up::LIMIT;

/// Where the kubelet's containers and images are.
pub(super) const CONTAINERD_NAMESPACE: &str = "k8s.io";

/// Where Debian puts them.
const CNI_PLUGINS: &str = "/usr/lib/cni";

const SOCKET: &str = "/run/containerd/containerd.sock";

/// Our programs before the machine's: containerd looks for its shim there, and the machine may have another runc.
pub(super) fn path_with(programs: &Path) -> Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let all = std::iter::once(programs.to_path_buf())
        .chain(std::env::split_paths(&path))
        .chain(system);
    Ok(std::env::join_paths(all)?)
}

/// The container runtime with everything it needs. Its images are still missing.
pub(super) fn start_runtime(cluster: &Cluster, number: usize) -> Result<()> {
    let node = &cluster.nodes[number];
    let directory = node::configuration(&node.name);
    let plugins = directory.join("cni");
    fs::create_dir_all(&plugins).with_context(|| format!("make {}", plugins.display()))?;
    fs::write(plugins.join("outrigger.conflist"), network(number).to_string())?;
    let configuration = directory.join("containerd.toml");
    fs::write(&configuration, runtime(&cluster.programs, &plugins))?;
    node::start(
        node,
        &cluster.programs.join("containerd"),
        [format!("--config={}", configuration.display())],
    )
}

/// No masquerading: it would be a netfilter rule.
fn network(number: usize) -> Value {
    let ranges = node::pods(number).map(|network| json!([{ "subnet": network }]));
    json!({
        "cniVersion": "1.0.0",
        "name": "outrigger",
        "plugins": [{
            "type": "bridge",
            "bridge": "pods",
            "isGateway": true,
            "ipMasq": false,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "ranges": ranges,
                "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
                "dataDir": "/run/cni",
            },
        }],
    })
}

fn runtime(programs: &Path, plugins: &Path) -> String {
    // restrict_oom_score_adj: where root lacks CAP_SYS_RESOURCE, runc dies of a lower score without a word about it.
    format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
address = "{SOCKET}"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{PAUSE}"
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["{CNI_PLUGINS}"]
conf_dir = "{}"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = "{}"
SystemdCgroup = false
"#,
        plugins.display(),
        programs.join("runc").display()
    )
}

pub(super) fn import_images(cluster: &Cluster, node: &Node, images: &Images) -> Result<()> {
    wait::until("containerd answers", LIMIT, || {
        let ctr = ctr(cluster, node);
        ctr.is_ok_and(|mut ctr| quietly(ctr.arg("version")).is_ok())
    })?;
    for image in &images.archives {
        // Unpacked they are in memory once, and need not be there packed as well.
        let import = ["images", "import", "--local", "--discard-unpacked-layers"];
        quietly(ctr(cluster, node)?.args(import).arg(image))?;
    }
    Ok(())
}

fn ctr(cluster: &Cluster, node: &Node) -> Result<std::process::Command> {
    let mut command = node.command(&cluster.programs.join("ctr"))?;
    command.args(["--namespace", CONTAINERD_NAMESPACE]);
    Ok(command)
}

pub(super) fn start_kubelet(cluster: &Cluster, number: usize, authority: &Authority) -> Result<()> {
    let node = &cluster.nodes[number];
    let user = format!("system:node:{}", node.name);
    let addresses = [node.ipv4.into(), node.ipv6.into()];
    let subject = Subject {
        name: &user,
        group: Some("system:nodes"),
        addresses: &addresses,
        hosts: &[&node.name],
    };
    let kubeconfig = authority.kubeconfig(&control_plane::server(), &node.name, &subject)?;
    let configuration = node::configuration(&node.name).join("kubelet.json");
    fs::write(&configuration, kubelet(node, authority).to_string())?;
    node::start(
        node,
        &cluster.programs.join("kubelet"),
        [
            format!("--config={}", configuration.display()),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--hostname-override={}", node.name),
            // Pods have both families because their node has, in this order.
            format!("--node-ip={},{}", node.ipv4, node.ipv6),
            // A zone of its own each, for what prefers the near ones.
            format!("--node-labels=topology.kubernetes.io/zone=zone-{}", number + 1),
        ],
    )
}

fn kubelet(node: &Node, authority: &Authority) -> Value {
    let serving = authority
        .own
        .certificate
        .with_file_name(format!("{}.crt", node.name));
    // The disk of a developer's machine may be as full as it likes: nothing is evicted, no image removed.
    let never = "0%";
    let features: serde_json::Map<String, Value> = FEATURES
        .iter()
        .map(|name| ((*name).into(), true.into()))
        .collect();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": authority.own.certificate },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": serving,
        "tlsPrivateKeyFile": serving.with_extension("key"),
        "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": node::cgroup(&node.name),
        // Version 1 controllers beside version 2: what a hybrid machine has.
        "failCgroupV1": false,
        "failSwapOn": false,
        "makeIPTablesUtilChains": false,
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": false,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": never,
            "nodefs.available": never,
            "nodefs.inodesFree": never,
            "imagefs.available": never,
            "imagefs.inodesFree": never,
        },
        "clusterDNS": [node::DNS_SERVICE],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "podLogsDir": "/var/log/pods",
        "featureGates": features,
    })
}
