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

/// To a server of its own, until `up` says that it is away.
pub(crate) fn channel(
    discovery: crate::xds::Discovery,
    up: tokio::sync::watch::Sender<bool>,
) -> tonic::transport::Channel {
    let (theirs, ours) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
    let [theirs, ours, cut] = [theirs.try_clone(), Ok(ours), Ok(theirs)].map(|end| {
        let end = end.expect("another descriptor of it");
        end.set_nonblocking(true).expect("it is a socket");
        tokio::net::UnixStream::from_std(end).expect("within a runtime")
    });
    tokio::spawn(async move {
        let incoming = futures_util::stream::once(std::future::ready(Ok::<_, std::io::Error>(theirs)));
        // One that has been served is followed by no other, and the server lives on for it.
        let incoming = futures_util::StreamExt::chain(incoming, futures_util::stream::pending());
        let serving = tonic::transport::Server::builder()
            .add_service(discovery.service())
            .serve_with_incoming(incoming);
        let mut up = up.subscribe();
        tokio::select! {
            served = serving => served.expect("it serves"),
            _ = up.wait_for(|up| !*up) => {}
        }
        // The task that serves the connection is the server's own, and outlives it.
        let mut cut = cut;
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut cut).await;
    });
    let mut ours = Some(ours);
    tonic::transport::Endpoint::from_static("http://server").connect_with_connector_lazy(tower::service_fn(
        move |_| {
            let ours = ours.take();
            async move {
                let gone = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
                ours.map(hyper_util::rt::TokioIo::new).ok_or(gone)
            }
        },
    ))
}
