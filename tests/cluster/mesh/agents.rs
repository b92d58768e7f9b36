//! The agent of a node ends, however it ends: pods that run do not notice.

use harness::cluster::mesh::SYSTEM;
use harness::cluster::{Mesh, Namespace};
use harness::wait::{self, SOON};
use nix::sys::signal::Signal;

use super::load::{Load, served};
use super::{client, mesh_alone};
use crate::common::{cluster, named_server};

/// A client on each node under load, before and after `what` happens.
fn under_load(stem: &str, mesh: &Mesh, what: impl FnOnce(&Mesh)) -> Namespace<'static> {
    let clients = ["node-1", "node-2"].map(|node| (node, node));
    let namespace = served(stem, named_server(), &clients);
    let loads = ["node-1", "node-2"].map(|pod| Load::start(&namespace, pod));
    what(mesh);
    for load in loads {
        load.demand_all();
    }
    namespace
}

fn settled(mesh: &Mesh) {
    mesh.kubectl()
        .run(&[
            "--namespace",
            SYSTEM,
            "rollout",
            "status",
            "daemonset/outrigger-agent",
            "--timeout=120s",
        ])
        .unwrap();
}

#[test]
fn an_agent_that_is_killed_costs_no_connection_and_the_next_one_serves_new_pods() {
    let mesh = mesh_alone();
    let namespace = under_load("agent-killed", &mesh, |mesh| {
        for node in ["node-1", "node-2"] {
            let pod = mesh.agent(node).unwrap();
            let before = restarts(mesh, &pod);
            cluster()
                .signal_in_pod(SYSTEM, &pod, "agent", Signal::SIGKILL)
                .unwrap();
            wait::until("the kubelet starts the agent again", SOON * 6, || {
                restarts(mesh, &pod) > before
            })
            .unwrap();
        }
        settled(mesh);
    });
    namespace.apply(&[client("late", "node-2")]).unwrap();
    namespace.wait("pod/late", "condition=Ready").unwrap();
}

#[test]
fn agents_are_restarted_one_after_another_and_no_connection_fails() {
    let mesh = mesh_alone();
    under_load("agent-restarted", &mesh, |mesh| {
        let restart = [
            "--namespace",
            SYSTEM,
            "rollout",
            "restart",
            "daemonset/outrigger-agent",
        ];
        mesh.kubectl().run(&restart).unwrap();
        settled(mesh);
    });
}

fn restarts(mesh: &Mesh, pod: &str) -> u64 {
    let pod = mesh.kubectl().get(&["--namespace", SYSTEM, "pod", pod]).unwrap();
    pod["status"]["containerStatuses"][0]["restartCount"]
        .as_u64()
        .unwrap()
}
