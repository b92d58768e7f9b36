//! Which endpoints come into question: by where they run, by health, and by whom the client stays with.

use std::collections::HashMap;

use super::*;
use crate::model::balancing::Scope;
use crate::model::{Balancing, HealthPolicy};

/// Endpoint n runs at region, zone and node, and is healthy or not.
type Place = (&'static str, &'static str, &'static str, bool);

const PLACES: [Place; 6] = [
    ("r", "a", "n1", true),
    ("r", "a", "n2", true),
    ("r", "a", "n2", true),
    ("r", "b", "n3", true),
    ("r", "b", "n3", true),
    ("q", "c", "n4", true),
];

fn placed(places: &[Place], balancing: &Balancing) -> Snapshot {
    let workloads = places
        .iter()
        .zip(1..)
        .map(|((region, zone, node, healthy), n)| Workload {
            locality: Locality {
                region: (*region).into(),
                zone: (*zone).into(),
                subzone: String::new(),
            },
            node: (*node).into(),
            healthy: *healthy,
            ..workload(n, TunnelProtocol::Hbone)
        });
    let serves: BTreeMap<_, _> = [(name(), BTreeMap::from([(80, 8080)]))].into();
    let service = Service {
        balancing: balancing.clone(),
        ..service(&[VIP], &[(80, 8080)])
    };
    let workloads = workloads.map(|w| (w, serves.clone())).collect();
    Snapshot::build(&Snapshot::default(), vec![service], workloads)
}

fn balancing(mode: BalanceMode, scopes: &[Scope]) -> Balancing {
    Balancing {
        scopes: scopes.to_vec(),
        mode,
        health: HealthPolicy::OnlyHealthy,
    }
}

/// A client in zone `a` of region `r`, on that node.
struct Client<'c> {
    node: &'c str,
    stays_with: Option<&'c str>,
}

impl Client<'_> {
    fn route(&self, world: &Snapshot, tried: &[SocketAddr], random: &mut dyn FnMut(usize) -> usize) -> Route {
        let locality = here();
        let request = Request {
            dst: OriginalDst::new(format!("{VIP}:80").parse().unwrap()),
            unknown: Unknown::PassThrough,
            tried,
            from: Location {
                locality: &locality,
                node: self.node,
            },
            stays_with: self.stays_with,
        };
        route(world, &request, random)
    }

    fn considered<'w>(&self, world: &'w Snapshot) -> Vec<Considered<'w>> {
        let locality = here();
        let dst: SocketAddr = format!("{VIP}:80").parse().unwrap();
        let (service, endpoints) = world.service_at(dst).unwrap();
        let request = Request {
            dst: OriginalDst::new(dst),
            unknown: Unknown::PassThrough,
            tried: &[],
            from: Location {
                locality: &locality,
                node: self.node,
            },
            stays_with: self.stays_with,
        };
        let all = consider(service, endpoints, &request);
        assert_eq!(all.len(), endpoints.len());
        all
    }

    /// How often each endpoint is chosen in that many connections, none of which stays open.
    fn chosen(&self, world: &Snapshot, times: usize) -> BTreeMap<String, usize> {
        let (mut random, mut counts) = (dice(), BTreeMap::new());
        for _ in 0..times {
            if let Some(up) = self.route(world, &[], &mut random).upstream() {
                let uid = up.target.as_ref().unwrap().workload.uid.clone();
                *counts.entry(uid).or_default() += 1;
            }
        }
        counts
    }
}

fn here() -> Locality {
    Locality {
        region: "r".into(),
        zone: "a".into(),
        subzone: String::new(),
    }
}

const N1: Client<'_> = Client {
    node: "n1",
    stays_with: None,
};

/// Those that a client on `node` is given.
fn given(world: &Snapshot, node: &str) -> Vec<String> {
    let client = Client { node, ..N1 };
    client.chosen(world, 400).into_keys().collect()
}

#[test]
fn failover_goes_to_the_best_rank_that_there_is() {
    use Scope::{Node, Region, Zone};
    let world = placed(&PLACES, &balancing(BalanceMode::Failover, &[Region, Zone, Node]));
    assert_eq!(given(&world, "n1"), ["w1"]);
    assert_eq!(given(&world, "n2"), ["w2", "w3"]);
    assert_eq!(
        given(&world, "n3"),
        ["w1", "w2", "w3"],
        "of the zone, none on the node in it"
    );
    let world = placed(
        &PLACES[3..],
        &balancing(BalanceMode::Failover, &[Region, Zone, Node]),
    );
    assert_eq!(given(&world, "n1"), ["w1", "w2"], "of the region");
    let world = placed(
        &PLACES[5..],
        &balancing(BalanceMode::Failover, &[Region, Zone, Node]),
    );
    assert_eq!(given(&world, "n1"), ["w1"], "of another region");
}

