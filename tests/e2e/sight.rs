//! What an operator sees is what happened.

use std::process::Command;

use anyhow::{Context, Result};
use harness::apps::{self, Dialogue};
use harness::mesh::{binaries, identity};
use harness::{Mesh, Sidecar, wait};
use serde_json::Value;

use crate::expect::outbound;

#[test]
fn a_flow_is_listed_while_open_and_after_with_its_bytes() -> Result<()> {
    let mesh = Mesh::start("flow")?;
    let go = mesh.client.pod.scratch().join("go");
    let listener = Dialogue::listen(&mesh.server().pod, 9000, &["recv:5", "fill:1000", "drain"])?;
    let mut client = Dialogue::connect(
        &mesh.client.pod,
        mesh.vip4(9000),
        &[
            "send:hello",
            "recv:1000",
            &format!("await:{}", go.display()),
            "close",
        ],
    )?;
    client.result("send")?;
    let sidecar = &mesh.client.sidecar;
    let open = sidecar.until_flow("an open flow with all its bytes", |flow| {
        flow["state"] == "open" && flow["bytesSent"] == 5 && flow["bytesReceived"] == 1000
    })?;
    assert_eq!(open["originalDst"], mesh.vip4(9000).to_string(), "{open:#}");
    assert_eq!(open["service"], "demo/server.demo.svc.cluster.local", "{open:#}");
    assert_eq!(open["destinationIdentity"], identity("server"), "{open:#}");
    assert_eq!(open["tls"]["version"], "TLSv1.3", "{open:#}");

    std::fs::write(&go, "")?;
    client.lines()?;
    listener.lines()?;
    let closed = sidecar.until_flow("the closed flow", |flow| {
        flow["id"] == open["id"] && flow["state"] == "closed"
    })?;
    assert_eq!(closed["closeCause"], "eof", "{closed:#}");
    assert_eq!(
        (&closed["bytesSent"], &closed["bytesReceived"]),
        (&5.into(), &1000.into()),
        "{closed:#}"
    );
    Ok(())
}

#[test]
fn metrics_show_what_a_proxy_has() -> Result<()> {
    let mut mesh = Mesh::start("state")?;
    mesh.serve(apps::nginx, 8080)?;
    apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80)))?.ok()?;
    let client = &mesh.client.sidecar;
    let of = |name: &str, label: &str| client.metric(&format!("outrigger_{name}"), &[label]);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_secs_f64();
    let expiry = of("identity_expiry_timestamp_seconds", "")?;
    assert!(expiry > now && expiry < now + 25.0 * 3600.0, "{expiry}");
    assert_eq!(of("identity_renewals_total", "")?, 1.0, "the first certificate");
    assert_eq!(of("tunnels_open", "direction=\"outbound\"")?, 1.0);
    let inbound = ["direction=\"inbound\""];
    assert_eq!(
        mesh.server().sidecar.metric("outrigger_tunnels_open", &inbound)?,
        1.0
    );
    for condition in ["listeners", "interception", "registry", "identity"] {
        let label = format!("condition=\"{condition}\"");
        assert_eq!(of("condition_met", &label)?, 1.0, "{condition}");
    }
    assert_eq!(of("registry_generation", "")?, 1.0);
    mesh.registry.update(|registry| registry.services.clear())?;
    mesh.registry.write_raw("services: [what?]")?;
    wait::until("both changes are seen", wait::SOON, || {
        of("registry_reload_errors_total", "").is_ok_and(|errors| errors == 1.0)
    })?;
    Ok(())
}

#[test]
fn metrics_count_what_was_done() -> Result<()> {
    let mut mesh = Mesh::start("metrics")?;
    mesh.serve(apps::nginx, 8080)?;
    for _ in 0..7 {
        apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80)))?.ok()?;
    }
    let from = format!("source_identity=\"{}\"", identity("client"));
    let to = format!("destination_identity=\"{}\"", identity("server"));
    for (sidecar, direction) in [
        (&mesh.client.sidecar, "outbound"),
        (&mesh.server().sidecar, "inbound"),
    ] {
        let labels = [
            &*format!("direction=\"{direction}\""),
            "transport=\"hbone\"",
            &from,
            &to,
        ];
        let get = |name: &str| sidecar.metric(name, &labels);
        assert_eq!(get("outrigger_tcp_connections_opened_total")?, 7.0, "{direction}");
        wait::until("all are closed", wait::SOON, || {
            get("outrigger_tcp_connections_closed_total").is_ok_and(|n| n == 7.0)
        })?;
        assert_eq!(get("outrigger_tcp_connections_active")?, 0.0, "{direction}");
        assert!(
            get("outrigger_tcp_received_bytes_total")? > 7.0 * 9.0,
            "{direction}"
        );
    }
    Ok(())
}

#[test]
fn the_kubectl_plugin_shows_the_flows_of_a_socket() -> Result<()> {
    let mut mesh = Mesh::start("plugin")?;
    mesh.serve(apps::nginx, 8080)?;
    apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80)))?.ok()?;
    mesh.client.sidecar.until_flow("a closed flow", |flow| {
        outbound(flow) && flow["state"] == "closed"
    })?;

    let table = plugin(&mesh.client.sidecar, &[])?;
    assert!(
        table.lines().count() >= 2 && table.contains("10.96.0.10:80"),
        "{table}"
    );
    let json: Value = serde_json::from_str(&plugin(&mesh.client.sidecar, &["-o", "json"])?)?;
    let flows = json["closed"].as_array().context("no list of closed flows")?;
    assert!(
        flows.iter().any(|flow| flow["originalDst"] == "10.96.0.10:80"),
        "{json:#}"
    );
    let wide = plugin(&mesh.client.sidecar, &["-o", "wide"])?;
    assert!(wide.contains(&identity("server")), "{wide}");
    Ok(())
}

fn plugin(sidecar: &Sidecar, options: &[&str]) -> Result<String> {
    let output = Command::new(binaries::path("kubectl-outrigger")?)
        .args(["flows", "--unix"])
        .arg(sidecar.admin_socket())
        .args(options)
        .output()?;
    anyhow::ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}
