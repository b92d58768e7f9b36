//! Resources for tests.

use crate::model::authorization::{Action, PolicyName, Scope};
use crate::model::{ServiceName, TunnelProtocol};
use crate::xds::{AuthorizationResource, NetworkAddress, Port, Resource, ServiceResource, WorkloadResource};

/// A pod of the namespace `demo`, behind these services of it.
pub(crate) fn workload(name: &str, address: &str, services: &[&str]) -> Resource {
    let ports = vec![Port {
        service_port: 80,
        target_port: 8080,
        ..Port::default()
    }];
    let services = services
        .iter()
        .map(|service| (service_name(service), ports.clone()));
    Resource::Workload(WorkloadResource {
        uid: format!("cluster//Pod/demo/{name}"),
        name: name.into(),
        namespace: "demo".into(),
        addresses: vec![address.parse().expect("it is an address")],
        tunnel_protocol: TunnelProtocol::Hbone,
        trust_domain: "td.test".into(),
        service_account: name.into(),
        services: services.collect(),
        ..WorkloadResource::default()
    })
}

/// A service of the namespace `demo`.
pub(crate) fn service(name: &str, vips: &[&str]) -> Resource {
    let vips = vips.iter().map(|vip| vip.parse().expect("it is an address"));
    let ServiceName { hostname, .. } = service_name(name);
    Resource::Service(ServiceResource {
        name: name.into(),
        namespace: "demo".into(),
        hostname: hostname.to_string(),
        addresses: vips.map(NetworkAddress::of).collect(),
        ports: vec![Port {
            service_port: 80,
            target_port: 8080,
            ..Port::default()
        }],
        ..ServiceResource::default()
    })
}

pub(crate) fn service_name(name: &str) -> ServiceName {
    ServiceName {
        namespace: "demo".into(),
        hostname: format!("{name}.demo.svc.cluster.local").into(),
    }
}

/// An ALLOW that lets nobody in.
pub(crate) fn policy(namespace: &str, name: &str, scope: Scope) -> Resource {
    Resource::Policy(AuthorizationResource {
        name: PolicyName {
            namespace: namespace.into(),
            name: name.into(),
        },
        scope,
        action: Action::Allow,
        rules: Vec::new(),
        dry_run: false,
    })
}
