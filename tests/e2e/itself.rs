//! What a proxy says of itself: its certificate, the endpoints that it considers, the policies that hold for it. What it says is
//! what connections get.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::apps::{self, Dialogue};
use harness::mesh::{Options, Plan, binaries, identity};
use harness::{Mesh, Pod, Sidecar, wait};
use serde_json::{Value, json};

/// What the plugin prints of the one whose admin socket this is, and what it says beside that.
fn plugin(socket: &Path, words: &[&str]) -> Result<(String, String)> {
    let output = Command::new(binaries::path("kubectl-outrigger")?)
        .args(words)
        .arg("--unix")
        .arg(socket)
        .env_remove("COLUMNS")
        .output()?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{words:?}: {errors}");
    Ok((String::from_utf8(output.stdout)?, errors))
}

fn document(sidecar: &Sidecar, words: &[&str]) -> Result<Value> {
    let (text, _) = plugin(&sidecar.admin_socket(), &[words, &["-o", "json"]].concat())?;
    serde_json::from_str(&text).with_context(|| text.clone())
}

/// SHA-256 of a certificate, by openssl, which prints `sha256 Fingerprint=AA:BB…`.
fn fingerprint(mesh: &Mesh, pem: &str) -> Result<String> {
    let file = mesh.fabric.scratch().join("certificate.pem");
    std::fs::write(&file, pem)?;
    let output = Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(&file)
        .output()?;
    let told = String::from_utf8(output.stdout)?;
    let (_, hex) = told.trim().split_once('=').with_context(|| told.clone())?;
    Ok(hex.replace(':', "").to_lowercase())
}

#[test]
fn a_certificate_is_told_as_peers_see_it_and_its_end_with_the_reason() -> Result<()> {
    let plan = Plan {
        leaf_ttl: "12s".into(),
        ..Plan::default()
    };
    let mut mesh = Mesh::of("itself-identity", &plan)?;
    let sidecar = &mesh.server().sidecar;
    let told = document(sidecar, &["identity"])?;
    assert_eq!(
        (&told["kind"], &told["state"], &told["identity"]),
        (&"Identity".into(), &"valid".into(), &identity("server").into()),
        "{told:#}"
    );
    let leaf = &told["chain"][0];
    assert_eq!(leaf["names"], json!([identity("server")]), "{told:#}");
    assert_eq!(leaf["key"], "ECDSA P-256", "{told:#}");
    assert_eq!(told["failures"], 0, "{told:#}");
    // It is renewed every few seconds, so that both may be of different ones.
    wait::until("peers see the certificate that it tells of", wait::SOON, || {
        let same = || -> Result<bool> {
            let shown = sidecar.certificate()? + "-----END CERTIFICATE-----\n";
            let told = document(sidecar, &["identity"])?;
            Ok(told["chain"][0]["sha256"] == *fingerprint(&mesh, &shown)?)
        };
        same().unwrap_or(false)
    })?;
    let root = std::fs::read_to_string(mesh.control.root())?;
    assert_eq!(
        told["roots"][0]["sha256"],
        *fingerprint(&mesh, &root)?,
        "{told:#}"
    );
    let (text, _) = plugin(&sidecar.admin_socket(), &["identity", "--columns", "80"])?;
    ensure!(
        text.contains("State:     valid for") && !text.contains("PRIVATE"),
        "{text}"
    );

    mesh.control.stop();
    wait::until("it has expired", wait::SOON * 2, || {
        document(&mesh.server().sidecar, &["identity"]).is_ok_and(|told| told["state"] == "expired")
    })?;
    let told = document(&mesh.server().sidecar, &["identity"])?;
    ensure!(
        told["failures"].as_u64() > Some(0) && told["chain"] == json!([]),
        "{told:#}"
    );
    let why = told["lastError"].as_str().context("a reason")?;
    ensure!(why.contains("authority") || why.contains("agent"), "{why}");
    let (text, _) = plugin(&mesh.server().sidecar.admin_socket(), &["identity"])?;
    ensure!(text.contains("expired: its certificate expired at"), "{text}");
    Ok(())
}

