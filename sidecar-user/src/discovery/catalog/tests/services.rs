//! What a Service means by itself.

use std::time::Duration;

use super::*;
use crate::kubernetes::Families;
use crate::model::balancing::{Affinity, BalanceMode, Balancing, HealthPolicy, Scope};
use crate::xds::{AppProtocol, IpFamilies};

fn told(service: Service) -> ServiceResource {
    let name = service.name.name.to_string();
    let world = World::with(vec![], vec![], vec![service], vec![]);
    world.of_service(&name).expect("it is told").clone()
}

fn addresses(service: &ServiceResource) -> Vec<String> {
    service.addresses.iter().map(|a| a.address.to_string()).collect()
}

#[test]
fn a_cluster_ip_of_each_family_is_a_virtual_address() {
    let mut both = service("echo");
    both.cluster_ips.push("fd00::1".parse().unwrap());
    both.ip_families = Families { v4: true, v6: true };
    let both = told(both);
    assert_eq!(addresses(&both), ["10.96.0.1", "fd00::1"]);
    assert_eq!(both.ip_families, IpFamilies::Dual);
    assert_eq!(
        (&*both.namespace, &*both.hostname),
        ("demo", "echo.demo.svc.cluster.local")
    );
    assert!(both.canonical);
}

#[test]
fn a_headless_service_has_no_virtual_address() {
    let mut headless = service("echo");
    headless.cluster_ips.clear();
    let headless = told(headless);
    assert_eq!(headless.addresses, []);
    assert_eq!(headless.ports.len(), 1);
}

#[test]
fn load_balancer_and_external_addresses_are_virtual_addresses_once() {
    let mut public = service("echo");
    public.external_ips = vec!["192.0.2.1".parse().unwrap(), "198.51.100.1".parse().unwrap()];
    public.ingress_ips = vec!["198.51.100.1".parse().unwrap()];
    assert_eq!(
        addresses(&told(public)),
        ["10.96.0.1", "192.0.2.1", "198.51.100.1"]
    );
}

#[test]
fn services_share_a_load_balancers_address_and_keep_their_ports() {
    let mut web = service("web");
    let mut mail = service("mail");
    web.ingress_ips = vec!["198.51.100.1".parse().unwrap()];
    mail.ingress_ips = web.ingress_ips.clone();
    mail.ports = vec![port("smtp", 25, Some(2525))];
    let world = World::with(vec![], vec![], vec![web, mail], vec![]);
    for (name, port) in [("web", 80), ("mail", 25)] {
        let told = world.of_service(name).unwrap();
        assert!(addresses(told).contains(&"198.51.100.1".to_owned()));
        assert_eq!(told.ports[0].service_port, port);
    }
}

#[test]
fn a_named_target_is_left_to_each_endpoint() {
    let mut named = service("echo");
    named.ports.push(port("admin", 81, None));
    named.ports[0].app_protocol = Some("kubernetes.io/h2c".into());
    let told = told(named);
    let ports: Vec<_> = told
        .ports
        .iter()
        .map(|port| (port.service_port, port.target_port))
        .collect();
    assert_eq!(ports, [(80, 8080), (81, 0)]);
    assert_eq!(told.ports[0].app_protocol, AppProtocol::Http2);
}

#[test]
fn an_external_name_is_no_service_and_has_no_endpoints() {
    let mut world = World::with(
        vec![],
        vec![pod("a", "10.0.0.1")],
        vec![service("echo")],
        vec![slice("s1", "echo", &[at("10.0.0.1").of("a"), at("192.0.2.9")])],
    );
    assert_eq!(world.used("echo"), ["10.0.0.1", "192.0.2.9"]);
    let mut alias = service("echo");
    alias.external_name = true;
    world.service(alias);
    assert!(world.of_service("echo").is_none());
    assert_eq!(world.used("echo"), Vec::<String>::new());
    assert_eq!(world.known.len(), 1, "only the pod is left");
}

#[test]
fn wishes_about_traffic_are_scopes() {
    let balancing = |change: fn(&mut Service)| {
        let mut echo = service("echo");
        change(&mut echo);
        told(echo).load_balancing
    };
    use Scope::{Network, Node, Region, Subzone, Zone};
    const ZONE: &[Scope] = &[Network, Region, Zone];
    const NODE: &[Scope] = &[Network, Region, Zone, Subzone, Node];
    type Case = (fn(&mut Service), &'static [Scope], BalanceMode, HealthPolicy);
    let cases: [Case; 5] = [
        (|_| (), &[], BalanceMode::Any, HealthPolicy::OnlyHealthy),
        (
            |s| s.distribution = Distribution::SameZone,
            ZONE,
            BalanceMode::Failover,
            HealthPolicy::OnlyHealthy,
        ),
        (
            |s| s.distribution = Distribution::SameNode,
            NODE,
            BalanceMode::Failover,
            HealthPolicy::OnlyHealthy,
        ),
        (
            |s| (s.internal_local, s.distribution) = (true, Distribution::SameZone),
            &[Node],
            BalanceMode::Strict,
            HealthPolicy::OnlyHealthy,
        ),
        (
            |s| s.publish_not_ready = true,
            &[],
            BalanceMode::Any,
            HealthPolicy::AllowAll,
        ),
    ];
    for (change, scopes, mode, health) in cases {
        let expected = Balancing {
            scopes: scopes.to_vec(),
            mode,
            health,
        };
        assert_eq!(balancing(change), expected);
    }
}

#[test]
fn session_affinity_is_told_with_its_timeout() {
    let mut sticky = service("echo");
    sticky.affinity = Some(Duration::from_secs(60));
    let timeout = Duration::from_secs(60);
    assert_eq!(told(sticky).affinity, Some(Affinity { timeout }));
    assert_eq!(told(service("echo")).affinity, None);
}

#[test]
fn hints_count_where_every_ready_endpoint_has_them() {
    let zoned = |address: &str| at(address).hints(true, false);
    let pinned = |address: &str| at(address).hints(true, true);
    let none = 0;
    let cases: [(&[SliceEndpoint], usize); 6] = [
        (&[zoned("10.0.0.1"), zoned("10.0.0.2")], 3),
        (&[pinned("10.0.0.1"), pinned("10.0.0.2")], 5),
        (&[pinned("10.0.0.1"), zoned("10.0.0.2")], 3),
        (&[zoned("10.0.0.1"), at("10.0.0.2")], none),
        (&[zoned("10.0.0.1"), at("10.0.0.2").ready(false)], 3),
        (&[zoned("10.0.0.1").ready(false)], none),
    ];
    let mut world = World::with(vec![], vec![], vec![service("echo")], vec![]);
    for (endpoints, scopes) in cases {
        world.slice(slice("s1", "echo", endpoints));
        let told = &world.of_service("echo").unwrap().load_balancing;
        assert_eq!(told.scopes.len(), scopes, "{endpoints:?}");
    }
    world.slice(slice("s1", "echo", &[pinned("10.0.0.1")]));
    let mut said = service("echo");
    said.distribution = Distribution::SameZone;
    world.service(said);
    let told = &world.of_service("echo").unwrap().load_balancing;
    assert_eq!(told.scopes.len(), 3, "the Service's own word wins");
}
