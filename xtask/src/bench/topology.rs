//! Who contends: pairs of pods on one bridge, a client and a server each. Measures nothing.
//!
//! Another contender is another pair here; the first is what all are compared with.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use harness::mesh::{Options, Plan, binaries};
use harness::{Mesh, Pod, Process};

use super::core::Core;
use super::generator::Generator;

const ECHO: u16 = 9000;
const SINK: u16 = 9001;

/// Dropped in this order: servers before their pods.
#[derive(Debug)]
pub(super) struct Topology {
    pub(super) contenders: Vec<Contender>,
    pub(super) mesh: Mesh,
}

/// A client's pod, and where it finds a server.
#[derive(Debug)]
pub(super) struct Contender {
    pub(super) name: &'static str,
    pub(super) client: Pod,
    pub(super) echo: SocketAddr,
    pub(super) sink: SocketAddr,
    _server: Process,
}

impl Topology {
    pub(super) fn build(core: &Core) -> Result<Self> {
        core.pinned(|| {
            let plan = Plan {
                servers: 1,
                client: sidecar("client"),
                server: sidecar("server"),
            };
            let mesh = Mesh::of("bench", &plan)?;
            let client = mesh.fabric.pod("direct-client")?;
            let server = mesh.fabric.pod("direct-server")?;
            let contenders = vec![
                Contender {
                    name: "direct",
                    client: prepare(client)?,
                    echo: (server.ipv4(), ECHO).into(),
                    sink: (server.ipv4(), SINK).into(),
                    _server: serve(&prepare(server)?)?,
                },
                Contender {
                    name: "outrigger",
                    client: prepare(mesh.client.pod.clone())?,
                    echo: mesh.vip4(ECHO),
                    sink: mesh.vip4(SINK),
                    _server: serve(&prepare(mesh.server().pod.clone())?)?,
                },
            ];
            Ok(Self { contenders, mesh })
        })
    }

    /// How the sidecars protect what they carry, by their own account of a connection; an error if they do not.
    /// A load that went past them would look very fast.
    pub(super) fn protection(&self) -> Result<String> {
        let contender = self.contenders.last().context("no contender")?;
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

    /// What is in force in every pod.
    pub(super) fn congestion_control(&self) -> Result<String> {
        let text = self.contenders[0]
            .client
            .run_in(|| fs::read_to_string(CONGESTION_CONTROL))?
            .with_context(|| format!("read {CONGESTION_CONTROL}"))?;
        Ok(text.trim().to_owned())
    }
}

fn sidecar(service_account: &str) -> Options {
    Options::new(service_account).workers(1)
}

fn serve(pod: &Pod) -> Result<Process> {
    let mut command = pod.command(binaries::path("outrigger-load")?);
    command.args(["serve", "--echo", &ECHO.to_string(), "--sink", &SINK.to_string()]);
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
        ] {
            fs::write(setting, value).with_context(|| format!("write {value} to {setting}"))?;
        }
        // Refused where the machine does not allow it; the report says what is in force.
        let _ = fs::write(CONGESTION_CONTROL, "cubic");
        Ok(())
    })??;
    Ok(pod)
}
