//! The two nodes as places: namespaces, cgroups, addresses and the link between them. Runs nothing on them but what holds them.
//!
//! ```text
//!  outrigger-cluster.node-1                       outrigger-cluster.node-2
//!  10.98.1.0/24 pods ── bridge ── to-node ━━━━━ to-node ── bridge ── pods 10.98.2.0/24
//!  fd98:0:0:1::/64         10.97.0.1               10.97.0.2          fd98:0:0:2::/64
//!  etcd, API server, …     fd97::1                 fd97::2
//! ```
//!
//! Addresses are fixed, for none of them is seen outside of these namespaces. Those of IPv6 are used as they are written, without
//! duplicate address detection: for the second that it takes, nobody could bind them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use harness::cluster::{self, LINK, NAME, Node};
use harness::netns::Netns;

use super::{sweep, up};

pub(super) const NAMES: [&str; 2] = ["node-1", "node-2"];

/// The service address of the API server: on its own node it is one of the node's own addresses, so that in-cluster clients find
/// it before anybody balances services.
pub(super) const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// The service address of DNS, on every node one of its own addresses, as node-local DNS caches do it.
pub(super) const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// Of both families. A Service has an address of the first one unless it asks for more.
pub(super) const SERVICES: &str = "10.96.0.0/16,fd96::/108";

pub(super) fn ipv4(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 97, 0, octet(number))
}

fn ipv6(number: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd97, 0, 0, 0, 0, 0, 0, octet(number).into())
}

/// Of the pods of a node, one network of each family.
pub(super) fn pods(number: usize) -> [String; 2] {
    let number = octet(number);
    [format!("10.98.{number}.0/24"), format!("fd98:0:0:{number}::/64")]
}

fn octet(number: usize) -> u8 {
    u8::try_from(number + 1).unwrap_or(u8::MAX)
}

/// The configuration of a node's programs; what they keep is in memory.
pub(super) fn configuration(name: &str) -> PathBuf {
    Path::new(cluster::DIRECTORY).join(name)
}

/// As the kubelet takes it: below the mount of each hierarchy.
pub(super) fn cgroup(name: &str) -> String {
    format!("/{NAME}/{name}")
}

/// Both nodes, connected.
pub(super) fn create_all() -> Result<Vec<Node>> {
    make_cgroups()?;
    let namespaces = NAMES
        .iter()
        .map(|name| Netns::create(&cluster::netns(name)))
        .collect::<Result<Vec<_>>>()?;
    let [first, second] = &namespaces[..] else {
        bail!("two nodes are one link");
    };
    first.ip_batch(&format!(
        "link add dev {LINK} type veth peer name {LINK} netns {}\n",
        second.name()
    ))?;
    for (number, namespace) in namespaces.iter().enumerate() {
        let other = 1 - number;
        let [pods4, pods6] = pods(other);
        let mut batch = format!(
            "link set lo up\n\
             addr add {DNS_SERVICE}/32 dev lo\n\
             addr add {}/24 dev {LINK}\n\
             addr add {}/64 dev {LINK} nodad\n\
             link set {LINK} up\n\
             route add {pods4} via {}\n\
             route add {pods6} via {}\n",
            ipv4(number),
            ipv6(number),
            ipv4(other),
            ipv6(other),
        );
        batch += &if number == 0 {
            format!("addr add {API_SERVICE}/32 dev lo\n")
        } else {
            format!("route add {API_SERVICE}/32 via {}\n", ipv4(0))
        };
        namespace.ip_batch(&batch)?;
    }
    NAMES
        .iter()
        .enumerate()
        .map(|(number, name)| hold(name, number))
        .collect()
}

/// One in each hierarchy; the kubelet takes its root as it finds it.
fn make_cgroups() -> Result<()> {
    let system = cluster::system_cgroup()?;
    fs::create_dir_all(&system).with_context(|| format!("make {}", system.display()))?;
    for hierarchy in sweep::hierarchies() {
        let root = hierarchy.join(NAME);
        for dir in [root.clone()]
            .into_iter()
            .chain(NAMES.map(|name| root.join(name)))
        {
            fs::create_dir_all(&dir).with_context(|| format!("make the cgroup {}", dir.display()))?;
            // A cpuset of version 1 takes no process before it has both.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let above = dir.parent().unwrap_or(&dir).join(file);
                if let (Ok(value), Ok("")) = (
                    fs::read_to_string(&above),
                    read_trimmed(&dir.join(file)).as_deref(),
                ) {
                    fs::write(dir.join(file), value)
                        .with_context(|| format!("write {}/{file}", dir.display()))?;
                }
            }
        }
        delegate(&hierarchy);
        delegate(&root);
    }
    Ok(())
}

/// Lets cgroups below have the controllers of version 2, which the kubelet demands of its root. There are none where they are of
/// version 1, and one that cannot be given down the kubelet will name.
fn delegate(directory: &Path) {
    let controllers = fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        let _ = fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

fn read_trimmed(path: &Path) -> std::io::Result<String> {
    Ok(fs::read_to_string(path)?.trim().to_owned())
}

fn hold(name: &str, number: usize) -> Result<Node> {
    let configuration = configuration(name);
    fs::create_dir_all(&configuration).with_context(|| format!("make {}", configuration.display()))?;
    let netns = Path::new(harness::name::NETNS_DIR).join(cluster::netns(name));
    let mut command = cluster::in_the_cgroup()?;
    command
        .args(["setsid", "nsenter"])
        .arg(format!("--net={}", netns.display()))
        .args(["unshare", "--mount", "--propagation", "private"])
        .args(["sh", "-c", include_str!("node.sh"), &cluster::netns(name)])
        .arg(&configuration);
    let log = up::log(&format!("{name}-mounts"))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("start the first process of a node")?;
    let mut said = String::new();
    BufReader::new(child.stdout.take().context("what a node says")?).read_line(&mut said)?;
    if said != "ready\n" {
        bail!(
            "{name} cannot be made; see {}",
            up::log_path(&format!("{name}-mounts")).display()
        );
    }
    Ok(Node {
        name: name.into(),
        ipv4: ipv4(number),
        ipv6: ipv6(number),
        holder: child.id(),
    })
}

/// Starts a program of a node in the background. It outlives this process.
pub(super) fn start(node: &Node, program: &Path, arguments: impl IntoIterator<Item = String>) -> Result<()> {
    let name = program
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let name = if NAMES[0] == node.name {
        name
    } else {
        format!("{name}-{}", node.name)
    };
    let log: File = up::log(&name)?;
    let mut command: Command = node.command(Path::new("setsid"))?;
    command.arg("--fork").arg(program).args(arguments);
    let dir = program.parent().context("a program's directory")?;
    let status = command
        .env("PATH", super::worker::path_with(dir)?)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .status();
    match status.with_context(|| format!("start {name}"))? {
        status if status.success() => Ok(()),
        status => bail!(
            "{name} cannot be started: {status}; see {}",
            up::log_path(&name).display()
        ),
    }
}
