//! Any order of changes ends in the same world as one list of everything.

use serde_json::json;

use super::*;
use crate::kubernetes::AuthorizationPolicy;

/// The objects as the API server has them. Few names, so that they meet.
#[derive(Default)]
struct Server {
    nodes: HashMap<u8, Node>,
    pods: HashMap<u8, WorkloadPod>,
    services: HashMap<u8, Service>,
    slices: HashMap<u8, Slice>,
    policies: HashMap<u8, AuthorizationPolicy>,
}

fn any_node(random: &mut fastrand::Rng, n: u8) -> Node {
    node(&format!("n{n}"), ["z1", "z2", ""][random.usize(..3)])
}

fn any_address(random: &mut fastrand::Rng) -> String {
    match random.u8(..8) {
        0 => "fd00::1".into(),
        n => format!("10.0.0.{n}"),
    }
}

fn any_pod(random: &mut fastrand::Rng, n: u8) -> WorkloadPod {
    let addresses: Vec<String> = (0..random.usize(..3)).map(|_| any_address(random)).collect();
    let mut pod = pod(&format!("p{n}"), &addresses.join(" "));
    pod.node = format!("n{}", random.u8(..3)).into();
    pod.host_network = random.u8(..5) == 0;
    pod.has_proxy = random.bool();
    pod.ready = random.u8(..4) != 0;
    let labels = [("app".to_owned(), ["web", "db"][random.usize(..2)].to_owned())];
    pod.labels = std::sync::Arc::new(labels.into());
    pod.finished = random.u8(..8) == 0;
    pod
}

fn any_service(random: &mut fastrand::Rng, n: u8) -> Service {
    let mut service = service(&format!("s{n}"));
    service.external_name = random.u8(..8) == 0;
    service.publish_not_ready = random.u8(..4) == 0;
    service.internal_local = random.u8(..4) == 0;
    if random.bool() {
        service.ports.push(port("admin", 81, None));
    }
    service
}

fn any_slice(random: &mut fastrand::Rng, n: u8) -> Slice {
    let endpoints: Vec<SliceEndpoint> = (0..random.usize(..5))
        .map(|_| {
            let endpoint = at(&any_address(random));
            let endpoint = match random.u8(..3) {
                0 => endpoint,
                _ => endpoint.of(&format!("p{}", random.u8(..6))),
            };
            let endpoint = endpoint.hints(random.bool(), random.u8(..4) == 0);
            match random.u8(..4) {
                0 => endpoint.ready(false),
                1 => endpoint.terminating(random.bool()),
                _ => endpoint,
            }
        })
        .collect();
    let mut slice = slice(&format!("e{n}"), &format!("s{}", random.u8(..4)), &endpoints);
    if random.bool() {
        slice.ports.push(("admin".into(), 8081 + random.u16(..2)));
    }
    if random.u8(..10) == 0 {
        slice.service = None;
    }
    slice
}

fn any_policy(random: &mut fastrand::Rng, n: u8) -> AuthorizationPolicy {
    let app = ["web", "db"][random.usize(..2)];
    let selector = random.bool().then(|| json!({"matchLabels": {"app": app}}));
    let spec = json!({"rules": [{"from": [{"source": {"namespaces": ["demo"]}}]}], "selector": selector});
    let namespace = ["demo", "istio-system", "other"][usize::from(n)];
    let metadata = json!({"name": format!("a{n}"), "namespace": namespace});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

/// Changes one object, or nothing but who has to list again.
fn step<K: Clone>(
    random: &mut fastrand::Rng,
    known: &mut HashMap<u8, K>,
    names: u8,
    any: fn(&mut fastrand::Rng, u8) -> K,
) -> Change<K> {
    let n = random.u8(..names);
    match random.u8(..10) {
        0 => Change::Trouble("the server has gone".into()),
        // Changes that nobody heard of.
        1 => {
            for _ in 0..3 {
                let n = random.u8(..names);
                match random.u8(..3) {
                    0 => known.remove(&n),
                    _ => known.insert(n, any(random, n)),
                };
            }
            all(random, known)
        }
        2 | 3 => match known.remove(&n) {
            Some(gone) => Change::Gone(gone),
            None => all(random, known),
        },
        _ => {
            let one = any(random, n);
            known.insert(n, one.clone());
            Change::Applied(one)
        }
    }
}

fn all<K: Clone>(random: &mut fastrand::Rng, known: &HashMap<u8, K>) -> Change<K> {
    let mut all: Vec<K> = known.values().cloned().collect();
    random.shuffle(&mut all);
    Change::All(all)
}

impl Server {
    fn step(&mut self, random: &mut fastrand::Rng) -> Event {
        match random.u8(..10) {
            0 => Event::Nodes(step(random, &mut self.nodes, 3, any_node)),
            1..=3 => Event::Pods(step(random, &mut self.pods, 6, any_pod)),
            4 => Event::Authorizations(step(random, &mut self.policies, 3, any_policy)),
            5 => Event::Services(step(random, &mut self.services, 4, any_service)),
            _ => Event::Slices(step(random, &mut self.slices, 6, any_slice)),
        }
    }

    fn lists(&self, random: &mut fastrand::Rng) -> Vec<Event> {
        let mut lists = vec![
            Event::Nodes(all(random, &self.nodes)),
            Event::Pods(all(random, &self.pods)),
            Event::Services(all(random, &self.services)),
            Event::Slices(all(random, &self.slices)),
            Event::Authorizations(all(random, &self.policies)),
            Event::Peers(Change::All(Vec::new())),
        ];
        random.shuffle(&mut lists);
        lists
    }
}

#[test]
fn any_order_of_changes_ends_in_the_world_of_one_list() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut server, mut world) = (Server::default(), World::new());
        for event in server.lists(&mut random) {
            world.take(event);
        }
        for round in 0..60 {
            let event = server.step(&mut random);
            let said = format!("{event:?}");
            world.take(event);
            if round % 3 > 0 {
                continue;
            }
            let mut fresh = World::new();
            for event in server.lists(&mut random) {
                fresh.take(event);
            }
            assert_eq!(
                world.known, fresh.known,
                "seed {seed}, round {round}, after {said}"
            );
            assert_eq!(world.catalog.told.len(), world.known.len());
            assert_eq!(world.catalog.counts(), fresh.catalog.counts());
        }
        // Whatever it was, nothing of it stays.
        for nothing in Server::default().lists(&mut random) {
            world.take(nothing);
        }
        assert!(
            world.known.is_empty() && world.catalog.told.is_empty() && world.catalog.told_loose.is_empty()
        );
    }
}
