//! Whom each side sees: the server's application the true client, whatever a peer claims.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use harness::apps::{self, Dialogue};
use harness::mesh::identity;
use harness::pod::Pod;
use harness::{Mesh, wait};

use crate::hbone::client::{Client, connect, leaf_of};

#[test]
fn the_server_sees_the_client_of_the_mesh() -> Result<()> {
    let mesh = Mesh::start("seen-mesh")?;
    for to in [mesh.vip4(9000), mesh.vip6(9000)] {
        the_client_is_seen(&mesh, to)?;
    }
    Ok(())
}

pub(crate) fn the_client_is_seen(mesh: &Mesh, to: SocketAddr) -> Result<()> {
    let own = address_of(&mesh.client.pod, to.is_ipv4());
    let seen = seen(&mesh.client.pod, &mesh.server().pod, to)?;
    assert_eq!(seen.client.ip(), own, "{to}");
    assert_eq!(seen.server, seen.client, "{to}");
    Ok(())
}

#[test]
fn the_server_sees_a_client_outside_the_mesh() -> Result<()> {
    let mesh = Mesh::start("seen-plain")?;
    for ip in mesh.server().pod.addresses() {
        let to = SocketAddr::new(ip, 9000);
        let own = address_of(&mesh.outside, to.is_ipv4());
        let seen = seen(&mesh.outside, &mesh.server().pod, to)?;
        assert_eq!(seen.client.ip(), own, "{to}");
        assert_eq!(seen.server, seen.client, "{to}");
    }
    Ok(())
}

#[test]
fn servers_that_nobody_here_wrote_see_the_client() -> Result<()> {
    let mut mesh = Mesh::start("seen-apps")?;
    mesh.serve(apps::postgres, 5432)?;
    mesh.serve(apps::redis, 6379)?;
    let server = mesh.server().pod.addresses();
    for (client, [at4, at6]) in [
        (&mesh.client.pod, [mesh.vip4(0).ip(), mesh.vip6(0).ip()]),
        (&mesh.outside, server),
    ] {
        for at in [at4, at6] {
            let own = address_of(client, at.is_ipv4());
            let row = apps::psql(client, (at, 5432).into(), "select host(inet_client_addr())")?.ok()?;
            assert_eq!(row.trim(), own.to_string(), "{at}");
            let info = apps::redis_cli(client, (at, 6379).into(), &["CLIENT", "INFO"])?.ok()?;
            let shown = info
                .split(' ')
                .find_map(|field| field.strip_prefix("addr="))
                .and_then(|addr| addr.rsplit_once(':'))
                .with_context(|| info.clone())?;
            let ip: IpAddr = shown.0.trim_matches(['[', ']']).parse()?;
            assert_eq!(ip.to_canonical(), own, "{at}");
        }
    }
    Ok(())
}

#[test]
fn a_forged_client_is_not_believed() -> Result<()> {
    let mesh = Mesh::with_servers("forged", 2)?;
    let leaf = leaf_of(&mesh.control, &identity("client"))?;
    let server = &mesh.servers[0].pod;
    // The address of another pod of the peer's own identity is the one claim with a reason.
    let honest = SocketAddr::new(mesh.client.pod.ipv4().into(), 4711);
    let other = mesh.servers[1].pod.ipv4();
    let (own4, own6) = (server.ipv4(), server.ipv6());
    for claim in [
        "127.0.0.1:4711".to_owned(),
        "[::1]:4711".into(),
        "[::ffff:127.0.0.1]:4711".into(),
        "0.0.0.0:4711".into(),
        "224.0.0.1:4711".into(),
        format!("{own4}:4711"),
        format!("[{own6}]:4711"),
        format!("{other}:4711"),
        "203.0.113.9:4711".into(),
        format!("{}:0", mesh.client.pod.ipv4()),
        "unknown".into(),
        honest.to_string(),
    ] {
        let listener = Dialogue::listen(server, 9000, &["tell", "drain"])?;
        let to = SocketAddr::new(own4.into(), 9000);
        let client = Client::with(&leaf).forwarded_for(&claim);
        let answer = connect(&mesh, client, own4.into(), &to.to_string(), b"")?;
        listener.lines()?;
        let shown = endpoint(std::str::from_utf8(&answer.body)?)?;
        if claim == honest.to_string() {
            assert_eq!(shown, honest, "the registry gives it to this identity");
        } else {
            assert_eq!(shown, answer.source, "{claim}");
        }
    }
    // All but the honest one, and the one that names nobody.
    let refused = mesh.servers[0]
        .sidecar
        .metric("outrigger_inbound_client_claims_refused_total", &[])?;
    assert_eq!(refused, 10.0);
    Ok(())
}

