//! The tunnel port, asked by hand: who may open a tunnel, and what a CONNECT is answered.

#[path = "hbone/client.rs"]
pub(crate) mod client;

use anyhow::Result;
use harness::apps;
use harness::mesh::{identity, ports};
use harness::{Mesh, wait};

use client::{Authority, Client, connect};

#[test]
fn a_peer_with_a_right_certificate_gets_a_tunnel() -> Result<()> {
    let mut mesh = Mesh::start("tunnel")?;
    mesh.serve(apps::echo, 9000)?;
    let leaf = Authority::of(&mesh.control)?.leaf(&identity("client"))?;
    for ip in mesh.server().pod.addresses() {
        let answer = connect(
            &mesh,
            Client::with(&leaf),
            ip,
            &format!("{}", std::net::SocketAddr::new(ip, 9000)),
            b"ping",
        )?;
        assert_eq!((answer.status, &*answer.body), (200, &b"ping"[..]), "{answer:?}");
    }
    Ok(())
}

#[test]
fn a_connect_that_cannot_be_served_says_why() -> Result<()> {
    let mesh = Mesh::start("answers")?;
    let leaf = Authority::of(&mesh.control)?.leaf(&identity("client"))?;
    let ip = mesh.server().pod.ipv4();
    for (authority, status, error) in [
        (format!("{ip}:9999"), 503, Some("connection_refused")),
        (format!("{ip}:{}", ports::HBONE), 503, None),
        (format!("{ip}:{}", ports::OUTBOUND), 503, None),
        (format!("{ip}:{}", ports::INBOUND), 503, None),
        ("10.99.77.77:8080".into(), 400, None),
        (ip.to_string(), 400, None),
        ("no-such-service.demo:80".into(), 503, None),
    ] {
        let answer = connect(&mesh, Client::with(&leaf), ip.into(), &authority, b"")?;
        assert_eq!(answer.status, status, "{authority}: {answer:?}");
        if let Some(error) = error {
            assert!(
                answer.proxy_status.contains(&format!("error={error}")),
                "{authority}: {answer:?}"
            );
        }
    }
    Ok(())
}

/// Metrics and flows count under it, so a peer may not name just any.
#[test]
fn a_peer_names_only_services_that_the_workload_serves() -> Result<()> {
    let mut mesh = Mesh::start("service-claims")?;
    mesh.serve(apps::echo, 9000)?;
    let vip = ["10.96.0.99".parse()?];
    mesh.registry
        .update(|registry| registry.add_service("other.demo.svc.cluster.local", &vip, &[(80, 80)]))?;
    let generation = |mesh: &Mesh| mesh.server().sidecar.metric("outrigger_registry_generation", &[]);
    wait::until("the other service is known", wait::SOON, || {
        generation(&mesh).is_ok_and(|generation| generation >= 2.0)
    })?;
    let leaf = Authority::of(&mesh.control)?.leaf(&identity("client"))?;
    let server = mesh.server().pod.ipv4();
    for (host, service) in [
        ("other.demo.svc.cluster.local", serde_json::Value::Null),
        (
            "server.demo.svc.cluster.local",
            "demo/server.demo.svc.cluster.local".into(),
        ),
    ] {
        let client = Client::with(&leaf).forwarded_host(host);
        let answer = connect(
            &mesh,
            client,
            server.into(),
            &format!("{server}:9000"),
            host.as_bytes(),
        )?;
        assert_eq!(answer.status, 200, "{answer:?}");
        let flow = mesh
            .server()
            .sidecar
            .until_flow(host, |flow| flow["bytesSent"] == host.len())?;
        assert_eq!(flow["service"], service, "{flow:#}");
        let served = mesh.server().sidecar.metric(
            "outrigger_tcp_connections_opened_total",
            &["service=\"demo/other.demo.svc.cluster.local\""],
        )?;
        assert_eq!(served, 0.0);
    }
    Ok(())
}

#[test]
fn a_request_that_is_no_connect_is_a_bad_request() -> Result<()> {
    let mesh = Mesh::start("no-connect")?;
    let leaf = Authority::of(&mesh.control)?.leaf(&identity("client"))?;
    let server = mesh.server().pod.ipv4();
    let answer = connect(
        &mesh,
        Client::with(&leaf).method("GET"),
        server.into(),
        &format!("http://{server}:9000/"),
        b"",
    )?;
    assert_eq!(answer.status, 400, "{answer:?}");
    Ok(())
}

#[test]
fn a_peer_without_a_certificate_is_refused() -> Result<()> {
    refused("anonymous", |_| Ok(Client::anonymous()))
}

#[test]
fn a_peer_with_a_certificate_of_another_authority_is_refused() -> Result<()> {
    refused("foreign-ca", |_| {
        Ok(Client::with(&Authority::foreign()?.leaf(&identity("client"))?))
    })
}

#[test]
fn a_peer_of_another_trust_domain_is_refused() -> Result<()> {
    refused("foreign-domain", |mesh| {
        let leaf = Authority::of(&mesh.control)?.leaf("spiffe://elsewhere.test/ns/demo/sa/client")?;
        Ok(Client::with(&leaf))
    })
}

#[test]
fn a_peer_whose_name_is_no_workload_identity_is_refused() -> Result<()> {
    refused("no-identity-name", |mesh| {
        let leaf = Authority::of(&mesh.control)?.leaf("spiffe://cluster.local/node/7")?;
        Ok(Client::with(&leaf))
    })
}

/// The handshake fails, or the connection ends before any answer; and the same request with a good certificate works,
/// so that it was the certificate.
fn refused(kind: &str, client: impl Fn(&Mesh) -> Result<Client>) -> Result<()> {
    let mut mesh = Mesh::start(kind)?;
    mesh.serve(apps::echo, 9000)?;
    let server = mesh.server().pod.ipv4();
    let authority = format!("{server}:9000");
    let answer = connect(&mesh, client(&mesh)?, server.into(), &authority, b"ping");
    assert!(answer.is_err(), "{answer:?}");
    let leaf = Authority::of(&mesh.control)?.leaf(&identity("client"))?;
    let answer = connect(&mesh, Client::with(&leaf), server.into(), &authority, b"ping")?;
    assert_eq!(answer.status, 200, "{answer:?}");
    Ok(())
}
