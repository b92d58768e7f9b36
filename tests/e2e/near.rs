//! Which endpoints of a service a pod is given: by where it runs, and by whom it had before.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::Result;
use harness::apps::{self, Dialogue};
use harness::{Mesh, wait};

/// server-1 and server-2 are in the client's zone, the others are not. The service has that key, too.
fn two_zones(kind: &str, servers: usize, key: &str) -> Result<Mesh> {
    let mut mesh = Mesh::with_servers(kind, servers)?;
    mesh.serve(apps::nginx, 8080)?;
    mesh.registry.update(|registry| {
        for workload in &mut registry.workloads {
            workload.zone = match workload.name.as_str() {
                "client" | "server-1" | "server-2" => "near".into(),
                _ => "far".into(),
            };
        }
        registry.services[0].more = vec![key.to_owned()];
    })?;
    Ok(mesh)
}

/// The client's proxy has read the registry once it says that about the service.
fn until_told(mesh: &Mesh, words: &str) -> Result<()> {
    wait::until("the proxy has read it", wait::SOON, || {
        let told = mesh.client.sidecar.why(&[&mesh.vip4(80).to_string()]);
        told.and_then(|told| told.ok())
            .is_ok_and(|told| told.contains(words))
    })
}

fn ask(mesh: &Mesh) -> Result<String> {
    Ok(apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80)))?
        .ok()?
        .trim()
        .to_owned())
}

/// With a fair choice among two, 40 requests miss one of them once in 10^12 runs.
fn answers(mesh: &Mesh) -> Result<BTreeSet<String>> {
    (0..40).map(|_| ask(mesh)).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn failover_goes_to_the_near_zone_and_to_the_far_one_when_no_near_endpoint_takes_connections() -> Result<()> {
    let key = "loadBalancer: {mode: Failover, routingPreferences: [Zone], healthPolicy: OnlyHealthy}";
    let mut mesh = two_zones("near-failover", 3, key)?;
    until_told(&mesh, "endpoints of the same zone are preferred: 2 of 3")?;
    assert_eq!(answers(&mesh)?, set(&["server-1", "server-2"]));
    // The registry still has them: not one request fails meanwhile.
    mesh.programs.remove(0);
    assert_eq!(answers(&mesh)?, set(&["server-2"]));
    mesh.programs.remove(0);
    assert_eq!(answers(&mesh)?, set(&["server-3"]));
    Ok(())
}

#[test]
fn strict_refuses_where_no_near_endpoint_is_left() -> Result<()> {
    let key = "loadBalancer: {mode: Strict, routingPreferences: [Zone], healthPolicy: OnlyHealthy}";
    let mut mesh = two_zones("near-strict", 3, key)?;
    until_told(&mesh, "only endpoints of the same zone are used: 2 of 3")?;
    assert_eq!(answers(&mesh)?, set(&["server-1", "server-2"]));
    mesh.registry.update(|registry| {
        registry.remove("server-1");
        registry.remove("server-2");
    })?;
    until_told(&mesh, "only endpoints of the same zone are used: 0 of 1")?;
    let lines = Dialogue::connect(&mesh.client.pod, mesh.vip4(80), &["send:x"])?.lines()?;
    assert_eq!(lines, ["connect errno ECONNREFUSED"], "server-3 is far");
    Ok(())
}

#[test]
fn unhealthy_endpoints_are_given_where_the_service_allows_all() -> Result<()> {
    let strict = "loadBalancer: {mode: Strict, routingPreferences: [Zone], healthPolicy: AllowAll}";
    let mut mesh = two_zones("near-sick", 2, strict)?;
    mesh.registry.update(|registry| {
        for workload in registry
            .workloads
            .iter_mut()
            .filter(|w| w.name.starts_with("server"))
        {
            workload.healthy = false;
        }
    })?;
    until_told(&mesh, "only endpoints of the same zone are used: 2 of 2")?;
    assert_eq!(answers(&mesh)?, set(&["server-1", "server-2"]));
    Ok(())
}

#[test]
fn with_session_affinity_a_pod_has_one_endpoint_until_that_is_gone() -> Result<()> {
    let mut mesh = two_zones("near-session", 3, "sessionAffinity: {timeoutSeconds: 600}")?;
    until_told(&mesh, "session affinity: the next connection chooses")?;
    let mine = ask(&mesh)?;
    until_told(&mesh, &format!("session affinity: connections go to demo/{mine}"))?;
    assert_eq!(answers(&mesh)?, set(&[&mine]));
    mesh.registry.update(|registry| registry.remove(&mine))?;
    until_told(&mesh, "endpoints in the registry: 2")?;
    let next = ask(&mesh)?;
    assert_ne!(next, mine);
    assert_eq!(answers(&mesh)?, set(&[&next]), "it stays with the next one");
    Ok(())
}

/// A connection that is held meanwhile is not one to an unknown destination, which the registry may come to know.
#[test]
fn a_service_that_passes_through_is_dialled_at_its_own_address() -> Result<()> {
    let mut mesh = Mesh::start("near-passes")?;
    let _nginx = apps::nginx(&mesh.outside, 8080)?;
    let outside = mesh.outside.clone();
    mesh.registry.update(|registry| {
        registry.add_service("legacy.demo", &outside.addresses(), &[(8080, 1)]);
        let legacy = registry.services.last_mut().expect("added above");
        legacy.more = vec!["loadBalancer: {mode: Passthrough}".to_owned()];
    })?;
    for ip in outside.addresses() {
        let at = SocketAddr::new(ip, 8080);
        wait::until("the proxy has read it", wait::SOON, || {
            let told = mesh.client.sidecar.why(&[&at.to_string()]);
            told.and_then(|told| told.ok())
                .is_ok_and(|told| told.contains("at its own address"))
        })?;
        assert_eq!(apps::curl(&mesh.client.pod, &apps::url(at))?.ok()?, "outside\n");
        let flow = mesh
            .client
            .sidecar
            .until_flow("a flow to the service", |f| f["originalDst"] == at.to_string())?;
        assert_eq!(flow["transport"], "plain", "{flow:#}");
        assert_eq!(flow["service"], "demo/legacy.demo", "{flow:#}");
    }
    Ok(())
}
