//! What EndpointSlices mean.

use super::*;

/// The service `echo`, and the pods a, b and c of 10.0.0.1 to 3.
fn world(slices: &[Slice]) -> World {
    let pods = vec![pod("a", "10.0.0.1"), pod("b", "10.0.0.2"), pod("c", "10.0.0.3")];
    World::with(vec![], pods, vec![service("echo")], slices.to_vec())
}

fn a() -> SliceEndpoint {
    at("10.0.0.1").of("a")
}

fn b() -> SliceEndpoint {
    at("10.0.0.2").of("b")
}

fn c() -> SliceEndpoint {
    at("10.0.0.3").of("c")
}

#[test]
fn endpoints_serve_by_their_conditions() {
    let cases: [(&str, &[SliceEndpoint], &[&str]); 7] = [
        ("ready", &[a(), b()], &["10.0.0.1", "10.0.0.2"]),
        ("not ready", &[a(), b().ready(false)], &["10.0.0.1"]),
        ("nobody is ready", &[a().ready(false), b().ready(false)], &[]),
        (
            "it ends while another is ready",
            &[a(), b().terminating(true)],
            &["10.0.0.1"],
        ),
        (
            "all end and serve still",
            &[a().terminating(true), b().terminating(true), c().ready(false)],
            &["10.0.0.1", "10.0.0.2"],
        ),
        (
            "all end, one serves no more",
            &[a().terminating(true), b().terminating(false)],
            &["10.0.0.1"],
        ),
        ("nobody is left", &[], &[]),
    ];
    for (why, endpoints, expected) in &cases {
        let fresh = world(&[slice("s1", "echo", endpoints)]);
        assert_eq!(fresh.used("echo"), *expected, "{why}");
    }
    // Each after each other, and to where it came from.
    let mut one = world(&[]);
    for (_, from, _) in &cases {
        for (why, to, expected) in &cases {
            one.slice(slice("s1", "echo", from));
            one.slice(slice("s1", "echo", to));
            assert_eq!(one.used("echo"), *expected, "{why}");
        }
    }
}

#[test]
fn whoever_is_not_ready_stands_there_as_unhealthy() {
    let world = world(&[slice("s1", "echo", &[a().ready(false), b()])]);
    assert!(world.of_pod("a").unhealthy);
    assert_eq!(world.ports("a", "echo"), [(80, 8080)]);
    assert!(!world.of_pod("b").unhealthy);
}

#[test]
fn an_endpoint_that_is_ready_for_one_service_only_is_left_out_of_the_other() {
    let mut world = world(&[
        slice("s1", "echo", &[a()]),
        slice("s2", "other", &[a().ready(false)]),
    ]);
    world.service(service("other"));
    assert!(!world.of_pod("a").unhealthy);
    assert_eq!(world.ports("a", "echo"), [(80, 8080)]);
    assert_eq!(world.ports("a", "other"), []);
}

#[test]
fn a_service_that_publishes_who_is_not_ready_makes_nobody_healthy() {
    let mut world = world(&[
        slice("s1", "echo", &[a().ready(false)]),
        slice("s2", "peers", &[a()]),
    ]);
    let mut peers = service("peers");
    peers.publish_not_ready = true;
    world.service(peers);
    assert!(world.of_pod("a").unhealthy);
    assert_eq!(world.ports("a", "peers"), [(80, 8080)]);
    // Of one that stands nowhere else, it is its own word that counts.
    let mut starting = pod("b", "10.0.0.2");
    starting.ready = false;
    world.pod(starting);
    world.slice(slice("s2", "peers", &[b()]));
    assert!(world.of_pod("b").unhealthy);
    assert_eq!(world.ports("b", "peers"), [(80, 8080)]);
}

#[test]
fn many_slices_are_one_service_and_what_stands_in_two_is_one_endpoint() {
    let mut world = world(&[
        slice("s1", "echo", &[a(), b().ready(false)]),
        slice("s2", "echo", &[b(), c()]),
        slice("s3", "echo", &[at("192.0.2.9")]),
        slice("s4", "echo", &[at("192.0.2.9")]),
    ]);
    let all = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "192.0.2.9"];
    assert_eq!(world.used("echo"), all);
    assert!(
        world
            .workload("c1/discovery.k8s.io/EndpointSlice/demo/s3/192.0.2.9")
            .is_some()
    );
    world.take(Event::Slices(Change::Gone(slice("s3", "echo", &[]))));
    assert_eq!(world.used("echo"), all);
    assert!(
        world
            .workload("c1/discovery.k8s.io/EndpointSlice/demo/s3/192.0.2.9")
            .is_none()
    );
    assert!(
        world
            .workload("c1/discovery.k8s.io/EndpointSlice/demo/s4/192.0.2.9")
            .is_some()
    );
    world.take(Event::Slices(Change::Gone(slice("s2", "echo", &[]))));
    assert_eq!(world.used("echo"), ["10.0.0.1", "192.0.2.9"]);
}

