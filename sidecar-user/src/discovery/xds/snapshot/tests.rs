//! Resources as a server sends them, and the world that they make.

use super::*;
use crate::model::authorization::{Action, Policy, Scope};
use crate::model::snapshot::Standing;
use crate::model::workload::Own;
use crate::xds::{Gateway, GatewayDestination, Update};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn service(name: &str) -> ServiceName {
    ServiceName {
        namespace: "t".into(),
        hostname: format!("{name}.t.svc.cluster.local").into(),
    }
}

fn pod(name: &str, address: &str) -> WorkloadResource {
    let port = Port {
        service_port: 80,
        target_port: 8080,
        ..Port::default()
    };
    WorkloadResource {
        uid: format!("c//Pod/t/{name}"),
        name: name.into(),
        namespace: "t".into(),
        addresses: vec![ip(address)],
        tunnel_protocol: TunnelProtocol::Hbone,
        service_account: "web".into(),
        services: BTreeMap::from([(service("web"), vec![port])]),
        ..WorkloadResource::default()
    }
}

fn web(vip: &str) -> ServiceResource {
    ServiceResource {
        name: "web".into(),
        namespace: "t".into(),
        hostname: "web.t.svc.cluster.local".into(),
        addresses: vec![NetworkAddress::of(ip(vip))],
        ports: vec![Port {
            service_port: 80,
            target_port: 8080,
            ..Port::default()
        }],
        ..ServiceResource::default()
    }
}

fn world(resources: impl IntoIterator<Item = Resource>) -> (Snapshot, Vec<String>) {
    let mut store = Store::default();
    store.apply(resources.into_iter().map(Update::Put));
    snapshot(&Snapshot::default(), &store)
}

#[test]
fn a_service_is_found_by_its_address_with_those_who_serve_it() {
    let (world, warnings) = world([
        Resource::Service(web("10.96.0.7")),
        Resource::Workload(pod("b", "10.0.0.2")),
        Resource::Workload(pod("a", "10.0.0.1")),
    ]);
    assert_eq!(warnings, Vec::<String>::new());
    let services: Vec<_> = world.services().collect();
    let [(found, endpoints)] = &services[..] else {
        panic!("{services:?}");
    };
    assert_eq!(found.vips, [ip("10.96.0.7")]);
    let who: Vec<_> = endpoints
        .iter()
        .map(|e| (&*e.workload.name, e.ports[&80]))
        .collect();
    assert_eq!(who, [("a", 8080), ("b", 8080)]);
    let (workload, _) = world.workload_by_address(ip("10.0.0.1")).unwrap();
    assert_eq!(workload.identity.as_str(), "spiffe://cluster.local/ns/t/sa/web");
}

#[test]
fn the_address_of_a_node_tells_none_of_its_pods_but_serves_their_service() {
    let on_host = WorkloadResource {
        host_network: true,
        tunnel_protocol: TunnelProtocol::None,
        ..pod("host", "10.97.0.1")
    };
    let (world, _) = world([Resource::Service(web("10.96.0.7")), Resource::Workload(on_host)]);
    assert!(world.workload_by_address(ip("10.97.0.1")).is_none());
    let (_, endpoints) = world.services().next().unwrap();
    assert_eq!(endpoints.len(), 1);
}

#[test]
fn what_lies_behind_a_waypoint_is_refused_and_told() {
    let waypoint = Some(Gateway {
        destination: GatewayDestination::Address(NetworkAddress::of(ip("10.96.0.9"))),
        hbone_mtls_port: 15008,
    });
    let (world, warnings) = world([
        Resource::Service(ServiceResource {
            waypoint: waypoint.clone(),
            ..web("10.96.0.7")
        }),
        Resource::Workload(WorkloadResource {
            waypoint,
            ..pod("a", "10.0.0.1")
        }),
    ]);
    assert!(world.is_behind_waypoint(ip("10.96.0.7")) && world.is_behind_waypoint(ip("10.0.0.1")));
    assert_eq!(warnings.len(), 2, "{warnings:?}");
}

#[test]
fn a_workload_whose_identity_nobody_can_have_is_closed_and_never_dialled_in_plaintext() {
    let (world, warnings) = world([Resource::Workload(WorkloadResource {
        service_account: "not a name".into(),
        ..pod("a", "10.0.0.1")
    })]);
    assert!(world.is_behind_waypoint(ip("10.0.0.1")));
    assert!(warnings[0].contains("c//Pod/t/a"), "{warnings:?}");
}

#[test]
fn a_policy_that_a_workload_names_and_nobody_has_is_missing() {
    let named = |present: bool| {
        let policy = Policy {
            name: policy_name("t/only-a").unwrap(),
            scope: Scope::WorkloadSelector,
            action: Action::Allow,
            rules: Vec::new(),
            dry_run: false,
        };
        let workload = Resource::Workload(WorkloadResource {
            authorization_policies: vec!["t/only-a".into()],
            ..pod("a", "10.0.0.1")
        });
        let policy = present.then_some(Resource::Policy(policy));
        let (world, _) = world(policy.into_iter().chain([workload]));
        let own = Own {
            name: "a".into(),
            identity: "spiffe://cluster.local/ns/t/sa/web".parse().unwrap(),
            addresses: vec![ip("10.0.0.1")],
            node: String::new(),
        };
        let Standing::Listed(applicable) = world.standing(&own, ip("10.0.0.1")) else {
            panic!("it is listed");
        };
        (applicable[0].missing.len(), applicable[0].all().count())
    };
    assert_eq!(named(true), (0, 1));
    assert_eq!(named(false), (1, 0));
}
