//! What a pod means.

use std::sync::Arc;

use super::*;
use crate::model::TunnelProtocol;
use crate::xds::WorkloadType;

fn told(pod: WorkloadPod) -> WorkloadResource {
    let name = pod.name.name.to_string();
    let world = World::with(vec![node("n1", "z1")], vec![pod], vec![], vec![]);
    world.of_pod(&name).clone()
}

#[test]
fn a_pod_is_a_workload_with_or_without_a_service() {
    let workload = told(pod("a", "10.0.0.1 fd00::1"));
    assert_eq!(
        (&*workload.uid, &*workload.name, &*workload.namespace),
        ("c1//Pod/demo/a", "a", "demo")
    );
    assert_eq!(
        (&*workload.trust_domain, &*workload.service_account),
        ("td.test", "web")
    );
    assert_eq!(
        (
            &*workload.node,
            &*workload.locality.region,
            &*workload.locality.zone
        ),
        ("n1", "r1", "z1")
    );
    assert_eq!((&*workload.cluster_id, workload.addresses.len()), ("c1", 2));
    assert!(workload.services.is_empty() && !workload.unhealthy && !workload.host_network);
}

#[test]
fn only_a_pod_with_our_sidecar_is_reached_through_a_tunnel() {
    let with = |has_proxy, host_network| {
        let mut pod = pod("a", "10.0.0.1");
        (pod.has_proxy, pod.host_network) = (has_proxy, host_network);
        told(pod)
    };
    assert_eq!(with(false, false).tunnel_protocol, TunnelProtocol::None);
    assert_eq!(with(true, false).tunnel_protocol, TunnelProtocol::Hbone);
    let on_host = with(true, true);
    assert_eq!(
        (on_host.tunnel_protocol, on_host.host_network),
        (TunnelProtocol::None, true)
    );
}

#[test]
fn a_pod_is_there_from_its_address_to_its_end() {
    let mut world = World::with(vec![], vec![pod("a", "")], vec![], vec![]);
    assert_eq!(world.known.len(), 0);
    world.pod(pod("a", "10.0.0.1"));
    assert_eq!(world.known.len(), 1);
    let mut finished = pod("a", "10.0.0.1");
    finished.finished = true;
    world.pod(finished);
    assert_eq!(world.known.len(), 0);
    world.take(Event::Pods(Change::Gone(pod("a", "10.0.0.1"))));
    assert_eq!(world.told, 0);
}

#[test]
fn pods_on_the_hosts_network_are_told_apart_by_their_names() {
    let host = |name: &str| {
        let mut pod = pod(name, "192.0.2.1");
        pod.host_network = true;
        pod
    };
    let slices = vec![
        slice("s1", "echo", &[at("192.0.2.1").of("a")]),
        slice("s2", "other", &[at("192.0.2.1").of("b"), at("192.0.2.1")]),
    ];
    let services = vec![service("echo"), service("other")];
    let world = World::with(vec![], vec![host("a"), host("b")], services, slices);
    assert_eq!(
        (world.ports("a", "echo").len(), world.ports("a", "other").len()),
        (1, 0)
    );
    assert_eq!(
        (world.ports("b", "echo").len(), world.ports("b", "other").len()),
        (0, 1)
    );
    // An endpoint that names none of them is the node, not any of them.
    assert!(
        world
            .workload("c1/discovery.k8s.io/EndpointSlice/demo/s2/192.0.2.1")
            .is_some()
    );
}

#[test]
fn an_address_that_two_pods_have_for_a_moment_is_the_ready_ones() {
    let mut old = pod("a-old", "10.0.0.1");
    old.ready = false;
    let slices = vec![slice("s1", "echo", &[at("10.0.0.1")])];
    let mut world = World::with(
        vec![],
        vec![old.clone(), pod("b-new", "10.0.0.1")],
        vec![service("echo")],
        slices,
    );
    assert_eq!(
        (
            world.ports("a-old", "echo").len(),
            world.ports("b-new", "echo").len()
        ),
        (0, 1)
    );
    old.ready = true;
    world.pod(old);
    assert_eq!(
        (
            world.ports("a-old", "echo").len(),
            world.ports("b-new", "echo").len()
        ),
        (1, 0)
    );
}

#[test]
fn a_node_that_gets_its_zone_later_moves_its_pods() {
    let mut world = World::with(
        vec![],
        vec![pod("a", "10.0.0.1"), pod("b", "10.0.0.2")],
        vec![],
        vec![],
    );
    assert_eq!(world.of_pod("a").locality.zone, "");
    world.take(Event::Nodes(Change::Applied(node("n1", "z1"))));
    assert_eq!((&*world.of_pod("a").locality.zone, world.told), ("z1", 2));
    world.take(Event::Nodes(Change::Applied(node("n2", "z2"))));
    assert_eq!(world.told, 0);
    let mut moved = pod("a", "10.0.0.1");
    moved.node = "n2".into();
    world.pod(moved);
    assert_eq!(world.of_pod("a").locality.zone, "z2");
    world.take(Event::Nodes(Change::Gone(node("n1", "z1"))));
    assert_eq!((&*world.of_pod("b").locality.zone, world.told), ("", 1));
}

#[test]
fn a_pod_is_called_after_what_made_it_and_its_labels() {
    type Labels = &'static [(&'static str, &'static str)];
    type Case = (
        Option<(&'static str, &'static str)>,
        Labels,
        WorkloadType,
        &'static str,
        &'static str,
    );
    let cases: [Case; 7] = [
        (None, &[], WorkloadType::Pod, "a", "a"),
        (None, &[("app", "x")], WorkloadType::Pod, "a", "x"),
        (
            None,
            &[("app", "x"), ("app.kubernetes.io/name", "y")],
            WorkloadType::Pod,
            "a",
            "y",
        ),
        (
            Some(("ReplicaSet", "web-5d4f")),
            &[("pod-template-hash", "5d4f")],
            WorkloadType::Deployment,
            "web",
            "web",
        ),
        (Some(("StatefulSet", "db")), &[], WorkloadType::Pod, "db", "db"),
        (Some(("Job", "once")), &[], WorkloadType::Job, "once", "once"),
        (
            Some(("Job", "nightly-29385120")),
            &[],
            WorkloadType::CronJob,
            "nightly",
            "nightly",
        ),
    ];
    for (owner, labels, kind, name, canonical) in cases {
        let mut pod = pod("a", "10.0.0.1");
        pod.owner = owner.map(|(kind, name)| Owner {
            kind: kind.into(),
            name: name.into(),
        });
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        pod.labels = Arc::new(labels.collect());
        let told = told(pod);
        assert_eq!(
            (told.workload_type, &*told.workload_name),
            (kind, name),
            "{owner:?}"
        );
        assert_eq!(
            (&*told.canonical_name, &*told.canonical_revision),
            (canonical, "latest")
        );
    }
}
