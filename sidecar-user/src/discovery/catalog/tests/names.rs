//! A cluster that is called otherwise, in every name that is told of it.

use serde_json::json;

use super::policies::policy;
use super::*;
use crate::model::authorization::Scope;

fn elsewhere() -> World {
    let mut world = World::named(Names {
        cluster: "east".into(),
        trust_domain: "td.test".into(),
        domain: "corp.example".into(),
        root_namespace: "mesh-root".into(),
    });
    world.list(
        vec![],
        vec![pod("a", "10.0.0.1")],
        vec![service("echo")],
        vec![slice("s1", "echo", &[at("10.0.0.1").of("a"), at("192.0.2.1")])],
    );
    world
}

#[test]
fn another_cluster_domain_is_in_the_names_of_services_and_nowhere_is_the_usual_one() {
    let world = elsewhere();
    let key = Key::address("demo/echo.demo.svc.corp.example");
    let Some(Resource::Service(service)) = world.known.get(&key) else {
        panic!("{:?}", world.known.keys());
    };
    assert_eq!(&*service.hostname, "echo.demo.svc.corp.example");
    let pod = world.workload("east//Pod/demo/a").expect("it is told");
    let behind: Vec<&str> = pod.services.keys().map(|name| &*name.hostname).collect();
    assert_eq!(behind, ["echo.demo.svc.corp.example"]);
    for resource in world.known.values() {
        let told = format!("{resource:?}");
        assert!(!told.contains("cluster.local"), "{told}");
    }
}

#[test]
fn another_name_of_the_cluster_is_in_the_uid_of_each_workload() {
    let world = elsewhere();
    let workloads = world.known.values().filter_map(|resource| match resource {
        Resource::Workload(workload) => Some(workload),
        _ => None,
    });
    let workloads: Vec<_> = workloads.collect();
    assert_eq!(workloads.len(), 2, "the pod, and the endpoint that is none");
    for workload in workloads {
        assert_eq!(workload.cluster_id, "east");
        assert!(workload.uid.starts_with("east/"), "{}", workload.uid);
    }
}

#[test]
fn policies_of_another_root_namespace_are_for_the_mesh_and_those_of_the_usual_one_for_themselves() {
    let mut world = elsewhere();
    let strict = || json!({"mtls": {"mode": "STRICT"}});
    let selected = |world: &World| {
        world
            .workload("east//Pod/demo/a")
            .unwrap()
            .authorization_policies
            .len()
    };
    world.take(Event::Peers(Change::Applied(policy(
        "default",
        "istio-system",
        strict(),
    ))));
    assert_eq!(selected(&world), 0, "it is a namespace like any");
    world.take(Event::Peers(Change::Applied(policy(
        "default",
        "mesh-root",
        strict(),
    ))));
    assert_eq!(selected(&world), 1);

    let nobody = || json!({});
    for (namespace, scope) in [("istio-system", Scope::Namespace), ("mesh-root", Scope::Global)] {
        world.take(Event::Authorizations(Change::Applied(policy(
            "nobody",
            namespace,
            nobody(),
        ))));
        let key = Key::authorization(&format!("{namespace}/nobody"));
        let Some(Resource::Policy(told)) = world.known.get(&key) else {
            panic!("{:?}", world.known.keys());
        };
        assert_eq!(told.scope, scope, "{namespace}");
    }
}
