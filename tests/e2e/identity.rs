//! Wrong, unknown, expired or no identity: the connection is refused, and nothing falls back to plaintext.

use std::net::SocketAddr;

use anyhow::Result;
use harness::apps::{self, Dialogue};
use harness::mesh::whole::{SERVICE, SERVICE_PORTS, VIPS};
use harness::mesh::{Options, Plan, Registry, RegistryFile, identity, ports};
use harness::{Capture, Control, Fabric, Mesh, Sidecar, wait};

use crate::expect;

#[test]
fn a_server_that_proves_another_identity_than_the_registry_says_is_refused() -> Result<()> {
    let mut mesh = Mesh::start("wrong-identity")?;
    mesh.serve(apps::nginx, 8080)?;
    let client = &mesh.client;
    apps::curl(&client.pod, &apps::url(mesh.vip4(80)))?.ok()?;
    mesh.registry.update(|registry| {
        registry
            .workload("server-1")
            .expect("in the registry")
            .service_account = "payments".into();
    })?;
    client
        .sidecar
        .until_flow("a flow refused for its identity", |flow| {
            // Until the change has arrived, the old identity is right.
            let _ = apps::curl(&client.pod, &apps::url(mesh.vip4(80)));
            flow["closeCause"] == "wrong_identity"
        })?;
    expect::refused(&client.pod, mesh.vip4(80))?;
    Ok(())
}

#[test]
fn a_server_with_a_certificate_of_an_unknown_authority_is_refused() -> Result<()> {
    let fabric = Fabric::new("unknown-ca")?;
    let (client, server) = (fabric.pod("client")?, fabric.pod("server-1")?);
    let mut registry = Registry::default();
    registry.add_service(
        SERVICE,
        &VIPS.map(|ip| ip.parse().expect("an address")),
        SERVICE_PORTS,
    );
    registry.add_member(&client, "client", &[]);
    registry.add_member(&server, "server", &[SERVICE]);
    let registry = RegistryFile::create(fabric.scratch().join("registry.yaml"), registry)?;
    let control = Control::start(&fabric)?;
    let stranger = Control::start_another(&fabric, "stranger", ports::CONTROL + 1)?;
    let client_sidecar = Sidecar::start(&client, &control, &registry, &Options::new("client"))?;
    let _server_sidecar = Sidecar::start(&server, &stranger, &registry, &Options::new("server"))?;
    let _nginx = apps::nginx(&server, 8080)?;

    expect::refused(&client, SocketAddr::new(VIPS[0].parse()?, 80))?;
    client_sidecar.until_flow("a flow refused by TLS", |flow| flow["closeCause"] == "tls_failed")?;
    Ok(())
}

#[test]
fn an_expired_certificate_is_refused() -> Result<()> {
    let plan = Plan {
        client: Options::new("client").ttl("6s"),
        ..Plan::default()
    };
    let mut mesh = Mesh::of("expired", &plan)?;
    mesh.serve(apps::nginx, 8080)?;
    let ask = |mesh: &Mesh| apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80)));
    ask(&mesh)?.ok()?;
    mesh.control.stop();
    wait::until("the certificate expires", wait::SOON, || {
        !ask(&mesh).is_ok_and(|o| o.status.success())
    })?;
    expect::refused(&mesh.client.pod, mesh.vip4(80))?;
    // With the authority back, a new certificate comes without anybody's help.
    mesh.control.restart()?;
    wait::until("the service answers again", wait::SOON, || {
        ask(&mesh).is_ok_and(|o| o.status.success())
    })
}

#[test]
fn a_client_without_identity_sends_nothing_to_the_mesh() -> Result<()> {
    let mut mesh = Mesh::start("no-identity-client")?;
    mesh.serve(apps::nginx, 8080)?;
    let pod = mesh.fabric.pod("nobody")?;
    mesh.registry.update(|registry| {
        registry.add_member(&pod, "nobody", &[]);
    })?;
    let options = Options::new("nobody").token(pod.scratch().join("no-such-token"));
    let sidecar = Sidecar::start_unready(&pod, &mesh.control, &mesh.registry, &options)?;
    assert!(!sidecar.is_ready());

    let capture = Capture::start(&mesh.fabric)?;
    for server in [mesh.vip4(80), (mesh.server().pod.ipv4(), 8080).into()] {
        let lines = Dialogue::connect(&pod, server, &["send:GET / HTTP/1.0\r\n\r\n", "recv:1"])?.lines()?;
        let end = lines.last().map(String::as_str).unwrap_or_default();
        assert!(end.contains("errno"), "{server}: {lines:?}");
    }
    assert!(!capture.stop()?.holds(b"GET / HTTP"));
    Ok(())
}

#[test]
fn a_strict_server_without_identity_accepts_nothing() -> Result<()> {
    let mesh = Mesh::start("no-identity-server")?;
    let pod = mesh.fabric.pod("nobody")?;
    let options = Options::new("nobody")
        .strict()
        .token(pod.scratch().join("no-such-token"));
    let _sidecar = Sidecar::start_unready(&pod, &mesh.control, &mesh.registry, &options)?;
    let _nginx = apps::nginx(&pod, 8080)?;
    for ip in pod.addresses() {
        expect::connection_refused(&mesh.outside, (ip, 8080).into())?;
    }
    Ok(())
}

#[test]
fn a_token_gives_only_the_identity_it_was_made_for() -> Result<()> {
    let mesh = Mesh::start("token")?;
    let pod = mesh.fabric.pod("thief")?;
    let options = Options::new("server").token(mesh.control.token(&identity("thief"))?);
    let sidecar = Sidecar::start_unready(&pod, &mesh.control, &mesh.registry, &options)?;
    wait::until("the refusal is reported", wait::SOON, || {
        let log = sidecar.log().to_lowercase();
        log.contains("denied") || log.contains("refused")
    })?;
    assert!(!sidecar.is_ready());
    Ok(())
}
