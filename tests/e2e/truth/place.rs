//! Two pods, and every kind of network that a connection can fail in, with or without Outrigger.
//!
//! Built the same way each time, so that the only difference between two places is their sidecars.
//!
//! | network (IPv6: fd91::/64 and so on) | what becomes of a SYN to it |
//! | --- | --- |
//! | 10.91.0.0/16 | the pod's routing: a black hole, EINVAL |
//! | 10.92.0.0/16 | the router answers: prohibited |
//! | 10.93.0.0/16 | the router answers: unreachable |
//! | 10.94.0.0/16 | the router says nothing |
//! | 10.95.0.0/16 | the pod's routing: prohibited, EACCES |
//! | 10.97.0.0/16 | the pod's routing: no route, ENETUNREACH |
//! | 10.98.0.0/16 | the pod's routing: unreachable, EHOSTUNREACH |

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::mesh::registry::Registry;
use harness::mesh::{Options, RegistryFile, binaries};
use harness::pod::Pod;
use harness::{Control, Fabric, Process, Sidecar};

/// Who has a sidecar, and who is not a pod but a process of the node.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pair {
    pub(crate) client: Side,
    pub(crate) server: Side,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Side {
    #[default]
    Bare,
    Meshed,
    /// Bare, and outside of all pods.
    Node,
}

/// Longer than a run takes on an emulated machine.
const RUN_LIMIT: Duration = Duration::from_secs(1200);

/// KiB: three times what was measured of a debug build (31 MiB), and far less than the 384 MiB that six cases would
/// write to peers that do not read, were they not stopped.
const MOST_MEMORY: u64 = 96 << 10;

const SERVICE: &str = "truth.demo.svc.cluster.local";
const OWN_SERVICE: &str = "own.demo.svc.cluster.local";
const VIPS: [&str; 4] = ["10.96.0.30", "fd96::30", "10.96.0.31", "fd96::31"];
/// One for each address family of the truth program.
const PORTS: &[(u16, u16)] = &[(7004, 7004), (7006, 7006), (7046, 7046)];

/// Dropped in this order.
pub(crate) struct Place {
    kind: String,
    pair: Pair,
    _server: Process,
    sidecars: Vec<Sidecar>,
    _control: Option<Control>,
    client: Pod,
    server: Pod,
    fabric: Fabric,
}

impl Place {
    pub(crate) fn build(kind: &str, pair: Pair) -> Result<Self> {
        let fabric = Fabric::new(kind)?;
        let [client, server] = [("client", pair.client), ("server", pair.server)].map(|(name, side)| {
            // A pod is made in any case, so that the addresses of the others are the same in all places.
            let pod = fabric.pod(name)?;
            Ok::<_, anyhow::Error>(if side == Side::Node {
                fabric.node().clone()
            } else {
                pod
            })
        });
        let (client, server) = (client?, server?);
        for pod in [&client, &server] {
            furnish(pod, &fabric)?;
        }
        route(&fabric)?;

        let mut sidecars = Vec::new();
        let mut control = None;
        let members = [(&client, pair.client), (&server, pair.server)];
        if members.iter().any(|(_, side)| *side == Side::Meshed) {
            let authority = Control::start(&fabric)?;
            let registry = register(&fabric, members)?;
            for (pod, side) in members {
                if side == Side::Meshed {
                    let options = Options::new(pod.name());
                    sidecars.push(Sidecar::start(pod, &authority, &registry, &options)?);
                }
            }
            control = Some(authority);
        }
        let mut command = server.command(binaries::path("outrigger-truth")?);
        command.arg("serve").arg("--control").arg(socket(&fabric));
        let mut process = server.spawn(command)?;
        process.until("listens for its clients", |_| socket(&fabric).exists())?;
        Ok(Self {
            kind: kind.into(),
            pair,
            _server: process,
            sidecars,
            _control: control,
            client,
            server,
            fabric,
        })
    }

