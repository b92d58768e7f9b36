//! Killed replicas and killed proxies: traffic moves, or is refused; it never goes out in plaintext.

use std::net::SocketAddr;
use std::thread;

use anyhow::Result;
use harness::apps::{self, Background, Ceaseless, Dialogue, Server};
use harness::mesh::{Options, Plan};
use harness::{Capture, Mesh, wait};

use crate::expect;

#[test]
fn when_a_replica_dies_traffic_moves_to_the_others() -> Result<()> {
    let mut mesh = Mesh::with_servers("replica", 2)?;
    mesh.serve(apps::nginx, 8080)?;
    let ask = |mesh: &Mesh| apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80))).and_then(|o| o.ok());
    wait::until("both replicas answer", wait::SOON, || {
        ask(&mesh).is_ok_and(|body| body == "server-1\n")
    })?;
    mesh.programs.remove(0);
    // Another endpoint is tried before any byte was relayed, so not one request fails.
    for _ in 0..30 {
        assert_eq!(ask(&mesh)?, "server-2\n");
    }
    Ok(())
}

#[test]
fn when_a_whole_pod_dies_traffic_moves_to_the_others() -> Result<()> {
    let mut mesh = Mesh::with_servers("pod-dies", 2)?;
    mesh.serve(apps::nginx, 8080)?;
    let ask = |mesh: &Mesh| apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80))).and_then(|o| o.ok());
    wait::until("both replicas answer", wait::SOON, || {
        ask(&mesh).is_ok_and(|body| body == "server-1\n")
    })?;
    mesh.programs.remove(0);
    mesh.servers[0].sidecar.kill();
    for _ in 0..30 {
        assert_eq!(ask(&mesh)?, "server-2\n");
    }
    Ok(())
}

#[test]
fn a_client_whose_proxy_died_is_refused_and_sends_no_plaintext() -> Result<()> {
    let mut mesh = Mesh::start("client-proxy")?;
    mesh.serve(apps::nginx, 8080)?;
    apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80)))?.ok()?;
    mesh.client.sidecar.kill();

    let capture = Capture::start(&mesh.fabric)?;
    let (client, server) = (&mesh.client.pod, &mesh.servers[0].pod);
    for at in [
        mesh.vip4(80),
        mesh.vip6(80),
        (server.ipv4(), 8080).into(),
        (server.ipv6(), 8080).into(),
    ] {
        let lines = Dialogue::connect(client, at, &["send:GET / HTTP/1.0\r\n\r\n"])?.lines()?;
        assert_eq!(lines, ["connect errno ECONNREFUSED"], "{at}");
    }
    let recording = capture.stop()?;
    let dialled: Vec<SocketAddr> = recording
        .segments()
        .iter()
        .filter(|s| s.syn)
        .map(|s| s.to)
        .collect();
    assert!(dialled.is_empty(), "{dialled:?}");

    mesh.client.sidecar.restart()?;
    assert_eq!(
        apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80)))?.ok()?,
        "server-1\n"
    );
    Ok(())
}

/// The hooks of the proxy that has died redirect all the time, also when the next one begins to listen.
#[test]
fn while_a_proxy_starts_again_no_connect_succeeds_that_nobody_accepts() -> Result<()> {
    const SOME: usize = 500;
    let mut mesh = Mesh::start("starts-again")?;
    let hosts = [mesh.outside.addresses(), mesh.server().pod.addresses()].concat();
    let mut dials = Background::dials(&mesh.client.pod, &hosts, 9)?;
    let more = |dials: &mut Background, since: usize| -> Result<usize> {
        dials.until("more have been answered", |lines| lines.len() > since + SOME)?;
        Ok(dials.progress().len())
    };
    let mut seen = more(&mut dials, 0)?;
    for _ in 0..3 {
        mesh.client.sidecar.kill();
        seen = more(&mut dials, seen)?;
        mesh.client.sidecar.restart()?;
        seen = more(&mut dials, seen)?;
    }
    let answers = dials.stop()?;
    // A program that is refused by a reset meanwhile asks again at once, and may hear of the reset only then.
    let expected = ["ECONNREFUSED", "ECONNABORTED"];
    let wrong: Vec<&String> = answers
        .iter()
        .filter(|answer| !expected.contains(&answer.as_str()))
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {}, the first: {:?}",
        wrong.len(),
        answers.len(),
        &wrong[..wrong.len().min(5)]
    );
    Ok(())
}

/// The kernel refuses connections to a tunnel port that nobody serves. That says nothing of the application behind it.
#[test]
fn connections_wait_while_the_servers_proxy_starts_again() -> Result<()> {
    let mut mesh = Mesh::start("server-restarts")?;
    mesh.serve(apps::nginx, 8080)?;
    let url = apps::url(mesh.vip4(80));
    apps::curl(&mesh.client.pod, &url)?.ok()?;
    for hard in [true, false] {
        match hard {
            true => mesh.servers[0].sidecar.kill(),
            false => mesh.servers[0].sidecar.stop()?,
        }
        let (client, url) = (&mesh.client.pod, url.as_str());
        let answers = thread::scope(|scope| -> Result<Vec<String>> {
            let asking: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| apps::curl(client, url).and_then(|output| output.ok())))
                .collect();
            mesh.servers[0].sidecar.restart()?;
            asking
                .into_iter()
                .map(|asking| asking.join().expect("it does not panic"))
                .collect()
        })?;
        assert!(answers.iter().all(|answer| answer == "server-1\n"), "{answers:?}");
    }
    Ok(())
}

/// Also those that get to it in the moment in which it ends.
#[test]
fn no_connection_fails_because_the_servers_proxy_is_stopped_and_started() -> Result<()> {
    let mut mesh = Mesh::start("server-renewed")?;
    mesh.serve(apps::echo, 9000)?;
    let servers = [mesh.vip4(9000), mesh.vip6(9000)].map(Server::Open);
    let mut traffic = Ceaseless::start(&mesh.client.pod, 300, 0, &servers)?;
    for _ in 0..4 {
        traffic.until_more(100)?;
        mesh.servers[0].sidecar.stop()?;
        mesh.servers[0].sidecar.restart()?;
    }
    traffic.until_more(100)?;
    let done = traffic.stop()?;
    let failed = mesh.client.sidecar.failed_flows()?;
    assert!(done.failures.is_empty(), "{done:?} {failed:#?}");
    Ok(())
}

#[test]
fn a_strict_server_whose_proxy_died_is_closed_and_opens_again() -> Result<()> {
    let plan = Plan {
        server: Options::new("server").strict(),
        ..Plan::default()
    };
    let mut mesh = Mesh::of("server-proxy", &plan)?;
    mesh.serve(apps::nginx, 8080)?;
    mesh.servers[0].sidecar.kill();
    for ip in mesh.server().pod.addresses() {
        expect::connection_refused(&mesh.outside, (ip, 8080).into())?;
    }
    expect::refused_for(&mesh.client, mesh.vip4(80), "connection_refused")?;

    mesh.servers[0].sidecar.restart()?;
    wait::until("the service answers again", wait::SOON, || {
        apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80))).is_ok_and(|o| o.stdout == "server-1\n")
    })?;
    for ip in mesh.server().pod.addresses() {
        expect::connection_refused(&mesh.outside, (ip, 8080).into())?;
    }
    Ok(())
}
