//! A pod of an agent is taken out of interception while it runs, and intercepted again on request: its sidecar serves on.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use harness::apps::{self, Keep};
use harness::mesh::{Mesh, Options, Plan, agent};
use harness::wait;

use crate::expect;

fn plan() -> Plan {
    let plan = Plan::by_agent();
    Plan {
        server: Options::new("server").by_agent().strict(),
        ..plan
    }
}

/// A plain client, at the application itself.
fn plain(mesh: &Mesh, at: SocketAddr) -> bool {
    let answer = apps::curl(&mesh.outside, &apps::url(at));
    answer.is_ok_and(|answer| answer.status.success())
}

fn meshed(mesh: &Mesh, at: SocketAddr) -> bool {
    let answer = apps::curl(&mesh.client.pod, &apps::url(at));
    answer.is_ok_and(|answer| answer.status.success())
}

fn take_off(mesh: &Mesh) -> Result<()> {
    agent::ask(&mesh.server().pod, &["detach", "--force"])?
        .ok()
        .map(drop)
}

#[test]
fn a_pod_that_was_taken_off_is_intercepted_again_on_request_and_its_sidecar_goes_on() -> Result<()> {
    let mut mesh = Mesh::of("agent-off", &plan())?;
    mesh.serve(apps::nginx, 8080)?;
    mesh.serve(apps::echo, 9000)?;
    let pod = mesh.server().pod.clone();
    let pid = mesh.server().sidecar.pid();
    let past: SocketAddr = (pod.ipv4(), 8080).into();
    let (kept, _) = Keep::open(&mesh.client.pod, &[mesh.vip4(9000)], 3)?;
    ensure!(meshed(&mesh, mesh.vip4(80)) && !plain(&mesh, past));

    let refused = agent::ask(&pod, &["detach"])?;
    ensure!(
        !refused.status.success() && refused.stderr.contains("--force"),
        "{refused:?}"
    );
    ensure!(!plain(&mesh, past), "nothing was changed");

    take_off(&mesh)?;
    ensure!(plain(&mesh, past), "it is intercepted still");
    let sidecar = &mesh.server().sidecar;
    wait::until("its sidecar says so", wait::SOON, || !sidecar.is_ready())?;
    // What begins to listen meanwhile no program sees.
    let late = apps::nginx(&pod, 8081)?;

    agent::ask(&pod, &["install"])?.ok()?;
    wait::until("a plain client is refused again", wait::SOON, || {
        !plain(&mesh, past)
    })?;
    expect::connection_refused(&mesh.outside, (pod.ipv6(), 8080).into())?;
    wait::until("its sidecar is ready again", wait::SOON, || sidecar.is_ready())
        .with_context(|| sidecar.log())?;
    for at in [mesh.vip4(80), mesh.vip6(80)] {
        wait::until("the mesh reaches what listened before", wait::SOON, || {
            meshed(&mesh, at)
        })?;
    }
    wait::until("and what has begun since", wait::SOON, || {
        meshed(&mesh, (pod.ipv4(), 8081).into())
    })?;
    let flows = sidecar.all_flows()?;
    let last = flows
        .iter()
        .rev()
        .find(|flow| expect::inbound(flow))
        .context("no flow")?;
    assert_eq!(last["tls"]["version"], "TLSv1.3", "{last}");
    ensure!(
        last["sourceIdentity"]
            .as_str()
            .is_some_and(|who| who.ends_with("/sa/client")),
        "{last}"
    );
    assert_eq!(mesh.server().sidecar.pid(), pid, "it was not started again");
    assert_eq!(kept.close()?, 3, "connections of before go on");
    drop(late);
    Ok(())
}

#[test]
fn the_next_agent_and_the_next_start_of_the_sidecar_intercept_a_pod_again_that_was_taken_off() -> Result<()> {
    let mut mesh = Mesh::of("agent-off-next", &plan())?;
    mesh.serve(apps::nginx, 8080)?;
    let past: SocketAddr = (mesh.server().pod.ipv4(), 8080).into();
    let again = |mesh: &Mesh| -> Result<()> {
        wait::until("a plain client is refused again", wait::SOON, || {
            !plain(mesh, past)
        })?;
        wait::until("the mesh answers", wait::SOON, || meshed(mesh, mesh.vip4(80)))
    };
    for end in [false, true] {
        take_off(&mesh)?;
        ensure!(plain(&mesh, past));
        match end {
            true => mesh.fabric.end_agent().map(drop)?,
            false => mesh.fabric.kill_agent(),
        }
        mesh.fabric.start_agent()?;
        again(&mesh).with_context(|| mesh.fabric.agent_log())?;
    }

    take_off(&mesh)?;
    ensure!(plain(&mesh, past));
    let server = &mut mesh.servers[0].sidecar;
    server.kill();
    server.restart()?;
    again(&mesh)
}
