//! A whole small mesh in one call: a client, servers behind one service, and a server outside.

use std::net::{IpAddr, SocketAddr};
use std::thread;

use anyhow::Result;

use crate::fabric::Fabric;
use crate::mesh::registry::Registry;
use crate::mesh::sidecar::{Options, Sidecar};
use crate::mesh::{Control, RegistryFile};
use crate::pod::Pod;
use crate::process::Process;

/// The service in front of all servers; `cluster.local` names as in Kubernetes.
pub const SERVICE: &str = "server.demo.svc.cluster.local";
pub const VIPS: [&str; 2] = ["10.96.0.10", "fd96::10"];

/// Ports of the service, and of the applications behind. Only HTTP moves, to see that the target port is used.
pub const SERVICE_PORTS: &[(u16, u16)] = &[
    (80, 8080),
    (2525, 2525),
    (5201, 5201),
    (5432, 5432),
    (6379, 6379),
    (9000, 9000),
    (9001, 9001),
    (9002, 9002),
];

/// What to build. The defaults are one server and permissive sidecars.
#[derive(Clone, Debug)]
pub struct Plan {
    pub servers: usize,
    pub client: Options,
    pub server: Options,
    /// The longest life of the authority's certificates.
    pub leaf_ttl: String,
    /// The only capabilities of the agent, if it is not to have all.
    pub capabilities: Option<Vec<String>>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            servers: 1,
            client: Options::new("client"),
            server: Options::new("server"),
            leaf_ttl: "24h".into(),
            capabilities: None,
        }
    }
}

impl Plan {
    /// Sidecars that install interception by themselves, also where the tests run with an agent.
    pub fn privileged() -> Self {
        Self::with(Options::privileged)
    }

    /// Sidecars of an agent, also where the tests run without.
    pub fn by_agent() -> Self {
        Self::with(Options::by_agent)
    }

    fn with(mode: fn(Options) -> Options) -> Self {
        let plan = Self::default();
        Self {
            client: mode(plan.client),
            server: mode(plan.server),
            ..plan
        }
    }
}

/// Dropped in this order: sidecars and programs before the network they use.
#[derive(Debug)]
pub struct Mesh {
    pub client: Member,
    pub servers: Vec<Member>,
    /// A pod that no registry knows and that has no sidecar.
    pub outside: Pod,
    pub control: Control,
    pub registry: RegistryFile,
    /// Servers that live as long as the mesh.
    pub programs: Vec<Process>,
    pub fabric: Fabric,
}

/// A pod with its sidecar.
#[derive(Debug)]
pub struct Member {
    pub pod: Pod,
    pub sidecar: Sidecar,
}

impl Mesh {
    /// One client and one server, named after the test.
    pub fn start(kind: &str) -> Result<Self> {
        Self::of(kind, &Plan::default())
    }

    pub fn with_servers(kind: &str, servers: usize) -> Result<Self> {
        Self::of(
            kind,
            &Plan {
                servers,
                ..Plan::default()
            },
        )
    }

    pub fn of(kind: &str, plan: &Plan) -> Result<Self> {
        let fabric = Fabric::new(kind)?;
        if let Some(own) = &plan.capabilities {
            fabric.confine_agent(own);
        }
        let client = fabric.pod("client")?;
        let servers: Vec<Pod> = (1..=plan.servers)
            .map(|n| fabric.pod(&format!("server-{n}")))
            .collect::<Result<_>>()?;
        let outside = fabric.pod("outside")?;

        let mut registry = Registry::default();
        registry.add_service(
            SERVICE,
            &VIPS.map(|ip| ip.parse().expect("a constant address")),
            SERVICE_PORTS,
        );
        registry.add_member(&client, &plan.client.service_account, &[]);
        for server in &servers {
            registry.add_member(server, &plan.server.service_account, &[SERVICE]);
        }
        let registry = RegistryFile::create(fabric.scratch().join("registry.yaml"), registry)?;

        let control = Control::with_leaves(&fabric, &plan.leaf_ttl)?;
        let join = |pod: Pod, options: &Options| -> Result<Member> {
            let sidecar = Sidecar::configure(&pod, &control, &registry, options)?;
            Ok(Member { pod, sidecar })
        };
        let mut client = join(client, &plan.client)?;
        let mut servers: Vec<Member> = servers
            .into_iter()
            .map(|pod| join(pod, &plan.server))
            .collect::<Result<_>>()?;
        // All at once: each waits for the kernel's verifier and for its certificate, and none for another one.
        thread::scope(|scope| {
            let members = servers.iter_mut().chain([&mut client]);
            let starts: Vec<_> = members
                .map(|member| scope.spawn(|| member.sidecar.restart()))
                .collect();
            starts
                .into_iter()
                .try_for_each(|start| start.join().expect("no sidecar's start panics"))
        })?;
        Ok(Self {
            client,
            servers,
            outside,
            control,
            registry,
            programs: Vec::new(),
            fabric,
        })
    }

    /// Starts a server in every server pod, e.g. `mesh.serve(apps::nginx, 8080)`.
    pub fn serve(&mut self, server: impl Fn(&Pod, u16) -> Result<Process>, port: u16) -> Result<()> {
        for member in &self.servers {
            self.programs.push(server(&member.pod, port)?);
        }
        Ok(())
    }

    /// The service's virtual address and a port of it.
    pub fn vip4(&self, port: u16) -> SocketAddr {
        vip(0, port)
    }

    pub fn vip6(&self, port: u16) -> SocketAddr {
        vip(1, port)
    }

    /// The one server of a mesh with one.
    pub fn server(&self) -> &Member {
        &self.servers[0]
    }
}

fn vip(family: usize, port: u16) -> SocketAddr {
    let ip: IpAddr = VIPS[family].parse().expect("a constant address");
    SocketAddr::new(ip, port)
}
