//! What an operator sees is what happened.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use harness::apps::{self, Dialogue};
use harness::mesh::{binaries, identity};
use harness::{Mesh, Sidecar, wait};
use serde_json::Value;

use crate::expect::{outbound, refused_for};

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

#[test]
fn what_was_decided_of_a_failed_connection_is_told_afterwards() -> Result<()> {
    let mesh = Mesh::start("decided")?;
    // The server's proxy answers, and no application does.
    refused_for(&mesh.client, mesh.vip4(80), "connection_refused")?;
    let why = |sidecar: &Sidecar, to: &str| verb(sidecar, "why", &[to, "--past"]);

    let told = why(&mesh.client.sidecar, "10.96.0.10:80")?;
    let order = [
        "failed at",
        "the kernel gave the application's connection to the proxy",
        "the registry says: it is the service demo/server.demo.svc.cluster.local",
        "was dialled through the mesh: connection_refused by upstream",
    ];
    let places: Vec<_> = order.iter().map(|part| told.find(part)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{told}");

    let flows = mesh.server().sidecar.all_flows()?;
    let refused = flows
        .iter()
        .find(|flow| flow["closeCause"] == "connection_refused");
    let to = refused
        .and_then(|flow| flow["originalDst"].as_str())
        .context("no flow at the server")?;
    let told = why(&mesh.server().sidecar, to)?;
    for part in [
        &*format!("its peer proved to be {}", identity("client")),
        "no policy that allows restricts this workload",
        "was dialled: connection_refused by upstream",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    Ok(())
}

#[test]
fn edges_say_who_talks_to_whom_and_a_reader_may_leave() -> Result<()> {
    let mut mesh = Mesh::start("edges")?;
    mesh.serve(apps::nginx, 8080)?;
    apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80)))?.ok()?;
    let sidecar = &mesh.client.sidecar;
    sidecar.until_flow("a closed flow", |flow| {
        outbound(flow) && flow["state"] == "closed"
    })?;
    let json: Value = serde_json::from_str(&verb(sidecar, "edges", &["-o", "json"])?)?;
    assert_eq!(
        (&json["apiVersion"], &json["kind"]),
        (&"outrigger.example/v1alpha1".into(), &"EdgeList".into())
    );
    let edge = json["edges"]
        .as_array()
        .and_then(|edges| edges.iter().find(|edge| edge["port"] == 8080))
        .with_context(|| format!("no edge to the server: {json:#}"))?;
    assert_eq!(edge["destination"]["name"], "demo/server", "{edge:#}");
    assert_eq!(
        (&edge["secured"], &edge["tls"][0]),
        (&true.into(), &"TLSv1.3".into()),
        "{edge:#}"
    );
    for (format, start) in [
        ("svg", "<svg "),
        ("dot", "digraph "),
        ("yaml", "apiVersion: outrigger.example/v1alpha1\n"),
        ("table", "SOURCE "),
    ] {
        let text = verb(sidecar, "edges", &["-o", format])?;
        assert!(text.starts_with(start) && text.contains("demo/server"), "{text}");
        let mut child = command(sidecar, "edges", &["-o", format])?
            .stdout(Stdio::piped())
            .spawn()?;
        drop(child.stdout.take());
        assert!(child.wait()?.success(), "{format}: the reader has left");
    }
    Ok(())
}

#[test]
fn top_adds_up_what_a_mesh_does_while_it_looks_and_flows_are_filtered() -> Result<()> {
    let mut mesh = Mesh::start("top")?;
    mesh.serve(apps::nginx, 8080)?;
    let url = apps::url(mesh.vip4(80));
    let curl = |mesh: &Mesh| apps::curl(&mesh.client.pod, &url)?.ok().map(drop);
    curl(&mesh)?;
    let sidecar = &mesh.client.sidecar;
    let mut top = command(sidecar, "top", &["--once", "--interval", "1s", "-o", "json"])?
        .stdout(Stdio::piped())
        .spawn()?;
    let mut served = 0;
    while top.try_wait()?.is_none() {
        curl(&mesh)?;
        served += 1;
    }
    let json: Value = serde_json::from_slice(&top.wait_with_output()?.stdout)?;
    let pair = json["pairs"]
        .as_array()
        .and_then(|pairs| pairs.iter().find(|pair| pair["port"] == 8080))
        .with_context(|| format!("no pair to the server: {json:#}"))?;
    assert_eq!(pair["destination"]["name"], "demo/server", "{pair:#}");
    assert_eq!(pair["secured"], true, "{pair:#}");
    let connections = pair["connections"].as_u64().unwrap_or_default();
    assert!((1..=served).contains(&connections), "{served}: {pair:#}");
    for rate in ["connectionsPerSecond", "bytesReceivedPerSecond"] {
        assert!(pair[rate].as_f64().is_some_and(|rate| rate > 0.0), "{pair:#}");
    }

    let names = |options: &[&str]| plugin(sidecar, &[&["-o", "name"], options].concat());
    assert!(names(&["--port", "80", "--direction", "out"])?.starts_with("flow/"));
    for none in [
        &["--port", "81"][..],
        &["--cause", "denied"],
        &["--slower-than", "1h"],
        &["--service", "nobody/nothing"],
    ] {
        assert_eq!(names(none)?, "", "{none:?}");
    }
    Ok(())
}

fn plugin(sidecar: &Sidecar, options: &[&str]) -> Result<String> {
    verb(sidecar, "flows", options)
}

fn verb(sidecar: &Sidecar, verb: &str, options: &[&str]) -> Result<String> {
    let output = command(sidecar, verb, options)?.output()?;
    anyhow::ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

fn command(sidecar: &Sidecar, verb: &str, options: &[&str]) -> Result<Command> {
    let mut command = Command::new(binaries::path("kubectl-outrigger")?);
    command
        .arg(verb)
        .args(options)
        .arg("--unix")
        .arg(sidecar.admin_socket())
        .env_remove("COLUMNS");
    Ok(command)
}
