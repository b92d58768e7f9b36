//! Who stands behind a service, as this proxy knows it now.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::super::affinity::Affinities;
use super::super::considered;
use crate::discovery::Feed;
use crate::model::{BalanceMode, Endpoint, OriginalDst, Own, Service, Snapshot};
use crate::observe::{
    EndpointList, EndpointReport, EndpointsQuestion, RegistryReport, ServiceReport, Sought,
};
use crate::route::{Request, Unknown};

pub(super) struct Endpoints {
    pub(super) own: Own,
    pub(super) unknown: Unknown,
    pub(super) feed: Feed,
    pub(super) affinities: Arc<Affinities>,
}

/// Endpoints in one answer; some 500 bytes each.
const MOST: usize = 2000;

impl Endpoints {
    pub(super) fn list(&self, question: &EndpointsQuestion) -> EndpointList {
        let world = self.feed.snapshots.borrow().clone();
        let found = self.found(&world, question);
        let (knowledge, summary) = told(&world, question, &found);
        let (service, mut endpoints) = match found {
            Found::Service(service, endpoints) => (Some(service_report(&service)), endpoints),
            Found::Workload(endpoint) => (None, vec![*endpoint]),
            Found::Nobody => (None, Vec::new()),
        };
        let truncated = endpoints.len() > MOST;
        endpoints.truncate(MOST);
        EndpointList {
            pod: None,
            asked: question.to_string(),
            knowledge: knowledge.into(),
            summary,
            service,
            registry: registry(&self.feed, &world),
            endpoints,
            truncated,
        }
    }

    fn found(&self, world: &Snapshot, question: &EndpointsQuestion) -> Found {
        match &question.sought {
            Sought::Named { namespace, hostname } => {
                let named = world.service_by_hostname(namespace, hostname);
                match named.filter(|(service, _)| *service.name.namespace == **namespace) {
                    Some((service, endpoints)) => self.of_service(world, service, endpoints, question.port),
                    None => Found::Nobody,
                }
            }
            Sought::At(ip) => {
                let at = SocketAddr::new(*ip, question.port.unwrap_or_default());
                if let Some((service, endpoints)) = world.service_at(at) {
                    return self.of_service(world, service, endpoints, question.port);
                }
                match world.workload_by_address(*ip) {
                    Some((workload, load)) => {
                        let mut one = considered::of_workload(workload, load, at);
                        if question.port.is_none() {
                            (one.address, one.service_port) = (ip.to_string(), None);
                        }
                        Found::Workload(Box::new(one))
                    }
                    None => Found::Nobody,
                }
            }
        }
    }

    /// By each port that is asked for, as if it were dialled at the service's first address.
    fn of_service(
        &self,
        world: &Snapshot,
        service: &Arc<Service>,
        endpoints: &[Endpoint],
        port: Option<u16>,
    ) -> Found {
        let all: Vec<u16> = match port {
            Some(port) => vec![port],
            None => service.ports.keys().copied().collect(),
        };
        let address = |endpoint: &Endpoint| endpoint.workload.addresses.first().copied();
        let dialled = service.vips.first().copied();
        // A headless service is dialled at its endpoints.
        let dialled = dialled.or_else(|| endpoints.iter().find_map(address));
        let Some(dialled) = dialled else {
            return Found::Service(service.clone(), Vec::new());
        };
        let reports = all.into_iter().flat_map(|port| {
            let kept = self.affinities.of(service, port, Instant::now());
            let request = Request {
                dst: OriginalDst::new(SocketAddr::new(dialled, port)),
                unknown: self.unknown,
                tried: &[],
                from: world.location_of(&self.own),
                stays_with: kept.as_ref().map(|kept| kept.uid.as_str()),
            };
            considered::of_service(service, endpoints, &request)
        });
        Found::Service(service.clone(), reports.collect())
    }
}

enum Found {
    Service(Arc<Service>, Vec<EndpointReport>),
    Workload(Box<EndpointReport>),
    Nobody,
}

/// How much of what there is this proxy knows, as a word and as a sentence. A registry on demand knows what was dialled lately.
fn told(world: &Snapshot, question: &EndpointsQuestion, found: &Found) -> (&'static str, String) {
    let has_asked = |ips: &[IpAddr]| ips.iter().any(|ip| world.has_heard_of(*ip));
    let not_asked = || {
        let words = format!(
            "not asked for yet: nothing here has dialled {question} lately, and this proxy learns of a service with the \
             first connection"
        );
        ("not_asked", words)
    };
    match (found, &question.sought) {
        (Found::Service(service, _), _) if !service.vips.is_empty() && !has_asked(&service.vips) => {
            not_asked()
        }
        (Found::Service(service, all), _) => {
            let candidates = all
                .iter()
                .filter(|one| one.chance.is_some_and(|chance| chance > 0.0));
            let words = format!(
                "{}; endpoints: {}, of which the next connection may go to {}",
                service.name,
                all.len(),
                candidates.count()
            );
            ("known", words)
        }
        (Found::Workload(one), _) => {
            let workload = one.workload.as_deref().unwrap_or_default();
            ("known", format!("{question} is an address of {workload}"))
        }
        (Found::Nobody, Sought::At(ip)) if world.has_heard_of(*ip) => {
            ("unknown", format!("the registry knows nothing of {question}"))
        }
        (Found::Nobody, Sought::Named { .. }) if world.knows_everything() => {
            ("unknown", format!("the registry knows no service {question}"))
        }
        (Found::Nobody, _) => not_asked(),
    }
}

