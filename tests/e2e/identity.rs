//! Wrong, unknown, expired or no identity: the connection is refused, and nothing falls back to plaintext.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use harness::apps::{self, Dialogue};
use harness::mesh::whole::{Member, SERVICE, SERVICE_PORTS, VIPS};
use harness::mesh::{Options, Plan, Registry, RegistryFile, identity, ports};
use harness::{Capture, Control, Fabric, Mesh, Sidecar, wait};

use crate::expect;
use crate::hbone::client::authority_of;
use crate::hbone::testing::authority::Leaf;
use crate::hbone::testing::stranger;

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
    expect::refused_for(client, mesh.vip4(80), "wrong_identity")
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
    let sidecar = Sidecar::start(&client, &control, &registry, &Options::new("client"))?;
    let _server_sidecar = Sidecar::start(&server, &stranger, &registry, &Options::new("server"))?;
    let _nginx = apps::nginx(&server, 8080)?;

    let client = Member { pod: client, sidecar };
    expect::refused_for(&client, SocketAddr::new(VIPS[0].parse()?, 80), "tls_failed")
}

/// The server is the test's own, for no proxy shows such a certificate.
#[test]
fn a_server_that_shows_an_expired_certificate_is_refused() -> Result<()> {
    let mut mesh = Mesh::start("expired-server")?;
    let pod = mesh.fabric.pod("impostor")?;
    mesh.registry.update(|registry| {
        registry.add_member(&pod, "impostor", &[]);
    })?;
    let (mesh_ca, name) = (authority_of(&mesh.control)?, identity("impostor"));
    let good = mesh_ca.leaf(&name, |_| {});
    let expired = mesh_ca.leaf(&name, |leaf| {
        leaf.not_before = rcgen::date_time_ymd(2020, 1, 1);
        leaf.not_after = rcgen::date_time_ymd(2020, 1, 2);
    });
    let to = SocketAddr::from((pod.ipv4(), 80));
    let listener = pod.run_in(|| TcpListener::bind((pod.ipv4(), ports::HBONE)))??;
    listener.set_nonblocking(true)?;
    let told = |leaf: &Leaf| -> Result<rustls::Error> {
        let dialled = || match listener.accept() {
            Ok((tcp, _)) => Ok(Some(tcp)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        };
        let mut tcp = wait::until_some("the client dials", wait::SOON, dialled)?;
        tcp.set_read_timeout(Some(wait::patiently(wait::SOON)))?;
        let config = Arc::new(stranger::server(leaf, stranger::provider()));
        let mut session = rustls::ServerConnection::new(config)?;
        let error = loop {
            match session.complete_io(&mut tcp) {
                Err(error) => break error,
                // Greeted and asked, the client has believed the certificate.
                Ok(_) if !session.is_handshaking() => return Ok(rustls::Error::HandshakeNotComplete),
                Ok(_) => {}
            }
        };
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        inner.cloned().with_context(|| format!("no alert: {error}"))
    };
    wait::until("the registry's change has arrived", wait::SOON, || {
        let answer = mesh.client.sidecar.why(&[&to.to_string()]);
        answer.is_ok_and(|answer| answer.stdout.contains("through the mesh"))
    })?;
    let heard = thread::scope(|scope| -> Result<_> {
        let server = scope.spawn(|| told(&expired));
        expect::refused_for(&mesh.client, to, "tls_failed")?;
        server.join().expect("no panic")
    })?;
    let expected = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateExpired);
    assert_eq!(heard, expected);
    // It was the certificate.
    let asked = thread::scope(|scope| -> Result<_> {
        let server = scope.spawn(|| told(&good));
        // Not to its end: who goes away before he has answered is waited for.
        let _client = Dialogue::connect(&mesh.client.pod, to, &[])?;
        server.join().expect("no panic")
    })?;
    assert_eq!(asked, rustls::Error::HandshakeNotComplete, "believed");
    Ok(())
}

#[test]
fn a_proxy_whose_certificate_has_ended_refuses_until_it_has_another() -> Result<()> {
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
    expect::refused_for(&mesh.client, mesh.vip4(80), "no_identity")?;
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
    let words = [
        "PermissionDenied",
        &format!("asks for the name `{}`", identity("server")),
        &format!("stands for {}", identity("thief")),
    ];
    wait::until("the refusal is reported with both names", wait::SOON, || {
        let log = sidecar.log();
        log.lines()
            .any(|line| words.iter().all(|word| line.contains(word)))
    })?;
    assert!(!sidecar.is_ready());
    Ok(())
}
