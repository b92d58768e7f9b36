//! A mesh whose cluster is called otherwise: its DNS names, its own name, and where policies for all of it are.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use harness::cluster::{Mesh, Namespace};
use serde_json::Value;

use super::{client, mesh_alone, meshed, web};
use crate::common::answered;

const VALUES: [&str; 3] = [
    "clusterDomain=corp.example",
    "clusterId=east",
    "rootNamespace=mesh-root",
];

/// The services of a pod's connections that succeeded.
fn services(mesh: &Mesh, namespace: &Namespace) -> Vec<Value> {
    let pod = format!("{}/client", namespace.name());
    let flows = mesh.flows("node-1").unwrap().into_iter();
    let ours = flows.filter(|flow| flow["pod"] == pod.as_str() && flow["transport"] == "hbone");
    ours.map(|flow| flow["service"].clone()).collect()
}

#[test]
fn a_mesh_of_another_cluster_domain_knows_its_services_by_their_names_there() {
    let mesh = mesh_alone();
    let test = catch_unwind(AssertUnwindSafe(|| {
        mesh.upgrade(&VALUES).unwrap();
        let namespace = meshed("mesh-domain");
        namespace.apply(&web("web")).unwrap();
        namespace.apply(&[client("client", "node-1")]).unwrap();
        namespace.wait("deployment/web", "condition=Available").unwrap();
        namespace.wait("pod/client", "condition=Ready").unwrap();
        let name = namespace.name();
        let url = format!("http://web.{name}.svc.corp.example/");
        assert!(answered(&namespace, "client", &["curl", "-sS", &url]).starts_with("web-"));
        let known = services(&mesh, &namespace);
        let expected = format!("{name}/web.{name}.svc.corp.example");
        assert!(
            !known.is_empty() && known.iter().all(|service| *service == expected.as_str()),
            "{expected}: {known:?}"
        );
    }));
    mesh.upgrade(&[]).unwrap();
    test.unwrap_or_else(|failed| resume_unwind(failed));
}
