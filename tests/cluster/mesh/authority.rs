//! The control plane goes away: pods that run live on, new ones wait, and both are served once it is there again.

use harness::cluster::mesh::SYSTEM;
use harness::cluster::{Mesh, Namespace};
use harness::wait::{self, SOON};

use super::load::{Load, served};
use super::{client, mesh_alone};
use crate::common::named_server;

fn scale(mesh: &Mesh, replicas: u32) {
    let to = format!("--replicas={replicas}");
    let kubectl = mesh.kubectl();
    kubectl
        .run(&[
            "--namespace",
            SYSTEM,
            "scale",
            "deployment/outrigger-control",
            &to,
        ])
        .unwrap();
    if replicas == 0 {
        wait::until("no replica is left", SOON * 3, || {
            let label = "--selector=app.kubernetes.io/component=control";
            let pods = kubectl.get(&["--namespace", SYSTEM, "pods", label]).unwrap();
            pods["items"].as_array().is_some_and(Vec::is_empty)
        })
        .unwrap();
    } else {
        let status = [
            "rollout",
            "status",
            "deployment/outrigger-control",
            "--timeout=120s",
        ];
        kubectl
            .run(&[&["--namespace", SYSTEM], &status[..]].concat())
            .unwrap();
    }
}

/// Brings the control plane back for the other tests, also where this one has failed.
struct Back<'m>(&'m Mesh<'static>);

impl Drop for Back<'_> {
    fn drop(&mut self) {
        let replicas = ["scale", "deployment/outrigger-control", "--replicas=2"];
        let _ = self
            .0
            .kubectl()
            .output(&[&["--namespace", SYSTEM], &replicas[..]].concat());
    }
}

/// Renewals that the sidecar of a pod has tried in vain.
fn failed_renewals(namespace: &Namespace, pod: &str) -> u64 {
    let address = namespace.get(&["pod", pod]).unwrap()["status"]["podIP"]
        .as_str()
        .unwrap()
        .to_owned();
    let metrics = namespace
        .exec(pod, &["curl", "-sS", &format!("http://{address}:15020/metrics")])
        .unwrap()
        .ok()
        .unwrap();
    let line = metrics
        .lines()
        .find(|line| line.starts_with("outrigger_identity_renewal_errors_total"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .unwrap_or(0)
}

#[test]
fn without_its_control_plane_the_mesh_serves_on_over_several_renewals_and_new_pods_wait() {
    let mesh = mesh_alone();
    mesh.upgrade(&["proxy.refresh=2s"]).unwrap();
    let namespace = served("authority", named_server(), &[("client", "node-1")]);
    let load = Load::start(&namespace, "client");

    let _back = Back(&mesh);
    scale(&mesh, 0);
    let before = failed_renewals(&namespace, "client");
    wait::until("several renewals fail", SOON * 6, || {
        failed_renewals(&namespace, "client") >= before + 3
    })
    .unwrap();
    load.goes_on();
    namespace.apply(&[client("new", "node-2")]).unwrap();
    wait::until("the new pod waits in its sidecar", SOON * 3, || {
        let pod = namespace.get(&["pod", "new"]).unwrap();
        let sidecar = &pod["status"]["initContainerStatuses"][0];
        sidecar["state"]["running"].is_object() && sidecar["started"] == false
    })
    .unwrap();
    // `check` on its node says why.
    let agent = mesh.agent("node-2").unwrap();
    let name = format!("{}/new", namespace.name());
    wait::until("check tells of it", SOON * 3, || {
        let said = mesh
            .kubectl()
            .exec(SYSTEM, &agent, &["outrigger", "check"])
            .unwrap();
        let line = said
            .stdout
            .lines()
            .find(|line| line.contains(&name))
            .unwrap_or_default();
        line.contains("its sidecar is not ready") && line.contains("identity")
    })
    .unwrap();

    scale(&mesh, 2);
    namespace.wait("pod/new", "condition=Ready").unwrap();
    load.demand_all();
    mesh.upgrade(&[]).unwrap();
}
