//! Certificates through the agent of the node: a sidecar needs no roots and no way to the authority.

use anyhow::{Result, ensure};
use harness::apps;
use harness::mesh::{Options, Plan};
use harness::{Mesh, wait};

fn plan(ttl: &str) -> Plan {
    Plan {
        client: Options::new("client").identity_by_agent().ttl(ttl),
        server: Options::new("server").identity_by_agent(),
        ..Plan::default()
    }
}

fn is_answered(mesh: &Mesh) -> bool {
    apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80))).is_ok_and(|output| output.status.success())
}

#[test]
fn pods_talk_mutual_tls_by_certificates_that_came_through_the_agent() -> Result<()> {
    let mut mesh = Mesh::of("agent-identity", &plan("24h"))?;
    mesh.serve(apps::nginx, 8080)?;
    apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80)))?.ok()?;
    let flows = mesh.client.sidecar.all_flows()?;
    ensure!(
        flows.iter().any(|flow| flow["tls"]["version"] == "TLSv1.3"),
        "none was encrypted: {flows:?}"
    );
    Ok(())
}

#[test]
fn a_certificate_lives_on_without_the_agent_and_is_renewed_once_it_is_back() -> Result<()> {
    let mut mesh = Mesh::of("agent-renewal", &plan("6s"))?;
    mesh.serve(apps::nginx, 8080)?;
    ensure!(is_answered(&mesh));
    mesh.fabric.kill_agent();
    ensure!(is_answered(&mesh), "its certificate is good");
    wait::until("the certificate expires", wait::SOON, || !is_answered(&mesh))?;
    wait::until("the sidecar says why", wait::SOON, || {
        let log = mesh.client.sidecar.log();
        log.contains("nobody listens at @outrigger/agent")
            && log.contains("the agent of this node cannot be asked")
    })?;
    mesh.fabric.start_agent()?;
    wait::until("the service answers again", wait::SOON, || is_answered(&mesh))
}

#[test]
fn an_authority_that_is_away_is_told_through_the_agent_and_waited_for() -> Result<()> {
    let mut mesh = Mesh::of("agent-no-control", &plan("6s"))?;
    mesh.serve(apps::nginx, 8080)?;
    mesh.control.stop();
    wait::until("the certificate expires", wait::SOON, || !is_answered(&mesh))?;
    let log = mesh.client.sidecar.log();
    ensure!(log.contains("control cannot be asked"), "{log}");
    mesh.control.restart()?;
    wait::until("the service answers again", wait::SOON, || is_answered(&mesh))
}
