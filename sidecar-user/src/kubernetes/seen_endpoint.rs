//! Who stands behind one Service, by its EndpointSlices as they are now, ready or not: what a person compares with what a proxy knows.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::ListParams;

use super::{Client, Error};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenEndpoint {
    pub address: SocketAddr,
    /// The name of the Service's port that leads to this one; empty where it has no other.
    pub port: String,
    pub is_ready: bool,
    /// `namespace/name`, where it is one.
    pub pod: Option<String>,
    pub node: Option<String>,
}

/// One of each address and port, in order.
pub async fn seen_endpoints(
    client: &Client,
    namespace: &str,
    service: &str,
) -> Result<Vec<SeenEndpoint>, Error> {
    let api: Api<EndpointSlice> = Api::namespaced(client.inner(), namespace);
    let of_it = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    let listed = api.list(&of_it).await;
    let listed = listed.map_err(|source| Error::asked("list EndpointSlices", source))?;
    let mut all: Vec<SeenEndpoint> = listed.items.into_iter().flat_map(read).collect();
    // While an endpoint moves from one slice to another it may stand in both.
    all.sort_by(|a, b| (a.address, &a.port, !a.is_ready).cmp(&(b.address, &b.port, !b.is_ready)));
    all.dedup_by(|a, b| a.address == b.address && a.port == b.port);
    Ok(all)
}

fn read(slice: EndpointSlice) -> Vec<SeenEndpoint> {
    let namespace = slice.metadata.namespace.unwrap_or_default();
    let ports: Vec<(String, u16)> = slice
        .ports
        .unwrap_or_default()
        .into_iter()
        .filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"))
        .filter_map(|port| Some((port.name.unwrap_or_default(), u16::try_from(port.port?).ok()?)))
        .collect();
    let mut all = Vec::new();
    for endpoint in slice.endpoints.unwrap_or_default() {
        let ready = endpoint.conditions.and_then(|conditions| conditions.ready);
        let pod = endpoint.target_ref.filter(|of| of.kind.as_deref() == Some("Pod"));
        let pod = pod.and_then(|pod| {
            Some(format!(
                "{}/{}",
                pod.namespace.unwrap_or_else(|| namespace.clone()),
                pod.name?
            ))
        });
        for ip in endpoint
            .addresses
            .iter()
            .filter_map(|ip| ip.parse::<IpAddr>().ok())
        {
            all.extend(ports.iter().map(|(name, port)| SeenEndpoint {
                address: SocketAddr::new(ip, *port),
                port: name.clone(),
                // By the API's own words, unknown is ready.
                is_ready: ready.unwrap_or(true),
                pod: pod.clone(),
                node: endpoint.node_name.clone(),
            }));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_address_is_read_with_each_port_of_tcp() {
        let slice = json!({
            "metadata": { "namespace": "shop" }, "addressType": "IPv4",
            "ports": [{ "name": "http", "port": 8080 }, { "name": "dns", "port": 53, "protocol": "UDP" }],
            "endpoints": [
                { "addresses": ["10.0.0.9"], "conditions": { "ready": true }, "nodeName": "n1",
                  "targetRef": { "kind": "Pod", "namespace": "shop", "name": "web-0" } },
                { "addresses": ["10.0.0.8"], "conditions": { "ready": false } } ]
        });
        let read = read(serde_json::from_value(slice).unwrap());
        let told: Vec<_> = read
            .iter()
            .map(|one| {
                (
                    one.address.to_string(),
                    one.port.as_str(),
                    one.is_ready,
                    one.pod.as_deref(),
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                ("10.0.0.9:8080".to_owned(), "http", true, Some("shop/web-0")),
                ("10.0.0.8:8080".to_owned(), "http", false, None),
            ]
        );
    }
}
