//! `outrigger attach`: a pod that is closed before its proxy starts, and opens without a gap.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use harness::apps::{self, Dialogue};
use harness::mesh::{Options, Plan, binaries};
use harness::{Capture, Mesh, Output, Sidecar, wait};

use crate::expect;

/// With a client's sidecar that attaches itself: an agent closes its pods without being told.
fn mesh(kind: &str) -> Result<Mesh> {
    let client = Options::new("client").privileged();
    Mesh::of(
        kind,
        &Plan {
            client,
            ..Plan::default()
        },
    )
}

/// A pod whose sidecar has not started yet, and which nothing is attached to.
fn before_its_sidecar(sidecar: &mut Sidecar) -> Result<()> {
    sidecar.stop()?;
    sidecar.detach()
}

/// With the configuration of the sidecar, or with the two fields alone that it cannot do without.
fn attach(sidecar: &Sidecar, with_file: bool) -> Result<Output> {
    let pod = sidecar.pod();
    let mut command = pod.command(binaries::path("outrigger")?);
    command.arg("attach");
    match with_file {
        true => command.arg("--config").arg(sidecar.config()),
        false => {
            let command = command.arg("--cgroup").arg(pod.cgroup());
            command.arg("--pins").arg(sidecar.pins())
        }
    };
    pod.run_within(command, Duration::from_secs(30))
}

#[test]
fn an_application_that_starts_before_its_sidecar_sends_no_plaintext() -> Result<()> {
    for with_file in [true, false] {
        let mut mesh = mesh(if with_file { "closed" } else { "closed-flags" })?;
        mesh.serve(apps::nginx, 8080)?;
        before_its_sidecar(&mut mesh.client.sidecar)?;
        let servers: Vec<SocketAddr> = mesh.servers[0].pod.addresses().map(|ip| (ip, 8080).into()).into();
        // What it is for: without it the application's bytes leave as they are.
        let bare = apps::curl(&mesh.client.pod, &apps::url(servers[0]))?;
        assert_eq!(bare.ok()?, "server-1\n");

        let capture = Capture::start(&mesh.fabric)?;
        let attached = attach(&mesh.client.sidecar, with_file)?.ok()?;
        assert!(
            attached.contains("refused until a proxy takes over"),
            "{attached}"
        );
        for at in servers.iter().copied().chain([mesh.vip4(80), mesh.vip6(80)]) {
            let lines = Dialogue::connect(&mesh.client.pod, at, &["send:GET / HTTP/1.0\r\n\r\n"])?.lines()?;
            assert_eq!(lines, ["connect errno ECONNREFUSED"], "{at}");
        }

        // An application that tries until it is answered, while the sidecar takes over.
        let mut patient = mesh.client.pod.command("sh");
        let tries = "until curl -q --noproxy '*' --silent --max-time 5 -g \"$0\"; do :; done";
        patient.args(["-c", tries]).arg(apps::url(servers[0]));
        let mut patient = mesh.client.pod.spawn(patient)?;
        mesh.client.sidecar.restart()?;
        assert!(patient.wait(wait::SOON)?.success(), "{}", patient.log());
        let recording = capture.stop()?;
        let plain = recording
            .segments()
            .iter()
            .filter(|s| s.syn && s.to.port() == 8080);
        let plain: Vec<SocketAddr> = plain.map(|s| s.to).collect();
        assert!(plain.is_empty(), "{plain:?}");
    }
    Ok(())
}

#[test]
fn nobody_comes_in_before_the_sidecar_in_either_mode() -> Result<()> {
    for (kind, server) in [
        ("closed-strict", Options::new("server").strict().privileged()),
        ("closed-permissive", Options::new("server").privileged()),
    ] {
        let plan = Plan {
            server,
            ..Plan::default()
        };
        let mut mesh = Mesh::of(kind, &plan)?;
        mesh.serve(apps::nginx, 8080)?;
        before_its_sidecar(&mut mesh.servers[0].sidecar)?;
        let outside = &mesh.outside;
        let server = mesh.servers[0].pod.clone();
        assert_eq!(
            apps::curl(outside, &apps::url((server.ipv4(), 8080)))?.ok()?,
            "server-1\n"
        );

        attach(&mesh.servers[0].sidecar, true)?.ok()?;
        for ip in server.addresses() {
            expect::connection_refused(outside, (ip, 8080).into())?;
        }
        // The pod's own programs still reach each other.
        let own = apps::curl(&server, "http://127.0.0.1:8080/")?;
        assert_eq!(own.ok()?, "server-1\n");
        mesh.servers[0].sidecar.restart()?;
        wait::until("the service answers", wait::SOON, || {
            apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80))).is_ok_and(|o| o.stdout == "server-1\n")
        })?;
    }
    Ok(())
}

#[test]
fn a_pod_that_has_a_sidecar_is_left_alone_and_what_cannot_be_attached_to_is_told() -> Result<()> {
    let mut mesh = mesh("closed-twice")?;
    mesh.serve(apps::nginx, 8080)?;
    let again = attach(&mesh.client.sidecar, true)?.ok()?;
    assert!(again.contains("already attached"), "{again}");
    assert_eq!(
        apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80)))?.ok()?,
        "server-1\n"
    );
    assert!(mesh.client.sidecar.is_ready());

    let mut command = mesh.client.pod.command(binaries::path("outrigger")?);
    command.args(["attach", "--interception", "none"]);
    let nothing = mesh.client.pod.run_within(command, wait::SOON)?;
    assert_ne!(nothing.code(), Some(0));
    assert!(nothing.stderr.contains("nothing to attach"), "{nothing:?}");

    let mut command = mesh.client.pod.command(binaries::path("outrigger")?);
    let absent = mesh.client.pod.cgroup().join("absent");
    command.arg("attach").arg("--cgroup").arg(&absent);
    command.arg("--pins").arg(mesh.client.sidecar.pins());
    let nobody = mesh.client.pod.run_within(command, wait::SOON)?;
    assert_ne!(nobody.code(), Some(0));
    assert!(
        nobody.stderr.contains(&absent.display().to_string()),
        "{nobody:?}"
    );
    Ok(())
}
