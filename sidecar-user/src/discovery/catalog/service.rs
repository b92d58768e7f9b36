//! One Service as a resource.

use super::endpoints::Endpoints;
use super::names::Names;
use super::objects::Objects;
use crate::kubernetes::{Distribution, ObjectName, Service, ServicePort};
use crate::model::balancing::{Affinity, BalanceMode, Balancing, HealthPolicy, Scope};
use crate::xds::{AppProtocol, IpFamilies, NetworkAddress, Port, ServiceResource};

/// `None` where there is none, and for an alias in DNS: who it is an alias of says DNS.
pub(super) fn resource(names: &Names, objects: &Objects, name: &ObjectName) -> Option<ServiceResource> {
    let service = objects.service(name).filter(|service| !service.external_name)?;
    let hints = objects.endpoints(name).map(Endpoints::hints).unwrap_or_default();
    Some(ServiceResource {
        name: name.name.to_string(),
        namespace: name.namespace.to_string(),
        hostname: names.service(name).hostname.to_string(),
        addresses: addresses(service),
        ports: service.ports.iter().map(port).collect(),
        load_balancing: balancing(service, hints),
        ip_families: match (service.ip_families.v4, service.ip_families.v6) {
            (true, true) => IpFamilies::Dual,
            (true, false) => IpFamilies::V4,
            (false, true) => IpFamilies::V6,
            (false, false) => IpFamilies::Automatic,
        },
        canonical: true,
        affinity: service.affinity.map(|timeout| Affinity { timeout }),
        ..ServiceResource::default()
    })
}

fn addresses(service: &Service) -> Vec<NetworkAddress> {
    let mut addresses = Vec::new();
    for list in [&service.cluster_ips, &service.external_ips, &service.ingress_ips] {
        for address in list {
            let address = NetworkAddress::of(*address);
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    addresses
}

fn port(port: &ServicePort) -> Port {
    Port {
        service_port: port.port,
        target_port: port.target.unwrap_or_default(),
        app_protocol: match port.app_protocol.as_deref() {
            Some("http") => AppProtocol::Http11,
            Some("http2" | "kubernetes.io/h2c") => AppProtocol::Http2,
            Some("grpc") => AppProtocol::Grpc,
            Some("tcp") => AppProtocol::Tcp,
            Some("tls" | "https") => AppProtocol::Tls,
            _ => AppProtocol::Unknown,
        },
    }
}

/// What the Service says of itself wins over what its slices say.
fn balancing(service: &Service, hints: Distribution) -> Balancing {
    let distribution = match service.distribution {
        Distribution::Any => hints,
        said => said,
    };
    let (scopes, mode) = match distribution {
        _ if service.internal_local => (vec![Scope::Node], BalanceMode::Strict),
        Distribution::Any => (Vec::new(), BalanceMode::Any),
        // Where they are in no zone or node of the client's, those that share less are taken.
        Distribution::SameZone => (
            vec![Scope::Network, Scope::Region, Scope::Zone],
            BalanceMode::Failover,
        ),
        Distribution::SameNode => {
            let scopes = [
                Scope::Network,
                Scope::Region,
                Scope::Zone,
                Scope::Subzone,
                Scope::Node,
            ];
            (scopes.into(), BalanceMode::Failover)
        }
    };
    Balancing {
        scopes,
        mode,
        health: match service.publish_not_ready {
            true => HealthPolicy::AllowAll,
            false => HealthPolicy::OnlyHealthy,
        },
    }
}
