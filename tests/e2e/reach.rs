//! Who reaches whom, by which address, over which family.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::Result;
use harness::Mesh;
use harness::apps::{self, Dialogue};
use harness::mesh::identity;

use crate::expect::{inbound, outbound};

#[test]
fn a_service_is_reached_by_its_virtual_addresses() -> Result<()> {
    let mut mesh = Mesh::start("vip")?;
    mesh.serve(apps::nginx, 8080)?;
    for vip in [mesh.vip4(80), mesh.vip6(80)] {
        assert_eq!(
            apps::curl(&mesh.client.pod, &apps::url(vip))?.ok()?,
            "server-1\n",
            "{vip}"
        );
    }
    Ok(())
}

#[test]
fn a_pod_of_the_mesh_is_reached_by_its_own_addresses_through_a_tunnel() -> Result<()> {
    let mut mesh = Mesh::start("pod")?;
    mesh.serve(apps::nginx, 8080)?;
    for ip in mesh.server().pod.addresses() {
        let server = SocketAddr::new(ip, 8080);
        assert_eq!(
            apps::curl(&mesh.client.pod, &apps::url(server))?.ok()?,
            "server-1\n"
        );
        let at = server.to_string();
        let flow = mesh
            .client
            .sidecar
            .until_flow("a flow to the pod", |f| f["originalDst"] == at)?;
        assert_eq!(
            (&flow["transport"], &flow["direction"]),
            (&"hbone".into(), &"outbound".into()),
            "{flow:#}"
        );
    }
    Ok(())
}

#[test]
fn both_sides_of_a_tunnel_see_the_identity_of_the_other() -> Result<()> {
    let mut mesh = Mesh::start("identities")?;
    mesh.serve(apps::nginx, 8080)?;
    apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80)))?.ok()?;
    let out = mesh.client.sidecar.until_flow("an outbound flow", outbound)?;
    let inn = mesh.server().sidecar.until_flow("an inbound flow", inbound)?;
    for flow in [out, inn] {
        assert_eq!(flow["sourceIdentity"], identity("client"), "{flow:#}");
        assert_eq!(flow["destinationIdentity"], identity("server"), "{flow:#}");
        assert_eq!(flow["tls"]["version"], "TLSv1.3", "{flow:#}");
    }
    Ok(())
}

#[test]
fn a_server_outside_the_mesh_is_reached_in_plaintext() -> Result<()> {
    let mesh = Mesh::start("outside")?;
    let _nginx = apps::nginx(&mesh.outside, 8080)?;
    for ip in mesh.outside.addresses() {
        let server = SocketAddr::new(ip, 8080);
        assert_eq!(
            apps::curl(&mesh.client.pod, &apps::url(server))?.ok()?,
            "outside\n"
        );
        let at = server.to_string();
        let flow = mesh
            .client
            .sidecar
            .until_flow("a flow to the outside", |f| f["originalDst"] == at)?;
        assert_eq!(flow["transport"], "plain", "{flow:#}");
    }
    Ok(())
}

#[test]
fn a_registered_workload_without_a_sidecar_is_reached_in_plaintext() -> Result<()> {
    let mut mesh = Mesh::start("outsider")?;
    let _nginx = apps::nginx(&mesh.outside, 8080)?;
    let outside = mesh.outside.clone();
    mesh.registry.update(|registry| {
        registry.add_service(
            "legacy.demo",
            &["10.96.0.20".parse().expect("an address")],
            &[(80, 8080)],
        );
        registry.add_outsider(&outside, &["legacy.demo"]);
    })?;
    let vip: SocketAddr = "10.96.0.20:80".parse()?;
    harness::wait::until("the new service answers", harness::wait::SOON, || {
        apps::curl(&mesh.client.pod, &apps::url(vip)).is_ok_and(|o| o.stdout == "outside\n")
    })
}

#[test]
fn requests_spread_over_all_replicas() -> Result<()> {
    let mut mesh = Mesh::with_servers("spread", 3)?;
    mesh.serve(apps::nginx, 8080)?;
    let mut answers = BTreeSet::new();
    // With a fair choice among three, 60 requests miss one of them once in 10^10 runs.
    for _ in 0..60 {
        answers.insert(apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80)))?.ok()?);
    }
    assert_eq!(
        answers,
        BTreeSet::from(["server-1\n", "server-2\n", "server-3\n"].map(String::from))
    );
    Ok(())
}

#[test]
fn an_application_sees_the_address_it_asked_for_as_its_peer() -> Result<()> {
    let mesh = Mesh::start("peername")?;
    for vip in [mesh.vip4(9000), mesh.vip6(9000)] {
        let server = Dialogue::listen(&mesh.server().pod, 9000, &["drain"])?;
        let lines = Dialogue::connect(&mesh.client.pod, vip, &["peername", "close"])?.lines()?;
        assert_eq!(lines[1], format!("peername {} 9000", vip.ip()));
        server.lines()?;
    }
    Ok(())
}

#[test]
fn loopback_and_own_addresses_stay_in_the_pod() -> Result<()> {
    let mesh = Mesh::start("own")?;
    let client = &mesh.client.pod;
    let _nginx = apps::nginx(client, 8080)?;
    for ip in ["127.0.0.1".parse()?, "::1".parse()?]
        .into_iter()
        .chain(client.addresses())
    {
        assert_eq!(
            apps::curl(client, &apps::url((ip, 8080)))?.ok()?,
            "client\n",
            "{ip}"
        );
    }
    assert!(mesh.client.sidecar.all_flows()?.is_empty());
    Ok(())
}
