//! One pod, or one endpoint that is none, as a resource.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::endpoints::{State, Summary};
use super::names::Names;
use super::objects::Objects;
use crate::kubernetes::{ObjectName, Owner, Service, WorkloadPod};
use crate::model::authorization::PolicyName;
use crate::model::workload::Locality;
use crate::model::{ServiceName, TunnelProtocol};
use crate::xds::{Port, WorkloadResource, WorkloadType};

/// `None` where there is none, and while it has no address. `policies` select it.
pub(super) fn of_pod(
    names: &Names,
    objects: &Objects,
    policies: &[PolicyName],
    name: &ObjectName,
) -> Option<WorkloadResource> {
    let pod = objects.pod(name).filter(|pod| !pod.addresses.is_empty())?;
    let mut serves = Serves::default();
    for address in &pod.addresses {
        let is_owner = !pod.host_network && objects.owner(*address) == Some(name);
        for (service, endpoints) in objects.serving_at(*address) {
            let summary = endpoints.summary(*address, |said| match said {
                Some(pod) => pod == &*name.name && service.name.namespace == name.namespace,
                None => is_owner,
            });
            if let Some(summary) = summary {
                let is_used = endpoints.is_used(summary.state);
                serves.add(names.service(&service.name), service, &summary, is_used);
            }
        }
    }
    let (services, unhealthy) = serves.settle(pod.ready);
    let node = objects.node(&pod.node);
    let (workload_type, workload_name) = maker(pod);
    let label = |names: [&str; 3]| names.iter().find_map(|name| pod.labels.get(*name)).cloned();
    Some(WorkloadResource {
        uid: names.pod_uid(name),
        name: name.name.to_string(),
        namespace: name.namespace.to_string(),
        addresses: pod.addresses.clone(),
        // A sidecar in the pod of a node's own network would intercept the node.
        tunnel_protocol: match pod.has_proxy && !pod.host_network {
            true => TunnelProtocol::Hbone,
            false => TunnelProtocol::None,
        },
        trust_domain: names.trust_domain.clone(),
        service_account: pod.service_account.clone(),
        node: pod.node.to_string(),
        canonical_name: label(["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"])
            .unwrap_or_else(|| workload_name.clone()),
        canonical_revision: label([
            "service.istio.io/canonical-revision",
            "app.kubernetes.io/version",
            "version",
        ])
        .unwrap_or_else(|| "latest".to_owned()),
        workload_name,
        workload_type,
        services,
        authorization_policies: policies.iter().map(ToString::to_string).collect(),
        unhealthy,
        cluster_id: names.cluster.clone(),
        locality: Locality {
            region: node.map(|node| node.region.clone()).unwrap_or_default(),
            zone: node.map(|node| node.zone.clone()).unwrap_or_default(),
            subzone: String::new(),
        },
        host_network: pod.host_network,
        ..WorkloadResource::default()
    })
}

/// What an EndpointSlice has at this address that is no pod. Nothing is known of it but that, and others may have the same
/// address, so that the address alone does not tell it.
pub(super) fn of_endpoint(
    names: &Names,
    objects: &Objects,
    service: &ObjectName,
    address: IpAddr,
) -> Option<WorkloadResource> {
    let endpoints = objects.endpoints(service)?;
    let summary = endpoints.summary(address, |pod| pod.is_none())?;
    if objects.owner(address).is_some() {
        return None;
    }
    let service = objects.service(service)?;
    let is_used = endpoints.is_used(summary.state);
    let mut serves = Serves::default();
    serves.add(names.service(&service.name), service, &summary, is_used);
    let (services, unhealthy) = serves.settle(true);
    let place = summary.endpoint.place.as_deref().cloned().unwrap_or_default();
    let slice = &summary.slice.name;
    (!services.is_empty()).then(|| WorkloadResource {
        uid: format!(
            "{}/discovery.k8s.io/EndpointSlice/{slice}/{address}",
            names.cluster
        ),
        name: slice.name.to_string(),
        namespace: slice.namespace.to_string(),
        addresses: vec![address],
        tunnel_protocol: TunnelProtocol::None,
        trust_domain: names.trust_domain.clone(),
        node: place.node,
        services,
        unhealthy,
        cluster_id: names.cluster.clone(),
        locality: Locality {
            zone: place.zone,
            ..Locality::default()
        },
        host_network: true,
        ..WorkloadResource::default()
    })
}

/// The services that a workload stands behind, as they are collected.
#[derive(Default)]
struct Serves {
    used: BTreeMap<ServiceName, Vec<Port>>,
    not_ready: BTreeMap<ServiceName, Vec<Port>>,
    /// What those say who distinguish.
    healthy: Option<bool>,
}

impl Serves {
    fn add(&mut self, name: ServiceName, service: &Service, summary: &Summary<'_>, is_used: bool) {
        if service.external_name {
            return;
        }
        let ports: Vec<Port> = service
            .ports
            .iter()
            .filter_map(|port| {
                Some(Port {
                    service_port: port.port,
                    target_port: *summary.ports.get(&*port.name)?,
                    ..Port::default()
                })
            })
            .collect();
        let collected = match summary.state {
            _ if is_used => &mut self.used,
            State::NotReady if !service.publish_not_ready => &mut self.not_ready,
            _ => return,
        };
        if !service.publish_not_ready {
            self.healthy = Some(is_used || self.healthy == Some(true));
        }
        if ports.is_empty() {
            return;
        }
        let known = collected.entry(name).or_default();
        for port in ports {
            // By its other address it is the same endpoint.
            if !known.iter().any(|known| known.service_port == port.service_port) {
                known.push(port);
            }
        }
    }

    /// Clients leave out unhealthy workloads, whatever the service, so those that are not ready for one service and ready for
    /// another are left out of the first one here.
    fn settle(mut self, ready: bool) -> (BTreeMap<ServiceName, Vec<Port>>, bool) {
        let healthy = self.healthy.unwrap_or(ready);
        if !healthy {
            for (name, ports) in self.not_ready {
                self.used.entry(name).or_insert(ports);
            }
        }
        (self.used, !healthy)
    }
}

/// Who made the pod: what owns it, and for a ReplicaSet the Deployment that owns that.
fn maker(pod: &WorkloadPod) -> (WorkloadType, String) {
    let Some(Owner { kind, name }) = &pod.owner else {
        return (WorkloadType::Pod, pod.name.name.to_string());
    };
    let hash = pod.labels.get("pod-template-hash");
    let deployment = hash.and_then(|hash| name.strip_suffix(&format!("-{hash}")));
    match (&**kind, deployment) {
        ("ReplicaSet", Some(deployment)) => (WorkloadType::Deployment, deployment.to_owned()),
        ("Job", _) => match name.rsplit_once('-') {
            // A CronJob appends the minutes of the time for which it made the Job.
            Some((cron, minutes))
                if minutes.len() >= 8 && minutes.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                (WorkloadType::CronJob, cron.to_owned())
            }
            _ => (WorkloadType::Job, name.clone()),
        },
        _ => (WorkloadType::Pod, name.clone()),
    }
}
