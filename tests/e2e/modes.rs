//! Strict and permissive towards clients outside the mesh; passthrough and registry-only towards unknown servers.

use std::net::SocketAddr;

use anyhow::Result;
use harness::Mesh;
use harness::apps;
use harness::mesh::{Options, Plan};

use crate::expect::{self, inbound};

/// Of 127.64.0.0/10, where redirected connections arrive.
const REDIRECT4_PORT: u16 = 1;

#[test]
fn a_strict_workload_refuses_plaintext_and_serves_the_mesh() -> Result<()> {
    let plan = Plan {
        server: Options::new("server").strict(),
        ..Plan::default()
    };
    let mut mesh = Mesh::of("strict", &plan)?;
    mesh.serve(apps::nginx, 8080)?;
    for ip in mesh.server().pod.addresses() {
        expect::connection_refused(&mesh.outside, (ip, 8080).into())?;
    }
    assert_eq!(
        apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80)))?.ok()?,
        "server-1\n"
    );
    Ok(())
}

#[test]
fn a_permissive_workload_accepts_plaintext_and_counts_it() -> Result<()> {
    let mut mesh = Mesh::start("permissive")?;
    mesh.serve(apps::nginx, 8080)?;
    let server = mesh.server();
    for ip in server.pod.addresses() {
        assert_eq!(
            apps::curl(&mesh.outside, &apps::url((ip, 8080)))?.ok()?,
            "server-1\n"
        );
    }
    let flow = server.sidecar.until_flow("an inbound flow", inbound)?;
    assert_eq!(
        (&flow["transport"], &flow["sourceIdentity"]),
        (&"plain".into(), &serde_json::Value::Null),
        "{flow:#}"
    );
    let labels = ["direction=\"inbound\"", "transport=\"plain\""];
    assert_eq!(
        server
            .sidecar
            .metric("outrigger_tcp_connections_opened_total", &labels)?,
        2.0
    );
    Ok(())
}

#[test]
fn nobody_outside_reaches_the_listeners_of_the_proxy() -> Result<()> {
    let mesh = Mesh::start("ports")?;
    for ip in mesh.server().pod.addresses() {
        for port in [15001, 15006, REDIRECT4_PORT] {
            expect::refused(&mesh.outside, (ip, port).into())?;
        }
    }
    Ok(())
}

#[test]
fn registry_only_refuses_unknown_destinations() -> Result<()> {
    let plan = Plan {
        client: Options::new("client").registry_only(),
        ..Plan::default()
    };
    let mut mesh = Mesh::of("registry-only", &plan)?;
    mesh.serve(apps::nginx, 8080)?;
    let _nginx = apps::nginx(&mesh.outside, 8080)?;
    for ip in mesh.outside.addresses() {
        expect::refused_for(&mesh.client, (ip, 8080).into(), "unknown_destination")?;
    }
    assert_eq!(
        apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80)))?.ok()?,
        "server-1\n"
    );
    Ok(())
}

#[test]
fn an_unknown_port_of_a_known_service_is_refused() -> Result<()> {
    let mesh = Mesh::start("unknown-port")?;
    let unknown = SocketAddr::new(mesh.vip4(0).ip(), 81);
    expect::refused_for(&mesh.client, unknown, "no_endpoint")
}