/// Of three pods behind the service one serves, one has no application, and one is not ready.
#[test]
fn a_dead_endpoint_is_told_to_fail_and_one_that_is_not_ready_not_to_be_chosen() -> Result<()> {
    let mut mesh = Mesh::with_servers("itself-endpoints", 3)?;
    let echo = apps::echo(&mesh.servers[0].pod, 9000)?;
    mesh.programs.push(echo);
    mesh.registry.update(|registry| {
        if let Some(server) = registry.workload("server-3") {
            server.healthy = false;
        }
    })?;
    let at = mesh.vip4(9000).to_string();
    let one = |mesh: &Mesh, server: usize| -> Result<Value> {
        let list = document(&mesh.client.sidecar, &["endpoints", &at])?;
        let address = format!("{}:9000", mesh.servers[server].pod.ipv4());
        let all = list["endpoints"].as_array().context("a list")?;
        let found = all.iter().find(|one| one["address"] == *address);
        found
            .cloned()
            .with_context(|| format!("no {address} in {list:#}"))
    };
    wait::until("the registry says who is not ready", wait::SOON, || {
        one(&mesh, 2).is_ok_and(|one| one["state"] == "not_ready")
    })?;
    for (server, state, chance) in [(0, "ready", 0.5), (1, "ready", 0.5), (2, "not_ready", 0.0)] {
        let one = one(&mesh, server)?;
        assert!(one["state"] == state && one["chance"] == chance, "{one:#}");
    }

    // Each connection comes up: by the second endpoint, where the first one takes none.
    let dialled = |mesh: &Mesh| answers(&mesh.client.pod, mesh.vip4(9000)).unwrap_or(false);
    wait::until("the dead endpoint was tried", wait::SOON, || {
        dialled(&mesh) && one(&mesh, 1).is_ok_and(|one| one["state"] == "failing")
    })?;
    let dead = one(&mesh, 1)?;
    assert_eq!(dead["lastFailure"]["cause"], "connection_refused", "{dead:#}");
    assert_eq!(one(&mesh, 0)?["lastFailure"], Value::Null);
    let socket = mesh.client.sidecar.admin_socket();
    let (text, remark) = plugin(&socket, &["endpoints", &at, "--columns", "80"])?;
    let address = format!("{}:9000", mesh.servers[1].pod.ipv4());
    let has_failing = text
        .lines()
        .any(|line| line.starts_with(&address) && line.contains("failing"));
    ensure!(has_failing, "{text}");
    ensure!(
        remark.contains("endpoints: 3, of which the next connection may go to "),
        "{remark}"
    );
    let why = mesh.client.sidecar.why(&[&at])?.ok()?;
    for part in [
        &*format!("endpoint {address}, hbone"),
        "failing",
        "not ready, 0 open",
    ] {
        ensure!(why.contains(part), "no {part:?} in {why}");
    }

    // It is told to serve again by the first connection that it takes.
    let echo = apps::echo(&mesh.servers[1].pod, 9000)?;
    mesh.programs.push(echo);
    wait::until("the endpoint takes a connection", wait::SOON, || {
        dialled(&mesh)
            && one(&mesh, 1).is_ok_and(|one| one["state"] == "ready" && one["lastFailure"].is_null())
    })?;
    let nobody = document(&mesh.client.sidecar, &["endpoints", "demo/nobody.demo.svc:80"])?;
    assert_eq!(nobody["knowledge"], "unknown", "{nobody:#}");
    Ok(())
}

fn answers(pod: &Pod, server: SocketAddr) -> Result<bool> {
    let lines = Dialogue::connect(pod, server, &["send:ping", "recv:4"])?.lines()?;
    Ok(lines.last().is_some_and(|line| line == "recv ping"))
}

