//! Who contends: pairs of pods on one bridge, a client and a server each. Measures nothing.
//!
//! Another contender is another pair here; the first of a row is what the others are compared with.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use harness::mesh::{Options, Plan, binaries};
use harness::{Mesh, Pod, Process, http};
use serde_json::Value;

use super::core::Core;
use super::generator::Generator;

const ECHO: u16 = 9000;
/// As `ECHO`; the policy makes connect optimistic there.
const OPTIMISTIC_ECHO: u16 = 9002;
const SINK: u16 = 9001;
/// A port of the service that no program listens on.
const REFUSED: u16 = 6379;

/// Dropped in this order: servers before their pods.
#[derive(Debug)]
pub(super) struct Topology {
    _servers: Vec<Process>,
    /// No sidecar, no eBPF program.
    pub(super) direct: Contender,
    /// Through both sidecars and a tunnel.
    pub(super) mesh_ways: Ways,
    /// Through the client's sidecar, to a server that has none.
    pub(super) plaintext_ways: Ways,
    pub(super) mesh: Mesh,
}

/// The same client and server, twice.
#[derive(Debug)]
pub(super) struct Ways {
    /// connect() returns when the server has accepted: the default.
    pub(super) truthful: Contender,
    /// connect() returns at once.
    pub(super) optimistic: Contender,
}

/// A client's pod, and where it finds a server.
#[derive(Debug)]
pub(super) struct Contender {
    pub(super) name: &'static str,
    pub(super) client: Pod,
    pub(super) echo: SocketAddr,
    pub(super) sink: SocketAddr,
    pub(super) refused: SocketAddr,
}

impl Topology {
    pub(super) fn build(core: &Core) -> Result<Self> {
        core.pinned(|| {
            let policy = format!("outbound:\n  - {{ports: [{OPTIMISTIC_ECHO}], connect: optimistic}}\n");
            let plan = Plan {
                servers: 1,
                client: sidecar("client").policy(&policy),
                server: sidecar("server"),
                ..Plan::default()
            };
            let mesh = Mesh::of("bench", &plan)?;
            let direct_client = prepare(mesh.fabric.pod("direct-client")?)?;
            let direct_server = prepare(mesh.fabric.pod("direct-server")?)?;
            let client = prepare(mesh.client.pod.clone())?;
            let server = prepare(mesh.server().pod.clone())?;
            let outside = prepare(mesh.outside.clone())?;
            let ways = |to: Ipv4Addr| Ways {
                truthful: Contender::new("truthful", &client, to, ECHO),
                optimistic: Contender::new("optimistic", &client, to, OPTIMISTIC_ECHO),
            };
            Ok(Self {
                _servers: [&direct_server, &server, &outside]
                    .map(serve)
                    .into_iter()
                    .collect::<Result<_>>()?,
                direct: Contender::new("direct", &direct_client, direct_server.ipv4(), ECHO),
                mesh_ways: ways(vip(&mesh)?),
                plaintext_ways: ways(outside.ipv4()),
                mesh,
            })
        })
    }

    /// How the sidecars protect what they carry, by their own account of a connection; an error if they do not, or
    /// if a contender is not what it is called. A load that went past them would look very fast.
    pub(super) fn protection(&self) -> Result<String> {
        for ways in [&self.mesh_ways, &self.plaintext_ways] {
            for contender in [&ways.truthful, &ways.optimistic] {
                let connect = self.why(contender.echo)?["connect"].clone();
                ensure!(
                    connect == contender.name,
                    "connect to {} is {connect}",
                    contender.echo
                );
            }
        }
        let contender = &self.mesh_ways.truthful;
        let args = ["idle", &contender.echo.to_string(), "--connections", "1"].map(str::to_owned);
        let mut connection = Generator::start(&contender.client, &args)?;
        connection.answer()?;
        let flow = self
            .mesh
            .client
            .sidecar
            .until_flow("a flow through a tunnel", |flow| flow["tls"].is_object())?;
        let fact = |name: &str| flow["tls"][name].as_str().unwrap_or("unknown").to_owned();
        Ok([fact("version"), fact("cipher"), fact("keyExchange")].join(", "))
    }

    /// What the client's sidecar would do.
    fn why(&self, destination: SocketAddr) -> Result<Value> {
        let socket = self.mesh.client.sidecar.admin_socket();
        let (status, body) = http::get_unix(&socket, &format!("/why?destination={destination}"))?;
        ensure!(status == 200, "/why answered {status}: {body}");
        serde_json::from_str(&body).with_context(|| format!("/why is no JSON: {body}"))
    }

    /// What is in force in every pod.
    pub(super) fn congestion_control(&self) -> Result<String> {
        let text = self
            .direct
            .client
            .run_in(|| fs::read_to_string(CONGESTION_CONTROL))?
            .with_context(|| format!("read {CONGESTION_CONTROL}"))?;
        Ok(text.trim().to_owned())
    }
}

impl Contender {
    fn new(name: &'static str, client: &Pod, server: Ipv4Addr, echo: u16) -> Self {
        Self {
            name,
            client: client.clone(),
            echo: (server, echo).into(),
            sink: (server, SINK).into(),
            refused: (server, REFUSED).into(),
        }
    }
}

fn sidecar(service_account: &str) -> Options {
    Options::new(service_account).workers(1)
}

/// The service's virtual address.
fn vip(mesh: &Mesh) -> Result<Ipv4Addr> {
    match mesh.vip4(ECHO) {
        SocketAddr::V4(address) => Ok(*address.ip()),
        SocketAddr::V6(address) => anyhow::bail!("{address} is no IPv4 address"),
    }
}

fn serve(pod: &Pod) -> Result<Process> {
    let mut command = pod.command(binaries::path("outrigger-load")?);
    command.arg("serve");
    for (flag, port) in [("--echo", ECHO), ("--echo", OPTIMISTIC_ECHO), ("--sink", SINK)] {
        command.args([flag, &port.to_string()]);
    }
    pod.spawn(command)?.until_listening(ECHO)?.until_listening(SINK)
}

const CONGESTION_CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// The same for each contender's pods.
fn prepare(pod: Pod) -> Result<Pod> {
    pod.run_in(|| -> Result<()> {
        // A closed connection keeps its port for a minute otherwise, and thousands a second use up all of them.
        for (setting, value) in [
            ("/proc/sys/net/ipv4/tcp_tw_reuse", "1"),
            ("/proc/sys/net/ipv4/ip_local_port_range", "20000 65535"),
            // The same for all contenders, whoever closes first.
            ("/proc/sys/net/ipv4/tcp_max_tw_buckets", "4096"),
        ] {
            fs::write(setting, value).with_context(|| format!("write {value} to {setting}"))?;
        }
        // Refused where the machine does not allow it; the report says what is in force.
        let _ = fs::write(CONGESTION_CONTROL, "cubic");
        Ok(())
    })??;
    Ok(pod)
}
