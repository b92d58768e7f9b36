//! Who owns a pod: its first proxy, until that has ended. How it hands the pod over is `upgrade.rs`. By proxies that install
//! interception themselves: of those that an agent serves the agent knows which one has the pod (`agent.rs`).

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

use anyhow::{Context, Result, ensure};
use harness::apps;
use harness::mesh::{Plan, binaries, ports};
use harness::process::Output;
use harness::{Mesh, Sidecar, http, wait};

const STATUS: u16 = 25020;

fn mesh(name: &str) -> Result<Mesh> {
    Mesh::of(name, &Plan::privileged())
}

/// A proxy for the pod of a sidecar, with other ports and sockets. The tunnel port is the mesh's: peers are dialled at it.
fn another(sidecar: &Sidecar, hbone: u16) -> Result<Command> {
    let first = fs::read_to_string(sidecar.config())?;
    let listen = format!("listen: {{adminSocket: {}", sidecar.admin_socket().display());
    ensure!(first.contains(&listen), "no {listen:?} in {first}");
    let others = format!(
        "listen: {{admin: none, status: {STATUS}, hbone: {hbone}, adminSocket: {}.2",
        sidecar.admin_socket().display()
    );
    let config = sidecar.dir().join("another.yaml");
    let second = first
        .replace(&listen, &others)
        .replace("pins:", "takeover: refuse, pins:");
    fs::write(&config, second)?;
    let mut command = sidecar.pod().command(binaries::path("outrigger")?);
    command.arg("proxy").arg("--config").arg(config);
    Ok(command)
}

fn detach(sidecar: &Sidecar, options: &[&str]) -> Result<Output> {
    let mut command = sidecar.pod().command(binaries::path("outrigger")?);
    command
        .args(["detach", "--pins"])
        .arg(sidecar.pins())
        .args(options);
    sidecar.pod().run_within(command, wait::SOON)
}

/// That it was refused, with the first proxy and its directory named.
fn names_the_owner(refused: &Output, sidecar: &Sidecar) -> Result<()> {
    let pid = sidecar.pid().context("it runs")?;
    let (owner, pins) = (format!("process {pid},"), sidecar.pins());
    ensure!(!refused.status.success(), "{refused:?}");
    ensure!(
        refused.stderr.contains(&owner) && refused.stderr.contains(&pins.display().to_string()),
        "{owner} {} in {}",
        pins.display(),
        refused.stderr
    );
    Ok(())
}

#[test]
fn a_second_proxy_is_refused_and_no_connection_of_the_pod_notices() -> Result<()> {
    let mut mesh = mesh("two-proxies")?;
    mesh.serve(apps::nginx, 8080)?;
    let url = apps::url(mesh.vip4(80));
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let enough = |more: usize| {
        let goal = answered.load(Relaxed) + more;
        wait::until("connections go on", wait::SOON, || {
            answered.load(Relaxed) >= goal || done.load(Relaxed)
        })
    };
    thread::scope(|scope| {
        let dialler = scope.spawn(|| -> Result<()> {
            while !done.load(Relaxed) {
                let answer = apps::curl(&mesh.client.pod, &url).and_then(|output| output.ok());
                if answer.is_err() {
                    done.store(true, Relaxed);
                }
                ensure!(answer? == "server-1\n", "another answer");
                answered.fetch_add(1, Relaxed);
            }
            Ok(())
        });
        let refuse = || -> Result<()> {
            enough(1)?;
            for sidecar in [&mesh.client.sidecar, &mesh.server().sidecar] {
                for _ in 0..3 {
                    let command = another(sidecar, 25008)?;
                    names_the_owner(&sidecar.pod().run_within(command, wait::SOON)?, sidecar)?;
                }
            }
            enough(3)
        };
        let refused = refuse();
        done.store(true, Relaxed);
        dialler.join().expect("the dialler does not panic")?;
        refused
    })?;
    for sidecar in [&mesh.client.sidecar, &mesh.server().sidecar] {
        assert!(sidecar.is_ready());
    }
    Ok(())
}

#[test]
fn once_the_first_proxy_was_killed_another_one_serves() -> Result<()> {
    let mut mesh = mesh("next-proxy")?;
    mesh.serve(apps::nginx, 8080)?;
    let command = another(&mesh.client.sidecar, ports::HBONE)?;
    mesh.client.sidecar.kill();
    let (pod, at) = (&mesh.client.pod, (mesh.client.pod.ipv4(), STATUS).into());
    let mut second = pod.spawn(command)?;
    second.until("is ready", |_| {
        http::get(pod.netns(), at, "/readyz").is_ok_and(|(code, _)| code == 200)
    })?;
    assert_eq!(apps::curl(pod, &apps::url(mesh.vip4(80)))?.ok()?, "server-1\n");
    Ok(())
}

#[test]
fn the_hooks_of_a_running_proxy_are_detached_only_by_force() -> Result<()> {
    let mut mesh = mesh("detach-running")?;
    mesh.serve(apps::nginx, 8080)?;
    let sidecar = &mesh.client.sidecar;
    let refused = detach(sidecar, &[])?;
    names_the_owner(&refused, sidecar)?;
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    let ask = || apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80))).and_then(|output| output.ok());
    assert_eq!(ask()?, "server-1\n");

    detach(sidecar, &["--force"])?.ok()?;
    assert!(!sidecar.pins().exists());
    ask().expect_err("nobody serves the virtual address without the hooks");
    Ok(())
}
