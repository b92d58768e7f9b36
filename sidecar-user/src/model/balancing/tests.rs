//! Which endpoints of a built snapshot are near.

use super::*;
use crate::model::snapshot::Serves;
use crate::model::{Locality, Service, ServiceName, Snapshot, SpiffeId, TunnelProtocol};

fn locality(region: &str, zone: &str) -> Locality {
    Locality {
        region: region.into(),
        zone: zone.into(),
        subzone: String::new(),
    }
}

fn workload(n: usize, region: &str, zone: &str, node: &str) -> Workload {
    Workload {
        uid: format!("w{n}"),
        name: format!("w{n}"),
        namespace: "t".into(),
        identity: SpiffeId::new("td.test", "t", "w").unwrap(),
        addresses: Vec::new(),
        protocol: TunnelProtocol::Hbone,
        healthy: true,
        capacity: 1,
        locality: locality(region, zone),
        node: node.into(),
    }
}

/// How many endpoints match each number of scopes, as seen from zone `b` of region `r`, node `n1`.
fn nearest(scopes: &[Scope], node: &str) -> Vec<usize> {
    let name = ServiceName {
        namespace: "t".into(),
        hostname: "echo.t.svc".into(),
    };
    let balancing = Balancing {
        scopes: scopes.to_vec(),
        mode: BalanceMode::Failover,
        health: HealthPolicy::default(),
    };
    let service = Service {
        name: name.clone(),
        balancing: balancing.clone(),
        ..Service::default()
    };
    let places = [
        ("r", "b", "n1"),
        ("q", "b", "n3"),
        ("r", "a", "n2"),
        ("r", "b", ""),
        ("r", "b", "n2"),
        ("r", "c", "n1"),
    ];
    let serves = Serves::from([(name, [(80, 80)].into())]);
    let workloads = places
        .iter()
        .enumerate()
        .map(|(n, (region, zone, node))| (workload(n, region, zone, node), serves.clone()));
    let world = Snapshot::build(&Snapshot::default(), vec![service], workloads.collect());
    let (_, endpoints) = world.services().next().unwrap();
    let here = locality("r", "b");
    let here = Location {
        locality: &here,
        node,
    };
    let found = |n| balancing.nearest(endpoints, here, n).len();
    (0..=scopes.len()).map(found).collect()
}

#[test]
fn each_scope_more_leaves_the_endpoints_that_match_it_too() {
    use Scope::{Node, Region, Zone};
    assert_eq!(nearest(&[Region, Zone, Node], "n1"), [6, 5, 3, 1]);
    assert_eq!(nearest(&[Node, Zone], "n1"), [6, 2, 1]);
    assert_eq!(nearest(&[Zone], "n1"), [6, 4], "of any region");
    assert_eq!(nearest(&[], "n1"), [6]);
}

#[test]
fn one_cluster_and_one_network_leave_every_endpoint() {
    assert_eq!(
        nearest(&[Scope::Network, Scope::Cluster, Scope::Zone], "n1"),
        [6, 6, 6, 4]
    );
}

#[test]
fn what_both_sides_do_not_say_matches_but_an_unknown_node_is_nobodys() {
    assert_eq!(nearest(&[Scope::Subzone], "n1"), [6, 6]);
    assert_eq!(nearest(&[Scope::Node], ""), [6, 0]);
    assert_eq!(nearest(&[Scope::Node], "n9"), [6, 0]);
}