#[test]
fn strict_uses_what_matches_every_scope_or_refuses() {
    let world = placed(&PLACES, &balancing(BalanceMode::Strict, &[Scope::Node]));
    assert_eq!(given(&world, "n2"), ["w2", "w3"]);
    for node in ["n9", ""] {
        let client = Client { node, ..N1 };
        assert!(matches!(
            client.route(&world, &[], &mut dice()),
            Route::Refuse(Refusal::NoEndpoint)
        ));
    }
    let zone = placed(
        &PLACES[3..],
        &balancing(BalanceMode::Strict, &[Scope::Region, Scope::Zone]),
    );
    assert_eq!(given(&zone, "n1"), [""; 0], "one of two is not enough");
}

#[test]
fn without_a_mode_scopes_decide_nothing() {
    let world = placed(&PLACES, &balancing(BalanceMode::Any, &[Scope::Zone]));
    assert_eq!(given(&world, "n1").len(), PLACES.len());
}

#[test]
fn what_has_failed_is_followed_by_the_next_rank_and_never_by_one_that_strict_forbids() {
    for (mode, wanted) in [(BalanceMode::Failover, 6), (BalanceMode::Strict, 3)] {
        let world = placed(&PLACES, &balancing(mode, &[Scope::Zone]));
        let (mut tried, mut random) = (Vec::new(), dice());
        let mut zones = Vec::new();
        while let Some(up) = N1.route(&world, &tried, &mut random).upstream() {
            zones.push(up.target.as_ref().unwrap().workload.locality.zone.clone());
            tried.push(up.endpoint);
        }
        assert_eq!(zones.len(), wanted);
        assert_eq!(zones[..3], ["a"; 3], "the near ones first");
        assert!(!zones[3..].contains(&"a".to_owned()));
    }
}

#[test]
fn an_endpoint_that_is_not_healthy_leaves_its_rank_unless_all_are_allowed() {
    let mut places = PLACES;
    places[0].3 = false;
    let mut balancing = balancing(BalanceMode::Failover, &[Scope::Zone, Scope::Node]);
    assert_eq!(given(&placed(&places, &balancing), "n1"), ["w2", "w3"]);
    balancing.health = HealthPolicy::AllowAll;
    assert_eq!(given(&placed(&places, &balancing), "n1"), ["w1"]);
    let mut all = PLACES;
    all.iter_mut().for_each(|place| place.3 = false);
    assert_eq!(given(&placed(&all, &balancing), "n1"), ["w1"]);
    balancing.health = HealthPolicy::OnlyHealthy;
    assert_eq!(given(&placed(&all, &balancing), "n1"), [""; 0]);
}

#[test]
fn passthrough_goes_to_the_address_that_was_dialled_in_plain_and_only_once() {
    let world = placed(&PLACES, &balancing(BalanceMode::Passthrough, &[]));
    let Route::Direct(up) = N1.route(&world, &[], &mut dice()) else {
        panic!("plain")
    };
    assert_eq!(
        (up.endpoint.to_string(), up.target.is_none()),
        (format!("{VIP}:80"), true)
    );
    assert_eq!(up.service.as_ref().unwrap().name, name());
    assert!(matches!(
        N1.route(&world, &[up.endpoint], &mut dice()),
        Route::Refuse(Refusal::NoEndpoint)
    ));
}

#[test]
fn a_client_stays_with_its_endpoint_while_that_can_serve_it() {
    let stays = Client {
        node: "n1",
        stays_with: Some("w6"),
    };
    let failover = balancing(BalanceMode::Failover, &[Scope::Zone]);
    let world = placed(&PLACES, &failover);
    assert_eq!(
        stays.chosen(&world, 50).into_keys().collect::<Vec<_>>(),
        ["w6"],
        "though others are nearer"
    );

    let mut sick = PLACES;
    sick[5].3 = false;
    assert!(!stays.chosen(&placed(&sick, &failover), 50).contains_key("w6"));
    assert!(
        !stays.chosen(&placed(&PLACES[..5], &failover), 50).is_empty(),
        "it has gone"
    );
    let strict = placed(&PLACES, &balancing(BalanceMode::Strict, &[Scope::Zone]));
    assert!(
        !stays.chosen(&strict, 50).contains_key("w6"),
        "it is not allowed any more"
    );
    let tried = ["10.1.0.6:8080".parse().unwrap()];
    let up = stays.route(&world, &tried, &mut dice());
    assert_ne!(up.upstream().unwrap().endpoint, tried[0], "it has failed");
}