#[test]
fn a_client_that_cannot_be_shown_is_nobody_and_counted() -> Result<()> {
    let mut mesh = Mesh::start("not-shown")?;
    let server = &mesh.servers[0];
    let mut command = server.pod.command("/usr/bin/python3");
    command.args([
        "-c",
        "import socket; s = socket.create_server(('0.0.0.0', 9000))\n\
         while True: c, a = s.accept(); c.sendall(('%s %d' % a).encode()); c.close()",
    ]);
    let program = server.pod.spawn(command)?.until_listening(9000)?;
    mesh.programs.push(program);
    let leaf = leaf_of(&mesh.control, &identity("client"))?;
    let own = mesh.server().pod.ipv4();
    let client = Client::with(&leaf).forwarded_for(&format!("[{}]:4711", mesh.client.pod.ipv6()));
    let to = SocketAddr::new(own.into(), 9000);
    let answer = connect(&mesh, client, own.into(), &to.to_string(), b"")?;
    let shown = endpoint(std::str::from_utf8(&answer.body)?)?;
    let nobody: SocketAddr = "192.0.0.8:4711".parse()?;
    assert_eq!(
        shown, nobody,
        "not the proxy, whose address is the pod's own: {answer:?}"
    );
    let sidecar = &mesh.server().sidecar;
    wait::until("it is counted", wait::SOON, || {
        let events = ["event=\"presented_nobody\""];
        sidecar
            .metric("outrigger_kernel_events_total", &events)
            .is_ok_and(|count| count == 1.0)
    })?;
    Ok(())
}

/// What the two ends of one connection say about the client.
struct Seen {
    /// getsockname() of the client.
    client: SocketAddr,
    /// accept() and getpeername() of the server, which agree.
    server: SocketAddr,
}

fn seen(client: &Pod, server: &Pod, to: SocketAddr) -> Result<Seen> {
    let listener = Dialogue::listen(server, to.port(), &["accepted", "peername", "send:x", "drain"])?;
    let asked = Dialogue::connect(client, to, &["recv:1", "sockname", "peername", "close"])?.lines()?;
    let answered = listener.lines()?;
    assert_eq!(find(&asked, "peername")?, to, "whom the client sees");
    let accepted = find(&answered, "accepted")?;
    assert_eq!(find(&answered, "peername")?, accepted, "{answered:?}");
    Ok(Seen {
        client: find(&asked, "sockname")?,
        server: accepted,
    })
}

fn find(lines: &[String], step: &str) -> Result<SocketAddr> {
    let line = lines
        .iter()
        .find_map(|line| line.strip_prefix(step))
        .with_context(|| format!("no {step}: {lines:?}"))?;
    endpoint(line.trim())
}

/// `ADDRESS PORT`, in the canonical form.
fn endpoint(text: &str) -> Result<SocketAddr> {
    let (ip, port) = text.split_once(' ').with_context(|| text.to_owned())?;
    let ip: IpAddr = ip.parse().with_context(|| text.to_owned())?;
    Ok(SocketAddr::new(ip.to_canonical(), port.parse()?))
}

fn address_of(pod: &Pod, ipv4: bool) -> IpAddr {
    if ipv4 {
        pod.ipv4().into()
    } else {
        pod.ipv6().into()
    }
}
