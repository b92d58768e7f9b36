//! The catalog by built objects: what each means, alone, with others, and in any order.

mod build;
mod endpoints;
mod names;
mod order;
mod pods;
mod policies;
mod scale;
mod services;

use build::*;

use super::*;
use crate::kubernetes::Change;
use crate::xds::{ServiceResource, WorkloadResource};

/// A catalog, and what whoever listens to it has come to know.
struct World {
    catalog: Catalog,
    known: HashMap<Key, Resource>,
    /// Updates of the last event.
    told: usize,
}

impl World {
    fn new() -> Self {
        Self::named(Names {
            cluster: "c1".into(),
            trust_domain: "td.test".into(),
            domain: "cluster.local".into(),
            root_namespace: "istio-system".into(),
        })
    }

    fn named(names: Names) -> Self {
        Self {
            catalog: Catalog::new(names),
            known: HashMap::new(),
            told: 0,
        }
    }

    /// One that has listed every kind.
    fn with(nodes: Vec<Node>, pods: Vec<WorkloadPod>, services: Vec<Service>, slices: Vec<Slice>) -> Self {
        let mut world = Self::new();
        world.list(nodes, pods, services, slices);
        world
    }

    fn list(&mut self, nodes: Vec<Node>, pods: Vec<WorkloadPod>, services: Vec<Service>, slices: Vec<Slice>) {
        self.take(Event::Nodes(Change::All(nodes)));
        self.take(Event::Pods(Change::All(pods)));
        self.take(Event::Services(Change::All(services)));
        self.take(Event::Slices(Change::All(slices)));
        self.take(Event::Authorizations(Change::All(vec![])));
        self.take(Event::Peers(Change::All(vec![])));
    }

    fn take(&mut self, event: Event) {
        let updates = self.catalog.take(event);
        self.told = updates.len();
        for update in updates {
            match &update {
                Update::Put(resource) => {
                    self.known.insert(resource.key(), resource.clone());
                }
                Update::Remove(key) => {
                    self.known.remove(key).expect("only what was put is removed");
                }
                Update::Received { .. } => panic!("{update:?}"),
            }
        }
    }

    fn pod(&mut self, pod: WorkloadPod) {
        self.take(Event::Pods(Change::Applied(pod)));
    }

    fn slice(&mut self, slice: Slice) {
        self.take(Event::Slices(Change::Applied(slice)));
    }

    fn service(&mut self, service: Service) {
        self.take(Event::Services(Change::Applied(service)));
    }

    fn workload(&self, uid: &str) -> Option<&WorkloadResource> {
        match self.known.get(&Key::address(uid))? {
            Resource::Workload(workload) => Some(workload),
            other => panic!("{other:?}"),
        }
    }

    /// Of the namespace `demo`.
    fn of_pod(&self, name: &str) -> &WorkloadResource {
        self.workload(&format!("c1//Pod/demo/{name}"))
            .expect("the pod is told")
    }

    fn of_service(&self, name: &str) -> Option<&ServiceResource> {
        match self
            .known
            .get(&Key::address(&format!("demo/{name}.demo.svc.cluster.local")))?
        {
            Resource::Service(service) => Some(service),
            other => panic!("{other:?}"),
        }
    }

    /// `service port → target port` of a pod for a service.
    fn ports(&self, pod: &str, service: &str) -> Vec<(u16, u16)> {
        ports(self.of_pod(pod), service)
    }

    /// Who is behind a service and healthy, by its first address.
    fn used(&self, service: &str) -> Vec<String> {
        let workloads = self.known.values().filter_map(|resource| match resource {
            Resource::Workload(workload) => Some(workload),
            _ => None,
        });
        let used = workloads.filter(|workload| !workload.unhealthy && !ports(workload, service).is_empty());
        let mut used: Vec<_> = used.map(|workload| workload.addresses[0].to_string()).collect();
        used.sort();
        used
    }
}

fn ports(workload: &WorkloadResource, service: &str) -> Vec<(u16, u16)> {
    let hostname = format!("{service}.demo.svc.cluster.local");
    let mut services = workload.services.iter();
    let of = services.find(|(name, _)| *name.hostname == *hostname);
    let ports = of.into_iter().flat_map(|(_, ports)| ports);
    ports.map(|port| (port.service_port, port.target_port)).collect()
}

#[test]
fn nothing_is_told_before_every_kind_has_been_listed() {
    let mut world = World::new();
    world.take(Event::Slices(Change::All(vec![slice(
        "s1",
        "echo",
        &[at("10.0.0.1").of("a")],
    )])));
    world.take(Event::Pods(Change::All(vec![pod("a", "10.0.0.1")])));
    world.take(Event::Services(Change::All(vec![service("echo")])));
    world.take(Event::Services(Change::Trouble("gone".into())));
    assert_eq!(world.known.len(), 0);
    world.take(Event::Authorizations(Change::All(vec![])));
    world.take(Event::Nodes(Change::All(vec![])));
    assert_eq!(
        world.known.len(),
        0,
        "a policy that is not known yet forbids nothing"
    );
    assert_eq!(world.catalog.awaited().collect::<Vec<_>>(), [Kind::Peers]);
    world.take(Event::Peers(Change::All(vec![])));
    assert_eq!(world.known.len(), 2);
    assert_eq!(world.catalog.awaited().count(), 0);
}

#[test]
fn a_list_of_what_is_known_tells_nothing_and_trouble_changes_nothing() {
    let all = || {
        (
            vec![node("n1", "z1")],
            vec![pod("a", "10.0.0.1"), pod("b", "10.0.0.2")],
            vec![service("echo")],
            vec![slice(
                "s1",
                "echo",
                &[at("10.0.0.1").of("a"), at("10.0.0.2").of("b")],
            )],
        )
    };
    let (nodes, pods, services, slices) = all();
    let mut world = World::with(nodes, pods, services, slices);
    let known = world.known.clone();
    let (nodes, pods, services, slices) = all();
    let changes = [
        Event::Nodes(Change::Trouble("connection refused".into())),
        Event::Pods(Change::Trouble("410 Gone".into())),
        Event::Slices(Change::All(slices)),
        Event::Services(Change::All(services)),
        Event::Pods(Change::All(pods)),
        Event::Nodes(Change::All(nodes)),
    ];
    for change in changes {
        world.take(change);
        assert_eq!(world.told, 0);
    }
    // What is missing in a list is gone, and only that is told.
    world.take(Event::Pods(Change::All(vec![pod("b", "10.0.0.2")])));
    assert_eq!(world.told, 1);
    assert_eq!(world.known.len(), known.len() - 1);
}

#[test]
fn one_endpoint_of_many_is_one_update() {
    let names: Vec<String> = (0..200).map(|n| format!("p{n}")).collect();
    let pods = names
        .iter()
        .enumerate()
        .map(|(n, name)| pod(name, &format!("10.0.1.{n}")))
        .collect();
    let endpoints = |ready: bool| -> Vec<SliceEndpoint> {
        let all = names.iter().enumerate();
        all.map(|(n, name)| match n == 7 {
            true => at("10.0.1.7").of("p7").ready(ready),
            false => at(&format!("10.0.1.{n}")).of(name),
        })
        .collect()
    };
    let mut world = World::with(
        vec![],
        pods,
        vec![service("echo")],
        vec![slice("s1", "echo", &endpoints(true))],
    );
    assert_eq!(world.used("echo").len(), 200);
    world.slice(slice("s1", "echo", &endpoints(false)));
    assert_eq!(world.told, 1);
    assert_eq!(world.used("echo").len(), 199);
}
