//! The agent of a node, and sidecars that have no privilege.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use harness::apps;
use harness::mesh::{Mesh, Options, Plan};

fn plan() -> Plan {
    Plan {
        client: Options::new("client").by_agent(),
        server: Options::new("server").by_agent(),
        ..Plan::default()
    }
}

fn curl(mesh: &Mesh, at: SocketAddr) -> Result<String> {
    let url = format!("http://{at}/");
    mesh.client
        .pod
        .run("curl", ["-sS", "--max-time", "10", &url])?
        .ok()
}

#[test]
fn pods_of_an_agent_talk_mutual_tls_by_sidecars_without_any_privilege() -> Result<()> {
    let mut mesh = Mesh::of("agent-mesh", &plan())?;
    mesh.serve(apps::nginx, 8080)?;
    for at in [mesh.vip4(80), mesh.vip6(80)] {
        curl(&mesh, at)?;
    }
    let flows = mesh.client.sidecar.all_flows()?;
    ensure!(
        flows.iter().any(|flow| flow["tls"]["version"] == "TLSv1.3"),
        "none was encrypted: {flows:?}\n{}",
        mesh.fabric.agent_log()
    );
    for member in [&mesh.client, mesh.server()] {
        let pid = member.sidecar.pid().context("it runs")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        for wanted in [
            "CapEff:\t0000000000000000",
            "CapBnd:\t0000000000000000",
            "NoNewPrivs:\t1",
            "Uid:\t65532",
        ] {
            ensure!(status.contains(wanted), "no {wanted:?} in\n{status}");
        }
    }
    Ok(())
}
