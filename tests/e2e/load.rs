//! A crowd of connections, and changes of the mesh while it works.

use anyhow::Result;
use harness::Mesh;
use harness::apps::{self, Background};
use harness::mesh::whole::SERVICE;
use harness::mesh::{Options, Plan};

#[test]
fn a_thousand_connections_at_once_are_all_served() -> Result<()> {
    let mut mesh = Mesh::with_servers("thousand", 2)?;
    mesh.serve(apps::echo, 9000)?;
    assert_eq!(apps::crowd(&mesh.client.pod, mesh.vip4(9000), 1000)?, 1000);
    let opened = mesh.client.sidecar.metric(
        "outrigger_tcp_connections_opened_total",
        &["direction=\"outbound\""],
    )?;
    assert_eq!(opened, 1000.0);
    Ok(())
}

#[test]
fn a_connection_survives_the_renewal_of_all_certificates() -> Result<()> {
    let plan = Plan {
        client: Options::new("client").ttl("10s"),
        server: Options::new("server").ttl("10s"),
        servers: 1,
        ..Plan::default()
    };
    let mut mesh = Mesh::of("renewal", &plan)?;
    mesh.serve(apps::echo, 9000)?;
    let mut ticker = Background::ticker(&mesh.client.pod, mesh.vip4(9000))?;
    ticker.until("the connection works", |lines| !lines.is_empty())?;
    for _renewal in 0..3 {
        for sidecar in [&mesh.client.sidecar, &mesh.server().sidecar] {
            let before = sidecar.certificate()?;
            harness::wait::until("the certificate is renewed", harness::wait::SOON, || {
                sidecar.certificate().is_ok_and(|now| now != before)
            })?;
        }
    }
    let count = |lines: &[String]| {
        lines
            .first()
            .and_then(|n| n.parse::<u64>().ok())
            .unwrap_or_default()
    };
    let so_far = count(&ticker.progress());
    ticker.until("the connection still works", |lines| count(lines) > so_far)?;
    ticker.stop()?;
    Ok(())
}

#[test]
fn endpoints_come_and_go_without_a_failed_request() -> Result<()> {
    let mut mesh = Mesh::with_servers("endpoints", 2)?;
    mesh.serve(apps::nginx, 8080)?;
    let (client, second) = (mesh.client.pod.clone(), mesh.servers[1].pod.clone());
    let mut load = Background::load(&client, &apps::url(mesh.vip4(80)))?;
    let both = |lines: &[String]| {
        ["server-1", "server-2"]
            .iter()
            .all(|name| lines.iter().any(|l| l == name))
    };
    load.until("both servers answer", both)?;
    for _ in 0..3 {
        mesh.registry.update(|registry| registry.remove("server-2"))?;
        // 20 answers in a row from one of two would be chance once in a million runs.
        load.until("only the first one answers", |lines| {
            tail(lines, 20).iter().all(|l| l == "server-1")
        })?;
        mesh.registry.update(|registry| {
            registry.add_member(&second, "server", &[SERVICE]);
        })?;
        let begin = load.progress().len();
        load.until("the second one answers again", |lines| {
            lines[begin..].iter().any(|l| l == "server-2")
        })?;
    }
    let answers = load.stop()?;
    let failed: Vec<_> = answers
        .iter()
        .filter(|line| !line.starts_with("server-"))
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {}: {failed:?}",
        failed.len(),
        answers.len()
    );
    Ok(())
}

/// The last lines; a line that no reader could have is in front where there are fewer.
fn tail(lines: &[String], count: usize) -> &[String] {
    if lines.len() < count {
        &lines[..0]
    } else {
        &lines[lines.len() - count..]
    }
}
