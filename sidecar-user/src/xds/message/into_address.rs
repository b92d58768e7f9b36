//! Workloads and services as they are written.

use prost::Message as _;

use super::address as wire;
use super::delta::Any;
use super::parts::{Numbered as _, octets};
use crate::model::TunnelProtocol;
use crate::model::balancing::{Affinity, HealthPolicy};
use crate::model::workload::Locality;
use crate::xds::{ServiceResource, WorkloadResource};

/// Of the extension that carries how long a client stays with one endpoint.
pub(super) const AFFINITY: &str = "outrigger.example/affinity";
pub(super) const AFFINITY_URL: &str = "type.googleapis.com/outrigger.example.Affinity";

impl From<&WorkloadResource> for wire::Address {
    fn from(workload: &WorkloadResource) -> Self {
        Self {
            of: Some(wire::AddressType::Workload(Box::new(workload.into()))),
        }
    }
}

impl From<&ServiceResource> for wire::Address {
    fn from(service: &ServiceResource) -> Self {
        Self {
            of: Some(wire::AddressType::Service(Box::new(service.into()))),
        }
    }
}

impl From<&WorkloadResource> for wire::Workload {
    fn from(workload: &WorkloadResource) -> Self {
        let services = workload.services.iter().map(|(name, ports)| {
            let ports = ports.iter().map(Into::into).collect();
            (name.to_string(), wire::PortList { ports })
        });
        Self {
            uid: workload.uid.clone(),
            name: workload.name.clone(),
            namespace: workload.namespace.clone(),
            addresses: workload.addresses.iter().map(|ip| octets(*ip)).collect(),
            hostname: workload.hostname.clone(),
            network: workload.network.clone(),
            tunnel_protocol: i32::from(workload.tunnel_protocol == TunnelProtocol::Hbone),
            trust_domain: workload.trust_domain.clone(),
            service_account: workload.service_account.clone(),
            waypoint: workload.waypoint.as_ref().map(Into::into),
            network_gateway: workload.network_gateway.as_ref().map(Into::into),
            node: workload.node.clone(),
            canonical_name: workload.canonical_name.clone(),
            canonical_revision: workload.canonical_revision.clone(),
            workload_type: workload.workload_type.number(),
            workload_name: workload.workload_name.clone(),
            native_tunnel: workload.native_tunnel,
            application_tunnel: workload.application_tunnel.map(|tunnel| wire::ApplicationTunnel {
                protocol: i32::from(tunnel.proxy),
                port: tunnel.port.into(),
            }),
            services: services.collect(),
            authorization_policies: workload.authorization_policies.clone(),
            status: i32::from(workload.unhealthy),
            cluster_id: workload.cluster_id.clone(),
            locality: (workload.locality != Locality::default()).then(|| wire::Locality {
                region: workload.locality.region.clone(),
                zone: workload.locality.zone.clone(),
                subzone: workload.locality.subzone.clone(),
            }),
            network_mode: i32::from(workload.host_network),
            capacity: workload.capacity.map(|value| wire::UInt32Value { value }),
        }
    }
}

impl From<&ServiceResource> for wire::Service {
    fn from(service: &ServiceResource) -> Self {
        let balancing = &service.load_balancing;
        let waypoints = service.weighted_waypoints.iter();
        Self {
            name: service.name.clone(),
            namespace: service.namespace.clone(),
            hostname: service.hostname.clone(),
            addresses: service.addresses.iter().map(Into::into).collect(),
            ports: service.ports.iter().map(Into::into).collect(),
            subject_alt_names: service.subject_alt_names.clone(),
            waypoint: service.waypoint.as_ref().map(Into::into),
            load_balancing: (*balancing != Default::default()).then(|| wire::LoadBalancing {
                routing_preference: balancing.scopes.iter().map(|s| s.number()).collect(),
                mode: balancing.mode.number(),
                health_policy: i32::from(balancing.health == HealthPolicy::AllowAll),
            }),
            ip_families: service.ip_families.number(),
            extensions: service.affinity.map(affinity).into_iter().collect(),
            canonical: service.canonical,
            ingress_use_waypoint: service.ingress_use_waypoint,
            weighted_waypoints: waypoints
                .map(|(gateway, weight)| wire::WeightedWaypoint {
                    destination: Some(gateway.into()),
                    weight: *weight,
                })
                .collect(),
            visibility: i32::from(service.private),
        }
    }
}

fn affinity(affinity: Affinity) -> wire::Extension {
    let seconds = u32::try_from(affinity.timeout.as_secs()).unwrap_or(u32::MAX);
    wire::Extension {
        name: AFFINITY.to_owned(),
        config: Some(Any {
            type_url: AFFINITY_URL.to_owned(),
            value: wire::Affinity { seconds }.encode_to_vec().into(),
        }),
    }
}