#[test]
fn what_stands_in_two_slices_counts_once_where_all_have_to_have_hints() {
    let hinted = |endpoint: SliceEndpoint| endpoint.hints(true, false);
    let balancing = |world: &World| world.of_service("echo").unwrap().load_balancing.clone();
    let mut world = world(&[slice("s1", "echo", &[hinted(a()), hinted(b())])]);
    let near = balancing(&world);
    world.slice(slice("s2", "echo", &[hinted(b())]));
    assert_eq!(balancing(&world), near);
    world.slice(slice("s2", "echo", &[hinted(b()), c()]));
    assert_ne!(balancing(&world), near, "one of them is for everybody");
}

#[test]
fn an_endpoint_is_no_pod_of_that_name_in_another_namespace() {
    let mut elsewhere = pod("a", "10.0.0.1");
    elsewhere.name = ObjectName::new("other", "a");
    let slices = vec![slice("s1", "echo", &[a()])];
    let world = World::with(vec![], vec![elsewhere], vec![service("echo")], slices);
    assert_eq!(world.used("echo"), Vec::<String>::new());
    assert!(world.workload("c1//Pod/other/a").unwrap().services.is_empty());
}

#[test]
fn a_named_port_is_another_number_for_each_pod() {
    let mut named = service("echo");
    named.ports = vec![port("web", 80, None), port("admin", 81, None)];
    let mut old = slice("s1", "echo", &[a()]);
    old.ports = vec![("web".into(), 8080)];
    let mut new = slice("s2", "echo", &[b()]);
    new.ports = vec![("web".into(), 9090), ("admin".into(), 9091), ("other".into(), 1)];
    let mut world = world(&[old, new]);
    world.service(named);
    assert_eq!(world.ports("a", "echo"), [(80, 8080)]);
    assert_eq!(world.ports("b", "echo"), [(80, 9090), (81, 9091)]);
}

#[test]
fn addresses_of_both_families_are_one_workload() {
    let mut v6 = slice("s2", "echo", &[at("fd00::1").of("a")]);
    v6.ports = vec![("web".into(), 8080)];
    let mut world = world(&[slice("s1", "echo", &[a()]), v6]);
    world.pod(pod("a", "10.0.0.1 fd00::1"));
    assert_eq!(world.of_pod("a").addresses.len(), 2);
    assert_eq!(world.ports("a", "echo"), [(80, 8080)]);
    assert_eq!(world.used("echo"), ["10.0.0.1"]);
}

#[test]
fn what_is_no_pod_is_a_workload_of_its_slice() {
    let world = world(&[slice(
        "hand",
        "echo",
        &[at("192.0.2.9").on("n7", "z7"), at("10.0.0.1")],
    )]);
    let uid = "c1/discovery.k8s.io/EndpointSlice/demo/hand/192.0.2.9";
    let workload = world.workload(uid).unwrap();
    assert_eq!(workload.tunnel_protocol, crate::model::TunnelProtocol::None);
    assert_eq!(ports(workload, "echo"), [(80, 8080)]);
    assert_eq!((&*workload.node, &*workload.locality.zone), ("n7", "z7"));
    assert!(workload.host_network, "its address may be somebody else's, too");
    assert_eq!(
        world.ports("a", "echo"),
        [(80, 8080)],
        "a pod's address is the pod"
    );
    assert_eq!(world.known.len(), 5, "3 pods, 1 service and this");
}

#[test]
fn a_slice_speaks_only_for_pods_that_have_the_address() {
    let mut world = world(&[slice(
        "s1",
        "echo",
        &[at("10.0.0.2").of("a"), at("10.0.0.99").of("later")],
    )]);
    assert_eq!(world.used("echo"), Vec::<String>::new());
    world.pod(pod("later", "10.0.0.99"));
    assert_eq!(world.used("echo"), ["10.0.0.99"]);
    world.take(Event::Pods(Change::Gone(pod("later", "10.0.0.99"))));
    assert_eq!(world.used("echo"), Vec::<String>::new());
}

#[test]
fn an_address_that_becomes_a_pods_is_no_longer_the_slices() {
    let mut world = world(&[slice("hand", "echo", &[at("10.0.0.9")])]);
    let uid = "c1/discovery.k8s.io/EndpointSlice/demo/hand/10.0.0.9";
    assert!(world.workload(uid).is_some());
    world.pod(pod("d", "10.0.0.9"));
    assert!(world.workload(uid).is_none());
    assert_eq!(world.ports("d", "echo"), [(80, 8080)]);
    world.take(Event::Pods(Change::Gone(pod("d", "10.0.0.9"))));
    assert!(world.workload(uid).is_some());
}

#[test]
fn a_slice_may_come_before_its_service_and_move_to_another() {
    let mut world = world(&[slice("s1", "late", &[a()])]);
    assert_eq!(world.used("late"), Vec::<String>::new());
    world.service(service("late"));
    assert_eq!(world.used("late"), ["10.0.0.1"]);
    world.slice(slice("s1", "echo", &[a()]));
    assert_eq!((world.used("late").len(), world.used("echo").len()), (0, 1));
    let mut nobodys = slice("s1", "echo", &[a()]);
    nobodys.service = None;
    world.slice(nobodys);
    assert_eq!(world.used("echo"), Vec::<String>::new());
}
