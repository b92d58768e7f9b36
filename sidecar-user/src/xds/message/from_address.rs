//! Workloads and services as they are read. What is wrong with one rejects it, and says why; a number of a later version
//! means what its absence means, unless it would send traffic elsewhere.

use std::time::Duration;

use prost::Message as _;

use super::address as wire;
use super::into_address::AFFINITY_URL;
use super::parts::{Numbered, ip, port, service_name};
use super::rejected::Rejected;
use crate::model::TunnelProtocol;
use crate::model::balancing::{Affinity, BalanceMode, Balancing, HealthPolicy, Scope};
use crate::model::workload::Locality;
use crate::xds::{ApplicationTunnel, IpFamilies, Resource, ServiceResource, WorkloadResource, WorkloadType};

impl TryFrom<wire::Address> for Resource {
    type Error = Rejected;

    fn try_from(address: wire::Address) -> Result<Self, Rejected> {
        match address.of {
            Some(wire::AddressType::Workload(workload)) => Ok(Self::Workload((*workload).try_into()?)),
            Some(wire::AddressType::Service(service)) => Ok(Self::Service((*service).try_into()?)),
            None => Err(Rejected::field("type", "it is neither a workload nor a service")),
        }
    }
}

impl TryFrom<wire::Workload> for WorkloadResource {
    type Error = Rejected;

    fn try_from(workload: wire::Workload) -> Result<Self, Rejected> {
        if workload.uid.is_empty() {
            return Err(Rejected::field("uid", "it is empty"));
        }
        let tunnel_protocol = match workload.tunnel_protocol {
            0 => TunnelProtocol::None,
            1 => TunnelProtocol::Hbone,
            other => {
                let what = format!("{other} is no protocol that is spoken here; 0 is none, 1 is HBONE");
                return Err(Rejected::field("tunnel_protocol", what));
            }
        };
        let addresses = workload.addresses.iter().map(|octets| ip("addresses", octets));
        let services = workload.services.into_iter().map(|(name, list)| {
            let ports: Result<_, _> = list.ports.into_iter().map(TryInto::try_into).collect();
            Ok((service_name("services", &name)?, ports?))
        });
        let locality = workload.locality.unwrap_or_default();
        Ok(Self {
            uid: workload.uid,
            name: workload.name,
            namespace: workload.namespace,
            addresses: addresses.collect::<Result<_, _>>()?,
            hostname: workload.hostname,
            network: workload.network,
            tunnel_protocol,
            trust_domain: workload.trust_domain,
            service_account: workload.service_account,
            waypoint: workload.waypoint.map(TryInto::try_into).transpose()?,
            network_gateway: workload.network_gateway.map(TryInto::try_into).transpose()?,
            node: workload.node,
            canonical_name: workload.canonical_name,
            canonical_revision: workload.canonical_revision,
            workload_name: workload.workload_name,
            workload_type: WorkloadType::from_number(workload.workload_type).unwrap_or_default(),
            native_tunnel: workload.native_tunnel,
            application_tunnel: workload
                .application_tunnel
                .map(|tunnel| {
                    Ok(ApplicationTunnel {
                        proxy: tunnel.protocol == 1,
                        port: port("application_tunnel", tunnel.port)?,
                    })
                })
                .transpose()?,
            services: services.collect::<Result<_, Rejected>>()?,
            authorization_policies: workload.authorization_policies,
            unhealthy: workload.status != 0,
            cluster_id: workload.cluster_id,
            locality: Locality {
                region: locality.region,
                zone: locality.zone,
                subzone: locality.subzone,
            },
            host_network: workload.network_mode == 1,
            capacity: workload.capacity.map(|capacity| capacity.value),
        })
    }
}

impl TryFrom<wire::Service> for ServiceResource {
    type Error = Rejected;

    fn try_from(service: wire::Service) -> Result<Self, Rejected> {
        if service.hostname.is_empty() || service.hostname.contains('/') {
            return Err(Rejected::field("hostname", "it is empty, or has a slash"));
        }
        let addresses = service.addresses.into_iter().map(TryInto::try_into);
        let ports = service.ports.into_iter().map(TryInto::try_into);
        let waypoints = service.weighted_waypoints.into_iter().map(|waypoint| {
            let destination = waypoint.destination;
            let missing = || Rejected::field("weighted_waypoints", "the gateway is not named");
            Ok((destination.ok_or_else(missing)?.try_into()?, waypoint.weight))
        });
        let affinity = affinity(&service.extensions)?;
        Ok(Self {
            name: service.name,
            namespace: service.namespace,
            hostname: service.hostname,
            addresses: addresses.collect::<Result<_, _>>()?,
            ports: ports.collect::<Result<_, _>>()?,
            subject_alt_names: service.subject_alt_names,
            waypoint: service.waypoint.map(TryInto::try_into).transpose()?,
            load_balancing: service
                .load_balancing
                .map(TryInto::try_into)
                .transpose()?
                .unwrap_or_default(),
            ip_families: IpFamilies::from_number(service.ip_families).unwrap_or_default(),
            canonical: service.canonical,
            ingress_use_waypoint: service.ingress_use_waypoint,
            weighted_waypoints: waypoints.collect::<Result<_, Rejected>>()?,
            private: service.visibility == 1,
            affinity,
        })
    }
}

impl TryFrom<wire::LoadBalancing> for Balancing {
    type Error = Rejected;

    fn try_from(balancing: wire::LoadBalancing) -> Result<Self, Rejected> {
        fn known<T: Numbered>(field: &'static str, number: i32) -> Result<T, Rejected> {
            T::from_number(number).ok_or_else(|| Rejected::field(field, format!("{number} is not known")))
        }
        let scopes = balancing.routing_preference.into_iter();
        Ok(Self {
            scopes: scopes
                .map(|scope| known::<Scope>("routing_preference", scope))
                .collect::<Result<_, _>>()?,
            mode: known::<BalanceMode>("mode", balancing.mode)?,
            health: match balancing.health_policy {
                1 => HealthPolicy::AllowAll,
                _ => HealthPolicy::OnlyHealthy,
            },
        })
    }
}

fn affinity(extensions: &[wire::Extension]) -> Result<Option<Affinity>, Rejected> {
    let configs = extensions
        .iter()
        .filter_map(|extension| extension.config.as_ref());
    let Some(config) = configs.into_iter().find(|config| config.type_url == AFFINITY_URL) else {
        return Ok(None);
    };
    let affinity = wire::Affinity::decode(&*config.value)
        .map_err(|_| Rejected::field("extensions", "the affinity is malformed"))?;
    Ok(Some(Affinity {
        timeout: Duration::from_secs(affinity.seconds.into()),
    }))
}
