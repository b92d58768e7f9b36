//! The end of a node's agent: nothing stays where no pod is installed, and everything where one is.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::apps;
use harness::mesh::{Mesh, Plan, agent, sidecar};
use harness::{Fabric, Pod, Process, cgroup, wait};

/// What is there of the agent: pins and directories of pins, and sockets.
fn left(fabric: &Fabric) -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(&fabric.agent_pins(), &mut found);
    let of_agent = fabric.agent_socket();
    let beside = ["agent-admin.sock", "agent-pods"].map(|name| of_agent.with_file_name(name));
    let all = [of_agent.with_extension("handover"), of_agent]
        .into_iter()
        .chain(beside);
    all.filter(|path| path.exists()).for_each(|path| found.push(path));
    found
}

fn collect(path: &Path, found: &mut Vec<PathBuf>) {
    if path.exists() {
        found.push(path.into());
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        collect(&entry.path(), found);
    }
}

fn sleeping(pod: &Pod) -> Result<Process> {
    let mut command = pod.command("sleep");
    command.arg("1000");
    pod.spawn(command)
}

fn nothing_is_left(fabric: &Fabric) -> Result<()> {
    let left = left(fabric);
    ensure!(left.is_empty(), "{left:?} is left");
    Ok(())
}

#[test]
fn an_agent_without_pods_leaves_nothing_when_it_is_told_to_end() -> Result<()> {
    let fabric = Fabric::new("agent-ends")?;
    fabric.start_agent()?;
    let maps = fabric.agent_pins().join("node/maps");
    ensure!(fs::read_dir(&maps)?.count() > 0, "nothing is pinned");
    let log = fabric.end_agent()?;
    ensure!(log.contains("nothing of this agent stays"), "{log}");
    nothing_is_left(&fabric)?;

    // Killed it cannot, and the next one finds what it left.
    fabric.start_agent()?;
    fabric.kill_agent();
    ensure!(fs::read_dir(&maps)?.count() > 0, "nothing is pinned");
    fabric.start_agent()?;
    fabric.end_agent()?;
    nothing_is_left(&fabric)
}

#[test]
fn an_agent_that_ends_takes_nothing_from_pods_that_run_and_the_next_one_has_them() -> Result<()> {
    let mut mesh = Mesh::of("agent-ends-pods", &Plan::by_agent())?;
    mesh.serve(apps::nginx, 8080)?;
    let curl = |mesh: &Mesh| apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80)))?.ok();
    let before = left(&mesh.fabric);
    let log = mesh.fabric.end_agent()?;
    ensure!(log.contains("what is pinned stays"), "{log}");
    let pins = mesh.fabric.agent_pins();
    let pinned = |all: &[PathBuf]| -> Vec<PathBuf> {
        all.iter()
            .filter(|path| path.starts_with(&pins))
            .cloned()
            .collect()
    };
    assert_eq!(pinned(&left(&mesh.fabric)), pinned(&before));
    curl(&mesh)?;

    mesh.fabric.start_agent()?;
    let log = mesh.fabric.agent_log();
    ensure!(log.matches("is adopted").count() == 2, "{log}");
    curl(&mesh)?;

    // One after the other: with the last one the rest goes.
    let (client, server) = (
        mesh.client.pod.cgroup().to_owned(),
        mesh.server().pod.cgroup().to_owned(),
    );
    mesh.client.sidecar.kill();
    cgroup::remove_tree(&client);
    mesh.fabric.end_agent()?;
    ensure!(mesh.servers[0].sidecar.pins().exists(), "the server runs");
    ensure!(
        !mesh.client.sidecar.pins().exists(),
        "the client's cgroup is gone"
    );
    mesh.fabric.start_agent()?;
    mesh.programs.clear();
    mesh.servers[0].sidecar.kill();
    // Nobody has told the agent of it yet.
    cgroup::remove_tree(&server);
    mesh.fabric.end_agent()?;
    nothing_is_left(&mesh.fabric)
}

#[test]
fn an_agent_that_ends_waits_a_moment_for_pods_whose_last_process_has_ended() -> Result<()> {
    let fabric = Fabric::new("agent-ends-emptied")?;
    fabric.start_agent()?;
    let pod = fabric.pod("pod")?;
    let mut program = sleeping(&pod)?;
    agent::ask(&pod, &["install"])?.ok()?;
    let pins = fabric.agent_pins().join("pods/pod");
    wait::until("the pod is installed", wait::SOON, || pins.join("links").exists())?;
    program.kill();
    program.wait(wait::SOON)?;
    thread::scope(|scope| -> Result<()> {
        let ending = scope.spawn(|| fabric.end_agent());
        wait::until("the agent waits", wait::SOON, || {
            fabric.agent_log().contains("the agent stops")
        })?;
        cgroup::remove_tree(pod.cgroup());
        ending.join().expect("no panic")?;
        Ok(())
    })?;
    nothing_is_left(&fabric)
}

/// Whatever comes first, what is pinned of the pod never is without what is pinned of the node.
#[test]
fn a_pod_that_is_asked_for_while_the_agent_ends_is_installed_whole_or_not_at_all() -> Result<()> {
    let fabric = Fabric::new("agent-ends-race")?;
    let pod = fabric.pod("pod")?;
    let _program = sleeping(&pod)?;
    let pins = fabric.agent_pins();
    let (mut installed, mut gone) = (0, 0);
    for round in 0..16 {
        fabric.start_agent()?;
        thread::scope(|scope| -> Result<()> {
            let ending = scope.spawn(|| {
                wait::pass(Duration::from_millis(round * 6));
                fabric.end_agent()
            });
            // It may find nobody any more.
            let _ = agent::ask(&pod, &["install"])?;
            let log = ending.join().expect("no panic")?;
            let has = |path: &str| fs::read_dir(pins.join(path)).is_ok_and(|mut all| all.next().is_some());
            match pins.join("pods/pod").exists() {
                true => {
                    ensure!(
                        has("node/maps") && has("pods/pod/maps"),
                        "half of it is there: {log}"
                    );
                    installed += 1;
                }
                false => {
                    nothing_is_left(&fabric).context(log)?;
                    gone += 1;
                }
            }
            Ok(())
        })?;
        if pins.exists() {
            sidecar::detach(&pins.join("pods/pod"), &["--force"])?;
        }
    }
    println!("installed {installed} times, gone {gone} times");
    Ok(())
}
