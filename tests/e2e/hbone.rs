//! The tunnel port, asked by hand: who may open a tunnel, and what a CONNECT is answered.

#[path = "hbone/client.rs"]
pub(crate) mod client;
#[expect(
    dead_code,
    reason = "shared with the tests of the transport, which use more of it"
)]
#[path = "../../sidecar-user/src/testing/mod.rs"]
pub(crate) mod testing;
#[path = "hbone/tunnel.rs"]
mod tunnel;

use anyhow::Result;
use harness::mesh::{identity, ports};
use harness::{Mesh, apps, wait};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose};
use rustls::AlertDescription;

use client::{Client, alert, authority_of, connect, leaf_of};
use testing::authority::Authority;

#[test]
fn a_peer_with_a_right_certificate_gets_a_tunnel() -> Result<()> {
    let mut mesh = Mesh::start("tunnel")?;
    mesh.serve(apps::echo, 9000)?;
    let leaf = leaf_of(&mesh.control, &identity("client"))?;
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
    let leaf = leaf_of(&mesh.control, &identity("client"))?;
    let ip = mesh.server().pod.ipv4();
    for (authority, status, error) in [
        (format!("{ip}:9999"), 503, Some("connection_refused")),
        (format!("{ip}:{}", ports::HBONE), 503, None),
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
    let leaf = leaf_of(&mesh.control, &identity("client"))?;
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
    let leaf = leaf_of(&mesh.control, &identity("client"))?;
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
fn a_peer_that_cannot_prove_who_it_is_is_told_so_by_an_alert() -> Result<()> {
    use AlertDescription as Alert;
    let mut mesh = Mesh::start("alerts")?;
    mesh.serve(apps::echo, 9000)?;
    let server = mesh.server().pod.ipv4();
    let (mesh_ca, client) = (authority_of(&mesh.control)?, identity("client"));
    let of = |uri: &str| Client::with(&mesh_ca.leaf(uri, |_| {}));
    let spoilt = |spoil: fn(&mut CertificateParams)| Client::with(&mesh_ca.leaf(&client, spoil));
    let cases = [
        ("no certificate", Client::anonymous(), Alert::CertificateRequired),
        (
            "another authority",
            Client::with(&Authority::new("foreign").leaf(&client, |_| {})),
            Alert::UnknownCA,
        ),
        (
            "another trust domain",
            of("spiffe://elsewhere.test/ns/demo/sa/client"),
            Alert::CertificateUnknown,
        ),
        (
            "no workload",
            of("spiffe://cluster.local/node/7"),
            Alert::CertificateUnknown,
        ),
        (
            "expired",
            spoilt(|leaf| {
                leaf.not_before = rcgen::date_time_ymd(2020, 1, 1);
                leaf.not_after = rcgen::date_time_ymd(2020, 1, 2);
            }),
            Alert::CertificateExpired,
        ),
        (
            "not valid yet",
            spoilt(|leaf| leaf.not_before = rcgen::date_time_ymd(2999, 1, 1)),
            Alert::CertificateExpired,
        ),
        (
            "a server's only",
            spoilt(|leaf| leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            Alert::UnsupportedCertificate,
        ),
    ];
    let refused = cases.len();
    for (what, client, expected) in cases {
        assert_eq!(alert(&mesh, client, server.into())?, expected, "{what}");
    }
    // It was the certificate: a good one is let in.
    let answer = connect(
        &mesh,
        of(&client),
        server.into(),
        &format!("{server}:9000"),
        b"ping",
    )?;
    assert_eq!(answer.status, 200, "{answer:?}");
    // And the server's own word on each.
    wait::until("each refusal is a flow", wait::SOON, || {
        let flows = mesh.server().sidecar.all_flows().unwrap_or_default();
        flows
            .iter()
            .filter(|flow| flow["closeCause"] == "tls_failed")
            .count()
            == refused
    })
}
