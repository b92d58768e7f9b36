//! Objects of the namespace `demo`, each with as little as it needs.

use std::sync::Arc;

use crate::kubernetes::{Conditions, Families, Hints, Place, ServicePort};

pub(super) use crate::kubernetes::{
    Distribution, Node, ObjectName, Owner, Service, Slice, SliceEndpoint, WorkloadPod,
};

pub(super) fn name(name: &str) -> ObjectName {
    ObjectName::new("demo", name)
}

pub(super) fn node(name: &str, zone: &str) -> Node {
    Node {
        name: name.into(),
        region: "r1".into(),
        zone: zone.into(),
    }
}

/// Ready, on `n1`, without a sidecar. Several addresses are separated by spaces.
pub(super) fn pod(pod: &str, addresses: &str) -> WorkloadPod {
    WorkloadPod {
        name: name(pod),
        service_account: "web".into(),
        node: "n1".into(),
        addresses: addresses
            .split_whitespace()
            .map(|ip| ip.parse().unwrap())
            .collect(),
        host_network: false,
        has_proxy: false,
        ready: true,
        finished: false,
        labels: Arc::default(),
        owner: None,
    }
}

/// One cluster IP, port `web` 80 to 8080.
pub(super) fn service(service: &str) -> Service {
    Service {
        name: name(service),
        external_name: false,
        cluster_ips: vec!["10.96.0.1".parse().unwrap()],
        external_ips: vec![],
        ingress_ips: vec![],
        ip_families: Families { v4: true, v6: false },
        ports: vec![port("web", 80, Some(8080))],
        publish_not_ready: false,
        affinity: None,
        internal_local: false,
        distribution: Distribution::Any,
    }
}

pub(super) fn port(name: &str, port: u16, target: Option<u16>) -> ServicePort {
    ServicePort {
        name: name.into(),
        port,
        target,
        app_protocol: None,
    }
}

/// Port `web` is 8080.
pub(super) fn slice(slice: &str, service: &str, endpoints: &[SliceEndpoint]) -> Slice {
    Slice {
        name: name(slice),
        service: Some(service.into()),
        ports: vec![("web".into(), 8080)],
        endpoints: endpoints.to_vec(),
        triggered: None,
    }
}

/// A ready endpoint that is no pod.
pub(super) fn at(address: &str) -> SliceEndpoint {
    SliceEndpoint {
        address: address.parse().unwrap(),
        pod: None,
        conditions: Conditions {
            ready: true,
            serving: true,
            terminating: false,
        },
        hints: Hints::default(),
        place: None,
    }
}

impl SliceEndpoint {
    pub(super) fn of(mut self, pod: &str) -> Self {
        self.pod = Some(pod.into());
        self
    }

    pub(super) fn ready(mut self, ready: bool) -> Self {
        self.conditions.ready = ready;
        self.conditions.serving = ready;
        self
    }

    pub(super) fn terminating(mut self, serving: bool) -> Self {
        self.conditions = Conditions {
            ready: false,
            serving,
            terminating: true,
        };
        self
    }

    pub(super) fn hints(mut self, zones: bool, nodes: bool) -> Self {
        self.hints = Hints { zones, nodes };
        self
    }

    pub(super) fn on(mut self, node: &str, zone: &str) -> Self {
        self.place = Some(Box::new(Place {
            node: node.into(),
            zone: zone.into(),
        }));
        self
    }
}
