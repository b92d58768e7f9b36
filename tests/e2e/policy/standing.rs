//! The policies that a workload names hold for it, whatever the registry says about its address.

use std::net::SocketAddr;

use anyhow::Result;
use harness::apps;
use harness::mesh::identity;
use harness::{Mesh, wait};

use super::{answers, in_force, policy, why};
use crate::hbone::client::{Client, connect, leaf_of};

fn closed(scope: &str) -> String {
    policy("closed", scope, "Deny", "{destinationPorts: [9000]}")
}

#[test]
fn a_selected_policy_holds_for_the_workload_that_names_it_only() -> Result<()> {
    let mut mesh = Mesh::with_servers("policy-selector", 2)?;
    mesh.serve(apps::echo, 9000)?;
    in_force(&mut mesh, |registry| {
        registry.policies = vec![closed("WorkloadSelector")];
        if let Some(server) = registry.workload("server-1") {
            server.selects = vec!["closed".into()];
        }
    })?;
    for (member, may) in mesh.servers.iter().zip([false, true]) {
        let at = SocketAddr::from((member.pod.ipv4(), 9000));
        for pod in [&mesh.client.pod, &mesh.outside] {
            assert_eq!(answers(pod, at)?, may, "{} to {}", pod.name(), member.pod.name());
        }
    }
    Ok(())
}

#[test]
fn a_selected_policy_holds_for_a_workload_that_shares_its_address() -> Result<()> {
    let mut mesh = Mesh::start("policy-hostnet")?;
    mesh.serve(apps::echo, 9000)?;
    mesh.serve(apps::echo, 9001)?;
    in_force(&mut mesh, |registry| {
        registry.policies = vec![closed("WorkloadSelector")];
        if let Some(server) = registry.workload("server-1") {
            server.host_network = true;
            server.selects = vec!["closed".into()];
        }
    })?;
    let at = |port: u16| SocketAddr::from((mesh.server().pod.ipv4(), port));
    for (port, may) in [(9000, false), (9001, true)] {
        assert_eq!(
            answers(&mesh.client.pod, mesh.vip4(port))?,
            may,
            "{port} of the service"
        );
        assert_eq!(answers(&mesh.outside, at(port))?, may, "{port} in plaintext");
    }
    let report = why(&mesh.server().sidecar, at(9000), mesh.outside.ipv4().into(), None)?;
    assert_eq!(report["verdict"], "refused", "{report:#}");
    let reasons = report["reasons"].to_string();
    assert!(
        reasons.contains("the Deny policy demo/closed by its rules[0]"),
        "{report:#}"
    );
    Ok(())
}

/// The registry loses our entry while it has a policy that selects workloads of our namespace: nobody knows any more
/// whether it was meant for us.
#[test]
fn a_workload_that_the_registry_does_not_list_is_closed_where_a_policy_may_be_meant_for_it() -> Result<()> {
    let mut mesh = Mesh::start("policy-unlisted")?;
    mesh.serve(apps::echo, 9001)?;
    let leaf = leaf_of(&mesh.control, &identity("client"))?;
    let own = mesh.server().pod.ipv4();
    let at = SocketAddr::from((own, 9001));
    let tunnelled = |mesh: &Mesh| -> Result<u16> {
        Ok(connect(mesh, Client::with(&leaf), own.into(), &at.to_string(), b"ping")?.status)
    };
    let entry = mesh.registry.get().workload("server-1").cloned();
    in_force(&mut mesh, |registry| registry.remove("server-1"))?;
    let listed = |mesh: &Mesh| {
        mesh.server()
            .sidecar
            .metric("outrigger_registry_workload_listed", &[])
    };
    assert_eq!(listed(&mesh)?, 0.0);
    assert!(answers(&mesh.outside, at)?, "no policy selects anybody");
    assert_eq!(tunnelled(&mesh)?, 200);

    // Its rules are about another port, but they may stand beside others that are not there any more.
    in_force(&mut mesh, |registry| {
        registry.policies = vec![closed("WorkloadSelector")]
    })?;
    assert!(!answers(&mesh.outside, at)?);
    assert_eq!(tunnelled(&mesh)?, 401);
    let sidecar = &mesh.server().sidecar;
    let refused = sidecar.metric("outrigger_inbound_unlisted_refused_total", &[])?;
    assert_eq!(refused, 2.0);
    let report = why(sidecar, at, mesh.outside.ipv4().into(), None)?;
    assert_eq!(report["verdict"], "refused", "{report:#}");
    let reasons = report["reasons"].to_string();
    assert!(
        reasons.contains("policy demo/closed may be meant for it"),
        "{report:#}"
    );
    wait::until("it is logged", wait::SOON, || {
        sidecar
            .log()
            .contains("inbound connections are refused until the registry lists it")
    })?;

    in_force(&mut mesh, |registry| registry.workloads.extend(entry))?;
    assert_eq!(listed(&mesh)?, 1.0);
    assert!(answers(&mesh.outside, at)?, "it does not name the policy");
    assert_eq!(tunnelled(&mesh)?, 200);
    Ok(())
}