    /// All facts, one a line.
    pub(crate) fn facts(&self, only: &[String]) -> Result<Vec<String>> {
        let mut command = self.client.command(binaries::path("outrigger-truth")?);
        command.arg("run").arg("--control").arg(socket(&self.fabric));
        let (client, server) = (&self.client, &self.server);
        let [service4, service6, own4, own6] = if self.pair.client == Side::Meshed {
            VIPS.map(|vip| vip.parse().expect("a constant address"))
        } else {
            // Where nothing translates service addresses, the servers stand for their services.
            let [server4, server6] = server.addresses();
            let [client4, client6] = client.addresses();
            [server4, server6, client4, client6]
        };
        let addresses: [(&str, IpAddr); 8] = [
            ("--client4", client.ipv4().into()),
            ("--client6", client.ipv6().into()),
            ("--server4", server.ipv4().into()),
            ("--server6", server.ipv6().into()),
            ("--service4", service4),
            ("--service6", service6),
            ("--own-service4", own4),
            ("--own-service6", own6),
        ];
        for (option, address) in addresses {
            command.arg(option).arg(address.to_string());
        }
        if let Some(patience) = std::env::var_os("OUTRIGGER_TRUTH_PATIENCE") {
            command.arg("--patience").arg(patience);
        }
        command.args(only);
        let output = self.client.run_within(command, RUN_LIMIT)?.ok()?;
        for sidecar in &self.sidecars {
            let peak = peak_memory(sidecar)?;
            ensure!(
                peak < MOST_MEMORY,
                "the sidecar of {} has used {peak} KiB: writers to peers that do not read were not stopped",
                sidecar.pod().name()
            );
        }
        if let Some(dir) = std::env::var_os("OUTRIGGER_TRUTH_FACTS") {
            let file = PathBuf::from(dir).join(&self.kind);
            fs::write(&file, &output).with_context(|| format!("keep the facts in {}", file.display()))?;
        }
        Ok(output.lines().map(String::from).collect())
    }
}

/// The most resident memory it ever had, in KiB.
fn peak_memory(sidecar: &Sidecar) -> Result<u64> {
    let pid = sidecar.pid().context("the sidecar does not run")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
    peak.and_then(|peak| peak.parse().ok())
        .context("no VmHWM in /proc")
}

fn socket(fabric: &Fabric) -> PathBuf {
    fabric.scratch().join("truth.sock")
}

/// The pod's own routes, and what some cases need from its kernel.
fn furnish(pod: &Pod, fabric: &Fabric) -> Result<()> {
    if pod.name() != fabric.node().name() {
        pod.netns().ip_batch(
            "route add blackhole 10.91.0.0/16\n\
             route add blackhole fd91::/64\n\
             route add prohibit 10.95.0.0/16\n\
             route add prohibit fd95::/64\n\
             route add throw 10.97.0.0/16\n\
             route add throw fd97::/64\n",
        )?;
    }
    // Clients and servers of fast open.
    set(pod, "net/ipv4/tcp_fastopen", "3")?;
    // Nobody's answer about a missing port is one too many.
    set(pod, "net/ipv4/icmp_ratelimit", "0")?;
    set(pod, "net/ipv6/icmp/ratelimit", "0")
}

/// The node's side of the networks behind it.
fn route(fabric: &Fabric) -> Result<()> {
    let node = fabric.node();
    set(node, "net/ipv4/ip_forward", "1")?;
    set(node, "net/ipv6/conf/all/forwarding", "1")?;
    set(node, "net/ipv4/icmp_ratelimit", "0")?;
    set(node, "net/ipv6/icmp/ratelimit", "0")?;
    node.netns().ip_batch(
        "route add prohibit 10.92.0.0/16\n\
         route add prohibit fd92::/64\n\
         route add unreachable 10.93.0.0/16\n\
         route add unreachable fd93::/64\n\
         route add blackhole 10.94.0.0/16\n\
         route add blackhole fd94::/64\n",
    )
}

fn set(pod: &Pod, name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{name}");
    pod.run_in(|| fs::write(&path, value))?
        .with_context(|| format!("set {path} in {}", pod.name()))
}

fn register(fabric: &Fabric, [client, server]: [(&Pod, Side); 2]) -> Result<RegistryFile> {
    let mut registry = Registry::default();
    let vip = |n: usize| VIPS[n].parse().expect("a constant address");
    registry.add_service(SERVICE, &[vip(0), vip(1)], PORTS);
    registry.add_service(OWN_SERVICE, &[vip(2), vip(3)], PORTS);
    for ((pod, side), service) in [(client, OWN_SERVICE), (server, SERVICE)] {
        match side {
            Side::Meshed => registry.add_member(pod, pod.name(), &[service]),
            Side::Bare | Side::Node => registry.add_outsider(pod, &[service]),
        };
    }
    RegistryFile::create(fabric.scratch().join("registry.yaml"), registry)
}