pub(super) fn registry(feed: &Feed, world: &Snapshot) -> RegistryReport {
    let status = feed.status.borrow().clone();
    RegistryReport::new(world.generation, status.loaded, status.error, SystemTime::now())
}

fn service_report(service: &Service) -> ServiceReport {
    let balancing = &service.balancing;
    ServiceReport {
        name: service.name.to_string(),
        addresses: service.vips.iter().map(ToString::to_string).collect(),
        ports: service.ports.keys().copied().collect(),
        balancing: match balancing.mode {
            BalanceMode::Any => "any",
            BalanceMode::Strict => "strict",
            BalanceMode::Failover => "failover",
            BalanceMode::Passthrough => "passthrough",
        }
        .into(),
        scopes: balancing.scopes.iter().map(|scope| scope.name().into()).collect(),
        affinity_seconds: service.affinity.map(|affinity| affinity.timeout.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use tokio::sync::watch;

    use super::*;
    use crate::discovery::Status;
    use crate::model::{Locality, ServiceName, SpiffeId, TunnelProtocol, Workload};

    const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 1));

    fn world() -> Snapshot {
        let name = ServiceName {
            namespace: "demo".into(),
            hostname: "web.demo.svc".into(),
        };
        let service = Service {
            name: name.clone(),
            vips: vec![VIP],
            ports: BTreeMap::from([(80, 8080), (443, 8443)]),
            ..Service::default()
        };
        let workload = Workload {
            uid: "w".into(),
            name: "web-0".into(),
            namespace: "demo".into(),
            identity: SpiffeId::new("td.test", "demo", "web").unwrap(),
            addresses: vec![[10, 0, 0, 1].into()],
            protocol: TunnelProtocol::Hbone,
            healthy: true,
            capacity: 1,
            locality: Locality::default(),
            node: String::new(),
        };
        let serves = BTreeMap::from([(name, BTreeMap::new())]);
        Snapshot::build(&Snapshot::default(), vec![service], vec![(workload, serves)])
    }

    fn list(world: Snapshot, asked: &str) -> EndpointList {
        let status = Status {
            generation: world.generation,
            loaded: SystemTime::now(),
            failures: 0,
            error: None,
            warnings: Vec::new(),
        };
        let endpoints = Endpoints {
            own: Own {
                name: "client".into(),
                identity: SpiffeId::new("td.test", "demo", "client").unwrap(),
                addresses: Vec::new(),
                node: String::new(),
            },
            unknown: Unknown::PassThrough,
            feed: Feed {
                snapshots: watch::channel(Arc::new(world)).1,
                status: watch::channel(status).1,
            },
            affinities: Arc::default(),
        };
        let question = EndpointsQuestion::parse(&format!("service={asked}")).unwrap();
        endpoints.list(&question)
    }

    #[test]
    fn a_service_is_found_by_name_and_address_with_each_port_or_one() {
        let ports = |asked: &str| -> Vec<String> {
            let list = list(world(), asked);
            assert_eq!(list.knowledge, "known", "{asked}");
            list.endpoints.into_iter().map(|one| one.address).collect()
        };
        assert_eq!(ports("demo/web.demo.svc"), ["10.0.0.1:8080", "10.0.0.1:8443"]);
        assert_eq!(ports("demo/web.demo.svc:443"), ["10.0.0.1:8443"]);
        assert_eq!(ports("10.96.0.1:80"), ["10.0.0.1:8080"]);
        assert_eq!(ports("10.96.0.1"), ports("demo/web.demo.svc"));
        assert_eq!(ports("10.0.0.1"), ["10.0.0.1"]);
        assert_eq!(ports("10.0.0.1:9000"), ["10.0.0.1:9000"], "a workload by itself");
        assert_eq!(
            ports("demo/web.demo.svc:81"),
            ["10.0.0.1"],
            "it serves no such port"
        );
    }

    #[test]
    fn what_was_never_dialled_is_said_not_to_be_asked_for_and_not_to_be_empty() {
        let knowledge = |world: Snapshot, asked: &str| list(world, asked).knowledge.into_owned();
        assert_eq!(knowledge(world(), "demo/other"), "unknown");
        assert_eq!(
            knowledge(world(), "other/web.demo.svc"),
            "unknown",
            "of another namespace"
        );
        let on_demand = |known: &[IpAddr]| {
            let known: HashMap<_, _> = known.iter().map(|ip| (*ip, Arc::default())).collect();
            world().with_known(known)
        };
        assert_eq!(knowledge(on_demand(&[]), "demo/other"), "not_asked");
        assert_eq!(knowledge(on_demand(&[]), "10.9.9.9:80"), "not_asked");
        assert_eq!(
            knowledge(on_demand(&[]), "demo/web.demo.svc"),
            "not_asked",
            "nor its endpoints"
        );
        assert_eq!(knowledge(on_demand(&[VIP]), "demo/web.demo.svc"), "known");
        assert_eq!(
            knowledge(on_demand(&["10.9.9.9".parse().unwrap()]), "10.9.9.9:80"),
            "unknown"
        );
    }
}
