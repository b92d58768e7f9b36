//! Routing facts on built snapshots. What nearness decides is `near.rs`.

mod near;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::model::{Locality, ServiceName};

const VIP: &str = "10.96.0.1";

fn name() -> ServiceName {
    ServiceName {
        namespace: "t".into(),
        hostname: "echo.t.svc".into(),
    }
}

fn service(vips: &[&str], ports: &[(u16, u16)]) -> Service {
    Service {
        name: name(),
        vips: vips.iter().map(|v| v.parse().unwrap()).collect(),
        ports: ports.iter().copied().collect(),
        ..Service::default()
    }
}

fn workload(n: u8, protocol: TunnelProtocol) -> Workload {
    Workload {
        uid: format!("w{n}"),
        name: format!("w{n}"),
        namespace: "t".into(),
        identity: SpiffeId::new("td.test", "t", &format!("w{n}")).unwrap(),
        addresses: vec![
            format!("10.1.0.{n}").parse().unwrap(),
            format!("fd00::{n}").parse().unwrap(),
        ],
        protocol,
        healthy: true,
        capacity: 1,
        locality: Locality::default(),
        node: String::new(),
    }
}

fn world(workloads: Vec<Workload>) -> Snapshot {
    let serves: BTreeMap<_, _> = [(name(), BTreeMap::from([(80, 8080)]))].into();
    let with = workloads.into_iter().map(|w| (w, serves.clone())).collect();
    Snapshot::build(
        &Snapshot::default(),
        vec![service(&[VIP, "fd96::1"], &[(80, 8080)])],
        with,
    )
}

/// A small generator, good enough to visit every choice and the same on each run.
fn dice() -> impl FnMut(usize) -> usize {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    move |n| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % n
    }
}

/// A client of which nobody knows where it runs.
fn ask(
    world: &Snapshot,
    unknown: Unknown,
    dst: &str,
    tried: &[SocketAddr],
    random: &mut dyn FnMut(usize) -> usize,
) -> Route {
    let request = Request {
        dst: OriginalDst::new(dst.parse().unwrap()),
        unknown,
        tried,
        from: Location {
            locality: &Locality::unknown(),
            node: "",
        },
        stays_with: None,
    };
    route(world, &request, random)
}

fn to(world: &Snapshot, dst: &str, tried: &[SocketAddr]) -> Route {
    ask(world, Unknown::PassThrough, dst, tried, &mut dice())
}

#[test]
fn a_vip_goes_to_the_target_port_in_the_family_that_was_dialled() {
    let world = world(vec![workload(1, TunnelProtocol::Hbone)]);
    for (dst, endpoint) in [
        ("10.96.0.1:80", "10.1.0.1:8080"),
        ("[fd96::1]:80", "[fd00::1]:8080"),
    ] {
        let Route::Mesh(up) = to(&world, dst, &[]) else {
            panic!("{dst} is in the mesh")
        };
        assert_eq!(up.endpoint, endpoint.parse().unwrap());
        assert_eq!(up.expected(), [workload(1, TunnelProtocol::Hbone).identity]);
    }
}

#[test]
fn an_endpoint_without_the_family_is_taken_only_where_none_has_it() {
    let only = |n: u8, v4: bool| {
        let mut workload = workload(n, TunnelProtocol::None);
        workload.addresses.retain(|ip| ip.is_ipv4() == v4);
        workload
    };
    let apart = world(vec![only(1, true), only(2, false)]);
    let mut dice = dice();
    let mut reached = |world: &Snapshot, dst: &str| -> BTreeSet<String> {
        let routes = (0..50).map(|_| ask(world, Unknown::PassThrough, dst, &[], &mut dice));
        routes
            .map(|route| route.upstream().unwrap().endpoint.to_string())
            .collect()
    };
    let one = |at: &str| BTreeSet::from([at.to_owned()]);
    assert_eq!(reached(&apart, "10.96.0.1:80"), one("10.1.0.1:8080"));
    assert_eq!(reached(&apart, "[fd96::1]:80"), one("[fd00::2]:8080"));
    let tried = ["10.1.0.1:8080".parse().unwrap()];
    let after = to(&apart, "10.96.0.1:80", &tried);
    assert!(matches!(after, Route::Refuse(Refusal::NoEndpoint)), "{after:?}");

    let ipv4 = world(vec![only(1, true)]);
    assert_eq!(reached(&ipv4, "[fd96::1]:80"), one("10.1.0.1:8080"));
}

#[test]
fn a_v4_mapped_destination_is_its_v4_address() {
    let world = world(vec![workload(1, TunnelProtocol::Hbone)]);
    let Route::Mesh(up) = to(&world, "[::ffff:10.96.0.1]:80", &[]) else {
        panic!("mapped VIP")
    };
    assert_eq!(up.endpoint, "10.1.0.1:8080".parse().unwrap());
}