/// Small worlds of every shape: what is chosen is usable, allowed, and of the best rank; and each of these is chosen.
#[test]
fn the_endpoints_that_are_chosen_are_exactly_the_best_of_those_allowed() {
    const SCOPES: [Scope; 5] = [
        Scope::Region,
        Scope::Zone,
        Scope::Node,
        Scope::Network,
        Scope::Subzone,
    ];
    let mut random = dice();
    for _ in 0..300 {
        let places: Vec<Place> = (0..random(8))
            .map(|_| {
                let region = ["r", "q", ""][random(3)];
                let zone = ["a", "b", ""][random(3)];
                (region, zone, ["n1", "n2", ""][random(3)], random(4) > 0)
            })
            .collect();
        let balancing = Balancing {
            scopes: (0..random(4)).map(|_| SCOPES[random(SCOPES.len())]).collect(),
            mode: [BalanceMode::Any, BalanceMode::Strict, BalanceMode::Failover][random(3)],
            health: [HealthPolicy::OnlyHealthy, HealthPolicy::AllowAll][random(2)],
        };
        let world = placed(&places, &balancing);
        let ranks: HashMap<String, usize> = places
            .iter()
            .zip(1..)
            .filter(|((.., healthy), _)| *healthy || balancing.health == HealthPolicy::AllowAll)
            .map(|(place, n)| (format!("w{n}"), rank(place, &balancing)))
            .filter(|(_, rank)| balancing.mode != BalanceMode::Strict || *rank == balancing.scopes.len())
            .collect();
        let best = ranks.values().max();
        let mut wanted: Vec<String> = ranks
            .iter()
            .filter(|(_, rank)| balancing.mode == BalanceMode::Any || Some(*rank) == best)
            .map(|(uid, _)| uid.clone())
            .collect();
        wanted.sort();
        assert_eq!(given(&world, "n1"), wanted, "{places:?} {balancing:?}");
        assert_eq!(considered(&world), wanted, "{places:?} {balancing:?}");
    }
}

/// Those that are said to be chosen by a client on n1; the others are said to be out of the question, with the reason.
fn considered(world: &Snapshot) -> Vec<String> {
    let mode = world
        .services()
        .map(|(service, _)| service.balancing.mode)
        .next()
        .unwrap();
    let mut chosen = Vec::new();
    for one in N1.considered(world) {
        match one.what {
            Consideration::Candidate { chance } => {
                assert!(chance > 0.0, "all of them have no connection");
                chosen.push(one.endpoint.workload.uid.clone());
            }
            Consideration::Standby => assert_eq!(mode, BalanceMode::Failover),
            Consideration::Excluded => assert_eq!(mode, BalanceMode::Strict),
            Consideration::NotReady => assert!(!one.endpoint.workload.healthy),
            Consideration::NoPort => panic!("each of them serves it"),
        }
    }
    chosen.sort();
    chosen
}

#[test]
fn who_is_stayed_with_is_the_one_candidate_as_long_as_it_is_ready() {
    let mut places = PLACES;
    let said = |places: &[Place]| -> Vec<Consideration> {
        let world = placed(places, &Balancing::default());
        let client = Client {
            stays_with: Some("w2"),
            ..N1
        };
        let all = client.considered(&world).into_iter();
        all.map(|one| one.what).collect()
    };
    let ready = said(&places);
    assert_eq!(ready[1], Consideration::Candidate { chance: 1.0 });
    assert_eq!(ready[0], Consideration::Standby);
    places[1].3 = false;
    let unready = said(&places);
    assert_eq!(unready[1], Consideration::NotReady);
    assert!(matches!(unready[0], Consideration::Candidate { chance } if chance > 0.0));
}

/// The definition, read one by one: how many scopes match before the first that does not.
fn rank((region, zone, node, _): &Place, balancing: &Balancing) -> usize {
    let matches = |scope: &&Scope| match scope {
        Scope::Region => *region == "r",
        Scope::Zone => *zone == "a",
        Scope::Node => *node == "n1",
        Scope::Subzone | Scope::Cluster | Scope::Network => true,
    };
    balancing.scopes.iter().take_while(matches).count()
}

#[test]
fn within_a_rank_connections_are_spread_evenly() {
    let mut places = vec![("q", "c", "n9", true); 50];
    places.extend(vec![("r", "a", "n1", true); 10]);
    let world = placed(
        &places,
        &balancing(BalanceMode::Failover, &[Scope::Region, Scope::Zone]),
    );
    let (mut random, mut open) = (dice(), Vec::new());
    let mut counts: HashMap<String, usize> = HashMap::new();
    for _ in 0..1000 {
        let route = N1.route(&world, &[], &mut random);
        let target = route.upstream().unwrap().target.as_ref().unwrap();
        *counts.entry(target.workload.uid.clone()).or_default() += 1;
        open.push(target.load.enter());
    }
    assert_eq!(counts.len(), 10, "the near ones");
    assert!(counts.values().all(|n| (95..=105).contains(n)), "{counts:?}");
}

#[test]
fn choosing_among_ranks_allocates_nothing() {
    let world = placed(
        &PLACES,
        &balancing(BalanceMode::Failover, &[Scope::Region, Scope::Zone, Scope::Node]),
    );
    let locality = Locality::unknown();
    let request = Request {
        dst: OriginalDst::new(format!("{VIP}:80").parse().unwrap()),
        unknown: Unknown::PassThrough,
        tried: &[],
        from: Location {
            locality: &locality,
            node: "n1",
        },
        stays_with: Some("w6"),
    };
    let mut random = dice();
    let counted = allocation_counter::measure(|| {
        assert!(route(&world, &request, &mut random).upstream().is_some());
    });
    assert_eq!(counted.count_total, 0);
}
