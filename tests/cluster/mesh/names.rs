//! A mesh whose cluster is called otherwise: its DNS names, its own name, and where policies for all of it are.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use harness::cluster::{Mesh, Namespace};
use harness::wait::{self, SOON};
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
        let ask = || {
            let answer = answered(&namespace, "client", &["curl", "-sS", &url]);
            assert!(answer.starts_with("web-"), "{answer}");
        };
        let expected = format!("{name}/web.{name}.svc.corp.example");
        let count = || {
            let known = services(&mesh, &namespace);
            known
                .iter()
                .filter(|service| **service == expected.as_str())
                .count()
        };
        // An agent hears of it once the control process before has let go of its stream.
        wait::until("the service has its name of this domain", SOON * 3, || {
            ask();
            count() > 0
        })
        .unwrap();
        let before = count();
        (0..5).for_each(|_| ask());
        assert_eq!(count(), before + 5, "{:?}", services(&mesh, &namespace));
    }));
    mesh.upgrade(&[]).unwrap();
    test.unwrap_or_else(|failed| resume_unwind(failed));
}
