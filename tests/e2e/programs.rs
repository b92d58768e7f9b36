//! Unmodified programs and their protocols, through the tunnel: silent servers, servers that speak first, several
//! connections that belong together.

use std::time::Instant;

use anyhow::{Context, Result};
use harness::Mesh;
use harness::apps;
use serde_json::Value;

#[test]
fn redis_answers_commands() -> Result<()> {
    let mut mesh = Mesh::start("redis")?;
    mesh.serve(apps::redis, 6379)?;
    for vip in [mesh.vip4(6379), mesh.vip6(6379)] {
        assert_eq!(
            apps::redis_cli(&mesh.client.pod, vip, &["INCR", "n"])?
                .ok()?
                .trim(),
            if vip.is_ipv4() { "1" } else { "2" }
        );
    }
    Ok(())
}

#[test]
fn postgresql_answers_queries() -> Result<()> {
    let mut mesh = Mesh::start("postgres")?;
    mesh.serve(apps::postgres, 5432)?;
    let rows = apps::psql(
        &mesh.client.pod,
        mesh.vip4(5432),
        "select count(*), sum(n) from generate_series(1, 100000) n",
    )?;
    assert_eq!(rows.ok()?.trim(), "100000|5000050000");
    Ok(())
}

#[test]
fn a_server_that_speaks_first_is_not_kept_waiting() -> Result<()> {
    let mut mesh = Mesh::start("smtp")?;
    mesh.serve(apps::smtp, 2525)?;
    // The first one opens the tunnel.
    let ask = || apps::curl(&mesh.client.pod, &format!("smtp://{}", mesh.vip4(2525)))?.ok();
    assert!(ask()?.contains("HELP"));
    let begin = Instant::now();
    ask()?;
    // A proxy that waits for the client's first bytes has a time-out of seconds: curl says nothing before the greeting.
    assert!(begin.elapsed().as_secs_f32() < 1.0, "{:?}", begin.elapsed());
    Ok(())
}

#[test]
fn iperf3_sends_in_parallel() -> Result<()> {
    let mut mesh = Mesh::start("iperf3")?;
    mesh.serve(apps::iperf3_server, 5201)?;
    let report: Value =
        serde_json::from_str(&apps::iperf3(&mesh.client.pod, mesh.vip4(5201), 64 << 20)?.ok()?)?;
    let received = report["end"]["sum_received"]["bytes"]
        .as_u64()
        .context("no sum of received bytes")?;
    let sent = report["end"]["sum_sent"]["bytes"]
        .as_u64()
        .context("no sum of sent bytes")?;
    assert!(sent >= 64 << 20, "{sent}");
    assert!(received > 0 && received <= sent, "{received} of {sent}");
    Ok(())
}