#[test]
fn a_port_that_the_service_does_not_have_is_refused() {
    let world = world(vec![workload(1, TunnelProtocol::Hbone)]);
    assert!(matches!(
        to(&world, "10.96.0.1:81", &[]),
        Route::Refuse(Refusal::NoEndpoint)
    ));
}

#[test]
fn a_pod_address_keeps_its_port_and_its_workload() {
    let world = world(vec![
        workload(1, TunnelProtocol::Hbone),
        workload(2, TunnelProtocol::None),
    ]);
    let Route::Mesh(up) = to(&world, "10.1.0.1:9999", &[]) else {
        panic!("mesh pod")
    };
    assert_eq!(up.endpoint, "10.1.0.1:9999".parse().unwrap());
    let Route::Direct(up) = to(&world, "10.1.0.2:9999", &[]) else {
        panic!("plain pod")
    };
    assert_eq!(up.target.unwrap().workload.uid, "w2");
}

#[test]
fn strangers_pass_or_are_refused_by_choice() {
    let world = world(vec![]);
    assert!(matches!(
        to(&world, "192.0.2.1:443", &[]),
        Route::Direct(Upstream { target: None, .. })
    ));
    let refused = ask(&world, Unknown::Refuse, "192.0.2.1:443", &[], &mut dice());
    assert!(matches!(refused, Route::Refuse(Refusal::UnknownDestination)));
}

#[test]
fn what_was_tried_or_is_unhealthy_is_not_chosen_and_the_last_one_runs_out() {
    let mut sick = workload(3, TunnelProtocol::Hbone);
    sick.healthy = false;
    let world = world(vec![
        workload(1, TunnelProtocol::Hbone),
        workload(2, TunnelProtocol::Hbone),
        sick,
    ]);
    let one: SocketAddr = "10.1.0.1:8080".parse().unwrap();
    let two: SocketAddr = "10.1.0.2:8080".parse().unwrap();
    let Route::Mesh(up) = to(&world, "10.96.0.1:80", &[one]) else {
        panic!("one is left")
    };
    assert_eq!(up.endpoint, two);
    assert!(matches!(
        to(&world, "10.96.0.1:80", &[one, two]),
        Route::Refuse(Refusal::NoEndpoint)
    ));
}

#[test]
fn open_connections_decide_between_two_and_capacity_scales_them() {
    let mut strong = workload(2, TunnelProtocol::Hbone);
    strong.capacity = 3;
    let world = world(vec![workload(1, TunnelProtocol::Hbone), strong]);
    let mut random = dice();
    let mut open = Vec::new();
    let mut counts = [0, 0];
    for _ in 0..400 {
        let Route::Mesh(up) = ask(&world, Unknown::Refuse, "10.96.0.1:80", &[], &mut random) else {
            panic!("mesh")
        };
        counts[usize::from(up.endpoint == "10.1.0.2:8080".parse().unwrap())] += 1;
        open.push(up.target.unwrap().load.enter());
    }
    assert_eq!(
        counts,
        [100, 300],
        "held connections settle in proportion to capacity"
    );
}

#[test]
fn a_new_snapshot_remembers_open_connections() {
    let before = world(vec![workload(1, TunnelProtocol::Hbone)]);
    let Route::Mesh(up) = to(&before, "10.96.0.1:80", &[]) else {
        panic!("mesh")
    };
    let _open = up.target.unwrap().load.enter();
    let after = Snapshot::build(
        &before,
        vec![],
        vec![(workload(1, TunnelProtocol::Hbone), BTreeMap::new())],
    );
    let (_, load) = after.workload_by_address("10.1.0.1".parse().unwrap()).unwrap();
    assert_eq!((load.open(), after.generation), (1, 2));
}

#[test]
fn dns_over_tcp_passes_where_unknown_destinations_are_refused() {
    let world = world(vec![workload(1, TunnelProtocol::Hbone)]);
    let to = |dst: &str| ask(&world, Unknown::Refuse, dst, &[], &mut dice());
    for resolver in ["192.0.2.53:53", "[2001:db8::53]:53"] {
        assert!(
            matches!(to(resolver), Route::Direct(Upstream { target: None, .. })),
            "{resolver}"
        );
    }
    assert!(matches!(
        to("192.0.2.53:853"),
        Route::Refuse(Refusal::UnknownDestination)
    ));
    // What the registry knows goes as it says.
    assert!(matches!(to("10.96.0.1:53"), Route::Refuse(Refusal::NoEndpoint)));
    assert!(matches!(to("10.1.0.1:53"), Route::Mesh(_)));
}
