//! Where the pods behind one Service are, for a client that dials them itself.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use futures_util::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::runtime::watcher;
use tokio::sync::watch;

use super::{Change, Client, follow};

/// The name of the port, where the slices have another number than the Service.
const PORT: &str = "grpc";

/// Tells the addresses of the Service's pods that are ready. While the API server cannot be asked, those that were told last stay.
/// Never ends.
pub async fn follow_endpoints(
    client: &Client,
    namespace: &str,
    service: &str,
    port: u16,
    tell: &watch::Sender<Vec<SocketAddr>>,
) {
    let api: Api<EndpointSlice> = Api::namespaced(client.inner(), namespace);
    let config = watcher::Config::default().labels(&format!("kubernetes.io/service-name={service}"));
    let mut changes = std::pin::pin!(follow(api, config));
    let mut slices = Slices::default();
    while let Some(change) = changes.next().await {
        if let Change::Trouble(error) = &change {
            tracing::warn!(
                service,
                namespace,
                error,
                "the endpoints of a Service cannot be followed"
            );
        }
        if slices.apply(change) {
            let now = slices.addresses(port);
            tracing::debug!(service, namespace, ?now, "the endpoints of a Service");
            tell.send_if_modified(|known| {
                let is_other = *known != now;
                *known = now;
                is_other
            });
        }
    }
}

/// By name.
#[derive(Debug, Default)]
struct Slices(BTreeMap<String, EndpointSlice>);

impl Slices {
    /// Whether anything is different now.
    fn apply(&mut self, change: Change<EndpointSlice>) -> bool {
        let name = |slice: &EndpointSlice| slice.metadata.name.clone().unwrap_or_default();
        match change {
            Change::All(all) => self.0 = all.into_iter().map(|slice| (name(&slice), slice)).collect(),
            Change::Applied(slice) => drop(self.0.insert(name(&slice), slice)),
            Change::Gone(slice) => drop(self.0.remove(&name(&slice))),
            Change::Trouble(_) => return false,
        }
        true
    }

    /// Of the pods that are ready; where none is, of those that serve while they end.
    fn addresses(&self, port: u16) -> Vec<SocketAddr> {
        let of = |wanted: fn(Option<bool>, Option<bool>) -> bool| {
            let mut all: Vec<SocketAddr> = Vec::new();
            for slice in self.0.values() {
                let Some(port) = port_of(slice, port) else {
                    continue;
                };
                for endpoint in slice.endpoints.iter().flatten() {
                    let conditions = endpoint.conditions.clone().unwrap_or_default();
                    if wanted(conditions.ready, conditions.serving) {
                        let addresses = endpoint
                            .addresses
                            .iter()
                            .filter_map(|address| address.parse().ok());
                        all.extend(addresses.map(|address: IpAddr| SocketAddr::new(address, port)));
                    }
                }
            }
            all.sort_unstable();
            all.dedup();
            all
        };
        // Nobody having said is ready, as the API defines it.
        let ready = of(|ready, _| ready.unwrap_or(true));
        match ready.is_empty() {
            true => of(|_, serving| serving.unwrap_or(false)),
            false => ready,
        }
    }
}

/// The pods' port: of the same number, else the one by the name, else the only one.
fn port_of(slice: &EndpointSlice, wanted: u16) -> Option<u16> {
    let ports = slice.ports.as_deref().unwrap_or_default();
    let number = |port: &k8s_openapi::api::discovery::v1::EndpointPort| port.port;
    let found = ports
        .iter()
        .find(|port| number(port) == Some(wanted.into()))
        .or_else(|| ports.iter().find(|port| port.name.as_deref() == Some(PORT)))
        .or_else(|| ports.first().filter(|_| ports.len() == 1))?;
    number(found).and_then(|port| u16::try_from(port).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(json: serde_json::Value) -> EndpointSlice {
        serde_json::from_value(json).unwrap()
    }

    fn one(name: &str, ready: Option<bool>, serving: bool, addresses: &[&str]) -> EndpointSlice {
        slice(serde_json::json!({
            "metadata": { "name": name }, "addressType": "IPv4",
            "endpoints": [{ "addresses": addresses, "conditions": { "ready": ready, "serving": serving } }],
            "ports": [{ "name": "webhook", "port": 9443 }, { "name": "grpc", "port": 25012 }],
        }))
    }

    #[test]
    fn pods_that_are_ready_are_told_once_at_their_own_port() {
        let mut slices = Slices::default();
        let all = vec![
            one("a", Some(true), true, &["10.0.0.1"]),
            one("b", None, true, &["10.0.0.1"]),
        ];
        assert!(slices.apply(Change::All(all)));
        assert!(slices.apply(Change::Applied(one("c", Some(false), false, &["10.0.0.3"]))));
        assert_eq!(
            slices.addresses(15012),
            ["10.0.0.1:25012".parse::<SocketAddr>().unwrap()]
        );
    }

    #[test]
    fn where_none_is_ready_those_that_end_are_told() {
        let mut slices = Slices::default();
        slices.apply(Change::All(vec![one("a", Some(false), true, &["10.0.0.2"])]));
        assert_eq!(
            slices.addresses(15012),
            ["10.0.0.2:25012".parse::<SocketAddr>().unwrap()]
        );
    }

    #[test]
    fn an_api_server_that_is_away_changes_nothing() {
        let mut slices = Slices::default();
        slices.apply(Change::All(vec![one("a", Some(true), true, &["10.0.0.1"])]));
        assert!(!slices.apply(Change::Trouble("away".into())));
        assert_eq!(slices.addresses(15012).len(), 1);
    }
}
