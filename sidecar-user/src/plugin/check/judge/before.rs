//! What an installation takes: rights, nodes and a namespace.

use std::collections::BTreeMap;

use super::super::facts::Known;
use super::super::report::{Category, Check, category, counted, listed, ok};
use crate::kubernetes::{OwnRight, SYSTEM_NAMESPACE, SeenNode};

/// Of Linux: the helpers of the kernel programs.
const KERNEL: (u32, u32) = (5, 17);
/// Those that images are built for.
const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];
/// Those whose cgroups and processes the agent knows how to find.
const RUNTIMES: [&str; 2] = ["containerd://", "cri-o://"];
/// Of a kubelet.
const KUBELET: u32 = 33;
/// On a namespace: by which standard the API server refuses pods there.
const POD_SECURITY: &str = "pod-security.kubernetes.io/enforce";

pub(super) fn rights(rights: &Known<Vec<(OwnRight, bool)>>) -> Category {
    let what = "you may make what the chart is made of";
    let check = ok("install-rights", what);
    let rights = match rights {
        Ok(rights) => rights,
        Err(unknown) => return category("your rights", vec![check.unknown(unknown)]),
    };
    let missing: Vec<String> = rights
        .iter()
        .filter(|(_, has)| !has)
        .map(|(right, _)| right.to_string())
        .collect();
    let check = match missing.is_empty() {
        true => check,
        false => check.failed(
            format!("you may not {}", missing.join("; nor ")),
            "have an administrator of the cluster install it",
        ),
    };
    category("your rights", vec![check])
}

pub(super) fn nodes(nodes: &Known<Vec<SeenNode>>) -> Category {
    let nodes = match nodes {
        Ok(nodes) => nodes,
        Err(unknown) => {
            return category("nodes", vec![ok("nodes", "the nodes").unknown(unknown)]);
        }
    };
    let linux: Vec<&SeenNode> = nodes.iter().filter(|node| node.os == "linux").collect();
    let some = ok(
        "nodes-linux",
        format!("{} with Linux", counted(linux.len(), "node")),
    );
    if linux.is_empty() {
        let none = some.failed(
            format!("of {} none has it", counted(nodes.len(), "node")),
            "add nodes with Linux: the sidecars' programs run in its kernel",
        );
        return category("nodes", vec![none]);
    }
    let all = |id: &'static str, what: String, of: &dyn Fn(&SeenNode) -> Option<String>, remedy: &str| {
        let wrong: Vec<String> = linux
            .iter()
            .filter_map(|node| Some(format!("{} ({})", node.name, of(node)?)))
            .collect();
        let check = ok(id, what);
        match wrong.is_empty() {
            true => check,
            false => check.failed(
                format!("not {}", listed(wrong.iter().map(String::as_str))),
                remedy,
            ),
        }
    };
    let (major, minor) = KERNEL;
    let mut checks = vec![
        some,
        all(
            "nodes-kernel",
            format!("their kernels are {major}.{minor} or later"),
            &|node| (kernel(&node.kernel) < Some(KERNEL)).then(|| node.kernel.clone()),
            "upgrade the kernels of these nodes, or keep agents and meshed pods off them by agent.nodeSelector",
        ),
        all(
            "nodes-architecture",
            format!("they are {}", ARCHITECTURES.join(" or ")),
            &|node| (!ARCHITECTURES.contains(&&*node.architecture)).then(|| node.architecture.clone()),
            "keep agents and meshed pods off these nodes by agent.nodeSelector",
        ),
        all(
            "nodes-kubelet",
            format!("their kubelets are 1.{KUBELET} or later"),
            &|node| (minor_of(&node.kubelet) < Some(KUBELET)).then(|| node.kubelet.clone()),
            "upgrade these kubelets: sidecars start before other containers from there on",
        ),
    ];
    checks.push(runtimes(&linux));
    category("nodes", checks)
}

fn runtimes(nodes: &[&SeenNode]) -> Check {
    let check = ok("nodes-runtime", "their container runtimes are known");
    let is_known = |node: &&SeenNode| RUNTIMES.iter().any(|known| node.runtime.starts_with(known));
    let others: Vec<String> = nodes
        .iter()
        .filter(|node| !is_known(node))
        .map(|node| format!("{} ({})", node.name, node.runtime))
        .collect();
    match others.is_empty() {
        true => check,
        false => check.warning(
            format!(
                "nobody has tried it with that of {}",
                listed(others.iter().map(String::as_str))
            ),
            "try a meshed pod there: kubectl outrigger check says whether its agent finds it",
        ),
    }
}

pub(super) fn namespace(labels: &Known<Option<BTreeMap<String, String>>>) -> Category {
    let check = ok(
        "namespace-pod-security",
        format!("the namespace {SYSTEM_NAMESPACE} lets agents run"),
    );
    let check = match labels {
        Err(unknown) => check.unknown(unknown),
        Ok(None) => check,
        Ok(Some(labels)) => match labels.get(POD_SECURITY).map(String::as_str) {
            None | Some("privileged") => check,
            Some(standard) => check.failed(
                format!(
                    "its label {POD_SECURITY}={standard} refuses them: they are in the network of their node and load programs into its kernel"
                ),
                format!("kubectl label namespace {SYSTEM_NAMESPACE} --overwrite {POD_SECURITY}=privileged"),
            ),
        },
    };
    category("namespace", vec![check])
}

/// `None`: it is no version.
fn kernel(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn minor_of(version: &str) -> Option<u32> {
    kernel(version.strip_prefix('v')?).map(|(_, minor)| minor)
}