/// Who `policy check` says gets in is who does: by a rule, and not for want of one, nor in plaintext.
#[test]
fn whoever_is_said_to_get_in_does_and_nobody_else() -> Result<()> {
    let plan = Plan {
        servers: 2,
        server: Options::new("server").strict(),
        ..Plan::default()
    };
    let mut mesh = Mesh::of("itself-policies", &plan)?;
    mesh.serve(apps::echo, 9000)?;
    let server = mesh.servers[0].pod.ipv4();
    let client = identity("client");
    let principal = client.trim_start_matches("spiffe://");
    mesh.registry.update(|registry| {
        registry.policies = vec![format!(
            "{{name: clients, namespace: demo, scope: Namespace, action: Allow, rules: \
             [[[{{principals: [!Exact \"{principal}\"]}}], [{{destinationPorts: [9000]}}]]]}}"
        )];
    })?;
    let check = |mesh: &Mesh, words: &[&str]| {
        document(&mesh.servers[0].sidecar, &[&["policy", "check"], words].concat())
    };
    wait::until("the policy is in force", wait::SOON, || {
        check(&mesh, &[]).is_ok_and(|told| told["policies"][0]["name"] == "demo/clients")
    })?;
    let askers = [
        ("demo/client", &mesh.client.pod, "allowed", "rules[0] allows it"),
        ("demo/server", &mesh.servers[1].pod, "denied", "nobody matches"),
        (
            "none",
            &mesh.outside,
            "denied",
            "plaintext is refused in strict mode",
        ),
    ];
    for (who, pod, result, reason) in askers {
        let told = check(&mesh, &["--from", who, "--port", "9000"])?;
        let verdict = &told["verdict"];
        let why = verdict["reason"].as_str().context("a reason")?;
        ensure!(
            told["mode"] == "strict" && verdict["result"] == result && why.contains(reason),
            "{who}: {told:#}"
        );
        let may = answers(pod, (server, 9000).into())?;
        assert_eq!(may, result == "allowed", "{who} is said to be {result}");
    }
    let other = check(&mesh, &["--from", "demo/client", "--port", "9001"])?;
    assert_eq!(other["verdict"]["result"], "denied", "{other:#}");
    let unsaid = check(&mesh, &["--from", "demo/client"])?;
    assert_eq!(unsaid["verdict"]["result"], "depends", "{unsaid:#}");
    Ok(())
}

#[test]
fn an_agent_passes_on_what_the_proxy_of_a_pod_says_and_says_where_there_is_none() -> Result<()> {
    let mut mesh = Mesh::of("itself-agent", &Plan::by_agent())?;
    let socket = mesh.fabric.scratch().join("agent-admin.sock");
    let agent = |words: &[&str]| plugin(&socket, words);
    let (told, _) = agent(&["identity", "server-1", "-o", "json"])?;
    let told: Value = serde_json::from_str(&told)?;
    assert_eq!(
        (&told["pod"], &told["identity"], &told["state"]),
        (&"server-1".into(), &identity("server").into(), &"valid".into()),
        "{told:#}"
    );
    let at = mesh.vip4(9000).to_string();
    let (list, _) = agent(&["endpoints", &at, "--pod", "client", "-o", "json"])?;
    let list: Value = serde_json::from_str(&list)?;
    assert_eq!(
        (&list["pod"], &list["knowledge"]),
        (&"client".into(), &"known".into()),
        "{list:#}"
    );
    let (checked, _) = agent(&["policy", "check", "server-1", "--from", "none"])?;
    ensure!(checked.starts_with("plaintext to server-1: allowed"), "{checked}");

    for (words, part) in [
        (&["identity"][..], "`pod` is missing"),
        (&["identity", "nobody"], "no such pod is on this node"),
        (&["endpoints", "web", "--pod", "client"], "NAMESPACE/HOSTNAME"),
    ] {
        let error = agent(words).unwrap_err().to_string();
        ensure!(error.contains(part), "{words:?}: {error}");
    }
    mesh.client.sidecar.kill();
    wait::until("the sidecar is missed", wait::SOON, || {
        let told = agent(&["identity", "client"]);
        told.is_err_and(|error| error.to_string().contains("no sidecar holds this pod"))
    })
}
