//! Who may ask the endpoints of a running proxy for what, and who changes it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result};
use harness::apps::{self, Keep};
use harness::mesh::{Options, Plan, identity, ports};
use harness::{Mesh, Sidecar, http, wait};

/// curl of a host user at the admin socket; the status it got.
fn at_socket(sidecar: &Sidecar, user: u32, args: &[&str]) -> Result<String> {
    let user = user.to_string();
    let output = Command::new("setpriv")
        .args([
            "--reuid",
            &user,
            "--regid",
            &user,
            "--clear-groups",
            "curl",
            "-q",
            "-s",
        ])
        .args([
            "--max-time",
            "20",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--unix-socket",
        ])
        .arg(sidecar.admin_socket())
        .args(args)
        .output()
        .context("run setpriv and curl")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The same of a program of the pod at the TCP port.
fn at_port(sidecar: &Sidecar, args: &[&str]) -> Result<String> {
    let fixed = ["-q", "-s", "--noproxy", "*", "--max-time", "20"];
    Ok(sidecar.pod().run("curl", fixed.iter().chain(args))?.stdout)
}

#[test]
fn only_the_owner_changes_a_running_proxy() -> Result<()> {
    const NOBODY: u32 = 65534;
    const DRAIN: [&str; 3] = ["-X", "POST", "http://localhost/drain"];
    let mut mesh = Mesh::start("owner")?;
    mesh.serve(apps::nginx, 8080)?;
    let sidecar = &mesh.client.sidecar;
    let refusal = at_port(sidecar, &["-X", "POST", "http://127.0.0.1:15000/drain"])?;
    let remedy = format!("curl --unix-socket {}", sidecar.admin_socket().display());
    assert!(refusal.contains(&remedy), "{refusal}");
    at_port(
        sidecar,
        &["-X", "PUT", "-d", "off", "http://127.0.0.1:15000/loglevel"],
    )?;
    assert_eq!(at_port(sidecar, &["http://127.0.0.1:15000/loglevel"])?, "info\n");
    let shown = at_port(sidecar, &["http://127.0.0.1:15000/config"])?;
    let token = format!("{}/", mesh.control.state().display());
    assert!(
        shown.contains("permissive") && !shown.contains("token") && !shown.contains(&token),
        "{shown}"
    );

    assert_eq!(at_socket(sidecar, NOBODY, &DRAIN)?, "000", "the file's mode");
    // Whatever becomes of the mode.
    fs::set_permissions(sidecar.admin_socket(), Permissions::from_mode(0o666))?;
    assert_eq!(at_socket(sidecar, NOBODY, &["http://localhost/loglevel"])?, "200");
    assert_eq!(at_socket(sidecar, NOBODY, &DRAIN)?, "403");
    assert!(sidecar.is_ready());
    apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80)))?.ok()?;

    assert_eq!(
        at_socket(
            sidecar,
            0,
            &["-X", "PUT", "-d", "debug", "http://localhost/loglevel"]
        )?,
        "200"
    );
    assert_eq!(at_port(sidecar, &["http://127.0.0.1:15000/loglevel"])?, "debug\n");
    assert_eq!(at_socket(sidecar, 0, &DRAIN)?, "202");
    wait::until("the proxy has drained", wait::SOON, || {
        !sidecar.admin_socket().exists()
    })
}

#[test]
fn an_admin_endpoint_that_is_switched_off_leaves_the_socket() -> Result<()> {
    const QUESTION: &str = "http://127.0.0.1:15000/loglevel";
    let mut mesh = Mesh::start("no-admin-port")?;
    let sidecar = &mut mesh.client.sidecar;
    assert_eq!(at_port(sidecar, &[QUESTION])?, "info\n");
    let config = fs::read_to_string(sidecar.config())?.replace("listen: {", "listen: {admin: none, ");
    fs::write(sidecar.config(), config)?;
    sidecar.stop()?;
    sidecar.restart()?;
    let code = at_port(
        sidecar,
        &["-o", "/dev/null", "-w", "%{http_code} %{exitcode}", QUESTION],
    )?;
    assert_eq!(code, "000 7", "curl: nobody listens");
    assert_eq!(at_socket(sidecar, 0, &["http://localhost/loglevel"])?, "200");
    Ok(())
}

/// As one outside can: neither the mode nor a policy holds for metrics and probes.
#[test]
fn a_pod_of_the_mesh_scrapes_another_ones_status_port() -> Result<()> {
    const DENY: &str = "policies:\n- {name: closed, namespace: demo, scope: Namespace, action: Deny, \
                        rules: [[[{destinationPorts: [9000, 15020]}]]]}\n";
    let plan = Plan {
        server: Options::new("server").strict(),
        ..Plan::default()
    };
    let mut mesh = Mesh::of("scrape", &plan)?;
    mesh.serve(apps::echo, 9000)?;
    let mut text = String::new();
    mesh.registry.update(|registry| text = registry.to_string())?;
    mesh.registry.write_raw(&(text + DENY))?;
    let server = mesh.server();
    let denied = |transport: &str| {
        let label = format!("transport=\"{transport}\"");
        server.sidecar.metric("outrigger_inbound_denied_total", &[&label])
    };
    // A connection may fail for another reason than the policy: the server says which it was.
    wait::until("the policy is in force", wait::SOON, || {
        let lines = apps::Dialogue::connect(&mesh.client.pod, mesh.vip4(9000), &["send:x", "recv:1"]);
        lines
            .and_then(apps::Dialogue::lines)
            .is_ok_and(|lines| lines.last().is_some_and(|l| l != "recv x"))
            && denied("hbone").is_ok_and(|n| n >= 1.0)
    })?;
    for ip in server.pod.addresses() {
        let url = apps::url((ip, ports::STATUS)) + "metrics";
        for pod in [&mesh.client.pod, &mesh.outside] {
            let metrics = apps::curl(pod, &url)?.ok()?;
            assert!(metrics.contains("outrigger_build_info"), "{metrics}");
        }
        let at = (ip, ports::STATUS).into();
        let why = mesh
            .client
            .sidecar
            .why(&[&std::net::SocketAddr::to_string(&at)])?
            .ok()?;
        assert!(why.contains("hbone"), "{why}");
    }
    let flow = server.sidecar.until_flow("the scrape", |flow| {
        flow["transport"] == "hbone"
            && flow["chosenDst"]
                .as_str()
                .is_some_and(|at| at.ends_with(":15020"))
    })?;
    assert_eq!(flow["sourceIdentity"], identity("client"), "{flow:#}");
    assert_eq!(denied("plain")?, 0.0);
    Ok(())
}

#[test]
fn a_probe_is_answered_while_thousands_ask_nothing() -> Result<()> {
    let mesh = Mesh::start("silent-probes")?;
    let sidecar = &mesh.client.sidecar;
    let status = (mesh.client.pod.ipv4(), ports::STATUS).into();
    let (kept, _) = Keep::silent(&mesh.outside, &[status], 3000)?;
    // One from where the silent ones come from, and one from elsewhere.
    for from in [&mesh.outside, &mesh.server().pod] {
        let (code, body) = http::get(from.netns(), status, "/livez")?;
        assert_eq!((code, body.as_str()), (200, "ok\n"));
    }
    let evicted = sidecar.metric("outrigger_admission_evicted_by_quota_total", &["door=\"status\""])?;
    // On a busy machine others have gone before, for their silence.
    assert!(evicted > 0.0, "{evicted}");
    assert!(sidecar.metric("outrigger_admission_waiting", &["door=\"status\""])? <= 32.0);
    kept.close()?;
    Ok(())
}
